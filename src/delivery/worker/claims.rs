//! Claiming: as much as goes out in about a second, lane by lane, loaded and looked at before it waits for a connection.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sea_orm::DbErr;
use tokio_util::sync::CancellationToken;

use super::{DATABASE_PAUSE, Worker};
use crate::address::AddressHash;
use crate::clock::{Deadline, Instant};
use crate::decision::{Facts, Standing, objections};
use crate::delivery::rows::{self, Ask, Claimed, Fate, Lane, Settling, Trail};
use crate::id::{DeliveryId, LeaseToken, RecipientId};
use crate::opt_out::rows::{Wanted, facts_of};
use crate::recipient;
use crate::recipient::rows::Member;

use super::desk::Stream;

/// Deliveries claimed at once, at most.
const MOST: usize = 500;
/// How often the queue is looked at when it was empty and nobody told of anything new.
const POLL: Duration = Duration::from_millis(200);

/// One claim: everything that was taken under one token, while any of it is held.
pub(super) struct Claim {
    /// Its token.
    pub(super) token: LeaseToken,
    /// The end of its lease by this worker's clock, less the margin.
    pub(super) until: Deadline,
}

/// A claimed delivery on its way to a connection.
pub(super) struct Job {
    /// What is held.
    pub(super) held: Claimed,
    /// Under which claim.
    pub(super) claim: Arc<Claim>,
    /// To whom, as known when it was claimed.
    pub(super) person: Option<Member>,
    /// From whom, about what.
    pub(super) stream: Arc<Stream>,
}

/// The claims of a worker of which something is still held.
#[derive(Default)]
pub(super) struct Claims(Mutex<HashMap<LeaseToken, Weak<Claim>>>);

impl Claims {
    fn add(&self, claim: &Arc<Claim>) {
        self.lock().insert(claim.token, Arc::downgrade(claim));
    }

    /// Those still held, and those of which nothing is held any more, which are forgotten.
    fn sort(&self) -> (Vec<Arc<Claim>>, Vec<LeaseToken>) {
        let mut claims = self.lock();
        let held: Vec<Arc<Claim>> = claims.values().filter_map(Weak::upgrade).collect();
        let gone: Vec<LeaseToken> =
            claims.iter().filter(|(_, claim)| claim.strong_count() == 0).map(|(token, _)| *token).collect();
        claims.retain(|token, _| !gone.contains(token));
        (held, gone)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<LeaseToken, Weak<Claim>>> {
        // A panic while holding it leaves at worst a lease that ends by itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the leases of what is held, ends those of which nothing is left, and decides about those of workers that were lost,
/// also while nothing may be claimed. Returns when `done` and all are ended.
pub(super) async fn keep(worker: Arc<Worker>, done: CancellationToken) {
    let lease = worker.lease();
    loop {
        let ended = done.run_until_cancelled(tokio::time::sleep(lease / 3)).await.is_none();
        let (held, gone) = worker.claims.sort();
        for claim in held {
            let asked = Instant::now();
            match rows::renew(&worker.app.db, claim.token, lease).await {
                Ok(true) => claim.until.move_to(asked.plus(worker.app.settings.lease_trusted())),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "could not renew a lease"),
            }
        }
        for token in gone {
            if let Err(error) = rows::release(&worker.app.db, token).await {
                tracing::warn!(%error, "could not end a lease; it ends by itself");
            }
        }
        if ended {
            return;
        }
        if let Err(error) = rows::end_overdue(&worker.app.db, worker.app.settings.relay_silence).await {
            tracing::warn!(%error, "could not decide about leases that ended");
        }
    }
}

/// How fast deliveries leave, so that a claim takes about a second's worth.
pub(super) struct Pace {
    left: AtomicUsize,
    /// What left since somebody was told.
    untold: AtomicUsize,
    since: Mutex<(Instant, usize)>,
}

impl Pace {
    pub(super) fn new(least: usize) -> Self {
        Self {
            left: AtomicUsize::new(0),
            untold: AtomicUsize::new(0),
            since: Mutex::new((Instant::now(), least)),
        }
    }

    /// A delivery left.
    pub(super) fn count(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
        self.untold.fetch_add(1, Ordering::Relaxed);
    }

    /// How many left since this was last asked.
    pub(super) fn take_untold(&self) -> usize {
        self.untold.swap(0, Ordering::Relaxed)
    }

    /// So many were not told after all.
    pub(super) fn put_back_untold(&self, count: usize) {
        self.untold.fetch_add(count, Ordering::Relaxed);
    }

    /// How many to claim: what left in the last second, at least `least`.
    fn a_second_worth(&self, least: usize) -> usize {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = since.0.elapsed();
        if elapsed >= Duration::from_millis(100) {
            let left = self.left.swap(0, Ordering::Relaxed);
            let rate = (left as f64 / elapsed.as_secs_f64()) as usize;
            // What was claimed keeps connections busy only as long as there was something to claim: grow by doubling.
            *since = (Instant::now(), rate.clamp(least, MOST.max(least)).max(since.1 / 2));
        }
        (since.1 * 2).clamp(least, MOST.max(least))
    }
}

/// Claims for one lane until `stop`.
pub(super) async fn run(worker: Arc<Worker>, lane: Lane, stop: CancellationToken) {
    let mut trail = Trail::default();
    let least = 2 * worker.connections;
    while !stop.is_cancelled() {
        let pause = worker.breaker.pause();
        if !pause.is_zero() {
            stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            continue;
        }
        let limit = worker.pace.a_second_worth(least);
        let wanted = async {
            worker.outbox.drained_to(lane, limit / 2).await;
            // What nobody here may send is left to others.
            worker.berths.any().await;
        };
        if stop.run_until_cancelled(wanted).await.is_none() {
            return;
        }
        let woken = worker.app.db.news().notified();
        if let Err(error) = worker.gate.keep_up(&worker.app.db).await {
            tracing::warn!(%error, "could not look at the limits");
        }
        let limit = limit.min(worker.gate.worth_claiming(lane));
        let poll = POLL.min(worker.gate.next_look());
        if limit == 0 {
            stop.run_until_cancelled(tokio::time::sleep(poll)).await;
            continue;
        }
        match claim(&worker, lane, limit, &mut trail).await {
            Ok(0) if trail.goes_on() => {}
            Ok(0) => {
                let _ = tokio::time::timeout(poll, stop.run_until_cancelled(woken)).await;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(%error, "could not claim deliveries");
                stop.run_until_cancelled(tokio::time::sleep(DATABASE_PAUSE)).await;
            }
        }
    }
}

/// Claims, loads, ends what the decision already stops, and puts the rest into the outbox. Returns how many were claimed.
async fn claim(worker: &Worker, lane: Lane, limit: usize, trail: &mut Trail) -> Result<usize, DbErr> {
    let app = &worker.app;
    let token = LeaseToken::new();
    let asked = Instant::now();
    let lease = worker.lease();
    let lanes = lane.alone();
    let ask = Ask { token, lease, silence: app.settings.relay_silence, lanes, limit };
    let ids = match rows::claim(&app.db, ask, trail).await {
        Ok(ids) => ids,
        Err(error) => {
            // The COMMIT may have happened; the token tells.
            tracing::warn!(%error, "a claim was not confirmed");
            rows::claimed_by(&app.db, token).await?
        }
    };
    if ids.is_empty() {
        return Ok(0);
    }
    let until = Deadline::at(asked.plus(worker.app.settings.lease_trusted()));
    let claim = Arc::new(Claim { token, until });
    worker.claims.add(&claim);
    let jobs = async { worker.admit(&claim, load(worker, &claim, &ids).await?).await };
    match jobs.await {
        Ok(jobs) => worker.outbox.put(lane, jobs),
        Err(error) => {
            tracing::error!(%error, "could not load what was claimed");
            if let Err(error) = rows::give_back(&app.db, &ids, token).await {
                tracing::warn!(%error, "could not give back; the lease will end");
            }
            return Err(error);
        }
    }
    Ok(ids.len())
}

async fn load(worker: &Worker, claim: &Arc<Claim>, ids: &[DeliveryId]) -> Result<Vec<Job>, DbErr> {
    let on = worker.app.db.reads();
    let mut of: HashMap<_, Vec<Claimed>> = HashMap::new();
    for held in rows::load(&worker.app.db, ids).await? {
        of.entry(held.topic_id).or_default().push(held);
    }
    let mut jobs = Vec::with_capacity(ids.len());
    for held in of.into_values() {
        let Some(first) = held.first() else { continue };
        let Some(stream) = Stream::load(on, first).await? else {
            worker.give_up(claim, held, "no_topic").await;
            continue;
        };
        let stream = Arc::new(stream);
        let recipients: Vec<RecipientId> = held.iter().map(|one| one.recipient_id).collect();
        let people = recipient::rows::people(on, &recipients, first.brand_id).await?;
        let stopped = stopped(worker, &stream, &held, &people).await?;
        let mut ends = Vec::new();
        for held in held {
            if let Some(reason) = stopped
                .get(&held.address_hash)
                .and_then(|facts| objections(held.class, facts).first().copied())
            {
                let fate = Fate::Suppressed(reason);
                ends.push(Settling { held, token: claim.token, fate, attempt: None });
                continue;
            }
            // There may be several to the same person.
            let person = people.get(&held.recipient_id).cloned();
            jobs.push(Job { held, claim: claim.clone(), person, stream: stream.clone() });
        }
        worker.end(ends).await;
    }
    // As they were claimed: the longest due first.
    let place: HashMap<DeliveryId, usize> = ids.iter().enumerate().map(|(n, id)| (*id, n)).collect();
    jobs.sort_unstable_by_key(|job| place.get(&job.held.id).copied());
    Ok(jobs)
}

/// The facts of those of whom more is known than that they are there: whoever this stops needs no connection. Everybody
/// else's are read when they are begun, and theirs again.
async fn stopped(
    worker: &Worker,
    stream: &Stream,
    held: &[Claimed],
    people: &HashMap<RecipientId, Member>,
) -> Result<HashMap<AddressHash, Facts>, DbErr> {
    let on = worker.app.db.reads();
    let hashes: Vec<AddressHash> = held.iter().map(|one| one.address_hash.clone()).collect();
    let known = crate::opt_out::rows::known_among(on, &hashes).await?;
    let everybody = stream.topic.consent == "opt_in";
    let suspect = |one: &&Claimed| {
        let standing = people.get(&one.recipient_id).map(|member| member.recipient.standing);
        everybody || known.contains(&one.address_hash) || standing != Some(Standing::Active)
    };
    let suspects: Vec<AddressHash> =
        held.iter().filter(suspect).map(|one| one.address_hash.clone()).collect();
    facts_of(on, Wanted { people: &suspects, topic: &stream.topic }).await
}
