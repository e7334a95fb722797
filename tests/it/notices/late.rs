//! Whoever is committed late, and what a step leaves alone. The steps are taken by hand, so that nothing hangs on when.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sea_orm::DbBackend;
use serde_json::{Value, json};
use tidings::address::EmailAddress;
use tidings::app::App;
use tidings::db::{Observer, Write};
use tidings::notice::worker::step;
use tidings::recipient::{Upsert, rows};
use tidings::serve::Parts;

use crate::harness::{Database, Tidings};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// More steps than anything here takes.
const MANY: usize = 50;

/// A policy with its baseline, three people, nobody who sends, and somebody told of each statement.
async fn scene(database: Database) -> (Tidings, Arc<Mutex<Vec<String>>>) {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let into = heard.clone();
    let observer = Observer(Arc::new(move |sql| into.lock().unwrap().push(sql.to_owned())));
    let parts = Parts { worker: false, observer: Some(observer), ..Parts::default() };
    let tidings = Tidings::start_parts(database, parts, |_| {}).await;
    tidings.ready_to_send().await;
    tidings.recipients(3).await;
    tidings.policy(json!({})).await;
    (tidings, heard)
}

/// Takes steps until there is nothing to do.
async fn rest(tidings: &Tidings) {
    for _ in 0..MANY {
        if !step(tidings.app()).await.unwrap() {
            return;
        }
    }
    panic!("after {MANY} steps there is still something to do");
}

async fn join(txn: &Write, app: &App, email: &str) {
    let said = Upsert::new(EmailAddress::parse(email).unwrap());
    rows::upsert(txn, &app.db, &app.address_key, &said, rows::By::Keeper).await.unwrap().unwrap();
}

async fn seen(tidings: &Tidings, notice: &Value) -> Value {
    tidings.get(&format!("/notices/{}", notice["id"].as_str().unwrap())).await.ok()
}

/// Lets everything be sent; gives the notice once nobody waits.
async fn sent(tidings: &Tidings, notice: &Value) -> Value {
    let worker = tidings.another(Parts { web: false, ..Parts::default() }).await;
    let id = notice["id"].as_str().unwrap();
    let told = tidings.notice_when("told everyone", id, |notice| notice["counts"]["pending"] == 0).await;
    worker.stop().await;
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_committed_after_the_looks_that_passed_over_them_is_told_all_the_same() {
    let (tidings, _) = scene(Database::postgres().await).await;
    let app = tidings.app();
    // One began to join before the notice did, one between two looks at who has joined.
    let before = app.db.begin().await.unwrap();
    join(&before, app, "before@people.example.com").await;
    let notice = tidings.announce("material", json!({})).await;
    rest(&tidings).await;
    assert_eq!(seen(&tidings, &notice).await["counts"]["total"], 3);
    let between = app.db.begin().await.unwrap();
    join(&between, app, "between@people.example.com").await;
    tidings.recipient("after@people.example.com").await;
    rest(&tidings).await;
    assert_eq!(
        seen(&tidings, &notice).await["counts"]["total"],
        4,
        "what others have under way holds nobody up"
    );
    before.commit().await.unwrap();
    rest(&tidings).await;
    assert_eq!(seen(&tidings, &notice).await["counts"]["total"], 5);
    tidings.recipient("last@people.example.com").await;
    rest(&tidings).await;
    between.commit().await.unwrap();
    rest(&tidings).await;
    assert_eq!(sent(&tidings, &notice).await["counts"]["told"], 7);
    for who in ["before", "between", "after", "last"] {
        assert_eq!(tidings.smtp.messages_to(&format!("{who}@people.example.com")).len(), 1, "{who}");
    }
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_before_the_day_and_is_committed_on_it_is_told_and_who_joins_on_it_is_not() {
    let (tidings, _) = scene(Database::postgres().await).await;
    let app = tidings.app();
    let joining = app.db.begin().await.unwrap();
    join(&joining, app, "in-time@people.example.com").await;
    let notice = tidings.announce("material", json!({})).await;
    rest(&tidings).await;
    // To the day, and not so far beyond it that whoever joined before has to be committed.
    tidings.advance(DAY * 40);
    rest(&tidings).await;
    let now = seen(&tidings, &notice).await;
    assert_eq!((&now["state"], &now["counts"]["total"]), (&json!("in_effect"), &json!(3)), "{now}");
    tidings.recipient("too-late@people.example.com").await;
    joining.commit().await.unwrap();
    rest(&tidings).await;
    assert_eq!(
        sent(&tidings, &notice).await["counts"],
        json!({ "total": 4, "told": 4, "pending": 0, "unreachable": 0 })
    );
    assert_eq!(tidings.smtp.messages_to("in-time@people.example.com").len(), 1);
    assert_eq!(tidings.smtp.messages_to("too-late@people.example.com").len(), 0);
    tidings.stop().await;
}

on_both! {
    async fn a_notice_with_nothing_to_do_is_looked_at_and_left_alone(database: Database) {
        let (tidings, heard) = scene(database).await;
        let notice = tidings.announce("adverse", json!({})).await;
        rest(&tidings).await;
        assert_eq!(seen(&tidings, &notice).await["counts"]["pending"], 3);
        let idle = async |what: &str| {
            heard.lock().unwrap().clear();
            assert!(!step(tidings.app()).await.unwrap(), "{what}: there is nothing to do, and the worker would not rest");
            let heard = heard.lock().unwrap();
            assert!(!heard.is_empty());
            let harmless = |sql: &String| sql.starts_with("SELECT") && !sql.contains("FOR UPDATE");
            assert!(heard.iter().all(harmless), "{what}: {heard:?}");
        };
        idle("everybody's message waits").await;
        // Somebody who was told changes: that is noted, and not in a hurry.
        let person = tidings.get("/recipients?email=p0@people.example.com").await.ok()["items"][0]["id"].clone();
        let person = format!("/recipients/{}", person.as_str().unwrap());
        tidings.patch(&person, json!({ "name": "Another" })).await.ok();
        let under_way = tidings.app().db.backend() == DbBackend::Postgres;
        let somebody = if under_way { Some(tidings.app().db.begin().await.unwrap()) } else { None };
        if let Some(txn) = &somebody {
            join(txn, tidings.app(), "somebody@people.example.com").await;
            tidings.patch(&person, json!({ "name": "Yet another" })).await.ok();
        }
        for _ in 0..10 {
            assert!(!step(tidings.app()).await.unwrap(), "the same people are looked at again and again, at once");
        }
        if let Some(txn) = somebody {
            txn.rollback().await.unwrap();
            step(tidings.app()).await.unwrap();
        }
        idle("everybody was looked at").await;
        sent(&tidings, &notice).await;
        rest(&tidings).await;
        idle("everybody was told").await;
        tidings.advance(DAY * 41);
        rest(&tidings).await;
        assert!(seen(&tidings, &notice).await["closed_at"].is_string());
        idle("it is closed").await;
        tidings.stop().await;
    }
}
