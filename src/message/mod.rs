//! Messages: template, layout, text part, headers.
//!
//! Pure but for `rows.rs` and `api.rs`.

/// A rendered message, ready to be handed over.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Envelope sender: one of its own, so that a bounce names its delivery.
    pub envelope_from: String,
    /// Envelope recipient, the domain as an A-label.
    pub envelope_to: String,
    /// The `Message-ID` without angle brackets: the same over all attempts.
    pub message_id: String,
    /// Header and body, CRLF lines, not dot-stuffed.
    pub bytes: Vec<u8>,
}
