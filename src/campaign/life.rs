//! The life of a campaign: its states and what may be done in each.
//!
//! Pure. What happens by itself (a scheduled campaign comes due, a running one has nothing left) stands in `worker.rs`.
//!
//! ```text
//!            start, send_at ahead          due
//!   draft ────────────────────▶ scheduled ────▶ running ◀────▶ paused      pause, resume
//!     │ start                                    ▲ │ ▲ nothing left
//!     └──────────────────────────────────────────┘ └─┴──────▶ finished     and back by retry
//!   every state but finished ── cancel ──▶ cancelled
//! ```

use std::fmt;

use sea_orm::DeriveValueType;
use serde::{Deserialize, Serialize};

use crate::word::words;

/// How far a campaign has come. The words are part of the API.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema, DeriveValueType,
)]
#[sea_orm(value_type = "String")]
#[serde(rename_all = "snake_case")]
#[schema(as = CampaignState)]
pub enum State {
    /// Being put together.
    Draft,
    /// Frozen, and waiting for its time.
    Scheduled,
    /// Its messages are being sent.
    Running,
    /// Held by somebody.
    Paused,
    /// Nothing is left to send.
    Finished,
    /// Called off: what was not under way is not sent.
    Cancelled,
}

words! {
    State, "state of a campaign; use draft, scheduled, running, paused, finished or cancelled",
    Draft = "draft",
    Scheduled = "scheduled",
    Running = "running",
    Paused = "paused",
    Finished = "finished",
    Cancelled = "cancelled",
}

/// What somebody can do to a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Change its fields.
    Edit,
    /// Add recipients by lines.
    AddLines,
    /// Set how fast it may go, or let it go freely.
    Limit,
    /// Start it.
    Start,
    /// Hold what is not yet under way.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Call it off.
    Cancel,
    /// Take up again what failed.
    Retry,
    /// Delete it; besides, it must never have run.
    Delete,
}

impl Change {
    /// Every change.
    pub const ALL: [Self; 9] = [
        Self::Edit,
        Self::AddLines,
        Self::Limit,
        Self::Start,
        Self::Pause,
        Self::Resume,
        Self::Cancel,
        Self::Retry,
        Self::Delete,
    ];

    /// The states in which it may be done.
    pub fn allowed_in(self) -> &'static [State] {
        match self {
            Self::Edit | Self::AddLines => &[State::Draft, State::Scheduled],
            Self::Limit => &[State::Draft, State::Scheduled, State::Running, State::Paused],
            Self::Start => &[State::Draft],
            Self::Pause => &[State::Running],
            Self::Resume => &[State::Paused],
            Self::Cancel => &[State::Draft, State::Scheduled, State::Running, State::Paused],
            Self::Retry => &[State::Running, State::Paused, State::Finished],
            Self::Delete => &[State::Draft, State::Cancelled],
        }
    }

    /// Whether it may be done now.
    ///
    /// # Errors
    /// Which state the campaign is in and which it would have to be in.
    pub fn permit(self, state: State) -> Result<(), WrongState> {
        if self.allowed_in().contains(&state) { Ok(()) } else { Err(WrongState { change: self, state }) }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Edit => "changed",
            Self::AddLines => "given more recipients",
            Self::Limit => "given another limit",
            Self::Start => "started",
            Self::Pause => "paused",
            Self::Resume => "resumed",
            Self::Cancel => "cancelled",
            Self::Retry => "retried",
            Self::Delete => "deleted",
        }
    }
}

/// A change that the campaign's state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongState {
    /// What was wanted.
    pub change: Change,
    /// The state it met.
    pub state: State,
}

impl fmt::Display for WrongState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "The campaign is {}; it can be {} only while it is ", self.state, self.change.words())?;
        let allowed = self.change.allowed_in();
        for (place, state) in allowed.iter().enumerate() {
            let joint = match place {
                0 => "",
                _ if place + 1 == allowed.len() => " or ",
                _ => ", ",
            };
            write!(f, "{joint}{state}")?;
        }
        f.write_str(".")
    }
}

impl std::error::Error for WrongState {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_in_the_wrong_state_says_which_it_is_and_which_it_should_be() {
        let wrong = Change::Cancel.permit(State::Finished).unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "The campaign is finished; it can be cancelled only while it is draft, scheduled, running or paused."
        );
        let wrong = Change::Start.permit(State::Running).unwrap_err();
        assert_eq!(wrong.to_string(), "The campaign is running; it can be started only while it is draft.");
    }

    #[test]
    fn nothing_brings_a_cancelled_campaign_back() {
        for change in Change::ALL {
            assert_eq!(change.permit(State::Cancelled).is_ok(), change == Change::Delete, "{change:?}");
        }
    }

    #[test]
    fn every_state_reads_what_it_writes() {
        for state in State::ALL {
            assert_eq!(state.to_string().parse::<State>().unwrap(), state);
        }
        assert!("asleep".parse::<State>().unwrap_err().to_string().contains("draft"));
    }
}
