//! When a limit will have let so many through. Pure.

use std::time::Duration;

use super::book::{DAY, PARTS};
use super::{Book, Limit, Rate, WarmUp, room};
use crate::clock::{Timestamp, micros};

/// A century: as good as never, and can be added.
const NEVER: f64 = 3.2e9;

impl Limit {
    /// Whether it says how many may go until when. How long those under way at once take is not known.
    pub fn tells_when(&self) -> bool {
        self.rate.is_some() || self.warm_up.is_some()
    }

    /// When it will have let `people` more through, if all it lets through are these: as its rate and its warm-up have it,
    /// beginning with what is left of the window and of the day. A day's share is counted as let through when the day begins.
    pub fn lets_through(&self, book: &Book, people: u64, now: Timestamp) -> Timestamp {
        let by_rate = self.rate.map(|rate| {
            let left = room(&Self { rate: Some(rate), ..Self::default() }, book, now).free;
            in_windows(rate, people.saturating_sub(u64::from(left)), now)
        });
        let by_day = self.warm_up.as_ref().map(|warm_up| {
            let today = Self { warm_up: Some(warm_up.clone()), ..Self::default() };
            on_days(warm_up, people.saturating_sub(u64::from(room(&today, book, now).free)), now)
        });
        [by_rate, by_day].into_iter().flatten().fold(now, Timestamp::max)
    }
}

/// When so many more will have gone, once the window is used up. A window is used anew up to one of its parts late.
fn in_windows(rate: Rate, people: u64, now: Timestamp) -> Timestamp {
    let window = (micros(rate.window) + micros(rate.window) / PARTS) as f64 / 1e6;
    let seconds = people as f64 / f64::from(rate.messages.max(1)) * window;
    now.plus(Duration::from_secs_f64(seconds.min(NEVER)))
}

/// The beginning of the day on which the last of so many more goes, once today is used up.
fn on_days(warm_up: &WarmUp, mut people: u64, now: Timestamp) -> Timestamp {
    let mut day = now.0.div_euclid(DAY);
    if people == 0 {
        return now;
    }
    let until_it_begins = u64::try_from(warm_up.from.saturating_sub(day + 1)).unwrap_or(0);
    let first = u64::from(warm_up.days.first().copied().unwrap_or(1).max(1));
    // Until it begins every day is like its first.
    let alike = people.div_ceil(first).saturating_sub(1).min(until_it_begins);
    people = people.saturating_sub(alike.saturating_mul(first));
    day = day.saturating_add(i64::try_from(alike).unwrap_or(i64::MAX));
    while people > 0 {
        day = day.saturating_add(1);
        match warm_up.most(day) {
            Some(most) => people = people.saturating_sub(u64::from(most.max(1))),
            None => break,
        }
    }
    Timestamp(day.saturating_mul(DAY)).min(now.plus(Duration::from_secs_f64(NEVER)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const START: Timestamp = Timestamp(20_000 * DAY);

    fn rate(messages: u32, seconds: u64) -> Limit {
        let window = Duration::from_secs(seconds);
        Limit { rate: Some(Rate { messages, window }), ..Limit::default() }
    }

    fn warm_up(from: i64, days: &[u32]) -> Limit {
        let warm_up = WarmUp { from: START.0 / DAY + from, days: days.to_vec() };
        Limit { warm_up: Some(warm_up), ..Limit::default() }
    }

    fn days(days: i64) -> Timestamp {
        Timestamp(START.0 + days * DAY)
    }

    #[test]
    fn a_rate_lets_a_window_through_at_once_and_then_one_after_another() {
        let limit = rate(20, 100);
        let fresh = Book::default();
        assert_eq!(limit.lets_through(&fresh, 20, START), START);
        // A window of 100 s is used anew within 102.
        assert_eq!(limit.lets_through(&fresh, 400, START), START.plus(Duration::from_secs(19 * 102)));
        let mut used = Book::default();
        used.take(20);
        used.end(&limit, 20, START);
        assert_eq!(limit.lets_through(&used, 20, START), START.plus(Duration::from_secs(102)));
    }

    #[test]
    fn a_warm_up_lets_todays_share_through_then_those_of_the_days_after() {
        let eight = warm_up(0, &[50; 8]);
        let (fresh, noon) = (Book::default(), START.plus(MINUTE * 720));
        assert_eq!(eight.lets_through(&fresh, 50, noon), noon);
        assert_eq!(eight.lets_through(&fresh, 51, noon), days(1));
        assert_eq!(eight.lets_through(&fresh, 400, noon), days(7));
        // Once it is over, all the others go.
        assert_eq!(eight.lets_through(&fresh, 1_000_000, noon), days(8));
        let mut used = Book::default();
        used.take(30);
        used.end(&eight, 30, noon);
        assert_eq!(eight.lets_through(&used, 21, noon), days(1));
        assert_eq!(warm_up(0, &[1, 2, 3]).lets_through(&fresh, 4, noon), days(2));
        assert_eq!(warm_up(-3, &[1, 2, 3]).lets_through(&fresh, 4, noon), noon);
        // Until it begins every day is like its first.
        assert_eq!(warm_up(10, &[1, 5]).lets_through(&fresh, 12, noon), days(11));
        assert_eq!(warm_up(10, &[1, 5]).lets_through(&fresh, 4, noon), days(3));
    }

    #[test]
    fn what_sets_neither_says_nothing() {
        let at_once = Limit { at_once: Some(1), ..Limit::default() };
        assert!(!at_once.tells_when() && rate(1, 1).tells_when() && warm_up(0, &[1]).tells_when());
        assert_eq!(at_once.lets_through(&Book::default(), 1_000, START), START);
    }

    proptest! {
        #[test]
        fn a_warm_up_is_forecast_as_it_is_granted(
            mut list in proptest::collection::vec(1..40_u32, 1..6),
            from in -3..4_i64,
            people in 0..300_u64,
        ) {
            list.sort_unstable();
            let limit = warm_up(from, &list);
            let (mut book, mut left, mut now) = (Book::default(), people, START);
            loop {
                let free = u64::from(room(&limit, &book, now).free).min(left);
                let granted = u32::try_from(free).unwrap();
                book.take(granted);
                book.end(&limit, granted, now);
                left -= free;
                if left == 0 {
                    break;
                }
                now = now.plus(MINUTE * 1440);
            }
            prop_assert_eq!(limit.lets_through(&Book::default(), people, START), now);
        }

        #[test]
        fn more_people_never_take_less_time(
            messages in 1..60_u32, seconds in 1..604_800_u64, few in 0..u64::MAX, more in 0..u64::MAX,
        ) {
            let mut limit = rate(messages, seconds);
            limit.warm_up = warm_up(2, &[messages]).warm_up;
            let (few, more) = (few.min(more), few.max(more));
            let at = |people| limit.lets_through(&Book::default(), people, START);
            prop_assert!(START <= at(few) && at(few) <= at(more));
        }
    }
}
