//! Evidence: who was told what and when, as a chain of entries that cannot be changed without being noticed. Pure.
//!
//! Entries are added and never changed, and each holds the hash of the one before it ([`chain`]). No entry holds an
//! address: a person is known by the keyed hash of theirs, which outlives erasure. [`archive`] writes a chain, and all
//! that its hashes speak of, into one file that is verified without a database.

mod account;
pub mod archive;
pub mod body;
pub mod chain;
mod parts;
mod person;
mod story;
pub mod summary;
mod words;

pub use account::{Account, Bound};
pub use chain::{Break, Entry, Fault, Head, Verifier, seal_of_note};
pub use parts::{part_file, parts};
pub use person::Line;
pub use story::{About, Story};
pub use words::Kind;
