//! Limits: how many messages may go to a destination, of a campaign, to the relay. Pure.
//!
//! A message that a limit applies to needs a *permit*. It is granted under the lock of the limit's row, by the
//! database's clock, and stays *open* until the database no longer shows the delivery under the claim that asked; from
//! then on it counts as used at the moment when that was found. So whenever its envelope was written, it was between
//! the two, and nobody has to be quick: what is granted now counts everything open and everything that ended within the
//! window, which is at least everything whose envelope can lie in a window that ends now. Therefore:
//!
//! * no window of the set length, wherever it begins, holds one envelope more than the limit;
//! * no more messages are under way at once than set;
//! * no day (UTC, by the database's clock) holds one more than the warm-up allows;
//! * of a window and of a day the last tenth is the service side's, so that it never waits behind what can be refused;
//! * a crash loses no count: a permit whose holder is gone ends like any other, and counts as used.
//!
//! What gets no permit is set aside without counting as an attempt, in a line of its limit, and is called up as permits
//! become free.

mod back_off;
mod book;
mod outlook;
mod plan;
mod shares;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use back_off::{BackOff, Heard, Said, said};
pub use book::{Book, Room, room, share_out};
pub use plan::Plan;
pub use shares::fair_shares;

use crate::delivery::rows::Lane;
use crate::id::ContentId;

/// At most so many messages in any window of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many, at least 1.
    pub messages: u32,
    /// The window, at least a second.
    pub window: Duration,
}

/// How many messages a day while a sender is new to a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmUp {
    /// The first day, counted from 1970-01-01 in UTC; before it the first day's number holds.
    pub from: i64,
    /// The most on each day, never fewer than the day before; after the last one there is no such limit.
    pub days: Vec<u32>,
}

impl WarmUp {
    /// The most on this day, counted as `from` is; none once the warm-up is over.
    pub fn most(&self, day: i64) -> Option<u32> {
        let place = usize::try_from(day.saturating_sub(self.from)).unwrap_or(0);
        self.days.get(place).copied()
    }
}

/// What is set for one destination, campaign or relay. Without any of the three nothing is limited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Messages in a window.
    pub rate: Option<Rate>,
    /// Messages under way at once.
    pub at_once: Option<u32>,
    /// Messages a day.
    pub warm_up: Option<WarmUp>,
}

impl Limit {
    /// How soon it is to be looked for permits that ended, so that none counts as used, or as open, much later than it
    /// was; `width` is how many may be under way by the destination's own words.
    pub fn look_again(&self, width: Option<u32>) -> Duration {
        const SOON: Duration = Duration::from_millis(50);
        if self.at_once.or(width).is_some() {
            return SOON;
        }
        let window = self.rate.map_or(Duration::MAX, |rate| rate.window / 50);
        window.clamp(SOON, Duration::from_secs(1))
    }
}

/// Of a window, and of a day, one in so many is kept for the service side, rounded down.
const KEPT: u32 = 10;

impl Limit {
    /// As far as this lane may use it, under this name.
    pub fn part_of(&self, name: &Name, lane: Lane) -> Self {
        let mut part = self.clone();
        // All that is sent of a content is of one lane.
        if lane == Lane::ServiceSide || matches!(name, Name::Content(_)) {
            return part;
        }
        let rate = part.rate.iter_mut().map(|rate| &mut rate.messages);
        for most in rate.chain(part.warm_up.iter_mut().flat_map(|warm_up| &mut warm_up.days)) {
            *most -= *most / KEPT;
        }
        part
    }
}

/// What is limited, by the name of its row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// Everything.
    Relay,
    /// What goes to this recipient domain, or to all those that share its limit.
    Domain(String),
    /// What is sent of this content: a campaign.
    Content(ContentId),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relay => f.write_str("relay"),
            Self::Domain(domain) => write!(f, "domain:{domain}"),
            Self::Content(content) => write!(f, "content:{content}"),
        }
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("{text:?} names no limit");
        match text.split_once(':') {
            None if text == "relay" => Ok(Self::Relay),
            Some(("domain", domain)) => Ok(Self::Domain(domain.to_owned())),
            Some(("content", id)) => id.parse().map(Self::Content).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}
