//! What a message is, in law and in this program.

use std::fmt;
use std::str::FromStr;

use sea_orm::DeriveValueType;
use serde::{Deserialize, Serialize};

/// A word that is none of those expected; the text names it and them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnknownWord(pub(crate) String);

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

impl Class {
    /// Every class.
    pub const ALL: [Self; 6] =
        [Self::Requested, Self::Service, Self::Notice, Self::Relationship, Self::Reminder, Self::Marketing];

    /// Whether people can opt out of it. What they cannot refuse is the service side.
    pub fn can_be_refused(self) -> bool {
        matches!(self, Self::Relationship | Self::Reminder | Self::Marketing)
    }

    /// The word used in the API and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Service => "service",
            Self::Notice => "notice",
            Self::Relationship => "relationship",
            Self::Reminder => "reminder",
            Self::Marketing => "marketing",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Class {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|class| class.as_str() == text).ok_or_else(|| {
            UnknownWord(format!(
                "{text:?} is no class; use requested, service, notice, relationship, reminder or marketing"
            ))
        })
    }
}
