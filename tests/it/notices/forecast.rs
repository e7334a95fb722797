//! The clock of a notice heeds the limits of the settings, and is looked at whoever is there to look.

use std::time::Duration;

use serde_json::{Value, json};
use tidings::clock::Timestamp;
use tidings::config::{LimitEntry, Limited, Settings};
use tidings::delivery::rows::anything_waits;
use tidings::notice::rows::{entries, keep_pace};
use tidings::notice::worker::watch;
use tidings::serve::{Parts, Running};

use crate::harness::{Database, Tidings, wait_until};
use crate::promises::{count, sql};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const PEOPLE: usize = 11;

/// A policy that leaves a day, eleven people, these limits, and a worker that has shown itself.
async fn scene(database: Database, limit: LimitEntry) -> (Tidings, Running) {
    let web = Parts { worker: false, ..Parts::default() };
    let tidings =
        Tidings::start_parts(database, web, |settings: &mut Settings| settings.limits = vec![limit]).await;
    tidings.ready_to_send().await;
    tidings.recipients(PEOPLE).await;
    tidings.policy(json!({ "lead_time_days": 1 })).await;
    let worker = tidings.another(Parts { web: false, ..Parts::default() }).await;
    wait_until("a worker that shows itself", async || count(&tidings, "heartbeats").await == 1).await;
    (tidings, worker)
}

fn moment(of: &Value, field: &str) -> Timestamp {
    of[field].as_str().unwrap_or_else(|| panic!("{of}")).parse().unwrap()
}

/// What is foreseen for a notice whose people are to be told within so long, and the notice once it was published.
async fn foreseen(tidings: &Tidings, within: Duration) -> (Value, Value) {
    let version = json!({
        "body_markdown": "# New", "summary": "New.", "change": "material",
        "effective_at": tidings.clock().now().plus(DAY + within).to_string(),
    });
    let made = tidings.post("/policies/privacy/versions", version).await.ok();
    let path = format!("/policies/privacy/versions/{}", made["number"]);
    let ahead = tidings.get(&format!("{path}/preview")).await.ok()["notice"].clone();
    (ahead, tidings.post_empty(&format!("{path}/publish")).await.ok()["notice"].clone())
}

/// The notice once so many were told and the others were looked at.
async fn told(tidings: &Tidings, notice: &Value, told: usize) -> Value {
    let others = i64::try_from(PEOPLE - told).unwrap();
    wait_until("everyone else in a line", async || {
        count(tidings, "queue WHERE aside IS NOT NULL").await == others
    })
    .await;
    tidings
        .notice_when("told some", notice["id"].as_str().unwrap(), |seen| seen["counts"]["told"] == told)
        .await
}

async fn audited(tidings: &Tidings, action: &str) -> bool {
    let audit = tidings.get("/audit?limit=100").await.ok();
    audit["items"].as_array().unwrap().iter().any(|entry| entry["action"] == action)
}

on_both! {
    async fn a_notice_ends_when_the_warm_up_of_the_relay_lets_the_last_one_through(database: Database) {
        let today = Timestamp::now().to_datetime().date_naive();
        let limit = LimitEntry {
            limited: Limited::Relay, rate: None, connections: None, warm_up: Some((today, vec![2; 8])),
        };
        let (tidings, worker) = scene(database, limit).await;
        // Two a day: the eleventh on the sixth day.
        let (ahead, notice) = foreseen(&tidings, DAY * 2).await;
        let begins = |of: &Value, days| moment(of, "projected_end").to_datetime().date_naive() == today + chrono::Days::new(days);
        assert!(begins(&ahead, 5) && ahead["on_time"] == false, "{ahead}");
        let seen = told(&tidings, &notice, 2).await;
        assert!(begins(&seen, 5) && seen["on_time"] == false, "{seen}");
        wait_until("an alarm", async || {
            tidings.advance(Duration::from_secs(10));
            audited(&tidings, "notice.late").await
        })
        .await;
        worker.stop().await;
        tidings.stop().await;
    }

    async fn a_notice_ends_when_the_limit_of_a_domain_lets_the_last_one_through(database: Database) {
        let limit = LimitEntry {
            limited: Limited::Domains(vec!["people.example.com".into()]), rate: Some((2, HOUR)), connections: None,
            warm_up: None,
        };
        let (tidings, worker) = scene(database, limit).await;
        // Two at once, then nine in four and a half windows.
        let within = |of: &Value| {
            let ahead = moment(of, "projected_end").since(tidings.clock().now());
            (HOUR * 4..HOUR * 5).contains(&ahead)
        };
        let (ahead, notice) = foreseen(&tidings, HOUR * 5).await;
        assert!(within(&ahead) && ahead["on_time"] == true, "{ahead}");
        // Those in the line come due by themselves in six hours at the earliest.
        let seen = told(&tidings, &notice, 2).await;
        assert!(within(&seen) && seen["on_time"] == true, "{seen}");
        assert!(!audited(&tidings, "notice.late").await);
        worker.stop().await;
        tidings.advance(HOUR * 8);
        let app = tidings.app();
        assert!(!anything_waits(&app.db, app.db.reads()).await.unwrap(), "who is in a line says nothing of the relay");
        tidings.stop().await;
    }

    async fn a_notice_that_is_found_to_be_late_is_entered_and_shown_whoever_found_it(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(1).await;
        tidings.policy(json!({})).await;
        let notice = tidings.announce("material", json!({})).await;
        let app = tidings.app();
        // Nobody sends: it is late. What a crash after the look would leave is all there.
        let beats = keep_pace(app, false).await.unwrap().unwrap();
        assert!(beats.len() == 1 && beats[0].late, "{beats:?}");
        assert!(audited(&tidings, "notice.late").await);
        let id = notice["id"].as_str().unwrap().parse().unwrap();
        let kept = entries(app.db.reads(), id, i64::MIN, 100).await.unwrap();
        assert!(kept.iter().any(|entry| entry.kind == "late"));
        // Another process looked a moment ago.
        metrics::gauge!("tidings_notices_late").set(0.0);
        watch(app).await.unwrap();
        let metrics = tidings.page("/metrics").await.text;
        assert!(metrics.lines().any(|line| line == "tidings_notices_late 1"), "{metrics}");
        // A worker that has not shown itself yet raises no alarm.
        sql(&tidings, "UPDATE pace SET sampled_at = 0").await;
        watch(app).await.unwrap();
        assert!(audited(&tidings, "notice.on_time").await);
        tidings.stop().await;
    }

    async fn where_no_worker_is_alive_the_web_service_raises_the_alarm(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(1).await;
        tidings.policy(json!({})).await;
        tidings.announce("material", json!({})).await;
        // This one still waits for a worker, the other one has waited long enough.
        assert!(!audited(&tidings, "notice.late").await);
        let impatient = Parts { worker: false, without_worker: Duration::ZERO, ..Parts::default() };
        let other = tidings.another(impatient).await;
        wait_until("an alarm", async || audited(&tidings, "notice.late").await).await;
        wait_until("the metric", async || {
            tidings.page("/metrics").await.text.lines().any(|line| line == "tidings_notices_late 1")
        })
        .await;
        other.stop().await;
        tidings.stop().await;
    }
}
