//! T2, T3, T4, T10: what becomes of a message when the relay does not simply take it.

use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};
use tidings::config::{Settings, Timeouts};

use crate::harness::{Act, Database, Options, SmtpServer, Stage, Tidings, wait_until};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Tidings that gives a relay on a busy machine all the time it needs.
async fn start(database: Database) -> Tidings {
    let patient = |settings: &mut Settings| settings.relay_timeouts = Timeouts::each(DAY);
    Tidings::start_with(database, patient).await
}

async fn attempts(tidings: &Tidings, message: &str) -> Vec<Value> {
    tidings.get(&format!("/messages/{message}")).await.ok()["attempts"].as_array().unwrap().clone()
}

/// Waits until the delivery waits for its next attempt after so many.
async fn wait_attempts(tidings: &Tidings, message: &str, count: usize) {
    wait_until(&format!("{count} attempts"), async || {
        let view = tidings.get(&format!("/messages/{message}")).await.ok();
        view["state"] == "queued" && view["attempts"].as_array().unwrap().len() == count
    })
    .await;
}

/// Waits until whatever is due was looked at: a message that was enqueued later is through.
async fn pass_by(tidings: &Tidings) {
    let other = tidings.message("acme", "service", "other@people.example.com").await;
    assert_eq!(tidings.settled(&other).await["state"], "sent");
}

on_both! {
    async fn t2_a_connection_lost_between_dot_and_reply_is_unknown_and_tried_again_by_class_alone(database: Database) {
        const PEOPLE: usize = 5;
        let tidings = start(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(PEOPLE).await;
        tidings.smtp.on(Stage::FinalDot, Act::HangUp).times(PEOPLE);
        let campaign = tidings.send_to_all("acme", "marketing").await;
        assert_eq!((&campaign["counts"]["unknown"], &campaign["counts"]["sent"]), (&json!(PEOPLE), &json!(0)));
        let service = tidings.message("acme", "service", "p0@people.example.com").await;
        assert_eq!(tidings.settled(&service).await["state"], "sent");
        let before = tidings.smtp.transactions().len();
        tidings.smtp.on(Stage::FinalDot, Act::HangUp).times(2);
        let lost = tidings.message("acme", "service", "lost@people.example.com").await;
        wait_attempts(&tidings, &lost, 1).await;
        tidings.advance(DAY / 4);
        wait_attempts(&tidings, &lost, 2).await;
        tidings.advance(DAY / 4);
        assert_eq!(tidings.settled(&lost).await["state"], "sent");
        let tried = tidings.smtp.transactions().split_off(before);
        let ids: Vec<_> = tried.iter().map(|t| t.header("Message-ID").unwrap()).collect();
        assert_eq!(ids.len(), 3, "{ids:?}");
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        tidings.advance(3 * DAY);
        pass_by(&tidings).await;
        for n in 0..PEOPLE {
            let to = format!("p{n}@people.example.com");
            let bodies = tidings.smtp.transactions().iter().filter(|t| t.to == [to.clone()] && t.answer.is_none()).count();
            assert_eq!(bodies, 1, "what can be refused was tried again");
        }
        tidings.stop().await;
    }

    async fn t3_a_5yz_is_final_and_a_4yz_or_a_lost_connection_is_tried_again_with_growing_waits_and_an_end(database: Database) {
        let tidings = start(database).await;
        tidings.ready_to_send().await;
        let stages = [Stage::Mail, Stage::Rcpt, Stage::Data, Stage::FinalDot];
        let mut refused = Vec::new();
        for stage in stages {
            tidings.smtp.on(stage, Act::reply(554, "5.7.1 no")).once();
            let message = tidings.message("acme", "service", "refused@people.example.com").await;
            assert_eq!(tidings.settled(&message).await["state"], "failed", "{stage:?}");
            refused.push(message);
        }
        for act in [Act::reply(451, "4.3.0 later"), Act::HangUp] {
            for stage in [Stage::Mail, Stage::Rcpt, Stage::Data] {
                tidings.smtp.on(stage, act.clone()).once();
                let message = tidings.message("acme", "service", "later@people.example.com").await;
                wait_until("a first attempt", async || {
                    let view = tidings.get(&format!("/messages/{message}")).await.ok();
                    view["state"] != "sending" && !view["attempts"].as_array().unwrap().is_empty()
                })
                .await;
                tidings.advance(Duration::from_secs(70));
                assert_eq!(tidings.settled(&message).await["state"], "sent", "{stage:?}");
            }
        }
        tidings.smtp.on(Stage::Rcpt, Act::reply(450, "4.2.1 later")).to("never@people.example.com");
        let message = tidings.message("acme", "service", "never@people.example.com").await;
        for (tried, minutes) in [(1, 1), (2, 5), (3, 15), (4, 60)] {
            wait_attempts(&tidings, &message, tried).await;
            tidings.advance(Duration::from_secs(60 * minutes - 20));
            pass_by(&tidings).await;
            assert_eq!(attempts(&tidings, &message).await.len(), tried, "tried too early");
            tidings.advance(Duration::from_secs(25));
        }
        wait_attempts(&tidings, &message, 5).await;
        tidings.advance(5 * DAY);
        assert_eq!(tidings.settled(&message).await["state"], "failed");
        for message in refused {
            assert_eq!(attempts(&tidings, &message).await.len(), 1, "a 5yz was tried again");
        }
        tidings.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t4_too_many_recipients_is_for_now_whichever_code_says_so() {
    let tidings = start(Database::sqlite()).await;
    tidings.ready_to_send().await;
    for (code, text) in
        [(552, "too many recipients"), (552, "5.5.3 enough"), (452, "4.5.3 too many recipients")]
    {
        tidings.smtp.on(Stage::Rcpt, Act::reply(code, text)).once();
        let message = tidings.message("acme", "marketing", "ada@people.example.com").await;
        wait_attempts(&tidings, &message, 1).await;
        tidings.advance(Duration::from_secs(70));
        assert_eq!(tidings.settled(&message).await["state"], "sent", "{code} {text}");
    }
    tidings.smtp.on(Stage::Rcpt, Act::reply(552, "5.2.2 mailbox full")).once();
    let message = tidings.message("acme", "marketing", "ada@people.example.com").await;
    assert_eq!(tidings.settled(&message).await["state"], "failed");
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t10_t13_a_relay_that_closes_between_a_body_and_the_envelope_that_rode_with_it_loses_neither() {
    const PEOPLE: usize = 70;
    for (extensions, connections) in [(vec!["PIPELINING"], 1), (vec!["PIPELINING"], 3)] {
        let options = Options { extensions, close_after: Some(20), ..Options::default() };
        let relay = SmtpServer::with(options).await;
        let url = SecretString::from(relay.url());
        let tidings = Tidings::start_with(Database::sqlite(), |settings| {
            settings.relay_url = url;
            settings.worker_connections = connections;
        })
        .await;
        tidings.ready_to_send().await;
        tidings.recipients(PEOPLE).await;
        let campaign = tidings.send_to_all("acme", "marketing").await;
        let counts = &campaign["counts"];
        assert_eq!(counts["sent"], PEOPLE, "{counts}");
        assert!(["failed", "unknown"].iter().all(|state| counts[*state] == 0), "{counts}");
        assert_eq!(relay.count(), PEOPLE, "nothing twice");
        assert!(relay.connections() >= PEOPLE / 20);
        tidings.stop().await;
    }
}
