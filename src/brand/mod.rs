//! Brands and topics: senders that recipients know, and their streams of messages.

pub mod api;
mod mailbox;
pub mod rows;

pub use mailbox::{Mailbox, MailboxError};
pub use rows::{Brand, Topic};
