//! F9, F10, I4: who a message may be from.

use serde_json::{Value, json};

use crate::harness::readers::read_all;
use crate::harness::{Answer, Database, Tidings};

async fn put(tidings: &Tidings, fields: Value) -> Answer {
    let mut body =
        json!({ "name": "Acme", "from": "Acme <news@acme.example>", "postal_address": "1 Main Street" });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    tidings.put("/brands/acme", body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f9_a_sender_is_one_address_and_its_name_says_nothing_but_who_it_is() {
    let tidings = Tidings::start_web(Database::sqlite()).await;
    for field in ["from", "notice_from", "reply_to"] {
        for bad in [
            "\"support@gmail.com\" <news@acme.example>",
            "Acme via @gmail.com <news@acme.example>",
            "\"Acme (2)\" <news@acme.example>",
            "Acme {{name}} <news@acme.example>",
            "a@acme.example, b@acme.example",
            "Acme <a@acme.example>, Acme <b@acme.example>",
            "<a@acme.example> <b@acme.example>",
            "Friends: a@acme.example;",
            "",
        ] {
            put(&tidings, json!({ field: bad })).await.refuses(&format!("/{field}"));
        }
        for fine in [
            "Acme, Inc. (Köln) <news@acme.example>",
            "Fair (2027) <news@acme.example>",
            "\"news@acme.example\" <news@acme.example>",
        ] {
            put(&tidings, json!({ field: fine })).await.ok();
        }
    }
    tidings.ready_to_send().await;
    let campaign = json!({ "brand": "acme", "topic": "marketing", "template": "hello", "reply_to": "\"x@gmail.com\" <a@acme.example>" });
    tidings.post("/campaigns", campaign).await.refuses("/reply_to");
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f9_every_message_has_one_from_which_is_the_brands() {
    let tidings = Tidings::start(Database::sqlite()).await;
    tidings.ready_to_send().await;
    put(&tidings, json!({ "notice_from": "Acme accounts <accounts@acme.example>" })).await.ok();
    let mut mails = Vec::new();
    for class in ["requested", "service", "relationship", "reminder", "marketing"] {
        mails.push(tidings.mail_of("acme", class, &format!("{class}@people.example.com")).await);
    }
    let readings = read_all(mails.iter().map(|mail| mail.data.as_slice()));
    for (n, reading) in readings.iter().enumerate() {
        let from =
            if n < 2 { ["Acme accounts", "accounts@acme.example"] } else { ["Acme", "news@acme.example"] };
        assert_eq!(reading.email["from"], json!([from]));
    }
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f10_a_sender_that_nobody_answers_is_warned_of_and_not_refused() {
    let tidings = Tidings::start_web(Database::sqlite()).await;
    let pointers = async |fields: Value| {
        let brand = put(&tidings, fields).await.ok();
        assert_eq!(tidings.get("/brands/acme").await.ok()["warnings"], brand["warnings"]);
        let warnings = brand["warnings"].as_array().unwrap().clone();
        warnings.iter().map(|warning| warning["pointer"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(pointers(json!({})).await.is_empty());
    let none = json!({ "from": "Acme <no-reply@acme.example>", "notice_from": "donotreply@acme.example" });
    assert_eq!(pointers(none).await, ["/from", "/notice_from"]);
    let answered = json!({ "from": "Acme <no-reply@acme.example>", "reply_to": "help@acme.example" });
    assert!(pointers(answered).await.is_empty(), "answers go to somebody");
    assert_eq!(pointers(json!({ "reply_to": "noreply@acme.example" })).await, ["/reply_to"]);
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i4_a_senders_domain_is_of_one_script() {
    let tidings = Tidings::start_web(Database::sqlite()).await;
    for field in ["from", "notice_from", "reply_to"] {
        // Cyrillic а and о among Latin letters, as U-label and as A-label.
        for bad in ["news@аcme.example", "news@gооgle.example", "news@xn--ggle-55da.example"] {
            let reason = put(&tidings, json!({ field: bad })).await.refuses(&format!("/{field}"));
            assert!(reason.contains("scripts"), "{reason}");
        }
        for fine in
            ["news@bücher.example", "news@例え.テスト", "news@пример.example", "news@日本語ab.example"]
        {
            put(&tidings, json!({ field: fine })).await.ok();
        }
    }
    tidings.stop().await;
}
