//! What an administrator changes about a running notice, and what comes by itself: corrected, postponed, withdrawn, asked
//! again, reminded.

use serde_json::{Value, json};

use crate::harness::{Act, Database, Stage, Tidings, wait_until};

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

async fn ready(database: Database, settings: Value) -> Tidings {
    let tidings = Tidings::start(database).await;
    tidings.ready_to_send().await;
    tidings.recipients(5).await;
    tidings.policy(settings).await;
    tidings
}

fn subjects(tidings: &Tidings, address: &str) -> Vec<String> {
    let mails = tidings.smtp.messages_to(address);
    mails.iter().map(|mail| mail.parsed().subject().unwrap().to_owned()).collect()
}

async fn completed(tidings: &Tidings, id: &str, rounds: usize) -> Value {
    tidings
        .notice_when("told everyone in its last round", id, |notice| {
            let all = notice["rounds"].as_array().unwrap();
            all.len() == rounds && all[rounds - 1]["completed_at"].is_string()
        })
        .await
}

on_both! {
    async fn pn10_once_the_day_has_come_a_change_is_neither_postponed_nor_called_off(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.ready_to_send().await;
        tidings.policy(json!({})).await;
        let notice = tidings.announce("material", json!({})).await;
        let id = notice["id"].as_str().unwrap();
        // No worker is there to see the day come.
        tidings.advance(DAY * 41);
        let later = json!({ "effective_at": tidings.in_days(60), "reason": "r" });
        let refused = tidings.post(&format!("/notices/{id}/postpone"), later).await.problem(409);
        assert!(refused["detail"].as_str().unwrap().contains("has taken effect"), "{refused}");
        tidings.post(&format!("/notices/{id}/withdraw"), json!({ "reason": "r" })).await.problem(409);
        tidings.post(&format!("/notices/{id}/correct"), json!({ "reason": "r", "summary": "s" })).await.problem(409);
        tidings.stop().await;
    }

    async fn pn10_a_template_that_was_spoilt_keeps_neither_a_reminder_nor_whoever_joins_from_coming(database: Database) {
        let template = json!({
            "subject": "{{data.policy}}", "classes": ["notice"],
            "html": "<p>{{data.summary}} {{data.effective_date}} {{data.effective_utc}} {{data.url}} {{data.old_url}} {{approve_url}} {{data.rights}} \
                {{brand.postal_address}}</p>",
        });
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(2).await;
        tidings.put("/templates/notice", template).await.ok();
        tidings.policy(json!({ "template": "notice", "remind_days_before": [20] })).await;
        let notice = tidings.announce("adverse", json!({})).await;
        let id = notice["id"].as_str().unwrap();
        completed(&tidings, id, 1).await;
        let broken = json!({ "subject": "s", "html": "<p>Nothing.</p>", "classes": ["notice"] });
        tidings.put("/templates/notice", broken).await.ok();
        tidings.advance(DAY * 21);
        tidings.recipient("late@people.example.com").await;
        tidings.smtp.wait_for_message_to("late@people.example.com").await;
        completed(&tidings, id, 2).await;
        for n in 0..2 {
            let told = subjects(&tidings, &format!("p{n}@people.example.com"));
            assert!(told.len() == 2 && told[1].starts_with("Your answer is missing: "), "{told:?}");
        }
        tidings.stop().await;
    }

    async fn pn10_a_correction_tells_everyone_anew_with_its_reason(database: Database) {
        let tidings = ready(database, json!({})).await;
        let notice = tidings.announce("material", json!({})).await;
        let id = notice["id"].as_str().unwrap();
        completed(&tidings, id, 1).await;
        let path = format!("/notices/{id}/correct");
        tidings.post(&path, json!({ "reason": "We named the wrong thing." })).await.refuses("/summary");
        tidings.post(&path, json!({ "reason": " ", "summary": "x" })).await.refuses("/reason");
        let unknown = json!({ "reason": "r", "translations": { "xx": { "summary": "x" } } });
        tidings.post(&path, unknown).await.refuses("/translations/xx");
        let body = json!({ "reason": "We named the wrong thing.", "summary": "We keep your telephone number." });
        let corrected = tidings.post(&path, body).await.ok();
        assert_eq!(corrected["rounds"][1]["kind"], "correction");
        let done = completed(&tidings, id, 2).await;
        assert_eq!(done["counts"]["told"], 5, "{done}");
        let mails = tidings.smtp.messages_to("p0@people.example.com");
        assert_eq!(mails.len(), 2);
        let text = mails[1].parsed().body_text(0).unwrap().into_owned();
        assert!(text.contains("We named the wrong thing.") && text.contains("telephone number"), "{text}");
        assert!(mails[1].parsed().subject().unwrap().starts_with("Correction: "));
        tidings.stop().await;
    }

    async fn pn10_a_correction_stops_what_waits_of_what_was_wrong(database: Database) {
        let tidings = ready(database, json!({})).await;
        // One is told of what is wrong, and nobody else can be yet.
        for n in 1..5 {
            tidings.smtp.on(Stage::Rcpt, Act::reply(450, "4.2.1 later")).to(&format!("p{n}@people.example.com"));
        }
        let notice = tidings.announce("material", json!({})).await;
        let id = notice["id"].as_str().unwrap().to_owned();
        tidings.notice_when("is told to one", &id, |notice| notice["counts"]["told"] == 1).await;
        wait_until("attempts", async || tidings.smtp.transactions().len() >= 5).await;
        tidings.smtp.behave();
        let body = json!({ "reason": "We named the wrong thing.", "summary": "We keep your telephone number." });
        tidings.post(&format!("/notices/{id}/correct"), body).await.ok();
        let done = completed(&tidings, &id, 2).await;
        assert_eq!(done["rounds"][0]["counts"]["cancelled"], 4, "{done}");
        assert_eq!(done["counts"], json!({ "total": 5, "told": 5, "pending": 0, "unreachable": 0 }), "{done}");
        // However long what was put off would have been put off.
        tidings.advance(DAY);
        tidings.recipient("last@people.example.com").await;
        tidings.smtp.wait_for_message_to("last@people.example.com").await;
        for n in 0..5 {
            let told = subjects(&tidings, &format!("p{n}@people.example.com"));
            assert_eq!(told.len(), if n == 0 { 2 } else { 1 }, "{told:?}");
            // Who heard nothing of what was wrong is told of no correction.
            let begins = if n == 0 { "Correction: " } else { "Privacy policy of ACME changes on " };
            assert!(told.last().unwrap().starts_with(begins), "{told:?}");
        }
        tidings.stop().await;
    }

    async fn pn10_a_postponement_moves_the_date_and_stops_what_waits_of_the_former_message(database: Database) {
        let tidings = ready(database, json!({})).await;
        // Nobody can be told of the first date.
        tidings.smtp.on(Stage::Rcpt, Act::reply(450, "4.2.1 later"));
        let notice = tidings.announce("material", json!({})).await;
        let id = notice["id"].as_str().unwrap().to_owned();
        tidings.notice_when("is tried", &id, |notice| notice["counts"]["total"] == 5).await;
        wait_until("attempts", async || tidings.smtp.transactions().len() >= 5).await;
        let path = format!("/notices/{id}/postpone");
        let earlier = json!({ "effective_at": tidings.in_days(39), "reason": "r" });
        tidings.post(&path, earlier).await.refuses("/effective_at");
        tidings.smtp.behave();
        let later = json!({ "effective_at": tidings.in_days(60), "reason": "More time for you." });
        let postponed = tidings.post(&path, later.clone()).await.ok();
        assert_eq!(postponed["effective_at"], later["effective_at"]);
        let done = completed(&tidings, &id, 2).await;
        assert_eq!(done["rounds"][0]["counts"]["cancelled"], 5, "{done}");
        assert_eq!(done["counts"]["told"], 5, "{done}");
        // Nobody had heard of the first date.
        let told = subjects(&tidings, "p1@people.example.com");
        assert!(told.len() == 1 && told[0].starts_with("Privacy policy of ACME changes on "), "{told:?}");
        tidings.advance(DAY * 41);
        let still = tidings.get(&format!("/notices/{id}")).await.ok();
        assert_eq!(still["state"], "running", "{still}");
        let version = tidings.get("/policies/privacy/versions/2").await.ok();
        assert_eq!(version["effective_at"], later["effective_at"]);
        tidings.stop().await;
    }

    async fn pn10_what_is_withdrawn_is_told_to_those_who_knew_and_to_nobody_else(database: Database) {
        let tidings = ready(database, json!({})).await;
        tidings.smtp.on(Stage::Rcpt, Act::reply(550, "5.7.1 no")).to("p0@people.example.com");
        let notice = tidings.announce("material", json!({})).await;
        let id = notice["id"].as_str().unwrap().to_owned();
        completed(&tidings, &id, 1).await;
        tidings.smtp.behave();
        let withdrawn = tidings.post(&format!("/notices/{id}/withdraw"), json!({ "reason": "We thought again." })).await.ok();
        assert_eq!(withdrawn["state"], "withdrawn");
        tidings.notice_when("is closed", &id, |notice| notice["closed_at"].is_string()).await;
        for n in 1..5 {
            let told = subjects(&tidings, &format!("p{n}@people.example.com"));
            assert!(told.len() == 2 && told[1].starts_with("Called off: "), "{told:?}");
        }
        assert!(subjects(&tidings, "p0@people.example.com").is_empty());
        let again = tidings.post(&format!("/notices/{id}/withdraw"), json!({ "reason": "r" })).await;
        again.problem(409);
        let version = tidings.get("/policies/privacy/versions/2").await.ok();
        assert_eq!(version["state"], "withdrawn");
        // Nobody hears of it any more, and the next version can come.
        tidings.recipient("new@people.example.com").await;
        let next = tidings.announce("material", json!({})).await;
        completed(&tidings, next["id"].as_str().unwrap(), 1).await;
        assert_eq!(subjects(&tidings, "new@people.example.com").len(), 1);
        tidings.stop().await;
    }

    async fn pn10_a_withdrawal_can_be_silent(database: Database) {
        let tidings = ready(database, json!({})).await;
        let notice = tidings.announce("material", json!({})).await;
        let id = notice["id"].as_str().unwrap().to_owned();
        completed(&tidings, &id, 1).await;
        tidings.post(&format!("/notices/{id}/withdraw"), json!({ "reason": "r", "tell": false })).await.ok();
        let done = tidings.notice_when("is closed", &id, |notice| notice["closed_at"].is_string()).await;
        assert_eq!(done["rounds"].as_array().unwrap().len(), 1, "{done}");
        tidings.stop().await;
    }

    async fn pn5_who_has_not_answered_is_asked_again_on_the_days_that_the_policy_names(database: Database) {
        let tidings = ready(database, json!({ "remind_days_before": [20, 5] })).await;
        let notice = tidings.announce("adverse", json!({})).await;
        let id = notice["id"].as_str().unwrap().to_owned();
        completed(&tidings, &id, 1).await;
        let mail = tidings.smtp.wait_for_message_to("p0@people.example.com").await;
        let text = mail.parsed().body_text(0).unwrap().into_owned();
        let link = text.split_whitespace().find(|word| word.contains("/a/")).unwrap().to_owned();
        let path = link.split_once("/a/").map(|(_, token)| format!("/a/{token}")).unwrap();
        tidings.anonymous().submit(&path, &[("decision", "approve")]).await.is(200);
        tidings.advance(DAY * 21);
        let once = completed(&tidings, &id, 2).await;
        assert_eq!((&once["rounds"][1]["kind"], &once["rounds"][1]["counts"]["sent"]), (&json!("approval_reminder"), &json!(4)), "{once}");
        assert_eq!(once["approvals"], json!({ "approved": 1, "declined": 0, "open": 4 }), "{once}");
        tidings.advance(DAY * 15);
        completed(&tidings, &id, 3).await;
        assert_eq!(subjects(&tidings, "p1@people.example.com").len(), 3);
        assert_eq!(subjects(&tidings, "p0@people.example.com").len(), 1);
        tidings.stop().await;
    }

    async fn pn11_what_is_in_force_is_told_again_every_so_many_months_unless_somebody_refuses_that(database: Database) {
        let tidings = ready(database, json!({ "reminder_months": 6 })).await;
        let refusal = json!({ "email": "p0@people.example.com", "channel": "phone", "scope": { "brand": "acme", "topic": "policy-reminders" } });
        tidings.post("/opt-outs", refusal).await.is(201);
        tidings.advance(DAY * 150);
        tidings.advance(DAY * 40);
        wait_until("reminders", async || tidings.smtp.count() == 4).await;
        let mail = tidings.smtp.wait_for_message_to("p1@people.example.com").await;
        assert!(mail.header("List-Unsubscribe").is_some());
        assert!(mail.parsed().subject().unwrap().starts_with("For your records: "));
        // The next one comes after as many months again, and a change is told to everyone.
        let notice = tidings.announce("material", json!({})).await;
        completed(&tidings, notice["id"].as_str().unwrap(), 1).await;
        assert_eq!(subjects(&tidings, "p0@people.example.com").len(), 1);
        assert_eq!(subjects(&tidings, "p1@people.example.com").len(), 2);
        tidings.stop().await;
    }
}
