//! The worker: claims, decides, hands over, settles. It alone sends.
//!
//! One loop claims what is due, as much as its connections can take; each connection works off one delivery after the
//! other, in the order that [`crate::fence`] relies on. No lock and no transaction is held while the relay speaks.
//! More workers, in this process or on other machines, change nothing: there is no leader and nothing to clean up.

mod breaker;
mod one;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::breaker::note_reachable;

use self::breaker::Breaker;
use self::one::Desk;
use super::rows::{self, Claimed};
use crate::app::App;
use crate::clock::{Deadline, Instant};
use crate::id::LeaseToken;
use crate::relay::{Connection, Relay};

/// How often the queue is looked at when it was empty.
const POLL: Duration = Duration::from_millis(200);
/// How often the heartbeat is written.
const BEAT: Duration = Duration::from_secs(5);
/// How long a connection without work is kept.
const IDLE: Duration = Duration::from_secs(15);
/// How long to wait after the database failed.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);

/// A claimed delivery on its way to a connection.
struct Job {
    held: Claimed,
    token: LeaseToken,
    until: Deadline,
}

/// Works until `stop`; then finishes what is in flight, gives the rest back and returns.
pub async fn run(app: App, relay: Relay, stop: CancellationToken) {
    let connections = usize::from(app.settings.worker_connections.max(1));
    let desk = Arc::new(Desk::new(app.clone(), relay));
    let breaker = Arc::new(Breaker::default());
    let (jobs, queue) = mpsc::channel::<Job>(connections);
    let queue = Arc::new(Mutex::new(queue));
    let tasks = TaskTracker::new();
    for _ in 0..connections {
        tasks.spawn(work(desk.clone(), breaker.clone(), queue.clone(), stop.clone()));
    }
    tasks.close();
    tasks.spawn(beat(app.clone(), stop.clone()));
    claim_while_running(&app, &breaker, jobs, &stop).await;
    tracing::info!(waiting_for = tasks.len(), "the worker is stopping");
    tasks.wait().await;
}

async fn beat(app: App, stop: CancellationToken) {
    loop {
        if let Err(error) = rows::beat(&app.db).await {
            tracing::warn!(%error, "could not write the heartbeat");
        }
        if stop.run_until_cancelled(tokio::time::sleep(BEAT)).await.is_none() {
            return;
        }
    }
}

async fn claim_while_running(
    app: &App,
    breaker: &Breaker,
    jobs: mpsc::Sender<Job>,
    stop: &CancellationToken,
) {
    while !stop.is_cancelled() {
        let pause = breaker.pause();
        if !pause.is_zero() {
            stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            continue;
        }
        // Claims are made only for connections that can take them, so that few rows are held at a time.
        let Some(Ok(room)) = stop.run_until_cancelled(jobs.reserve()).await else { return };
        drop(room);
        let limit = u64::try_from(jobs.capacity()).unwrap_or(1);
        let token = LeaseToken::new();
        let asked = Instant::now();
        let claimed = match claim(app, token, limit).await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::error!(%error, "could not claim deliveries");
                stop.run_until_cancelled(tokio::time::sleep(DATABASE_PAUSE)).await;
                continue;
            }
        };
        let idle = claimed.is_empty();
        for held in claimed {
            let until = Deadline::at(asked.plus(app.settings.lease_trusted()));
            if jobs.send(Job { held, token, until }).await.is_err() {
                return;
            }
        }
        if idle {
            stop.run_until_cancelled(tokio::time::sleep(POLL)).await;
        }
    }
}

async fn claim(app: &App, token: LeaseToken, limit: u64) -> Result<Vec<Claimed>, sea_orm::DbErr> {
    let silence = app.settings.relay_silence;
    match rows::claim(&app.db, token, app.settings.lease, silence, limit).await {
        Ok(claimed) => Ok(claimed),
        Err(error) => {
            // The COMMIT may have happened; the token tells.
            tracing::warn!(%error, "a claim was not confirmed");
            rows::claimed_by(&app.db, token).await
        }
    }
}

/// One connection's life.
async fn work(
    desk: Arc<Desk>,
    breaker: Arc<Breaker>,
    queue: Arc<Mutex<mpsc::Receiver<Job>>>,
    stop: CancellationToken,
) {
    let mut connection: Option<Connection> = None;
    loop {
        let next = async { queue.lock().await.recv().await };
        match tokio::time::timeout(IDLE, next).await {
            Ok(Some(job)) if stop.is_cancelled() || !breaker.pause().is_zero() => desk.give_back(&job).await,
            Ok(Some(job)) => {
                let work = AssertUnwindSafe(desk.deliver(&mut connection, &breaker, job)).catch_unwind();
                if work.await.is_err() {
                    // The panic was logged where it happened. Its lease's end decides about the delivery; the
                    // others go on, over a new connection.
                    connection = None;
                }
            }
            Ok(None) => break,
            Err(_idle) => hang_up(connection.take()).await,
        }
    }
    hang_up(connection.take()).await;
}

async fn hang_up(connection: Option<Connection>) {
    if let Some(connection) = connection {
        connection.quit().await;
    }
}
