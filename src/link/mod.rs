//! Links: signed URLs that say what they are for and whom they concern, without naming anyone.
//!
//! Pure. A token carries all that an opt-out needs and depends on no row that is ever deleted, so it works for ever;
//! keys rotate in a ring, of which the first signs and all verify.

mod envelope;
mod keys;
#[cfg(test)]
mod tests;
mod token;

pub use envelope::{delivery_of_envelope, envelope_local};
pub use keys::{KeyRing, KeyRingError};
/// The part before the @ of the address that unsubscribes by mail.
pub const UNSUBSCRIBE: &str = "unsubscribe";

pub use token::{Link, LinkError, Purpose};
