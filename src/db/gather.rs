//! Many who ask at the same time, answered by the same statements.
//!
//! Nobody waits for others to come: whoever asks while no turn is free is answered in the next one, together with all who
//! came meanwhile. So a lone question goes out at once, and a crowd costs little more than one. What is asked is
//! worked on in a task of its own: it goes on when those who asked have left.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Questions of one kind and where they meet; cheap to clone.
pub struct Gather<Q, A>(Arc<Inner<Q, A>>);

struct Inner<Q, A> {
    waiting: Mutex<VecDeque<(Q, oneshot::Sender<A>)>>,
    turns: Arc<Semaphore>,
    most: usize,
}

impl<Q, A> Clone for Gather<Q, A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Q: Send + 'static, A: Send + 'static> Gather<Q, A> {
    /// Where so many are worked on at the same time, each time with `most` questions at most.
    pub fn new(turns: usize, most: usize) -> Self {
        Self(Arc::new(Inner { waiting: Mutex::default(), turns: Arc::new(Semaphore::new(turns)), most }))
    }

    /// Asks. `work` gives an answer to each of the questions, in their order; it has to be the same whoever asks. None
    /// when it gave none.
    pub async fn ask<W, F>(&self, question: Q, work: W) -> Option<A>
    where
        W: Fn(Vec<Q>) -> F + Send + 'static,
        F: Future<Output = Vec<A>> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        self.waiting().push_back((question, tell));
        if let Ok(turn) = self.0.turns.clone().try_acquire_owned() {
            tokio::spawn(self.clone().answer(turn, work));
        }
        told.await.ok()
    }

    async fn answer<W, F>(self, mut turn: OwnedSemaphorePermit, work: W)
    where
        W: Fn(Vec<Q>) -> F,
        F: Future<Output = Vec<A>>,
    {
        loop {
            while let Some((questions, tellers)) = self.next() {
                for (teller, answer) in tellers.into_iter().zip(work(questions).await) {
                    // Whoever left needs none.
                    let _ = teller.send(answer);
                }
            }
            drop(turn);
            // Who came after the last look found no turn free, perhaps: theirs is taken up again.
            if self.waiting().is_empty() {
                return;
            }
            match self.0.turns.clone().try_acquire_owned() {
                Ok(again) => turn = again,
                Err(_) => return,
            }
        }
    }

    fn next(&self) -> Option<(Vec<Q>, Vec<oneshot::Sender<A>>)> {
        let mut waiting = self.waiting();
        // Those who have left may have gone without an answer: what they asked is done all the same.
        let count = waiting.len().min(self.0.most);
        (count > 0).then(|| waiting.drain(..count).unzip())
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<(Q, oneshot::Sender<A>)>> {
        // Nothing in here panics while it holds the lock.
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn who_comes_while_others_are_answered_is_answered_with_all_who_came() {
        let gather: Gather<usize, usize> = Gather::new(1, 4);
        let (gate, turns) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let asked = (0..9).map(|n| {
            let (gather, gate, turns) = (gather.clone(), gate.clone(), turns.clone());
            async move {
                let work = move |questions: Vec<usize>| {
                    let (gate, turns) = (gate.clone(), turns.clone());
                    async move {
                        turns.fetch_add(1, Ordering::SeqCst);
                        gate.notified().await;
                        questions.into_iter().map(|n| n * 10).collect()
                    }
                };
                gather.ask(n, work).await
            }
        });
        let opener = async {
            // The permit of one notification is kept: it opens the next turn at the latest.
            while turns.load(Ordering::SeqCst) < 3 {
                gate.notify_one();
                tokio::task::yield_now().await;
            }
            gate.notify_one();
        };
        let (answers, ()) = futures_util::future::join(join_all(asked), opener).await;
        assert_eq!(answers, (0..9).map(|n| Some(n * 10)).collect::<Vec<_>>());
        assert_eq!(turns.load(Ordering::SeqCst), 3, "nine questions, four at a time");
    }

    #[tokio::test]
    async fn what_was_asked_is_done_though_nobody_waits_for_it() {
        let gather: Gather<(), ()> = Gather::new(1, 4);
        let done = Arc::new(Notify::new());
        let told = done.clone();
        let work = move |_: Vec<()>| {
            let told = told.clone();
            async move {
                tokio::task::yield_now().await;
                told.notify_one();
                vec![()]
            }
        };
        let asked = gather.ask((), work);
        assert!(futures_util::FutureExt::now_or_never(asked).is_none());
        done.notified().await;
    }

    #[tokio::test]
    async fn who_is_not_answered_is_told_so_and_the_next_is_served() {
        let gather: Gather<bool, ()> = Gather::new(1, 1);
        let work = |questions: Vec<bool>| async move { if questions[0] { vec![()] } else { Vec::new() } };
        assert_eq!(gather.ask(false, work).await, None);
        assert_eq!(gather.ask(true, work).await, Some(()));
    }
}
