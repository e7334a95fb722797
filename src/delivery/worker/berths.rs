//! Berths: the right of a connection to be open, where the settings limit how many all workers may have at the relay.
//!
//! A worker process holds a share of them by a lease and asks for it again before that ends. When the lease has ended
//! nevertheless (the process was stopped, the database away), others may have taken the share: then nothing is written
//! over any connection that was opened under it, and each is closed. A process that may have no berth claims nothing, and
//! gives back what it has claimed, to those that may. Without a limit everybody gets a berth at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sea_orm::DbErr;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Worker;
use crate::app::App;
use crate::clock::{Deadline, Instant};
use crate::db::Db;
use crate::delivery::limit::Plan;
use crate::delivery::rows::limits::{Share, leave, share};

/// How long a share lasts, how much earlier a worker takes it for ended than the database does, how often it is asked for.
const LEASE: Duration = Duration::from_secs(30);
const MARGIN: Duration = Duration::from_secs(5);
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How often it is asked for while somebody waits for more.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// The berths of a worker process.
pub(super) struct Berths(Option<Arc<Shared>>);

struct Shared {
    process: Uuid,
    /// How many all processes may have.
    most: u32,
    /// How many this one could use.
    wanted: u32,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    allowed: u32,
    taken: u32,
    /// The end of the lease by our clock; another one after each that was missed.
    until: Deadline,
}

impl State {
    /// Whether the process may have any berth.
    fn allows_any(&self) -> bool {
        self.allowed > 0 && !self.until.has_passed()
    }
}

/// The right to have a connection open, given back when dropped.
pub(super) struct Berth(Option<(Arc<Shared>, Deadline)>);

impl Drop for Berth {
    fn drop(&mut self) {
        if let Some((shared, _)) = &self.0 {
            let mut state = shared.state();
            state.taken = state.taken.saturating_sub(1);
            drop(state);
            shared.changed.notify_waiters();
        }
    }
}

impl Berth {
    /// Until when something may be written over the connection; none: for ever.
    pub(super) fn until(&self) -> Option<&Deadline> {
        self.0.as_ref().map(|(_, until)| until)
    }

    /// Whether the connection is to be closed as soon as what was begun over it is settled.
    pub(super) fn is_recalled(&self) -> bool {
        self.0.as_ref().is_some_and(|(shared, until)| is_over(&shared.state(), until))
    }

    /// Waits until then.
    pub(super) async fn recalled(&self) {
        match &self.0 {
            Some((shared, until)) => shared.when(|state| is_over(state, until).then_some(())).await,
            None => std::future::pending().await,
        }
    }
}

fn is_over(state: &State, until: &Deadline) -> bool {
    until.has_passed() || state.taken > state.allowed
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while holding it leaves numbers as they were.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is what `look` looks for.
    async fn when<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let found = look(&mut self.state());
            match found {
                Some(found) => return found,
                None => changed.await,
            }
        }
    }

    async fn ask(&self, db: &Db) {
        let asked = Instant::now();
        let open = self.state().taken;
        let mine = Share { process: self.process, open, wanted: self.wanted, lease: LEASE };
        let allowed = share(db, self.most, mine).await;
        let mut state = self.state();
        match allowed {
            Ok(allowed) => {
                state.allowed = allowed;
                let until = asked.plus(LEASE - MARGIN);
                if state.until.has_passed() {
                    // Whoever had a berth under the lease that was missed keeps its end, which has passed.
                    state.until = Deadline::at(until);
                } else {
                    state.until.move_to(until);
                }
            }
            Err(error) => tracing::warn!(%error, "could not ask for a share of the relay's connections"),
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

impl Berths {
    /// For a process that could use `wanted` connections, where all may have `most`.
    pub(super) fn new(most: Option<u32>, wanted: usize) -> Self {
        Self(most.map(|most| {
            let state = State { allowed: 0, taken: 0, until: Deadline::at(Instant::now()) };
            Arc::new(Shared {
                process: Uuid::now_v7(),
                most,
                wanted: u32::try_from(wanted).unwrap_or(u32::MAX),
                state: Mutex::new(state),
                changed: Notify::new(),
            })
        }))
    }

    /// Waits for a berth; none once `stop`.
    pub(super) async fn take(&self, stop: &CancellationToken) -> Option<Berth> {
        let Some(shared) = &self.0 else { return Some(Berth(None)) };
        let taken = shared.when(|state| {
            if state.taken >= state.allowed || state.until.has_passed() {
                return None;
            }
            state.taken += 1;
            Some(state.until.clone())
        });
        let until = stop.run_until_cancelled(taken).await?;
        Some(Berth(Some((shared.clone(), until))))
    }

    /// Waits until the process may have a berth.
    pub(super) async fn any(&self) {
        if let Some(shared) = &self.0 {
            shared.when(|state| state.allows_any().then_some(())).await;
        }
    }
}

/// Pays the relay a visit over one connection, under a berth of its own where connections are limited. Not at all when none
/// is free: then others are connected. A visit that takes too long is broken off; it sends nothing.
///
/// # Errors
/// The database's own.
pub async fn visit<T>(app: &App, visit: impl Future<Output = T>) -> Result<Option<T>, DbErr> {
    let Some(most) = Plan::new(&app.settings.limits).connections() else { return Ok(Some(visit.await)) };
    let mine = Share { process: Uuid::now_v7(), open: 0, wanted: 1, lease: LEASE };
    let asked = Instant::now();
    let visited = if share(&app.db, most, mine).await? > 0 {
        let left = (LEASE - MARGIN).saturating_sub(asked.elapsed());
        tokio::time::timeout(left, visit).await.ok()
    } else {
        None
    };
    leave(&app.db, mine.process).await?;
    Ok(visited)
}

/// Asks for the process's share again and again until `done`, then gives it back. While there is none, what waits for a
/// connection is given back.
pub(super) async fn keep(worker: Arc<Worker>, done: CancellationToken) {
    let Some(shared) = &worker.berths.0 else { return };
    let db = &worker.app.db;
    loop {
        shared.ask(db).await;
        let (none, short, over) = {
            let state = shared.state();
            let short = state.allowed < shared.wanted.min(shared.most);
            (!state.allows_any(), short, state.taken > state.allowed)
        };
        if none {
            worker.give_back(worker.outbox.empty()).await;
        }
        let pause = if short || over { ASK_AGAIN } else { ASK_EVERY };
        if done.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            break;
        }
    }
    if let Err(error) = leave(db, shared.process).await {
        tracing::warn!(%error, "could not give back a share of the relay's connections; its lease will end");
    }
}
