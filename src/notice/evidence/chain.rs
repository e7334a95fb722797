//! The chain: each entry holds the hash of the one before it, so that whatever is changed, removed, added or moved later
//! no longer fits.
//!
//! The hash of an entry is SHA-256 over its fields as an export writes them, each as a netstring (its length in octets, a
//! colon, the octets, a comma): the tag `tidings evidence 1`, `notice`, `seq`, `at`, `kind`, `person` (`-` where there is
//! none), `body`, `previous`. The first entry follows 32 octets of zero. A head, kept apart, names the last entry, so that
//! one that is removed from the end is missed. In the database a head is sealed with a key derived from the address key, so
//! that nobody cuts off the end of a chain and names an earlier entry as the last one.
//!
//! Whoever has the whole database and that key (which the database holds unless `TIDINGS_ADDRESS_KEY` is set) can compute
//! everything anew, and whoever has a copy of the database can put an older state back whole. Against both there is the
//! head's hash, written down elsewhere: `tidings evidence verify` prints it, and every export holds it.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::id::NoticeId;

/// What is hashed first, so that nothing else's hash is taken for one of ours.
const TAG: &str = "tidings evidence 1";
/// Before the body of a line.
const BODY: &str = ",\"body\":";
/// What the first entry follows.
pub const NOTHING: [u8; 32] = [0; 32];

/// By what a note about somebody is known again, which itself stays out of the chain: it may name them, and be taken away.
/// Hexadecimal. Only who has the key can tell whether a note is the one.
pub fn seal_of_note(notice: NoticeId, person: &[u8], note: &str, key: &[u8]) -> Option<String> {
    mac(key, &format!("tidings evidence note 1,{notice},{},{note}", hex::encode(person))).map(hex::encode)
}

fn mac(key: &[u8], words: &str) -> Option<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(words.as_bytes());
    Some(mac.finalize().into_bytes().to_vec())
}

/// An entry as it is stored, true or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Of which notice.
    pub notice: NoticeId,
    /// Its number, from 1.
    pub seq: i64,
    /// When it was made.
    pub at: Timestamp,
    /// What it tells; one of [`super::Kind`] where nobody tampered with it.
    pub kind: String,
    /// The keyed hash of the address of whom it is about.
    pub person: Option<Vec<u8>>,
    /// What it says: JSON on one line, kept and hashed as it is.
    pub body: String,
    /// The hash of the entry before.
    pub previous: Vec<u8>,
    /// Its own.
    pub hash: Vec<u8>,
}

impl Entry {
    /// The hash that it has to have under this number.
    pub fn hash_as(&self, seq: i64) -> Vec<u8> {
        let person = self.person.as_deref().map_or_else(|| "-".to_owned(), hex::encode);
        let mut sum = Sha256::new();
        let mut field = |text: &str| {
            sum.update(text.len().to_string());
            sum.update(":");
            sum.update(text);
            sum.update(",");
        };
        field(TAG);
        field(&self.notice.to_string());
        field(&seq.to_string());
        field(&self.at.to_string());
        field(&self.kind);
        field(&person);
        field(&self.body);
        field(&hex::encode(&self.previous));
        sum.finalize().to_vec()
    }

    fn fits(&self, seq: i64, previous: &[u8]) -> bool {
        self.previous == previous && self.hash == self.hash_as(seq)
    }

    /// It as a line of an export, without the end of the line. The body stands last and as it is.
    pub fn to_line(&self) -> String {
        let head = HeadOfLine {
            notice: self.notice,
            seq: self.seq,
            at: self.at,
            kind: self.kind.clone(),
            person: self.person.as_deref().map(hex::encode),
            previous: hex::encode(&self.previous),
            hash: hex::encode(&self.hash),
        };
        let mut line = serde_json::to_string(&head).unwrap_or_default();
        line.truncate(line.len().saturating_sub(1));
        line + BODY + &self.body + "}"
    }

    /// Reads what [`Entry::to_line`] wrote; none where it is anything else.
    pub fn from_line(line: &str) -> Option<Self> {
        let (head, rest) = line.split_once(BODY)?;
        let body = rest.strip_suffix('}')?;
        serde_json::from_str::<serde::de::IgnoredAny>(body).ok()?;
        let head: HeadOfLine = serde_json::from_str(&format!("{head}}}")).ok()?;
        let entry = Self {
            notice: head.notice,
            seq: head.seq,
            at: head.at,
            kind: head.kind,
            person: match head.person {
                Some(person) => Some(hex::decode(&person).ok()?),
                None => None,
            },
            body: body.to_owned(),
            previous: hex::decode(&head.previous).ok()?,
            hash: hex::decode(&head.hash).ok()?,
        };
        (entry.to_line() == line).then_some(entry)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadOfLine {
    notice: NoticeId,
    seq: i64,
    at: Timestamp,
    kind: String,
    person: Option<String>,
    previous: String,
    hash: String,
}

/// The last entry of a chain, as it is kept apart from the entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number; 0 before the first.
    pub seq: i64,
    /// Its hash.
    pub hash: Vec<u8>,
}

impl Head {
    /// Before the first entry.
    pub fn start() -> Self {
        Self { seq: 0, hash: NOTHING.to_vec() }
    }

    /// What only who has the key can put on it.
    pub fn seal(&self, notice: NoticeId, key: &[u8]) -> Option<Vec<u8>> {
        mac(key, &format!("tidings evidence head 1,{notice},{},{}", self.seq, hex::encode(&self.hash)))
    }

    /// The entry that follows, and the head that it becomes.
    pub fn follow(
        &self,
        notice: NoticeId,
        at: Timestamp,
        kind: &str,
        person: Option<Vec<u8>>,
        body: String,
    ) -> (Entry, Self) {
        let seq = self.seq + 1;
        let previous = self.hash.clone();
        let mut entry =
            Entry { notice, seq, at, kind: kind.to_owned(), person, body, previous, hash: Vec::new() };
        entry.hash = entry.hash_as(seq);
        let head = Self { seq, hash: entry.hash.clone() };
        (entry, head)
    }
}

/// How a chain breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The entry does not say what it said.
    Changed,
    /// The entry is not there.
    Missing,
    /// The entry was put in afterwards.
    Inserted,
    /// The entry stands under another number.
    OutOfOrder {
        /// That number.
        stands_at: i64,
    },
    /// The head names the entry by another hash.
    Head,
    /// There are entries, and no head.
    NoHead,
}

/// The first entry at which a chain breaks, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    /// The entry.
    pub seq: i64,
    /// What is wrong with it.
    pub fault: Fault,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seq = self.seq;
        match self.fault {
            Fault::Changed => write!(f, "entry {seq} was changed after it was written"),
            Fault::Missing => write!(f, "entry {seq} is missing"),
            Fault::Inserted => write!(f, "entry {seq} was inserted afterwards"),
            Fault::OutOfOrder { stands_at } => {
                write!(f, "entry {seq} is out of order: it stands as entry {stands_at}")
            }
            Fault::Head => write!(f, "the head does not match: it names entry {seq} by another hash"),
            Fault::NoHead => write!(f, "the head is missing, which names entry {seq} as the last"),
        }
    }
}

/// Verifies a chain, entry by entry in the order in which they stand, keeping three of them at most.
#[derive(Debug, Default)]
pub struct Verifier {
    /// The last one that fits.
    last: Option<Entry>,
    trouble: Option<Trouble>,
    count: i64,
}

/// The first entry that does not fit, and what is learnt from those after it.
#[derive(Debug)]
struct Trouble {
    entry: Entry,
    next: Option<Entry>,
    /// Under which number the one stands that would fit, and whether it comes right after.
    wanted: Option<(i64, bool)>,
}

impl Verifier {
    /// How many entries were looked at.
    pub fn count(&self) -> i64 {
        self.count
    }

    /// The entry that came last, while all fit.
    pub fn last(&self) -> Option<&Entry> {
        self.last.as_ref()
    }

    /// Looks at the next entry. Whether all is well so far.
    pub fn push(&mut self, entry: Entry) -> bool {
        self.count += 1;
        let (seq, previous) = self.wanted();
        let Some(trouble) = &mut self.trouble else {
            let same = self.last.as_ref().is_none_or(|last| last.notice == entry.notice);
            if same && entry.seq == seq && entry.fits(seq, &previous) {
                self.last = Some(entry);
                return true;
            }
            self.trouble = Some(Trouble { entry, next: None, wanted: None });
            return false;
        };
        let right_after = trouble.next.is_none();
        if trouble.wanted.is_none() && entry.fits(seq, &previous) {
            trouble.wanted = Some((entry.seq, right_after));
        }
        if right_after {
            trouble.next = Some(entry);
        }
        false
    }

    /// Says whether they are all that there were.
    ///
    /// # Errors
    /// Where the chain breaks first, and how.
    pub fn finish(self, head: Option<&Head>) -> Result<Head, Break> {
        if let Some(trouble) = &self.trouble {
            return Err(self.judge(trouble, head));
        }
        let (wanted, hash) = self.wanted();
        let seq = wanted - 1;
        let fault = match head {
            None if seq == 0 => return Ok(Head::start()),
            None => Break { seq, fault: Fault::NoHead },
            Some(head) if head.seq > seq => Break { seq: wanted, fault: Fault::Missing },
            Some(head) if head.seq < seq => Break { seq: head.seq + 1, fault: Fault::Inserted },
            Some(head) if head.hash != hash => Break { seq, fault: Fault::Head },
            Some(head) => return Ok(head.clone()),
        };
        Err(fault)
    }

    /// Number and previous hash of the entry that has to come.
    fn wanted(&self) -> (i64, Vec<u8>) {
        self.last.as_ref().map_or_else(|| (1, NOTHING.to_vec()), |last| (last.seq + 1, last.hash.clone()))
    }

    fn judge(&self, trouble: &Trouble, head: Option<&Head>) -> Break {
        let Trouble { entry, next, wanted } = trouble;
        let (seq, previous) = self.wanted();
        let named = |seq: i64, fault: Fault| Break { seq, fault };
        // What fits in the last one's place follows it: the last one was put in before it, or it stands there twice.
        if let Some(last) = &self.last
            && entry.fits(last.seq, &last.previous)
        {
            return named(last.seq, Fault::Inserted);
        }
        if entry.seq != seq && entry.fits(seq, &previous) {
            return named(seq, Fault::OutOfOrder { stands_at: entry.seq });
        }
        // The head speaks of nothing that would come now.
        if head.is_some_and(|head| head.seq < seq) {
            return named(entry.seq.max(seq), Fault::Inserted);
        }
        if entry.seq > seq {
            let stands_at = wanted.map(|(stands_at, _)| stands_at);
            return named(seq, stands_at.map_or(Fault::Missing, |stands_at| Fault::OutOfOrder { stands_at }));
        }
        if entry.seq < seq {
            let true_seq = self.true_number(entry, 1, head);
            let moved = true_seq.filter(|own| *own != entry.seq);
            return match moved {
                Some(own) => named(own, Fault::OutOfOrder { stands_at: entry.seq }),
                None => named(entry.seq, Fault::Inserted),
            };
        }
        if entry.hash == entry.hash_as(seq) {
            // It is whole and follows another one than stands before it. Either of the two was made anew; whether it was
            // this one, those after it tell.
            let vouched = match next {
                Some(next) => next.previous == entry.hash,
                None => head.is_some_and(|head| head.hash == entry.hash),
            };
            let changed = self
                .last
                .as_ref()
                .filter(|last| vouched && last.notice == entry.notice)
                .map_or(seq, |last| last.seq);
            return named(changed, Fault::Changed);
        }
        let belongs_later = self.true_number(entry, seq + 1, head).is_some();
        match (belongs_later, wanted) {
            (false, Some((_, true))) => named(seq, Fault::Inserted),
            (_, Some((stands_at, _))) => named(seq, Fault::OutOfOrder { stands_at: *stands_at }),
            (true, None) => named(seq, Fault::Missing),
            (false, None) => named(seq, Fault::Changed),
        }
    }

    /// The number, from this one on, under which an entry was hashed.
    fn true_number(&self, entry: &Entry, from: i64, head: Option<&Head>) -> Option<i64> {
        // A head that was tampered with names any number.
        let most = head.map_or(0, |head| head.seq).min(self.count * 2).max(self.count) + 1;
        (from..=most).find(|seq| entry.hash == entry.hash_as(*seq))
    }
}

#[cfg(test)]
mod tests;
