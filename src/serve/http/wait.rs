//! A wait for a client, which ends when the client's time is up.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// How much a body or an answer must move on average for each second that the client lets the server wait, in octets.
const LEAST_RATE: u64 = 1024;

/// How long a client may let the server wait for octets, how long it has, and how many moved.
struct Patience {
    most: Duration,
    waited: Duration,
    moved: u64,
}

impl Patience {
    /// How long the next wait may be.
    fn left(&self) -> Duration {
        let earned = Duration::from_secs(self.moved / LEAST_RATE);
        self.most.saturating_add(earned).saturating_sub(self.waited).min(self.most)
    }

    fn moved(&mut self, octets: usize, waited: Duration) {
        self.moved = self.moved.saturating_add(octets as u64);
        self.waited = self.waited.saturating_add(waited);
    }
}

/// The waits for one client.
pub(super) struct Wait {
    patience: Patience,
    /// The wait that goes on now: since when, and when it is over.
    going_on: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Wait {
    /// As long as `most` in all and at a time; beyond it another second for each 1,024 octets.
    pub(super) fn new(most: Duration) -> Self {
        Self { patience: Patience { most, waited: Duration::ZERO, moved: 0 }, going_on: None }
    }

    /// So many octets moved, which ends the wait that went on.
    pub(super) fn moved(&mut self, octets: usize) {
        let waited = self.going_on.take().map(|(since, _)| since.elapsed()).unwrap_or_default();
        self.patience.moved(octets, waited);
    }

    /// Nothing moves: pending until the time is up.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let left = self.patience.left();
        let begin = || (Instant::now(), Box::pin(tokio::time::sleep(left)));
        let (_, over) = self.going_on.get_or_insert_with(begin);
        over.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience() -> Patience {
        Patience { most: Duration::from_secs(30), waited: Duration::ZERO, moved: 0 }
    }

    #[test]
    fn patience_is_earned_by_what_moves_and_never_grows_beyond_itself() {
        let mut patience = patience();
        patience.moved(1, Duration::from_secs(20));
        assert_eq!(patience.left(), Duration::from_secs(10));
        patience.moved(5 * 1024, Duration::ZERO);
        assert_eq!(patience.left(), Duration::from_secs(15));
        patience.moved(1 << 30, Duration::ZERO);
        assert_eq!(patience.left(), Duration::from_secs(30));
    }

    #[test]
    fn one_octet_at_a_time_wears_it_out() {
        let mut patience = patience();
        for _ in 0..30 {
            assert!(!patience.left().is_zero());
            patience.moved(1, Duration::from_secs(1));
        }
        assert_eq!(patience.left(), Duration::ZERO);
    }
}
