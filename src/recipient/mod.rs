//! People: who they are, which brands they belong to, whom an audience means, and how files of them are read.
//!
//! A recipient is an address: one row per folded form, mailed as it was first spelt. Nothing here lifts an opt-out or
//! changes a standing: an upsert, an import or a campaign's line says who somebody is, never what they refused.

pub mod api;
pub mod change;
pub mod check;
pub mod filter;
pub mod import;
pub mod rows;
#[cfg(test)]
mod tests;

pub use change::{CustomerOf, Membership, Outcome, Refused, Upsert, Upserted};
pub use filter::Audience;
pub use rows::{Member, Recipient};
