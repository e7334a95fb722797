//! What is changed at the same moment, and what is not changed any more.

use std::time::Duration;

use futures_util::future::join_all;
use sea_orm::sea_query::LockType;
use sea_orm::{ConnectionTrait as _, DbBackend, EntityTrait as _, QuerySelect as _, Statement};
use serde_json::{Value, json};
use tidings::app::App;
use tidings::notice::rows as notices;
use tidings::policy::rows as policies;
use tokio::task::JoinHandle;

use crate::harness::{Answer, Database, Tidings, wait_until};

const DAY: Duration = Duration::from_secs(24 * 3600);
const VERSIONS: &str = "/policies/privacy/versions";

/// Version 2 takes effect in 40 days and is being told, version 3 in 50 and is a draft; gives the notice of version 2.
async fn scene(database: Database) -> (Tidings, String) {
    let tidings = Tidings::start_web(database).await;
    tidings.ready_to_send().await;
    tidings.policy(json!({})).await;
    let notice = tidings.announce("material", json!({})).await;
    let next = json!({
        "body_markdown": "# What we keep\n\nEverything.\n", "change": "material", "summary": "From now on we keep all.",
        "effective_at": tidings.in_days(50),
    });
    tidings.post(VERSIONS, next).await.is(201);
    (tidings, notice["id"].as_str().unwrap().to_owned())
}

fn later(tidings: &Tidings) -> Value {
    json!({ "effective_at": tidings.in_days(60), "reason": "More time for you." })
}

/// Waits until this request waits for a lock, or was answered without one.
async fn under_way(app: &App, asked: &JoinHandle<Answer>) {
    if app.db.backend() == DbBackend::Sqlite {
        return; // One writer at a time: it cannot be answered before the other one has ended.
    }
    let waits =
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    wait_until("a request that waits for a lock", async || {
        let found = app.db.reads().query_all_raw(Statement::from_string(DbBackend::Postgres, waits)).await;
        asked.is_finished() || !found.unwrap().is_empty()
    })
    .await;
}

async fn dates(tidings: &Tidings) -> (String, String) {
    let date = async |number: u32| {
        let version = tidings.get(&format!("{VERSIONS}/{number}")).await.ok();
        version["effective_at"].as_str().unwrap().to_owned()
    };
    (date(2).await, date(3).await)
}

on_both! {
    async fn of_two_dates_out_of_order_that_come_at_once_one_wins_and_the_other_is_refused(database: Database) {
        let (tidings, notice) = scene(database).await;
        let (postpone, publish) = (format!("/notices/{notice}/postpone"), format!("{VERSIONS}/3/publish"));
        let postponed = tidings.post(&postpone, later(&tidings));
        let (postponed, published) = futures_util::join!(postponed, tidings.post_empty(&publish));
        let (first, second) = dates(&tidings).await;
        let state = tidings.get(&format!("{VERSIONS}/3")).await.ok()["state"].clone();
        if postponed.status == 200 {
            published.refuses("/effective_at");
            assert!(first > second && state == "draft", "{first} {second} {state}");
        } else {
            postponed.refuses("/effective_at");
            assert!(first < second && state == "published", "{first} {second} {state}");
            published.ok();
        }
        tidings.stop().await;
    }

    async fn nothing_is_put_off_beyond_the_date_of_a_version_that_is_being_published(database: Database) {
        let (tidings, notice) = scene(database).await;
        let (app, before) = (tidings.app(), dates(&tidings).await);
        let policy = policies::find(app.db.reads(), "privacy").await.unwrap().unwrap();
        let publishing = app.db.begin().await.unwrap();
        let published = policies::publish(&publishing, &app.db, policy.id, 3, None, "test").await.unwrap();
        notices::open(&publishing, app, &policy, &published.version, "test").await.unwrap();
        let (api, path, body) = ((*tidings).clone(), format!("/notices/{notice}/postpone"), later(&tidings));
        let asked = tokio::spawn(async move { api.post(&path, body).await });
        under_way(app, &asked).await;
        publishing.commit().await.unwrap();
        let reason = asked.await.unwrap().refuses("/effective_at");
        assert!(reason.contains("version 3"), "{reason}");
        assert_eq!(dates(&tidings).await, before);
        tidings.stop().await;
    }

    async fn nothing_is_published_before_the_date_of_what_is_being_put_off(database: Database) {
        let (tidings, notice) = scene(database).await;
        let app = tidings.app();
        let at = tidings.in_days(60).parse().unwrap();
        let putting_off = app.db.begin().await.unwrap();
        let more_time = notices::Reasons { own: "More time.".into(), others: std::collections::BTreeMap::new() };
        let by = notices::By { actor: "test", asked_by: None };
        notices::postpone(&putting_off, app, notice.parse().unwrap(), at, more_time, by).await.unwrap();
        let (api, path) = ((*tidings).clone(), format!("{VERSIONS}/3/publish"));
        let asked = tokio::spawn(async move { api.post_empty(&path).await });
        under_way(app, &asked).await;
        putting_off.commit().await.unwrap();
        let reason = asked.await.unwrap().refuses("/effective_at");
        assert!(reason.contains("the version before"), "{reason}");
        assert_eq!(tidings.get(&format!("{VERSIONS}/3")).await.ok()["state"], "draft");
        tidings.stop().await;
    }

    async fn settings_of_a_policy_are_written_while_its_notice_is_corrected(database: Database) {
        let (tidings, notice) = scene(database).await;
        let app = tidings.app();
        let policy = policies::find(app.db.reads(), "privacy").await.unwrap().unwrap();
        let correcting = app.db.begin().await.unwrap();
        let held = policies::policy::Entity::find_by_id(policy.id).lock(LockType::Update);
        assert!(held.one(&*correcting).await.unwrap().is_some());
        let api = (*tidings).clone();
        let settings = json!({ "brand": "acme", "title": "Privacy", "reminder_months": 12 });
        let asked = tokio::spawn(async move { api.put("/policies/privacy", settings).await });
        under_way(app, &asked).await;
        let said = [("en".to_owned(), "What we keep is your name.".to_owned())].into();
        let why = notices::Reasons { own: "It was not clear.".into(), others: std::collections::BTreeMap::new() };
        let by = notices::By { actor: "test", asked_by: None };
        notices::correct(&correcting, app, notice.parse().unwrap(), said, why, by).await.unwrap();
        correcting.commit().await.unwrap();
        assert_eq!(asked.await.unwrap().is(200).json()["title"], "Privacy");
        let rounds = tidings.get(&format!("/notices/{notice}")).await.ok()["rounds"].clone();
        assert_eq!(rounds[1]["kind"], "correction", "{rounds}");
        tidings.stop().await;
    }

    async fn settings_and_corrections_that_come_at_once_are_all_taken(database: Database) {
        let (tidings, notice) = scene(database).await;
        let path = format!("/notices/{notice}/correct");
        let puts = (0..6).map(|n| {
            let title = format!("Privacy {n}");
            tidings.put("/policies/privacy", json!({ "brand": "acme", "title": title, "reminder_months": 12 }))
        });
        let corrections = (0..3).map(|n| {
            let body = json!({ "summary": format!("In other words {n}."), "reason": "It was not clear." });
            tidings.post(&path, body)
        });
        let (puts, corrections) = futures_util::join!(join_all(puts), join_all(corrections));
        for answer in puts.iter().chain(&corrections) {
            answer.is(200);
        }
        tidings.stop().await;
    }

    async fn who_publishes_while_somebody_else_does_gets_the_same_notice(database: Database) {
        let (tidings, _) = scene(database).await;
        let app = tidings.app();
        let policy = policies::find(app.db.reads(), "privacy").await.unwrap().unwrap();
        let publishing = app.db.begin().await.unwrap();
        let published = policies::publish(&publishing, &app.db, policy.id, 3, None, "test").await.unwrap();
        let notice = notices::open(&publishing, app, &policy, &published.version, "test").await.unwrap();
        let (api, path) = ((*tidings).clone(), format!("{VERSIONS}/3/publish"));
        let asked = tokio::spawn(async move { api.post_empty(&path).await });
        under_way(app, &asked).await;
        publishing.commit().await.unwrap();
        let answer = asked.await.unwrap().ok();
        assert_eq!(answer["notice"]["id"], notice.id.to_string());
        assert_eq!(answer["version"]["published_by"], "test", "what was published is not published anew");
        assert_eq!(answer["notice"]["rounds"].as_array().unwrap().len(), 1, "{answer}");
        tidings.stop().await;
    }

    async fn what_holds_is_neither_corrected_nor_postponed_nor_called_off_and_stays_as_it_is(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(2).await;
        tidings.policy(json!({})).await;
        let notice = tidings.announce("adverse", json!({})).await;
        let id = notice["id"].as_str().unwrap().to_owned();
        tidings.notice_when("told everyone", &id, |notice| notice["counts"]["told"] == 2).await;
        tidings.advance(DAY * 41);
        tidings.notice_when("is closed", &id, |notice| notice["closed_at"].is_string()).await;
        let stands = async || {
            let head = notices::head(tidings.app().db.reads(), id.parse().unwrap()).await.unwrap().unwrap();
            let version = tidings.get(&format!("{VERSIONS}/2")).await.ok();
            let feed = tidings.anonymous().page("/notices/current.json?brand=acme").await.json();
            (tidings.get(&format!("/notices/{id}")).await.ok(), version, feed, head.hash)
        };
        let before = stands().await;
        for (what, body) in [
            ("correct", json!({ "reason": "r", "summary": "Something else." })),
            ("postpone", json!({ "reason": "r", "effective_at": tidings.in_days(60) })),
            ("withdraw", json!({ "reason": "r" })),
            ("withdraw", json!({ "reason": "r", "tell": false })),
        ] {
            let refused = tidings.post(&format!("/notices/{id}/{what}"), body).await.problem(409);
            assert!(refused["detail"].as_str().unwrap().contains("has taken effect"), "{what}: {refused}");
        }
        assert_eq!(stands().await, before);
        assert_eq!(tidings.smtp.count(), 2);
        assert_eq!(tidings.get("/policies/privacy").await.ok()["in_force"], 2);
        tidings.stop().await;
    }

    async fn all_figures_of_an_answer_are_those_of_one_moment_however_much_is_sent_meanwhile(database: Database) {
        // More than one step finds, so that some are not looked at yet while others are told.
        const PEOPLE: u64 = 1_200;
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(PEOPLE as usize).await;
        tidings.policy(json!({})).await;
        let path = format!("/notices/{}", tidings.announce("material", json!({})).await["id"].as_str().unwrap());
        loop {
            let one = tidings.get(&path).await.ok();
            let listed = tidings.get("/notices").await.ok()["items"][0].take();
            for notice in [&one, &listed] {
                let (counts, round) = (&notice["counts"], &notice["rounds"][0]["counts"]);
                assert_eq!((&counts["total"], &counts["told"]), (&json!(PEOPLE), &round["sent"]), "{notice:#}");
                let waits = round["queued"].as_u64().unwrap() + round["sending"].as_u64().unwrap();
                assert!(counts["pending"].as_u64().unwrap() >= waits, "{notice:#}");
            }
            if one["counts"]["pending"] == 0 {
                break;
            }
        }
        tidings.stop().await;
    }
}
