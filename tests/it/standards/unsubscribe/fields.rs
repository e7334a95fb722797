//! U1, U2, U16, U18: what mail says about refusing it, as other programs read it.

use serde_json::json;

use super::super::provider::{self, HOST, OneClick, person, public, read_by_others};
use crate::harness::{Database, Tidings, Transaction};

const REFUSABLE: [&str; 3] = ["relationship", "reminder", "marketing"];
const SERVICE_SIDE: [&str; 2] = ["requested", "service"];

/// A few hundred messages of campaigns and single ones, of each class that can be refused, from two brands, the other
/// with links of its own.
async fn a_few_hundred(tidings: &Tidings) -> Vec<Transaction> {
    tidings.brand("bee").await;
    let own = json!({
        "name": "Bee, \"the\" 🐝", "from": "bee <news@bee.example.com>", "postal_address": "1 Main Street",
        "base_url": "https://links.bee.example.com/mail",
    });
    tidings.put("/brands/bee", own).await.ok();
    tidings.recipients(80).await;
    for class in REFUSABLE {
        tidings.send_to_all("acme", class).await;
        tidings.topic("bee", class, class).await;
        for n in 0..10 {
            tidings.message("bee", class, &person(n)).await;
        }
    }
    tidings.smtp.wait_for(3 * 90).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u1_every_message_that_can_be_refused_has_one_field_with_one_https_link() {
    let tidings = provider::start(Database::sqlite()).await;
    let mails = a_few_hundred(&tidings).await;
    let mut links = std::collections::HashSet::new();
    for (mail, read) in mails.iter().zip(read_by_others(&mails)) {
        let link = OneClick::of(mail);
        let bee = mail.header("From").unwrap().contains("bee.example.com");
        let base = if bee {
            "https://links.bee.example.com/mail/u/".to_owned()
        } else {
            format!("https://{HOST}/u/")
        };
        assert!(link.url().starts_with(&base), "{}", link.url());
        // Another reader finds the same link, and nothing to say against it.
        assert_eq!(read["problems"], json!([]), "{}", mail.text());
        assert_eq!(read["clicks"].as_array().unwrap().len(), 2, "one https link");
        assert_eq!(read["clicks"][0]["url"], link.url());
        links.insert(link.url().to_owned());
    }
    assert_eq!(links.len(), mails.len(), "each message has a link of its own");
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u2_the_post_field_is_octet_for_octet_what_the_standard_says() {
    let tidings = provider::start(Database::sqlite()).await;
    tidings.recipient("ada@example.org").await;
    for class in REFUSABLE {
        let mail = tidings.mail_of("acme", class, "ada@example.org").await;
        let head = mail.text().split("\r\n\r\n").next().unwrap().to_owned() + "\r\n";
        let wanted = "\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n";
        assert_eq!(head.matches(wanted).count(), 1, "{head}");
        assert_eq!(head.to_ascii_lowercase().matches("\r\nlist-unsubscribe-post:").count(), 1, "{head}");
        let after = head.split(wanted).nth(1).unwrap();
        assert!(!after.starts_with([' ', '\t']), "{head}");
    }
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u18_mail_that_cannot_be_refused_carries_no_unsubscribe_field_and_no_link_that_stops_it() {
    let tidings = provider::start(Database::sqlite()).await;
    tidings.recipient("ada@example.org").await;
    let mut mails = Vec::new();
    for class in SERVICE_SIDE {
        mails.push(tidings.mail_of("acme", class, "ada@example.org").await);
    }
    for (mail, read) in mails.iter().zip(read_by_others(&mails)) {
        for name in read["names"].as_array().unwrap() {
            assert!(!name.as_str().unwrap().starts_with("list-"), "{}", mail.text());
        }
        for part in ["text", "html"] {
            assert!(!read[part].as_str().unwrap().contains("/u/"), "{read}");
        }
    }
    // Even a link that a template asks for by name leads nowhere: there is none.
    let template = json!({
        "subject": "Alert", "html": "<p>Alert [{{unsubscribe_url}}]</p>", "text": "Alert [{{unsubscribe_url}}]",
        "classes": ["requested", "service"],
    });
    tidings.put("/templates/hello", template).await.ok();
    for class in SERVICE_SIDE {
        let mail = tidings.mail_of("acme", class, "ada@example.org").await;
        assert_eq!(mail.header("List-Unsubscribe"), None);
        assert!(mail.parsed().body_text(0).unwrap().contains("[]"), "{}", mail.text());
    }
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u18_nothing_said_through_any_link_stops_mail_that_cannot_be_refused() {
    let tidings = Tidings::start_with(Database::sqlite(), public).await;
    tidings.ready_to_send().await;
    tidings.recipients(1).await;
    let link = OneClick::of(&tidings.mail_of("acme", "marketing", &person(0)).await);
    for scope in ["topic", "brand", "all"] {
        tidings.submit(link.path(), &[("page", "1"), ("scope", scope)]).await.is(200);
        for class in SERVICE_SIDE {
            tidings.mail_of("acme", class, &person(0)).await;
        }
        let said = tidings.get(&format!("/explain?email={}&brand=acme&topic=notice", person(0))).await.ok();
        assert_eq!(said["decision"], "send", "{said}");
    }
    tidings.stop().await;
}
