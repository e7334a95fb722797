//! One message after the other, the next envelope with each body.

use std::time::Duration;

use tidings::relay::{Connection, Outcome, Phase, Relay, Timeouts};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::{Item, LONG, SHORT, certificate, connect, offering, relay, sender_to};
use crate::harness::{Act, Gate, Options, Pace, SmtpServer, Stage};

const PACES: [Pace; 3] = [Pace::Each, Pace::Together, Pace::Octets];

async fn server(pace: Pace) -> SmtpServer {
    SmtpServer::with(Options { extensions: vec!["PIPELINING"], pace, ..Options::default() }).await
}

/// `a`, announcing `b`: the envelope of `b` is out afterwards.
async fn announce(connection: &mut Connection, a: &Item, b: &Item) {
    let outcome = connection.hand_over(a.parcel(), Some(b.parcel())).await;
    assert!(matches!(outcome, Outcome::Sent(_)), "{outcome:?}");
    assert_eq!(connection.announced(), Some(b.clearance.delivery()));
}

/// Hands everything over, each announcing the one after it. Where a connection closed without telling anything of a
/// message, that message goes over a new one.
async fn hand_all(server: &SmtpServer, items: &[Item]) -> Vec<Outcome> {
    let mut connection = connect(server, LONG).await;
    let mut outcomes = Vec::new();
    for (n, item) in items.iter().enumerate() {
        let next = items.get(n + 1).map(Item::parcel);
        let mut outcome = connection.hand_over(item.parcel(), next).await;
        if connection.is_stale() {
            connection = connect(server, LONG).await;
            outcome = connection.hand_over(item.parcel(), next).await;
        }
        if !connection.is_open() {
            assert_eq!(connection.announced(), None);
            connection = connect(server, LONG).await;
        }
        outcomes.push(outcome);
    }
    connection.quit().await;
    outcomes
}

fn items(count: usize) -> Vec<Item> {
    (0..count).map(|n| Item::new(&format!("p{n}@b.example"))).collect()
}

#[tokio::test]
async fn nothing_is_announced_to_a_relay_that_does_not_offer_it() {
    let server = offering(&["SIZE 100000"]).await;
    let items = items(4);
    let mut connection = connect(&server, LONG).await;
    for pair in items.windows(2) {
        let outcome = connection.hand_over(pair[0].parcel(), Some(pair[1].parcel())).await;
        assert!(matches!(outcome, Outcome::Sent(_)), "{outcome:?}");
        assert_eq!(connection.announced(), None);
    }
    assert!(server.bursts(0).iter().all(|burst| burst.len() <= 1), "{:?}", server.bursts(0));
    assert_eq!((server.count(), server.connections()), (3, 1));
}

#[tokio::test]
async fn a_refusal_in_a_group_poisons_no_other_message() {
    let refusals = [
        (Stage::Mail, 550, Phase::MailFrom),
        (Stage::Mail, 452, Phase::MailFrom),
        (Stage::Rcpt, 550, Phase::RcptTo),
        (Stage::Rcpt, 451, Phase::RcptTo),
        (Stage::Data, 554, Phase::Data),
        (Stage::Data, 451, Phase::Data),
        (Stage::FinalDot, 554, Phase::FinalDot),
        (Stage::FinalDot, 452, Phase::FinalDot),
    ];
    for pace in PACES {
        for data_for_nobody in [false, true] {
            let options =
                Options { extensions: vec!["PIPELINING"], pace, data_for_nobody, ..Options::default() };
            let server = SmtpServer::with(options).await;
            // Every second message, so that each refusal stands before and behind one that goes well; and two in a row.
            let items = items(4 * refusals.len());
            let refused = |n: usize| (n % 4 == 1 || n % 4 == 2).then(|| refusals[n / 4]);
            for (n, item) in items.iter().enumerate() {
                if let Some((stage, code, _)) = refused(n) {
                    let from = sender_to(item.to());
                    server.on(stage, Act::reply(code, &format!("no {n}"))).from(&from);
                }
            }
            let outcomes = hand_all(&server, &items).await;
            for (n, (item, outcome)) in items.iter().zip(outcomes).enumerate() {
                match (refused(n), &outcome) {
                    (None, Outcome::Sent(_)) => {
                        assert_eq!(server.messages_to(item.to()).len(), 1);
                    }
                    (Some((_, code, phase)), Outcome::Refused(at, reply) | Outcome::Deferred(at, reply)) => {
                        assert_eq!((code, phase), (reply.code, *at), "{n}: {outcome:?}");
                        assert_eq!(reply.text, format!("no {n}"));
                        assert_eq!(code >= 500, matches!(outcome, Outcome::Refused(..)));
                        assert!(server.messages_to(item.to()).is_empty());
                    }
                    other => panic!("{pace:?} {n}: {other:?}"),
                }
            }
            assert_eq!(server.connections(), 1, "a refusal costs no connection");
        }
    }
}

#[tokio::test]
async fn a_recipient_without_a_sender_is_sent_nothing_at_all() {
    // No server that keeps any order would say so: MAIL refused, and yet RCPT and DATA taken.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    let server = async {
        let mut wire = BufReader::new(listener.accept().await.unwrap().0);
        let mut line = String::new();
        wire.write_all(b"220 hello\r\n").await.unwrap();
        wire.read_line(&mut line).await.unwrap();
        wire.write_all(b"250-hello\r\n250 PIPELINING\r\n").await.unwrap();
        while !line.ends_with("DATA\r\n") {
            wire.read_line(&mut line).await.unwrap();
        }
        wire.write_all(b"550 no\r\n250 yes\r\n354 go on\r\n").await.unwrap();
        let mut rest = String::new();
        wire.read_to_string(&mut rest).await.unwrap();
        rest
    };
    let client = async {
        let relay = Relay::from_url(&url, "here.example", Timeouts::each(SHORT)).unwrap();
        let mut connection = relay.connect().await.unwrap_or_else(|outcome| panic!("{outcome:?}"));
        let outcome = connection.hand_over(Item::new("a@b.example").parcel(), None).await;
        assert!(!connection.is_open());
        outcome
    };
    let (rest, outcome) = tokio::join!(server, client);
    assert!(matches!(outcome, Outcome::Refused(Phase::MailFrom, _)), "{outcome:?}");
    assert_eq!(rest, "", "an empty message might go to that recipient");
}

#[tokio::test]
async fn an_announced_message_that_breaks_before_its_body_surely_was_not_sent() {
    let acts = [Act::HangUp, Act::reply_and_hang_up(421, "4.3.2 closing"), Act::raw("nonsense\r\n")];
    let stages = [(Stage::Mail, Phase::MailFrom), (Stage::Rcpt, Phase::RcptTo), (Stage::Data, Phase::Data)];
    for pace in PACES {
        for (stage, phase) in stages {
            for act in &acts {
                let server = server(pace).await;
                let (a, b) = (Item::new("a@b.example"), Item::new("b@b.example"));
                server.on(stage, act.clone()).from(&sender_to(b.to())).once();
                let mut connection = connect(&server, LONG).await;
                announce(&mut connection, &a, &b).await;
                let outcome = connection.hand_over(b.parcel(), None).await;
                let said_421 = matches!(act, Act::ReplyAndHangUp(..));
                match &outcome {
                    Outcome::Deferred(at, reply) if said_421 => assert_eq!((*at, reply.code), (phase, 421)),
                    Outcome::NotSent(at, _) if !said_421 => assert_eq!(*at, phase),
                    other => panic!("{stage:?} {act:?}: {other:?}"),
                }
                assert!(!connection.is_open() && connection.announced().is_none());
                assert_eq!(connection.is_stale(), !said_421 || stage == Stage::Mail, "{stage:?} {act:?}");
                assert!(server.messages_to(b.to()).is_empty());
                assert_eq!(server.messages_to(a.to()).len(), 1);
            }
        }
    }
}

#[tokio::test]
async fn what_breaks_a_message_leaves_the_announced_one_unsent() {
    for (act, unknown) in [
        (Act::HangUp, true),
        (Act::raw("nonsense\r\n"), true),
        (Act::reply(354, "what?"), true),
        (Act::Silence, true),
        (Act::reply_and_hang_up(421, "4.3.2 closing"), false),
    ] {
        let server = server(Pace::Each).await;
        let (a, b) = (Item::new("a@b.example"), Item::new("b@b.example"));
        server.on(Stage::FinalDot, act.clone()).to(a.to());
        let mut connection = connect(&server, SHORT).await;
        let outcome = connection.hand_over(a.parcel(), Some(b.parcel())).await;
        match outcome {
            Outcome::Unknown(Phase::FinalDot, _) if unknown => {}
            Outcome::Deferred(Phase::FinalDot, reply) if !unknown => assert_eq!(reply.code, 421),
            other => panic!("{act:?}: {other:?}"),
        }
        assert!(!connection.is_open() && connection.announced().is_none() && !connection.is_stale());
        let outcome = connection.hand_over(b.parcel(), None).await;
        assert!(matches!(outcome, Outcome::NotSent(Phase::MailFrom, _)), "{outcome:?}");
        assert!(connection.is_stale(), "it counts as no attempt");
        assert!(server.messages_to(b.to()).is_empty());
    }
}

#[tokio::test]
async fn a_silent_relay_is_left_in_time_at_every_stage_of_an_announced_message() {
    let stages = [
        (Stage::Mail, Phase::MailFrom),
        (Stage::Rcpt, Phase::RcptTo),
        (Stage::Data, Phase::Data),
        (Stage::Body, Phase::FinalDot),
        (Stage::FinalDot, Phase::FinalDot),
    ];
    let silent = stages.map(|(stage, phase)| async move {
        let server = server(Pace::Each).await;
        let (a, b) = (Item::new("a@b.example"), Item::new("b@b.example"));
        server.on(stage, Act::Silence).from(&sender_to(b.to()));
        let mut connection = connect(&server, SHORT).await;
        announce(&mut connection, &a, &b).await;
        let begun = std::time::Instant::now();
        let outcome = connection.hand_over(b.parcel(), None).await;
        assert!(begun.elapsed() >= SHORT && begun.elapsed() < LONG, "{stage:?}");
        match outcome {
            Outcome::Unknown(Phase::FinalDot, _) if phase == Phase::FinalDot => {}
            Outcome::NotSent(at, why) => {
                assert!(at == phase && why.contains("1.5s"), "{stage:?}: {at} {why}")
            }
            other => panic!("{stage:?}: {other:?}"),
        }
        assert!(!connection.is_open());
    });
    futures_util::future::join_all(silent).await;
}

#[tokio::test]
async fn a_clearance_that_lapsed_announces_nothing() {
    let server = server(Pace::Each).await;
    let (a, b) = (Item::new("a@b.example"), Item::new("b@b.example"));
    b.lapse();
    let mut connection = connect(&server, LONG).await;
    let outcome = connection.hand_over(a.parcel(), Some(b.parcel())).await;
    assert!(matches!(outcome, Outcome::Sent(_)), "{outcome:?}");
    assert!(connection.is_open() && connection.announced().is_none());
    assert_eq!(server.transactions().len(), 1);
}

#[tokio::test]
async fn a_clearance_that_lapses_after_the_envelope_keeps_the_body_back() {
    let server = server(Pace::Each).await;
    let (a, b) = (Item::new("a@b.example"), Item::new("b@b.example"));
    let mut connection = connect(&server, LONG).await;
    announce(&mut connection, &a, &b).await;
    // 354 may lie there ready already: the clearance counts, not what is ready.
    server
        .wait_for_transaction("the announced DATA", |t| t.recipient() == b.to() && t.data_at.is_some())
        .await;
    b.lapse();
    let outcome = connection.hand_over(b.parcel(), None).await;
    assert!(matches!(&outcome, Outcome::NotSent(Phase::Body, why) if why.contains("lapsed")), "{outcome:?}");
    assert!(!connection.is_open() && !connection.is_stale());
    wait_for_hang_up(&server).await;
    assert!(server.messages_to(b.to()).is_empty());
    assert!(server.transactions().iter().all(|t| t.recipient() == a.to() || t.raw.is_empty()));
}

async fn wait_for_hang_up(server: &SmtpServer) {
    crate::harness::wait_until("the connection to be closed", async || server.open_connections() == 0).await;
}

#[tokio::test]
async fn an_envelope_refused_anyway_costs_no_connection_though_its_clearance_lapsed() {
    let server = server(Pace::Each).await;
    let (a, b) = (Item::new("a@b.example"), Item::new("b@b.example"));
    server.on(Stage::Rcpt, Act::reply(550, "5.1.1 no such user")).to(b.to());
    let mut connection = connect(&server, LONG).await;
    announce(&mut connection, &a, &b).await;
    b.lapse();
    let outcome = connection.hand_over(b.parcel(), None).await;
    assert!(matches!(outcome, Outcome::Refused(Phase::RcptTo, _)), "{outcome:?}");
    assert!(connection.is_open());
}

#[tokio::test]
async fn no_message_gets_into_the_envelope_of_another() {
    type Change = (&'static str, fn(&mut Item));
    let changes: [Change; 4] = [
        ("another delivery", |item| item.clearance = super::cleared()),
        ("another recipient", |item| item.message.envelope_to = "c@b.example".into()),
        ("another sender", |item| item.message.envelope_from = "c@bounces.example".into()),
        ("another size", |item| item.message.bytes.extend_from_slice(b"more\r\n")),
    ];
    for (what, change) in changes {
        let server = offering(&["PIPELINING", "SIZE 100000"]).await;
        let (a, mut b) = (Item::new("a@b.example"), Item::new("b@b.example"));
        let mut connection = connect(&server, LONG).await;
        announce(&mut connection, &a, &b).await;
        change(&mut b);
        let outcome = connection.hand_over(b.parcel(), None).await;
        assert!(matches!(outcome, Outcome::NotSent(Phase::MailFrom, _)), "{what}: {outcome:?}");
        assert!(!connection.is_open() && connection.is_stale(), "{what}");
        wait_for_hang_up(&server).await;
        assert_eq!(server.count(), 1, "{what}");
    }
}

#[tokio::test]
async fn leaving_with_an_envelope_out_says_nothing_more() {
    let server = server(Pace::Each).await;
    let (a, b) = (Item::new("a@b.example"), Item::new("b@b.example"));
    let mut connection = connect(&server, LONG).await;
    announce(&mut connection, &a, &b).await;
    connection.quit().await;
    wait_for_hang_up(&server).await;
    assert!(server.transactions().iter().all(|t| t.recipient() == a.to() || t.raw.is_empty()));
    assert!(server.lines(0).iter().all(|line| line != "QUIT"));
}

#[tokio::test]
async fn a_reply_too_many_is_taken_for_no_other_messages() {
    // Whatever is answered twice: nothing is told to be sent that was not, and nothing to be unsent that was.
    for pace in [Pace::Each, Pace::Together] {
        for (stage, twice) in [
            (Stage::Mail, "250 ok\r\n250 ok\r\n"),
            (Stage::Mail, "550 no\r\n550 no\r\n"),
            (Stage::Rcpt, "250 ok\r\n250 ok\r\n"),
            (Stage::Rcpt, "550 no\r\n550 no\r\n"),
            (Stage::Data, "354 go on\r\n250 taken\r\n"),
            (Stage::Data, "451 no\r\n451 no\r\n"),
            (Stage::FinalDot, "250 taken\r\n250 taken\r\n"),
            (Stage::FinalDot, "554 no\r\n250 taken\r\n"),
        ] {
            let server = server(pace).await;
            let items = items(6);
            server.on(stage, Act::raw(twice)).from(&sender_to(items[2].to())).once();
            let outcomes = hand_all(&server, &items).await;
            for (n, (item, outcome)) in items.iter().zip(outcomes).enumerate() {
                let taken = server.transactions().iter().any(|t| {
                    t.to.iter().any(|to| to == item.to()) && t.answer.is_some_and(|code| code < 300)
                });
                assert_eq!(
                    matches!(outcome, Outcome::Sent(_)),
                    taken,
                    "{pace:?} {stage:?} {twice:?} {n}: {outcome:?}"
                );
                if n != 2 {
                    assert!(taken, "{pace:?} {stage:?} {twice:?} {n}: {outcome:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_relay_that_closes_after_some_messages_loses_none_that_is_announced() {
    for pace in PACES {
        let options =
            Options { extensions: vec!["PIPELINING"], close_after: Some(3), pace, ..Options::default() };
        let server = SmtpServer::with(options).await;
        let items = items(20);
        let outcomes = hand_all(&server, &items).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Sent(_))), "{outcomes:?}");
        assert!(items.iter().all(|item| server.messages_to(item.to()).len() == 1));
        assert_eq!(server.connections(), 7);
    }
}

#[tokio::test]
async fn long_bodies_and_the_envelopes_behind_them_arrive_whole_also_under_tls() {
    let (tls, authority) = certificate(&["localhost"]);
    for tls in [None, Some(tls)] {
        let options = Options { extensions: vec!["PIPELINING"], tls: tls.clone(), ..Options::default() };
        let server = SmtpServer::with(options).await;
        let relay = match tls {
            None => relay(&server, LONG),
            Some(_) => {
                let url = format!("smtps://localhost:{}", server.addr().port());
                let relay = Relay::from_url(&url, "here.example", Timeouts::each(LONG)).unwrap();
                relay.trusting(authority.clone()).unwrap()
            }
        };
        let mut connection = relay.connect().await.unwrap_or_else(|outcome| panic!("{outcome:?}"));
        let sizes = [1, 10, 65_536, 65_537, 200_000, 3_000_000, 1];
        let items: Vec<Item> = sizes
            .iter()
            .enumerate()
            .map(|(n, size)| Item::with(&format!("p{n}@b.example"), &"..a\r\n.\r\n".repeat(size / 8 + 1)))
            .collect();
        for (n, item) in items.iter().enumerate() {
            let next = items.get(n + 1);
            let outcome = connection.hand_over(item.parcel(), next.map(Item::parcel)).await;
            assert!(matches!(outcome, Outcome::Sent(_)), "{outcome:?}");
            assert_eq!(connection.announced(), next.map(|next| next.clearance.delivery()));
        }
        for item in &items {
            let got = server.messages_to(item.to());
            assert!(got.len() == 1 && got[0].data == item.message.bytes);
        }
    }
}

#[tokio::test]
async fn a_hand_over_dropped_at_its_end_closes_the_connection_with_both_messages() {
    let server = server(Pace::Each).await;
    let (a, b) = (Item::new("a@b.example"), Item::new("b@b.example"));
    let gate = Gate::new();
    server.on(Stage::FinalDot, Act::Stall(gate.clone()));
    let mut connection = connect(&server, LONG).await;
    tokio::select! {
        outcome = connection.hand_over(a.parcel(), Some(b.parcel())) => panic!("{outcome:?}"),
        () = gate.reached() => {}
    }
    assert!(!connection.is_open());
    let outcome = connection.hand_over(b.parcel(), None).await;
    assert!(matches!(outcome, Outcome::NotSent(Phase::MailFrom, _)), "{outcome:?}");
    gate.open();
}

#[tokio::test]
async fn a_relay_that_stops_reading_behind_the_final_dot_tells_what_became_of_the_message() {
    // The next envelope cannot be taken back, and nothing but the reply to this message is waited for.
    let server = server(Pace::Each).await;
    let (a, b) = (Item::new("a@b.example"), Item::new("b@b.example"));
    server.on(Stage::Mail, Act::Late(Duration::from_millis(300))).from(&sender_to(b.to()));
    let mut connection = connect(&server, LONG).await;
    announce(&mut connection, &a, &b).await;
    let outcome = connection.hand_over(b.parcel(), None).await;
    assert!(matches!(outcome, Outcome::Sent(_)), "{outcome:?}");
}
