//! What a destination, or the relay itself, says about our pace, and how long it is left alone for it.
//!
//! | said | means |
//! |---|---|
//! | 421 up to MAIL; 454 anywhere; 4.7.0 or 4.7.28 at MAIL | the relay is to be left alone |
//! | from RCPT on: 421 with 4.7.x; 4.7.28; 451 with 4.7.0; 4.7.500 and above (Microsoft's own) | the recipient's domain is |
//! | any other 421 or 451 | a strike: five of them within five minutes with no success in between mean the same |
//! | 250 after the message | a success of both |
//!
//! Left alone means: for ten minutes nothing goes there (Google asks for no less), then one message at a time, then twice
//! as many after each round of successes, until nobody counts any more. Told again meanwhile, the next rest is twice as
//! long, up to an hour. The relay's rests are of seconds: it is ours, and everybody's mail waits behind it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Name;
use crate::clock::Timestamp;
use crate::relay::{Outcome, Phase, Reply};

/// So many strikes within this long mean to stay away.
const BURST: u32 = 5;
const BURST_WITHIN: Duration = Duration::from_secs(300);
/// The first rest of a destination and its longest; those of the relay.
const REST: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(3600));
const RELAY_REST: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// How long after the last rest its aftermath counts when nothing is sent there: then a new beginning is as good.
const HEEDED: Duration = Duration::from_secs(24 * 3600);
/// From here on the number of messages under way is not counted any more.
const FREE: u32 = 128;

/// What one side made of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Heard {
    /// It took this many.
    Welcome(u32),
    /// Not now; it may mean this message alone.
    Strike,
    /// Stay away.
    Stop,
}

/// What an outcome says about our pace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Of the relay.
    pub relay: Option<Heard>,
    /// Of the recipient's domain.
    pub domain: Option<Heard>,
}

/// What an outcome says about our pace, to whom.
pub fn said(outcome: &Outcome) -> Said {
    let of_relay = |heard| Said { relay: Some(heard), domain: None };
    let of_domain = |heard| Said { relay: None, domain: Some(heard) };
    match outcome {
        Outcome::Sent(_) => Said { relay: Some(Heard::Welcome(1)), domain: Some(Heard::Welcome(1)) },
        Outcome::Deferred(_, reply) if reply.code == 454 => of_relay(Heard::Stop),
        Outcome::Deferred(phase, reply) if *phase <= Phase::MailFrom => match reply.code {
            421 => of_relay(Heard::Stop),
            _ if speaks_of_pace(reply) => of_relay(Heard::Stop),
            451 => of_relay(Heard::Strike),
            _ => Said::default(),
        },
        Outcome::Deferred(_, reply) if speaks_of_pace(reply) => of_domain(Heard::Stop),
        Outcome::Deferred(_, reply) if matches!(reply.code, 421 | 451) => of_domain(Heard::Strike),
        _ => Said::default(),
    }
}

/// Greylisting says 4.7.1 with 450 or 451: that is about one message, and no reason to leave everybody waiting.
fn speaks_of_pace(reply: &Reply) -> bool {
    let Some(detail) = reply.enhanced.as_deref().and_then(|code| code.strip_prefix("4.7.")) else {
        return false;
    };
    match (reply.code, detail) {
        (421, _) | (_, "28") | (451, "0") => true,
        (_, detail) => detail.parse::<u32>().is_ok_and(|detail| detail >= 500),
    }
}

/// What those words amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackOff {
    /// Strikes since the last success, and the first of them, in microseconds since 1970.
    strikes: u32,
    first_strike: i64,
    /// Nothing goes there before; in microseconds since 1970.
    paused_until: Option<i64>,
    /// Rests since nobody had to be counted.
    rests: u32,
    /// How many messages may be under way at once; none: nobody counts.
    width: Option<u32>,
    /// Successes since the width was that.
    wins: u32,
    /// When the last rest was over, in microseconds since 1970.
    since: i64,
}

impl BackOff {
    /// Whether there is nothing to remember.
    pub fn is_over(&self) -> bool {
        *self == Self::default()
    }

    /// Until when any of it counts; none when there is nothing to remember.
    pub fn heed_until(&self) -> Option<Timestamp> {
        match (self.width, self.paused_until()) {
            (Some(_), until) => Some(until.unwrap_or(Timestamp(self.since)).plus(HEEDED)),
            (None, _) if self.strikes > 0 => Some(Timestamp(self.first_strike).plus(BURST_WITHIN)),
            _ => None,
        }
    }

    /// Forgets what does not count any more.
    pub fn lapse(&mut self, now: Timestamp) {
        if self.heed_until().is_none_or(|until| until <= now) {
            *self = Self::default();
        }
    }

    /// Until when nothing may go; a moment that has passed when it may again.
    pub fn paused_until(&self) -> Option<Timestamp> {
        self.paused_until.map(Timestamp)
    }

    /// How many messages may be under way at once.
    pub fn width(&self) -> Option<u32> {
        self.width
    }

    /// Takes in what the one of this name said.
    pub fn hear(&mut self, name: &Name, heard: Heard, now: Timestamp) {
        if self.paused_until().is_some_and(|until| now < until) {
            // What was under way when the rest began still comes in; it speaks of the time before.
            return;
        }
        match heard {
            Heard::Welcome(messages) => self.welcome(messages),
            Heard::Stop => self.rest(name, now),
            Heard::Strike => {
                if self.strikes == 0 || now.since(Timestamp(self.first_strike)) > BURST_WITHIN {
                    (self.strikes, self.first_strike) = (0, now.0);
                }
                self.strikes += 1;
                if self.strikes >= BURST {
                    self.rest(name, now);
                }
            }
        }
    }

    fn rest(&mut self, name: &Name, now: Timestamp) {
        let (first, longest) = if *name == Name::Relay { RELAY_REST } else { REST };
        let rest = first.saturating_mul(1 << self.rests.min(20)).min(longest);
        *self = Self {
            paused_until: Some(now.plus(rest).0),
            rests: self.rests.saturating_add(1),
            width: Some(1),
            since: now.plus(rest).0,
            ..Self::default()
        };
    }

    fn welcome(&mut self, messages: u32) {
        (self.strikes, self.first_strike) = (0, 0);
        let Some(mut width) = self.width else { return };
        self.paused_until = None;
        self.wins = self.wins.saturating_add(messages);
        // A round has as many messages as may be under way at once, so one batch of news may hold several rounds.
        while self.wins >= width {
            self.wins -= width;
            width = width.saturating_mul(2);
            if width >= FREE {
                *self = Self::default();
                return;
            }
        }
        self.width = Some(width);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn deferred(phase: Phase, code: u16, enhanced: Option<&str>) -> Said {
        said(&Outcome::Deferred(
            phase,
            Reply { code, enhanced: enhanced.map(str::to_owned), text: String::new() },
        ))
    }

    #[test]
    fn each_reply_speaks_of_the_relay_or_of_one_destination() {
        use Heard::{Stop, Strike, Welcome};
        let relay = |heard| Said { relay: Some(heard), domain: None };
        let domain = |heard| Said { relay: None, domain: Some(heard) };
        for (phase, code, enhanced, means) in [
            (Phase::Greeting, 421, None, relay(Stop)),
            (Phase::MailFrom, 421, None, relay(Stop)),
            (Phase::MailFrom, 451, None, relay(Strike)),
            (Phase::MailFrom, 451, Some("4.7.0"), relay(Stop)),
            (Phase::MailFrom, 452, Some("4.3.1"), Said::default()),
            (Phase::RcptTo, 454, Some("4.7.0"), relay(Stop)),
            (Phase::RcptTo, 421, Some("4.7.28"), domain(Stop)),
            (Phase::FinalDot, 421, Some("4.7.0"), domain(Stop)),
            (Phase::FinalDot, 421, Some("4.7.1"), domain(Stop)),
            (Phase::RcptTo, 450, Some("4.7.28"), domain(Stop)),
            (Phase::Data, 451, Some("4.7.0"), domain(Stop)),
            (Phase::RcptTo, 451, Some("4.7.500"), domain(Stop)),
            (Phase::RcptTo, 451, Some("4.7.1"), domain(Strike)),
            (Phase::RcptTo, 421, None, domain(Strike)),
            (Phase::RcptTo, 421, Some("4.3.2"), domain(Strike)),
            (Phase::RcptTo, 450, Some("4.7.1"), Said::default()),
            (Phase::RcptTo, 450, Some("4.2.1"), Said::default()),
            (Phase::RcptTo, 452, Some("4.2.2"), Said::default()),
        ] {
            assert_eq!(deferred(phase, code, enhanced), means, "{code} {enhanced:?} at {phase}");
        }
        let sent = Outcome::Sent(Reply { code: 250, enhanced: None, text: String::new() });
        assert_eq!(said(&sent), Said { relay: Some(Welcome(1)), domain: Some(Welcome(1)) });
        assert_eq!(said(&Outcome::NotSent(Phase::RcptTo, "lost".into())), Said::default());
    }

    fn gmail() -> Name {
        Name::Domain("gmail.com".into())
    }

    #[test]
    fn a_destination_rests_ten_minutes_then_gets_one_at_a_time_then_twice_as_many_each_round() {
        let mut back_off = BackOff::default();
        back_off.hear(&gmail(), Heard::Stop, NOW);
        assert_eq!(back_off.paused_until(), Some(NOW.plus(10 * MINUTE)));
        // What was under way comes in and changes nothing.
        back_off.hear(&gmail(), Heard::Stop, NOW.plus(MINUTE));
        back_off.hear(&gmail(), Heard::Welcome(9), NOW.plus(MINUTE));
        assert_eq!((back_off.paused_until(), back_off.width()), (Some(NOW.plus(10 * MINUTE)), Some(1)));
        let after = NOW.plus(10 * MINUTE);
        let mut widths = Vec::new();
        for _ in 0..7 {
            back_off.hear(&gmail(), Heard::Welcome(1), after);
            widths.push(back_off.width().unwrap());
        }
        assert_eq!(widths, [2, 2, 4, 4, 4, 4, 8]);
        back_off.hear(&gmail(), Heard::Welcome(1_000), after);
        assert!(back_off.is_over());
    }

    #[test]
    fn told_again_it_rests_twice_as_long_up_to_an_hour() {
        let mut back_off = BackOff::default();
        let mut now = NOW;
        let mut rests = Vec::new();
        for _ in 0..5 {
            back_off.hear(&gmail(), Heard::Stop, now);
            let until = back_off.paused_until().unwrap();
            rests.push(until.since(now).as_secs() / 60);
            now = until;
            back_off.hear(&gmail(), Heard::Welcome(1), now);
        }
        assert_eq!(rests, [10, 20, 40, 60, 60]);
        let mut relay = BackOff::default();
        relay.hear(&Name::Relay, Heard::Stop, NOW);
        assert_eq!(relay.paused_until(), Some(NOW.plus(Duration::from_secs(2))));
    }

    #[test]
    fn what_was_said_is_forgotten_after_a_while() {
        let mut back_off = BackOff::default();
        back_off.hear(&gmail(), Heard::Strike, NOW);
        back_off.lapse(NOW.plus(4 * MINUTE));
        assert!(!back_off.is_over());
        back_off.lapse(NOW.plus(5 * MINUTE));
        assert!(back_off.is_over());
        back_off.hear(&gmail(), Heard::Stop, NOW);
        back_off.hear(&gmail(), Heard::Welcome(1), NOW.plus(11 * MINUTE));
        back_off.lapse(NOW.plus(1_400 * MINUTE));
        assert_eq!(back_off.width(), Some(2));
        back_off.lapse(NOW.plus(1_450 * MINUTE));
        assert!(back_off.is_over());
    }

    #[test]
    fn only_a_burst_of_strikes_without_a_success_means_to_stay_away() {
        let mut back_off = BackOff::default();
        let strike = |back_off: &mut BackOff, times: u32, now| {
            (0..times).for_each(|_| back_off.hear(&gmail(), Heard::Strike, now));
        };
        strike(&mut back_off, 4, NOW);
        back_off.hear(&gmail(), Heard::Welcome(1), NOW);
        assert!(back_off.is_over());
        strike(&mut back_off, 4, NOW);
        strike(&mut back_off, 4, NOW.plus(6 * MINUTE));
        assert_eq!(back_off.paused_until(), None);
        strike(&mut back_off, 1, NOW.plus(6 * MINUTE));
        assert!(back_off.paused_until().is_some());
    }
}
