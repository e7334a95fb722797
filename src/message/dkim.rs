//! DKIM signatures (RFC 6376, RFC 8301, RFC 8463).
//!
//! [`DkimKeys::sign`] puts a `DKIM-Signature` on top of a built message for each key whose domain is the From domain or
//! one above it, and nothing leaves [`compose`](super::compose()) without. Every field of the header is signed, once
//! more than it stands there, so that neither a changed field nor a second one passes; and `Reply-To` and `Cc` also when
//! there is none. Never signed: `Return-Path`, `Received` and other signatures, which those on the way write.
//!
//! `t=` and `x=` follow from the message's date alone, and both algorithms are deterministic, so every attempt hands
//! over the same octets. The signature itself, the hash and the canonical forms are mail-auth's; the text of the field is
//! written here, since mail-auth takes the time from the system and folds where some verifiers stumble.
//!
//! Never: `l=`, which would let anyone append to the body (RFC 6376 §8.2); `i=`, which could name a person.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail_auth::common::crypto::{Algorithm, DkimKey, SigningKey};
use mail_auth::dkim::Canonicalization;

use super::ComposeError;
use crate::clock::Timestamp;

mod key;

pub use key::KeyError;

/// How long a signature holds, in seconds: five days of attempts, five in the relay's queue, and twenty for a campaign
/// that pauses between two attempts and for who looks at a message later.
const HOLDS: i64 = 30 * 24 * 3600;

/// Signed although there is none, so that none can be added.
const NEVER_ADDED: [&str; 2] = ["Reply-To", "Cc"];

/// Written by those who carry a message (RFC 6376 §5.4).
const OF_THE_WAY: [&str; 3] = ["Return-Path", "Received", "DKIM-Signature"];

/// The keys that sign mail, parsed once. A clone has the same ones.
#[derive(Clone, Default)]
pub struct DkimKeys(Vec<Arc<Signer>>);

struct Signer {
    domain: String,
    selector: String,
    key: DkimKey,
}

impl DkimKeys {
    /// Takes a private key in: RSA (PKCS#1 or PKCS#8) or Ed25519 (PKCS#8) in PEM form. `domain` is in A-labels and lower
    /// case.
    ///
    /// # Errors
    /// Why it cannot sign.
    pub fn add(&mut self, domain: &str, selector: &str, pem: &[u8]) -> Result<(), KeyError> {
        let key = key::parse(pem)?;
        self.0.push(Arc::new(Signer { domain: domain.to_owned(), selector: selector.to_owned(), key }));
        Ok(())
    }

    /// Whether a message from this domain (A-labels, lower case) gets a signature.
    pub fn signs(&self, from_domain: &str) -> bool {
        self.of(from_domain).next().is_some()
    }

    fn of(&self, from_domain: &str) -> impl Iterator<Item = &Signer> {
        self.0.iter().map(Arc::as_ref).filter(move |signer| is_at_or_below(from_domain, &signer.domain))
    }

    /// The message with a signature of each key of the From domain on top.
    pub(super) fn sign(
        &self,
        message: Vec<u8>,
        from_domain: &str,
        date: Timestamp,
    ) -> Result<Vec<u8>, ComposeError> {
        if !self.signs(from_domain) {
            return Ok(message);
        }
        let unusable = |why: &str| ComposeError::Build(format!("it cannot be signed: {why}"));
        let (header, body) = halves(&message).ok_or_else(|| unusable("its header has no end"))?;
        let covered = Covered::of(header);
        let mut signed = Vec::with_capacity(message.len() + 2048);
        // One for all: every key hashes with SHA-256.
        let mut body_hash = None;
        for signer in self.of(from_domain) {
            let body_hash = body_hash.get_or_insert_with(|| signer.hash(body));
            let field =
                signer.field(&covered, body_hash, date).map_err(|error| unusable(&error.to_string()))?;
            signed.extend_from_slice(field.as_bytes());
        }
        signed.extend_from_slice(&message);
        Ok(signed)
    }
}

impl fmt::Debug for DkimKeys {
    /// Names, never keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|signer| format!("{}._domainkey.{}", signer.selector, signer.domain));
        f.debug_list().entries(names).finish()
    }
}

/// Whether `domain` is `top` or a subdomain of it.
fn is_at_or_below(domain: &str, top: &str) -> bool {
    domain.strip_suffix(top).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

impl Signer {
    /// The hash of a body, as `bh=` has it.
    fn hash(&self, body: &[u8]) -> String {
        STANDARD.encode(self.key.hash(Canonicalization::Relaxed.canonical_body(body, 0)).as_ref())
    }

    /// The whole `DKIM-Signature` field, with its line end.
    fn field(&self, covered: &Covered<'_>, body_hash: &str, date: Timestamp) -> mail_auth::Result<String> {
        let relaxed = Canonicalization::Relaxed;
        let mut field = Folded::new("DKIM-Signature:");
        field.word("v=1;");
        field.word(&format!("a={};", algorithm(self.key.algorithm())));
        field.word("c=relaxed/relaxed;");
        field.word(&format!("d={};", self.domain));
        field.word(&format!("s={};", self.selector));
        let made = date.to_datetime().timestamp();
        field.word(&format!("t={made};"));
        field.word(&format!("x={};", made.saturating_add(HOLDS)));
        field.word("h=");
        for (place, name) in covered.names.iter().enumerate() {
            let last = place + 1 == covered.names.len();
            field.part(&format!("{name}{}", if last { ";" } else { ":" }));
        }
        field.word(&format!("bh={body_hash};"));
        field.word("b=");

        let mut input = Vec::with_capacity(2048);
        // The signature's own field goes in last, without a line end (RFC 6376 §3.7).
        let fields = covered.fields.iter().copied();
        relaxed.canonicalize_headers(fields.chain([field.name_and_value()]), &mut input);
        let signature = STANDARD.encode(self.key.sign(&input[..])?);
        let mut rest = signature.as_str();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(field.room()));
            field.part(piece);
            rest = after;
        }
        Ok(field.ended())
    }
}

fn algorithm(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RsaSha1 => "rsa-sha1",
        Algorithm::RsaSha256 => "rsa-sha256",
        Algorithm::Ed25519Sha256 => "ed25519-sha256",
    }
}

/// What of a header is signed.
struct Covered<'m> {
    /// The names of `h=`, in order: each as often as it stands there, and once more.
    names: Vec<&'m str>,
    /// The fields that these names mean, in their order; one that is not there is nothing (RFC 6376 §5.4.2).
    fields: Vec<(&'m [u8], &'m [u8])>,
}

impl<'m> Covered<'m> {
    fn of(header: &'m [u8]) -> Self {
        let fields: Vec<(&str, &[u8])> = fields(header).collect();
        let mut covered = Self { names: Vec::new(), fields: Vec::new() };
        let there = fields.iter().map(|(name, _)| *name);
        for name in there.chain(NEVER_ADDED) {
            let same = |other: &str| other.eq_ignore_ascii_case(name);
            if covered.names.iter().any(|other| same(other)) || OF_THE_WAY.iter().any(|other| same(other)) {
                continue;
            }
            // Fields of one name are taken from the bottom up.
            for (spelt, value) in fields.iter().rev().filter(|(other, _)| same(other)) {
                covered.names.push(name);
                covered.fields.push((spelt.as_bytes(), value));
            }
            covered.names.push(name);
        }
        covered
    }
}

/// Header and body of a message, without the empty line between them; the header's last line keeps its end.
fn halves(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = message.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some((&message[..end + 2], &message[end + 4..]))
}

/// The fields of a header: name, and value as it stands there with folds and line end, which canonical forms need.
fn fields(header: &[u8]) -> impl Iterator<Item = (&str, &[u8])> {
    let mut rest = header;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let is_end = |three: &[u8]| three.starts_with(b"\r\n") && !matches!(three[2], b' ' | b'\t');
        let end = rest.windows(3).position(is_end).map_or(rest.len(), |end| end + 2);
        let (field, after) = rest.split_at(end);
        rest = after;
        Some(field)
    })
    .filter_map(|field| {
        let colon = field.iter().position(|octet| *octet == b':')?;
        let name = std::str::from_utf8(&field[..colon]).ok()?;
        Some((name, &field[colon + 1..]))
    })
}

/// A header field that is folded as it grows, so that a line is longer than it should be (RFC 5322 §2.1.1) only where
/// one word is.
struct Folded {
    text: String,
    /// Octets of the last line.
    column: usize,
    /// Octets of the name, with its colon.
    name: usize,
}

/// Octets of a line at which it is folded.
const LINE: usize = 76;

impl Folded {
    fn new(name: &str) -> Self {
        Self { text: name.to_owned(), column: name.len(), name: name.len() }
    }

    /// Adds a word after a space or a fold.
    fn word(&mut self, word: &str) {
        if self.column + 1 + word.len() > LINE {
            self.fold();
        } else {
            self.text.push(' ');
            self.column += 1;
        }
        self.put(word);
    }

    /// Adds to the last word, after a fold when the line is full.
    fn part(&mut self, part: &str) {
        if self.column + part.len() > LINE {
            self.fold();
        }
        self.put(part);
    }

    /// How many octets fit before or after the next fold.
    fn room(&self) -> usize {
        if self.column < LINE { LINE - self.column } else { LINE - 1 }
    }

    fn fold(&mut self) {
        self.text.push_str("\r\n\t");
        self.column = 1;
    }

    fn put(&mut self, text: &str) {
        self.text.push_str(text);
        self.column += text.len();
    }

    fn name_and_value(&self) -> (&[u8], &[u8]) {
        let (name, value) = self.text.split_at(self.name);
        (name.trim_end_matches(':').as_bytes(), value.as_bytes())
    }

    fn ended(mut self) -> String {
        self.text.push_str("\r\n");
        self.text
    }
}
