//! T5, T6, T7: whom an envelope names, and what it asks for.

use std::collections::{BTreeMap, HashSet};

use secrecy::SecretString;
use serde_json::json;
use tidings::link::{KeyRing, delivery_of_envelope};

use crate::harness::{Database, LINK_KEYS, Options, SmtpServer, Tidings};

const PEOPLE: usize = 40;

/// A relay that offers all it can.
async fn able_relay() -> SmtpServer {
    let extensions = vec!["PIPELINING", "SIZE 1000000", "8BITMIME", "SMTPUTF8", "DSN"];
    SmtpServer::with(Options { extensions, ..Options::default() }).await
}

async fn tidings_over(relay: &SmtpServer) -> Tidings {
    let url = SecretString::from(relay.url());
    let tidings = Tidings::start_with(Database::sqlite(), |settings| settings.relay_url = url).await;
    tidings.ready_to_send().await;
    tidings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t5_every_transaction_has_one_recipient_and_no_message_names_another() {
    let relay = able_relay().await;
    let tidings = tidings_over(&relay).await;
    tidings.recipients(PEOPLE).await;
    tidings.send_to_all("acme", "marketing").await;
    let messages = relay.wait_for(PEOPLE).await;
    for message in &messages {
        let to = message.recipient();
        let named = message.header("To").unwrap();
        assert!(named == to || named.ends_with(&format!("<{to}>")), "{named}");
        assert!(message.header("Cc").is_none() && message.header("Bcc").is_none());
        let others = (0..PEOPLE).map(|n| format!("p{n}@people.example.com")).filter(|other| other != to);
        assert!(others.into_iter().all(|other| !message.text().contains(&format!("<{other}>"))));
    }
    let people: HashSet<&str> = messages.iter().map(|message| message.recipient()).collect();
    assert_eq!(people.len(), PEOPLE);
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t6_every_envelope_sender_is_one_deliverys_own_and_cannot_be_forged() {
    let relay = able_relay().await;
    let tidings = tidings_over(&relay).await;
    let mut sent = BTreeMap::new();
    for n in 0..10 {
        let class = if n % 2 == 0 { "service" } else { "marketing" };
        sent.insert(tidings.message("acme", class, &format!("p{n}@people.example.com")).await, n);
    }
    let keys = KeyRing::parse(LINK_KEYS).unwrap();
    let mut found = HashSet::new();
    for message in relay.wait_for(10).await {
        let (local, _) = message.from.split_once('@').expect("never the null sender");
        assert!(!local.is_empty() && local.len() <= 64, "{local}");
        let delivery = delivery_of_envelope(local, &keys).unwrap();
        let n = sent[&delivery.to_string()];
        assert_eq!(message.recipient(), format!("p{n}@people.example.com"));
        assert!(found.insert(delivery.to_string()), "two messages have one sender");
        for at in 0..local.len() {
            let mut forged = local.as_bytes().to_vec();
            forged[at] = if forged[at] == b'a' { b'b' } else { b'a' };
            let forged = String::from_utf8(forged).unwrap();
            assert_ne!(delivery_of_envelope(&forged, &keys), Some(delivery), "{local} {forged}");
        }
    }
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t7_a_relay_that_offers_dsn_is_asked_for_failures_and_delays_by_the_deliverys_id() {
    let relay = able_relay().await;
    let mut tidings = tidings_over(&relay).await;
    let delivery = tidings.message("acme", "marketing", "ada+news=x@people.example.com").await;
    let mail = relay.wait_for(1).await.remove(0);
    let words: Vec<&str> = mail.mail_parameters.split(' ').collect();
    assert!(words.contains(&"RET=HDRS"), "{words:?}");
    assert!(words.contains(&format!("ENVID={delivery}").as_str()) && delivery.len() <= 100, "{words:?}");
    assert_eq!(mail.rcpt_parameters, "NOTIFY=FAILURE,DELAY ORCPT=rfc822;ada+2Bnews+3Dx@people.example.com");
    // A relay that does not offer it is told nothing of it.
    let plain = SmtpServer::start().await;
    let url = SecretString::from(plain.url());
    tidings.restart_with(|settings| settings.relay_url = url).await;
    let body = json!({
        "brand": "acme", "topic": "service", "template": "hello", "to": { "email": "bob@people.example.com" },
    });
    tidings.post("/messages", body).await.id();
    let mail = plain.wait_for(1).await.remove(0);
    assert_eq!((mail.mail_parameters.as_str(), mail.rcpt_parameters.as_str()), ("", ""));
    tidings.stop().await;
}
