//! T9 and T10: destinations that ask for patience get it, and limits hold.

use std::time::Duration;

use serde_json::{Value, json};
use tidings::config::{LimitEntry, Limited, Timeouts};
use tidings::serve::Parts;

use crate::harness::{Act, Database, Gate, Options, SmtpServer, Stage, Tidings, Transaction, wait_until};

const MINUTE: Duration = Duration::from_secs(60);
const GMAIL: &str = "gmail.example.com";

fn at_gmail(transactions: &[Transaction]) -> usize {
    let ending = format!("@{GMAIL}");
    transactions.iter().filter(|one| one.to.iter().any(|to| to.ends_with(&ending))).count()
}

async fn message(tidings: &Tidings, id: &str) -> Value {
    tidings.get(&format!("/messages/{id}")).await.ok()
}

/// Sends a message elsewhere and waits until it is sent: whatever else could go would have gone before it is.
async fn another_one_goes(tidings: &Tidings, to: &str) {
    let other = tidings.message("acme", "service", to).await;
    assert_eq!(tidings.settled(&other).await["state"], "sent");
}

fn entry(limited: Limited, connections: u32) -> LimitEntry {
    LimitEntry { limited, rate: None, connections: Some(connections), warm_up: None }
}

/// How many messages were with the relay at once, from MAIL to the final dot, at most.
fn at_once(transactions: &[Transaction]) -> usize {
    let spans: Vec<_> =
        transactions.iter().filter_map(|one| one.dot_at.map(|dot| (one.mail_at, dot))).collect();
    let under_way = |moment| spans.iter().filter(|(from, to)| *from <= moment && moment < *to).count();
    spans.iter().map(|(from, _)| under_way(*from)).max().unwrap_or(0)
}

on_both! {
    async fn t9_a_destination_that_asks_for_it_rests_ten_minutes_and_then_gets_one_message_at_a_time(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        let words = "4.7.28 Gmail has detected an unusual rate of mail";
        tidings.smtp.on(Stage::Rcpt, Act::reply_and_hang_up(421, words)).once();
        let first = tidings.message("acme", "service", &format!("p0@{GMAIL}")).await;
        wait_until("its first attempt", async || {
            message(&tidings, &first).await["attempts"].as_array().unwrap().len() == 1
        })
        .await;
        let mut messages = vec![first];
        for n in 1..12 {
            messages.push(tidings.message("acme", "service", &format!("p{n}@{GMAIL}")).await);
        }
        another_one_goes(&tidings, "a@elsewhere.example.com").await;
        tidings.advance(9 * MINUTE);
        another_one_goes(&tidings, "b@elsewhere.example.com").await;
        assert_eq!(at_gmail(&tidings.smtp.transactions()), 1);
        let gate = Gate::new();
        tidings.smtp.on(Stage::FinalDot, Act::Stall(gate.clone())).once();
        // Long enough whenever before that it was heard.
        tidings.advance(11 * MINUTE);
        gate.reached().await;
        another_one_goes(&tidings, "c@elsewhere.example.com").await;
        assert_eq!(at_gmail(&tidings.smtp.transactions()), 2, "one message at a time");
        gate.open();
        for id in &messages {
            assert_eq!(tidings.settled(id).await["state"], "sent");
        }
        // Waiting is no attempt.
        let mut attempts = Vec::new();
        for id in &messages {
            attempts.push(message(&tidings, id).await["attempts"].as_array().unwrap().len());
        }
        assert_eq!(attempts, [vec![2], vec![1; 11]].concat());
        tidings.stop().await;
    }

    async fn t9_a_burst_of_421_and_451_without_a_success_means_the_same(database: Database) {
        let tidings = Tidings::start_with(database, |settings| settings.worker_connections = 1).await;
        tidings.ready_to_send().await;
        tidings.smtp.on(Stage::FinalDot, Act::reply(451, "4.3.0 try later")).times(5);
        let mut messages = Vec::new();
        for n in 0..5 {
            messages.push(tidings.message("acme", "service", &format!("p{n}@{GMAIL}")).await);
        }
        for id in &messages {
            wait_until("its first attempt", async || {
                message(&tidings, id).await["attempts"].as_array().unwrap().len() == 1
            })
            .await;
        }
        // Their own next attempts would come now, but all of the destination rests.
        tidings.advance(2 * MINUTE);
        another_one_goes(&tidings, "a@elsewhere.example.com").await;
        another_one_goes(&tidings, "b@elsewhere.example.com").await;
        assert_eq!(at_gmail(&tidings.smtp.transactions()), 5);
        tidings.advance(11 * MINUTE);
        for id in &messages {
            assert_eq!(tidings.settled(id).await["state"], "sent");
        }
        tidings.stop().await;
    }

    async fn t9_a_relay_that_says_421_or_454_is_slowed_down_to_and_nothing_is_lost(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.smtp.on(Stage::Mail, Act::reply_and_hang_up(421, "4.3.2 too busy")).times(3);
        tidings.smtp.on(Stage::Mail, Act::reply(454, "4.7.0 not now")).times(3);
        tidings.recipients(40).await;
        let id = tidings.draft("acme", "marketing").await;
        tidings.post_empty(&format!("/campaigns/{id}/start")).await.ok();
        wait_until("all to be sent", async || {
            let counts = tidings.get(&format!("/campaigns/{id}")).await.ok()["counts"].clone();
            // Only while nobody holds anything: no lease is to end under the hands of a worker.
            if counts["sending"] == 0 {
                tidings.advance(Duration::from_secs(20));
            }
            counts["sent"] == 40
        })
        .await;
        let mut people: Vec<String> =
            tidings.smtp.messages().iter().map(|mail| mail.recipient().to_owned()).collect();
        people.sort();
        people.dedup();
        assert_eq!((people.len(), tidings.smtp.count()), (40, 40));
        tidings.stop().await;
    }

    async fn t10_no_more_messages_of_a_domain_are_under_way_at_once_than_set_over_two_workers(database: Database) {
        let tidings = Tidings::start_with(database, |settings| {
            settings.limits = vec![entry(Limited::Domains(vec!["people.example.com".into()]), 3)];
        })
        .await;
        let other = tidings.another(Parts { web: false, ..Parts::default() }).await;
        tidings.ready_to_send().await;
        tidings.recipients(60).await;
        let done = tidings.send_to_all("acme", "marketing").await;
        assert_eq!(done["counts"]["sent"], json!(60));
        let under_way = at_once(&tidings.smtp.transactions());
        assert!((1..=3).contains(&under_way), "{under_way}");
        other.stop().await;
        tidings.stop().await;
    }

    async fn t10_no_more_connections_are_open_than_set_over_two_workers(database: Database) {
        let tidings = Tidings::start_with(database, |settings| {
            settings.relay_timeouts = Timeouts::each(MINUTE);
            settings.limits = vec![entry(Limited::Relay, 3)];
        })
        .await;
        let other = tidings.another(Parts { web: false, ..Parts::default() }).await;
        tidings.ready_to_send().await;
        tidings.recipients(60).await;
        let gate = Gate::new();
        tidings.smtp.on(Stage::FinalDot, Act::Stall(gate.clone())).times(60);
        let id = tidings.draft("acme", "marketing").await;
        tidings.post_empty(&format!("/campaigns/{id}/start")).await.ok();
        gate.reached_by(3).await;
        another_look(&tidings).await;
        assert_eq!((gate.count(), tidings.smtp.open_connections()), (3, 3));
        gate.open();
        let mut most = 0;
        wait_until("all to be sent", async || {
            most = most.max(tidings.smtp.open_connections());
            tidings.get(&format!("/campaigns/{id}")).await.ok()["counts"]["sent"] == 60
        })
        .await;
        assert!(most <= 3 && at_once(&tidings.smtp.transactions()) <= 3, "{most}");
        other.stop().await;
        tidings.stop().await;
    }

    async fn t10_a_relay_that_closes_after_twenty_messages_loses_none_and_fails_none(database: Database) {
        let closing = Options { close_after: Some(20), ..Options::default() };
        let smtp = SmtpServer::with(closing).await;
        let tidings = Tidings::start_with(database, |settings| {
            settings.worker_connections = 2;
            settings.relay_url = smtp.url().into();
        })
        .await;
        tidings.ready_to_send().await;
        tidings.recipients(150).await;
        let done = tidings.send_to_all("acme", "marketing").await;
        assert_eq!((&done["counts"]["sent"], &done["counts"]["failed"]), (&json!(150), &json!(0)), "{done}");
        assert_eq!(smtp.count(), 150);
        assert!(smtp.connections() >= 150 / 20, "{}", smtp.connections());
        tidings.stop().await;
    }
}

/// Waits until a worker has looked at the queue again: it holds what came just now and would go first.
async fn another_look(tidings: &Tidings) {
    let late = tidings.message("acme", "service", "late@people.example.com").await;
    wait_until("what came late to be claimed", async || message(tidings, &late).await["state"] == "sending")
        .await;
}
