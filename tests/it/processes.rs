//! Several processes on one PostgreSQL: started and stopped at will, with nothing to elect and nothing to clean up; and a
//! PostgreSQL that goes away for a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{
    Act, Answer, Api, Database, Gate, Mood, Options, PostgresServer, Process, SmtpServer, Stage, eventually,
    eventually_within, wait_until,
};
use crate::promises::make_ready;

const PEOPLE: usize = 200;
const ADA: &str = "ada@example.org";

fn address(person: usize) -> String {
    format!("p{person}@people.example.com")
}

/// A relay that takes its time, so that a campaign lasts.
async fn slow_relay() -> SmtpServer {
    let mood: Mood =
        Arc::new(|stage, _| (stage == Stage::FinalDot).then_some(Act::Late(Duration::from_millis(100))));
    SmtpServer::with(Options { mood: Some(mood), ..Options::default() }).await
}

async fn serve(url: &str, only: &str, relay: &SmtpServer) -> Process {
    let relay = relay.url();
    let env = [("TIDINGS_RELAY_URL", relay.as_str()), ("TIDINGS_WORKER_CONNECTIONS", "2")];
    Process::serve_on(url, &["--only", only], &env).await
}

async fn people(api: &Api) {
    let lines: String = (0..PEOPLE).map(|n| format!("{},Person {n}\n", address(n))).collect();
    api.post_text("/recipients/import", "text/csv", format!("email,name\n{lines}")).await.ok();
}

/// A campaign to everyone that runs; gives its id.
async fn campaign(api: &Api, topic: &str) -> String {
    let body = json!({ "brand": "acme", "topic": topic, "template": "hello", "audience": { "all": true } });
    let id = api.post("/campaigns", body).await.id();
    api.post_empty(&format!("/campaigns/{id}/start")).await.ok();
    id
}

/// The campaign once it is finished, however slow the machine.
async fn finished(api: &Api, id: &str) -> Value {
    eventually_within(Duration::from_secs(90), "a campaign that is finished", async || {
        let campaign = api.get(&format!("/campaigns/{id}")).await.ok();
        (campaign["state"] == "finished").then_some(campaign)
    })
    .await
}

/// How many messages each address got.
fn letters(relay: &SmtpServer) -> BTreeMap<String, usize> {
    let mut letters = BTreeMap::new();
    for message in relay.messages() {
        *letters.entry(message.recipient().to_owned()).or_default() += 1;
    }
    letters
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webs_and_workers_migrate_side_by_side_share_a_campaign_and_come_and_go_in_its_midst() {
    let postgres = PostgresServer::start().await;
    let url = postgres.empty_database("shared").await;
    let relay = slow_relay().await;
    let kinds = ["web", "web", "worker", "worker", "worker"];
    let mut processes = join_all(kinds.iter().map(|only| serve(&url, only, &relay))).await;
    let mut workers = processes.split_off(2);
    let webs: Vec<Api> = processes.iter().map(|web| web.api.clone()).collect();
    make_ready(&webs[0]).await;
    people(&webs[1]).await;
    let id = campaign(&webs[0], "offers").await;
    // Each worker in turn ends in the midst of it, and another one comes.
    for worker in &mut workers {
        let before = relay.count();
        wait_until("messages on their way", async || relay.count() >= before + 15).await;
        assert!(worker.terminate().await.success());
        *worker = serve(&url, "worker", &relay).await;
    }
    assert!(processes[0].terminate().await.success());
    let campaign = finished(&webs[1], &id).await;
    assert_eq!(campaign["counts"]["sent"], PEOPLE, "{campaign}");
    let letters = letters(&relay);
    assert_eq!(letters.len(), PEOPLE);
    assert!(letters.values().all(|count| *count == 1), "{letters:?}");
    // Each of them had its part.
    let relay_saw =
        (0..relay.connections()).filter(|n| relay.lines(*n).iter().any(|line| line == "DATA")).count();
    assert!(relay_saw >= 6, "{relay_saw} connections carried messages");
    // An opt-out at one web process counts for what the other one sends.
    let other = &processes[1].api;
    let said = json!({ "email": address(0), "scope": "all", "channel": "phone" });
    other.post("/opt-outs", said).await.is(201);
    let web = serve(&url, "web", &relay).await;
    let message =
        json!({ "brand": "acme", "topic": "offers", "to": { "email": address(0) }, "template": "hello" });
    let id = web.api.post("/messages", message).await.id();
    wait_until("a message that is left out", async || {
        other.get(&format!("/messages/{id}")).await.ok()["state"] == "suppressed"
    })
    .await;
    processes.remove(0);
    processes.extend(workers);
    processes.push(web);
    for ended in join_all(processes.iter_mut().map(Process::terminate)).await {
        assert!(ended.success(), "{ended}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgresql_is_away_nothing_counts_as_done_and_when_it_is_back_everything_goes_on() {
    let mut postgres = PostgresServer::start().await;
    let url = postgres.empty_database("away").await;
    let relay = slow_relay().await;
    let (mut web, mut worker) =
        futures_util::future::join(serve(&url, "web", &relay), serve(&url, "worker", &relay)).await;
    let api = web.api.clone();
    make_ready(&api).await;
    people(&api).await;
    let id = campaign(&api, "offers").await;
    wait_until("messages on their way", async || relay.count() >= 20).await;
    postgres.crash().await;

    let refuser = address(PEOPLE - 1);
    let said = json!({ "email": refuser, "scope": "all", "channel": "phone" });
    let refused = Answer::of(api.call(reqwest::Method::POST, "/opt-outs").json(&said)).await;
    assert!(!refused.problem(503)["title"].as_str().unwrap().is_empty());
    api.page("/readyz").await.is(503);
    // What is open at the relay meanwhile is settled later.
    wait_until("nothing open at the relay", async || relay.open_transactions().is_empty()).await;

    postgres.start_again().await;
    let taken = eventually("an opt-out that is taken", async || {
        let answer = Answer::of(api.call(reqwest::Method::POST, "/opt-outs").json(&said)).await;
        (answer.status.as_u16() != 503).then_some(answer)
    })
    .await;
    assert!(taken.json()["id"].is_string(), "{taken:?}");
    let before = relay.messages_to(&refuser).len();
    // What could not be begun meanwhile would wait for a minute.
    let campaign = eventually_within(Duration::from_secs(90), "a campaign that is finished", async || {
        postgres.hurry("away").await;
        let campaign = api.get(&format!("/campaigns/{id}")).await.ok();
        (campaign["state"] == "finished").then_some(campaign)
    })
    .await;
    let counts = &campaign["counts"];
    assert_eq!(relay.messages_to(&refuser).len(), before, "{campaign}");
    assert_eq!((&counts["sent"], &counts["unknown"]), (&json!(relay.count()), &json!(0)), "{campaign}");
    assert_eq!(
        counts["sent"].as_u64().unwrap() + counts["suppressed"].as_u64().unwrap(),
        PEOPLE as u64,
        "{campaign}"
    );
    assert!(counts["suppressed"].as_u64().unwrap() <= 1, "{campaign}");
    assert!(letters(&relay).values().all(|count| *count == 1), "each once");
    for process in [&mut web, &mut worker] {
        assert!(process.terminate().await.success());
    }
}

on_both! {
    async fn what_a_killed_worker_held_is_decided_though_the_relay_takes_one_at_a_time(database: Database) {
        let relay = SmtpServer::start().await;
        let url = relay.url();
        let env = [
            ("TIDINGS_RELAY_URL", url.as_str()),
            ("TIDINGS_WORKER_CONNECTIONS", "1"),
            ("TIDINGS_LEASE_SECONDS", "3"),
            ("TIDINGS_RELAY_SILENCE", "8"),
        ];
        // It asks for rest, and after that one message at a time is under way: the one with which the worker dies.
        relay.on(Stage::Mail, Act::reply_and_hang_up(421, "4.3.2 too busy")).once();
        let gate = Gate::new();
        relay.on(Stage::FinalDot, Act::Stall(gate.clone())).once();
        let mut process = Process::serve(&database, &[], &env).await;
        make_ready(&process.api).await;
        let mut messages = Vec::new();
        for person in 0..4 {
            let body = json!({ "brand": "acme", "topic": "alerts", "to": { "email": address(person) }, "template": "hello" });
            messages.push(process.api.post("/messages", body).await.id());
        }
        gate.reached().await;
        process.kill();
        gate.open();
        let mut process = Process::serve(&database, &[], &env).await;
        // The one that was told to come again has to wait for longer.
        wait_until("all others to be sent", async || {
            let states = messages.iter().map(async |id| {
                process.api.get(&format!("/messages/{id}")).await.ok()["state"].clone()
            });
            join_all(states).await.iter().filter(|state| *state == "sent").count() == messages.len() - 1
        })
        .await;
        assert!(process.terminate().await.success());
    }

    async fn a_worker_that_slept_beyond_its_lease_writes_no_body_and_is_named_until_the_relay_must_have_hung_up(database: Database) {
        let relay = SmtpServer::start().await;
        let url = relay.url();
        let env = |name: &'static str| [
            ("TIDINGS_RELAY_URL", url.as_str()),
            ("TIDINGS_HELO_NAME", name),
            ("TIDINGS_LEASE_SECONDS", "3"),
            ("TIDINGS_RELAY_SILENCE", "8"),
            ("TIDINGS_OPT_OUT_WAIT", "0"),
        ];
        let mut web = Process::serve(&database, &["--only", "web"], &env("web.test")).await;
        let api = web.api.clone();
        make_ready(&api).await;
        let mut sleeper = Process::serve(&database, &["--only", "worker"], &env("sleeper.test")).await;
        let gate = Gate::new();
        relay.on(Stage::Data, Act::Stall(gate.clone())).once();
        let message = json!({ "brand": "acme", "topic": "offers", "to": { "email": ADA }, "template": "hello" });
        let message = api.post("/messages", message).await.id();
        gate.reached().await;
        sleeper.signal("STOP");
        let said = json!({ "email": ADA, "scope": "all", "channel": "phone" });
        let refuse = async || {
            let answer = api.post("/opt-outs", said.clone()).await.ok();
            (answer["settled"].clone(), answer["in_flight"][0]["state"].clone())
        };
        assert_eq!(refuse().await, (json!(false), json!("sending")));
        let mut other = Process::serve(&database, &["--only", "worker"], &env("other.test")).await;
        wait_until("a lease that ended", async || {
            api.get(&format!("/messages/{message}")).await.ok()["state"] == "unknown"
        })
        .await;
        assert_eq!(refuse().await, (json!(false), json!("in_doubt")));
        // It wakes and finds the relay's 354 waiting for it.
        gate.open();
        sleeper.signal("CONT");
        wait_until("a sleeper that hangs up", async || relay.open_transactions().is_empty()).await;
        wait_until("the end of the doubt", async || refuse().await.0 == true).await;
        assert_eq!(relay.count(), 0, "no body was written");
        assert_eq!(api.get(&format!("/messages/{message}")).await.ok()["state"], "unknown");
        for process in [&mut sleeper, &mut other, &mut web] {
            assert!(process.terminate().await.success());
        }
    }
}
