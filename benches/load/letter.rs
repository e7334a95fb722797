//! The letter that every campaign sends, and the same letter made by the library alone.
//!
//! About 6.5 kB as it stands on the wire: 4.6 kB of HTML with some fields of the person, and a text part.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tidings::address::{AddressKey, EmailAddress};
use tidings::brand::{Brand, Topic};
use tidings::clock::Timestamp;
use tidings::decision::Class;
use tidings::id::{BrandId, ContentId, DeliveryId, RecipientId, TopicId};
use tidings::link::KeyRing;
use tidings::message::{Addressee, Compiled, DkimKeys, Frozen, Message, Prepared, Sender};

use super::{Outcome, people};

pub(crate) const BRAND: &str = "Load and Sons";
pub(crate) const FROM: &str = "Load and Sons <news@load.example.com>";
pub(crate) const POSTAL_ADDRESS: &str = "1 Load Street, 12345 Loadstone";
pub(crate) const TOPIC: &str = "The letter of the week";
pub(crate) const SUBJECT: &str = "{{name}}, what is new in {{data.city}}";
pub(crate) const HTML: &str = include_str!("letter.html");
pub(crate) const TEXT: &str = include_str!("letter.txt");
/// The From domain.
pub(crate) const DOMAIN: &str = "load.example.com";

/// The campaign's data, over which each line lays its own.
pub(crate) fn data() -> Value {
    json!({ "city": "your town", "number": "0" })
}

/// RSA-2048 and Ed25519 keys of the From domain, in two files.
pub(crate) struct Keys {
    rsa: String,
    ed25519: String,
}

impl Keys {
    /// Makes new ones.
    pub(crate) fn new() -> Outcome<Self> {
        let rsa = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)?;
        let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        Ok(Self { rsa: rsa.serialize_pem(), ed25519: ed25519.serialize_pem() })
    }

    /// Writes them into this folder and returns what `TIDINGS_DKIM` is to say.
    pub(crate) fn setting(&self, folder: &Path) -> Outcome<String> {
        let mut entries = Vec::new();
        for (selector, pem) in [("r", &self.rsa), ("e", &self.ed25519)] {
            let file = folder.join(format!("{selector}.pem"));
            fs::write(&file, pem)?;
            entries.push(format!("{DOMAIN}:{selector}:{}", file.display()));
        }
        Ok(entries.join(","))
    }

    fn ring(&self) -> Outcome<DkimKeys> {
        let mut keys = DkimKeys::default();
        keys.add(DOMAIN, "r", self.rsa.as_bytes())?;
        keys.add(DOMAIN, "e", self.ed25519.as_bytes())?;
        Ok(keys)
    }
}

/// All that a message is made of but the person.
pub(crate) struct Press {
    prepared: Prepared,
    address_key: AddressKey,
}

impl Press {
    /// Ready to make messages, signed when keys are given.
    pub(crate) fn new(keys: Option<&Keys>) -> Outcome<Self> {
        let (brand, topic) = stream();
        let content = Compiled::new(&Frozen {
            id: ContentId::new(),
            brand_id: brand.id,
            topic_id: topic.id,
            template: "letter".into(),
            subject: SUBJECT.into(),
            html: HTML.into(),
            text: TEXT.into(),
            partials: BTreeMap::new(),
            data: data(),
            reply_to: None,
        })?;
        let sender = Sender {
            brand: &brand,
            topic: &topic,
            // As long as what a served program makes of its listen address.
            base_url: &"http://127.0.0.1:40000/".parse()?,
            link_keys: &KeyRing::parse(&KeyRing::new_key())?,
            default_bounce_domain: None,
            inbound_domain: None,
            dkim: &keys.map(Keys::ring).transpose()?.unwrap_or_default(),
        };
        Ok(Self { prepared: Prepared::new(&content, &sender)?, address_key: AddressKey::generate() })
    }

    /// The message of one person, as a worker makes it.
    pub(crate) fn message(&self, n: u64, delivery: DeliveryId) -> Outcome<Message> {
        let address = EmailAddress::parse(&people::address(n))?;
        let address_hash = self.address_key.hash(&address);
        let name = people::name(n);
        let addressee = Addressee {
            recipient: RecipientId::new(),
            address: &address,
            address_hash: &address_hash,
            name: Some(&name),
            locale: None,
            external_id: None,
            customer: false,
            attributes: &json!({}),
            data: Some(&json!({ "city": people::city(n), "number": n.to_string() })),
        };
        Ok(self.prepared.compose(&addressee, delivery, Timestamp::now())?)
    }
}

fn stream() -> (Brand, Topic) {
    let at = Timestamp::now();
    let brand = Brand {
        id: BrandId::new(),
        slug: "load".into(),
        name: BRAND.into(),
        from_mailbox: FROM.into(),
        notice_from: None,
        reply_to: None,
        postal_address: POSTAL_ADDRESS.into(),
        phone: None,
        website: None,
        base_url: None,
        bounce_domain: None,
        color: None,
        logo: None,
        origins: json!([]),
        one_click_scope: "all".into(),
        created_at: at,
        updated_at: at,
        archived_at: None,
    };
    let topic = Topic {
        id: TopicId::new(),
        brand_id: brand.id,
        slug: "news".into(),
        name: TOPIC.into(),
        class: Class::Marketing,
        description: None,
        consent: "opt_out".into(),
        customers_keep: false,
        created_at: at,
        updated_at: at,
        archived_at: None,
    };
    (brand, topic)
}
