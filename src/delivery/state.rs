//! The states of a delivery. Pure.

use sea_orm::DeriveValueType;
use serde::{Deserialize, Serialize};

use crate::word::words;

/// Where a delivery is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, DeriveValueType, utoipa::ToSchema,
)]
#[sea_orm(value_type = "String")]
#[serde(rename_all = "snake_case")]
#[schema(as = DeliveryState)]
pub enum State {
    /// Waits for its time and a worker.
    Queued,
    /// Claimed by a worker.
    Sending,
    /// The relay took it over.
    Sent,
    /// The decision said no.
    Suppressed,
    /// Refused for good, tried long enough, or it cannot be rendered.
    Failed,
    /// Perhaps sent, perhaps not; what can be refused is never tried again.
    Unknown,
    /// Its time was over before it was sent.
    Expired,
    /// Its campaign was cancelled.
    Cancelled,
}

words! {
    State, "state of a delivery",
    Queued = "queued",
    Sending = "sending",
    Sent = "sent",
    Suppressed = "suppressed",
    Failed = "failed",
    Unknown = "unknown",
    Expired = "expired",
    Cancelled = "cancelled",
}

/// How many deliveries of a mailing are in which state. The states add up to the total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Counts {
    /// All of them.
    pub total: u64,
    /// Waiting.
    pub queued: u64,
    /// With a worker.
    pub sending: u64,
    /// Taken over by the relay.
    pub sent: u64,
    /// Not sent because the decision said no.
    pub suppressed: u64,
    /// Refused for good, tried long enough, or not renderable.
    pub failed: u64,
    /// Perhaps sent.
    pub unknown: u64,
    /// Too late.
    pub expired: u64,
    /// Cancelled with the campaign.
    pub cancelled: u64,
}

impl Counts {
    /// Adds `n` deliveries in this state.
    pub fn add(&mut self, state: State, n: u64) {
        self.total += n;
        *match state {
            State::Queued => &mut self.queued,
            State::Sending => &mut self.sending,
            State::Sent => &mut self.sent,
            State::Suppressed => &mut self.suppressed,
            State::Failed => &mut self.failed,
            State::Unknown => &mut self.unknown,
            State::Expired => &mut self.expired,
            State::Cancelled => &mut self.cancelled,
        } += n;
    }

    /// These and those together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            total: self.total + other.total,
            queued: self.queued + other.queued,
            sending: self.sending + other.sending,
            sent: self.sent + other.sent,
            suppressed: self.suppressed + other.suppressed,
            failed: self.failed + other.failed,
            unknown: self.unknown + other.unknown,
            expired: self.expired + other.expired,
            cancelled: self.cancelled + other.cancelled,
        }
    }

    /// How many will not move any more by themselves.
    pub fn settled(&self) -> u64 {
        self.total - self.queued - self.sending
    }
}
