//! Whatever is composed, its signatures hold: judged by mail-auth's verifier, with DNS answered from a table.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use mail_auth::common::parse::TxtRecordParser as _;
use mail_auth::common::verify::DomainKey;
use mail_auth::hickory_resolver::config::{ResolverConfig, ResolverOpts};
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator, Parameters, ResolverCache, Txt};
use rcgen::{KeyPair, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData as _, RsaKeySize};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

const DOMAIN: &str = "xn--bcher-kva.example";

/// Private keys in PEM form with their selectors, and what DNS says of them.
struct Known {
    keys: Vec<(&'static str, String)>,
    dns: Table,
}

struct Table(HashMap<Box<str>, Arc<DomainKey>>);

impl ResolverCache<Box<str>, Txt> for Table {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.get(name).cloned().map(Txt::DomainKey)
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let published = |selector: &str, kind: &str, public: &[u8]| {
        let text = format!("v=DKIM1; k={kind}; p={}", STANDARD.encode(public));
        let name = format!("{selector}._domainkey.{DOMAIN}.").into_boxed_str();
        (name, Arc::new(DomainKey::parse(text.as_bytes()).unwrap()))
    };
    let dns = [
        published("r", "rsa", &rsa.subject_public_key_info()),
        published("e", "ed25519", ed25519.der_bytes()),
    ];
    Known {
        keys: vec![("r", rsa.serialize_pem()), ("e", ed25519.serialize_pem())],
        dns: Table(dns.into_iter().collect()),
    }
});

fn signing_world(class: Class) -> World {
    let mut world = world(class);
    // Verifiers compare with the time it is.
    world.date = Timestamp::now();
    world.brand.notice_from = None;
    for (selector, pem) in &KNOWN.keys {
        world.dkim.add(DOMAIN, selector, pem.as_bytes()).unwrap();
    }
    world
}

/// Whether each signature holds, from the top.
fn verdicts(message: &[u8]) -> Vec<bool> {
    let parsed = AuthenticatedMessage::parse(message).unwrap();
    let nowhere = MessageAuthenticator::new(ResolverConfig::default(), ResolverOpts::default()).unwrap();
    let asked = Parameters::new(&parsed).with_txt_cache(&KNOWN.dns);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let output = runtime.block_on(nowhere.verify_dkim(asked));
    output.iter().map(|one| *one.result() == DkimResult::Pass).collect()
}

#[test]
fn a_signature_falls_with_the_message_under_it() {
    let world = signing_world(Class::Marketing);
    let message = world.compose(&content("Hello", "<p>Hello</p>", json!({})), "Zoe", None).unwrap();
    assert_eq!(verdicts(&message.bytes), [true, true]);
    let text = String::from_utf8(message.bytes).unwrap();
    assert_eq!(verdicts(text.replace("Hello", "Hallo").as_bytes()), [false, false]);
    assert_eq!(verdicts(format!("Subject: Other\r\n{text}").as_bytes()), [false, false]);
}

#[test]
fn the_same_delivery_is_signed_with_the_same_octets_whenever() {
    let world = signing_world(Class::Service);
    let content = content("Hello", "<p>Hello</p>", json!({}));
    let one = world.compose(&content, "Zoe", None).unwrap();
    let again = world.compose(&content, "Zoe", None).unwrap();
    assert!(one == again);
    let mut later = world;
    later.date = later.date.plus(std::time::Duration::from_secs(1));
    assert!(one != later.compose(&content, "Zoe", None).unwrap());
}

#[test]
fn without_a_key_of_the_from_domain_there_is_no_signature() {
    let mut world = signing_world(Class::Service);
    world.brand.notice_from = Some("Acme <notices@acme.example>".into());
    let message = world.compose(&content("Hello", "<p>Hello</p>", json!({})), "Zoe", None).unwrap();
    assert!(!header_of(&message).iter().any(|(name, _)| name == "DKIM-Signature"));
    assert_eq!(
        format!("{:?}", world.dkim),
        format!("[\"r._domainkey.{DOMAIN}\", \"e._domainkey.{DOMAIN}\"]")
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn every_signature_of_every_message_holds(
        name in text(), subject in text(), body in text(), refusable in any::<bool>()
    ) {
        let world = signing_world(if refusable { Class::Marketing } else { Class::Requested });
        let content = content("{{data.s}}", "<p>{{name}}: {{data.b}}</p>", json!({}));
        let message = match world.compose(&content, &name, Some(&json!({"s": subject, "b": body}))) {
            Err(ComposeError::TooLong { .. }) => return Ok(()),
            other => other.unwrap(),
        };
        check_octets(&message);
        prop_assert_eq!(verdicts(&message.bytes), [true, true]);
    }
}
