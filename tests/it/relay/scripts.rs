//! Any relay at all: whatever it answers, nothing goes out twice, and what is told of a message is true.

use proptest::prelude::*;
use tidings::relay::Outcome;

use super::{Item, SHORT, relay, sender_to};
use crate::harness::{Act, Options, Pace, SmtpServer, Stage};

const MESSAGES: usize = 6;

/// A relay, and what it does once at a stage of each message.
#[derive(Clone, Debug)]
struct Script {
    pipelining: bool,
    announcing: bool,
    pace: Pace,
    data_for_nobody: bool,
    close_after: Option<usize>,
    acts: Vec<(usize, Stage, Act)>,
}

fn act() -> impl Strategy<Value = Act> {
    let code = prop_oneof![
        Just(220_u16),
        Just(250),
        Just(251),
        Just(354),
        Just(421),
        Just(450),
        Just(451),
        Just(452),
        Just(500),
        Just(503),
        Just(550),
        Just(552),
        Just(554)
    ];
    prop_oneof![
        6 => code.clone().prop_map(|code| Act::reply(code, "x")),
        2 => code.clone().prop_map(|code| Act::reply_and_hang_up(code, "x")),
        2 => Just(Act::HangUp),
        1 => Just(Act::raw("nonsense\r\n")),
        1 => Just(Act::raw("250-torn\r\n550 apart\r\n")),
        3 => (code.clone(), code).prop_map(|(a, b)| Act::raw(format!("{a} x\r\n{b} y\r\n"))),
        1 => Just(Act::raw("250-long\r\n250-and\r\n250 wide\r\n")),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let stage = prop_oneof![
        Just(Stage::Mail),
        Just(Stage::Rcpt),
        Just(Stage::Data),
        Just(Stage::Body),
        Just(Stage::FinalDot)
    ];
    let pace = prop_oneof![Just(Pace::Each), Just(Pace::Together), Just(Pace::Octets)];
    let acts = prop::collection::vec((0..MESSAGES, stage, act()), 0..6);
    (any::<bool>(), any::<bool>(), pace, any::<bool>(), prop::option::of(1_usize..4), acts).prop_map(
        |(pipelining, announcing, pace, data_for_nobody, close_after, acts)| Script {
            pipelining,
            announcing,
            pace,
            data_for_nobody,
            close_after,
            acts: acts.into_iter().filter(|(_, stage, act)| can_be_seen_through(pace, *stage, act)).collect(),
        },
    )
}

/// A relay that answers 250 to a message that it has not read yet cannot be told from one that took it, when that
/// answer comes late.
fn can_be_seen_through(pace: Pace, stage: Stage, act: &Act) -> bool {
    if stage == Stage::Body {
        // An answer to a body that nobody has read yet.
        return matches!(act, Act::HangUp | Act::ReplyAndHangUp(400.., _));
    }
    let more_than_one = matches!(act, Act::Raw(octets) if octets.starts_with(b"354") && octets.len() > 7);
    !(pace == Pace::Octets && stage == Stage::Data && more_than_one)
}

async fn play(script: Script) -> Result<(), TestCaseError> {
    let mut extensions = vec!["SIZE 100000", "DSN"];
    extensions.extend(script.pipelining.then_some("PIPELINING"));
    let server = SmtpServer::with(Options {
        extensions,
        pace: script.pace,
        data_for_nobody: script.data_for_nobody,
        close_after: script.close_after,
        ..Options::default()
    })
    .await;
    let items: Vec<Item> = (0..MESSAGES)
        .map(|n| Item::with(&format!("p{n}@b.example"), &format!("body {n}\r\n.\r\n")))
        .collect();
    for (n, stage, act) in &script.acts {
        server.on(*stage, act.clone()).from(&sender_to(items[*n].to())).once();
    }
    let relay = relay(&server, SHORT);
    let connect = async || relay.connect().await.unwrap_or_else(|outcome| panic!("{outcome:?}"));
    let mut connection = connect().await;
    let mut outcomes = Vec::new();
    for (n, item) in items.iter().enumerate() {
        let next = items.get(n + 1).filter(|_| script.announcing).map(Item::parcel);
        if !connection.is_open() {
            connection = connect().await;
        }
        let mut outcome = connection.hand_over(item.parcel(), next).await;
        if connection.is_stale() {
            connection = connect().await;
            outcome = connection.hand_over(item.parcel(), next).await;
        }
        outcomes.push(outcome);
    }
    connection.quit().await;
    let transactions = server.transactions();
    for (item, outcome) in items.iter().zip(&outcomes) {
        let own: Vec<_> = transactions.iter().filter(|t| t.to.iter().any(|to| to == item.to())).collect();
        let bodies: Vec<_> = own.iter().filter(|t| t.taken && t.dot_at.is_some()).collect();
        prop_assert!(bodies.len() <= 1, "{} bodies, {outcome:?}", bodies.len());
        prop_assert!(bodies.iter().all(|t| t.data == item.message.bytes), "another body, {outcome:?}");
        let taken = bodies.iter().any(|t| t.answer.is_some_and(|code| (200..300).contains(&code)));
        match outcome {
            Outcome::Sent(_) => prop_assert!(taken, "{} was not taken: {outcome:?}", item.to()),
            Outcome::Unknown(..) => {}
            other => prop_assert!(!taken, "{} was taken: {other:?}", item.to()),
        }
        prop_assert!(own.iter().all(|t| t.to.len() == 1));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_relay_answers_nothing_is_sent_twice_and_what_is_told_is_true(script in script()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(script))?;
    }
}
