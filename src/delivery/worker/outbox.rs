//! What is claimed and waits for a connection: two lanes, of which the service side always goes first.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::claims::Job;
use crate::delivery::rows::Lane;

/// The claimed deliveries of a worker.
#[derive(Default)]
pub(super) struct Outbox {
    lanes: Mutex<Lanes>,
    filled: Notify,
    drained: Notify,
}

#[derive(Default)]
struct Lanes {
    of: [VecDeque<Job>; 2],
    closed: bool,
}

impl Outbox {
    /// Puts what was claimed at the end of its lane.
    pub(super) fn put(&self, lane: Lane, jobs: Vec<Job>) {
        self.lanes().of[lane as usize].extend(jobs);
        self.filled.notify_waiters();
    }

    /// The next delivery, if there is one.
    pub(super) fn take_now(&self) -> Option<Job> {
        let mut lanes = self.lanes();
        let job = lanes.of.iter_mut().find_map(VecDeque::pop_front);
        drop(lanes);
        if job.is_some() {
            self.drained.notify_waiters();
        }
        job
    }

    /// The next delivery; none once nothing more comes.
    pub(super) async fn take(&self) -> Option<Job> {
        loop {
            let filled = self.filled.notified();
            tokio::pin!(filled);
            filled.as_mut().enable();
            if let Some(job) = self.take_now() {
                return Some(job);
            }
            if self.lanes().closed {
                return None;
            }
            filled.await;
        }
    }

    /// Waits until at most `rest` deliveries of a lane wait.
    pub(super) async fn drained_to(&self, lane: Lane, rest: usize) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if self.lanes().of[lane as usize].len() <= rest {
                return;
            }
            drained.await;
        }
    }

    /// Takes out everything that waits, to be given back.
    pub(super) fn empty(&self) -> Vec<Job> {
        let jobs = self.lanes().of.iter_mut().flat_map(std::mem::take).collect();
        self.drained.notify_waiters();
        jobs
    }

    /// Nothing more comes: takes out everything that waits, and whoever waits for more gets none.
    pub(super) fn close(&self) -> Vec<Job> {
        self.lanes().closed = true;
        let jobs = self.empty();
        self.filled.notify_waiters();
        jobs
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // A panic while holding it leaves the deliveries as they are.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
