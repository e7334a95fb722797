//! The header of a message, and its parts put together.
//!
//! Everything that could hold somebody's text is made one clean line before it comes to lettre, which panics on a
//! display name with CR, LF or NUL. What standards want octet for octet (RFC 8058) is written octet for octet.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox as LettreMailbox, MultiPart, SinglePart};
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

use super::footing::Footing;
use super::{Addressee, ComposeError, Frozen, Sender};
use crate::brand::Mailbox;
use crate::brand::lint::is_deceptive;
use crate::clock::Timestamp;
use crate::id::DeliveryId;
use crate::link::envelope_local;

/// Longest `List-Id` between its brackets (RFC 2919 §2).
const MAX_LIST_ID: usize = 255;
/// Longest line in octets without its CRLF (RFC 5322 §2.1.1).
const MAX_LINE: usize = 998;
/// Longest line in octets that holds an encoded word (RFC 2047 §2).
const MAX_ENCODED: usize = 76;
/// Characters of the sender's id in `Feedback-ID`; 5 to 15 are allowed.
const SENDER_ID: usize = 12;

/// Who a message is from and to, checked.
pub(super) struct Parties {
    from: LettreMailbox,
    from_domain: String,
    to: LettreMailbox,
    to_wire: String,
    reply_to: Option<LettreMailbox>,
    bounce_domain: String,
}

impl Parties {
    /// Chooses and checks them.
    pub(super) fn new(
        sender: &Sender<'_>,
        addressee: &Addressee<'_>,
        reply_to: Option<&str>,
    ) -> Result<Self, ComposeError> {
        let brand = sender.brand;
        let service_side = !sender.topic.class.can_be_refused();
        let (field, from) = match &brand.notice_from {
            Some(own) if service_side => ("notice_from", own),
            _ => ("from", &brand.from_mailbox),
        };
        let (from, from_domain) = brand_mailbox(field, from)?;
        let reply_to = reply_to.or(brand.reply_to.as_deref());
        let reply_to =
            reply_to.map(|text| brand_mailbox("reply_to", text)).transpose()?.map(|(mailbox, _)| mailbox);
        let bounce_domain = match brand.bounce_domain.as_deref().or(sender.default_bounce_domain) {
            Some(domain) => idna::domain_to_ascii_strict(domain).map_err(|_| ComposeError::Brand {
                field: "bounce_domain",
                reason: "it is no domain".into(),
            })?,
            None => from_domain.clone(),
        };
        // A local part that is not ASCII stands in the header as it is (RFC 6532 §3.2); the relay must offer SMTPUTF8.
        let to_wire = addressee.address.to_wire();
        let to = mailbox(addressee.name.unwrap_or_default(), &to_wire)?;
        Ok(Self { from, from_domain, to, to_wire, reply_to, bounce_domain })
    }

    /// The envelope: sender and recipient.
    pub(super) fn envelope(&self, sender: &Sender<'_>, delivery: DeliveryId) -> (String, String) {
        let local = envelope_local(delivery, sender.link_keys);
        (format!("{local}@{}", self.bounce_domain), self.to_wire.clone())
    }

    /// The domain of From, as an A-label.
    pub(super) fn domain_of_from(&self) -> &str {
        &self.from_domain
    }

    /// The Message-ID, without brackets: of the delivery, so the same on every attempt.
    pub(super) fn message_id(&self, delivery: DeliveryId) -> String {
        format!("{delivery}@{}", self.from_domain)
    }
}

fn brand_mailbox(field: &'static str, text: &str) -> Result<(LettreMailbox, String), ComposeError> {
    let unusable = |reason: String| ComposeError::Brand { field, reason };
    let parsed = Mailbox::parse(text).map_err(|error| unusable(error.to_string()))?;
    if !parsed.address.local().is_ascii() {
        return Err(unusable("the part before the @ is not ASCII".into()));
    }
    let domain = parsed.address.domain().to_owned();
    Ok((mailbox(&parsed.name, &parsed.address.to_wire())?, domain))
}

/// A display name is left out when it is not clean: better none than one that says something else to some programs.
fn mailbox(name: &str, wire: &str) -> Result<LettreMailbox, ComposeError> {
    let address = wire.parse().map_err(|_| ComposeError::Build("the address cannot be written".into()))?;
    let name: String = name.trim().nfc().collect();
    let is_clean = !name.is_empty()
        && name.chars().count() <= 200
        && !name.contains("=?")
        && !name.chars().any(|c| c.is_control() || is_deceptive(c));
    Ok(LettreMailbox::new(is_clean.then_some(name), address))
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

/// Puts header and parts together.
pub(super) fn build(
    parties: &Parties,
    sender: &Sender<'_>,
    content: &Frozen,
    footing: &Footing,
    bodies: Bodies,
    delivery: DeliveryId,
    date: Timestamp,
) -> Result<Vec<u8>, ComposeError> {
    let mut builder = lettre::Message::builder()
        .date(date.to_datetime().into())
        .from(parties.from.clone())
        .to(parties.to.clone())
        .message_id(Some(format!("<{}>", parties.message_id(delivery))))
        .raw_header(exactly("Feedback-ID", feedback_id(sender, content, &parties.from_domain)))
        .raw_header(subject(&bodies.subject));
    if let Some(reply_to) = &parties.reply_to {
        builder = builder.reply_to(reply_to.clone());
    }
    builder = match footing {
        Footing::Refusable(link) => builder
            .raw_header(exactly("List-Unsubscribe", link.header_value()))
            .raw_header(exactly("List-Unsubscribe-Post", "List-Unsubscribe=One-Click".into()))
            .raw_header(list_id(sender, &parties.from_domain)),
        Footing::ServiceSide => builder.raw_header(exactly("Auto-Submitted", "auto-generated".into())),
    };
    // A boundary of the delivery's own: the same message on every attempt. `=_` never stands in encoded text.
    let parts = MultiPart::alternative()
        .boundary(format!("=_{}", delivery.0.simple()))
        .singlepart(SinglePart::plain(lines(&bodies.text)))
        .singlepart(SinglePart::html(lines(&bodies.html)));
    let mut message = builder.multipart(parts).map_err(|error| ComposeError::Build(error.to_string()))?;
    for (name, who) in
        [("From", Some(&parties.from)), ("To", Some(&parties.to)), ("Reply-To", parties.reply_to.as_ref())]
    {
        if let Some(who) = who {
            message.headers_mut().insert_raw(exactly(name, address_field(name, who)));
        }
    }
    let bytes = message.formatted();
    // What is given has its limits, so this is never so; a longer line would be cut or refused on its way.
    if bytes.split(|&byte| byte == b'\n').any(|line| line.len() > MAX_LINE + 1) {
        return Err(ComposeError::Build(format!("a line is longer than {MAX_LINE} octets")));
    }
    Ok(bytes)
}

/// Lines that end in LF alone, without control characters; lettre writes CRLF.
fn lines(text: &str) -> String {
    let unix = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut clean: String = unix.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    clean.truncate(clean.trim_end().len());
    clean.push('\n');
    clean
}

fn exactly(name: &'static str, value: String) -> HeaderValue {
    HeaderValue::dangerous_new_pre_encoded(HeaderName::new_from_ascii_str(name), value.clone(), value)
}

fn subject(text: &str) -> HeaderValue {
    let name = HeaderName::new_from_ascii_str("Subject");
    // `=?` would be read as an encoded word, which can hold anything.
    if text.is_ascii() && !text.contains("=?") && text.split(' ').all(|word| word.len() < 70) {
        return HeaderValue::new(name, text.to_owned());
    }
    HeaderValue::dangerous_new_pre_encoded(name, text.to_owned(), encoded_words(text, "Subject: ".len()))
}

/// `Name <address>`. Lettre would put the address on the line of an encoded name, which is then longer than RFC 2047
/// §2 allows.
fn address_field(field: &str, who: &LettreMailbox) -> String {
    let address = who.email.to_string();
    let Some(name) = &who.name else { return address };
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
fn encoded_words(text: &str, taken: usize) -> String {
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
fn feedback_id(sender: &Sender<'_>, content: &Frozen, domain: &str) -> String {
    let (brand, topic) = (&sender.brand.slug, sender.topic);
    let own: String = Sha256::digest(domain).iter().map(|octet| format!("{octet:02x}")).collect();
    format!("{}:{brand}.{}:{}:{}", content.id.0.simple(), topic.slug, topic.class, &own[..SENDER_ID])
}

/// The same for every message of a topic, and for no other: labels of our own in the From domain.
fn list_id(sender: &Sender<'_>, domain: &str) -> HeaderValue {
    let (brand, topic) = (sender.brand, sender.topic);
    let id = format!("{}.{}.{domain}", topic.slug, brand.slug);
    let id = if id.len() > MAX_LIST_ID { format!("{}.{domain}", topic.id.0.simple()) } else { id };
    let name: String = one_line(&topic.name).chars().take(60).collect();
    let phrase = phrase(name.trim_end(), "List-Id: ".len());
    let separator = if phrase.is_empty() { "" } else { "\r\n " };
    let raw = format!("{name} <{id}>");
    let value = format!("{phrase}{separator}<{id}>");
    HeaderValue::dangerous_new_pre_encoded(HeaderName::new_from_ascii_str("List-Id"), raw, value)
}
