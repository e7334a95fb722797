//! What an outcome of the SMTP dialogue means for a delivery. Pure.

use std::time::Duration;

use super::retry;
use super::rows::{Attempt, Fate};
use crate::relay::{Outcome, Reply};

/// What of a delivery's past decides its future.
#[derive(Clone, Copy, Debug)]
pub struct Past {
    /// How long after the first attempt it is tried again, see [`retry::window`].
    pub window: Duration,
    /// Its attempts, this one included.
    pub attempts: u32,
    /// The time since the first of them began.
    pub elapsed: Duration,
    /// A random number from 0 to 1.
    pub jitter: f64,
}

/// How a claim ends after this outcome, and what is kept of the attempt.
///
/// Only 4yz and what was surely not sent are tried again, and only within the window. A 5yz is never tried
/// again. When the outcome is unknown the class decides, at settling.
pub fn of(outcome: &Outcome, past: Past) -> (Fate, Attempt) {
    let wait = retry::after(past.window, past.attempts, past.elapsed, past.jitter);
    let again = |why: &str| wait.map_or_else(|| Fate::Failed(why.to_owned()), Fate::Again);
    match outcome {
        Outcome::Sent(reply) => (Fate::Sent, said("sent", None, reply)),
        Outcome::Refused(phase, reply) => {
            let mut attempt = said("refused", Some(phase.as_str()), reply);
            attempt.mailbox_gone = mailbox_gone(reply.enhanced.as_deref());
            (Fate::Failed("refused".to_owned()), attempt)
        }
        Outcome::Deferred(phase, reply) => {
            (again("deferred_too_long"), said("deferred", Some(phase.as_str()), reply))
        }
        Outcome::NotSent(phase, why) => (again("relay_not_reached"), broke("not_sent", phase.as_str(), why)),
        // The service side is tried until it is known to have been taken over; its window does not end it in doubt
        // any earlier than it would a deferral.
        Outcome::Unknown(phase, why) => {
            let fate = match wait {
                Some(wait) => Fate::Unknown(wait),
                None => Fate::Doubtful,
            };
            (fate, broke("unknown", phase.as_str(), why))
        }
    }
}

fn said(outcome: &'static str, phase: Option<&'static str>, reply: &Reply) -> Attempt {
    Attempt {
        outcome,
        phase,
        code: Some(reply.code),
        enhanced: reply.enhanced.clone(),
        reply: reply.text.clone(),
        ..Attempt::default()
    }
}

fn broke(outcome: &'static str, phase: &'static str, why: &str) -> Attempt {
    Attempt { outcome, phase: Some(phase), reply: why.to_owned(), ..Attempt::default() }
}

/// Whether a refusal says that the mailbox is gone (RFC 3463 §3.2, §3.3; RFC 7505). Without an enhanced status nobody
/// can tell a missing mailbox from a policy, so it does not count.
pub fn mailbox_gone(enhanced: Option<&str>) -> bool {
    matches!(enhanced, Some("5.1.1" | "5.1.2" | "5.1.6" | "5.1.10" | "5.2.1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Class;
    use crate::relay::Phase;

    fn reply(code: u16, enhanced: Option<&str>) -> Reply {
        Reply { code, enhanced: enhanced.map(str::to_owned), text: "words".to_owned() }
    }

    fn past(class: Class, attempts: u32, hours: u64) -> Past {
        let elapsed = Duration::from_secs(hours * 3600);
        Past { window: retry::window(class, None), attempts, elapsed, jitter: 0.0 }
    }

    #[test]
    fn a_5yz_is_never_tried_again_and_a_4yz_is_until_the_window_ends() {
        let refused = Outcome::Refused(Phase::RcptTo, reply(550, Some("5.7.1")));
        for class in Class::ALL {
            assert_eq!(of(&refused, past(class, 1, 0)).0, Fate::Failed("refused".into()));
        }
        let deferred = Outcome::Deferred(Phase::RcptTo, reply(451, None));
        assert_eq!(of(&deferred, past(Class::Marketing, 1, 0)).0, Fate::Again(Duration::from_secs(60)));
        assert!(matches!(of(&deferred, past(Class::Marketing, 20, 24)).0, Fate::Failed(_)));
        assert!(matches!(of(&deferred, past(Class::Notice, 20, 24)).0, Fate::Again(_)));
    }

    #[test]
    fn only_what_speaks_of_the_mailbox_counts_against_the_address() {
        let gone = |enhanced| {
            of(&Outcome::Refused(Phase::RcptTo, reply(550, enhanced)), past(Class::Service, 1, 0))
                .1
                .mailbox_gone
        };
        assert!(gone(Some("5.1.1")) && gone(Some("5.1.10")) && gone(Some("5.2.1")));
        assert!(!gone(Some("5.7.1")) && !gone(Some("5.2.2")) && !gone(Some("5.3.4")) && !gone(None));
    }
}
