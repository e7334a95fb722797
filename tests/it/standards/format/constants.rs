//! What names a message, a list and a campaign, and stays as it is: F5, F11, F13.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tidings::id::DeliveryId;

use crate::harness::{Act, Database, Stage, Tidings, Transaction, wait_until};

#[test]
fn f5_a_hundred_thousand_deliveries_have_as_many_ids() {
    // A Message-ID is the delivery's id and the From domain; some programs compare them without case.
    let ids: BTreeSet<String> = (0..100_000).map(|_| DeliveryId::new().to_string().to_lowercase()).collect();
    assert_eq!(ids.len(), 100_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f5_every_message_has_an_id_of_its_own_in_the_senders_domain() {
    let tidings = Tidings::start(Database::sqlite()).await;
    tidings.ready_to_send().await;
    tidings.recipients(200).await;
    tidings.send_to_all("acme", "marketing").await;
    tidings.send_to_all("acme", "relationship").await;
    let mails = tidings.smtp.messages();
    let ids: BTreeSet<String> = mails.iter().map(|mail| mail.header("Message-ID").unwrap()).collect();
    assert_eq!((mails.len(), ids.len()), (400, 400));
    for id in ids {
        let inner = id.strip_prefix('<').and_then(|id| id.strip_suffix("@acme.example.com>"));
        assert!(
            inner.is_some_and(|inner| inner.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')),
            "{id}"
        );
    }
    tidings.stop().await;
}

on_both! {
    async fn f5_a_retry_hands_over_the_very_same_octets(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        let to = "retried@people.example.com";
        tidings.smtp.on(Stage::FinalDot, Act::reply(451, "4.3.0 try again")).to(to).times(2);
        for class in ["service", "marketing"] {
            let before = tidings.smtp.transactions().len();
            let message = tidings.message("acme", class, to).await;
            for attempt in 1..=2 {
                wait_until("an attempt", async || {
                    let view = tidings.get(&format!("/messages/{message}")).await.ok();
                    view["state"] == "queued" && view["attempts"].as_array().unwrap().len() == attempt
                })
                .await;
                tidings.advance(Duration::from_secs(3_600));
            }
            assert_eq!(tidings.settled(&message).await["state"], "sent");
            let tries: Vec<Transaction> = tidings.smtp.transactions().split_off(before);
            assert_eq!(tries.len(), 3, "{class}");
            for other in &tries[1..] {
                assert_eq!(other.data, tries[0].data, "{class}");
                assert_eq!((&other.from, &other.to), (&tries[0].from, &tries[0].to), "{class}");
            }
            tidings.smtp.on(Stage::FinalDot, Act::reply(451, "4.3.0 try again")).to(to).times(2);
        }
        tidings.stop().await;
    }
}

/// What stands between the brackets of a List-Id.
fn list_id(mail: &Transaction) -> String {
    let field = mail.header("List-Id").unwrap();
    let (_, id) = field.rsplit_once('<').unwrap();
    id.strip_suffix('>').unwrap().to_owned()
}

/// RFC 2919 §2: a dot-atom of at least two atoms and at most 255 octets.
fn is_list_id(id: &str) -> bool {
    let is_atom = |atom: &str| {
        !atom.is_empty()
            && atom.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b))
    };
    id.len() <= 255 && id.split('.').count() > 1 && id.split('.').all(is_atom)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f11_a_list_id_stays_with_its_topic_and_no_other_has_it() {
    let tidings = Tidings::start(Database::sqlite()).await;
    tidings.ready_to_send().await;
    // As long as a domain may be, and slugs that say the same when put together.
    let long = [60, 60, 60, 31].map(|n| "d".repeat(n)).join(".") + ".example";
    assert_eq!(long.len(), 222);
    let slugs =
        [("acme", "marketing"), ("acme", "a-b"), ("acme-a", "b"), ("b-", "-"), ("a", "b"), ("b", "a")];
    let longest = ("x".repeat(63), "y".repeat(63));
    let all = slugs.into_iter().chain([(longest.0.as_str(), longest.1.as_str())]);
    let mut seen = BTreeSet::new();
    for (n, (brand, topic)) in all.enumerate() {
        for (m, domain) in ["acme.example", long.as_str()].into_iter().enumerate() {
            let from = format!("A <n@{domain}>");
            let body = json!({ "name": "A", "from": from, "postal_address": "1 Main Street" });
            tidings.put(&format!("/brands/{brand}"), body).await.ok();
            let names = ["Offers, \"the\" (best) <of@all.example>; 🙈", "Offers", "Ängebote"];
            let mut ids = BTreeSet::new();
            for (k, name) in names.into_iter().enumerate() {
                let body = json!({ "class": "marketing", "name": name });
                tidings.put(&format!("/brands/{brand}/topics/{topic}"), body).await.ok();
                let mail = tidings.mail_of(brand, topic, &format!("p{n}-{m}-{k}@people.example.com")).await;
                ids.insert(list_id(&mail));
            }
            let [id] = &Vec::from_iter(ids)[..] else { panic!("not one of {brand}/{topic}") };
            assert!(is_list_id(id) && id.ends_with(&format!(".{domain}")), "{id}");
            assert!(seen.insert(id.to_lowercase()), "{id} twice");
        }
    }
    let body = json!({ "name": "A", "from": format!("n@d{long}"), "postal_address": "1 Main Street" });
    tidings.put("/brands/acme", body).await.refuses("/from");
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f13_the_feedback_id_names_campaign_brand_and_class_and_nobody() {
    let tidings = Tidings::start(Database::sqlite()).await;
    tidings.ready_to_send().await;
    tidings.recipients(20).await;
    let mut of_campaigns = BTreeSet::new();
    for topic in ["marketing", "marketing", "relationship"] {
        let before = tidings.smtp.count();
        tidings.send_to_all("acme", topic).await;
        let mails = tidings.smtp.messages().split_off(before);
        let ids: BTreeSet<String> = mails.iter().map(|mail| mail.header("Feedback-ID").unwrap()).collect();
        let [id] = &Vec::from_iter(ids)[..] else { panic!("not one a campaign") };
        let fields: Vec<&str> = id.split(':').collect();
        let [campaign, brand, class, sender] = fields[..] else { panic!("{id}") };
        assert_eq!((campaign.len(), brand, class), (32, format!("acme.{topic}").as_str(), topic));
        assert!(
            (5..=15).contains(&sender.len()) && sender.bytes().all(|b| b.is_ascii_alphanumeric()),
            "{id}"
        );
        assert_eq!(fields.iter().collect::<BTreeSet<_>>().len(), 4, "no field says what another says");
        assert!(of_campaigns.insert((campaign.to_owned(), sender.to_owned())), "a campaign has its own");
    }
    let senders: BTreeSet<&String> = of_campaigns.iter().map(|(_, sender)| sender).collect();
    assert_eq!(senders.len(), 1, "the sender stays");
    // Single messages of one template are one stream, not each its own.
    let first = tidings.mail_of("acme", "service", "p1@people.example.com").await.header("Feedback-ID");
    assert_eq!(
        tidings.mail_of("acme", "service", "p2@people.example.com").await.header("Feedback-ID"),
        first
    );
    tidings.stop().await;
}
