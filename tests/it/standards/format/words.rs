//! F6: whatever is written in a name or a subject, two other programs read what was meant.

use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::json;
use unicode_normalization::UnicodeNormalization as _;

use crate::harness::readers::read_all;
use crate::harness::{Database, Tidings};

/// Texts that are hard to write into a header.
fn text(most: usize) -> impl Strategy<Value = String> {
    let cut = move |text: String| text.chars().take(most).collect::<String>();
    prop_oneof![
        "\\PC{0,80}",
        "[ -~]{0,80}",
        "[\"(),;:<>@\\[\\]\\\\. a=?_]{1,40}",
        "[äöüß€😀👩‍👩‍👧🇩🇪שלוםمرحبا e\u{301}A\u{30a} =?\"(),;<>@.]{0,120}",
        "[a-z]{1,12}( [a-zé🙈]{1,12}){0,30}",
        Just("🙈".repeat(300)),
        Just("x".repeat(300)),
        Just("a  b   c".to_owned()),
        Just("\u{fb01}\u{212b}\u{1e9b}\u{323}".to_owned()),
    ]
    .prop_map(cut)
}

/// What the header is to say of a name; nothing where it could be read as something else.
fn shown_name(name: &str) -> String {
    let name: String = name.trim().nfc().collect();
    let deceptive = |c: char| matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    if name.contains("=?") || name.chars().count() > 200 || name.chars().any(deceptive) {
        String::new()
    } else {
        name
    }
}

fn shown_subject(text: &str) -> String {
    let deceptive = |c: char| matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let text: String = text.nfc().map(|c| if c.is_control() || deceptive(c) { ' ' } else { c }).collect();
    text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f6_names_and_subjects_in_any_letters_are_read_as_they_were_written() {
    let tidings = Tidings::start(Database::sqlite()).await;
    tidings.ready_to_send().await;
    let template = json!({ "subject": "{{data.s}}", "html": "<p>.</p>", "text": "." });
    tidings.put("/templates/hello", template).await.ok();
    let mut runner = TestRunner::default();
    let cases = runner.config().cases;
    let given: Vec<(String, String)> = (0..cases)
        .map(|_| (text(200), text(300)).new_tree(&mut runner).unwrap().current())
        .map(|(name, subject)| (name, format!("s{subject}")))
        .collect();
    let mut lines = String::new();
    for (n, (name, subject)) in given.iter().enumerate() {
        let line =
            json!({ "email": format!("p{n}@people.example.com"), "name": name, "data": { "s": subject } });
        writeln!(lines, "{line}").unwrap();
    }
    let body = json!({ "brand": "acme", "topic": "marketing", "template": "hello" });
    let id = tidings.post("/campaigns", body).await.id();
    let report =
        tidings.post_text(&format!("/campaigns/{id}/recipients"), "application/x-ndjson", lines).await.ok();
    assert_eq!(report["added"], json!(given.len()), "{report}");
    tidings.post_empty(&format!("/campaigns/{id}/start")).await.ok();
    tidings.finished(&id).await;
    let mails = tidings.smtp.messages();
    assert_eq!(mails.len(), given.len());
    for (mail, reading) in mails.iter().zip(read_all(mails.iter().map(|mail| mail.data.as_slice()))) {
        let n: usize = mail.recipient()[1..].split('@').next().unwrap().parse().unwrap();
        let (name, subject) = &given[n];
        let (name, subject) = (shown_name(name), shown_subject(subject));
        assert_eq!(reading.email["to"], json!([[name, mail.recipient()]]), "{name:?} {}", mail.text());
        assert_eq!(reading.email["subject"], subject, "{subject:?} {}", mail.text());
        assert_eq!(reading.mailparser["subject"], subject, "{subject:?} {}", mail.text());
    }
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f6_a_brand_may_be_called_as_it_likes() {
    let tidings = Tidings::start(Database::sqlite()).await;
    tidings.ready_to_send().await;
    let names = [
        "Acme",
        "Acme, Inc.",
        "Açme \"the\" \\ <best>; 🙈",
        "مكتبة",
        "A. B. C.",
        &"ж".repeat(200),
        "O'Neil & Söhne",
    ];
    let mut mails = Vec::new();
    for (n, name) in names.into_iter().enumerate() {
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        let body = json!({
            "name": "Acme", "from": format!("\"{quoted}\" <news@acme.example>"), "postal_address": "1 Main Street",
            "reply_to": format!("\"{quoted}\" <help@acme.example>"),
        });
        tidings.put("/brands/acme", body).await.ok();
        mails.push(tidings.mail_of("acme", "marketing", &format!("p{n}@people.example.com")).await);
    }
    for (reading, name) in read_all(mails.iter().map(|mail| mail.data.as_slice())).iter().zip(names) {
        assert_eq!(reading.email["from"], json!([[name, "news@acme.example"]]));
        assert_eq!(reading.email["reply_to"], json!([[name, "help@acme.example"]]));
    }
    tidings.stop().await;
}
