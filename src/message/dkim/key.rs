//! Private keys, read and refused.

use mail_auth::common::crypto::{DkimKey, Ed25519Key, RsaKey};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

/// Fewest bits of an RSA key that signs here. RFC 8301 §3.2 asks signers for 2,048.
const LEAST_BITS: usize = 2048;
/// Most bits: what every verifier must take (RFC 8301 §3.2).
const MOST_BITS: usize = 4096;

/// Why a file is no key that signs, and what to do. None of these repeats what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing in PEM form that is a private key.
    #[error(
        "holds no private key in PEM form; make one with `openssl genrsa -out FILE 2048` or \
         `openssl genpkey -algorithm ed25519 -out FILE`"
    )]
    NoKey,
    /// The public half.
    #[error("holds a public key, which belongs into DNS; name the file of the private key")]
    Public,
    /// A key behind a passphrase.
    #[error("holds a key with a passphrase; write it without one: `openssl pkey -in OLD -out NEW`")]
    Encrypted,
    /// Neither RSA nor Ed25519.
    #[error("holds a key of another algorithm; DKIM knows RSA and Ed25519")]
    Algorithm,
    /// An RSA key that others could break.
    #[error(
        "holds an RSA key of {0} bits, which is too short; make one of 2,048: `openssl genrsa -out FILE 2048`"
    )]
    Short(usize),
    /// An RSA key that verifiers need not take.
    #[error(
        "holds an RSA key of {0} bits, and receivers need not take more than 4,096; make one of 2,048: \
         `openssl genrsa -out FILE 2048`"
    )]
    Long(usize),
    /// The numbers do not fit together.
    #[error("holds a damaged key; put it back from your backup, or make another")]
    Damaged,
}

/// Reads a private key.
pub(super) fn parse(pem: &[u8]) -> Result<DkimKey, KeyError> {
    let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| what_else(pem))?;
    let rsa = match &der {
        PrivateKeyDer::Pkcs1(pkcs1) => Some(pkcs1.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(pkcs8) => match inner(pkcs8.secret_pkcs8_der()).ok_or(KeyError::Damaged)? {
            (RSA, pkcs1) => Some(pkcs1),
            (ED25519, _) => None,
            _ => return Err(KeyError::Algorithm),
        },
        _ => return Err(KeyError::Algorithm),
    };
    if let Some(pkcs1) = rsa {
        match modulus_bits(pkcs1).ok_or(KeyError::Damaged)? {
            bits if bits < LEAST_BITS => return Err(KeyError::Short(bits)),
            bits if bits > MOST_BITS => return Err(KeyError::Long(bits)),
            _ => {}
        }
        return RsaKey::from_key_der(der).map(DkimKey::Rsa).map_err(|_| KeyError::Damaged);
    }
    Ed25519Key::from_pkcs8_maybe_unchecked_der(der.secret_der())
        .map(DkimKey::Ed25519)
        .map_err(|_| KeyError::Damaged)
}

/// What a text is that holds no private key.
fn what_else(pem: &[u8]) -> KeyError {
    let text = String::from_utf8_lossy(pem);
    if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return KeyError::Encrypted;
    }
    if text.contains("PUBLIC KEY-----") {
        return KeyError::Public;
    }
    if text.contains("-----BEGIN DSA PRIVATE KEY-----") {
        return KeyError::Algorithm;
    }
    KeyError::NoKey
}

/// rsaEncryption, 1.2.840.113549.1.1.1 (RFC 8017 appendix A.1), as DER holds it.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// id-Ed25519, 1.3.101.112 (RFC 8410 §3).
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// The algorithm of a PKCS#8 key, and the key inside (RFC 5958 §2).
fn inner(pkcs8: &[u8]) -> Option<(&[u8], &[u8])> {
    let (info, _) = element(pkcs8, SEQUENCE)?;
    let (_, rest) = element(info, INTEGER)?;
    let (algorithm, rest) = element(rest, SEQUENCE)?;
    let (oid, _) = element(algorithm, OBJECT_IDENTIFIER)?;
    let (key, _) = element(rest, OCTET_STRING)?;
    Some((oid, key))
}

/// How many bits the modulus of a PKCS#1 key has (RFC 8017 appendix A.1.2).
fn modulus_bits(pkcs1: &[u8]) -> Option<usize> {
    let (numbers, _) = element(pkcs1, SEQUENCE)?;
    let (_, rest) = element(numbers, INTEGER)?;
    let (modulus, _) = element(rest, INTEGER)?;
    let zeros = modulus.iter().take_while(|octet| **octet == 0).count();
    let first = modulus.get(zeros)?;
    Some((modulus.len() - zeros) * 8 - first.leading_zeros() as usize)
}

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// The content of the DER element of this tag, and what follows it (X.690 §8.1).
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = der.strip_prefix(&[tag])?;
    let (&length, rest) = rest.split_first()?;
    if length < 0x80 {
        return rest.split_at_checked(length.into());
    }
    let (octets, rest) = rest.split_at_checked((length & 0x7f).into())?;
    if octets.len() > 4 {
        return None;
    }
    let length = octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet));
    rest.split_at_checked(length)
}
