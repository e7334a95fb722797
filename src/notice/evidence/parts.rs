//! What the messages of a round are made from, piece by piece, each known to the chain by its hash. Pure.

use sha2::{Digest, Sha256};

use super::body::ToldText;
use crate::message::Frozen;

/// The file of the piece that has this SHA-256.
pub fn part_file(sha256: &str) -> String {
    format!("parts/{sha256}.txt")
}

/// The octets of each piece of frozen content: subject, HTML, text, the templates that these include, data.
///
/// # Errors
/// When they are no JSON.
pub fn parts(frozen: &Frozen) -> serde_json::Result<[String; 5]> {
    Ok([
        frozen.subject.clone(),
        frozen.html.clone(),
        frozen.text.clone(),
        serde_json::to_string(&frozen.partials)?,
        frozen.data.to_string(),
    ])
}

impl ToldText {
    /// What is told in one language.
    ///
    /// # Errors
    /// As [`parts`].
    pub fn new(
        frozen: &Frozen,
        language: &str,
        newcomers: bool,
        summary: &str,
        reason: Option<&str>,
    ) -> serde_json::Result<Self> {
        let [subject_sha256, html_sha256, text_sha256, partials_sha256, data_sha256] =
            parts(frozen)?.map(|part| hex::encode(Sha256::digest(part)));
        Ok(Self {
            language: language.to_owned(),
            newcomers,
            summary: summary.to_owned(),
            reason: reason.map(str::to_owned),
            subject_sha256,
            html_sha256,
            text_sha256,
            partials_sha256,
            data_sha256,
        })
    }

    /// Each piece by what it is and its SHA-256, in the order of [`parts`].
    pub fn hashes(&self) -> [(&'static str, &str); 5] {
        [
            ("the subject", &self.subject_sha256),
            ("the HTML part", &self.html_sha256),
            ("the text part", &self.text_sha256),
            ("the templates", &self.partials_sha256),
            ("the data", &self.data_sha256),
        ]
    }
}
