//! The token in a link: what it says, how it is written, how it is read.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::KeyRing;
use crate::address::AddressHash;
use crate::clock::Timestamp;
use crate::id::{BrandId, DeliveryId, RecipientId, TopicId};

/// The layout of the octets below.
const VERSION: u8 = 1;
/// HMAC-SHA256.
const TAG: usize = 32;
/// Longest token read, in characters; ours are about 200.
const MAX_TOKEN: usize = 512;

/// What a link is for. A token of one purpose is worth nothing for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// `/u/{token}`: opts out.
    Unsubscribe,
    /// `/preferences/{token}`.
    Preferences,
    /// `/a/{token}`: approves a change of a policy, or declines it.
    Approve,
}

impl Purpose {
    fn octet(self) -> u8 {
        match self {
            Self::Unsubscribe => b'u',
            Self::Preferences => b'p',
            Self::Approve => b'a',
        }
    }

    fn from_octet(octet: u8) -> Option<Self> {
        [Self::Unsubscribe, Self::Preferences, Self::Approve]
            .into_iter()
            .find(|purpose| purpose.octet() == octet)
    }
}

/// Why a token is not ours. Callers show one and the same page for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the link is not valid")]
pub struct LinkError;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What it is for.
    pub purpose: Purpose,
    /// Whom it concerns, after erasure too.
    pub address_hash: AddressHash,
    /// Whom it was sent to.
    pub recipient: RecipientId,
    /// The sender.
    pub brand: BrandId,
    /// The stream of messages it came in.
    pub topic: TopicId,
    /// The message it came in.
    pub delivery: DeliveryId,
    /// When the link was made.
    pub made_at: Timestamp,
}

impl Link {
    /// Writes and signs the token: base64url without padding, about 200 characters.
    pub fn to_token(&self, ring: &KeyRing) -> String {
        let key_id = ring.signing_id();
        let mut octets = Vec::with_capacity(180);
        octets.push(VERSION);
        octets.push(self.purpose.octet());
        octets.push(u8::try_from(key_id.len()).unwrap_or(0));
        octets.extend_from_slice(key_id.as_bytes());
        octets.extend_from_slice(&self.address_hash.0);
        for id in [self.recipient.0, self.brand.0, self.topic.0, self.delivery.0] {
            octets.extend_from_slice(id.as_bytes());
        }
        octets.extend_from_slice(&self.made_at.0.to_be_bytes());
        // The first key of a ring is always there.
        let tag = ring.tag(key_id, &octets).unwrap_or_default();
        octets.extend_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(octets)
    }

    /// Reads a token of this purpose. What mail programs add to links at the end (`>`, `.`, `=` and its escaped form,
    /// parameters) is forgiven, and so are line breaks inside it.
    ///
    /// # Errors
    /// One error for every cause.
    pub fn from_token(token: &str, purpose: Purpose, ring: &KeyRing) -> Result<Self, LinkError> {
        let link = Self::read(&forgive(token), ring).ok_or(LinkError)?;
        if link.purpose == purpose { Ok(link) } else { Err(LinkError) }
    }

    fn read(token: &str, ring: &KeyRing) -> Option<Self> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let octets = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (payload, tag) = octets.split_at_checked(octets.len().checked_sub(TAG)?)?;
        let mut rest = Reader(payload);
        if rest.octet()? != VERSION {
            return None;
        }
        let purpose = Purpose::from_octet(rest.octet()?)?;
        let id_len = usize::from(rest.octet()?);
        let key_id = std::str::from_utf8(rest.take(id_len)?).ok()?;
        if !ring.verify(key_id, payload, tag) {
            return None;
        }
        let address_hash = AddressHash(rest.take(AddressHash::LEN)?.to_vec());
        let link = Self {
            purpose,
            address_hash,
            recipient: RecipientId(rest.uuid()?),
            brand: BrandId(rest.uuid()?),
            topic: TopicId(rest.uuid()?),
            delivery: DeliveryId(rest.uuid()?),
            made_at: Timestamp(i64::from_be_bytes(rest.take(8)?.try_into().ok()?)),
        };
        rest.0.is_empty().then_some(link)
    }
}

/// The token without what became of it on its way: the soft line breaks of quoted-printable (RFC 2045 §6.7) and white
/// space inside it go, and it ends where something begins that no token holds. What is left is verified all the same.
fn forgive(token: &str) -> String {
    let ours = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let nothing = |c: char| {
        c == '='
            || c.is_whitespace()
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}')
    };
    let end = token.find("=3D").or_else(|| token.find("=3d")).unwrap_or(token.len());
    let whole = token[..end].chars().take_while(|&c| ours(c) || nothing(c));
    whole.filter(|&c| ours(c)).take(MAX_TOKEN + 1).collect()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn octet(&mut self) -> Option<u8> {
        self.take(1).map(|taken| taken[0])
    }

    fn uuid(&mut self) -> Option<Uuid> {
        Uuid::from_slice(self.take(16)?).ok()
    }
}
