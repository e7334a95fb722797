//! Stopping: what is in flight is finished, the rest is given back, and a second signal ends at once. Over real processes.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Act, Answer, Database, Gate, Process, SmtpServer, Stage, eventually, wait_until};
use crate::promises::make_ready;

const ADA: &str = "ada@example.org";

async fn start(database: &Database, smtp: &SmtpServer, arguments: &[&str]) -> Process {
    let url = smtp.url();
    let env = [
        ("TIDINGS_RELAY_URL", url.as_str()),
        ("TIDINGS_WORKER_CONNECTIONS", "1"),
        ("TIDINGS_LEASE_SECONDS", "60"),
    ];
    Process::serve(database, arguments, &env).await
}

async fn send(process: &Process, topic: &str, email: &str) -> String {
    let message = json!({ "brand": "acme", "topic": topic, "to": { "email": email }, "template": "hello" });
    process.api.post("/messages", message).await.id()
}

/// Waits until a process has said this.
async fn until_said(process: &Process, words: &str) {
    wait_until(&format!("a process that says {words:?}"), async || process.logs().contains(words)).await;
}

/// Waits until an opt-out of Ada's is recorded, answered or not.
async fn until_recorded(process: &Process) {
    wait_until("an opt-out that is recorded", async || {
        let said = process.api.get(&format!("/opt-outs?email={ADA}")).await.ok();
        !said["items"].as_array().unwrap().is_empty()
    })
    .await;
}

/// How many deliveries and requests the first line with these words names.
fn named(process: &Process, words: &str) -> (Value, Value) {
    let said = process.logs();
    let line = said.lines().find(|line| line.contains(words)).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    (line["deliveries"].clone(), line["requests"].clone())
}

async fn state(process: &Process, message: &str) -> Value {
    process.api.get(&format!("/messages/{message}")).await.ok()["state"].clone()
}

on_both! {
    async fn a_signal_lets_the_relay_finish_at_every_stage_and_gives_back_the_rest(database: Database) {
        let smtp = SmtpServer::start().await;
        for stage in [Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Body, Stage::FinalDot] {
            let before = smtp.count();
            let mut process = start(&database, &smtp, &[]).await;
            make_ready(&process.api).await;
            let gate = Gate::new();
            smtp.on(stage, Act::Stall(gate.clone())).once();
            let mut ids = Vec::new();
            for _ in 0..4 {
                ids.push(send(&process, "alerts", ADA).await);
            }
            gate.reached().await;
            process.signal("TERM");
            until_said(&process, "stopping: ").await;
            assert_eq!(named(&process, "stopping: "), (json!(1), json!(0)), "{stage:?}");
            // It takes nothing new, and says so to whoever looks.
            let ready = process.api.page("/readyz").await;
            assert_eq!((ready.is(503).json()["stopping"].clone(), ready.header("connection")), (json!(true), "close"));
            process.api.page("/healthz").await.is(200);
            let refused = process.api.get("/brands").await;
            assert_eq!(refused.problem(503)["title"], "This process is stopping");
            assert_eq!(refused.header("retry-after"), "1");
            let click = process.api.one_click("/u/whatever").await;
            click.is(503);
            assert!(process.ended().is_none(), "{stage:?}: it waits for the relay");
            gate.open();
            assert!(process.end().await.success(), "{stage:?}");
            assert_eq!(smtp.open_connections(), 0, "{stage:?}");
            assert!(smtp.count() > before, "{stage:?}: what was begun was finished");
            // Nothing is left under a lease of a minute: the next process has it at once.
            let mut next = start(&database, &smtp, &[]).await;
            for id in &ids {
                wait_until("a message that is sent", async || state(&next, id).await == "sent").await;
            }
            assert_eq!(smtp.count(), before + ids.len(), "{stage:?}: each once");
            assert!(next.terminate().await.success());
        }
    }

    async fn an_opt_out_that_waits_is_answered_though_its_process_stops(database: Database) {
        let smtp = SmtpServer::start().await;
        let mut process = start(&database, &smtp, &[]).await;
        make_ready(&process.api).await;
        let gate = Gate::new();
        smtp.on(Stage::FinalDot, Act::Stall(gate.clone())).once();
        let begun = send(&process, "offers", ADA).await;
        gate.reached().await;
        let body = json!({ "email": ADA, "scope": "all", "channel": "phone" });
        let opt_out = process.api.call(Method::POST, "/opt-outs").json(&body);
        let answer = tokio::spawn(Answer::of(opt_out));
        until_recorded(&process).await;
        process.signal("TERM");
        until_said(&process, "stopping: ").await;
        assert_eq!(named(&process, "stopping: "), (json!(1), json!(1)));
        gate.open();
        let answer = answer.await.unwrap();
        assert_eq!(answer.is(201).json()["settled"], true, "{answer:?}");
        assert!(process.end().await.success());
        let mut next = start(&database, &smtp, &[]).await;
        assert_eq!(state(&next, &begun).await, "sent");
        assert!(next.terminate().await.success());
    }

    async fn an_opt_out_whose_wait_is_cut_off_is_answered_before_its_process_ends(database: Database) {
        let smtp = SmtpServer::start().await;
        let url = smtp.url();
        let env = [("TIDINGS_RELAY_URL", url.as_str()), ("TIDINGS_OPT_OUT_WAIT", "2")];
        let mut process = Process::serve(&database, &[], &env).await;
        make_ready(&process.api).await;
        let gate = Gate::new();
        smtp.on(Stage::FinalDot, Act::Stall(gate.clone())).once();
        let begun = send(&process, "offers", ADA).await;
        gate.reached().await;
        let body = json!({ "email": ADA, "scope": "all", "channel": "phone" });
        let answer = tokio::spawn(Answer::of(process.api.call(Method::POST, "/opt-outs").json(&body)));
        until_recorded(&process).await;
        process.signal("TERM");
        let answer = answer.await.unwrap();
        assert_eq!(answer.is(201).json()["settled"], false, "{answer:?}");
        assert_eq!(answer.json()["in_flight"][0]["delivery"], begun, "{answer:?}");
        // Its delivery is still waited for, and said to be.
        until_said(&process, "stopping: still waiting").await;
        assert_eq!(named(&process, "stopping: still waiting"), (json!(1), json!(0)));
        gate.open();
        assert!(process.end().await.success());
        assert_eq!(smtp.count(), 1);
    }

    async fn a_second_signal_ends_at_once_and_what_was_in_flight_counts_as_after_a_crash(database: Database) {
        let smtp = SmtpServer::start().await;
        let url = smtp.url();
        let env = [("TIDINGS_RELAY_URL", url.as_str()), ("TIDINGS_LEASE_SECONDS", "2")];
        let gate = Gate::new();
        smtp.on(Stage::FinalDot, Act::Stall(gate.clone())).times(2);
        for (n, (topic, second)) in [("offers", "TERM"), ("alerts", "INT")].into_iter().enumerate() {
            let mut process = Process::serve(&database, &[], &env).await;
            make_ready(&process.api).await;
            let message = send(&process, topic, ADA).await;
            gate.reached_by(n + 1).await;
            process.signal("TERM");
            until_said(&process, "a second signal ends at once").await;
            let signalled = Instant::now();
            process.signal(second);
            process.end().await;
            assert!(signalled.elapsed() < Duration::from_secs(3), "{:?}", signalled.elapsed());
            until_said(&process, "ended at once").await;
            let mut next = Process::serve(&database, &[], &env).await;
            let ended = eventually("a message whose lease ended", async || {
                let state = state(&next, &message).await;
                (state != "sending" && state != "queued").then_some(state)
            })
            .await;
            let expected = if topic == "offers" { "unknown" } else { "sent" };
            assert_eq!(ended, expected, "{topic}");
            assert!(next.terminate().await.success());
        }
        gate.open();
    }

    async fn a_process_that_is_stopped_before_it_has_started_ends(database: Database) {
        // It waits for a relay that says nothing.
        let smtp = SmtpServer::start().await;
        smtp.on(Stage::Greeting, Act::Silence);
        let folder = tempfile::tempdir().unwrap();
        let mut command = crate::harness::program();
        command.args(["serve"]).current_dir(folder.path());
        command.env("TIDINGS_LISTEN", "127.0.0.1:0").env("TIDINGS_DATABASE_URL", database.url());
        command.env("TIDINGS_LINK_KEYS", crate::harness::LINK_KEYS).env("TIDINGS_RELAY_URL", smtp.url());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut process = command.spawn().unwrap();
        wait_until("a process that waits for its relay", async || smtp.open_connections() == 1).await;
        let asked = Instant::now();
        crate::harness::send_signal("TERM", process.id());
        let ended = eventually("a process that ends", async || process.try_wait().unwrap()).await;
        assert!(ended.success(), "{ended}");
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }
}
