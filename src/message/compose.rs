//! The mail of one delivery.

use handlebars::Context;
use serde_json::{Value as Json, json};
use url::Url;

use super::footing::{Footing, complete_html, complete_text};
use super::headers::{self, Bodies, Parties, one_line};
use super::{Compiled, ComposeError, DkimKeys, html, look};
use crate::address::{AddressHash, EmailAddress};
use crate::brand::{Brand, Topic};
use crate::clock::Timestamp;
use crate::id::{DeliveryId, RecipientId};
use crate::language::Locale;
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
    /// Header and body, CRLF lines, not dot-stuffed, signed by each key of the From domain.
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
    /// Domain whose `unsubscribe@` takes refusals by mail; none offers no `mailto:`.
    pub inbound_domain: Option<&'a str>,
    /// The keys that sign mail; those of the From domain sign this one.
    pub dkim: &'a DkimKeys,
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
    pub attributes: &'a Json,
    /// What the delivery lays over the campaign's data, key by key: an object.
    pub data: Option<&'a Json>,
}

/// Frozen content made ready for one sender: what all its messages share is worked out once. Keep it for a content, and
/// make it anew when brand or topic have changed ([`Prepared::is_for`]). Threads may share it.
pub struct Prepared {
    content: Compiled,
    brand: Brand,
    topic: Topic,
    base_url: Url,
    link_keys: KeyRing,
    default_bounce_domain: Option<String>,
    inbound_domain: Option<String>,
    dkim: DkimKeys,
}

impl Prepared {
    /// Works out what all messages of this content from this sender share.
    ///
    /// # Errors
    /// What of the brand cannot be used: no message can be made then.
    pub fn new(content: &Compiled, sender: &Sender<'_>) -> Result<Self, ComposeError> {
        Ok(Self {
            content: content.clone(),
            brand: sender.brand.clone(),
            topic: sender.topic.clone(),
            base_url: sender.base_url.clone(),
            link_keys: sender.link_keys.clone(),
            default_bounce_domain: sender.default_bounce_domain.map(str::to_owned),
            inbound_domain: sender.inbound_domain.map(str::to_owned),
            dkim: sender.dkim.clone(),
        })
    }

    /// Whether it was made for this brand and topic as they are now.
    pub fn is_for(&self, brand: &Brand, topic: &Topic) -> bool {
        self.brand == *brand && self.topic == *topic
    }

    /// What it was made from.
    pub fn content(&self) -> &Compiled {
        &self.content
    }

    /// Makes the message of one delivery and signs it. `date` goes into `Date`, the links and the signatures, so give the
    /// same one on every attempt: the time the delivery was first begun, or of now when it never was.
    ///
    /// # Errors
    /// What is missing or over a bound; trying again gives the same.
    pub fn compose(
        &self,
        addressee: &Addressee<'_>,
        delivery: DeliveryId,
        date: Timestamp,
    ) -> Result<Message, ComposeError> {
        compose(&self.content, &self.sender(), addressee, delivery, date)
    }

    fn sender(&self) -> Sender<'_> {
        Sender {
            brand: &self.brand,
            topic: &self.topic,
            base_url: &self.base_url,
            link_keys: &self.link_keys,
            default_bounce_domain: self.default_bounce_domain.as_deref(),
            inbound_domain: self.inbound_domain.as_deref(),
            dkim: &self.dkim,
        }
    }
}

/// Longest subject in octets.
const MAX_SUBJECT: usize = 2_000;
/// Longest HTML part in octets.
const MAX_HTML: usize = 1024 * 1024;
/// Longest text part in octets.
const MAX_TEXT: usize = 512 * 1024;

/// Makes the message of one delivery and signs it. `date` goes into `Date`, the links and the signatures, so give the same one on every
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
    let rendered = render(content, sender, addressee, delivery, date)?;
    let parties = Parties::new(sender, addressee, content.frozen().reply_to.as_deref())?;
    let built = headers::build(
        &parties,
        sender,
        content.frozen(),
        &rendered.footing,
        rendered.bodies,
        delivery,
        date,
    )?;
    let bytes = sender.dkim.sign(built, parties.domain_of_from(), date)?;
    let (envelope_from, envelope_to) = parties.envelope(sender, delivery);
    Ok(Message { envelope_from, envelope_to, message_id: parties.message_id(delivery), bytes })
}

struct Rendered {
    footing: Footing,
    bodies: Bodies,
}

fn render(
    content: &Compiled,
    sender: &Sender<'_>,
    addressee: &Addressee<'_>,
    delivery: DeliveryId,
    date: Timestamp,
) -> Result<Rendered, ComposeError> {
    let footing = Footing::new(sender, addressee, delivery, date)?;
    let context = Context::from(seen_by_template(content, sender, addressee, &footing));
    let subject = one_line(&content.subject.render(&context, &[], MAX_SUBJECT)?);
    let locals = look::locals(sender, addressee, &subject);
    let html = content.html.render(&context, &locals, MAX_HTML)?;
    let footer = addressee.locale.and_then(Locale::of).unwrap_or_default();
    let html = complete_html(html::defuse_urls(html), &footing, sender, footer)?;
    let text = complete_text(content.text.render(&context, &[], MAX_TEXT)?, &footing, sender, footer)?;
    Ok(Rendered { footing, bodies: Bodies { subject, text, html } })
}

/// Every name that a template sees, always there and empty when not known.
fn seen_by_template(
    content: &Compiled,
    sender: &Sender<'_>,
    addressee: &Addressee<'_>,
    footing: &Footing,
) -> Json {
    let (brand, topic) = (sender.brand, sender.topic);
    let object = |value: &Json| if value.is_object() { value.clone() } else { json!({}) };
    let mut data = object(&content.frozen().data);
    if let (Json::Object(data), Some(Json::Object(own))) = (&mut data, addressee.data) {
        data.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    let known = |value: Option<&str>| value.unwrap_or_default().to_owned();
    json!({
        "email": addressee.address.as_str(),
        "name": known(addressee.name),
        "locale": known(addressee.locale),
        "external_id": known(addressee.external_id),
        "customer": addressee.customer,
        "attributes": object(addressee.attributes),
        "data": data,
        "brand": {
            "id": brand.slug,
            "name": brand.name,
            "postal_address": brand.postal_address,
            "phone": known(brand.phone.as_deref()),
            "website": known(brand.website.as_deref()),
        },
        "topic": { "id": topic.slug, "name": topic.name },
        "unsubscribe_url": footing.url(),
        "preferences_url": footing.url(),
    })
}

#[cfg(test)]
mod tests;
