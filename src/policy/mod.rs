//! Policies: texts that a brand promises to keep, in versions.
//!
//! A version that was published never changes: its text is known by its SHA-256, and its pages stay. What may be
//! published when is decided here; who is told of it, in [`crate::notice`].

pub mod api;
pub mod changes;
mod draft;
pub mod markdown;
pub mod pages;
mod reader;
pub mod rows;
mod words;

pub use draft::{Calendar, Draft, Flaw, PolicyError, Translation, language_tag};
pub use reader::{direction, name as language_name};
pub use words::{Approval, Change, OnSilence, OnUntold, State};

/// The path of a policy's page below the base URL of its brand; as [`version_path`] for one version.
pub fn path(slug: &str) -> String {
    format!("/policies/{slug}")
}

/// The path of the page of one version; below it, `/changes` shows what it changed.
pub fn version_path(slug: &str, number: i64) -> String {
    format!("/policies/{slug}/{number}")
}

/// What one key has asked for, another one releases. `what` is the beginning of the sentence in which the former is told so.
///
/// # Errors
/// That sentence, for the key that asked.
pub fn must_be_another(what: &str, asked_by: Option<&str>, actor: &str) -> Result<(), String> {
    match asked_by == Some(actor) {
        true => Err(format!("{what} with this key; its policy asks that another one releases it.")),
        false => Ok(()),
    }
}
