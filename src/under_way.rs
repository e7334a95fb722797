//! What a process has in hand, and whether it was asked to stop.
//!
//! It promises that whoever takes something in hand is counted until it is let go of, however that ends, so that a
//! process that stops can name what it waits for. It ends nothing itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The counts of one process; cheap to clone, all clones count together.
#[derive(Clone, Debug, Default)]
pub struct UnderWay(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    stopping: AtomicBool,
    deliveries: AtomicUsize,
    requests: AtomicUsize,
    let_go: Notify,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Delivery,
    Request,
}

impl Counts {
    fn of(&self, kind: Kind) -> &AtomicUsize {
        match kind {
            Kind::Delivery => &self.deliveries,
            Kind::Request => &self.requests,
        }
    }
}

impl UnderWay {
    /// A delivery that is being handed over, until the answer is dropped.
    pub fn delivery(&self) -> InHand {
        self.take(Kind::Delivery)
    }

    /// A request that is being answered, until the answer is dropped. None when the process was asked to stop before:
    /// then it is not to be begun.
    pub fn request(&self) -> Option<InHand> {
        // Counted first: whoever stops the process after this look waits for it.
        let in_hand = self.take(Kind::Request);
        (!self.is_stopping()).then_some(in_hand)
    }

    fn take(&self, kind: Kind) -> InHand {
        self.0.of(kind).fetch_add(1, Ordering::SeqCst);
        InHand { counts: self.0.clone(), kind }
    }

    /// How many deliveries are being handed over.
    pub fn deliveries(&self) -> usize {
        self.0.deliveries.load(Ordering::SeqCst)
    }

    /// How many requests are being answered.
    pub fn requests(&self) -> usize {
        self.0.requests.load(Ordering::SeqCst)
    }

    /// From now on nothing new is to be begun.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::SeqCst);
    }

    /// Whether the process was asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::SeqCst)
    }

    /// Waits until no request is being answered.
    pub async fn without_requests(&self) {
        loop {
            let mut let_go = std::pin::pin!(self.0.let_go.notified());
            let_go.as_mut().enable();
            if self.requests() == 0 {
                return;
            }
            let_go.await;
        }
    }
}

/// Something that is in hand until this is dropped.
#[derive(Debug)]
pub struct InHand {
    counts: Arc<Counts>,
    kind: Kind,
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.counts.of(self.kind).fetch_sub(1, Ordering::SeqCst);
        self.counts.let_go.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_begun_before_the_stop_is_waited_for_and_nothing_begins_after_it() {
        let under_way = UnderWay::default();
        let request = under_way.request().unwrap();
        let delivery = under_way.delivery();
        under_way.stop();
        assert!(under_way.request().is_none());
        assert_eq!((under_way.requests(), under_way.deliveries()), (1, 1));
        let waiting = tokio::spawn({
            let under_way = under_way.clone();
            async move { under_way.without_requests().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(request);
        waiting.await.unwrap();
        assert_eq!(under_way.deliveries(), 1);
        drop(delivery);
        assert_eq!(under_way.deliveries(), 0);
    }
}
