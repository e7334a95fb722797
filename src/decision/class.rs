//! What a message is, in law and in this program.

use sea_orm::DeriveValueType;
use serde::{Deserialize, Serialize};

use crate::word::words;

/// The class of a topic and of every message in it.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    DeriveValueType,
)]
#[sea_orm(value_type = "String")]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The person asked for it: a password reset, a receipt, a confirmation.
    Requested,
    /// Outage, security, account.
    Service,
    /// A policy changes.
    Notice,
    /// Product updates to those who have dealings with the brand.
    Relationship,
    /// Reminders of notices in force.
    Reminder,
    /// Offers, newsletters, surveys, partners.
    Marketing,
}

words! {
    Class, "class; use requested, service, notice, relationship, reminder or marketing",
    Requested = "requested",
    Service = "service",
    Notice = "notice",
    Relationship = "relationship",
    Reminder = "reminder",
    Marketing = "marketing",
}

impl Class {
    /// Whether people can opt out of it. What they cannot refuse is the service side.
    pub fn can_be_refused(self) -> bool {
        matches!(self, Self::Relationship | Self::Reminder | Self::Marketing)
    }
}
