//! What each class of message carries, and that odd texts come through as they were meant: F4, F8, F12, F17.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::harness::readers::{Reading, read_all};
use crate::harness::{Database, Tidings, Transaction};

const CLASSES: [&str; 5] = ["requested", "service", "relationship", "reminder", "marketing"];
const TO_NAME: &str = "Zoë \"Z\", <a@b.example> 🙈";

/// The fields that a message of this class has, sorted.
pub(super) fn names_of(class: &str) -> Vec<&'static str> {
    let mut names =
        vec!["content-type", "date", "feedback-id", "from", "message-id", "mime-version", "subject", "to"];
    if ["requested", "service", "notice"].contains(&class) {
        names.push("auto-submitted");
    } else {
        names.extend(["list-id", "list-unsubscribe", "list-unsubscribe-post"]);
    }
    names.sort_unstable();
    names
}

/// A brand with odd names and a template that shows `data.said` everywhere.
async fn odd() -> Tidings {
    let tidings = Tidings::start(Database::sqlite()).await;
    tidings.brand_with_every_class("acme").await;
    let brand = json!({
        "name": "Açme, \"the\" (Inc.) <x@y.example>; 🙈", "from": "\"Acme, (Inc.) 🙈\" <news@acme.example.com>",
        "postal_address": "1 Main <b>Street</b>",
    });
    tidings.put("/brands/acme", brand).await.ok();
    let template = json!({
        "subject": "{{data.said}}", "html": "<p>[{{data.said}}]</p>", "text": "[{{data.said}}]\n.\n..\nFrom here\n",
        "classes": CLASSES,
    });
    tidings.put("/templates/hello", template).await.ok();
    tidings
}

/// Sends one message and gives what the relay took.
async fn send(tidings: &Tidings, class: &str, local: &str, said: &str) -> Transaction {
    let body = json!({
        "brand": "acme", "topic": class, "template": "hello", "data": { "said": said },
        "to": { "email": format!("{local}@bücher.example"), "name": TO_NAME },
    });
    tidings.post("/messages", body).await.is(202);
    tidings.smtp.wait_for_message_to(&format!("{local}@xn--bcher-kva.example")).await
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn readings(mails: &[Transaction]) -> Vec<Reading> {
    read_all(mails.iter().map(|mail| mail.data.as_slice()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f4_each_class_has_its_fields_once_and_a_date_of_now() {
    let tidings = odd().await;
    let began = now();
    let mut mails = Vec::new();
    for class in CLASSES {
        mails.push(send(&tidings, class, class, "hello").await);
    }
    for ((reading, mail), class) in readings(&mails).into_iter().zip(&mails).zip(CLASSES) {
        // Equal lists: nothing twice, nothing missing, nothing else.
        assert_eq!(reading.names(), names_of(class), "{class}");
        let date = reading.email["date"].as_f64().unwrap();
        assert!(date >= began.floor() && date <= now(), "{class}");
        let id = mail.header("Message-ID").unwrap();
        assert!(id.starts_with('<') && id.ends_with("@acme.example.com>"), "{id}");
        assert_eq!(reading.email["from"], json!([["Acme, (Inc.) 🙈", "news@acme.example.com"]]));
        assert_eq!(reading.email["to"], json!([[TO_NAME, format!("{class}@xn--bcher-kva.example")]]));
    }
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f8_both_parts_say_what_was_rendered_in_utf_8_text_first() {
    let tidings = odd().await;
    let long = "x".repeat(1_500);
    let said = ["plain", "مرحبا بالعالم", "Zoë & 🙈 = =3D =20 ", "\n.\r\nQUIT", long.as_str()];
    for class in ["service", "marketing"] {
        let mut mails = Vec::new();
        for (n, said) in said.into_iter().enumerate() {
            mails.push(send(&tidings, class, &format!("{class}-{n}"), said).await);
        }
        for (reading, said) in readings(&mails).into_iter().zip(said) {
            assert_eq!(reading.email["type"], "multipart/alternative");
            for (part, kind) in ["text/plain", "text/html"].into_iter().enumerate() {
                let part = &reading.email["parts"][part];
                assert_eq!((&part["type"], &part["charset"]), (&json!(kind), &json!("utf-8")));
                assert!(["7bit", "quoted-printable", "base64"].contains(&part["encoding"].as_str().unwrap()));
            }
            assert_eq!(reading.email["parts"].as_array().unwrap().len(), 2);
            let said = said.replace("\r\n", "\n");
            assert!(
                reading.text().starts_with(&format!("[{said}]\n.\n..\nFrom here\n")),
                "{}",
                reading.text()
            );
            let html = reading.html();
            let shown = html.replace("&#x3D;", "=").replace("&amp;", "&");
            assert!(shown.contains(&format!("[{said}]")), "{html}");
            assert_eq!(reading.mailparser["text"].as_str().unwrap().trim_end(), reading.text().trim_end());
            assert_eq!(reading.mailparser["html"].as_str().unwrap().trim_end(), html.trim_end());
        }
    }
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f12_what_the_system_sends_by_itself_says_so() {
    let tidings = odd().await;
    for class in CLASSES {
        let mail = send(&tidings, class, class, "hello").await;
        let wanted = ["requested", "service"].contains(&class).then(|| "auto-generated".to_owned());
        assert_eq!(mail.header("Auto-Submitted"), wanted, "{class}");
        assert_eq!(mail.header("Precedence"), None, "{class}");
    }
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f17_values_are_escaped_in_html_and_as_they_are_in_text() {
    let tidings = odd().await;
    let said = "<script>alert('1')</script> & {{name}} \"quoted\"";
    let mut mails = Vec::new();
    for class in CLASSES {
        mails.push(send(&tidings, class, class, said).await);
    }
    for reading in readings(&mails) {
        assert_eq!(reading.email["subject"], said);
        assert!(reading.text().contains(&format!("[{said}]")), "{}", reading.text());
        let html = reading.html();
        assert!(html.contains("[&lt;script&gt;") && !html.contains("<script"), "{html}");
        assert!(html.contains("&amp; {{name}}"), "a value is no template: {html}");
        assert!(!html.contains("<b>Street"), "{html}");
    }
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f17_a_missing_variable_fails_the_delivery_and_mails_no_braces() {
    let tidings = Tidings::start(Database::sqlite()).await;
    tidings.ready_to_send().await;
    let template = json!({ "subject": "Hello {{data.first}}", "html": "<p>{{attributes.city}}</p>" });
    tidings.put("/templates/hello", template).await.ok();
    // One whose message can be made, so that the campaign may start; one whose message cannot.
    let whole = json!({ "email": "whole@people.example.com", "attributes": { "city": "Köln" } });
    tidings.post("/recipients", whole).await.ok();
    tidings.recipient("lacks@people.example.com").await;
    let body = json!({
        "brand": "acme", "topic": "marketing", "template": "hello", "audience": { "all": true }, "data": { "first": "Ada" },
    });
    let id = tidings.post("/campaigns", body).await.id();
    tidings.post_empty(&format!("/campaigns/{id}/start")).await.ok();
    let campaign = tidings.finished(&id).await;
    assert_eq!(
        (&campaign["counts"]["sent"], &campaign["counts"]["failed"]),
        (&json!(1), &json!(1)),
        "{campaign}"
    );
    let failed = tidings.get(&format!("/campaigns/{id}/deliveries?state=failed")).await.ok();
    assert!(failed["items"][0]["reason"].as_str().unwrap().contains("attributes.city"), "{failed}");
    for mail in tidings.smtp.messages() {
        assert_eq!(mail.recipient(), "whole@people.example.com");
        assert!(!mail.text().contains("{{"), "{}", mail.text());
    }
    tidings.stop().await;
}
