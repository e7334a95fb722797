//! Brands and topics: senders that recipients know, and their streams of messages.

pub mod rows;

pub use rows::{Brand, Topic};
