//! One message at a time: the outcome told by how far the dialogue came.

use std::time::Duration;

use tidings::clock::{Deadline, Instant};
use tidings::message::Message;
use tidings::relay::{Outcome, Phase};

use super::{LONG, SHORT, cleared, cleared_until, connect, give, message, relay};
use crate::harness::{Act, Gate, Options, SmtpServer, Stage, Transaction};

/// What becomes of one message on a new connection when the server acts so, and whether the connection survives.
async fn outcome_of(stage: Stage, act: Act, step: Duration) -> (Outcome, bool) {
    let server = SmtpServer::start().await;
    server.on(stage, act);
    match relay(&server, step).connect().await {
        Ok(mut connection) => {
            let outcome = give(&mut connection, &message("a@b.example", "hello"), &cleared()).await;
            assert!(!connection.is_stale(), "a fresh connection is never stale");
            (outcome, connection.is_open())
        }
        Err(outcome) => (outcome, false),
    }
}

const STAGES: [(Stage, Phase); 7] = [
    (Stage::Greeting, Phase::Greeting),
    (Stage::Ehlo, Phase::Hello),
    (Stage::Mail, Phase::MailFrom),
    (Stage::Rcpt, Phase::RcptTo),
    (Stage::Data, Phase::Data),
    (Stage::Body, Phase::FinalDot),
    (Stage::FinalDot, Phase::FinalDot),
];

/// Whether nothing of the body had to be written when the fault struck.
fn before_the_body(phase: Phase) -> bool {
    phase < Phase::Body
}

#[tokio::test]
async fn a_message_arrives_as_it_was_written() {
    let server = SmtpServer::start().await;
    let mut connection = connect(&server, LONG).await;
    let bodies = [".", "..", ".\r\n.", "\r\n.\r\nQUIT", "plain", "", ".\r\n\r\n..\r\n", "ends twice\r\n"];
    for body in bodies {
        let outcome = give(&mut connection, &message("a@b.example", body), &cleared()).await;
        assert!(matches!(&outcome, Outcome::Sent(reply) if reply.code == 250), "{outcome:?}");
    }
    connection.quit().await;
    let messages: Vec<Transaction> = server.messages();
    assert_eq!(messages.len(), bodies.len());
    for (received, body) in messages.iter().zip(bodies) {
        assert_eq!(received.data, message("a@b.example", body).bytes);
        assert_eq!((received.from.as_str(), received.recipient()), ("b.1@bounces.example", "a@b.example"));
    }
    assert_eq!(server.connections(), 1);
    assert_eq!(server.lines(0).first().unwrap(), "EHLO here.example");
    assert_eq!(server.lines(0).last().unwrap(), "QUIT");
}

#[tokio::test]
async fn a_refusal_for_good_is_refused_and_one_for_now_is_deferred() {
    for (stage, phase) in STAGES.into_iter().filter(|(stage, _)| *stage != Stage::Body) {
        let before_mail = phase < Phase::MailFrom;
        let (outcome, open) = outcome_of(stage, Act::reply(550, "5.7.1 no"), LONG).await;
        match &outcome {
            Outcome::Refused(at, reply) if !before_mail => {
                assert_eq!((*at, reply.code, reply.enhanced.as_deref()), (phase, 550, Some("5.7.1")));
            }
            Outcome::Deferred(at, reply) if before_mail => assert_eq!((*at, reply.code), (phase, 550)),
            other => panic!("{stage:?}: {other:?}"),
        }
        assert_eq!(open, !before_mail, "{stage:?}");
        let (outcome, open) = outcome_of(stage, Act::reply(451, "4.3.0 later"), LONG).await;
        assert!(
            matches!(&outcome, Outcome::Deferred(at, reply) if *at == phase && reply.code == 451),
            "{outcome:?}"
        );
        assert_eq!(open, !before_mail, "{stage:?}");
        let (outcome, open) = outcome_of(stage, Act::reply_and_hang_up(421, "4.7.0 closing"), LONG).await;
        assert!(
            matches!(&outcome, Outcome::Deferred(at, reply) if *at == phase && reply.code == 421),
            "{outcome:?}"
        );
        assert!(!open, "{stage:?}");
    }
}

#[tokio::test]
async fn a_lost_connection_is_unknown_only_from_the_final_dot_on() {
    for (stage, phase) in STAGES {
        let (outcome, open) = outcome_of(stage, Act::HangUp, LONG).await;
        assert!(!open, "{stage:?}");
        match outcome {
            Outcome::NotSent(at, _) if before_the_body(phase) => assert_eq!(at, phase),
            // The body is small: the final dot is written before anybody can know that it was not read.
            Outcome::Unknown(Phase::FinalDot, _) if !before_the_body(phase) => {}
            other => panic!("{stage:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_silent_relay_is_left_in_time() {
    let silent = STAGES.map(|(stage, phase)| async move {
        let begun = std::time::Instant::now();
        let (outcome, open) = outcome_of(stage, Act::Silence, SHORT).await;
        assert!(begun.elapsed() < LONG, "{stage:?}");
        assert!(!open, "{stage:?}");
        match outcome {
            Outcome::NotSent(at, why) if before_the_body(phase) => {
                assert_eq!(at, phase);
                assert!(why.contains("1.5s"), "{why}");
            }
            Outcome::Unknown(Phase::FinalDot, _) if !before_the_body(phase) => {}
            other => panic!("{stage:?}: {other:?}"),
        }
    });
    futures_util::future::join_all(silent).await;
}

#[tokio::test]
async fn a_relay_that_stops_reading_a_long_body_surely_did_not_take_it() {
    let server = SmtpServer::start().await;
    let gate = Gate::new();
    server.on(Stage::Body, Act::Stall(gate.clone()));
    let mut connection = connect(&server, SHORT).await;
    let body = "a line of some length\r\n".repeat(1_000_000);
    let outcome = give(&mut connection, &message("a@b.example", &body), &cleared()).await;
    assert!(matches!(outcome, Outcome::NotSent(Phase::Body, _)), "{outcome:?}");
    assert!(!connection.is_open());
    gate.open();
    assert_eq!(server.count(), 0);
}

#[tokio::test]
async fn a_wrong_answer_is_never_taken_for_success() {
    for (stage, code) in [
        (Stage::Greeting, 250),
        (Stage::Mail, 354),
        (Stage::Rcpt, 354),
        (Stage::Data, 250),
        (Stage::FinalDot, 354),
        (Stage::FinalDot, 220),
    ] {
        let (outcome, open) = outcome_of(stage, Act::reply(code, "2.0.0 fine"), LONG).await;
        assert!(!open, "{stage:?}");
        match outcome {
            Outcome::NotSent(..) if stage != Stage::FinalDot => {}
            Outcome::Unknown(..) if stage == Stage::FinalDot => {}
            other => panic!("{stage:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_to_nothing_is_not_taken_for_the_next_one() {
    let (outcome, open) =
        outcome_of(Stage::Data, Act::raw("354 go on\r\n250 2.0.0 taken already\r\n"), LONG).await;
    assert!(matches!(outcome, Outcome::NotSent(Phase::Body, _)), "{outcome:?}");
    assert!(!open);
}

#[tokio::test]
async fn sloppy_answers_are_understood() {
    for raw in ["250\r\n", "250-taken\r\n250\r\n", "250 ok\n", "250   caf\u{e9}\r\n", "250-\r\n250 \r\n"] {
        let server = SmtpServer::start().await;
        for stage in [Stage::Mail, Stage::Rcpt, Stage::FinalDot] {
            server.on(stage, Act::raw(raw));
        }
        server.on(Stage::Ehlo, Act::raw("250-relay.test\r\n250- \r\n250-\t\r\n250 SIZE 100000\n"));
        let mut connection = connect(&server, LONG).await;
        let outcome = give(&mut connection, &message("a@b.example", "hello"), &cleared()).await;
        assert!(matches!(&outcome, Outcome::Sent(reply) if reply.code == 250), "{raw:?}: {outcome:?}");
    }
    for raw in ["nonsense\r\n", "999 x\r\n", "\u{0}\r\n", "250-a\r\n550 b\r\n"] {
        let (outcome, open) = outcome_of(Stage::Rcpt, Act::raw(raw), SHORT).await;
        assert!(matches!(outcome, Outcome::NotSent(Phase::RcptTo, _)), "{raw:?}: {outcome:?}");
        assert!(!open);
    }
}

#[tokio::test]
async fn a_connection_survives_refusals() {
    let server = SmtpServer::start().await;
    server.on(Stage::Rcpt, Act::reply(550, "5.1.1 no such user")).to("gone@b.example");
    server.on(Stage::Rcpt, Act::reply(552, "too many recipients")).to("many@b.example");
    server.on(Stage::FinalDot, Act::reply(554, "5.7.1 spam")).to("spam@b.example");
    let mut connection = connect(&server, LONG).await;
    for n in 0..40 {
        let (to, kind) = match n % 4 {
            0 => ("gone@b.example", "refused"),
            1 => ("many@b.example", "deferred"),
            2 => ("spam@b.example", "refused"),
            _ => ("here@b.example", "sent"),
        };
        let outcome = give(&mut connection, &message(to, "hello"), &cleared()).await;
        let became = match outcome {
            Outcome::Sent(_) => "sent",
            Outcome::Refused(..) => "refused",
            Outcome::Deferred(..) => "deferred",
            other => panic!("{other:?}"),
        };
        assert_eq!(became, kind, "{to}");
        assert!(connection.is_open());
    }
    assert_eq!((server.connections(), server.count()), (1, 10));
}

#[tokio::test]
async fn a_relay_that_closes_after_some_messages_costs_no_attempt() {
    let server = SmtpServer::with(Options { close_after: Some(3), ..Options::default() }).await;
    let relay = relay(&server, LONG);
    let mut connection = relay.connect().await.unwrap_or_else(|outcome| panic!("{outcome:?}"));
    let mut stale = 0;
    for n in 0..10 {
        let message = message(&format!("{n}@b.example"), "hello");
        let mut outcome = give(&mut connection, &message, &cleared()).await;
        if connection.is_stale() {
            assert!(matches!(outcome, Outcome::NotSent(Phase::MailFrom, _)), "{outcome:?}");
            assert!(connection.was_reused() && !connection.is_open());
            stale += 1;
            connection = relay.connect().await.unwrap_or_else(|outcome| panic!("{outcome:?}"));
            outcome = give(&mut connection, &message, &cleared()).await;
        }
        assert!(matches!(outcome, Outcome::Sent(_)), "{outcome:?}");
    }
    assert_eq!((server.count(), stale), (10, 3));
    assert!((0..10).all(|n| server.messages_to(&format!("{n}@b.example")).len() == 1));
}

#[tokio::test]
async fn an_idle_connection_closed_with_421_is_stale() {
    let server = SmtpServer::start().await;
    server.on(Stage::Mail, Act::reply_and_hang_up(421, "4.4.2 idle for too long")).skip(1);
    let mut connection = connect(&server, LONG).await;
    give(&mut connection, &message("a@b.example", "hello"), &cleared()).await;
    let outcome = give(&mut connection, &message("b@b.example", "hello"), &cleared()).await;
    assert!(matches!(outcome, Outcome::Deferred(Phase::MailFrom, _)), "{outcome:?}");
    assert!(connection.is_stale());
}

#[tokio::test]
async fn a_clearance_that_lapsed_stops_the_envelope_and_keeps_the_connection() {
    let server = SmtpServer::start().await;
    let mut connection = connect(&server, LONG).await;
    let lapsed = cleared_until(&Deadline::at(Instant::now()));
    let outcome = give(&mut connection, &message("a@b.example", "hello"), &lapsed).await;
    assert!(
        matches!(&outcome, Outcome::NotSent(Phase::MailFrom, why) if why.contains("lapsed")),
        "{outcome:?}"
    );
    assert!(connection.is_open() && !connection.was_reused());
    assert!(server.transactions().is_empty());
}

#[tokio::test]
async fn a_clearance_that_lapses_before_the_body_stops_the_body() {
    for stage in [Stage::Mail, Stage::Rcpt, Stage::Data] {
        let server = SmtpServer::start().await;
        let gate = Gate::new();
        server.on(stage, Act::Stall(gate.clone()));
        let mut connection = connect(&server, LONG).await;
        let until = Deadline::at(Instant::now().plus(LONG));
        let clearance = cleared_until(&until);
        let message = message("a@b.example", "hello");
        let (outcome, ()) = tokio::join!(give(&mut connection, &message, &clearance), async {
            gate.reached().await;
            until.move_to(Instant::now());
            gate.open();
        });
        assert!(
            matches!(&outcome, Outcome::NotSent(_, why) if why.contains("lapsed")),
            "{stage:?}: {outcome:?}"
        );
        assert!(!connection.is_open() && !connection.is_stale());
        assert!(server.transactions().iter().all(|t| t.raw.is_empty() && t.dot_at.is_none()));
    }
}

#[tokio::test]
async fn a_clearance_that_lapses_within_the_body_keeps_the_final_dot_back() {
    let server = SmtpServer::start().await;
    let gate = Gate::new();
    server.on(Stage::Body, Act::Stall(gate.clone()));
    let mut connection = connect(&server, LONG).await;
    let until = Deadline::at(Instant::now().plus(LONG));
    let clearance = cleared_until(&until);
    let message = message("a@b.example", &"a line of some length\r\n".repeat(1_000_000));
    let (outcome, ()) = tokio::join!(give(&mut connection, &message, &clearance), async {
        gate.reached().await;
        until.move_to(Instant::now());
        gate.open();
    });
    assert!(matches!(&outcome, Outcome::NotSent(Phase::Body, why) if why.contains("lapsed")), "{outcome:?}");
    server.wait_for_transaction("the torn body", |t| !t.raw.is_empty()).await;
    assert!(server.transactions()[0].dot_at.is_none());
}

#[tokio::test]
async fn a_dropped_hand_over_closes_the_connection() {
    let server = SmtpServer::start().await;
    let gate = Gate::new();
    server.on(Stage::Rcpt, Act::Stall(gate.clone()));
    let mut connection = connect(&server, LONG).await;
    let message = message("a@b.example", "hello");
    let clearance = cleared();
    tokio::select! {
        outcome = give(&mut connection, &message, &clearance) => panic!("{outcome:?}"),
        () = gate.reached() => {}
    }
    assert!(!connection.is_open());
}

#[tokio::test]
async fn what_the_relay_cannot_take_is_refused_without_asking() {
    let server = SmtpServer::with(Options { extensions: vec!["SIZE 1000"], ..Options::default() }).await;
    let mut connection = connect(&server, LONG).await;
    let mut check = async |message: Message, code: u16, enhanced: &str| {
        let outcome = give(&mut connection, &message, &cleared()).await;
        let Outcome::Refused(_, reply) = outcome else { panic!("{outcome:?}") };
        assert_eq!((reply.code, reply.enhanced.as_deref()), (code, Some(enhanced)));
        assert!(connection.is_open());
    };
    check(message("a@b.example", &"x\r\n".repeat(400)), 552, "5.3.4").await;
    check(message("josé@b.example", "hello"), 553, "5.6.7").await;
    check(message("a@b.example", "smuggled\n.\nMAIL FROM:<x@y>"), 554, "5.6.0").await;
    check(message("a@b.example>\r\nDATA", "hello"), 553, "5.1.3").await;
    assert!(server.transactions().is_empty());
}

#[tokio::test]
async fn an_address_beyond_ascii_goes_to_a_relay_that_offers_smtputf8() {
    let server =
        SmtpServer::with(Options { extensions: vec!["8BITMIME", "SMTPUTF8"], ..Options::default() }).await;
    let mut connection = connect(&server, LONG).await;
    let outcome = give(&mut connection, &message("josé@b.example", "grüße"), &cleared()).await;
    assert!(matches!(outcome, Outcome::Sent(_)), "{outcome:?}");
    assert_eq!(server.messages()[0].recipient(), "josé@b.example");
    assert_eq!(server.messages()[0].mail_parameters, "SMTPUTF8 BODY=8BITMIME");
}
