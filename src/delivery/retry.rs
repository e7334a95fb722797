//! When to try again: after 1, 5, 15 and 60 minutes, then hourly with jitter; what can be refused for 24 hours, the
//! service side for 5 days from the first attempt; a notice until everyone is to be told, but for a day at least, so that
//! whoever cannot be reached is known in time for another way. Pure.

use std::time::Duration;

use crate::decision::Class;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long after the first attempt a message of this class is still tried; `until_then` is how long that is where its
/// content says until when, as a notice's does.
pub fn window(class: Class, until_then: Option<Duration>) -> Duration {
    match until_then {
        Some(until_then) => until_then.max(DAY),
        None if class.can_be_refused() => DAY,
        None => 5 * DAY,
    }
}

/// How long to wait after the `attempts`-th attempt (counted from 1), `elapsed` after the first one; none when the
/// next attempt would fall out of the `window`. `jitter` is a random number from 0 to 1: it moves the hourly attempts by up
/// to ten minutes, so that a large campaign does not come back all at once.
pub fn after(window: Duration, attempts: u32, elapsed: Duration, jitter: f64) -> Option<Duration> {
    let wait = match attempts {
        0 | 1 => MINUTE,
        2 => 5 * MINUTE,
        3 => 15 * MINUTE,
        4 => HOUR,
        _ => HOUR + (10 * MINUTE).mul_f64(jitter.clamp(0.0, 1.0)),
    };
    (elapsed + wait <= window).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tries(window: Duration) -> (u32, Duration) {
        let (mut attempts, mut elapsed) = (1, Duration::ZERO);
        while let Some(wait) = after(window, attempts, elapsed, 0.0) {
            attempts += 1;
            elapsed += wait;
        }
        (attempts, elapsed)
    }

    #[test]
    fn the_first_waits_are_1_5_15_and_60_minutes() {
        let window = window(Class::Service, None);
        let waits: Vec<_> = (1..6)
            .filter_map(|n| after(window, n, Duration::ZERO, 0.0))
            .map(|wait| wait.as_secs() / 60)
            .collect();
        assert_eq!(waits, [1, 5, 15, 60, 60]);
        assert_eq!(after(window, 9, Duration::ZERO, 1.0), Some(70 * MINUTE));
    }

    #[test]
    fn what_can_be_refused_is_tried_for_a_day_and_the_service_side_for_five() {
        let (_, marketing) = tries(window(Class::Marketing, None));
        assert!(marketing > 22 * HOUR && marketing <= DAY);
        let (_, service) = tries(window(Class::Service, None));
        assert!(service > 4 * DAY && service <= 5 * DAY);
    }

    #[test]
    fn a_notice_is_tried_until_everyone_is_to_be_told_and_for_a_day_at_least() {
        let (_, notice) = tries(window(Class::Notice, Some(20 * DAY)));
        assert!(notice > 19 * DAY && notice <= 20 * DAY);
        let (_, late) = tries(window(Class::Notice, Some(Duration::ZERO)));
        assert!(late > 22 * HOUR && late <= DAY);
    }
}
