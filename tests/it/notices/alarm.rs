//! The alarm of a notice that will be late comes however much the worker has to do.

use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};
use tidings::notice::rows::entries;
use tidings::serve::Parts;

use crate::harness::{Database, Tidings, eventually};

/// More than one step of a walk takes in.
const PEOPLE: usize = 1_500;

on_both! {
    async fn a_notice_that_will_be_late_says_so_while_the_worker_is_busy_with_walks(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(PEOPLE).await;
        tidings.policy(json!({ "lead_time_days": 1 })).await;
        // A minute for what takes more than two at the rate that is counted on where none was measured.
        let soon = tidings.clock().now().plus(Duration::from_secs(24 * 3600 + 60)).to_string();
        let late = tidings.announce("material", json!({ "effective_at": soon })).await;
        let id = late["id"].as_str().unwrap().to_owned();
        let worker = tidings.another(Parts { web: false, ..Parts::default() }).await;
        let on = tidings.app().db.reads();
        let alarm = eventually("an alarm in evidence", async || {
            let entries = entries(on, id.parse().unwrap(), i64::MIN, 100).await.unwrap();
            entries.into_iter().find(|entry| entry.kind == "late")
        })
        .await;
        let walked = |notice: &Value| notice["rounds"][0]["state"] == "open" && notice["counts"]["total"] == PEOPLE;
        tidings.notice_when("was walked through", &id, walked).await;
        let sql = format!("SELECT COUNT(*) AS n FROM deliveries WHERE created_at > {}", alarm.at.0);
        let row = on.query_one_raw(Statement::from_string(tidings.app().db.backend(), sql)).await.unwrap();
        let after: i64 = row.unwrap().try_get("", "n").unwrap();
        assert!(after > 0, "the alarm came only when the worker had nothing else to do");
        let body: Value = serde_json::from_str(&alarm.body).unwrap();
        assert!(body["complete_by"].is_string() && body["projected_end"].is_string(), "{body}");
        eventually("the alarm among what happened", async || {
            let audit = tidings.get("/audit?limit=100").await.ok();
            audit["items"].as_array().unwrap().iter().any(|entry| entry["action"] == "notice.late").then_some(())
        })
        .await;
        worker.stop().await;
        tidings.stop().await;
    }
}
