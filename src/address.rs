//! E-mail addresses: parsed, folded, hashed, masked.
//!
//! Pure. An address is mailed as it was first spelt and known by its folded form: NFC, lower case, the domain as an
//! A-label (RFC 5890). What is kept about a refusal is kept under a keyed hash of the folded form, which outlives the
//! address itself.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sea_orm::DeriveValueType;
use sha2::Sha256;
use unicode_normalization::UnicodeNormalization;

mod nameless;
#[cfg(test)]
mod tests;

pub use nameless::nameless;

/// Longest local part in octets (RFC 5321 §4.5.3.1.1).
const MAX_LOCAL: usize = 64;
/// Longest domain in octets, as an A-label (RFC 5321 §4.5.3.1.2).
const MAX_DOMAIN: usize = 253;
/// Longest address in octets (RFC 5321 §4.5.3.1.3, without the angle brackets).
const MAX_ADDRESS: usize = 254;

/// Why a text is no address that mail can be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing there.
    #[error("the address is empty")]
    Empty,
    /// CR, LF, NUL or another control character.
    #[error("the address holds a control character")]
    Control,
    /// White space inside.
    #[error("the address holds white space")]
    Space,
    /// Not of the form local@domain.
    #[error("the address is not of the form name@domain")]
    Form,
    /// The part before the @ is over 64 octets.
    #[error("the part before the @ is longer than 64 octets")]
    LongLocal,
    /// Over 254 octets.
    #[error("the address is longer than 254 octets")]
    Long,
    /// The part before the @ has a character that needs quoting or dots in the wrong place.
    #[error("the part before the @ is not usable")]
    Local,
    /// The domain is not a domain name with at least two labels.
    #[error("the domain is not usable")]
    Domain,
}

/// An address that mail can be sent to. Its `Debug` form is masked.
#[derive(Clone, PartialEq, Eq)]
pub struct EmailAddress {
    spelt: String,
    at: usize,
    ascii_domain: String,
}

impl EmailAddress {
    /// Parses an address as a person or a file gives it. White space around it is forgiven; comments, quoted local
    /// parts, address literals and domains of one label are not.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let text = text.trim_matches([' ', '\t']);
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(AddressError::Control);
        }
        if text.chars().any(|c| c.is_whitespace() || is_invisible(c)) {
            return Err(AddressError::Space);
        }
        let spelt: String = text.nfc().collect();
        let (local, domain) = spelt.rsplit_once('@').ok_or(AddressError::Form)?;
        if local.is_empty() || domain.is_empty() {
            return Err(AddressError::Form);
        }
        // Some letters are longer in lower case, and what an address is known by must be an address itself.
        let longest = local.len().max(folded(local).len());
        if longest > MAX_LOCAL {
            return Err(AddressError::LongLocal);
        }
        if !is_dot_atom(local) {
            return Err(AddressError::Local);
        }
        let ascii_domain = ascii_domain(domain)?;
        if longest + 1 + ascii_domain.len() > MAX_ADDRESS {
            return Err(AddressError::Long);
        }
        let at = local.len();
        Ok(Self { spelt, at, ascii_domain })
    }

    /// As it was spelt, in NFC.
    pub fn as_str(&self) -> &str {
        &self.spelt
    }

    /// The part before the @, as spelt.
    pub fn local(&self) -> &str {
        &self.spelt[..self.at]
    }

    /// The domain as an A-label in lower case.
    pub fn domain(&self) -> &str {
        &self.ascii_domain
    }

    /// As it goes into envelope and header: the local part as spelt, the domain as an A-label.
    pub fn to_wire(&self) -> String {
        format!("{}@{}", self.local(), self.ascii_domain)
    }

    /// The form by which a recipient is known: NFC, lower case, A-label domain.
    pub fn folded(&self) -> String {
        format!("{}@{}", folded(self.local()), self.ascii_domain)
    }

    /// Enough for its owner to know it again and for nobody else: `a…z@e….com`.
    pub fn masked(&self) -> String {
        mask(&self.spelt)
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

/// A local part without the quotes that may stand around it (RFC 5321 §4.1.2).
pub fn unquoted(local: &str) -> &str {
    local.strip_prefix('"').and_then(|local| local.strip_suffix('"')).unwrap_or(local)
}

/// Masks anything that looks like an address: `a…z@e….com`.
pub fn mask(address: &str) -> String {
    let Some((local, domain)) = address.rsplit_once('@') else { return "…".to_owned() };
    let mut chars = local.chars();
    let first = chars.next().map(String::from).unwrap_or_default();
    let last = if local.chars().count() > 3 {
        chars.next_back().map(String::from).unwrap_or_default()
    } else {
        String::new()
    };
    let host: String = domain.chars().take(1).collect();
    let top = domain.rsplit_once('.').map(|(_, top)| format!(".{top}")).unwrap_or_default();
    format!("{first}…{last}@{host}…{top}")
}

fn folded(local: &str) -> String {
    if local.is_ascii() {
        return local.to_ascii_lowercase();
    }
    // Lower-casing can leave NFC, so normalise again.
    local.to_lowercase().nfc().collect()
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{ad}')
}

/// Without encoded words: they must not stand in an address (RFC 2047 §5), and some programs decode them there
/// nevertheless.
fn is_dot_atom(local: &str) -> bool {
    !has_encoded_word(local)
        && local.split('.').all(|atom| {
            !atom.is_empty()
                && atom
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii())
        })
}

fn has_encoded_word(local: &str) -> bool {
    local.split_once("=?").is_some_and(|(_, rest)| rest.contains("?="))
}

fn ascii_domain(domain: &str) -> Result<String, AddressError> {
    let ascii = idna::domain_to_ascii_strict(domain).map_err(|_| AddressError::Domain)?;
    let labels: Vec<&str> = ascii.split('.').collect();
    let usable = ascii.len() <= MAX_DOMAIN
        && labels.len() >= 2
        && labels.iter().all(|label| !label.is_empty() && label.len() <= 63)
        && labels.last().is_some_and(|top| !top.chars().all(|c| c.is_ascii_digit()));
    if usable { Ok(ascii) } else { Err(AddressError::Domain) }
}

/// HMAC-SHA256 of a folded address under the [`AddressKey`]: what remains of a person after erasure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, DeriveValueType)]
pub struct AddressHash(pub Vec<u8>);

impl AddressHash {
    /// Octets of a hash.
    pub const LEN: usize = 32;

    /// For exports: base64url without padding.
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.0)
    }

    /// Reads what [`AddressHash::to_text`] wrote.
    pub fn from_text(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| bytes.len() == Self::LEN).map(Self)
    }
}

impl sea_orm::TryFromU64 for AddressHash {
    fn try_from_u64(_: u64) -> Result<Self, sea_orm::DbErr> {
        Err(sea_orm::DbErr::ConvertFromU64("AddressHash"))
    }
}

/// The key of the address hash. It is never rotated: with another key every refusal would be forgotten.
#[derive(Clone)]
pub struct AddressKey(Vec<u8>);

impl AddressKey {
    /// Takes at least 32 octets.
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() >= 32).then_some(Self(bytes))
    }

    /// A fresh random key.
    pub fn generate() -> Self {
        Self(rand::random::<[u8; 32]>().to_vec())
    }

    /// The key itself, to be stored.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The hash of an address.
    pub fn hash(&self, address: &EmailAddress) -> AddressHash {
        self.hash_folded(&address.folded())
    }

    /// The hash of an address that is folded already.
    pub fn hash_folded(&self, folded: &str) -> AddressHash {
        AddressHash(self.mac(b"address\0", folded.as_bytes()))
    }

    /// A key for the seals on the heads of evidence, which tells nothing of this one.
    pub fn sealing_key(&self) -> Vec<u8> {
        self.mac(b"seal\0", b"")
    }

    /// A value that tells whether this is the right key and nothing else.
    pub fn check_value(&self) -> Vec<u8> {
        self.mac(b"check\0", b"")
    }

    fn mac(&self, label: &[u8], text: &[u8]) -> Vec<u8> {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes any key");
        mac.update(label);
        mac.update(text);
        mac.finalize().into_bytes().to_vec()
    }
}

impl fmt::Debug for AddressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AddressKey(…)")
    }
}
