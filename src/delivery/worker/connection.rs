//! One connection's life. Few deliveries are begun and not settled at a time: the one that is handed over, the one whose
//! envelope rides on its body, and those that are begun or settled meanwhile. As many a connection stay unknown at most
//! when the worker is lost.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::berths::Berth;
use super::claims::Job;
use super::desk::Parcel;
use super::{DATABASE_PAUSE, Worker};
use crate::clock::Instant;
use crate::decision::{Class, Clearance, Facts, Lease, decide};
use crate::delivery::fate::{self, Past};
use crate::delivery::retry;
use crate::delivery::rows::{Beginning, Fate, Proof, Settling};
use crate::relay::{self, Connection, Outcome};
use crate::under_way::InHand;

/// Deliveries that are begun and not settled, where the relay is not faster than a commit: the one that is handed over, the
/// one whose envelope rides on its body, and one that is begun or settled meanwhile.
const BEGUN: usize = 3;
/// The most of them, where it is: each more lets a commit hold more, and leaves one more unknown should the worker be lost.
const MOST_BEGUN: usize = 5;
/// How long a connection without work is kept.
const IDLE: Duration = Duration::from_secs(15);

/// A delivery that was begun and may be handed over.
struct Begun {
    parcel: Parcel,
    clearance: Clearance,
    /// Counted until it is settled.
    _in_hand: InHand,
}

impl Begun {
    fn to_relay(&self) -> relay::Parcel<'_> {
        relay::Parcel { message: &self.parcel.message, clearance: &self.clearance }
    }
}

/// Works until nothing more comes.
pub(super) async fn run(worker: Arc<Worker>, stop: CancellationToken) {
    let mut hand = Hand {
        post: Post { worker, stop, berth: None },
        connection: None,
        begun: Vec::with_capacity(MOST_BEGUN),
        bound: BEGUN,
        ready: Vec::new(),
        ended: Vec::new(),
    };
    loop {
        let work = AssertUnwindSafe(hand.work()).catch_unwind();
        match work.await {
            Ok(()) => break,
            Err(_) => {
                // The panic was logged where it happened. The end of their lease decides about the deliveries that were
                // begun; the others go on, over a new connection.
                hand.connection = None;
                hand.begun.clear();
            }
        }
    }
    hand.put_back().await;
    hand.hang_up().await;
}

struct Hand {
    post: Post,
    connection: Option<Connection>,
    /// In the order in which they go out: the one that is handed over, the one whose envelope rides on its body, and the
    /// one that was begun meanwhile.
    begun: Vec<Begun>,
    /// How many may be begun and not settled.
    bound: usize,
    /// What is begun next.
    ready: Vec<Parcel>,
    /// What came to its end and is settled next.
    ended: Vec<Settling>,
}

impl Hand {
    async fn work(&mut self) {
        loop {
            if self.begun.is_empty() && !self.start().await {
                return;
            }
            self.give_way().await;
            if self.begun.is_empty() {
                continue;
            }
            if self.connection.is_none() {
                self.settle().await;
                self.connect().await;
                continue;
            }
            if is_outdated(&self.begun, &self.connection) {
                let before = std::mem::take(&mut self.begun);
                self.begun = self.post.ask_again(before).await;
                continue;
            }
            self.hand_over().await;
        }
    }

    /// Waits for something to do and begins it. Says no once nothing more comes.
    async fn start(&mut self) -> bool {
        if self.ready.is_empty() {
            self.settle().await;
        }
        if self.post.berth.is_none() {
            self.post.berth = self.post.worker.berths.take(&self.post.stop).await;
            if self.post.berth.is_none() {
                return false;
            }
        }
        let worker = &self.post.worker;
        if self.ready.is_empty() {
            let taken = tokio::select! {
                biased;
                taken = worker.outbox.take() => Some(taken),
                () = self.post.recalled() => None,
                () = tokio::time::sleep(IDLE) => None,
            };
            let job = match taken {
                Some(Some(job)) => job,
                Some(None) => return false,
                None => {
                    self.hang_up().await;
                    self.post.berth = None;
                    return true;
                }
            };
            self.ready.extend(make(worker, job, &mut self.ended).await);
            let room = self.depth().saturating_sub(self.ready.len());
            self.ready.extend(prepare(&self.post.worker, room, &mut self.ended).await);
        }
        let (ends, parcels) = (std::mem::take(&mut self.ended), std::mem::take(&mut self.ready));
        self.begun = self.post.turn(ends, parcels).await;
        true
    }

    /// How many are with the relay: two where the envelope of one rides on the body of the other.
    fn depth(&self) -> usize {
        if self.connection.as_ref().is_some_and(Connection::pipelines) { 2 } else { 1 }
    }

    /// Settles what ended.
    async fn settle(&mut self) {
        self.post.turn(std::mem::take(&mut self.ended), Vec::new()).await;
    }

    /// Lets go of all that is not begun.
    async fn put_back(&mut self) {
        let ready = std::mem::take(&mut self.ready);
        self.post.worker.give_back(ready.into_iter().map(|parcel| parcel.job).collect()).await;
        self.settle().await;
    }

    /// Opens a connection, or lets what was begun wait: not an octet of it was written.
    async fn connect(&mut self) {
        let worker = self.post.worker.clone();
        match worker.relay.connect().await {
            Ok(open) => {
                worker.breaker.succeeded();
                self.connection = Some(open);
                let before = std::mem::take(&mut self.begun);
                self.begun = self.post.ask_again(before).await;
            }
            Err(outcome) => {
                worker.breaker.failed();
                tracing::warn!(outcome = name(&outcome), "the relay cannot be reached");
                let unsent = std::mem::take(&mut self.begun);
                self.withdraw(unsent);
                self.put_back().await;
                worker.give_back(worker.outbox.empty()).await;
            }
        }
    }

    /// Lets what was begun wait: not an octet of it was written, or the connection was closed before its body.
    fn withdraw(&mut self, unsent: Vec<Begun>) {
        self.ended.extend(unsent.into_iter().map(|one| Settling {
            token: one.clearance.token(),
            held: one.parcel.job.held,
            fate: Fate::Again(Duration::ZERO),
            attempt: None,
        }));
    }

    /// Leaves the connection to others when it is recalled, and lets wait what goes where nothing may go any more since it
    /// was begun, unless its envelope is out.
    async fn give_way(&mut self) {
        if self.post.berth.as_ref().is_some_and(Berth::is_recalled) {
            self.hang_up().await;
            self.post.berth = None;
            let unsent = std::mem::take(&mut self.begun);
            self.withdraw(unsent);
            self.put_back().await;
            return;
        }
        let out = self.connection.as_ref().and_then(Connection::announced);
        let gate = &self.post.worker.gate;
        if gate.is_open() {
            return;
        }
        let (unsent, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.begun)
            .into_iter()
            .partition(|one| out != Some(one.clearance.delivery()) && gate.is_shut(one.parcel.domain()));
        self.begun = kept;
        if !unsent.is_empty() {
            self.withdraw(unsent);
            self.settle().await;
        }
    }

    /// Hands over what was begun, each with the envelope of the one after it. Meanwhile what came before is settled and what
    /// comes after is begun, in one commit, and what comes after that is made ready: so a relay that is slow to answer
    /// waits for nothing of ours, and one that is quick gets the next one while the commit is under way.
    async fn hand_over(&mut self) {
        let bound = if self.depth() == 1 { 2 } else { self.bound };
        let room = bound.saturating_sub(self.begun.len()).min(self.ready.len());
        let parcels: Vec<Parcel> = self.ready.drain(..room).collect();
        let after = self.begun.len() + parcels.len() + self.ready.len();
        let room = if self.post.stop.is_cancelled() { 0 } else { (bound + bound / 2).saturating_sub(after) };
        let ends = std::mem::take(&mut self.ended);
        let Self { post, connection, begun, .. } = self;
        let committed = AtomicBool::new(false);
        let turning = async {
            let more = post.turn(ends, parcels).await;
            committed.store(true, Ordering::Relaxed);
            more
        };
        let mut unmade = Vec::new();
        let preparing = prepare(&post.worker, room, &mut unmade);
        let mut ended = Vec::new();
        let sending = async {
            while let Some(end) = hand_one_over(post, connection, begun).await {
                ended.push(end);
                if committed.load(Ordering::Relaxed) {
                    return false;
                }
                // The last one waits for the envelope that is to ride on its body.
                if begun.len() < 2 || connection.is_none() || !post.may_go_on() {
                    return true;
                }
                if is_outdated(begun, connection) {
                    return false;
                }
            }
            false
        };
        let (more, outran, ready) = futures_util::join!(turning, sending, preparing);
        self.bound = if outran { (bound + 1).min(MOST_BEGUN) } else { (bound - 1).max(BEGUN) };
        self.begun.extend(more);
        self.ready.extend(ready);
        self.ended.extend(ended);
        self.ended.extend(unmade);
    }

    async fn hang_up(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.quit().await;
        }
    }
}

/// Whether the first one's envelope is still to begin and what it was decided by is too old for that.
fn is_outdated(begun: &[Begun], connection: &Option<Connection>) -> bool {
    let announced = connection.as_ref().and_then(Connection::announced);
    begun
        .first()
        .is_some_and(|one| announced != Some(one.clearance.delivery()) && one.clearance.is_outdated())
}

/// Hands the first one over, with the envelope of the second. None when it counts as no attempt.
async fn hand_one_over(
    post: &Post,
    connection: &mut Option<Connection>,
    begun: &mut Vec<Begun>,
) -> Option<Settling> {
    let (Some(open), Some(this)) = (connection.as_mut(), begun.first()) else { return None };
    let span =
        tracing::info_span!("delivery", id = %this.parcel.job.held.id, class = %this.parcel.job.held.class);
    let next = begun.get(1).map(Begun::to_relay);
    let outcome = open.hand_over(this.to_relay(), next).instrument(span.clone()).await;
    let stale = open.is_stale();
    if !open.is_open() {
        *connection = None;
    }
    if stale {
        // The same goes over a new connection at once.
        return None;
    }
    let this = begun.remove(0);
    span.in_scope(|| {
        tracing::debug!(outcome = name(&outcome), code = code(&outcome), "handed over");
    });
    let worker = &post.worker;
    worker.pace.count();
    count(&outcome, &this);
    // Before anything else is handed over: what says to stay away counts at once.
    let heard = worker.gate.listen(this.parcel.domain(), &outcome);
    let end = worker.settling(this.parcel, &outcome);
    worker.gate.report(&worker.app.db, heard).await;
    Some(end)
}

/// What a connection asks of the clerk, and by what right it hands over.
struct Post {
    worker: Arc<Worker>,
    stop: CancellationToken,
    /// What a connection needs to be open.
    berth: Option<Berth>,
}

impl Post {
    /// Whether nobody asked to be left alone and the connection is still ours.
    fn may_go_on(&self) -> bool {
        self.worker.gate.is_open() && !self.berth.as_ref().is_some_and(Berth::is_recalled)
    }

    /// Waits until the connection is recalled.
    async fn recalled(&self) {
        match &self.berth {
            Some(berth) => berth.recalled().await,
            None => std::future::pending().await,
        }
    }

    /// Settles, and begins as many of these as the decision lets go.
    async fn turn(&self, mut settlings: Vec<Settling>, mut parcels: Vec<Parcel>) -> Vec<Begun> {
        let mut begun = Vec::with_capacity(parcels.len());
        while !(settlings.is_empty() && parcels.is_empty()) {
            if self.stop.is_cancelled() {
                self.worker.give_back(parcels.drain(..).map(|parcel| parcel.job).collect()).await;
            }
            let wanted = self.worker.still_admitted(std::mem::take(&mut parcels)).await;
            let beginnings = wanted.iter().map(beginning).collect();
            let asked = Instant::now();
            let facts = self.worker.clerk.turn(std::mem::take(&mut settlings), beginnings).await;
            for parcel in wanted {
                let Some(facts) = facts.get(&parcel.job.held.id) else {
                    tracing::debug!(delivery = %parcel.job.held.id, "taken back before it began");
                    // When it was not, its campaign was held or its time is over: then nobody keeps it here.
                    self.worker.give_back(vec![parcel.job]).await;
                    continue;
                };
                match self.judge(parcel, facts, asked) {
                    Ok(one) => begun.push(one),
                    Err(end) => settlings.push(*end),
                }
            }
        }
        begun
    }

    /// Asks again about what was begun. Opening a connection, or what was handed over before, may have taken long: what
    /// counts is what is known now.
    async fn ask_again(&self, before: Vec<Begun>) -> Vec<Begun> {
        let asked = Instant::now();
        let beginnings = before.iter().map(|one| beginning(&one.parcel)).collect();
        let facts = self.worker.clerk.turn(Vec::new(), beginnings).await;
        let (mut begun, mut ends) = (Vec::with_capacity(before.len()), Vec::new());
        for one in before {
            let Some(facts) = facts.get(&one.parcel.job.held.id) else {
                tracing::warn!("a claim was gone before its delivery could be handed over");
                continue;
            };
            match self.judge(one.parcel, facts, asked) {
                Ok(one) => begun.push(one),
                Err(end) => ends.push(*end),
            }
        }
        self.turn(ends, Vec::new()).await;
        begun
    }

    /// Decides about what was begun, with the facts as they were after `asked`.
    fn judge(&self, parcel: Parcel, facts: &Facts, asked: Instant) -> Result<Begun, Box<Settling>> {
        let job = &parcel.job;
        let (delivery, token) = (job.held.id, job.claim.token);
        let lease = Lease { delivery, token, until: job.claim.until.clone(), asked };
        match decide(job.held.class, facts, lease) {
            Ok(clearance) => {
                let clearance = match self.berth.as_ref().and_then(Berth::until) {
                    Some(until) => clearance.and_until(until.clone()),
                    None => clearance,
                };
                Ok(Begun { parcel, clearance, _in_hand: self.worker.app.under_way.delivery() })
            }
            Err(reason) => {
                let fate = Fate::Suppressed(reason);
                Err(Box::new(Settling { held: parcel.job.held, token, fate, attempt: None }))
            }
        }
    }
}

/// What can go next without waiting, made ready.
async fn prepare(worker: &Worker, room: usize, ends: &mut Vec<Settling>) -> Vec<Parcel> {
    let mut parcels = Vec::new();
    while parcels.len() < room {
        let Some(job) = worker.outbox.take_now() else { break };
        parcels.extend(make(worker, job, ends).await);
    }
    parcels
}

/// Makes the message of a job, or ends it here.
async fn make(worker: &Worker, job: Job, ends: &mut Vec<Settling>) -> Option<Parcel> {
    if job.claim.until.has_passed() {
        tracing::warn!(delivery = %job.held.id, "the lease ended before its turn came");
        worker.give_back(vec![job]).await;
        return None;
    }
    match worker.desk.make(job).await {
        Ok(Ok(parcel)) => Some(parcel),
        Ok(Err((job, fate))) => {
            ends.push(Settling { token: job.claim.token, held: job.held, fate, attempt: None });
            None
        }
        Err((job, error)) => {
            tracing::error!(%error, "could not read what a message is made of");
            tokio::time::sleep(DATABASE_PAUSE).await;
            worker.give_back(vec![job]).await;
            None
        }
    }
}

fn beginning(parcel: &Parcel) -> Beginning {
    Beginning { held: parcel.job.held.clone(), token: parcel.job.claim.token, date: parcel.date }
}

impl Worker {
    /// How a hand-over settles its delivery.
    fn settling(&self, parcel: Parcel, outcome: &Outcome) -> Settling {
        let Parcel { job, message, date, retry_until } = parcel;
        let now = self.app.db.clock().now();
        let past = Past {
            window: retry::window(job.held.class, retry_until.map(|until| until.since(date))),
            attempts: u32::try_from(job.held.attempts).unwrap_or(u32::MAX).saturating_add(1),
            elapsed: job.held.dated_at.map_or(Duration::ZERO, |first| now.since(first)),
            jitter: rand::random(),
        };
        let (fate, mut attempt) = fate::of(outcome, past);
        if matches!(job.held.class, Class::Notice | Class::Reminder) {
            let sha256 = message.sha256();
            attempt.proof = Some(Proof { sha256, message_id: message.message_id });
        }
        Settling { token: job.claim.token, held: job.held, fate, attempt: Some(attempt) }
    }
}

fn count(outcome: &Outcome, this: &Begun) {
    metrics::counter!(
        "tidings_hand_overs_total",
        "outcome" => name(outcome), "class" => this.parcel.job.held.class.as_str()
    )
    .increment(1);
}

/// The outcome's word, for logs and metrics; the relay's own words may hold an address.
fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Sent(_) => "sent",
        Outcome::Refused(..) => "refused",
        Outcome::Deferred(..) => "deferred",
        Outcome::NotSent(..) => "not_sent",
        Outcome::Unknown(..) => "unknown",
    }
}

fn code(outcome: &Outcome) -> Option<u16> {
    match outcome {
        Outcome::Sent(reply) | Outcome::Refused(_, reply) | Outcome::Deferred(_, reply) => Some(reply.code),
        Outcome::NotSent(..) | Outcome::Unknown(..) => None,
    }
}
