//! The mail of one delivery.

use url::Url;

use super::{Compiled, ComposeError};
use crate::address::{AddressHash, EmailAddress};
use crate::brand::{Brand, Topic};
use crate::clock::Timestamp;
use crate::id::{DeliveryId, RecipientId};
use crate::link::KeyRing;

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

/// Who sends, and what links are made with.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// The brand.
    pub brand: &'a Brand,
    /// The topic; its class decides what the message must carry.
    pub topic: &'a Topic,
    /// What links begin with when the brand has no base URL of its own.
    pub base_url: &'a Url,
    /// The keys that sign links and envelope senders.
    pub link_keys: &'a KeyRing,
    /// Domain of the envelope sender when the brand has none; the From domain when none either.
    pub default_bounce_domain: Option<&'a str>,
}

/// Who gets it.
#[derive(Clone, Copy, Debug)]
pub struct Addressee<'a> {
    /// The recipient.
    pub recipient: RecipientId,
    /// The address as first spelt.
    pub address: &'a EmailAddress,
    /// Its keyed hash, for the links.
    pub address_hash: &'a AddressHash,
    /// Name.
    pub name: Option<&'a str>,
    /// Locale.
    pub locale: Option<&'a str>,
    /// The company's own id.
    pub external_id: Option<&'a str>,
    /// Whether the person is a customer of the brand.
    pub customer: bool,
    /// Attributes: an object.
    pub attributes: &'a serde_json::Value,
    /// What the delivery lays over the campaign's data, key by key: an object.
    pub data: Option<&'a serde_json::Value>,
}

/// Makes the message of one delivery. `date` goes into `Date` and into the links, so give the same one on every
/// attempt: the time the delivery was first begun, or of now when it never was.
///
/// # Errors
/// What is missing or over a bound; trying again gives the same.
pub fn compose(
    content: &Compiled,
    sender: &Sender<'_>,
    addressee: &Addressee<'_>,
    delivery: DeliveryId,
    date: Timestamp,
) -> Result<Message, ComposeError> {
    let _ = (content.frozen(), sender, addressee, delivery, date);
    Err(ComposeError::Build("not yet".into()))
}
