//! DKIM, SPF and DMARC alignment (D), and the signature that one-click unsubscribing asks for (U3).
//!
//! Keys are made by openssl; dkimpy and npm's mailauth judge, with DNS answered from a table.

mod alignment;
mod changed;
mod keys;
mod relay;
mod signed;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tidings::config::DkimEntry;

use crate::harness::{Database, Tidings, tools};

/// The From domain of the brand `acme`, see `Tidings::brand`.
const DOMAIN: &str = "acme.example.com";

/// Runs openssl.
#[track_caller]
fn openssl(arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(arguments);
    tools::run(command, b"").stdout
}

/// Keys in a folder of their own, the entries that name them, and what DNS says of them.
struct Keys {
    folder: tempfile::TempDir,
    entries: Vec<DkimEntry>,
    dns: BTreeMap<String, String>,
}

impl Keys {
    fn none() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), entries: Vec::new(), dns: BTreeMap::new() }
    }

    /// An RSA key with selector `r1` and an Ed25519 key with selector `e1`, both of [`DOMAIN`].
    fn both() -> Self {
        let mut keys = Self::none();
        keys.rsa(DOMAIN, "r1");
        keys.ed25519(DOMAIN, "e1");
        keys
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn rsa(&mut self, domain: &str, selector: &str) {
        let file = self.path(&format!("{selector}.{domain}"));
        openssl(&["genrsa", "-out", &file, "2048"]);
        let public = openssl(&["pkey", "-in", &file, "-pubout", "-outform", "DER"]);
        self.publish(domain, selector, &file, &format!("v=DKIM1; k=rsa; p={}", STANDARD.encode(public)));
    }

    fn ed25519(&mut self, domain: &str, selector: &str) {
        let file = self.path(&format!("{selector}.{domain}"));
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", &file]);
        let public = openssl(&["pkey", "-in", &file, "-pubout", "-outform", "DER"]);
        // RFC 8463 §4.1: the 32 octets alone, which end the DER form.
        let public = STANDARD.encode(&public[public.len() - 32..]);
        self.publish(domain, selector, &file, &format!("v=DKIM1; k=ed25519; p={public}"));
    }

    fn publish(&mut self, domain: &str, selector: &str, file: &str, text: &str) {
        self.entries.push(DkimEntry::new(domain, selector, Path::new(file)));
        self.dns.insert(format!("{selector}._domainkey.{domain}"), text.to_owned());
    }

    /// Tidings that signs with them, ready to send.
    async fn start(&self, database: Database) -> Tidings {
        let tidings = Tidings::start_with(database, |settings| settings.dkim = self.entries.clone()).await;
        tidings.ready_to_send().await;
        tidings
    }

    /// What both verifiers say of each signature of each message.
    #[track_caller]
    fn judge(&self, messages: &[Vec<u8>]) -> Vec<Vec<Judged>> {
        let messages: Vec<String> = messages.iter().map(|message| STANDARD.encode(message)).collect();
        let asked = serde_json::to_vec(&json!({ "dns": self.dns, "messages": messages })).unwrap();
        let python = tools::run_json(tools::python("verify_dkim.py"), &asked);
        let node = tools::run_json(tools::node("verify_dkim.cjs"), &asked);
        let lists = |value: &Value| value.as_array().unwrap().clone();
        let judged = lists(&python).into_iter().zip(lists(&node)).map(|(dkimpy, mailauth)| {
            let (dkimpy, mailauth) = (lists(&dkimpy), lists(&mailauth));
            assert_eq!(dkimpy.len(), mailauth.len(), "both see every signature: {dkimpy:?} {mailauth:?}");
            dkimpy.into_iter().zip(mailauth).map(|(dkimpy, mailauth)| Judged { dkimpy, mailauth }).collect()
        });
        let judged: Vec<_> = judged.collect();
        assert_eq!(judged.len(), messages.len());
        judged
    }

    /// Fails unless both verifiers take every signature, of these selectors in this order.
    #[track_caller]
    fn all_pass(&self, messages: &[Vec<u8>], selectors: &[&str]) {
        for (judged, message) in self.judge(messages).iter().zip(messages) {
            let found: Vec<&str> = judged.iter().map(Judged::selector).collect();
            assert_eq!(found, selectors);
            for one in judged {
                assert!(one.passes_in_both(), "{one:?}\n{}", String::from_utf8_lossy(message));
            }
        }
    }
}

/// What the verifiers say of a signature.
#[derive(Debug)]
struct Judged {
    dkimpy: Value,
    mailauth: Value,
}

impl Judged {
    fn passes_in_both(&self) -> bool {
        self.dkimpy["pass"] == true && self.mailauth["pass"] == true
    }

    fn fails_in_both(&self) -> bool {
        self.dkimpy["pass"] == false && self.mailauth["pass"] == false
    }

    /// A tag's value as dkimpy reads it.
    fn tag(&self, name: &str) -> Option<&str> {
        self.dkimpy["tags"][name].as_str()
    }

    fn selector(&self) -> &str {
        self.tag("s").unwrap()
    }

    /// The names of `h=` in lower case.
    fn signed_names(&self) -> Vec<String> {
        self.tag("h").unwrap().split(':').map(|name| name.trim().to_ascii_lowercase()).collect()
    }
}
