//! Rest for a relay that cannot be reached: claims wait, and the wait grows.

use std::sync::Mutex;
use std::time::Duration;

use crate::clock::Instant;

/// The first rest, and the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Tells `/readyz` and `/metrics` whether the relay could be reached just now.
pub fn note_reachable(reachable: bool) {
    metrics::gauge!("tidings_relay_reachable").set(if reachable { 1.0 } else { 0.0 });
}

/// Whether the relay could be reached lately, shared by the connections of a worker.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    state: Mutex<Option<(Instant, Duration)>>,
}

impl Breaker {
    /// How long to leave the relay alone; zero when it may be asked.
    pub(super) fn pause(&self) -> Duration {
        self.lock().map_or(Duration::ZERO, |(until, _)| until.remaining())
    }

    /// A connection could not be opened. Connections that fail within the same rest do not make it longer.
    pub(super) fn failed(&self) {
        let mut state = self.lock();
        match *state {
            Some((until, _)) if !until.has_passed() => {}
            Some((_, rest)) => {
                let rest = (rest * 2).min(LONGEST);
                *state = Some((Instant::now().plus(rest), rest));
            }
            None => *state = Some((Instant::now().plus(FIRST), FIRST)),
        }
        note_reachable(false);
    }

    /// A connection was opened.
    pub(super) fn succeeded(&self) {
        *self.lock() = None;
        note_reachable(true);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Duration)>> {
        // A panic while holding it leaves a state as good as any.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_within_one_rest_count_once_and_a_success_ends_it() {
        let breaker = Breaker::default();
        assert!(breaker.pause().is_zero());
        breaker.failed();
        breaker.failed();
        let pause = breaker.pause();
        assert!(!pause.is_zero() && pause <= FIRST);
        breaker.succeeded();
        assert!(breaker.pause().is_zero());
    }
}
