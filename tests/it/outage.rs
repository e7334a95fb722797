//! A PostgreSQL server that goes away while people refuse mail: each answer comes soon and says what is true, and
//! everything goes on by itself once the server is back.

use std::time::{Duration, Instant};

use secrecy::SecretString;
use serde_json::json;
use tidings::config::Settings;
use tidings::serve::{self, Parts, Running};

use crate::harness::{ADMIN_KEY, Api, LINK_KEYS, PostgresServer, eventually};

/// How long opt-outs wait for messages under way.
const BOUND: Duration = Duration::from_secs(2);
/// How much longer an answer may take when the database gives none.
const FEW_SECONDS: Duration = Duration::from_secs(5);

async fn web(server: &PostgresServer) -> (Running, Api) {
    let mut settings = Settings::local(&server.empty_database("outage").await);
    settings.link_keys = Some(SecretString::from(LINK_KEYS));
    settings.admin_key = Some(SecretString::from(ADMIN_KEY));
    settings.relay_url = SecretString::from("smtp://127.0.0.1:9");
    settings.opt_out_wait = BOUND;
    let running = serve::start(settings, Parts { worker: false, ..Parts::default() }).await.unwrap();
    let api = Api::new(format!("http://{}", running.addr), Some(ADMIN_KEY));
    (running, api)
}

/// Asks for an opt-out; gives the status and how long it took.
async fn refuse(api: &Api, who: &str) -> (u16, Duration) {
    let begun = Instant::now();
    let body = json!({ "email": who, "scope": "all", "channel": "phone" });
    let answer = api.post("/opt-outs", body).await;
    (answer.status.as_u16(), begun.elapsed())
}

/// Opt-outs of ten people at once, none of which may take long.
async fn refuse_ten(api: &Api, round: &str) -> Vec<u16> {
    let all = (0..10).map(|n| async move {
        let (status, took) = refuse(api, &format!("{round}{n}@people.example.com")).await;
        assert!(took < BOUND + FEW_SECONDS, "{status} after {took:?}");
        status
    });
    futures_util::future::join_all(all).await
}

async fn recovers(api: &Api, round: &str) {
    eventually("opt-outs that are taken again", async || {
        let statuses = refuse_ten(api, round).await;
        statuses.iter().all(|status| matches!(status, 200 | 201)).then_some(())
    })
    .await;
    api.get("/opt-outs?email=a0@people.example.com").await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opt_outs_are_answered_soon_while_postgresql_is_gone_or_frozen_and_taken_once_it_is_back() {
    let mut server = PostgresServer::start().await;
    let (running, api) = web(&server).await;
    assert_eq!(refuse_ten(&api, "a").await, [201; 10]);

    server.freeze();
    assert_eq!(refuse_ten(&api, "b").await, [503; 10]);
    // Nobody's place is kept by those who were told so.
    assert_eq!(refuse_ten(&api, "c").await, [503; 10]);
    server.thaw();
    recovers(&api, "d").await;

    server.crash().await;
    assert_eq!(refuse_ten(&api, "e").await, [503; 10]);
    server.start_again().await;
    recovers(&api, "f").await;
    // Restarted while nobody asked: what was kept open is dead, and nobody notices.
    server.crash().await;
    server.start_again().await;
    assert_eq!(refuse_ten(&api, "g").await, [201; 10]);

    running.stop().await;
}
