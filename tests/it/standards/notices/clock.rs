//! The clock of a notice: when the last one will be told, an alarm when that is too late, and retries until then.

use serde_json::json;

use crate::harness::{Act, Database, Process, SmtpServer, Stage, Tidings, eventually, wait_until};
use crate::promises::count;

const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);

/// A notice to so many people whom the relay puts off for longer than there is time; its id.
async fn put_off(database: Database, people: usize) -> (Tidings, String) {
    let tidings = Tidings::start(database).await;
    tidings.ready_to_send().await;
    tidings.recipients(people).await;
    tidings.policy(json!({ "lead_time_days": 1 })).await;
    tidings.smtp.on(Stage::Rcpt, Act::reply(450, "4.2.1 later"));
    let soon = tidings.clock().now().plus(HOUR * 24 + HOUR / 60).to_string();
    let notice = tidings.announce("material", json!({ "effective_at": soon })).await;
    let id = notice["id"].as_str().unwrap().to_owned();
    (tidings, id)
}

/// Whether this stands among what happened.
async fn entered(tidings: &Tidings, action: &str) -> bool {
    let audit = tidings.get("/audit?limit=100").await.ok();
    audit["items"].as_array().unwrap().iter().any(|entry| entry["action"] == action)
}

on_both! {
    async fn pn2_whoever_previews_a_version_sees_whom_it_is_for_and_when_the_last_one_would_be_told(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(7).await;
        tidings.policy(json!({})).await;
        let version = json!({
            "body_markdown": "# New", "summary": "New.", "change": "material", "effective_at": tidings.in_days(40),
        });
        tidings.post("/policies/privacy/versions", version).await.ok();
        wait_until("a worker that shows itself", async || {
            let preview = tidings.get("/policies/privacy/versions/2/preview").await.ok();
            preview["notice"]["projected_end"].is_string()
        })
        .await;
        let preview = tidings.get("/policies/privacy/versions/2/preview").await.ok();
        assert_eq!((&preview["notice"]["people"], &preview["notice"]["on_time"]), (&json!(7), &json!(true)), "{preview}");
        assert!(preview["notice"]["messages_per_second"].as_f64().unwrap() > 0.0, "{preview}");
        let baseline = tidings.get("/policies/privacy/versions/1/preview").await.ok();
        assert!(baseline["notice"].is_null(), "{baseline}");
        tidings.stop().await;
    }

    async fn pn2_a_notice_that_will_not_be_done_in_time_says_so_and_takes_it_back_when_it_will(database: Database) {
        let (tidings, id) = put_off(database, 3).await;
        // Each attempt is put off longer than there is time; the clock is looked at every ten seconds.
        eventually("an alarm", async || {
            tidings.advance(HOUR / 120);
            let notice = tidings.get(&format!("/notices/{id}")).await.ok();
            (notice["on_time"] == false && entered(&tidings, "notice.late").await).then_some(())
        })
        .await;
        tidings.smtp.behave();
        // Put off, it has time again.
        let later = json!({ "effective_at": tidings.in_days(30), "reason": "The relay was slow." });
        tidings.post(&format!("/notices/{id}/postpone"), later).await.ok();
        eventually("a notice that is in time", async || {
            tidings.advance(HOUR / 120);
            let notice = tidings.get(&format!("/notices/{id}")).await.ok();
            (notice["on_time"] == true && notice["counts"]["told"] == 3).then_some(())
        })
        .await;
        tidings.stop().await;
    }

    async fn pn2_a_notice_that_was_done_too_late_stays_late(database: Database) {
        let (tidings, id) = put_off(database, 1).await;
        wait_until("an alarm", async || {
            tidings.advance(HOUR / 120);
            entered(&tidings, "notice.late").await
        })
        .await;
        tidings.smtp.behave();
        let told = eventually("a notice that told everyone", async || {
            tidings.advance(HOUR / 12);
            let notice = tidings.get(&format!("/notices/{id}")).await.ok();
            (notice["counts"]["told"] == 1).then_some(notice)
        })
        .await;
        assert_eq!(told["on_time"], false, "{told}");
        // Two more looks at the clock take nothing back.
        for _ in 0..2 {
            let looked = format!("pace WHERE sampled_at > {}", tidings.clock().now().0);
            wait_until("a look at the clock", async || {
                tidings.advance(HOUR / 120);
                count(&tidings, &looked).await == 1
            })
            .await;
        }
        assert!(!entered(&tidings, "notice.on_time").await);
        assert_eq!(count(&tidings, "notices WHERE late_since IS NOT NULL").await, 1);
        tidings.stop().await;
    }

    async fn pn2_whoever_is_not_reached_in_time_is_listed_before_the_change(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(1).await;
        tidings.policy(json!({ "lead_time_days": 1 })).await;
        tidings.smtp.on(Stage::Rcpt, Act::reply(450, "4.2.1 later"));
        // To be told within two days, which are fewer than the five after which other mail is given up.
        let notice = tidings.announce("material", json!({ "effective_at": tidings.in_days(3) })).await;
        let path = format!("/notices/{}/unreachable", notice["id"].as_str().unwrap());
        let listed = async || tidings.get(&path).await.ok()["items"].as_array().unwrap().clone();
        for times in 1..=3 {
            let tried = format!("deliveries WHERE class = 'notice' AND attempts >= {times}");
            wait_until("an attempt", async || count(&tidings, &tried).await == 1).await;
            if times < 3 {
                assert_eq!(listed().await, [] as [serde_json::Value; 0]);
                tidings.advance(HOUR * 24);
            }
        }
        let found = eventually("a list", async || listed().await.into_iter().next()).await;
        assert_eq!(found["reason"], "deferred_too_long", "{found}");
        tidings.stop().await;
    }

    async fn pn2_a_notice_is_tried_until_everyone_is_to_be_told_however_long_that_is(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(1).await;
        tidings.policy(json!({})).await;
        tidings.smtp.on(Stage::Rcpt, Act::reply(450, "4.2.1 later"));
        // To be told within 20 days.
        let notice = tidings.announce("material", json!({ "effective_at": tidings.in_days(50) })).await;
        let id = notice["id"].as_str().unwrap().to_owned();
        let person = tidings.get("/recipients?email=p0@people.example.com").await.ok()["items"][0]["id"].clone();
        let path = format!("/recipients/{}/deliveries", person.as_str().unwrap());
        let tried = async |times: usize| {
            let delivery = tidings.get(&path).await.ok()["items"][0].clone();
            delivery["state"] == "queued" && delivery["attempts"].as_array().unwrap().len() == times
        };
        // Far beyond the five days after which other mail is given up.
        for times in 1..10 {
            wait_until("an attempt that is put off", async || tried(times).await).await;
            tidings.advance(HOUR * 24);
        }
        tidings.smtp.behave();
        tidings.advance(HOUR * 2);
        tidings.smtp.wait_for_message_to("p0@people.example.com").await;
        let told = tidings.notice_when("told everyone", &id, |notice| notice["counts"]["told"] == 1).await;
        assert_eq!(told["on_time"], true, "{told}");
        tidings.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pn2_the_log_and_the_metrics_tell_of_a_notice_that_will_be_late() {
    let relay = SmtpServer::start().await;
    relay.on(Stage::Rcpt, Act::reply(450, "4.2.1 later"));
    let url = relay.url();
    let process = Process::serve(&Database::sqlite(), &[], &[("TIDINGS_RELAY_URL", url.as_str())]).await;
    let api = &process.api;
    crate::promises::make_ready(api).await;
    api.post("/recipients", json!({ "email": "ada@people.example.com" })).await.is(201);
    let policy = json!({ "brand": "acme", "title": "Privacy", "lead_time_days": 1 });
    api.put("/policies/privacy", policy).await.ok();
    // A day and some seconds: before the first attempt is repeated everyone is to have been told.
    let soon =
        tidings::clock::Timestamp::now().plus(HOUR * 24 + std::time::Duration::from_secs(20)).to_string();
    for version in [
        json!({ "body_markdown": "# One", "summary": "One.", "change": "minor" }),
        json!({ "body_markdown": "# Two", "summary": "Two.", "change": "material", "effective_at": soon }),
    ] {
        let number = api.post("/policies/privacy/versions", version).await.ok()["number"].clone();
        api.post_empty(&format!("/policies/privacy/versions/{number}/publish")).await.ok();
    }
    wait_until("an alarm", async || {
        let metrics = api.page("/metrics").await.text;
        metrics.lines().any(|line| line == "tidings_notices_late 1")
    })
    .await;
    let logs = process.logs();
    assert!(logs.contains("a notice will be late") && !logs.contains("ada@people"), "{logs}");
}
