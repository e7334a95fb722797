//! The words of notices, which are part of the API. Pure.

use sea_orm::DeriveValueType;
use serde::{Deserialize, Serialize};

use crate::word::words;

/// How far a notice has come.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema, DeriveValueType,
)]
#[sea_orm(value_type = "String")]
#[serde(rename_all = "snake_case")]
#[schema(as = NoticeState)]
pub enum State {
    /// The change lies ahead; people are told, and whoever joins is told too.
    Running,
    /// The change has taken effect.
    InEffect,
    /// It was called off before.
    Withdrawn,
}

words! {
    State, "state of a notice",
    Running = "running",
    InEffect = "in_effect",
    Withdrawn = "withdrawn",
}

/// What people are told in a round.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema, DeriveValueType,
)]
#[sea_orm(value_type = "String")]
#[serde(rename_all = "snake_case")]
pub enum RoundKind {
    /// That the policy changes.
    Change,
    /// What was wrong in what they were told.
    Correction,
    /// That the change comes later.
    Postponement,
    /// That the change does not come.
    Withdrawal,
    /// That their answer is missing.
    ApprovalReminder,
    /// What has been in force for months.
    Reminder,
}

words! {
    RoundKind, "kind of round",
    Change = "change",
    Correction = "correction",
    Postponement = "postponement",
    Withdrawal = "withdrawal",
    ApprovalReminder = "approval_reminder",
    Reminder = "reminder",
}

impl RoundKind {
    /// Whether it tells of the change itself, so that whoever got it was told.
    pub fn tells_of_the_change(self) -> bool {
        matches!(self, Self::Change | Self::Correction | Self::Postponement)
    }
}

/// How far a round has come.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema, DeriveValueType,
)]
#[sea_orm(value_type = "String")]
#[serde(rename_all = "snake_case")]
pub enum RoundState {
    /// Not everyone has been looked at yet.
    Walking,
    /// Everyone has; whoever joins is added.
    Open,
    /// Nobody is added any more; what waits is still sent.
    Closing,
    /// What waits is being cancelled, since a later round takes its place.
    Stopping,
    /// Nothing is added any more, and nothing waits.
    Closed,
}

words! {
    RoundState, "state of a round",
    Walking = "walking",
    Open = "open",
    Closing = "closing",
    Stopping = "stopping",
    Closed = "closed",
}

/// What a person answers who is asked to approve.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema, DeriveValueType,
)]
#[sea_orm(value_type = "String")]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The version may hold for them.
    Approve,
    /// It may not.
    Decline,
}

words! {
    Decision, "decision; use approve or decline",
    Approve = "approve",
    Decline = "decline",
}

/// What somebody asks to be changed about a notice.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema, DeriveValueType,
)]
#[sea_orm(value_type = "String")]
#[serde(rename_all = "snake_case")]
#[schema(as = NoticeRequest)]
pub enum Request {
    /// That what people were told be corrected.
    Correct,
    /// That the change come later.
    Postpone,
    /// That it do not come.
    Withdraw,
}

words! {
    Request, "change of a notice",
    Correct = "correct",
    Postpone = "postpone",
    Withdraw = "withdraw",
}

/// How else a person was told.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema, DeriveValueType,
)]
#[sea_orm(value_type = "String")]
#[serde(rename_all = "snake_case")]
pub enum ToldBy {
    /// By letter.
    Letter,
    /// By telephone.
    Phone,
}

/// How a person answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnsweredBy {
    /// On the page behind the link of a message.
    Page,
    /// By letter.
    Letter,
    /// By telephone.
    Phone,
}

impl From<Option<ToldBy>> for AnsweredBy {
    fn from(by: Option<ToldBy>) -> Self {
        match by {
            None => Self::Page,
            Some(ToldBy::Letter) => Self::Letter,
            Some(ToldBy::Phone) => Self::Phone,
        }
    }
}

words! {
    ToldBy, "way to tell somebody; use letter or phone",
    Letter = "letter",
    Phone = "phone",
}
