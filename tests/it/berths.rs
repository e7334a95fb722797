//! The relay's connections are limited over all worker processes: whoever may have one sends, and nothing waits with whoever
//! may have none.

use std::time::Duration;

use serde_json::Value;
use tidings::config::{LimitEntry, Limited, Settings, Timeouts};
use tidings::delivery::rows::limits::{Share, leave, share};
use tidings::serve::Parts;
use uuid::Uuid;

use crate::harness::{Act, Database, Gate, Stage, Tidings, wait_until};

const LONG: Duration = Duration::from_secs(3600);

/// All workers may have one connection to a relay that may be slow.
fn one_connection(settings: &mut Settings) {
    settings.relay_timeouts = Timeouts::each(Duration::from_secs(60));
    let entry = LimitEntry { limited: Limited::Relay, rate: None, connections: Some(1), warm_up: None };
    settings.limits = vec![entry];
}

/// A campaign to so many people, started.
async fn started(tidings: &Tidings, people: usize) -> String {
    tidings.ready_to_send().await;
    tidings.recipients(people).await;
    let id = tidings.draft("acme", "marketing").await;
    tidings.post_empty(&format!("/campaigns/{id}/start")).await.ok();
    id
}

async fn counts(tidings: &Tidings, campaign: &str) -> Value {
    tidings.get(&format!("/campaigns/{campaign}")).await.ok()["counts"].clone()
}

on_both! {
    async fn of_two_workers_that_may_have_one_connection_one_sends_everything(database: Database) {
        let tidings = Tidings::start_with(database, one_connection).await;
        let other = tidings.another(Parts { web: false, ..Parts::default() }).await;
        let campaign = started(&tidings, 60).await;
        assert_eq!(tidings.finished(&campaign).await["counts"]["sent"], 60);
        // Whichever looks first takes these.
        for n in 0..20 {
            let id = tidings.message("acme", "service", &format!("s{n}@people.example.com")).await;
            assert_eq!(tidings.settled(&id).await["state"], "sent");
        }
        other.stop().await;
        tidings.stop().await;
    }

    async fn what_waits_for_a_connection_is_given_back_when_another_worker_has_them_all(database: Database) {
        let tidings = Tidings::start_with(database, one_connection).await;
        let gate = Gate::new();
        tidings.smtp.on(Stage::FinalDot, Act::Stall(gate.clone())).once();
        let campaign = started(&tidings, 60).await;
        gate.reached().await;
        wait_until("more to be claimed than is begun", async || {
            counts(&tidings, &campaign).await["sending"].as_i64().unwrap() > 20
        })
        .await;
        // Another one has come, before whom this one's share goes.
        let first = Uuid::from_u128(1);
        let ask = async || {
            let mine = Share { process: first, open: 0, wanted: 16, lease: LONG };
            share(&tidings.app().db, 1, mine).await.unwrap()
        };
        assert_eq!(ask().await, 0, "the one connection is open");
        wait_until("what waits to be given back", async || {
            counts(&tidings, &campaign).await["sending"].as_i64().unwrap() < 10
        })
        .await;
        gate.open();
        wait_until("the connection to be closed and the rest given back", async || {
            let counts = counts(&tidings, &campaign).await;
            ask().await == 1 && counts["sending"] == 0 && counts["queued"].as_i64().unwrap() > 50
        })
        .await;
        leave(&tidings.app().db, first).await.unwrap();
        assert_eq!(tidings.finished(&campaign).await["counts"]["sent"], 60);
        tidings.stop().await;
    }

    async fn a_worker_that_starts_greets_the_relay_over_no_connection_more_than_it_takes(database: Database) {
        let tidings = Tidings::start_with(database, one_connection).await;
        let gate = Gate::new();
        tidings.smtp.on(Stage::FinalDot, Act::Stall(gate.clone())).once();
        let campaign = started(&tidings, 5).await;
        gate.reached().await;
        let before = (tidings.smtp.connections(), tidings.smtp.open_connections());
        let other = tidings.another(Parts { web: false, ..Parts::default() }).await;
        assert_eq!((tidings.smtp.connections(), tidings.smtp.open_connections()), before);
        assert_eq!(before, (2, 1), "the first one's greeting, and its message");
        gate.open();
        tidings.finished(&campaign).await;
        other.stop().await;
        tidings.stop().await;
    }
}
