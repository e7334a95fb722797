//! Policies: texts that a brand promises to keep, in versions.
//!
//! A version that was published never changes: its text is known by its SHA-256, and its pages stay. What may be
//! published when is decided here; who is told of it, in [`crate::notice`].

pub mod rows;
mod words;

pub use words::{Approval, Change, OnSilence, OnUntold, State};
