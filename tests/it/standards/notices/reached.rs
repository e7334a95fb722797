//! Nobody falls between: whoever is to hear something hears it or is listed, and the list and the figures say the same.

use serde_json::{Value, json};
use tidings::notice::worker::step;
use tidings::serve::Parts;

use crate::harness::{Act, Database, Stage, Tidings};

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
const P0: &str = "p0@people.example.com";
const P1: &str = "p1@people.example.com";

/// Three people under a policy; what goes to the first is refused.
async fn scene(database: Database, settings: Value) -> Tidings {
    let tidings = Tidings::start(database).await;
    tidings.ready_to_send().await;
    tidings.recipients(3).await;
    tidings.policy(settings).await;
    tidings.smtp.on(Stage::Rcpt, Act::reply(550, "5.7.1 no")).to(P0);
    tidings
}

/// The notice, once its newest round was told to everyone or given up, and there are so many.
async fn told(tidings: &Tidings, id: &str, rounds: usize) -> Value {
    tidings
        .notice_when("told everyone in its last round", id, |notice| {
            let all = notice["rounds"].as_array().unwrap();
            all.len() == rounds && all[rounds - 1]["completed_at"].is_string()
        })
        .await
}

/// The addresses of the unreachable.
async fn listed(tidings: &Tidings, id: &str) -> Vec<String> {
    let list = tidings.get(&format!("/notices/{id}/unreachable")).await.ok();
    list["items"].as_array().unwrap().iter().map(|one| one["email"].as_str().unwrap().to_owned()).collect()
}

async fn id_of(tidings: &Tidings, email: &str) -> String {
    let found = tidings.get(&format!("/recipients?email={email}")).await.ok();
    found["items"][0]["id"].as_str().unwrap().to_owned()
}

on_both! {
    async fn pn10_whoever_was_told_by_letter_hears_of_the_withdrawal_and_whom_it_misses_is_listed(database: Database) {
        let tidings = scene(database, json!({})).await;
        let id = tidings.announce("material", json!({})).await["id"].as_str().unwrap().to_owned();
        told(&tidings, &id, 1).await;
        let letter = json!({ "recipient": id_of(&tidings, P0).await, "by": "letter" });
        tidings.post(&format!("/notices/{id}/told"), letter.clone()).await.ok();
        tidings.smtp.behave();
        tidings.smtp.on(Stage::Rcpt, Act::reply(550, "5.7.1 no")).to(P1);
        tidings.post(&format!("/notices/{id}/withdraw"), json!({ "reason": "We thought again." })).await.ok();
        let done = told(&tidings, &id, 2).await;
        assert_eq!(tidings.smtp.messages_to(P0).len(), 1, "who had a letter");
        assert_eq!(done["counts"], json!({ "total": 3, "told": 2, "pending": 0, "unreachable": 1 }), "{done:#}");
        assert_eq!(listed(&tidings, &id).await, [P1]);
        let letter = json!({ "recipient": id_of(&tidings, P1).await, "by": "phone" });
        tidings.post(&format!("/notices/{id}/told"), letter).await.ok();
        let now = tidings.get(&format!("/notices/{id}")).await.ok();
        assert_eq!(now["counts"], json!({ "total": 3, "told": 3, "pending": 0, "unreachable": 0 }), "{now:#}");
        tidings.stop().await;
    }

    async fn pn10_a_correction_that_is_asked_for_twice_is_told_once(database: Database) {
        let tidings = scene(database, json!({})).await;
        let id = tidings.announce("adverse", json!({})).await["id"].as_str().unwrap().to_owned();
        told(&tidings, &id, 1).await;
        let correct = format!("/notices/{id}/correct");
        let body = json!({ "summary": "We keep your name only.", "reason": "It said too much." });
        tidings.post(&correct, body.clone()).await.ok();
        told(&tidings, &id, 2).await;
        let again = tidings.post(&correct, body).await.ok();
        assert_eq!(again["rounds"].as_array().unwrap().len(), 2, "{again:#}");
        let other = json!({ "summary": "We keep your name only.", "reason": "It said far too much." });
        assert_eq!(tidings.post(&correct, other).await.ok()["rounds"].as_array().unwrap().len(), 3);
        told(&tidings, &id, 3).await;
        assert_eq!(tidings.smtp.messages_to(P1).len(), 3);
        tidings.stop().await;
    }

    async fn pn1_an_account_that_is_opened_again_before_the_day_is_told_though_nobody_worked_meanwhile(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(3).await;
        tidings.policy(json!({})).await;
        let id = tidings.announce("material", json!({})).await["id"].as_str().unwrap().to_owned();
        let rest = async || while step(tidings.app()).await.unwrap() {};
        rest().await;
        let account = format!("/recipients/{}", id_of(&tidings, P0).await);
        tidings.patch(&account, json!({ "standing": "deactivated" })).await.ok();
        let worker = tidings.another(Parts { web: false, ..Parts::default() }).await;
        told(&tidings, &id, 1).await;
        worker.stop().await;
        tidings.patch(&account, json!({ "standing": "active" })).await.ok();
        tidings.advance(DAY * 41);
        rest().await;
        let worker = tidings.another(Parts { web: false, ..Parts::default() }).await;
        let done = tidings.notice_when("is closed", &id, |notice| notice["closed_at"].is_string()).await;
        assert_eq!(done["counts"], json!({ "total": 3, "told": 3, "pending": 0, "unreachable": 0 }), "{done:#}");
        assert_eq!(tidings.smtp.messages_to(P0).len(), 1);
        worker.stop().await;
        tidings.stop().await;
    }

    async fn pn1_whoever_closes_the_account_after_the_mail_was_refused_is_in_neither_the_list_nor_the_figures(database: Database) {
        let tidings = scene(database, json!({})).await;
        let id = tidings.announce("material", json!({})).await["id"].as_str().unwrap().to_owned();
        assert_eq!(told(&tidings, &id, 1).await["counts"]["unreachable"], 1);
        tidings.patch(&format!("/recipients/{}", id_of(&tidings, P0).await), json!({ "standing": "deactivated" })).await.ok();
        let now = tidings.get(&format!("/notices/{id}")).await.ok();
        assert_eq!(now["counts"], json!({ "total": 2, "told": 2, "pending": 0, "unreachable": 0 }), "{now:#}");
        assert!(listed(&tidings, &id).await.is_empty());
        tidings.stop().await;
    }

    async fn pn11_nobody_is_reminded_of_a_text_that_does_not_hold_since_they_could_not_be_told(database: Database) {
        let tidings = scene(database, json!({ "reminder_months": 6, "on_untold": "earlier_version_stands" })).await;
        let id = tidings.announce("material", json!({})).await["id"].as_str().unwrap().to_owned();
        told(&tidings, &id, 1).await;
        tidings.advance(DAY * 41);
        tidings.notice_when("is in effect", &id, |notice| notice["state"] == "in_effect").await;
        tidings.smtp.behave();
        tidings.recipient("new@people.example.com").await;
        tidings.advance(DAY * 190);
        let done = told(&tidings, &id, 2).await;
        assert_eq!((&done["rounds"][1]["kind"], &done["rounds"][1]["counts"]["sent"]), (&json!("reminder"), &json!(3)), "{done:#}");
        assert!(tidings.smtp.messages_to(P0).is_empty());
        tidings.stop().await;
    }

    async fn pn1_whoever_reads_another_form_of_a_language_is_told_in_the_one_there_is(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        for (name, locale) in [("pt", "pt"), ("portugal", "pt_PT"), ("brazil", "pt-BR"), ("taiwan", "zh-TW"), ("gb", "en-GB"), ("none", "fi")] {
            let person = json!({ "email": format!("{name}@people.example.com"), "locale": locale });
            tidings.post("/recipients", person).await.is(201);
        }
        tidings.policy(json!({})).await;
        let text = |language: &str| json!({ "title": language, "body_markdown": "x", "summary": format!("In {language}.") });
        let translations = json!({ "pt-BR": text("pt-BR"), "pt-AO": text("pt-AO"), "zh-Hant": text("zh-Hant") });
        let id = tidings.announce("material", json!({ "translations": translations })).await["id"].as_str().unwrap().to_owned();
        let done = told(&tidings, &id, 1).await;
        assert_eq!(done["counts"]["told"], 6, "{done:#}");
        for (name, says) in [("pt", "In pt-AO."), ("portugal", "In pt-AO."), ("brazil", "In pt-BR."), ("taiwan", "In zh-Hant."),
            ("gb", "From now on"), ("none", "From now on")]
        {
            let mails = tidings.smtp.messages_to(&format!("{name}@people.example.com"));
            let text = mails[0].parsed().body_text(0).unwrap().into_owned();
            assert!(mails.len() == 1 && text.contains(says), "{name}: {text}");
        }
        tidings.stop().await;
    }
}
