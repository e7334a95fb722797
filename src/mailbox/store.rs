//! What the mailbox keeps: the newest messages, bounded by number and by size.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::view;
use crate::clock::Timestamp;

/// Most messages kept.
pub(super) const MAX_MESSAGES: usize = 10_000;
/// Most octets kept, over all messages.
const MAX_TOTAL: usize = 512 * 1024 * 1024;

/// A message as it was received. Its `Debug` form holds no address.
pub struct Received {
    /// Counts from 1.
    pub id: u64,
    /// When its final dot was read.
    pub at: Timestamp,
    /// The envelope sender.
    pub from: String,
    /// The envelope recipients.
    pub to: Vec<String>,
    /// Header and body, dots unstuffed.
    pub bytes: Vec<u8>,
    /// The subject, decoded and cut; empty when there is none.
    pub subject: String,
    /// The From field for people, decoded and cut; the envelope sender when there is none.
    pub sender: String,
}

impl std::fmt::Debug for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Received({}, {} octets)", self.id, self.bytes.len())
    }
}

/// The messages, oldest first.
pub(super) struct Store {
    kept: Mutex<Kept>,
    count: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    messages: VecDeque<Arc<Received>>,
    octets: usize,
    last: u64,
}

impl Store {
    pub(super) fn new() -> Self {
        Self { kept: Mutex::default(), count: watch::Sender::new(0) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message and drops the oldest that find no room any more.
    pub(super) fn add(&self, from: String, to: Vec<String>, bytes: Vec<u8>) -> u64 {
        let (subject, sender) = view::summary(&bytes);
        let sender = if sender.is_empty() { from.clone() } else { sender };
        let mut kept = self.kept();
        kept.last += 1;
        let id = kept.last;
        kept.octets += bytes.len();
        kept.messages.push_back(Arc::new(Received {
            id,
            at: Timestamp::now(),
            from,
            to,
            bytes,
            subject,
            sender,
        }));
        while kept.messages.len() > MAX_MESSAGES || (kept.octets > MAX_TOTAL && kept.messages.len() > 1) {
            if let Some(oldest) = kept.messages.pop_front() {
                kept.octets -= oldest.bytes.len();
            }
        }
        drop(kept);
        self.count.send_modify(|count| *count = id.max(*count));
        id
    }

    pub(super) fn newest_first(&self) -> Vec<Arc<Received>> {
        self.kept().messages.iter().rev().cloned().collect()
    }

    pub(super) fn find(&self, id: u64) -> Option<Arc<Received>> {
        let kept = self.kept();
        // Ids have no gaps, so the place follows from the oldest.
        let oldest = kept.messages.front()?.id;
        kept.messages.get(usize::try_from(id.checked_sub(oldest)?).ok()?).cloned()
    }

    pub(super) fn count(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }
}

/// One page of a search: messages, and the id to go on from when there are more.
pub(super) struct Found {
    pub(super) messages: Vec<Arc<Received>>,
    pub(super) next: Option<u64>,
}

/// The newest messages before `before` whose recipient, sender or subject holds `text`.
pub(super) fn search(all: Vec<Arc<Received>>, text: &str, before: Option<u64>, limit: usize) -> Found {
    let text = text.trim().to_lowercase();
    let mut hits = all.into_iter().filter(|message| {
        before.is_none_or(|before| message.id < before)
            && (text.is_empty()
                || message.subject.to_lowercase().contains(&text)
                || message.sender.to_lowercase().contains(&text)
                || message.to.iter().any(|to| to.to_lowercase().contains(&text)))
    });
    let messages: Vec<_> = hits.by_ref().take(limit).collect();
    let next = hits.next().and_then(|_| messages.last().map(|last| last.id));
    Found { messages, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(count: usize) -> Store {
        let store = Store::new();
        for n in 0..count {
            let head = format!("Subject: no {n}\r\n\r\n");
            store.add("s@x.example".into(), vec![format!("{n}@b.example")], head.into_bytes());
        }
        store
    }

    #[test]
    fn the_newest_are_kept_and_found() {
        let store = filled(MAX_MESSAGES + 5);
        let all = store.newest_first();
        assert_eq!((all.len(), all[0].id), (MAX_MESSAGES, MAX_MESSAGES as u64 + 5));
        assert!(store.find(5).is_none() && store.find(0).is_none());
        assert_eq!(store.find(6).unwrap().subject, "no 5");
        assert!(store.find(u64::MAX).is_none());
    }

    #[test]
    fn a_search_pages_without_loss() {
        let store = filled(120);
        let mut seen = Vec::new();
        let mut before = None;
        loop {
            let found = search(store.newest_first(), "NO 1", before, 7);
            seen.extend(found.messages.iter().map(|message| message.id));
            before = found.next;
            if before.is_none() {
                break;
            }
        }
        let expected: Vec<u64> =
            (0..120_u64).rev().filter(|n| n.to_string().starts_with('1')).map(|n| n + 1).collect();
        assert_eq!(seen, expected);
        assert_eq!(search(store.newest_first(), "17@b.", None, 50).messages.len(), 2);
    }
}
