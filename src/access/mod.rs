//! API keys and the record of who did what.

pub mod api;
pub mod rows;
