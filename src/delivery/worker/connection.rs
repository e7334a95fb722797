//! One connection's life: at most two deliveries are begun and not settled, the one being handed over and the one whose
//! envelope rides on its body.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::berths::Berth;
use super::claims::Job;
use super::desk::Parcel;
use super::{DATABASE_PAUSE, Worker};
use crate::decision::{Clearance, Facts, Lease, decide};
use crate::delivery::fate::{self, Past};
use crate::delivery::rows::{Beginning, Fate, Settling};
use crate::relay::{self, Connection, Outcome};
use crate::under_way::InHand;

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
    let mut hand = Hand { worker, stop, berth: None, connection: None, begun: Vec::with_capacity(2) };
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
    hand.hang_up().await;
}

struct Hand {
    worker: Arc<Worker>,
    stop: CancellationToken,
    /// What a connection needs to be open.
    berth: Option<Berth>,
    connection: Option<Connection>,
    /// In the order in which they go out; never more than two.
    begun: Vec<Begun>,
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
                self.connect().await;
                continue;
            }
            self.hand_over().await;
        }
    }

    /// Waits for something to do and begins it. Says no once nothing more comes.
    async fn start(&mut self) -> bool {
        if self.berth.is_none() {
            self.berth = self.worker.berths.take(&self.stop).await;
            if self.berth.is_none() {
                return false;
            }
        }
        let taken = tokio::time::timeout(IDLE, self.worker.outbox.take()).await;
        let job = match taken {
            Ok(Some(job)) => job,
            Ok(None) => return false,
            Err(_idle) => {
                self.hang_up().await;
                self.berth = None;
                return true;
            }
        };
        let mut ends = Vec::new();
        let parcels: Vec<Parcel> = self.make(job, &mut ends).await.into_iter().collect();
        self.turn(ends, parcels).await;
        true
    }

    /// What can go next without waiting: taken and made ready while the relay is thinking.
    async fn prepare(worker: &Worker, room: usize, ends: &mut Vec<Settling>) -> Vec<Parcel> {
        let mut parcels = Vec::new();
        while parcels.len() < room {
            let Some(job) = worker.outbox.take_now() else { break };
            parcels.extend(make(worker, job, ends).await);
        }
        parcels
    }

    async fn make(&self, job: Job, ends: &mut Vec<Settling>) -> Option<Parcel> {
        make(&self.worker, job, ends).await
    }

    /// Settles, and begins as many of these as the decision lets go.
    async fn turn(&mut self, mut settlings: Vec<Settling>, mut parcels: Vec<Parcel>) {
        while !(settlings.is_empty() && parcels.is_empty()) {
            if self.stop.is_cancelled() {
                self.worker.give_back(parcels.drain(..).map(|parcel| parcel.job).collect()).await;
            }
            let parcels_now = self.worker.still_admitted(std::mem::take(&mut parcels)).await;
            let beginnings = parcels_now.iter().map(beginning).collect();
            let begun = self.worker.clerk.turn(std::mem::take(&mut settlings), beginnings).await;
            for parcel in parcels_now {
                match begun.get(&parcel.job.held.id) {
                    Some(facts) => settlings.extend(self.judge(parcel, facts)),
                    None => {
                        tracing::debug!(delivery = %parcel.job.held.id, "taken back before it began");
                        // When it was not, its campaign was held or its time is over: then nobody keeps it here.
                        self.worker.give_back(vec![parcel.job]).await;
                    }
                }
            }
        }
    }

    /// Decides about what was begun, with the facts as they were then.
    fn judge(&mut self, parcel: Parcel, facts: &Facts) -> Option<Settling> {
        let job = &parcel.job;
        let (delivery, token) = (job.held.id, job.claim.token);
        let lease = Lease { delivery, token, until: job.claim.until.clone() };
        match decide(job.held.class, facts, lease) {
            Ok(clearance) => {
                let clearance = match self.berth.as_ref().and_then(Berth::until) {
                    Some(until) => clearance.and_until(until.clone()),
                    None => clearance,
                };
                let in_hand = self.worker.app.under_way.delivery();
                self.begun.push(Begun { parcel, clearance, _in_hand: in_hand });
                None
            }
            Err(reason) => {
                Some(Settling { held: parcel.job.held, token, fate: Fate::Suppressed(reason), attempt: None })
            }
        }
    }

    /// Opens a connection, or lets what was begun wait: not an octet of it was written.
    async fn connect(&mut self) {
        let worker = self.worker.clone();
        match worker.relay.connect().await {
            Ok(open) => {
                worker.breaker.succeeded();
                self.connection = Some(open);
                self.ask_again().await;
            }
            Err(outcome) => {
                worker.breaker.failed();
                tracing::warn!(outcome = name(&outcome), "the relay cannot be reached");
                let unsent = std::mem::take(&mut self.begun);
                self.withdraw(unsent).await;
                worker.give_back(worker.outbox.empty()).await;
            }
        }
    }

    /// Opening a connection may have taken long: what counts is what is known now.
    async fn ask_again(&mut self) {
        let before = std::mem::take(&mut self.begun);
        let beginnings = before.iter().map(|one| beginning(&one.parcel)).collect();
        let facts = self.worker.clerk.turn(Vec::new(), beginnings).await;
        let mut settlings = Vec::new();
        for one in before {
            match facts.get(&one.parcel.job.held.id) {
                Some(facts) => settlings.extend(self.judge(one.parcel, facts)),
                None => tracing::warn!("a claim was gone before its delivery could be handed over"),
            }
        }
        self.turn(settlings, Vec::new()).await;
    }

    /// Lets what was begun wait: not an octet of it was written, or the connection was closed before its body.
    async fn withdraw(&mut self, unsent: Vec<Begun>) {
        let settlings = unsent.into_iter().map(|one| Settling {
            token: one.clearance.token(),
            held: one.parcel.job.held,
            fate: Fate::Again(Duration::ZERO),
            attempt: None,
        });
        self.turn(settlings.collect(), Vec::new()).await;
    }

    /// Leaves the connection to others when it is recalled, and lets wait what goes where nothing may go any more since it
    /// was begun, unless its envelope is out.
    async fn give_way(&mut self) {
        if self.berth.as_ref().is_some_and(Berth::is_recalled) {
            self.hang_up().await;
            self.berth = None;
            let unsent = std::mem::take(&mut self.begun);
            self.withdraw(unsent).await;
            return;
        }
        let out = self.connection.as_ref().and_then(Connection::announced);
        let gate = &self.worker.gate;
        if gate.is_open() {
            return;
        }
        let (unsent, kept) = std::mem::take(&mut self.begun)
            .into_iter()
            .partition(|one| out != Some(one.clearance.delivery()) && gate.is_shut(one.parcel.domain()));
        self.begun = kept;
        self.withdraw(unsent).await;
    }

    /// Hands the first one over, with the envelope of the second; settles, and begins what comes next.
    async fn hand_over(&mut self) {
        let worker = self.worker.clone();
        let (Some(connection), Some(this)) = (&mut self.connection, self.begun.first()) else { return };
        let depth = if connection.pipelines() { 2 } else { 1 };
        let room =
            if self.stop.is_cancelled() { 0 } else { (depth + 1_usize).saturating_sub(self.begun.len()) };
        let next = self.begun.get(1).map(Begun::to_relay);
        let span = tracing::info_span!("delivery", id = %this.parcel.job.held.id, class = %this.parcel.job.held.class);
        let mut ends = Vec::new();
        let (outcome, parcels) = {
            let sending = connection.hand_over(this.to_relay(), next).instrument(span.clone());
            let preparing = Self::prepare(&worker, room.min(depth), &mut ends);
            futures_util::join!(sending, preparing)
        };
        let stale = connection.is_stale();
        if !connection.is_open() {
            self.connection = None;
        }
        if stale {
            // It counts as no attempt: the same goes over a new connection at once.
            self.turn(ends, Vec::new()).await;
            worker.give_back(parcels.into_iter().map(|parcel| parcel.job).collect()).await;
            return;
        }
        let this = self.begun.remove(0);
        span.in_scope(|| {
            tracing::debug!(outcome = name(&outcome), code = code(&outcome), "handed over");
        });
        worker.pace.count();
        count(&outcome, &this);
        // Before anything else is begun: what says to stay away counts at once.
        let heard = worker.gate.listen(this.parcel.domain(), &outcome);
        ends.push(worker.settling(this.parcel.job, &outcome));
        self.turn(ends, parcels).await;
        worker.gate.report(&worker.app.db, heard).await;
    }

    async fn hang_up(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.quit().await;
        }
    }
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
    fn settling(&self, job: Job, outcome: &Outcome) -> Settling {
        let now = self.app.db.clock().now();
        let past = Past {
            class: job.held.class,
            attempts: u32::try_from(job.held.attempts).unwrap_or(u32::MAX).saturating_add(1),
            elapsed: job.held.dated_at.map_or(Duration::ZERO, |first| now.since(first)),
            jitter: rand::random(),
        };
        let (fate, attempt) = fate::of(outcome, past);
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
