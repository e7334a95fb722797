//! Whatever is asked when, and whatever becomes of it, no window, no moment and no day holds one more than its limit, and
//! what can be refused leaves the last tenth of a window and of a day to the service side.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::clock::{Timestamp, micros};

const DAY: i64 = 24 * 3600 * 1_000_000;
const START: i64 = 20_000 * DAY;

/// A permit: from when to when its envelope may have been written.
#[derive(Clone, Copy, Debug)]
struct Permit {
    granted: i64,
    ended: Option<i64>,
}

impl Permit {
    /// Whether its envelope may lie between these, both counted in.
    fn may_lie_in(&self, from: i64, to: i64) -> bool {
        self.granted <= to && self.ended.is_none_or(|ended| ended >= from)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(i64),
    Ask(Lane, u32),
    /// So many of the open permits are found to have ended, from this place on.
    End(usize, usize),
}

fn steps(longest: i64) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..longest).prop_map(Step::Wait),
        1 => (0..longest / 100).prop_map(Step::Wait),
        4 => (0..40_u32).prop_map(|wanted| Step::Ask(Lane::CanBeRefused, wanted)),
        2 => (0..40_u32).prop_map(|wanted| Step::Ask(Lane::ServiceSide, wanted)),
        6 => (0..20_usize, 0..40_usize).prop_map(|(from, many)| Step::End(from, many)),
    ];
    vec(step, 1..120)
}

fn everybody() -> Name {
    Name::Domain("a.example".into())
}

/// Takes up to `wanted` permits: how many, and when there may be more.
fn grant(limit: &Limit, book: &mut Book, now: Timestamp, lane: Lane, wanted: u32) -> (u32, Timestamp) {
    let names = [everybody()];
    let mut books = BTreeMap::from([(everybody(), (limit.clone(), std::mem::take(book)))]);
    let answers = share_out(&mut books, (0..wanted).map(|_| (lane, &names[..])), now);
    *book = books.remove(&everybody()).unwrap().1;
    let more_at =
        answers.iter().find_map(|answer| answer.as_ref().err()).map_or(now, |(_, more_at)| *more_at);
    (u32::try_from(answers.iter().filter(|answer| answer.is_ok()).count()).unwrap(), more_at)
}

/// Plays the steps and returns every permit.
fn play(limit: &Limit, steps: &[Step]) -> Vec<Permit> {
    let mut book = Book::default();
    let mut now = Timestamp(START);
    let mut permits: Vec<Permit> = Vec::new();
    for step in steps {
        match step {
            Step::Wait(micros) => now = Timestamp(now.0 + micros),
            Step::Ask(lane, wanted) => {
                let (granted, _) = grant(limit, &mut book, now, *lane, *wanted);
                permits.extend((0..granted).map(|_| Permit { granted: now.0, ended: None }));
            }
            Step::End(from, many) => {
                let mut ended = 0;
                for permit in
                    permits.iter_mut().filter(|permit| permit.ended.is_none()).skip(*from).take(*many)
                {
                    permit.ended = Some(now.0);
                    ended += 1;
                }
                book.end(limit, ended, now);
            }
        }
        // It is kept as JSON between any two steps.
        book = serde_json::from_str(&serde_json::to_string(&book).unwrap()).unwrap();
    }
    permits
}

proptest! {
    #[test]
    fn no_window_holds_one_more_than_the_limit(
        messages in 1..60_u32,
        seconds in 1..5_000_u64,
        steps in (1..20_000_000_i64).prop_flat_map(steps),
    ) {
        let window = Duration::from_secs(seconds);
        let limit = Limit { rate: Some(Rate { messages, window }), ..Limit::default() };
        let permits = play(&limit, &steps);
        let ends = permits.iter().filter_map(|permit| permit.ended);
        let starts = permits.iter().map(|permit| permit.granted - micros(window));
        for from in ends.chain(starts) {
            let within = permits.iter().filter(|permit| permit.may_lie_in(from, from + micros(window))).count();
            prop_assert!(within <= messages as usize, "{within} in the window from {from}");
        }
    }

    #[test]
    fn no_moment_has_one_more_under_way_than_the_limit(at_once in 1..30_u32, steps in steps(1_000_000)) {
        let permits = play(&Limit { at_once: Some(at_once), ..Limit::default() }, &steps);
        for now in permits.iter().map(|permit| permit.granted) {
            let open = permits.iter().filter(|permit| permit.granted <= now)
                .filter(|permit| permit.ended.is_none_or(|ended| ended > now)).count();
            prop_assert!(open <= at_once as usize, "{open} at {now}");
        }
    }

    #[test]
    fn no_day_holds_one_more_than_the_warm_up(
        mut days in vec(1..40_u32, 1..5),
        from in -1..3_i64,
        steps in steps(DAY),
    ) {
        days.sort_unstable();
        let warm_up = WarmUp { from: START / DAY + from, days };
        let permits = play(&Limit { warm_up: Some(warm_up.clone()), ..Limit::default() }, &steps);
        for day in START / DAY..START / DAY + 10 {
            let Some(most) = warm_up.most(day) else { continue };
            let on_day = permits.iter().filter(|permit| permit.may_lie_in(day * DAY, (day + 1) * DAY - 1)).count();
            prop_assert!(on_day <= most as usize, "{on_day} on day {day}, {most} allowed");
        }
    }

    #[test]
    fn whatever_is_set_aside_gets_its_permit_once_there_is_room(
        messages in 1..60_u32,
        seconds in 1..5_000_u64,
        steps in (1..20_000_000_i64).prop_flat_map(steps),
    ) {
        let limit =
            Limit { rate: Some(Rate { messages, window: Duration::from_secs(seconds) }), ..Limit::default() };
        let mut book = Book::default();
        let mut now = Timestamp(START);
        for step in &steps {
            match step {
                Step::Wait(micros) => now = Timestamp(now.0 + micros),
                Step::Ask(lane, wanted) => { grant(&limit, &mut book, now, *lane, *wanted); }
                _ => book.end(&limit, book.open / 2, now),
            }
        }
        book.end(&limit, book.open, now);
        let mut granted = 0;
        for _ in 0..200 {
            let (here, more_at) = grant(&limit, &mut book, now, Lane::CanBeRefused, 1);
            granted += here;
            if here == 0 {
                prop_assert!(more_at > now, "it must say when");
                now = more_at;
            } else {
                book.end(&limit, 1, now);
            }
        }
        prop_assert!(granted >= messages.min(50), "{granted} granted");
    }
}

#[test]
fn a_window_is_used_up_and_free_again_a_fiftieth_of_it_late_at_most() {
    let limit =
        Limit { rate: Some(Rate { messages: 10, window: Duration::from_secs(3600) }), ..Limit::default() };
    let mut book = Book::default();
    let now = Timestamp(START);
    assert_eq!(grant(&limit, &mut book, now, Lane::ServiceSide, 25).0, 10);
    book.end(&limit, 10, now);
    let (granted, more_at) = grant(&limit, &mut book, now, Lane::ServiceSide, 1);
    assert_eq!(granted, 0);
    assert_eq!(more_at.since(now), Duration::from_secs(3600 + 72));
    assert_eq!(grant(&limit, &mut book, more_at, Lane::ServiceSide, 25).0, 10);
}

#[test]
fn a_window_that_is_made_longer_still_counts_what_is_remembered() {
    let rate = |seconds| Limit {
        rate: Some(Rate { messages: 10, window: Duration::from_secs(seconds) }),
        ..Limit::default()
    };
    let mut book = Book::default();
    let now = Timestamp(START);
    book.take(10);
    book.end(&rate(60), 10, now);
    let later = now.plus(Duration::from_secs(59));
    book.end(&rate(600), 0, later);
    assert_eq!(room(&rate(600), &book, later).free, 0);
    book.take(1);
    book.end(&rate(600), 1, later);
    assert_eq!(room(&rate(600), &book, now.plus(Duration::from_secs(590))).free, 0);
}

#[test]
fn a_message_needs_room_in_each_of_its_limits_and_takes_of_none_without_all() {
    let rate = |messages| Limit {
        rate: Some(Rate { messages, window: Duration::from_secs(60) }),
        ..Limit::default()
    };
    let domain = |name: &str| Name::Domain(name.into());
    let mut books = BTreeMap::from([
        (Name::Relay, (rate(5), Book::default())),
        (domain("a.example"), (rate(2), Book::default())),
    ]);
    let a = [Name::Relay, domain("a.example")];
    let b = [Name::Relay];
    let wanted: Vec<&[Name]> = vec![&a, &a, &a, &b, &a, &b, &b, &b];
    let wanted = wanted.into_iter().map(|names| (Lane::CanBeRefused, names));
    let shared = share_out(&mut books, wanted, Timestamp(START));
    let granted: Vec<bool> = shared.iter().map(Result::is_ok).collect();
    assert_eq!(granted, [true, true, false, true, false, true, true, false]);
    assert_eq!(shared[2].as_ref().unwrap_err().0, domain("a.example"));
    assert_eq!(shared[7].as_ref().unwrap_err().0, Name::Relay);
    assert_eq!((books[&Name::Relay].1.open, books[&domain("a.example")].1.open), (5, 2));
}

#[test]
fn the_last_tenth_of_a_window_and_of_a_day_is_the_service_sides() {
    let rate = |messages| Limit {
        rate: Some(Rate { messages, window: Duration::from_secs(60) }),
        ..Limit::default()
    };
    let day =
        |most| Limit { warm_up: Some(WarmUp { from: START / DAY, days: vec![most] }), ..Limit::default() };
    for limit in [rate, day as fn(u32) -> Limit] {
        for (messages, kept) in [(1, 0), (9, 0), (10, 1), (19, 1), (2_000, 200)] {
            let (mut book, now) = (Book::default(), Timestamp(START));
            let mut ask = |lane| grant(&limit(messages), &mut book, now, lane, 3_000).0;
            assert_eq!(ask(Lane::CanBeRefused), messages - kept, "of {messages}");
            assert_eq!((ask(Lane::ServiceSide), ask(Lane::CanBeRefused)), (kept, 0), "of {messages}");
        }
    }
    // The service side may use all of it, and what it has used is used.
    let (mut book, now) = (Book::default(), Timestamp(START));
    assert_eq!(grant(&rate(100), &mut book, now, Lane::ServiceSide, 95).0, 95);
    assert_eq!(grant(&rate(100), &mut book, now, Lane::CanBeRefused, 1).0, 0);
    assert_eq!(grant(&rate(100), &mut book, now, Lane::ServiceSide, 9).0, 5);
}

#[test]
fn of_messages_under_way_at_once_and_of_a_contents_own_limit_nothing_is_kept() {
    let at_once = Limit { at_once: Some(100), ..Limit::default() };
    assert_eq!(at_once.part_of(&everybody(), Lane::CanBeRefused), at_once);
    let own =
        Limit { rate: Some(Rate { messages: 100, window: Duration::from_secs(60) }), ..Limit::default() };
    assert_eq!(own.part_of(&Name::Content(ContentId::new()), Lane::CanBeRefused), own);
}

#[test]
fn a_destination_told_to_be_left_alone_gets_nothing_then_one_at_a_time() {
    let mut book = Book::default();
    let gmail = Name::Domain("gmail.com".into());
    let now = Timestamp(START);
    book.back_off.hear(&gmail, Heard::Stop, now);
    let free =
        |book: &Book, seconds| room(&Limit::default(), book, now.plus(Duration::from_secs(seconds))).free;
    assert_eq!((free(&book, 0), free(&book, 599), free(&book, 600)), (0, 0, 1));
    book.take(1);
    assert_eq!(free(&book, 600), 0);
}

#[test]
fn every_name_reads_what_it_writes() {
    for name in [Name::Relay, Name::Domain("a.example".into()), Name::Content(ContentId::new())] {
        assert_eq!(name.to_string().parse::<Name>().unwrap(), name);
    }
    assert!("relays".parse::<Name>().is_err() && "content:x".parse::<Name>().is_err());
}
