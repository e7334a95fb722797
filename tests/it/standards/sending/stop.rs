//! T16: a stop, or a death, in the midst of a campaign loses nothing, and doubles nothing but what it names.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Api, PostgresServer, Process, SmtpServer, eventually_within, wait_until};
use crate::promises::make_ready;

const PEOPLE: usize = 1_500;
const CONNECTIONS: usize = 8;
const DATABASE: &str = "stopped";
/// How long a campaign may take here.
const PATIENCE: Duration = Duration::from_secs(120);

async fn worker(url: &str, relay: &SmtpServer) -> Process {
    let (relay, connections) = (relay.url(), CONNECTIONS.to_string());
    let env = [
        ("TIDINGS_RELAY_URL", relay.as_str()),
        ("TIDINGS_WORKER_CONNECTIONS", connections.as_str()),
        ("TIDINGS_LEASE_SECONDS", "5"),
    ];
    Process::serve_on(url, &["--only", "worker"], &env).await
}

/// A campaign of this topic to everyone, started.
async fn start(api: &Api, topic: &str) -> String {
    let body = json!({ "brand": "acme", "topic": topic, "template": "hello", "audience": { "all": true } });
    let id = api.post("/campaigns", body).await.id();
    api.post_empty(&format!("/campaigns/{id}/start")).await.ok();
    id
}

async fn finished(api: &Api, postgres: &PostgresServer, id: &str) -> Value {
    eventually_within(PATIENCE, "a campaign that is finished", async || {
        postgres.hurry(DATABASE).await;
        let campaign = api.get(&format!("/campaigns/{id}")).await.ok();
        (campaign["state"] == "finished").then_some(campaign)
    })
    .await
}

/// Attempts of this campaign of which nobody knows what became.
async fn unknown(api: &Api, id: &str) -> usize {
    let (mut count, mut after) = (0, String::new());
    loop {
        let page = api.get(&format!("/campaigns/{id}/deliveries?limit=500{after}")).await.ok();
        for delivery in page["items"].as_array().unwrap() {
            let attempts = delivery["attempts"].as_array().unwrap();
            count += attempts.iter().filter(|attempt| attempt["outcome"] == "unknown").count();
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return count,
        }
    }
}

/// How many messages each person got since the relay had taken `before`.
fn letters(relay: &SmtpServer, before: usize) -> BTreeMap<String, usize> {
    let mut letters = BTreeMap::new();
    for message in &relay.messages()[before..] {
        *letters.entry(message.recipient().to_owned()).or_default() += 1;
    }
    letters
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t16_a_stop_or_a_kill_in_the_midst_of_a_campaign_loses_nothing_and_doubles_only_what_it_lists_as_unknown()
 {
    let postgres = PostgresServer::start().await;
    let url = postgres.empty_database(DATABASE).await;
    let relay = SmtpServer::start().await;
    let mut web = Process::serve_on(&url, &["--only", "web"], &[("TIDINGS_RELAY_URL", &relay.url())]).await;
    let api = web.api.clone();
    make_ready(&api).await;
    let lines: String = (0..PEOPLE).map(|n| format!("p{n}@people.example.com,Person {n}\n")).collect();
    api.post_text("/recipients/import", "text/csv", format!("email,name\n{lines}")).await.ok();
    let mut staying = worker(&url, &relay).await;
    for (topic, kill) in [("alerts", false), ("alerts", true), ("offers", true)] {
        let before = relay.count();
        let mut leaving = worker(&url, &relay).await;
        let id = start(&api, topic).await;
        wait_until("the midst of a campaign", async || relay.count() >= before + PEOPLE / 5).await;
        if kill {
            leaving.kill();
        } else {
            assert!(leaving.terminate().await.success());
        }
        let campaign = finished(&api, &postgres, &id).await;
        let (unknown, counts) = (unknown(&api, &id).await, &campaign["counts"]);
        let at_most = if kill { 2 * CONNECTIONS } else { 0 };
        assert!(unknown <= at_most, "{unknown} unknown after {topic}, killed: {kill}");
        let letters = letters(&relay, before);
        let doubled = letters.values().filter(|count| **count > 1).count();
        assert!(letters.values().all(|count| *count <= 2), "{letters:?}");
        if topic == "alerts" {
            // The service side: everybody at least once.
            assert_eq!((letters.len(), &counts["sent"]), (PEOPLE, &json!(PEOPLE)), "{campaign}");
            assert!(doubled <= unknown, "{doubled} doubled, {unknown} listed as unknown");
        } else {
            // What can be refused: nobody twice, and whoever may have got nothing is counted.
            assert_eq!((doubled, &counts["unknown"]), (0, &json!(unknown)), "{campaign}");
            assert_eq!(counts["sent"].as_u64().unwrap() as usize + unknown, PEOPLE, "{campaign}");
            assert!(letters.len() >= PEOPLE - unknown, "{} of {PEOPLE}", letters.len());
        }
    }
    for process in [&mut staying, &mut web] {
        assert!(process.terminate().await.success());
    }
}
