//! Whether the tables that answers come from agree with the chain: each entry with the row that it tells of, and each row
//! with an entry.
//!
//! Everything is looked at a piece at a time. A row is always read after the entry that it is compared with, and what may
//! have moved on since is looked at again, so that a notice at work disagrees with nothing.

mod extra;
mod people;
mod whole;

use sea_orm::{ConnectionTrait, DbErr};

use crate::db::Db;
use crate::id::NoticeId;
use crate::notice::evidence::{Entry, Story, seal_of_note};
use crate::notice::rows::{Notice, find};

pub use whole::{Untold, notices, untold};

/// Disagreements that are named at most.
const MOST: usize = 100;
/// Rows read at once.
const PIECE: u64 = 1_000;
/// How long a row may have been written before its entry, or a clock been wrong, in microseconds.
const LEEWAY: i64 = 3_600_000_000;

/// What was compared so far.
#[derive(Debug)]
pub(super) struct Agreement {
    notice: NoticeId,
    /// The key that seals notes; none where nobody sealed anything.
    key: Option<Vec<u8>>,
    row: Option<Notice>,
    story: Story,
    said: Vec<String>,
    /// Deliveries, bounces, answers, standing answers and people told another way whose rows are as entries say.
    ended: u64,
    bounced: u64,
    answers: u64,
    standing: u64,
    told: u64,
}

impl Agreement {
    /// About this notice, before its first entry.
    pub(super) async fn new(db: &Db, on: &impl ConnectionTrait, notice: NoticeId) -> Result<Self, DbErr> {
        Ok(Self {
            notice,
            key: db.sealing_key().map(<[u8]>::to_vec),
            row: find(on, notice).await?,
            story: Story::default(),
            said: Vec::new(),
            ended: 0,
            bounced: 0,
            answers: 0,
            standing: 0,
            told: 0,
        })
    }

    /// Compares the next entries with the rows that they tell of.
    pub(super) async fn take(&mut self, on: &impl ConnectionTrait, entries: &[Entry]) -> Result<(), DbErr> {
        let mut people = people::People::default();
        for entry in entries {
            if let Some(about) = self.story.take(entry) {
                people.add(entry, about);
            }
        }
        people.compare(self, on).await
    }

    /// Compares what remains once all entries were read. Says whether the notice's own rows disagree, which they also do
    /// while an entry about them was not read yet.
    pub(super) async fn whole(&mut self, on: &impl ConnectionTrait) -> Result<Vec<String>, DbErr> {
        self.row = find(on, self.notice).await?;
        whole::compare(on, self.notice, self.row.as_ref(), &self.story).await
    }

    /// Ends it: names the rows of which no entry tells.
    pub(super) async fn finish(
        mut self,
        on: &impl ConnectionTrait,
        whole: Vec<String>,
    ) -> Result<(Vec<String>, Story), DbErr> {
        let mut all = whole;
        if self.row.is_some() {
            extra::name(&mut self, on).await?;
        }
        all.append(&mut self.said);
        all.truncate(MOST);
        Ok((all, self.story))
    }

    /// How a note about somebody is another one than when its entry was made, which tells whether there was one and holds its
    /// seal. One that was taken away is not missed.
    fn other_note(
        &self,
        person: &[u8],
        note: Option<&str>,
        (has_note, seal): (bool, Option<&str>),
    ) -> Option<String> {
        let note = note?;
        if !has_note {
            return Some("note is one of which no entry tells".to_owned());
        }
        let ours = seal_of_note(self.notice, person, note, self.key.as_deref()?);
        (seal.is_some() && seal != ours.as_deref())
            .then(|| "note is another one than when it was recorded".to_owned())
    }

    fn say(&mut self, words: String) {
        if self.said.len() < MOST {
            self.said.push(words);
        }
    }
}

/// How two values differ, where they do.
fn differs<T: PartialEq + std::fmt::Debug>(what: &str, entry: &T, row: &T) -> Option<String> {
    (entry != row).then(|| format!("{what} is {}, not {}", plain(row), plain(entry)))
}

/// A value for people, who need not know that it could be missing.
fn plain(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    match text.strip_prefix("Some(").and_then(|rest| rest.strip_suffix(')')) {
        Some(inner) => inner.to_owned(),
        None if text == "None" => "nothing".to_owned(),
        None => text,
    }
}

/// A person as they are named: by the beginning of the keyed hash of their address.
fn person(hash: &[u8]) -> String {
    format!("person {}", hex::encode(hash))
}
