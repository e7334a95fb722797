//! The header of a message, and its parts put together.
//!
//! Everything that could hold somebody's text is made one clean line before it is written. What standards want octet for
//! octet (RFC 8058) is written octet for octet.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lettre::message::header::{HeaderName, HeaderValue, Headers};
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

use super::encoding::write_part;
use super::footing::Footing;
use super::{Addressee, ComposeError, Frozen, Sender};
use crate::brand;
use crate::brand::lint::is_deceptive;
use crate::clock::Timestamp;
use crate::decision::Class;
use crate::id::DeliveryId;
use crate::link::{KeyRing, envelope_local};

/// Longest `List-Id` between its brackets (RFC 2919 §2).
const MAX_LIST_ID: usize = 255;
/// Longest line in octets without its CRLF (RFC 5322 §2.1.1).
const MAX_LINE: usize = 998;
/// Longest line in octets that holds an encoded word (RFC 2047 §2).
const MAX_ENCODED: usize = 76;
/// Characters of the sender's id in `Feedback-ID`; 5 to 15 are allowed.
const SENDER_ID: usize = 12;

/// What the headers of all messages of a content and its sender share, checked.
pub(super) struct Head {
    from_domain: String,
    bounce_domain: String,
    from: String,
    feedback_id: String,
    reply_to: String,
    /// What tells how the message may be refused, or that it is of a machine, but for the link.
    terms: String,
}

impl Head {
    /// Chooses and checks them.
    pub(super) fn new(sender: &Sender<'_>, content: &Frozen) -> Result<Self, ComposeError> {
        let brand = sender.brand;
        let refusable = sender.topic.class.can_be_refused();
        let (from, from_domain) = sender_of(brand, sender.topic.class)?;
        let reply_to = content.reply_to.as_ref().or(brand.reply_to.as_ref());
        let reply_to = reply_to.map(|text| brand_mailbox("reply_to", text)).transpose()?;
        let bounce_domain = match brand.bounce_domain.as_deref().or(sender.default_bounce_domain) {
            Some(domain) => idna::domain_to_ascii_strict(domain).map_err(|_| ComposeError::Brand {
                field: "bounce_domain",
                reason: "it is no domain".into(),
            })?,
            None => from_domain.clone(),
        };
        let terms = if refusable {
            let post = field_of("List-Unsubscribe-Post", "List-Unsubscribe=One-Click");
            post + &field_of("List-Id", &list_id(sender, &from_domain))
        } else {
            field_of("Auto-Submitted", "auto-generated")
        };
        Ok(Self {
            from: field_of("From", &address_field("From", &from)),
            feedback_id: field_of("Feedback-ID", &feedback_id(sender, content, &from_domain)),
            reply_to: reply_to
                .map(|(who, _)| field_of("Reply-To", &address_field("Reply-To", &who)))
                .unwrap_or_default(),
            terms,
            from_domain,
            bounce_domain,
        })
    }

    /// The envelope's sender.
    pub(super) fn envelope_from(&self, delivery: DeliveryId, link_keys: &KeyRing) -> String {
        format!("{}@{}", envelope_local(delivery, link_keys), self.bounce_domain)
    }

    /// The domain of From, as an A-label.
    pub(super) fn domain_of_from(&self) -> &str {
        &self.from_domain
    }

    /// The Message-ID, without brackets: of the delivery, so the same on every attempt.
    pub(super) fn message_id(&self, delivery: DeliveryId) -> String {
        format!("{delivery}@{}", self.from_domain)
    }

    /// Puts header and parts together.
    ///
    /// # Errors
    /// The address cannot be written.
    pub(super) fn message(
        &self,
        addressee: &Addressee<'_>,
        footing: &Footing,
        bodies: &Bodies,
        delivery: DeliveryId,
        date: Timestamp,
    ) -> Result<Vec<u8>, ComposeError> {
        // A local part that is not ASCII stands in the header as it is (RFC 6532 §3.2); the relay must offer SMTPUTF8.
        let to = Mailbox::new(addressee.name.unwrap_or_default(), addressee.address.to_wire())?;
        // A boundary of the delivery's own: the same message on every attempt. `=_` never stands in encoded text.
        let boundary = format!("=_{}", delivery.0.simple());
        let link = match footing {
            Footing::Refusable(link) => field_of("List-Unsubscribe", &link.header_value()),
            Footing::Notice { .. } | Footing::ServiceSide => String::new(),
        };
        let mut out = Vec::with_capacity(2048 + (bodies.text.len() + bodies.html.len()) * 5 / 4);
        let header = [
            &field_of("Date", &date_time(date)),
            &self.from,
            &field_of("To", &address_field("To", &to)),
            &folded("Message-ID", &format!("<{}>", self.message_id(delivery))),
            &self.feedback_id,
            &subject(&bodies.subject),
            &self.reply_to,
            &link,
            &self.terms,
            "MIME-Version: 1.0\r\nContent-Type: multipart/alternative;\r\n boundary=\"",
            &boundary,
            "\"\r\n",
        ];
        header.iter().for_each(|piece| out.extend_from_slice(piece.as_bytes()));
        // What is given has its limits, so this is never so; a longer line would be cut or refused on its way. Those of the
        // parts are short.
        if out.split(|octet| *octet == b'\n').any(|line| line.len() > MAX_LINE + 1) {
            return Err(ComposeError::Build(format!("a line is longer than {MAX_LINE} octets")));
        }
        out.extend_from_slice(b"\r\n");
        for (media_type, text) in [("text/plain", &bodies.text), ("text/html", &bodies.html)] {
            ["--", &boundary, "\r\n"].iter().for_each(|piece| out.extend_from_slice(piece.as_bytes()));
            write_part(&mut out, media_type, text);
        }
        ["--", &boundary, "--\r\n"].iter().for_each(|piece| out.extend_from_slice(piece.as_bytes()));
        Ok(out)
    }
}

/// Who sends messages of this class, and the domain of that.
fn sender_of(brand: &brand::Brand, class: Class) -> Result<(Mailbox, String), ComposeError> {
    match &brand.notice_from {
        Some(own) if !class.can_be_refused() => brand_mailbox("notice_from", own),
        _ => brand_mailbox("from", &brand.from_mailbox),
    }
}

/// A name that can be shown, and an address as it goes over the wire.
pub(super) struct Mailbox {
    pub(super) name: Option<String>,
    address: String,
}

fn brand_mailbox(field: &'static str, text: &str) -> Result<(Mailbox, String), ComposeError> {
    let unusable = |reason: String| ComposeError::Brand { field, reason };
    let parsed = brand::Mailbox::parse(text).map_err(|error| unusable(error.to_string()))?;
    if !parsed.address.local().is_ascii() {
        return Err(unusable("the part before the @ is not ASCII".into()));
    }
    let domain = parsed.address.domain().to_owned();
    Ok((Mailbox::new(&parsed.name, parsed.address.to_wire())?, domain))
}

impl Mailbox {
    /// A display name is left out when it is not clean: better none than one that says something else to some programs.
    pub(super) fn new(name: &str, wire: String) -> Result<Self, ComposeError> {
        if wire.parse::<lettre::Address>().is_err() {
            return Err(ComposeError::Build("the address cannot be written".into()));
        }
        let name: String = name.trim().nfc().collect();
        let is_clean = !name.is_empty()
            && name.chars().count() <= 200
            && !name.contains("=?")
            && !name.chars().any(|c| c.is_control() || is_deceptive(c));
        Ok(Self { name: is_clean.then_some(name), address: wire })
    }
}

/// One line of text: control characters, CR, LF and NUL among them, become spaces; white space runs become one.
pub(super) fn one_line(text: &str) -> String {
    let spaced: String =
        text.nfc().map(|c| if c.is_control() || is_deceptive(c) { ' ' } else { c }).collect();
    spaced.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// What a message says.
pub(super) struct Bodies {
    /// One line.
    pub(super) subject: String,
    /// The text part.
    pub(super) text: String,
    /// The HTML part.
    pub(super) html: String,
}

fn field_of(name: &str, value: &str) -> String {
    [name, ": ", value, "\r\n"].concat()
}

/// A field of ASCII, folded where it is long.
fn folded(name: &'static str, value: &str) -> String {
    if name.len() + ": ".len() + value.len() <= MAX_ENCODED {
        return field_of(name, value);
    }
    let mut headers = Headers::new();
    headers.insert_raw(HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned()));
    headers.to_string()
}

fn subject(text: &str) -> String {
    // `=?` would be read as an encoded word, which can hold anything.
    if text.is_ascii() && !text.contains("=?") && text.split(' ').all(|word| word.len() < 70) {
        return folded("Subject", text);
    }
    field_of("Subject", &encoded_words(text, "Subject: ".len()))
}

/// RFC 5322 §3.3.
fn date_time(date: Timestamp) -> String {
    date.to_datetime().format("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// `Name <address>`; the address on a line of its own where the name is encoded (RFC 2047 §2).
pub(super) fn address_field(field: &str, who: &Mailbox) -> String {
    let address = &who.address;
    let Some(name) = &who.name else { return address.clone() };
    let taken = field.len() + ": ".len();
    let phrase = phrase(name, taken);
    let fits = phrase.is_ascii()
        && !phrase.contains("\r\n")
        && taken + phrase.len() + address.len() + 3 <= MAX_ENCODED;
    let separator = if fits { " " } else { "\r\n " };
    format!("{phrase}{separator}<{address}>")
}

/// RFC 5322 §3.2.5: words as they are, a quoted string, or encoded words for what is neither short nor plain.
fn phrase(text: &str, taken: usize) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || " !#$%&'*+-/=?^_`{|}~".contains(c);
    let is_short = |text: &str| taken + text.len() <= MAX_ENCODED;
    // White space runs would come out as one space.
    if text.is_ascii() && !text.contains("=?") && !text.contains("  ") {
        if text.chars().all(is_word) && is_short(text) {
            return text.to_owned();
        }
        let quoted = format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        if is_short(&quoted) {
            return quoted;
        }
    }
    encoded_words(text, taken)
}

/// RFC 2047: encoded words of at most 75 characters, whole characters in each, one a line of at most 76; `taken`
/// octets of the first line stand there already.
pub(super) fn encoded_words(text: &str, taken: usize) -> String {
    /// Octets that fit into a line: 76 less `=?utf-8?b?` and `?=`, three for each four characters. A space begins each.
    fn room(taken: usize) -> usize {
        (MAX_ENCODED.saturating_sub(12 + taken) / 4 * 3).max(4)
    }
    let mut words: Vec<String> = Vec::new();
    let mut chunk = String::new();
    for c in text.chars() {
        if chunk.len() + c.len_utf8() > room(if words.is_empty() { taken } else { 1 }) {
            words.push(std::mem::take(&mut chunk));
        }
        chunk.push(c);
    }
    words.push(chunk);
    let encoded = words.iter().map(|word| format!("=?utf-8?b?{}?=", STANDARD.encode(word)));
    encoded.collect::<Vec<_>>().join("\r\n ")
}

/// `content:brand.topic:class:sender`, by which Gmail tells a sender what people complain about. The same for all that
/// was frozen at once, and about nobody. The words cannot be mistaken for one another: an id, two slugs and a dot, a
/// class, a digest.
pub(super) fn feedback_id(sender: &Sender<'_>, content: &Frozen, domain: &str) -> String {
    let (brand, topic) = (&sender.brand.slug, sender.topic);
    let own = hex::encode(Sha256::digest(domain));
    format!("{}:{brand}.{}:{}:{}", content.id.0.simple(), topic.slug, topic.class, &own[..SENDER_ID])
}

/// The same for every message of a topic, and for no other: labels of our own in the From domain.
pub(super) fn list_id(sender: &Sender<'_>, domain: &str) -> String {
    let (brand, topic) = (sender.brand, sender.topic);
    let id = format!("{}.{}.{domain}", topic.slug, brand.slug);
    let id = if id.len() > MAX_LIST_ID { format!("{}.{domain}", topic.id.0.simple()) } else { id };
    let name: String = one_line(&topic.name).chars().take(60).collect();
    let phrase = phrase(name.trim_end(), "List-Id: ".len());
    let separator = if phrase.is_empty() { "" } else { "\r\n " };
    format!("{phrase}{separator}<{id}>")
}
