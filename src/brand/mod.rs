//! Brands and topics: senders that recipients know, and their streams of messages.

pub mod api;
pub mod lint;
mod logo;
mod mailbox;
pub mod pages;
pub mod rows;

pub use logo::{Image, Logo};
pub use mailbox::{Mailbox, MailboxError};
pub use rows::{Brand, Topic};
