//! Who is told: everyone but those who need not be, once, in their language, ahead of all that can be refused.

use serde_json::{Value, json};

use crate::harness::{Act, Database, SmtpServer, Stage, Tidings, wait_until};

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// How many messages went to this address.
fn letters(smtp: &SmtpServer, address: &str) -> usize {
    smtp.messages_to(address).len()
}

async fn ready(database: Database) -> Tidings {
    let tidings = Tidings::start(database).await;
    tidings.ready_to_send().await;
    tidings.brand("other").await;
    tidings
}

async fn person(tidings: &Tidings, email: &str, more: Value) -> String {
    let mut body = json!({ "email": email });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    tidings.post("/recipients", body).await.id()
}

async fn all_told(tidings: &Tidings, notice: &Value) -> Value {
    let id = notice["id"].as_str().unwrap();
    tidings
        .notice_when("everyone was told of", id, |notice| notice["rounds"][0]["completed_at"].is_string())
        .await
}

on_both! {
    async fn pn1_everyone_is_told_who_must_be_and_nobody_else(database: Database) {
        let tidings = ready(database).await;
        let refuses = person(&tidings, "refuses@people.example.com", json!({})).await;
        tidings.post("/opt-outs", json!({ "email": "refuses@people.example.com", "scope": "all", "channel": "phone" })).await.is(201);
        let restricted = person(&tidings, "restricted@people.example.com", json!({})).await;
        let banned = person(&tidings, "banned@people.example.com", json!({})).await;
        let gone = person(&tidings, "gone@people.example.com", json!({})).await;
        for (id, standing) in [(&restricted, "restricted"), (&banned, "contact_ban"), (&gone, "deactivated")] {
            tidings.patch(&format!("/recipients/{id}"), json!({ "standing": standing })).await.ok();
        }
        person(&tidings, "elsewhere@people.example.com", json!({ "brands": ["other"] })).await;
        person(&tidings, "named@people.example.com", json!({ "brands": ["acme"] })).await;
        tidings.policy(json!({})).await;
        person(&tidings, "knows-the-old@people.example.com", json!({ "policies": { "privacy": 1 } })).await;
        // Nobody can have accepted a version that is not there.
        let claims = json!({ "email": "claims@people.example.com", "policies": { "privacy": 2 } });
        tidings.post("/recipients", claims).await.refuses("/policies");
        let notice = tidings.announce("material", json!({})).await;
        person(&tidings, "knows@people.example.com", json!({ "policies": { "privacy": 2 } })).await;
        let told = all_told(&tidings, &notice).await;
        assert_eq!(told["counts"], json!({ "total": 5, "told": 5, "pending": 0, "unreachable": 0 }), "{told}");
        for address in ["refuses", "restricted", "banned", "named", "knows-the-old"] {
            assert_eq!(letters(&tidings.smtp, &format!("{address}@people.example.com")), 1, "{address}");
        }
        for address in ["gone", "elsewhere", "knows"] {
            assert_eq!(letters(&tidings.smtp, &format!("{address}@people.example.com")), 0, "{address}");
        }
        assert!(!refuses.is_empty());
        tidings.stop().await;
    }

    async fn pn1_who_joins_before_the_change_is_told_at_once_and_who_joins_after_it_is_not(database: Database) {
        let tidings = ready(database).await;
        person(&tidings, "first@people.example.com", json!({})).await;
        tidings.policy(json!({})).await;
        let notice = tidings.announce("material", json!({})).await;
        all_told(&tidings, &notice).await;
        let late = person(&tidings, "late@people.example.com", json!({})).await;
        tidings.smtp.wait_for_message_to("late@people.example.com").await;
        // Somebody who was of another brand, and somebody who was away.
        person(&tidings, "moves@people.example.com", json!({ "brands": ["other"] })).await;
        tidings.patch(&format!("/recipients/{late}"), json!({ "standing": "deactivated" })).await.ok();
        person(&tidings, "moves@people.example.com", json!({ "brands": ["acme", "other"] })).await;
        tidings.smtp.wait_for_message_to("moves@people.example.com").await;
        tidings.patch(&format!("/recipients/{late}"), json!({ "standing": "active" })).await.ok();
        tidings.advance(DAY * 41);
        let id = notice["id"].as_str().unwrap();
        tidings.notice_when("is in effect", id, |notice| notice["state"] == "in_effect").await;
        person(&tidings, "too-late@people.example.com", json!({})).await;
        let done = tidings.notice_when("is closed", id, |notice| notice["closed_at"].is_string()).await;
        assert_eq!(done["counts"]["told"], 3, "{done}");
        assert_eq!(letters(&tidings.smtp, "too-late@people.example.com"), 0);
        assert_eq!(letters(&tidings.smtp, "late@people.example.com"), 1);
        tidings.stop().await;
    }

    async fn pn1_whoever_closes_an_account_and_opens_it_again_in_time_is_told(database: Database) {
        let tidings = ready(database).await;
        let away = person(&tidings, "away@people.example.com", json!({})).await;
        tidings.smtp.on(Stage::Rcpt, Act::reply(450, "4.2.1 later"));
        tidings.policy(json!({})).await;
        let notice = tidings.announce("material", json!({})).await;
        let path = format!("/recipients/{away}/deliveries");
        wait_until("an attempt that is put off", async || {
            let delivery = tidings.get(&path).await.ok()["items"][0].clone();
            delivery["state"] == "queued" && delivery["attempts"].as_array().is_some_and(|tried| tried.len() == 1)
        })
        .await;
        tidings.smtp.behave();
        tidings.patch(&format!("/recipients/{away}"), json!({ "standing": "deactivated" })).await.ok();
        assert_eq!(tidings.get(&path).await.ok()["items"][0]["state"], "suppressed");
        tidings.patch(&format!("/recipients/{away}"), json!({ "standing": "active" })).await.ok();
        tidings.smtp.wait_for_message_to("away@people.example.com").await;
        let id = notice["id"].as_str().unwrap();
        let told = tidings.notice_when("told everyone", id, |notice| notice["counts"]["told"] == 1).await;
        assert_eq!(told["counts"], json!({ "total": 1, "told": 1, "pending": 0, "unreachable": 0 }), "{told}");
        tidings.stop().await;
    }

    async fn pn13_each_reads_it_in_their_language_as_far_as_there_is_a_text(database: Database) {
        let tidings = ready(database).await;
        for (who, locale) in [("en", json!("en-GB")), ("de", json!("de_CH")), ("at", json!("de-AT")), ("fr", json!("fr")), ("none", Value::Null)] {
            person(&tidings, &format!("{who}@people.example.com"), json!({ "locale": locale })).await;
        }
        tidings.policy(json!({})).await;
        let text = |summary: &str| json!({ "body_markdown": "# Text\n", "summary": summary, "title": "Datenschutz" });
        let translations = json!({ "de": text("Kurz auf Deutsch."), "de-AT": text("Kurz auf Österreichisch.") });
        let notice = tidings.announce("material", json!({ "translations": translations })).await;
        all_told(&tidings, &notice).await;
        for (who, words) in [("en", "we keep your name too"), ("fr", "we keep your name too"), ("none", "we keep your name too"),
            ("de", "Kurz auf Deutsch."), ("at", "Kurz auf Österreichisch.")] {
            let mail = tidings.smtp.wait_for_message_to(&format!("{who}@people.example.com")).await;
            let parsed = mail.parsed();
            for body in [parsed.body_text(0).unwrap(), parsed.body_html(0).unwrap()] {
                assert!(body.contains(words), "{who}: {body}");
            }
        }
        let german = tidings.smtp.messages_to("de@people.example.com").remove(0);
        assert!(german.parsed().subject().unwrap().starts_with("Datenschutz von ACME: Änderung zum "));
        assert!(german.parsed().body_text(0).unwrap().contains("?lang=de"));
        tidings.stop().await;
    }

    async fn pn9_a_notice_that_is_published_twice_is_one_and_nobody_gets_it_again_after_a_restart(database: Database) {
        let mut tidings = ready(database).await;
        tidings.recipients(40).await;
        tidings.policy(json!({})).await;
        let notice = tidings.announce("material", json!({})).await;
        let publish = async || tidings.post_empty("/policies/privacy/versions/2/publish").await.ok()["notice"]["id"].clone();
        let (one, other) = futures_util::join!(publish(), publish());
        assert_eq!((&one, &other), (&notice["id"], &notice["id"]));
        tidings.restart_with(|_| {}).await;
        let told = all_told(&tidings, &notice).await;
        assert_eq!(told["counts"]["told"], 40, "{told}");
        for n in 0..40 {
            assert_eq!(letters(&tidings.smtp, &format!("p{n}@people.example.com")), 1);
        }
        tidings.stop().await;
    }

    async fn pn8_nobody_waits_for_their_notice_behind_marketing(database: Database) {
        let tidings = Tidings::start_with(database, |settings| settings.worker_connections = 2).await;
        tidings.ready_to_send().await;
        tidings.brand_with_every_class("other").await;
        for n in 0..10 {
            person(&tidings, &format!("told{n}@people.example.com"), json!({ "brands": ["acme"] })).await;
        }
        let lines: String = (0..300).map(|n| format!("offered{n}@people.example.com\n")).collect();
        tidings.policy(json!({})).await;
        // Each message takes the relay a moment, so that the campaign is far from its end when the notice comes.
        tidings.smtp.on(Stage::FinalDot, Act::Late(std::time::Duration::from_millis(30)));
        let body = json!({ "brand": "other", "topic": "marketing", "template": "hello" });
        let campaign = tidings.post("/campaigns", body).await.id();
        let path = format!("/campaigns/{campaign}/recipients");
        tidings.post_text(&path, "text/csv", format!("email\n{lines}")).await.ok();
        tidings.post_empty(&format!("/campaigns/{campaign}/start")).await.ok();
        tidings.relay_has(5).await;
        let notice = tidings.announce("material", json!({})).await;
        all_told(&tidings, &notice).await;
        let left = tidings.get(&format!("/campaigns/{campaign}")).await.ok();
        assert_eq!(left["state"], "running", "{left}");
        tidings.finished(&campaign).await;
        tidings.stop().await;
    }

    async fn pn1_whoever_could_not_be_told_is_listed_with_the_reason_and_can_be_told_another_way(database: Database) {
        let tidings = ready(database).await;
        let refused = person(&tidings, "refused@people.example.com", json!({ "name": "Ada, \"A.\"", "external_id": "7" })).await;
        person(&tidings, "fine@people.example.com", json!({})).await;
        tidings.smtp.on(Stage::Rcpt, Act::reply(550, "5.7.1 not here")).to("refused@people.example.com");
        tidings.policy(json!({})).await;
        let notice = tidings.announce("material", json!({})).await;
        let id = notice["id"].as_str().unwrap();
        let told = all_told(&tidings, &notice).await;
        assert_eq!(told["counts"], json!({ "total": 2, "told": 1, "pending": 0, "unreachable": 1 }), "{told}");
        let list = tidings.get(&format!("/notices/{id}/unreachable")).await.ok();
        let one = &list["items"][0];
        assert_eq!((&one["recipient"], &one["reason"]), (&json!(refused), &json!("refused")), "{list}");
        assert!(one["reply"].as_str().unwrap().contains("not here"), "{list}");
        let csv = tidings.call(reqwest::Method::GET, &format!("/notices/{id}/unreachable")).header("accept", "text/csv");
        let csv = crate::harness::Answer::of(csv).await;
        let mut reader = csv::Reader::from_reader(csv.text.as_bytes());
        let lines: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(lines.len(), 1);
        assert_eq!((&lines[0][1], &lines[0][2], &lines[0][4]), ("refused@people.example.com", "Ada, \"A.\"", "refused"));

        let told = format!("/notices/{id}/told");
        let letter = json!({ "recipient": refused, "by": "letter", "note": "posted on the 3rd" });
        assert_eq!(tidings.post(&told, letter.clone()).await.ok()["recorded"], true);
        assert_eq!(tidings.post(&told, letter).await.ok()["recorded"], false);
        let fine = tidings.get("/recipients?email=fine@people.example.com").await.ok()["items"][0]["id"].clone();
        tidings.post(&told, json!({ "recipient": fine, "by": "phone" })).await.refuses("/recipient");
        let now = tidings.get(&format!("/notices/{id}")).await.ok();
        assert_eq!(now["counts"], json!({ "total": 2, "told": 2, "pending": 0, "unreachable": 0 }), "{now}");
        let list = tidings.get(&format!("/notices/{id}/unreachable")).await.ok();
        assert_eq!(list["items"][0]["told_by"], "letter", "{list}");
        // A letter told of that round alone: of a correction they are to be told again.
        let correction = json!({ "reason": "r", "summary": "Something else." });
        tidings.post(&format!("/notices/{id}/correct"), correction).await.ok();
        let again = tidings.notice_when("was corrected", id, |notice| notice["rounds"][1]["completed_at"].is_string()).await;
        assert_eq!(again["counts"], json!({ "total": 2, "told": 1, "pending": 0, "unreachable": 1 }), "{again}");
        let letter = json!({ "recipient": refused, "by": "letter" });
        assert_eq!(tidings.post(&told, letter).await.ok()["recorded"], true);
        tidings.stop().await;
    }

    async fn pn3_pn4_a_notice_carries_all_it_must_and_nothing_to_refuse_it_by(database: Database) {
        let tidings = ready(database).await;
        person(&tidings, "ada@people.example.com", json!({})).await;
        tidings.policy(json!({})).await;
        tidings.announce("adverse", json!({})).await;
        let mail = tidings.smtp.wait_for_message_to("ada@people.example.com").await;
        assert!(mail.header("List-Unsubscribe").is_none() && mail.header("List-Unsubscribe-Post").is_none());
        assert_eq!(mail.header("Auto-Submitted").as_deref(), Some("auto-generated"));
        let parsed = mail.parsed();
        let date = tidings.in_days(40)[..10].to_owned();
        let version = tidings.get("/policies/privacy/versions/2").await.ok();
        for body in [parsed.body_text(0).unwrap(), parsed.body_html(0).unwrap()] {
            for words in [version["sha256"].as_str().unwrap(), "we keep your name too", &date, "/policies/privacy/2", "/policies/privacy/1", "/policies/privacy/2/changes",
                "You can object", "1 Main Street", "+1 555 0100", "/a/", "/u/"] {
                assert!(body.contains(words), "{words}: {body}");
            }
            assert!(!body.contains("<img"), "{body}");
        }
        // The footer's link refuses what can be refused, and the next notice comes all the same.
        let text = parsed.body_text(0).unwrap().into_owned();
        let link = text.split_whitespace().find(|word| word.contains("/u/")).unwrap().to_owned();
        let path = link.split_once("/u/").map(|(_, token)| format!("/u/{token}")).unwrap();
        tidings.anonymous().submit(&path, &[("page", "1")]).await.is(200);
        let refused = tidings.message("acme", "marketing", "ada@people.example.com").await;
        assert_eq!(tidings.settled(&refused).await["state"], "suppressed");
        tidings.announce("material", json!({ "effective_at": tidings.in_days(50) })).await;
        wait_until("a second notice", async || letters(&tidings.smtp, "ada@people.example.com") == 2).await;
        tidings.stop().await;
    }
}
