//! F3: no field of the API puts a header, a recipient or a command of its own into a message or its envelope.
//!
//! Each field that can reach either is tried with each way of ending a line that some program knows. It is refused, or
//! the message has the fields of its class and no other.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::classes::names_of;
use crate::harness::readers::read_all;
use crate::harness::{Answer, Database, Tidings, Transaction};

/// What ends a line somewhere.
const ENDS: [&str; 12] = [
    "\r\n", "\n", "\r", "\0", "\u{b}", "\u{c}", "\u{85}", "\u{2028}", "\u{2029}", "\r\n\r\n", "\r\n ", "\n\t",
];
/// Encoded words (RFC 2047) that hold line ends.
const WORDS: [&str; 2] =
    ["=?utf-8?b?DQpCY2M6IGV2aWxAZXZpbC5leGFtcGxl?=", "=?utf-8?q?=0D=0ABcc:_evil@evil.example?="];

fn payloads() -> Vec<String> {
    let lines = ENDS.map(|end| format!("Ann{end}Bcc: evil@evil.example{end}X-Evil: 1"));
    lines.into_iter().chain(WORDS.map(|word| format!("Ann {word}"))).collect()
}

/// Everything as it should be.
async fn reset(tidings: &Tidings) {
    let brand =
        json!({ "name": "Acme", "from": "Acme <news@acme.example>", "postal_address": "1 Main Street" });
    tidings.put("/brands/acme", brand).await.ok();
    tidings.topic("acme", "marketing", "marketing").await;
    tidings.topic("acme", "service", "service").await;
    let subject = "{{name}} {{email}} {{locale}} {{external_id}} {{brand.name}} {{topic.name}} {{brand.postal_address}} \
                   {{brand.phone}} {{brand.website}} {{#if attributes.a}}{{attributes.a}}{{/if}} {{#if data.a}}{{data.a}}{{/if}}";
    let template = json!({ "subject": subject, "html": "<p>.</p>", "classes": ["service", "marketing"] });
    tidings.put("/templates/hello", template).await.ok();
}

/// Asserts that a call either was refused as bad input or worked; gives whether it worked.
#[track_caller]
fn worked(what: &str, answer: &Answer) -> bool {
    let status = answer.status.as_u16();
    assert!((200..300).contains(&status) || [404, 422].contains(&status), "{what}: {status} {}", answer.text);
    status < 300
}

async fn message(tidings: &Tidings, topic: &str, to: Value, data: Value) -> Answer {
    let body = json!({ "brand": "acme", "topic": topic, "template": "hello", "to": to, "data": data });
    tidings.post("/messages", body).await
}

/// Sends one message and waits until it was handed over.
async fn send(tidings: &Tidings, topic: &str, email: &str) {
    let id = message(tidings, topic, json!({ "email": email }), json!({})).await.id();
    let settled = tidings.settled(&id).await;
    assert_eq!(settled["state"], "sent", "{settled}");
}

fn path_segment(text: &str) -> String {
    text.bytes().map(|octet| format!("%{octet:02X}")).collect()
}

/// Everything that a message was sent for: no field, recipient or command but those that belong there.
#[track_caller]
fn judge(tidings: &Tidings, classes: &[&str]) {
    let mails = tidings.smtp.transactions();
    assert!(!mails.is_empty());
    let allowed: Vec<BTreeSet<&str>> =
        classes.iter().map(|class| names_of(class).into_iter().collect()).collect();
    for (mail, reading) in mails.iter().zip(read_all(mails.iter().map(|mail| mail.data.as_slice()))) {
        let mut names: BTreeSet<&str> = reading.names().into_iter().collect();
        assert_eq!(names.len(), reading.names().len(), "a field twice: {}", mail.text());
        names.remove("reply-to");
        assert!(allowed.contains(&names), "{names:?}: {}", mail.text());
        clean(mail);
        assert_eq!(reading.email["to"].as_array().unwrap().len(), 1, "{}", mail.text());
        assert_eq!(reading.email["from"].as_array().unwrap().len(), 1, "{}", mail.text());
        assert_eq!(reading.email["to"][0][1], mail.recipient(), "{}", mail.text());
    }
    for connection in 0..tidings.smtp.connections() {
        for line in tidings.smtp.lines(connection) {
            let verb = line.split([' ', ':']).next().unwrap_or_default();
            assert!(["EHLO", "MAIL", "RCPT", "DATA", "RSET", "QUIT"].contains(&verb), "{line}");
            assert!(!line.contains("evil.example"), "{line}");
        }
    }
}

fn clean(mail: &Transaction) {
    assert!(!mail.recipient().contains("evil") && !mail.from.contains("evil"));
    let head = mail.text().split("\r\n\r\n").next().unwrap().to_owned();
    for line in head.split("\r\n") {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        assert!(name != "bcc" && name != "x-evil", "{head}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_no_field_of_a_brand_or_topic_adds_a_header() {
    let tidings = Tidings::start(Database::sqlite()).await;
    for (n, evil) in payloads().into_iter().enumerate() {
        let fields = [
            ("name", evil.clone()),
            ("from", format!("{evil} <news@acme.example>")),
            ("from", format!("\"{evil}\" <news@acme.example>")),
            ("from", format!("Acme <news{evil}@acme.example>")),
            ("from", format!("Acme <news@acme.example{evil}>")),
            ("from", format!("news@acme.example{evil}")),
            ("notice_from", format!("\"{evil}\" <news@acme.example>")),
            ("reply_to", format!("\"{evil}\" <news@acme.example>")),
            ("reply_to", format!("news@acme.example{evil}")),
            ("bounce_domain", format!("acme.example{evil}")),
            ("base_url", format!("https://acme.example/{evil}")),
            ("postal_address", evil.clone()),
            ("phone", evil.clone()),
            ("website", format!("https://acme.example/{evil}")),
            ("color", evil.clone()),
            ("logo", format!("https://acme.example/{evil}")),
            ("one_click_scope", evil.clone()),
        ];
        for (m, (field, value)) in fields.into_iter().enumerate() {
            reset(&tidings).await;
            let mut body = json!({ "name": "Acme", "from": "Acme <news@acme.example>", "postal_address": "1 Main Street" });
            body[field] = json!(value);
            if worked(field, &tidings.put("/brands/acme", body).await) {
                for topic in ["marketing", "service"] {
                    send(&tidings, topic, &format!("b{n}-{m}-{topic}@people.example.com")).await;
                }
            }
        }
        reset(&tidings).await;
        for field in ["name", "description"] {
            let mut body = json!({ "name": "M", "class": "marketing" });
            body[field] = json!(evil);
            if worked(field, &tidings.put("/brands/acme/topics/marketing", body).await) {
                send(&tidings, "marketing", &format!("t{n}-{field}@people.example.com")).await;
            }
        }
        let slug = path_segment(&evil);
        let brand = json!({ "name": "A", "from": "a@acme.example", "postal_address": "1 Main Street" });
        assert!(!worked("slug", &tidings.put(&format!("/brands/{slug}"), brand).await));
        let topic = json!({ "name": "M", "class": "marketing" });
        assert!(!worked("slug", &tidings.put(&format!("/brands/acme/topics/{slug}"), topic).await));
    }
    reset(&tidings).await;
    send(&tidings, "marketing", "last@people.example.com").await;
    judge(&tidings, &["service", "marketing"]);
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_no_template_person_or_message_adds_a_header() {
    let tidings = Tidings::start(Database::sqlite()).await;
    tidings.brand("acme").await;
    reset(&tidings).await;
    for (n, evil) in payloads().into_iter().enumerate() {
        let subject = json!({ "subject": evil, "html": "<p>.</p>", "classes": ["service", "marketing"] });
        if worked("subject", &tidings.put("/templates/hello", subject).await) {
            send(&tidings, "marketing", &format!("s{n}@people.example.com")).await;
        }
        reset(&tidings).await;
        for (m, field) in ["name", "external_id", "locale", "tags", "attributes"].into_iter().enumerate() {
            let email = format!("r{n}-{m}@people.example.com");
            let mut body = json!({ "email": email });
            body[field] = match field {
                "tags" => json!([evil]),
                "attributes" => json!({ "a": evil, "b": [evil] }),
                _ => json!(evil),
            };
            if worked(field, &tidings.post("/recipients", body).await) {
                send(&tidings, "marketing", &email).await;
            }
        }
        let emails = [
            format!("ann{evil}@people.example.com"),
            format!("{evil}@people.example.com"),
            format!("ann{n}@people.example.com{evil}"),
            format!("ann{n}@people.example.com{}", ENDS[n % ENDS.len()]),
        ];
        let emails =
            emails
                .into_iter()
                .chain(WORDS.map(|word| {
                    format!("{}@people.example.com", word.replace("Bcc:_evil@evil.example", ""))
                }));
        for email in emails {
            worked("recipient's email", &tidings.post("/recipients", json!({ "email": email })).await);
            worked("email", &message(&tidings, "marketing", json!({ "email": email }), json!({})).await);
        }
        let to = json!({ "email": format!("m{n}@people.example.com"), "name": evil });
        worked("to.name", &message(&tidings, "marketing", to, json!({})).await);
        for data in [json!({ "a": evil }), json!({ evil.as_str(): 1 }), json!({ "a": [evil] })] {
            let to = json!({ "email": format!("d{n}@people.example.com") });
            worked("data", &message(&tidings, "marketing", to.clone(), data.clone()).await);
            worked("data", &message(&tidings, "service", to, data).await);
        }
    }
    send(&tidings, "marketing", "last@people.example.com").await;
    judge(&tidings, &["service", "marketing"]);
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_no_campaign_line_or_file_adds_a_header() {
    let tidings = Tidings::start(Database::sqlite()).await;
    tidings.brand("acme").await;
    reset(&tidings).await;
    for (n, evil) in payloads().into_iter().enumerate() {
        let campaign = async |field: &str, value: Value| {
            let mut body = json!({ "brand": "acme", "topic": "marketing", "template": "hello" });
            body[field] = value;
            let answer = tidings.post("/campaigns", body).await;
            worked(field, &answer).then(|| answer.id())
        };
        // A campaign each for what concerns the whole of it; the first takes all lines.
        let mut drafts = Vec::new();
        for (field, value) in [
            ("data", json!({ "a": evil })),
            ("name", json!(evil)),
            ("reply_to", json!(format!("\"{evil}\" <news@acme.example>"))),
            ("reply_to", json!(format!("news@acme.example{evil}"))),
        ] {
            drafts.extend(campaign(field, value).await);
        }
        for (m, id) in drafts.iter().enumerate() {
            let local = format!("c{n}-{m}");
            let csv_value = evil.replace('"', "\"\"");
            let csv = format!(
                "email,name,external_id,locale,tags,a\n\"{local}-csv@people.example.com\",\"{csv_value}\",,,,\n\
                 \"{local}-data@people.example.com\",Ann,,,,\"{csv_value}\"\n\
                 \"{local}-id@people.example.com\",Ann,\"{csv_value}\",\"{csv_value}\",\"{csv_value}\",x\n\
                 \"{local}{csv_value}@people.example.com\",Ann,,,,x\n"
            );
            let lines: String = [
                json!({ "email": format!("{local}-name@people.example.com"), "name": evil }),
                json!({ "email": format!("{local}-json@people.example.com"), "data": { "a": evil } }),
                json!({ "email": format!("{local}-plain@people.example.com") }),
                json!({ "email": format!("{local}@people.example.com{evil}") }),
            ]
            .map(|line| format!("{line}\n"))
            .concat();
            let path = format!("/campaigns/{id}/recipients");
            worked("csv", &tidings.post_text(&path, "text/csv", csv.clone()).await);
            worked("ndjson", &tidings.post_text(&path, "application/x-ndjson", lines).await);
            worked("import", &tidings.post_text("/recipients/import", "text/csv", csv).await);
            let test = json!({ "to": [format!("{local}-test@people.example.com"), evil] });
            worked("test", &tidings.post(&format!("/campaigns/{id}/test"), test).await);
            tidings.post_empty(&format!("/campaigns/{id}/start")).await.ok();
            let campaign = tidings.finished(id).await;
            assert_eq!(campaign["counts"]["sent"], campaign["counts"]["total"], "{campaign}");
            assert!(campaign["counts"]["total"].as_u64().unwrap() > 0, "{campaign}");
        }
    }
    judge(&tidings, &["marketing"]);
    tidings.stop().await;
}
