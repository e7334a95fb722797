//! What a chain says of the notice itself, as far as it was read: what was published, what became of it, what was told. Pure.

use super::body::{Answer, Bounce, Changed, Delivery, InEffect, Published, Round, Told};
use super::summary::read;
use super::{Entry, Kind};
use crate::clock::Timestamp;
use crate::id::MailingId;
use crate::notice::{RoundKind, State};

/// What a chain says of its notice, entry by entry, in memory that grows with the rounds and not with the people.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// What was published, as the first entry says it; none when that entry says anything else.
    pub published: Option<Published>,
    /// From when the version holds, and by when everyone is to be told, as was said last.
    pub dates: Option<(Timestamp, Timestamp)>,
    /// By how many minutes the clock is ahead of UTC by which the first of these was named.
    pub effective_offset: i64,
    /// The entry that called it off.
    pub withdrawn: Option<i64>,
    /// The entry that says that it took effect.
    pub in_effect: Option<i64>,
    /// The entry that says that it would be late; none again once it was postponed or called off.
    pub late: Option<i64>,
    /// The rounds, with the number of the entry that tells of each.
    pub rounds: Vec<(i64, Round)>,
}

/// What an entry says about a person.
#[derive(Clone, Debug)]
pub enum About {
    /// A message came to its end.
    Delivery(Delivery),
    /// A message came back.
    Bounce(Bounce),
    /// They answered.
    Answer(Answer),
    /// They were told another way.
    Told(Told),
}

impl Story {
    /// Takes the next entry into account, and gives what it says about a person.
    pub fn take(&mut self, entry: &Entry) -> Option<About> {
        match entry.kind.parse().ok()? {
            Kind::Published => {
                if entry.seq == 1 {
                    self.published = read(entry);
                    self.dates = self.published.as_ref().map(|said| (said.effective_at, said.complete_by));
                    self.effective_offset = self.published.as_ref().map_or(0, |said| said.effective_offset);
                }
            }
            Kind::Round => self.rounds.extend(read(entry).map(|round| (entry.seq, round))),
            Kind::Corrected | Kind::Postponed => {
                if let Some(Changed {
                    effective_at: Some(from),
                    complete_by: Some(by),
                    effective_offset,
                    ..
                }) = read(entry)
                {
                    self.dates = Some((from, by));
                    self.effective_offset = effective_offset;
                }
                if entry.kind == Kind::Postponed.as_str() {
                    self.late = None;
                }
            }
            Kind::Withdrawn => {
                self.withdrawn = Some(entry.seq);
                self.late = None;
            }
            Kind::Late => self.late = Some(entry.seq),
            Kind::InEffect => self.in_effect = read::<InEffect>(entry).map(|_| entry.seq),
            Kind::Delivery => return read(entry).map(About::Delivery),
            Kind::Bounced => return read(entry).map(About::Bounce),
            Kind::Approval => return read(entry).map(About::Answer),
            Kind::Told => return read(entry).map(About::Told),
            Kind::Exported => {}
        }
        None
    }

    /// How far the notice has come. One that only reminds of what is in force begins there.
    pub fn state(&self) -> State {
        let reminds = self.rounds.first().is_some_and(|(_, first)| first.kind == RoundKind::Reminder);
        match (self.withdrawn, self.in_effect) {
            (Some(_), _) => State::Withdrawn,
            (None, Some(_)) => State::InEffect,
            (None, None) if reminds => State::InEffect,
            (None, None) => State::Running,
        }
    }

    /// The mailing of the round of this number.
    pub fn round(&self, number: i64) -> Option<MailingId> {
        self.rounds.iter().rev().find(|(_, round)| round.number == number).map(|(_, round)| round.round)
    }
}
