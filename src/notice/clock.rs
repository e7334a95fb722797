//! The clock of a notice: by when everyone is to be told, when the last one will be, and whether that is in time. Pure.

use std::time::Duration;

use crate::clock::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Messages a second that are counted on where nothing was measured yet.
const ASSUMED_PER_SECOND: f64 = 10.0;

/// By when everyone is to be told: the effective date less the lead time; less a day where that has passed already, which
/// takes a reason.
pub fn complete_by(effective_at: Timestamp, lead_time_days: i64, now: Timestamp) -> Timestamp {
    let lead = DAY * u32::try_from(lead_time_days.max(0)).unwrap_or(u32::MAX);
    let at = Timestamp(effective_at.0.saturating_sub(crate::clock::micros(lead)));
    if at >= now { at } else { Timestamp(effective_at.0.saturating_sub(crate::clock::micros(DAY))) }
}

/// What the queue and the relay look like.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outlook {
    /// Those who are still to be told.
    pub pending: u64,
    /// Messages of the service side that wait besides; they go at the same time.
    pub beside: u64,
    /// How many messages a second were handed over lately while some waited.
    pub measured_per_second: Option<f64>,
    /// How many a second the relay's own limit allows.
    pub allowed_per_second: Option<f64>,
    /// When the one that is tried again last is tried again.
    pub last_due: Option<Timestamp>,
    /// Until when the warm-up of the relay, or the limit of a domain, keeps somebody waiting, as far as is known.
    pub limited_until: Option<Timestamp>,
    /// Whether any worker is alive.
    pub sending: bool,
}

impl Outlook {
    /// How many messages a second can be counted on.
    pub fn per_second(&self) -> f64 {
        let measured = self.measured_per_second.unwrap_or(ASSUMED_PER_SECOND);
        self.allowed_per_second.map_or(measured, |allowed| measured.min(allowed)).max(0.001)
    }

    /// When the last one will be handed over: once the rate allows for everyone, nobody is put off any more and no limit
    /// keeps anybody; none while nobody sends.
    pub fn projected_end(&self, now: Timestamp) -> Option<Timestamp> {
        if self.pending == 0 {
            return Some(now);
        }
        if !self.sending {
            return None;
        }
        let seconds = (self.pending + self.beside) as f64 / self.per_second();
        // A century is as good as never, and can be added.
        let end = now.plus(Duration::from_secs_f64(seconds.min(3.2e9)));
        Some([self.last_due, self.limited_until].into_iter().flatten().fold(end, Timestamp::max))
    }
}

/// A look at how much was handed over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// All that was ever sent until then.
    pub sent: u64,
    /// Whether anything waited that no limit kept, for somebody who sends.
    pub waited: bool,
}

/// How many messages a second are counted on after a second look: what was handed over in between while some waited, half
/// of it new and half what was known. Where nothing waited the rate says nothing about what the relay can take, unless
/// it is higher than what was known.
pub fn measured(known: Option<f64>, before: Sample, after: Sample) -> Option<f64> {
    let seconds = after.at.since(before.at).as_secs_f64();
    if seconds <= 0.0 {
        return known;
    }
    let rate = after.sent.saturating_sub(before.sent) as f64 / seconds;
    let busy = before.waited && after.waited;
    match known {
        None if busy || rate > ASSUMED_PER_SECOND => Some(rate),
        None => None,
        Some(known) if busy => Some((known + rate) / 2.0),
        Some(known) => Some(known.max(rate)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAYS: i64 = 24 * 3600 * 1_000_000;

    #[test]
    fn everyone_is_told_a_lead_time_before_or_a_day_before_where_that_is_over() {
        let now = Timestamp(1000 * DAYS);
        assert_eq!(complete_by(Timestamp(1040 * DAYS), 30, now), Timestamp(1010 * DAYS));
        assert_eq!(complete_by(Timestamp(1030 * DAYS), 30, now), now);
        assert_eq!(complete_by(Timestamp(1029 * DAYS), 30, now), Timestamp(1028 * DAYS));
    }

    #[test]
    fn the_end_comes_from_the_rate_the_queue_and_what_is_put_off() {
        let now = Timestamp(0);
        let outlook = Outlook {
            pending: 90,
            beside: 10,
            measured_per_second: Some(50.0),
            sending: true,
            ..Outlook::default()
        };
        assert_eq!(outlook.projected_end(now), Some(Timestamp(2_000_000)));
        let limited = Outlook { allowed_per_second: Some(1.0), ..outlook };
        assert_eq!(limited.projected_end(now), Some(Timestamp(100_000_000)));
        let put_off = Outlook { last_due: Some(Timestamp(9_000_000)), ..outlook };
        assert_eq!(put_off.projected_end(now), Some(Timestamp(9_000_000)));
        let limited = Outlook { limited_until: Some(Timestamp(8_000_000)), ..put_off };
        assert_eq!(limited.projected_end(now), Some(Timestamp(9_000_000)));
        let limited = Outlook { limited_until: Some(Timestamp(10_000_000)), ..put_off };
        assert_eq!(limited.projected_end(now), Some(Timestamp(10_000_000)));
        let passed = Outlook { limited_until: Some(now), ..outlook };
        assert_eq!(passed.projected_end(now), outlook.projected_end(now));
        assert_eq!(Outlook { sending: false, ..outlook }.projected_end(now), None);
        assert_eq!(Outlook { pending: 0, sending: false, ..outlook }.projected_end(now), Some(now));
    }

    #[test]
    fn an_idle_relay_says_nothing_about_its_rate() {
        let at = |seconds: i64, sent, waited| Sample { at: Timestamp(seconds * 1_000_000), sent, waited };
        assert_eq!(measured(None, at(0, 0, false), at(10, 1000, false)), Some(100.0));
        assert_eq!(measured(None, at(0, 0, false), at(10, 20, false)), None);
        assert_eq!(measured(None, at(0, 0, true), at(10, 20, true)), Some(2.0));
        assert_eq!(measured(Some(100.0), at(0, 0, false), at(10, 10, false)), Some(100.0));
        assert_eq!(measured(Some(100.0), at(0, 0, true), at(10, 0, true)), Some(50.0));
        assert_eq!(measured(Some(100.0), at(5, 0, true), at(5, 0, true)), Some(100.0));
    }
}
