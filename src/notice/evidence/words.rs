//! The words of evidence. Pure.

use sea_orm::DeriveValueType;
use serde::{Deserialize, Serialize};

use crate::word::words;

/// What an entry tells.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema, DeriveValueType,
)]
#[sea_orm(value_type = "String")]
#[serde(rename_all = "snake_case")]
#[schema(as = EvidenceKind)]
pub enum Kind {
    /// The version was published, and its notice began.
    Published,
    /// A round began.
    Round,
    /// A message to a person came to its end.
    Delivery,
    /// A message that was taken over came back.
    Bounced,
    /// A person was told by letter or telephone.
    Told,
    /// A person answered.
    Approval,
    /// What people were told was corrected.
    Corrected,
    /// The change was put off.
    Postponed,
    /// The change was called off.
    Withdrawn,
    /// It became known that not everyone will be told in time.
    Late,
    /// The change took effect.
    InEffect,
    /// An archive of the evidence was made.
    Exported,
}

words! {
    Kind, "kind of evidence",
    Published = "published",
    Round = "round",
    Delivery = "delivery",
    Bounced = "bounced",
    Told = "told",
    Approval = "approval",
    Corrected = "corrected",
    Postponed = "postponed",
    Withdrawn = "withdrawn",
    Late = "late",
    InEffect = "in_effect",
    Exported = "exported",
}
