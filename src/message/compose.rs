//! The mail of one delivery.

use std::borrow::Cow;

use handlebars::Context;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use url::Url;

use super::footing::{Footing, Must, Terms, TextEnds};
use super::headers::{Bodies, Head, one_line};
use super::shapes::Shapes;
use super::template::program::{Constants, Names, Piece, Program};
use super::{Compiled, ComposeError, DkimKeys, look};
use crate::address::{AddressHash, EmailAddress};
use crate::brand::{Brand, Topic};
use crate::clock::Timestamp;
use crate::id::{DeliveryId, RecipientId};
use crate::language::Language;
use crate::link::{KeyRing, Link, Purpose};

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

impl Message {
    /// SHA-256 of header and body as they are handed over.
    pub fn sha256(&self) -> Vec<u8> {
        Sha256::digest(&self.bytes).to_vec()
    }
}

/// What a message says, before it is mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The subject, one line.
    pub subject: String,
    /// The HTML part.
    pub html: String,
    /// The text part.
    pub text: String,
    /// Where the change is approved or declined; empty where the message tells of none.
    pub approve_url: String,
    /// Where mail that can be refused is refused; empty where the message may not lead there.
    pub preferences_url: String,
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

/// Longest subject in octets.
const MAX_SUBJECT: usize = 2_000;
/// Longest HTML part in octets.
const MAX_HTML: usize = 1024 * 1024;
/// Longest text part in octets.
const MAX_TEXT: usize = 512 * 1024;

/// Makes the message of one delivery: [`Prepared::compose`] for whoever makes but one.
///
/// # Errors
/// What of the brand cannot be used; what is missing or over a bound. Trying again gives the same.
pub fn compose(
    content: &Compiled,
    sender: &Sender<'_>,
    addressee: &Addressee<'_>,
    delivery: DeliveryId,
    date: Timestamp,
) -> Result<Message, ComposeError> {
    Prepared::new(content, sender)?.compose(addressee, delivery, date)
}

/// Frozen content made ready for one sender: what all its messages share is worked out once. Keep it for a content, and
/// make it anew when brand or topic have changed ([`Prepared::is_for`]). Threads may share it. It grows while it is used,
/// up to some hundred kilobytes.
pub struct Prepared {
    content: Compiled,
    brand: Brand,
    topic: Topic,
    link_keys: KeyRing,
    inbound_domain: Option<String>,
    dkim: DkimKeys,
    head: Head,
    terms: Terms,
    look: Vec<(&'static str, String)>,
    subject: Program,
    html: Program,
    text: Program,
    shapes: Shapes,
    ends: TextEnds,
}

impl Prepared {
    /// Works out what all messages of this content from this sender share.
    ///
    /// # Errors
    /// What of the brand cannot be used: no message can be made then.
    pub fn new(content: &Compiled, sender: &Sender<'_>) -> Result<Self, ComposeError> {
        let frozen = content.frozen();
        let look = look::of_brand(sender);
        let names = constants(sender);
        let nothing = json!({});
        let data = if frozen.data.is_object() { &frozen.data } else { &nothing };
        let plain = Constants { data, names: &names, locals: &[] };
        let dressed = Constants { locals: &look, ..plain };
        Ok(Self {
            terms: Terms::new(sender)?,
            head: Head::new(sender, frozen)?,
            subject: Program::new(&content.subject, &plain),
            html: Program::new(&content.html, &dressed),
            text: Program::new(&content.text, &plain),
            content: content.clone(),
            brand: sender.brand.clone(),
            topic: sender.topic.clone(),
            link_keys: sender.link_keys.clone(),
            inbound_domain: sender.inbound_domain.map(str::to_owned),
            dkim: sender.dkim.clone(),
            look,
            shapes: Shapes::default(),
            ends: TextEnds::default(),
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
        let footing = self.footing(addressee, delivery, date);
        let bodies = self.bodies(addressee, &footing)?;
        let built = self.head.message(addressee, &footing, &bodies, delivery, date)?;
        Ok(Message {
            envelope_from: self.head.envelope_from(delivery, &self.link_keys),
            envelope_to: addressee.address.to_wire(),
            message_id: self.head.message_id(delivery),
            bytes: self.dkim.sign(built, self.head.domain_of_from(), date)?,
        })
    }

    /// What the message of one delivery says: what [`compose`](Self::compose) makes into mail.
    ///
    /// # Errors
    /// What is missing or over a bound; trying again gives the same.
    pub fn rendered(
        &self,
        addressee: &Addressee<'_>,
        delivery: DeliveryId,
        date: Timestamp,
    ) -> Result<Rendered, ComposeError> {
        let footing = self.footing(addressee, delivery, date);
        let Bodies { subject, text, html } = self.bodies(addressee, &footing)?;
        let (approve_url, preferences_url) =
            (footing.approve_url().to_owned(), footing.preferences_url().to_owned());
        Ok(Rendered { subject, html, text, approve_url, preferences_url })
    }

    fn footing(&self, addressee: &Addressee<'_>, delivery: DeliveryId, date: Timestamp) -> Footing {
        let link = Link {
            purpose: Purpose::Unsubscribe,
            address_hash: addressee.address_hash.clone(),
            recipient: addressee.recipient,
            brand: self.brand.id,
            topic: self.topic.id,
            delivery,
            made_at: date,
        };
        self.terms.footing(&link, &self.link_keys, self.inbound_domain.as_deref())
    }

    fn bodies(&self, addressee: &Addressee<'_>, footing: &Footing) -> Result<Bodies, ComposeError> {
        let nothing = json!({});
        let names = Names {
            email: addressee.address.as_str(),
            name: addressee.name.unwrap_or_default(),
            locale: addressee.locale.unwrap_or_default(),
            external_id: addressee.external_id.unwrap_or_default(),
            customer: addressee.customer,
            attributes: if addressee.attributes.is_object() { addressee.attributes } else { &nothing },
            own_data: addressee.data.and_then(Json::as_object),
            url: footing.url(),
            preferences_url: footing.preferences_url(),
            approve_url: footing.approve_url(),
        };
        let context = || Context::from(self.seen_by_template(&names));
        let plain = |program: &Program, limit| {
            let pieces = program.pieces(&names, &[], &context, limit)?;
            Ok::<String, ComposeError>(pieces.iter().map(Piece::as_str).collect())
        };
        let subject = one_line(&plain(&self.subject, MAX_SUBJECT)?);
        let mut locals: Vec<_> =
            self.look.iter().map(|(name, value)| (*name, Cow::Borrowed(value.as_str()))).collect();
        locals.extend(look::of_message(addressee, &subject));
        let pieces = self.html.pieces(&names, &locals, &context, MAX_HTML)?;
        let must = self.terms.address().map(|address| Must {
            url: footing.url(),
            address,
            brand: &self.brand,
            topic: &self.topic,
            language: addressee.locale.and_then(Language::of_locale).unwrap_or_default(),
        });
        let html = self.shapes.page(&pieces, must.as_ref())?;
        let pieces = self.text.pieces(&names, &[], &context, MAX_TEXT)?;
        let text = self.ends.text(&pieces, must.as_ref())?;
        drop(locals);
        Ok(Bodies { subject, text, html })
    }

    /// Every name that a template sees, always there and empty when not known.
    fn seen_by_template(&self, names: &Names<'_>) -> Json {
        let (brand, topic) = (&self.brand, &self.topic);
        let mut data = self.content.frozen().data.as_object().cloned().unwrap_or_default();
        if let Some(own) = names.own_data {
            data.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        let known = |value: &Option<String>| value.clone().unwrap_or_default();
        json!({
            "email": names.email,
            "name": names.name,
            "locale": names.locale,
            "external_id": names.external_id,
            "customer": names.customer,
            "attributes": names.attributes,
            "data": data,
            "brand": {
                "id": brand.slug,
                "name": brand.name,
                "postal_address": brand.postal_address,
                "phone": known(&brand.phone),
                "website": known(&brand.website),
            },
            "topic": { "id": topic.slug, "name": topic.name },
            "unsubscribe_url": names.url,
            "preferences_url": names.preferences_url,
            "approve_url": names.approve_url,
        })
    }
}

/// Those of the names that a template sees that are the same in all messages.
fn constants(sender: &Sender<'_>) -> Vec<(&'static str, String)> {
    let (brand, topic) = (sender.brand, sender.topic);
    let known = |value: &Option<String>| value.clone().unwrap_or_default();
    vec![
        ("brand.id", brand.slug.clone()),
        ("brand.name", brand.name.clone()),
        ("brand.postal_address", brand.postal_address.clone()),
        ("brand.phone", known(&brand.phone)),
        ("brand.website", known(&brand.website)),
        ("topic.id", topic.slug.clone()),
        ("topic.name", topic.name.clone()),
    ]
}

#[cfg(test)]
mod tests;
