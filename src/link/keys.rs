//! The ring of link-signing keys: the first signs, all verify.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::decode_key;

/// Longest key id in octets.
const MAX_ID: usize = 16;
/// Shortest key in octets.
const MIN_KEY: usize = 32;

/// Why a ring of keys cannot be used. None of these repeats a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// No key at all.
    #[error("TIDINGS_LINK_KEYS holds no key; make one with `tidings key new`")]
    Empty,
    /// Not of the form `id:base64`.
    #[error("key number {0} of TIDINGS_LINK_KEYS is not of the form id:base64")]
    Form(usize),
    /// The id is empty, too long or has other characters than a-z, 0-9 and -.
    #[error("the id of key number {0} of TIDINGS_LINK_KEYS must be 1 to 16 of a-z, 0-9 and -")]
    Id(usize),
    /// Under 32 octets.
    #[error("the key {0:?} of TIDINGS_LINK_KEYS is shorter than 32 octets; make one with `tidings key new`")]
    Short(String),
    /// Two keys of one id.
    #[error("TIDINGS_LINK_KEYS has two keys with the id {0:?}")]
    Twice(String),
}

#[derive(Clone)]
struct Key {
    id: String,
    /// Keyed, and given what every payload begins with: a copy of it goes on from there.
    mac: Hmac<Sha256>,
}

/// The keys by which links are signed and verified. Its `Debug` form shows ids only.
#[derive(Clone)]
pub struct KeyRing {
    keys: Vec<Key>,
}

impl KeyRing {
    /// Reads `id:base64` pairs, parted by commas or white space.
    ///
    /// # Errors
    /// Which key is wrong and how.
    pub fn parse(text: &str) -> Result<Self, KeyRingError> {
        let mut keys: Vec<Key> = Vec::new();
        let pairs = text.split([',', '\n', ' ', '\t', '\r']).filter(|pair| !pair.is_empty());
        for (n, pair) in pairs.enumerate() {
            let (id, secret) = pair.split_once(':').ok_or(KeyRingError::Form(n + 1))?;
            if id.is_empty()
                || id.len() > MAX_ID
                || !id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            {
                return Err(KeyRingError::Id(n + 1));
            }
            let secret = decode_key(secret).ok_or(KeyRingError::Form(n + 1))?;
            if secret.len() < MIN_KEY {
                return Err(KeyRingError::Short(id.to_owned()));
            }
            if keys.iter().any(|key| key.id == id) {
                return Err(KeyRingError::Twice(id.to_owned()));
            }
            // A key of any length will do.
            let mut mac = Hmac::<Sha256>::new_from_slice(&secret).map_err(|_| KeyRingError::Form(n + 1))?;
            mac.update(b"tidings link\0");
            keys.push(Key { id: id.to_owned(), mac });
        }
        if keys.is_empty() { Err(KeyRingError::Empty) } else { Ok(Self { keys }) }
    }

    /// A new key in the form that [`KeyRing::parse`] reads, with an id of its own.
    pub fn new_key() -> String {
        let id = hex::encode(rand::random::<[u8; 4]>());
        format!("k{id}:{}", STANDARD.encode(rand::random::<[u8; 32]>()))
    }

    pub(super) fn signing_id(&self) -> &str {
        &self.keys[0].id
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.id.as_str())
    }

    /// The tag of `payload` under the named key; none when the ring does not hold it.
    pub(super) fn tag(&self, id: &str, payload: &[u8]) -> Option<Vec<u8>> {
        Some(self.mac(id, payload)?.finalize().into_bytes().to_vec())
    }

    /// Whether `tag` is the whole tag of `payload`, compared in constant time.
    pub(super) fn verify(&self, id: &str, payload: &[u8], tag: &[u8]) -> bool {
        self.mac(id, payload).is_some_and(|mac| mac.verify_slice(tag).is_ok())
    }

    fn mac(&self, id: &str, payload: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = self.keys.iter().find(|key| key.id == id)?.mac.clone();
        mac.update(payload);
        Some(mac)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}
