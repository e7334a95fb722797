//! What is remembered of a limit, and what may be granted from it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BackOff, Limit, Name, Rate};
use crate::clock::{Timestamp, micros};
use crate::delivery::rows::Lane;

/// Into how many parts a window is cut: what ended is remembered by the part, so a permit may come up to one part of the
/// window late and never early.
pub(super) const PARTS: i64 = 50;
pub(super) const DAY: i64 = 24 * 3600 * 1_000_000;
/// When to look again for what waits for a message under way to end.
const SOON: Duration = Duration::from_millis(50);

/// What is remembered of a limit. Kept in its row, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Book {
    /// Permits that are open.
    pub open: u32,
    /// Length in microseconds of a part of the window.
    part: i64,
    /// How many permits ended in which part, counted from 1970; the oldest first.
    ended: VecDeque<(i64, u32)>,
    /// The day, counted from 1970 in UTC, of the last permit that ended, and how many ended on it.
    day: i64,
    ended_on_day: u32,
    /// What the destination's own words amount to.
    #[serde(skip_serializing_if = "BackOff::is_over")]
    pub back_off: BackOff,
}

/// How much there is to grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// So many permits.
    pub free: u32,
    /// When more may become free; a moment passed when nothing is limited.
    pub more_at: Timestamp,
}

impl Book {
    /// Takes permits that were granted.
    pub fn take(&mut self, permits: u32) {
        self.open = self.open.saturating_add(permits);
    }

    /// Counts permits of which it was found now that they are not open any more.
    pub fn end(&mut self, limit: &Limit, permits: u32, now: Timestamp) {
        self.open = self.open.saturating_sub(permits);
        if permits == 0 {
            return;
        }
        // A clock that went back adds to the day it had reached: too much there is better than too little.
        let day = now.0.div_euclid(DAY).max(self.day);
        if day > self.day {
            (self.day, self.ended_on_day) = (day, 0);
        }
        self.ended_on_day = self.ended_on_day.saturating_add(permits);
        let Some(rate) = limit.rate else {
            self.ended.clear();
            return;
        };
        self.cut(rate, now);
        let part = now.0.div_euclid(self.part);
        match self.ended.back_mut() {
            Some((last, count)) if *last >= part => *count = count.saturating_add(permits),
            _ => self.ended.push_back((part, permits)),
        }
    }

    /// Forgets the parts that no window can reach any more, and recounts them when the window was changed.
    fn cut(&mut self, rate: Rate, now: Timestamp) {
        let part = (micros(rate.window) / PARTS).max(1);
        if self.part != part {
            let before = std::mem::replace(&mut self.part, part);
            for (old, _) in &mut self.ended {
                // At the latest moment that it may stand for.
                let latest = old.saturating_add(1).saturating_mul(before).saturating_sub(1);
                *old = latest.div_euclid(part);
            }
        }
        let start = now.0.saturating_sub(micros(rate.window));
        while self.ended.front().is_some_and(|(old, _)| self.end_of(*old) <= start) {
            self.ended.pop_front();
        }
    }

    fn end_of(&self, part: i64) -> i64 {
        part.saturating_add(1).saturating_mul(self.part)
    }

    /// How many more the rate allows, and when the next one that ended leaves the window.
    fn by_rate(&self, rate: Rate, now: Timestamp) -> Room {
        let start = now.0.saturating_sub(micros(rate.window));
        let mut within = self.ended.iter().filter(|(part, _)| self.end_of(*part) > start).peekable();
        let more_at =
            within.peek().map_or(now.plus(SOON), |(part, _)| Timestamp(self.end_of(*part)).plus(rate.window));
        let used = within.fold(self.open, |sum, (_, count)| sum.saturating_add(*count));
        Room { free: rate.messages.saturating_sub(used), more_at }
    }

    fn by_day(&self, most: u32, now: Timestamp) -> Room {
        let today = now.0.div_euclid(DAY);
        let ended = if self.day >= today { self.ended_on_day } else { 0 };
        let tomorrow = Timestamp((self.day.max(today) + 1).saturating_mul(DAY));
        Room { free: most.saturating_sub(self.open.saturating_add(ended)), more_at: tomorrow }
    }
}

/// How many permits the limit leaves now.
pub fn room(limit: &Limit, book: &Book, now: Timestamp) -> Room {
    let mut room = Room { free: u32::MAX, more_at: now };
    let mut also = |other: Room| {
        if other.free == 0 && room.free == 0 {
            room.more_at = room.more_at.max(other.more_at);
        } else if other.free < room.free {
            room = other;
        }
    };
    let at_once = [limit.at_once, book.back_off.width()].into_iter().flatten().min();
    if let Some(at_once) = at_once {
        also(Room { free: at_once.saturating_sub(book.open), more_at: now.plus(SOON) });
    }
    if let Some(rate) = limit.rate {
        also(book.by_rate(rate, now));
    }
    if let Some(most) = limit.warm_up.as_ref().and_then(|warm_up| warm_up.most(now.0.div_euclid(DAY))) {
        also(book.by_day(most, now));
    }
    if let Some(until) = book.back_off.paused_until().filter(|until| *until > now) {
        also(Room { free: 0, more_at: until });
    }
    room
}

/// Grants each of these, of a lane each, a permit of every limit that it names, or none of any, in their order. Who gets
/// none learns which limit has no room for longest, and when it may have.
pub fn share_out<'a>(
    books: &mut BTreeMap<Name, (Limit, Book)>,
    wanted: impl IntoIterator<Item = (Lane, &'a [Name])>,
    now: Timestamp,
) -> Vec<Result<(), (Name, Timestamp)>> {
    let rooms = |(name, (limit, book)): (&Name, &(Limit, Book))| {
        (name.clone(), Lane::ALL.map(|lane| room(&limit.part_of(name, lane), book, now)))
    };
    let mut rooms: BTreeMap<Name, [Room; 2]> = books.iter().map(rooms).collect();
    let mut shared = Vec::new();
    for (lane, names) in wanted {
        let full = names
            .iter()
            .filter_map(|name| Some((name, rooms.get(name)?[lane as usize])))
            .filter(|(_, room)| room.free == 0)
            .max_by_key(|(_, room)| room.more_at);
        if let Some((name, room)) = full {
            shared.push(Err((name.clone(), room.more_at)));
            continue;
        }
        for name in names {
            if let (Some(rooms), Some((_, book))) = (rooms.get_mut(name), books.get_mut(name)) {
                for room in rooms {
                    room.free = room.free.saturating_sub(1);
                }
                book.take(1);
            }
        }
        shared.push(Ok(()));
    }
    shared
}
