//! Opt-outs and opt-ins: events, never changed, and what they amount to.
//!
//! An event says who (a keyed hash of an address), what scope, by which channel, when, on what evidence, recorded by
//! whom. The order of a person's events is the order in which they were committed under the lock of the person's
//! address row; no clock takes part in it. What the events amount to now is kept as one row a scope.
//!
//! Recording alone guarantees nothing about messages under way: every way of opting out goes through
//! [`crate::fence`].

pub mod api;
pub(crate) mod by_link;
pub mod events;
pub mod form;
pub mod list;
pub(crate) mod mailto;
pub mod pages;
pub mod rows;
pub mod words;

pub use events::{Channel, OptIn, OptOut, Scope, Stood};
