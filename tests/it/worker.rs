//! A worker at work: what must be sent passes what can be refused, news wakes it, a relay that is away is waited for.

use std::time::Duration;

use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use serde_json::json;
use tidings::db::Db;
use tokio_util::sync::CancellationToken;

use crate::harness::{
    Act, Database, Gate, Options, Process, SmtpServer, Stage, Tidings, eventually, wait_until,
};
use crate::metrics::{scrape, value};

const ADA: &str = "ada@people.example.com";

on_both! {
    async fn a_service_message_passes_a_campaign_that_is_under_way(database: Database) {
        const PEOPLE: usize = 400;
        const BEFORE: usize = 150;
        /// What a connection has begun or made ready at most.
        const FEW: usize = 8;
        let tidings = Tidings::start_with(database, |s| s.worker_connections = 1).await;
        tidings.ready_to_send().await;
        tidings.recipients(PEOPLE).await;
        let gate = Gate::new();
        tidings.smtp.on(Stage::FinalDot, Act::Stall(gate.clone())).skip(BEFORE).once();
        let campaign = tidings.draft("acme", "marketing").await;
        tidings.post_empty(&format!("/campaigns/{campaign}/start")).await.ok();
        gate.reached().await;
        // More of the campaign is claimed than a connection takes up, so that there is something to pass.
        let under_way = tidings
            .campaign_when("waits in the worker", &campaign, |c| c["counts"]["sending"].as_u64() > Some(3 * FEW as u64))
            .await;
        let message = tidings.message("acme", "service", ADA).await;
        wait_until("the message to be claimed", async || {
            tidings.get(&format!("/messages/{message}")).await.ok()["state"] == "sending"
        })
        .await;
        gate.open();
        tidings.smtp.wait_for_message_to(ADA).await;
        tidings.finished(&campaign).await;
        let place = tidings.smtp.messages().iter().position(|one| one.recipient() == ADA).unwrap();
        assert!(place <= BEFORE + FEW, "it was handed over as number {place}: {under_way}");
        assert_eq!(tidings.smtp.count(), PEOPLE + 1);
        tidings.stop().await;
    }

    async fn new_work_is_told_to_workers_elsewhere_and_here(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.ready_to_send().await;
        let postgres = tidings.app().db.backend() == DbBackend::Postgres;
        let listening = async || {
            let sql = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() \
                       AND query LIKE 'LISTEN %tidings_news%'";
            let asked = Statement::from_string(DbBackend::Postgres, sql);
            let row = tidings.app().db.reads().query_one_raw(asked).await.unwrap().unwrap();
            row.try_get::<i64>("", "n").unwrap()
        };
        // What a worker does beside its work; on SQLite it has its own process alone.
        let stop = CancellationToken::new();
        let elsewhere = Db::open(&tidings.database.url()).await.unwrap();
        let told = if postgres { &elsewhere } else { &tidings.app().db };
        let listener = tokio::spawn(told.clone().listen(stop.clone()));
        if postgres {
            wait_until("a handle that listens", async || listening().await == 1).await;
        }
        for enqueue in ["a message", "a campaign"] {
            let news = told.news().notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if enqueue == "a message" {
                tidings.message("acme", "service", ADA).await;
            } else {
                let campaign = tidings.draft("acme", "marketing").await;
                tidings.post_empty(&format!("/campaigns/{campaign}/start")).await.ok();
            }
            let heard = tokio::time::timeout(Duration::from_secs(10), news).await;
            assert!(heard.is_ok(), "nobody was told of {enqueue}");
        }
        stop.cancel();
        listener.await.unwrap();
        elsewhere.close().await;
        if postgres {
            // A worker listens so.
            wait_until("nobody to listen", async || listening().await == 0).await;
            let parts = tidings::serve::Parts { web: false, ..Default::default() };
            let worker = tidings.another(parts).await;
            wait_until("a worker that listens", async || listening().await == 1).await;
            worker.stop().await;
        }
        tidings.stop().await;
    }

    async fn a_relay_that_is_away_for_a_while_costs_a_campaign_nothing_but_time(database: Database) {
        const PEOPLE: usize = 60;
        const BEFORE: usize = 20;
        let tidings = Tidings::start_web(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(PEOPLE).await;
        let mut relay = SmtpServer::with(Options { close_after: Some(BEFORE), ..Options::default() }).await;
        let gate = Gate::new();
        relay.on(Stage::FinalDot, Act::Stall(gate.clone())).skip(BEFORE - 1).once();
        let url = relay.url();
        let env = [("TIDINGS_RELAY_URL", url.as_str()), ("TIDINGS_WORKER_CONNECTIONS", "1")];
        let process = Process::serve(&tidings.database, &[], &env).await;
        let campaign = tidings.draft("acme", "marketing").await;
        process.api.post_empty(&format!("/campaigns/{campaign}/start")).await.ok();
        gate.reached().await;
        assert_eq!(value(&scrape(&process.api).await, "tidings_relay_reachable", &[]), Some(1.0));
        // It goes away with everything answered that it was given.
        relay.go_away().await;
        gate.open();

        let left = (PEOPLE - BEFORE) as f64;
        let marketing = |state| [("class", "marketing"), ("state", state)];
        eventually("metrics that tell what waits for whom", async || {
            let seen = scrape(&process.api).await;
            let reachable = value(&seen, "tidings_relay_reachable", &[]);
            let queued = value(&seen, "tidings_queue_deliveries", &marketing("queued"));
            let sending = value(&seen, "tidings_queue_deliveries", &marketing("sending"));
            let oldest = value(&seen, "tidings_queue_oldest_seconds", &[("class", "marketing")]);
            let waits = (reachable, queued, sending) == (Some(0.0), Some(left), Some(0.0));
            (waits && oldest > Some(0.0)).then_some(())
        })
        .await;
        let ready = process.api.page("/readyz").await.is(200).json();
        assert_eq!((&ready["ready"], &ready["relay"]), (&json!(true), &json!("unreachable")), "{ready}");
        let body = json!({ "email": "p0@people.example.com", "scope": "all", "channel": "phone" });
        assert_eq!(process.api.post("/opt-outs", body).await.ok()["settled"], true);
        let path = format!("/campaigns/{campaign}/deliveries?state=queued&limit=100");
        let waiting = process.api.get(&path).await.ok()["items"].as_array().unwrap().clone();
        assert!(waiting.len() >= PEOPLE - BEFORE - 1, "{}", waiting.len());
        for one in &waiting {
            assert_eq!(one["attempts"], json!([]), "nothing was tried");
        }

        relay.come_back().await;
        let done = tidings.finished(&campaign).await;
        let sent = done["counts"]["sent"].as_u64().unwrap() + done["counts"]["suppressed"].as_u64().unwrap();
        assert_eq!(sent, PEOPLE as u64, "{done}");
        assert_eq!(relay.count() as u64, done["counts"]["sent"].as_u64().unwrap(), "nobody twice");
        let seen = scrape(&process.api).await;
        assert_eq!(value(&seen, "tidings_relay_reachable", &[]), Some(1.0));
        assert_eq!(value(&seen, "tidings_hand_overs_total", &[("outcome", "not_sent")]), None);
        tidings.stop().await;
    }
}
