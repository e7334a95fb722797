//! What the decision is made of.

use sea_orm::DeriveValueType;
use serde::{Deserialize, Serialize};

use crate::word::words;

/// A person's standing with the company.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    DeriveValueType,
)]
#[sea_orm(value_type = "String")]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Nothing special.
    #[default]
    Active,
    /// Processing of the person's data is restricted (GDPR art. 18).
    Restricted,
    /// The account is deactivated.
    Deactivated,
    /// The person must not be contacted.
    ContactBan,
    /// The person was erased; only the keyed hash of the address is left.
    Erased,
}

words! {
    Standing, "standing",
    Active = "active",
    Restricted = "restricted",
    Deactivated = "deactivated",
    ContactBan = "contact_ban",
    Erased = "erased",
}

/// Whether a mailbox is known to be gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    /// No failure speaks of the mailbox.
    #[default]
    Alive,
    /// One failure: enough to stop what can be refused.
    DeadForRefusable,
    /// Two failures at least a day apart: enough to stop everything.
    Dead,
}

/// What somebody said about mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Said {
    /// No more of it.
    OptOut,
    /// Send it.
    OptIn,
}

/// The newest word about one scope. `seq` is the order in which the person's events were committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stand {
    /// What was said.
    pub said: Said,
    /// Its place among all that was said for this address; never a time.
    pub seq: i64,
    /// Whether it came as a complaint from a mailbox provider.
    pub complaint: bool,
}

/// All that the decision about one message to one person depends on, read fresh right before hand-over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Facts {
    /// The person's standing.
    pub standing: Standing,
    /// Whether the mailbox is dead.
    pub health: Health,
    /// Whether the person is a customer of the brand.
    pub customer: bool,
    /// Whether customers keep getting this topic after a wider opt-out.
    pub customers_keep: bool,
    /// Whether the topic asks for confirmed consent.
    pub consent_required: bool,
    /// The newest word about everything.
    pub all: Option<Stand>,
    /// The newest word about the brand.
    pub brand: Option<Stand>,
    /// The newest word about the topic.
    pub topic: Option<Stand>,
}

impl Facts {
    fn covering(&self) -> impl Iterator<Item = Stand> {
        [self.all, self.brand, self.topic].into_iter().flatten()
    }

    /// The newest word among the scopes that cover the message.
    pub fn newest(&self) -> Option<Said> {
        self.covering().max_by_key(|stand| stand.seq).map(|stand| stand.said)
    }

    /// Whether this word is an opt-out that no later opt-in of a covering scope lifted.
    pub fn stands_out(&self, stand: Option<Stand>) -> bool {
        stand.is_some_and(|stand| {
            stand.said == Said::OptOut
                && !self.covering().any(|other| other.said == Said::OptIn && other.seq > stand.seq)
        })
    }

    /// Whether a complaint stands.
    pub fn complained(&self) -> bool {
        self.covering().any(|stand| stand.complaint && self.stands_out(Some(stand)))
    }
}
