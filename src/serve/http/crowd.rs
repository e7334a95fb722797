//! The connections that are open, and which of them makes room.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Limits;

/// Since when a connection waits for its client, if it does: for a head or for more of a body, and for what is being sent
/// to be taken. Each is zero while it does not, else milliseconds since the crowd began, and one.
#[derive(Debug)]
pub(super) struct Turn {
    begun: Instant,
    listening: AtomicU64,
    sending: AtomicU64,
}

impl Turn {
    fn new(begun: Instant) -> Self {
        let turn = Self { begun, listening: AtomicU64::new(0), sending: AtomicU64::new(0) };
        turn.clients_since(turn.moment());
        turn
    }

    /// This moment, for [`Turn::clients_since`].
    pub(super) fn moment(&self) -> u64 {
        moment(self.begun)
    }

    /// The program works on a request.
    pub(super) fn ours(&self) {
        self.listening.store(0, Ordering::Relaxed);
    }

    /// The client has been to send a head, or more of a body, since then.
    pub(super) fn clients_since(&self, moment: u64) {
        self.listening.store(moment, Ordering::Relaxed);
    }

    /// The client does not take what is sent to it.
    pub(super) fn stalls(&self) {
        let _ = self.sending.compare_exchange(0, self.moment(), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// It has taken some.
    pub(super) fn flows(&self) {
        self.sending.store(0, Ordering::Relaxed);
    }

    /// How long the client has been keeping us waiting until this moment; none when it is the other way round.
    fn waited(&self, until: u64) -> Option<Duration> {
        let [listening, sending] = [&self.listening, &self.sending].map(|at| at.load(Ordering::Relaxed));
        let since = if sending > 0 { sending } else { listening };
        (since > 0).then(|| Duration::from_millis(until.saturating_sub(since)))
    }
}

/// Milliseconds since then, and one.
fn moment(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

struct Member {
    turn: Arc<Turn>,
    shown_out: CancellationToken,
}

#[derive(Default)]
struct Members {
    next: u64,
    open: HashMap<u64, Member>,
}

/// Every open connection.
#[derive(Clone)]
pub(super) struct Crowd(Arc<Inner>);

struct Inner {
    begun: Instant,
    limits: Limits,
    members: Mutex<Members>,
    left: Notify,
}

impl Inner {
    fn members(&self) -> MutexGuard<'_, Members> {
        // Nothing in here panics while it holds the lock.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Crowd {
    pub(super) fn new(limits: Limits) -> Self {
        let members = Mutex::new(Members::default());
        Self(Arc::new(Inner { begun: Instant::now(), limits, members, left: Notify::new() }))
    }

    /// Returns once another connection may be taken, for which the client that has kept us waiting longest is shown out.
    pub(super) async fn room(&self) {
        while let Some(pause) = self.make_room(moment(self.0.begun)) {
            // Whichever comes first: somebody has left, or somebody's grace is over.
            let _ = tokio::time::timeout(pause, self.0.left.notified()).await;
        }
    }

    /// None when there is room, else how long to wait before looking again.
    fn make_room(&self, now: u64) -> Option<Duration> {
        let grace = self.0.limits.grace;
        let members = self.0.members();
        if members.open.len() < self.0.limits.connections {
            return None;
        }
        let staying = members.open.iter().filter(|(_, member)| !member.shown_out.is_cancelled());
        let slow = staying.filter_map(|(number, member)| Some((member.turn.waited(now)?, number, member)));
        // Of those who came within a millisecond the first.
        match slow.max_by_key(|(waited, number, _)| (*waited, Reverse(**number))) {
            Some((waited, _, member)) if waited >= grace => {
                member.shown_out.cancel();
                metrics::counter!("tidings_http_connections_shed_total").increment(1);
                Some(grace)
            }
            Some((waited, ..)) => Some(grace.saturating_sub(waited)),
            None => Some(grace),
        }
    }

    /// Takes another connection, which ends with all of them.
    pub(super) fn enter(&self, all: &CancellationToken) -> Guest {
        let turn = Arc::new(Turn::new(self.0.begun));
        let shown_out = all.child_token();
        let mut members = self.0.members();
        let number = members.next;
        members.next += 1;
        members.open.insert(number, Member { turn: turn.clone(), shown_out: shown_out.clone() });
        metrics::gauge!("tidings_http_connections").set(members.open.len() as f64);
        Guest { crowd: self.clone(), number, turn, shown_out }
    }
}

/// A connection's place in the crowd, given back when dropped.
pub(super) struct Guest {
    crowd: Crowd,
    number: u64,
    turn: Arc<Turn>,
    shown_out: CancellationToken,
}

impl Guest {
    /// Whose turn it is on this connection.
    pub(super) fn turn(&self) -> Arc<Turn> {
        self.turn.clone()
    }

    /// Runs the connection to its end; none when it was shown out before.
    pub(super) async fn until_shown_out<T>(&self, connection: impl Future<Output = T>) -> Option<T> {
        self.shown_out.run_until_cancelled(connection).await
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut members = self.crowd.0.members();
        members.open.remove(&self.number);
        metrics::gauge!("tidings_http_connections").set(members.open.len() as f64);
        drop(members);
        self.crowd.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd() -> (Crowd, CancellationToken) {
        let limits = Limits { connections: 2, grace: Duration::from_secs(1), ..Limits::default() };
        (Crowd::new(limits), CancellationToken::new())
    }

    #[test]
    fn who_has_kept_us_waiting_longest_makes_room_and_never_whom_we_keep_waiting() {
        let (crowd, all) = crowd();
        let busy = crowd.enter(&all);
        busy.turn.ours();
        assert_eq!(crowd.make_room(1), None);
        let idle = crowd.enter(&all);
        idle.turn.clients_since(5_000);
        assert_eq!(crowd.make_room(5_400), Some(Duration::from_millis(600)));
        assert!(!idle.shown_out.is_cancelled());
        assert!(crowd.make_room(6_000).is_some());
        assert!(idle.shown_out.is_cancelled() && !busy.shown_out.is_cancelled());
        drop(idle);
        assert_eq!(crowd.make_room(6_000), None);
        let both = crowd.enter(&all);
        both.turn.ours();
        assert!(crowd.make_room(600_000).is_some());
        assert!(!busy.shown_out.is_cancelled() && !both.shown_out.is_cancelled());
    }

    #[test]
    fn a_client_that_takes_nothing_keeps_us_waiting_too() {
        let (crowd, all) = crowd();
        let guest = crowd.enter(&all);
        guest.turn.ours();
        assert_eq!(guest.turn.waited(10_000), None);
        guest.turn.stalls();
        assert!(guest.turn.waited(10_000).is_some_and(|waited| waited > Duration::from_secs(5)));
        guest.turn.flows();
        assert_eq!(guest.turn.waited(10_000), None);
    }
}
