//! On which day a change takes effect: the one on the calendar of those who announced it, not that of UTC.

use serde_json::{Value, json};

use super::corrected::{entries, exported};
use crate::approvals::link;
use crate::harness::{Database, Tidings, Transaction};

/// Midnight where the change is announced; in UTC it is the day before.
const NAMED: &str = "2040-01-31T00:00:00+01:00";
const NAMED_UTC: &str = "2040-01-30T23:00:00Z";
/// In the evening where it is postponed; in UTC it is the day after.
const LATER: &str = "2040-02-29T20:00:00-05:00";

/// Asserts that the words name the day, in figures too where `figures` says how, and never the one in UTC.
#[track_caller]
fn names(what: &str, text: &str, day: &str, figures: Option<&str>) {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in std::iter::once(day).chain(figures) {
        assert!(text.contains(words), "{what} does not say {words}: {text}");
    }
    for wrong in ["30 January", "30. Januar", "2040-01-30", "1 March", "1. März", "2040-03-01"] {
        assert!(!text.contains(wrong), "{what} says {wrong}: {text}");
    }
}

#[track_caller]
fn mail_names(mail: &Transaction, day: &str, figures: &str) {
    let parsed = mail.parsed();
    names("the subject", parsed.subject().unwrap(), day, None);
    names("the text", &parsed.body_text(0).unwrap(), day, Some(figures));
    names("the HTML", &parsed.body_html(0).unwrap(), day, Some(figures));
}

async fn pages_name(tidings: &Tidings, email: &str, day: &str) {
    let answer = link(tidings, email, 1).await;
    for path in ["/policies/privacy", "/policies/privacy/2", "/policies/privacy/2/changes", &answer] {
        let page = tidings.page(path).await;
        // What is not for people may say it in any way.
        let mut text = String::new();
        for (n, part) in page.is(200).text.split('<').enumerate() {
            text.push_str(if n == 0 { part } else { part.split_once('>').map_or("", |(_, text)| text) });
        }
        names(path, &text, day, None);
    }
}

async fn told(tidings: &Tidings, id: &str, rounds: usize) {
    let all_of_last = |notice: &Value| {
        let all = notice["rounds"].as_array().unwrap();
        all.len() == rounds && all[rounds - 1]["completed_at"].is_string()
    };
    tidings.notice_when("told everyone in its last round", id, all_of_last).await;
}

on_both! {
    async fn pn4_pn10_the_day_is_that_of_the_place_where_it_was_named(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        for (email, locale) in [("en@people.example.com", "en"), ("de@people.example.com", "de")] {
            tidings.post("/recipients", json!({ "email": email, "locale": locale })).await.is(201);
        }
        tidings.policy(json!({})).await;
        let german = json!({ "title": "Datenschutz", "summary": "Wir speichern Ihren Namen.", "body_markdown": "# Namen\n" });
        let fields = json!({ "effective_at": NAMED, "translations": { "de": german } });
        let notice = tidings.announce("adverse", fields).await;
        let id = notice["id"].as_str().unwrap().to_owned();
        told(&tidings, &id, 1).await;
        for (email, day) in [("en@people.example.com", "31 January 2040"), ("de@people.example.com", "31. Januar 2040")] {
            mail_names(&tidings.smtp.wait_for_message_to(email).await, day, "2040-01-31 00:00 UTC+01:00");
        }
        pages_name(&tidings, "en@people.example.com", "31 January 2040").await;
        let fed = async || tidings.anonymous().page("/notices/current.json?brand=acme").await.json()["notices"][0].clone();
        let one = fed().await;
        assert_eq!((&one["effective_at"], &one["effective_date"]), (&json!(NAMED_UTC), &json!("2040-01-31")), "{one}");
        for path in ["/policies/privacy/versions/2".to_owned(), format!("/notices/{id}")] {
            let found = tidings.get(&path).await.ok();
            let named = (&found["effective_at"], &found["effective_date"]);
            assert_eq!(named, (&json!(NAMED_UTC), &json!("2040-01-31")), "{path}: {found}");
        }

        // Later, but to whoever reads it a day earlier.
        let earlier = json!({ "effective_at": "2040-01-30T23:30:00Z", "reason": "r", "translations": { "de": { "reason": "r" } } });
        let reason = tidings.post(&format!("/notices/{id}/postpone"), earlier).await.refuses("/effective_at");
        assert!(reason.contains("2040-01-31"), "{reason}");
        let later = json!({ "effective_at": LATER, "reason": "More time.", "translations": { "de": { "reason": "Mehr Zeit." } } });
        tidings.post(&format!("/notices/{id}/postpone"), later).await.ok();
        told(&tidings, &id, 2).await;
        tidings.post("/recipients", json!({ "email": "new@people.example.com" })).await.is(201);
        let first = tidings.smtp.wait_for_message_to("new@people.example.com").await;
        mail_names(&first, "29 February 2040", "2040-02-29 20:00 UTC-05:00");
        for (email, day) in [("en@people.example.com", "29 February 2040"), ("de@people.example.com", "29. Februar 2040")] {
            mail_names(&tidings.smtp.messages_to(email).remove(1), day, "2040-02-29 20:00 UTC-05:00");
        }
        pages_name(&tidings, "en@people.example.com", "29 February 2040").await;
        assert_eq!(fed().await["effective_date"], "2040-02-29");
        // A correction says the day that stands.
        let corrected = json!({ "summary": "Your name.", "reason": "A slip.",
            "translations": { "de": { "summary": "Ihr Name.", "reason": "Ein Versehen." } } });
        tidings.post(&format!("/notices/{id}/correct"), corrected).await.ok();
        told(&tidings, &id, 3).await;
        let mail = tidings.smtp.messages_to("en@people.example.com").remove(2);
        mail_names(&mail, "29 February 2040", "2040-02-29 20:00 UTC-05:00");
        // The proof says by which clock it was named, and finds it changed.
        for (kind, offset) in [("published", 60), ("postponed", -300), ("corrected", -300)] {
            assert_eq!(entries(&tidings, &id, kind).await[0]["effective_offset"], offset, "{kind}");
        }
        let summary = exported(&tidings, &id, "summary.html");
        for words in ["<td>2040-02-29T20:00:00-05:00</td>", "The change was postponed to 2040-02-29T20:00:00-05:00"] {
            assert!(summary.contains(words), "{words}: {summary}");
        }
        tidings.stop().await;
    }
}
