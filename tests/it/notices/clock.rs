//! The clock of a notice: when the last one will be told, an alarm when that is too late, and retries until then.

use serde_json::json;

use crate::harness::{Act, Database, Stage, Tidings, eventually, wait_until};

const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);

on_both! {
    async fn a_notice_that_will_not_be_done_in_time_says_so_and_takes_it_back_when_it_will(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(3).await;
        tidings.policy(json!({ "lead_time_days": 1 })).await;
        tidings.smtp.on(Stage::Rcpt, Act::reply(450, "4.2.1 later"));
        let soon = tidings.clock().now().plus(HOUR * 24 + HOUR / 60).to_string();
        let notice = tidings.announce("material", json!({ "effective_at": soon })).await;
        let id = notice["id"].as_str().unwrap().to_owned();
        let is_late = async || {
            let metrics = tidings.anonymous().page("/metrics").await.text;
            metrics.lines().any(|line| line == "tidings_notices_late 1")
        };
        // Each attempt is put off longer than there is time; the clock is looked at every ten seconds.
        eventually("an alarm", async || {
            tidings.advance(HOUR / 120);
            let notice = tidings.get(&format!("/notices/{id}")).await.ok();
            (notice["on_time"] == false && is_late().await).then_some(())
        })
        .await;
        let audit = tidings.get("/audit?limit=100").await.ok();
        assert!(audit["items"].as_array().unwrap().iter().any(|entry| entry["action"] == "notice.late"), "{audit}");
        tidings.smtp.behave();
        // Put off, it has time again.
        let later = json!({ "effective_at": tidings.in_days(30), "reason": "The relay was slow." });
        tidings.post(&format!("/notices/{id}/postpone"), later).await.ok();
        eventually("no alarm any more", async || {
            tidings.advance(HOUR / 120);
            (!is_late().await).then_some(())
        })
        .await;
        tidings.stop().await;
    }

    async fn a_notice_is_tried_until_everyone_is_to_be_told_however_long_that_is(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(1).await;
        tidings.policy(json!({})).await;
        tidings.smtp.on(Stage::Rcpt, Act::reply(450, "4.2.1 later"));
        // To be told within 20 days.
        let notice = tidings.announce("material", json!({ "effective_at": tidings.in_days(50) })).await;
        let id = notice["id"].as_str().unwrap().to_owned();
        wait_until("an attempt", async || !tidings.smtp.transactions().is_empty()).await;
        // Far beyond the five days after which other mail is given up.
        for _ in 0..9 {
            let before = tidings.smtp.transactions().len();
            tidings.advance(HOUR * 24);
            wait_until("another attempt", async || tidings.smtp.transactions().len() > before).await;
        }
        tidings.smtp.behave();
        tidings.advance(HOUR * 2);
        tidings.smtp.wait_for_message_to("p0@people.example.com").await;
        let told = tidings.notice_when("told everyone", &id, |notice| notice["counts"]["told"] == 1).await;
        assert_eq!(told["on_time"], true, "{told}");
        tidings.stop().await;
    }
}
