//! T1, T8, T13: the dialogue itself.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use tidings::config::Settings;
use tidings::relay::{Outcome, Relay, Timeouts};

use crate::harness::{Act, Options, SmtpServer, Stage, Transaction};
use crate::relay::{Item, LONG, connect, message, offering};

fn timeouts(env: &[(&str, &str)]) -> Timeouts {
    let nothing = tempfile::NamedTempFile::new().unwrap();
    let env = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Settings::load(Some(nothing.path()), env.collect::<Vec<_>>(), &[]).unwrap().relay_timeouts
}

#[test]
fn t1_the_time_limits_are_at_least_those_of_rfc_5321() {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    let limits = timeouts(&[]);
    assert!(limits.greeting >= minutes(5) && limits.mail >= minutes(5) && limits.rcpt >= minutes(5));
    assert!(limits.data >= minutes(2) && limits.block >= minutes(3) && limits.final_dot >= minutes(10));
}

#[tokio::test]
async fn t1_a_relay_that_is_silent_at_a_stage_is_left_when_that_stages_limit_is_over() {
    let stages = [
        (Stage::Greeting, "TIDINGS_RELAY_GREETING_SECONDS"),
        (Stage::Ehlo, "TIDINGS_RELAY_HELLO_SECONDS"),
        (Stage::Mail, "TIDINGS_RELAY_MAIL_SECONDS"),
        (Stage::Rcpt, "TIDINGS_RELAY_RCPT_SECONDS"),
        (Stage::Data, "TIDINGS_RELAY_DATA_SECONDS"),
        (Stage::Body, "TIDINGS_RELAY_BLOCK_SECONDS"),
        (Stage::FinalDot, "TIDINGS_RELAY_FINAL_DOT_SECONDS"),
    ];
    let tried = stages.map(|(stage, name)| async move {
        let server = offering(&[]).await;
        server.on(stage, Act::Silence);
        // All other limits are minutes.
        let relay = Relay::from_url(&server.url(), "here.example", timeouts(&[(name, "1")])).unwrap();
        // Much more than sockets hold, so that a relay that does not read it stops the write.
        let lines = if stage == Stage::Body { 1_000_000 } else { 1 };
        let item = Item::with("a@b.example", &"a line of some length\r\n".repeat(lines));
        let begun = Instant::now();
        let outcome = match relay.connect().await {
            Ok(mut connection) => connection.hand_over(item.parcel(), None).await,
            Err(outcome) => outcome,
        };
        assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < LONG, "{stage:?}");
        match outcome {
            Outcome::NotSent(_, why) if stage != Stage::FinalDot => {
                assert!(why.contains("1s"), "{stage:?}: {why}")
            }
            Outcome::Unknown(_, why) if stage == Stage::FinalDot => assert!(why.contains("1s"), "{why}"),
            other => panic!("{stage:?}: {other:?}"),
        }
    });
    futures_util::future::join_all(tried).await;
}

#[tokio::test]
async fn t8_dots_arrive_as_they_were_written_one_message_each() {
    let bodies =
        [".", "..", ".\r\n.", "\r\n.\r\n", "a\r\n.\r\nb", ".a\r\n..b\r\n...c", "a.\r\n.", ".\r\n\r\n.\r\n"];
    for pipelining in [false, true] {
        let server = offering(if pipelining { &["PIPELINING"] } else { &[] }).await;
        let mut connection = connect(&server, LONG).await;
        let items: Vec<Item> =
            bodies.iter().enumerate().map(|(n, body)| Item::with(&format!("p{n}@b.example"), body)).collect();
        for (n, item) in items.iter().enumerate() {
            let outcome = connection.hand_over(item.parcel(), items.get(n + 1).map(Item::parcel)).await;
            assert!(matches!(outcome, Outcome::Sent(_)), "{outcome:?}");
        }
        let received: Vec<Transaction> = server.messages();
        assert_eq!(received.len(), bodies.len());
        for ((received, item), body) in received.iter().zip(&items).zip(bodies) {
            assert_eq!(received.data, message(item.to(), body).bytes, "{body:?}");
            assert!(received.raw.ends_with(b"\r\n.\r\n"));
        }
    }
}

#[tokio::test]
async fn t13_an_envelope_is_one_segment_and_rides_with_the_body_before_it_where_that_is_offered() {
    let items: Vec<Item> = (0..3).map(|n| Item::new(&format!("p{n}@b.example"))).collect();
    for extensions in [vec![], vec!["PIPELINING"]] {
        let offered = !extensions.is_empty();
        let server = SmtpServer::with(Options { extensions, ..Options::default() }).await;
        // The replies differ, and each is given to the message it belongs to.
        server.on(Stage::Rcpt, Act::reply(550, "5.1.1 no such user")).to(items[1].to());
        let mut connection = connect(&server, LONG).await;
        let mut outcomes = Vec::new();
        for (n, item) in items.iter().enumerate() {
            outcomes.push(connection.hand_over(item.parcel(), items.get(n + 1).map(Item::parcel)).await);
        }
        connection.quit().await;
        assert!(
            matches!(&outcomes[..], [Outcome::Sent(_), Outcome::Refused(..), Outcome::Sent(_)]),
            "{outcomes:?}"
        );
        let bursts: Vec<String> = server
            .bursts(0)
            .into_iter()
            .filter(|burst| !burst.is_empty())
            .map(|burst| burst.join(" "))
            .collect();
        if offered {
            let wanted = ["EHLO", "MAIL RCPT DATA", ". MAIL RCPT DATA", "RSET MAIL RCPT DATA", ".", "QUIT"];
            assert_eq!(bursts, wanted);
        } else {
            assert!(bursts.iter().all(|burst| !burst.contains(' ')), "{bursts:?}");
        }
    }
}
