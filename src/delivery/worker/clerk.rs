//! The clerk: what the connections of a worker want settled and begun, committed together.
//!
//! While one transaction is under way the next one gathers, so that the busier it is the fewer commits a message takes:
//! more than one at a time would only make each smaller.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};

use crate::clock::Instant;
use crate::db::Db;
use crate::decision::Facts;
use crate::delivery::rows::{self, Beginning, Settling};
use crate::id::DeliveryId;

/// Requests that one transaction takes at most.
const AT_ONCE: usize = 64;
/// How long a turn is repeated while the database fails.
const REPEAT_FOR: Duration = Duration::from_secs(120);
/// The first pause before it is repeated, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What was begun, with its facts.
pub(super) type Begun = HashMap<DeliveryId, Facts>;

struct Request {
    settlings: Vec<Settling>,
    beginnings: Vec<Beginning>,
    answer: oneshot::Sender<Begun>,
}

/// Where connections hand in what they want settled and begun.
pub(super) struct Clerk(mpsc::UnboundedSender<Request>);

/// Takes the requests.
pub(super) struct Counter {
    requests: mpsc::UnboundedReceiver<Request>,
    db: Db,
    silence: Duration,
}

impl Clerk {
    /// A clerk, and the counter behind which it works.
    pub(super) fn new(db: Db, silence: Duration) -> (Self, Counter) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), Counter { requests: receiver, db, silence })
    }

    /// Settles and begins, in this order; what was begun comes back with its facts. When the database does not answer for
    /// long, nothing is begun, and what was not settled is decided when its lease ends.
    pub(super) async fn turn(&self, settlings: Vec<Settling>, beginnings: Vec<Beginning>) -> Begun {
        if settlings.is_empty() && beginnings.is_empty() {
            return Begun::new();
        }
        let (answer, answered) = oneshot::channel();
        // A counter that is closed answers like a database that is.
        let _ = self.0.send(Request { settlings, beginnings, answer });
        answered.await.unwrap_or_default()
    }
}

impl Counter {
    /// Works until the [`Clerk`] is dropped.
    pub(super) async fn run(mut self) {
        while let Some(first) = self.requests.recv().await {
            let mut requests = vec![first];
            // Those who are about to ask get the chance to share the commit.
            tokio::task::yield_now().await;
            while requests.len() < AT_ONCE {
                let Ok(request) = self.requests.try_recv() else { break };
                requests.push(request);
            }
            // After a panic, which was logged where it happened, nobody of these is answered: nothing is begun for them, and
            // what was not settled is decided when its lease ends. The others go on.
            let _ = AssertUnwindSafe(self.serve(requests)).catch_unwind().await;
        }
    }

    async fn serve(&self, mut requests: Vec<Request>) {
        let mut settlings = Vec::new();
        let mut beginnings = Vec::new();
        let mut wanted = Vec::with_capacity(requests.len());
        for request in &mut requests {
            wanted.push(request.beginnings.iter().map(|one| one.held.id).collect::<Vec<_>>());
            settlings.append(&mut request.settlings);
            beginnings.append(&mut request.beginnings);
        }
        let mut begun = self.persist(settlings, beginnings).await;
        for (request, wanted) in requests.into_iter().zip(wanted) {
            let own = wanted.into_iter().filter_map(|id| Some((id, begun.remove(&id)?))).collect();
            // A connection that is gone leaves its delivery to its lease.
            let _ = request.answer.send(own);
        }
    }

    /// Again and again while the database fails: whatever was committed counts once.
    async fn persist(&self, mut settlings: Vec<Settling>, mut beginnings: Vec<Beginning>) -> Begun {
        let give_up = Instant::now().plus(REPEAT_FOR);
        let mut pause = FIRST_PAUSE;
        let mut begun = Begun::new();
        loop {
            match rows::turn(&self.db, &settlings, &beginnings, self.silence).await {
                Ok(turn) => {
                    if turn.settled < settlings.len() {
                        let missing = settlings.len() - turn.settled;
                        tracing::warn!(missing, "claims were gone before they were settled");
                    }
                    begun.extend(turn.begun);
                    return begun;
                }
                Err(error) if give_up.has_passed() => {
                    tracing::error!(%error, "could not settle; what is left is decided when its lease ends");
                    return begun;
                }
                Err(error) => tracing::warn!(%error, "a turn was not confirmed; trying again"),
            }
            if settlings.len() + beginnings.len() > 1 {
                self.one_by_one(&mut settlings, &mut beginnings, &mut begun).await;
                if settlings.is_empty() && beginnings.is_empty() {
                    return begun;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Should one of them be what the database cannot take, the others do not suffer: what works is taken off the lists.
    async fn one_by_one(
        &self,
        settlings: &mut Vec<Settling>,
        beginnings: &mut Vec<Beginning>,
        begun: &mut Begun,
    ) {
        for one in std::mem::take(settlings) {
            if rows::settle(&self.db, &one, self.silence).await.is_err() {
                settlings.push(one);
            }
        }
        for one in std::mem::take(beginnings) {
            match rows::begin(&self.db, &one).await {
                Ok(facts) => begun.extend(facts.map(|facts| (one.held.id, facts))),
                Err(_) => beginnings.push(one),
            }
        }
    }
}
