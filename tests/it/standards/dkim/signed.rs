//! D1, D2, D3, D4, U3: what is signed, and how.

use std::time::Duration;

use serde_json::json;

use super::{DOMAIN, Keys};
use crate::harness::{Act, Database, Stage, eventually};

/// Every way of sending: a campaign, its test, and a single message of each class.
async fn one_of_each(tidings: &crate::harness::Tidings) -> Vec<Vec<u8>> {
    tidings.recipient("everyone@people.example.com").await;
    tidings.send_to_all("acme", "marketing").await;
    let draft = tidings.draft("acme", "marketing").await;
    tidings
        .post(&format!("/campaigns/{draft}/test"), json!({ "to": ["test@people.example.com"] }))
        .await
        .ok();
    let mut mails = vec![
        tidings.smtp.wait_for_message_to("everyone@people.example.com").await,
        tidings.smtp.wait_for_message_to("test@people.example.com").await,
    ];
    for class in ["requested", "service", "relationship", "reminder", "marketing"] {
        mails.push(tidings.mail_of("acme", class, &format!("{class}@people.example.com")).await);
    }
    mails.into_iter().map(|mail| mail.data).collect()
}

on_both! {
    async fn d1_d2_every_message_has_an_rsa_and_an_ed25519_signature_and_both_hold_in_both_verifiers(database: Database) {
        let keys = Keys::both();
        let tidings = keys.start(database).await;
        let mails = one_of_each(&tidings).await;
        keys.all_pass(&mails, &["r1", "e1"]);
        for judged in keys.judge(&mails) {
            assert_eq!(judged[0].tag("a"), Some("rsa-sha256"));
            assert_eq!(judged[1].tag("a"), Some("ed25519-sha256"));
        }
        tidings.stop().await;
    }
}

#[tokio::test]
async fn d3_the_tags_are_those_that_standards_ask_for() {
    let keys = Keys::both();
    let tidings = keys.start(Database::sqlite()).await;
    let mails = one_of_each(&tidings).await;
    for (judged, mail) in keys.judge(&mails).iter().zip(&mails) {
        let date = mail_parser::MessageParser::default().parse(mail).unwrap().date().unwrap().to_timestamp();
        for one in judged {
            assert_eq!(one.tag("v"), Some("1"));
            assert_eq!(one.tag("c"), Some("relaxed/relaxed"));
            assert_eq!(one.tag("d"), Some(DOMAIN));
            assert_eq!(one.tag("l"), None, "anyone could add to the body");
            assert_eq!(one.tag("i"), None, "it could name a person");
            let number = |name: &str| one.tag(name).unwrap().parse::<i64>().unwrap();
            assert_eq!(number("t"), date, "the same on every attempt");
            const DAY: i64 = 24 * 3600;
            // Five days of attempts here, five in the relay's queue, and a week more.
            assert!(number("x") - number("t") >= 17 * DAY, "{one:?}");
        }
    }
    tidings.stop().await;
}

#[tokio::test]
async fn d3_a_domain_of_another_script_signs_as_an_a_label() {
    let ascii = "xn--bcher-kva.example.com";
    let mut keys = Keys::none();
    keys.rsa(ascii, "r1");
    let tidings = keys.start(Database::sqlite()).await;
    let brand = json!({ "name": "Bücher", "from": "Bücher <news@bücher.example.com>", "postal_address": "1 Main Street" });
    tidings.put("/brands/books", brand).await.ok();
    tidings.topic("books", "service", "service").await;
    let mail = tidings.mail_of("books", "service", "zoe@people.example.com").await;
    let mails = [mail.data];
    keys.all_pass(&mails, &["r1"]);
    assert_eq!(keys.judge(&mails)[0][0].tag("d"), Some(ascii));
    tidings.stop().await;
}

#[tokio::test]
async fn d4_every_field_is_signed_once_more_than_it_stands_there() {
    let keys = Keys::both();
    let tidings = keys.start(Database::sqlite()).await;
    let brand = json!({
        "name": "ACME", "from": "Acme <news@acme.example.com>", "reply_to": "Help <help@acme.example.com>",
        "postal_address": "1 Main Street",
    });
    tidings.put("/brands/acme", brand).await.ok();
    let mails = one_of_each(&tidings).await;
    let always = ["from", "subject", "to", "date", "message-id", "reply-to", "mime-version", "content-type"];
    let of_lists = ["list-id", "list-unsubscribe", "list-unsubscribe-post"];
    for (judged, mail) in keys.judge(&mails).iter().zip(&mails) {
        let head = String::from_utf8(mail.clone()).unwrap();
        let head = head.split("\r\n\r\n").next().unwrap();
        let there: Vec<String> = head
            .split("\r\n")
            .filter(|line| !line.starts_with([' ', '\t']))
            .map(|line| line.split(':').next().unwrap().to_ascii_lowercase())
            .filter(|name| name != "dkim-signature")
            .collect();
        for one in judged {
            let signed = one.signed_names();
            let count = |list: &[String], name: &str| list.iter().filter(|other| *other == name).count();
            for name in always.into_iter().chain(there.iter().map(String::as_str)) {
                assert_eq!(count(&there, name), 1, "{name}");
                assert_eq!(count(&signed, name), 2, "{name} in {signed:?}");
            }
            assert!(signed.contains(&"feedback-id".to_owned()));
            for name in of_lists {
                assert_eq!(count(&signed, name), count(&there, name) * 2, "{name} in {signed:?}");
            }
            assert_eq!(count(&signed, "cc"), 1, "none may be added");
            for carrier in ["return-path", "received", "dkim-signature"] {
                assert_eq!(count(&signed, carrier), 0);
            }
        }
    }
    tidings.stop().await;
}

#[tokio::test]
async fn u3_both_unsubscribe_fields_are_under_every_signature() {
    let keys = Keys::both();
    let tidings = keys.start(Database::sqlite()).await;
    let mut mails = Vec::new();
    for class in ["relationship", "reminder", "marketing"] {
        mails.push(tidings.mail_of("acme", class, "zoe@people.example.com").await.data);
    }
    keys.all_pass(&mails, &["r1", "e1"]);
    for one in keys.judge(&mails).iter().flatten() {
        assert_eq!(one.dkimpy["covers"], true, "listunsub: {one:?}");
    }
    tidings.stop().await;
}

on_both! {
    async fn each_attempt_hands_over_the_same_octets_with_the_same_signatures(database: Database) {
        let keys = Keys::both();
        let tidings = keys.start(database).await;
        tidings.smtp.on(Stage::FinalDot, Act::reply(451, "4.3.0 not now")).once();
        let message = tidings.message("acme", "service", "zoe@people.example.com").await;
        eventually("a first attempt", async || (!tidings.smtp.transactions().is_empty()).then_some(())).await;
        eventually("the message to wait again", async || {
            let message = tidings.get(&format!("/messages/{message}")).await.ok();
            (message["state"] == "queued").then_some(())
        })
        .await;
        tidings.advance(Duration::from_secs(120));
        assert_eq!(tidings.settled(&message).await["state"], "sent");
        let attempts = tidings.smtp.transactions();
        assert_eq!(attempts.len(), 2);
        assert_eq!(attempts[0].text(), attempts[1].text());
        keys.all_pass(&[attempts[1].data.clone()], &["r1", "e1"]);
        tidings.stop().await;
    }
}

#[tokio::test]
async fn a_key_signs_for_its_domain_and_those_below_it_and_for_nobody_else() {
    let mut keys = Keys::none();
    keys.rsa("example.com", "top");
    keys.ed25519(DOMAIN, "own");
    keys.ed25519("other.example.com", "other");
    keys.ed25519("cme.example.com", "end");
    keys.ed25519("news.acme.example.com", "below");
    let tidings = keys.start(Database::sqlite()).await;
    let mail = tidings.mail_of("acme", "service", "zoe@people.example.com").await;
    keys.all_pass(&[mail.data], &["top", "own"]);
    tidings.stop().await;
}

#[tokio::test]
async fn lines_of_signatures_stay_short() {
    let keys = Keys::both();
    let tidings = keys.start(Database::sqlite()).await;
    for mail in one_of_each(&tidings).await {
        let text = String::from_utf8(mail).unwrap();
        let mut ours = false;
        let mut lines = 0;
        for line in text.split("\r\n").take_while(|line| !line.is_empty()) {
            ours = line.starts_with("DKIM-Signature:") || (ours && line.starts_with('\t'));
            lines += usize::from(ours);
            assert!(!ours || line.len() <= 78, "{line}");
        }
        assert!(lines > 10, "{text}");
    }
    tidings.stop().await;
}
