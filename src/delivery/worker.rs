//! The worker: claims, decides, hands over, settles. It alone sends.
//!
//! ```text
//! claims ──▶ outbox ──▶ connection: make the message ──▶ clerk: begin, facts ──▶ decide ──▶ relay ──▶ clerk: settle
//!  (a lane each)          (as many as configured)             (batches)                                 (the same batch)
//! ```
//!
//! Each step is in the order that [`crate::fence`] relies on. No lock and no transaction is held while the relay speaks.
//! More workers, in this process or on other machines, change nothing: there is no leader and nothing to clean up.

mod berths;
mod breaker;
mod claims;
mod clerk;
mod connection;
mod desk;
mod gate;
mod outbox;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::berths::visit;
pub use self::breaker::note_reachable;

use self::berths::Berths;
use self::breaker::Breaker;
use self::claims::{Claim, Claims, Job, Pace};
use self::clerk::Clerk;
use self::desk::Desk;
use self::gate::Gate;
use self::outbox::Outbox;
use super::limit::Plan;
use super::rows::{self, Claimed, Depth, Fate, Lane, Settling};
use crate::app::App;
use crate::decision::Class;
use crate::id::{DeliveryId, LeaseToken};
use crate::relay::Relay;

/// How often the heartbeat is written.
const BEAT: Duration = Duration::from_secs(5);
/// How long to wait after the database failed.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);

/// What the tasks of a worker share.
struct Worker {
    app: App,
    relay: Relay,
    connections: usize,
    outbox: Outbox,
    claims: Claims,
    desk: Desk,
    clerk: Clerk,
    breaker: Breaker,
    gate: Gate,
    berths: Berths,
    pace: Pace,
}

impl Worker {
    /// How long a claim lasts unless it is renewed.
    fn lease(&self) -> Duration {
        self.app.settings.lease
    }

    /// Queues jobs again that were not begun.
    async fn give_back(&self, jobs: Vec<Job>) {
        let mut of: HashMap<LeaseToken, Vec<DeliveryId>> = HashMap::new();
        for job in jobs {
            of.entry(job.claim.token).or_default().push(job.held.id);
        }
        for (token, ids) in of {
            if let Err(error) = rows::give_back(&self.app.db, &ids, token).await {
                tracing::warn!(deliveries = ids.len(), %error, "could not give back; the lease will end");
            }
        }
    }

    /// Ends deliveries that need no connection.
    async fn end(&self, ends: Vec<Settling>) {
        self.clerk.turn(ends, Vec::new()).await;
    }

    /// Ends deliveries that can never be sent.
    async fn give_up(&self, claim: &Claim, held: Vec<Claimed>, why: &str) {
        let fate = Fate::Failed(why.to_owned());
        let token = claim.token;
        let ends = held.into_iter().map(|held| Settling { held, token, fate: fate.clone(), attempt: None });
        self.end(ends.collect()).await;
    }
}

/// Works until `stop`; then finishes what is in flight, gives the rest back and returns.
pub async fn run(app: App, relay: Relay, stop: CancellationToken) {
    let connections = usize::from(app.settings.worker_connections.max(1));
    let (clerk, counter) = Clerk::new(app.db.clone(), app.settings.relay_silence);
    let counter = tokio::spawn(counter.run());
    let plan = Plan::new(&app.settings.limits);
    let worker = Arc::new(Worker {
        relay,
        connections,
        outbox: Outbox::default(),
        claims: Claims::default(),
        desk: Desk::new(app.clone()),
        clerk,
        breaker: Breaker::default(),
        berths: Berths::new(plan.connections(), connections),
        gate: Gate::new(plan),
        pace: Pace::new(connections),
        app: app.clone(),
    });
    let (claimers, hands, keepers) = (TaskTracker::new(), TaskTracker::new(), TaskTracker::new());
    for lane in Lane::ALL {
        let (worker, stop) = (worker.clone(), stop.clone());
        claimers.spawn(again_after_a_panic(move || claims::run(worker.clone(), lane, stop.clone())));
    }
    for _ in 0..connections {
        hands.spawn(connection::run(worker.clone(), stop.clone()));
    }
    let done = CancellationToken::new();
    let (kept, until) = (worker.clone(), done.clone());
    keepers.spawn(again_after_a_panic(move || claims::keep(kept.clone(), until.clone())));
    keepers.spawn(app.db.clone().listen(done.clone()));
    keepers.spawn(berths::keep(worker.clone(), done.clone()));
    keepers.spawn(beat(worker.clone(), done.clone()));
    for tracker in [&claimers, &hands, &keepers] {
        tracker.close();
    }
    stop.cancelled().await;
    claimers.wait().await;
    let waiting = worker.outbox.close();
    tracing::info!(
        giving_back = waiting.len(),
        connections = hands.len(),
        "the worker is stopping: it finishes what is being handed over"
    );
    worker.give_back(waiting).await;
    hands.wait().await;
    done.cancel();
    keepers.wait().await;
    drop(worker);
    if let Err(error) = counter.await {
        tracing::error!(%error, "the clerk did not come to its end");
    }
}

/// Runs a loop to its end, and anew after a panic, which was logged where it happened: without its loops a worker would only
/// seem to work.
async fn again_after_a_panic<F: Future<Output = ()>>(run: impl Fn() -> F) {
    while AssertUnwindSafe(run()).catch_unwind().await.is_err() {
        tokio::time::sleep(DATABASE_PAUSE).await;
    }
}

async fn beat(worker: Arc<Worker>, done: CancellationToken) {
    let app = &worker.app;
    loop {
        let handed_over = worker.pace.take_untold();
        if let Err(error) = rows::beat(&app.db, handed_over as u64).await {
            worker.pace.put_back_untold(handed_over);
            tracing::warn!(%error, "could not write the heartbeat");
        }
        match rows::depths(&app.db, app.db.reads()).await {
            Ok(depths) => show(&depths),
            Err(error) => tracing::warn!(%error, "could not look how much is queued"),
        }
        if done.run_until_cancelled(tokio::time::sleep(BEAT)).await.is_none() {
            return;
        }
    }
}

/// Shows how much is queued, of every class, so that what came to nothing is shown as such.
fn show(depths: &[Depth]) {
    for class in Class::ALL {
        let depth = depths.iter().find(|depth| depth.class == class);
        let shown = |state: &'static str, n: Option<i64>| {
            metrics::gauge!("tidings_queue_deliveries", "class" => class.as_str(), "state" => state)
                .set(n.unwrap_or(0) as f64);
        };
        shown("queued", depth.map(|depth| depth.queued));
        shown("sending", depth.map(|depth| depth.sending));
        let oldest = depth.and_then(|depth| depth.oldest).unwrap_or(0).max(0);
        metrics::gauge!("tidings_queue_oldest_seconds", "class" => class.as_str()).set(oldest as f64 / 1e6);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_loop_that_panics_is_run_anew_until_it_comes_to_its_end() {
        let runs = AtomicUsize::new(0);
        again_after_a_panic(|| async { assert!(runs.fetch_add(1, Ordering::Relaxed) == 1) }).await;
        assert_eq!(runs.into_inner(), 2);
    }
}
