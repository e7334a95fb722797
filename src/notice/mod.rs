//! Notices: everyone is told of a change before it takes effect, and it can be proved.
//!
//! A notice has rounds: the first one tells of the change; later ones correct, postpone or withdraw it, or remind of it. The
//! unique pair of round and recipient carries that each person is written to once a round, whatever is repeated.

pub mod api;
pub mod banner;
pub mod clock;
mod error;
pub mod evidence;
pub mod lint;
pub mod message;
pub mod pages;
pub mod question;
pub mod rows;
pub mod standing;
pub mod text;
mod words;
pub mod worker;

pub use error::NoticeError;
pub use words::{AnsweredBy, Decision, Request, RoundKind, RoundState, State, ToldBy};
