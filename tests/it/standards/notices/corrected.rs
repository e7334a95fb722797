//! What becomes of words that were wrong: on the pages, in the languages, in the answers given to them and in the proof.

use std::io::Read as _;

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use tidings::id::NoticeId;
use tidings::notice::rows;

use crate::approvals::{link, presses};
use crate::harness::{Database, LINK_KEYS, Tidings, eventually, run_in, said};

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

const WRONG: &str = "From now on we keep your name too.";
const RIGHT: &str = "From now on we keep your name and your telephone number.";

/// A change of this kind in English and German, of which everybody was told; gives the notice's id.
async fn told(tidings: &Tidings, change: &str, people: &[(&str, &str)]) -> String {
    tidings.ready_to_send().await;
    for (email, locale) in people {
        tidings.post("/recipients", json!({ "email": email, "locale": locale })).await.is(201);
    }
    tidings.policy(json!({})).await;
    let german = json!({ "title": "Datenschutz", "summary": "Wir speichern Ihren Namen.", "body_markdown": "# Namen\n" });
    let notice = tidings.announce(change, json!({ "translations": { "de": german } })).await;
    let id = notice["id"].as_str().unwrap().to_owned();
    rounds_told(tidings, &id, 1).await;
    id
}

async fn rounds_told(tidings: &Tidings, id: &str, rounds: usize) -> Value {
    let all_of_last = |notice: &Value| {
        let all = notice["rounds"].as_array().unwrap();
        all.len() == rounds && all[rounds - 1]["completed_at"].is_string()
    };
    tidings.notice_when("told everyone in its last round", id, all_of_last).await
}

fn correction() -> Value {
    json!({
        "summary": RIGHT, "reason": "We forgot the telephone number.",
        "translations": { "de": { "summary": "Wir speichern Namen und Telefonnummer.", "reason": "Die Nummer fehlte." } },
    })
}

/// The bodies of the entries of this kind, in their order.
pub(super) async fn entries(tidings: &Tidings, id: &str, kind: &str) -> Vec<Value> {
    let notice: NoticeId = id.parse().unwrap();
    let entries = rows::entries(tidings.app().db.reads(), notice, i64::MIN, 1_000).await.unwrap();
    let of_kind = entries.into_iter().filter(|entry| entry.kind == kind);
    of_kind.map(|entry| serde_json::from_str(&entry.body).unwrap()).collect()
}

/// The file of this name in the notice's archive, which verifies.
pub(super) fn exported(tidings: &Tidings, id: &str, name: &str) -> String {
    let here = tempfile::tempdir().unwrap();
    let url = tidings.database.url();
    let settings = [("TIDINGS_DATABASE_URL", url.as_str()), ("TIDINGS_LINK_KEYS", LINK_KEYS)];
    let made =
        run_in(here.path(), &["evidence", "export", "--notice", id, "--output", "proof.tar.gz"], &settings);
    assert!(made.status.success(), "{}", said(&made));
    let sound = run_in(here.path(), &["evidence", "verify", "proof.tar.gz"], &[]);
    assert!(sound.status.success(), "{}", said(&sound));
    let archive = std::fs::File::open(here.path().join("proof.tar.gz")).unwrap();
    let mut tar = tar::Archive::new(GzDecoder::new(archive));
    let mut file =
        tar.entries().unwrap().map(Result::unwrap).find(|file| file.path().unwrap().ends_with(name)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

/// Somebody joins, to whom the first message says nothing of what others were told before.
async fn first_word(tidings: &Tidings, email: &str) {
    tidings.recipient(email).await;
    let mail = tidings.smtp.wait_for_message_to(email).await;
    let (parsed, text) = (mail.parsed(), mail.parsed().body_text(0).unwrap().into_owned());
    assert!(parsed.subject().unwrap().starts_with("Privacy policy of ACME changes on "), "{text}");
    for words in ["We told you", "A slip.", "More time.", "announced", "that no longer counts"] {
        assert!(!text.contains(words), "{words}: {text}");
    }
    assert!(text.contains(RIGHT), "{text}");
}

on_both! {
    async fn pn10_a_correction_is_told_in_every_language_of_the_version_with_its_reason(database: Database) {
        let tidings = Tidings::start(database).await;
        let id = told(&tidings, "material", &[("en@people.example.com", "en"), ("de@people.example.com", "de")]).await;
        let (correct, postpone, withdraw) =
            (format!("/notices/{id}/correct"), format!("/notices/{id}/postpone"), format!("/notices/{id}/withdraw"));
        let alone = tidings.post(&correct, json!({ "summary": "s", "reason": "r" })).await;
        alone.refuses("/translations/de/summary");
        alone.refuses("/translations/de/reason");
        let with = |german: Value| json!({ "summary": "s", "reason": "r", "translations": { "de": german } });
        tidings.post(&correct, with(json!({ "summary": "s" }))).await.refuses("/translations/de/reason");
        tidings.post(&correct, with(json!({ "reason": "r" }))).await.refuses("/translations/de/summary");
        tidings.post(&correct, with(json!({ "summary": " ", "reason": "r" }))).await.refuses("/translations/de/summary");
        let german = json!({ "de": { "summary": "s", "reason": "r" } });
        tidings.post(&correct, json!({ "reason": "r", "translations": german })).await.refuses("/summary");
        let nothing = json!({ "summary": null, "reason": "r", "translations": { "de": { "summary": null, "reason": "r" } } });
        tidings.post(&correct, nothing).await.refuses("/summary");
        for tag in ["en", "fr"] {
            let other = json!({ "summary": "s", "reason": "r", "translations": { tag: { "summary": "s", "reason": "r" } } });
            tidings.post(&correct, other).await.refuses(&format!("/translations/{tag}"));
        }
        let later = json!({ "effective_at": tidings.in_days(60), "reason": "r" });
        tidings.post(&postpone, later).await.refuses("/translations/de/reason");
        tidings.post(&withdraw, json!({ "reason": "r" })).await.refuses("/translations/de/reason");
        let twice = json!({ "reason": "r", "translations": { "de": { "reason": "r" }, "DE": { "reason": "s" } } });
        tidings.post(&withdraw, twice).await.refuses("/translations/de");

        // What was said in English stays; both are told why in their language.
        let body = json!({ "summary": null, "reason": "The German was wrong.",
            "translations": { "DE": { "summary": "Wir speichern Namen.", "reason": "Das Deutsche war falsch." } } });
        tidings.post(&correct, body).await.ok();
        rounds_told(&tidings, &id, 2).await;
        let later = json!({ "effective_at": tidings.in_days(60), "reason": "More time.",
            "translations": { "de": { "reason": "Mehr Zeit." } } });
        tidings.post(&postpone, later).await.ok();
        rounds_told(&tidings, &id, 3).await;
        let off = json!({ "reason": "Not at all.", "translations": { "de": { "reason": "Doch nicht." } } });
        tidings.post(&withdraw, off).await.ok();
        tidings.notice_when("is closed", &id, |notice| notice["closed_at"].is_string()).await;
        for (email, reasons, summaries) in [
            ("en@people.example.com", ["The German was wrong.", "More time.", "Not at all."], WRONG),
            ("de@people.example.com", ["Das Deutsche war falsch.", "Mehr Zeit.", "Doch nicht."], "Wir speichern Namen."),
        ] {
            let mails = tidings.smtp.messages_to(email);
            assert_eq!(mails.len(), 4, "{email}");
            for (mail, reason) in mails[1..].iter().zip(reasons) {
                let text = mail.parsed().body_text(0).unwrap().into_owned();
                assert!(text.contains(reason), "{reason}: {text}");
            }
            for mail in &mails[1..3] {
                assert!(mail.parsed().body_text(0).unwrap().contains(summaries), "{summaries}");
            }
        }
        tidings.stop().await;
    }

    async fn pn10_what_was_corrected_is_what_every_page_says_and_the_proof_holds_both(database: Database) {
        let tidings = Tidings::start(database).await;
        let id = told(&tidings, "material", &[("en@people.example.com", "en")]).await;
        let before = tidings.get("/policies/privacy/versions/2").await.ok();
        let old = tidings.page("/policies/privacy/2/changes").await;
        assert!(old.is(200).text.contains(WRONG) && !old.text.contains("was corrected on"), "{}", old.text);
        tidings.post(&format!("/notices/{id}/correct"), correction()).await.ok();
        rounds_told(&tidings, &id, 2).await;
        for path in ["", "/2", "/2/changes"] {
            let page = tidings.page(&format!("/policies/privacy{path}")).await;
            for words in [RIGHT, "This summary was corrected on"] {
                assert!(page.is(200).text.contains(words), "{path} {words}: {}", page.text);
            }
            assert!(!page.text.contains(WRONG), "{path}: {}", page.text);
            let german = tidings.page(&format!("/policies/privacy{path}?lang=de")).await;
            for words in ["Wir speichern Namen und Telefonnummer.", "Diese Zusammenfassung wurde"] {
                assert!(path.is_empty() || german.is(200).text.contains(words), "{path} {words}: {}", german.text);
            }
        }
        let after = tidings.get("/policies/privacy/versions/2").await.ok();
        assert_eq!((&after["summary"], &after["sha256"]), (&before["summary"], &before["sha256"]), "{after}");

        let told = entries(&tidings, &id, "round").await;
        let languages: Vec<(&str, bool)> = told[1]["told"].as_array().unwrap().iter()
            .map(|one| (one["language"].as_str().unwrap(), one["newcomers"] == true)).collect();
        assert_eq!(languages, [("de", false), ("de", true), ("en", false), ("en", true)], "{told:?}");
        let (first, second) = (&told[0]["told"][1], &told[1]["told"][2]);
        assert_eq!((&first["summary"], &first["reason"]), (&json!(WRONG), &Value::Null), "{first}");
        assert_eq!((&second["summary"], &second["reason"]), (&json!(RIGHT), &json!("We forgot the telephone number.")));
        assert_eq!(first["html_sha256"], second["html_sha256"]);
        assert_ne!(first["data_sha256"], second["data_sha256"]);
        for name in ["subject", "html", "text", "partials", "data"] {
            assert_eq!(second[format!("{name}_sha256")].as_str().map(str::len), Some(64), "{name}: {second}");
        }
        let page = exported(&tidings, &id, "summary.html");
        for words in [WRONG, RIGHT, "We forgot the telephone number.", "Die Nummer fehlte.", "round 2: correction"] {
            assert!(page.contains(words), "{words}: {page}");
        }
        tidings.stop().await;
    }

    async fn pn5_agreement_to_words_that_were_wrong_counts_no_longer(database: Database) {
        let tidings = Tidings::start(database).await;
        let people = [("yes@people.example.com", "en"), ("no@people.example.com", "en"), ("mute@people.example.com", "de")];
        let id = told(&tidings, "adverse", &people).await;
        let (yes, no) = (link(&tidings, people[0].0, 1).await, link(&tidings, people[1].0, 1).await);
        tidings.submit(&yes, &[("decision", "approve")]).await.is(200);
        tidings.submit(&no, &[("decision", "decline")]).await.is(200);
        let corrected = tidings.post(&format!("/notices/{id}/correct"), correction()).await.ok();
        assert_eq!((&corrected["approvals"]["approved"], &corrected["approvals"]["declined"]), (&json!(0), &json!(1)));
        let done = rounds_told(&tidings, &id, 2).await;
        assert_eq!(done["approvals"], json!({ "approved": 0, "declined": 1, "open": 2 }), "{done}");
        let said = entries(&tidings, &id, "corrected").await;
        assert_eq!(said[0]["approvals_lapsed"], 1, "{said:?}");
        let mail = tidings.smtp.messages_to(people[0].0).remove(1).parsed().body_text(0).unwrap().into_owned();
        assert!(mail.contains("If you agreed before this correction, that no longer counts"), "{mail}");
        // By the link of either message they are asked anew, of the words that count.
        for path in [&yes, &link(&tidings, people[0].0, 2).await] {
            let page = tidings.page(path).await;
            for words in ["You have not answered yet", RIGHT, "I agree"] {
                assert!(page.is(200).text.contains(words), "{words}: {}", page.text);
            }
        }
        assert!(tidings.page(&no).await.is(200).text.contains("You declined on"));
        presses(&tidings, &yes, "approve").await.is(200);
        let now = tidings.get(&format!("/notices/{id}")).await.ok();
        assert_eq!(now["approvals"], json!({ "approved": 1, "declined": 1, "open": 1 }), "{now}");
        let answers = entries(&tidings, &id, "approval").await;
        assert_eq!((answers.len(), &answers[2]["before"]), (3, &Value::Null), "{answers:?}");
        let page = exported(&tidings, &id, "summary.html");
        assert!(page.contains("1 approve and 1 decline"), "{page}");
        assert!(page.contains("approvals given before that count no longer: 1"), "{page}");
        tidings.stop().await;
    }

    async fn pn10_who_heard_nothing_before_is_told_of_the_change_itself(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(2).await;
        tidings.policy(json!({})).await;
        let id = tidings.announce("adverse", json!({})).await["id"].as_str().unwrap().to_owned();
        rounds_told(&tidings, &id, 1).await;
        tidings.post(&format!("/notices/{id}/correct"), json!({ "summary": RIGHT, "reason": "A slip." })).await.ok();
        rounds_told(&tidings, &id, 2).await;
        first_word(&tidings, "late@people.example.com").await;
        let later = json!({ "effective_at": tidings.in_days(60), "reason": "More time." });
        tidings.post(&format!("/notices/{id}/postpone"), later).await.ok();
        rounds_told(&tidings, &id, 3).await;
        first_word(&tidings, "later@people.example.com").await;
        for (email, begins) in [
            ("p0@people.example.com", &["Privacy policy of", "Correction: ", "Later than announced: "][..]),
            ("late@people.example.com", &["Privacy policy of", "Later than announced: "]),
        ] {
            let subjects: Vec<String> = tidings.smtp.messages_to(email).iter()
                .map(|mail| mail.parsed().subject().unwrap().to_owned()).collect();
            assert_eq!(subjects.len(), begins.len(), "{subjects:?}");
            assert!(subjects.iter().zip(begins).all(|(subject, begins)| subject.starts_with(begins)), "{subjects:?}");
        }
        let all = json!({ "total": 4, "told": 4, "pending": 0, "unreachable": 0 });
        let done = tidings.notice_when("told all", &id, |notice| notice["counts"] == all).await;
        assert_eq!(done["rounds"][2]["counts"]["sent"], 4, "{done}");
        // Their link asks them as everybody's does, and the proof knows their language.
        let path = link(&tidings, "later@people.example.com", 1).await;
        assert!(tidings.page(&path).await.is(200).text.contains("I agree"));
        let lines = eventually("evidence of all", async || {
            let said = entries(&tidings, &id, "delivery").await;
            (said.len() == 2 + 3 + 4).then_some(said)
        })
        .await;
        assert!(lines.iter().all(|line| line["language"] == "en"), "{lines:?}");
        tidings.post(&format!("/notices/{id}/withdraw"), json!({ "reason": "Not at all." })).await.ok();
        tidings.notice_when("is closed", &id, |notice| notice["closed_at"].is_string()).await;
        assert_eq!(tidings.smtp.messages_to("later@people.example.com").len(), 2);
        tidings.stop().await;
    }

    async fn pn10_what_is_called_off_leads_to_the_text_in_force_and_names_the_change_that_comes(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(1).await;
        tidings.policy(json!({})).await;
        let mut notices = Vec::new();
        for day in [40, 50] {
            let notice = tidings.announce("material", json!({ "effective_at": tidings.in_days(day) })).await;
            notices.push(notice["id"].as_str().unwrap().to_owned());
            rounds_told(&tidings, &notices[notices.len() - 1], 1).await;
        }
        for (id, subject, words) in [
            (&notices[0], "Called off: a change to Privacy policy of ACME", "The one we announced for"),
            (&notices[1], "Called off: Privacy policy of ACME does not change", "The current text continues to apply."),
        ] {
            let known = tidings.smtp.messages_to("p0@people.example.com").len();
            tidings.post(&format!("/notices/{id}/withdraw"), json!({ "reason": "r" })).await.ok();
            let told = eventually("a withdrawal", async || {
                tidings.smtp.messages_to("p0@people.example.com").into_iter().nth(known)
            })
            .await;
            let text = told.parsed().body_text(0).unwrap().into_owned();
            assert_eq!(told.parsed().subject(), Some(subject));
            assert!(text.contains(words) && !text.contains("SHA-256"), "{text}");
            assert!(text.lines().any(|line| line.trim_end().ends_with("/policies/privacy")), "{text}");
            assert!(!text.contains("/policies/privacy/"), "{text}");
        }
        tidings.stop().await;
    }

    async fn pn11_people_are_reminded_of_a_text_that_holds_for_them_alone(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(3).await;
        tidings.policy(json!({ "reminder_months": 6 })).await;
        let knows = json!({ "email": "knows@people.example.com", "policies": { "privacy": 2 } });
        let id = tidings.announce("adverse", json!({})).await["id"].as_str().unwrap().to_owned();
        tidings.post("/recipients", knows).await.is(201);
        rounds_told(&tidings, &id, 1).await;
        for (email, decision) in [("p0@people.example.com", "approve"), ("p1@people.example.com", "decline")] {
            tidings.submit(&link(&tidings, email, 1).await, &[("decision", decision)]).await.is(200);
        }
        tidings.advance(DAY * 41);
        tidings.notice_when("is in effect", &id, |notice| notice["state"] == "in_effect").await;
        tidings.recipient("new@people.example.com").await;
        tidings.advance(DAY * 150);
        tidings.advance(DAY * 40);
        let done = rounds_told(&tidings, &id, 2).await;
        assert_eq!((&done["rounds"][1]["kind"], &done["rounds"][1]["counts"]["sent"]), (&json!("reminder"), &json!(3)), "{done}");
        for (name, letters) in [("p0", 2), ("p1", 1), ("p2", 1), ("knows", 1), ("new", 1)] {
            let email = format!("{name}@people.example.com");
            assert_eq!(tidings.smtp.messages_to(&email).len(), letters, "{name}");
        }
        let text = tidings.smtp.messages_to("new@people.example.com")[0].parsed().body_text(0).unwrap().into_owned();
        assert!(text.contains("Stop these reminders\r\nhttp") && text.contains("Fingerprint (SHA-256) of this text"), "{text}");
        assert!(!text.contains("Choose which other mail"), "{text}");
        tidings.stop().await;
    }
}
