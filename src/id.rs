//! Ids: a type each, so that a brand is never taken for a topic. UUIDs of version 7, which sort by the time they were made.

use std::fmt;
use std::str::FromStr;

use sea_orm::DeriveValueType;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What was given as an id is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no id; one has 36 characters, such as 019aa1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b")]
pub struct NoId;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, DeriveValueType,
        )]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new one.
            #[expect(clippy::new_without_default, reason = "each call gives another")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl sea_orm::TryFromU64 for $name {
            fn try_from_u64(_: u64) -> Result<Self, sea_orm::DbErr> {
                Err(sea_orm::DbErr::ConvertFromU64(stringify!($name)))
            }
        }

        impl FromStr for $name {
            type Err = NoId;

            fn from_str(text: &str) -> Result<Self, NoId> {
                Uuid::parse_str(text).map(Self).map_err(|_| NoId)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
    )*};
}

ids! {
    /// A brand.
    BrandId
    /// A topic of a brand.
    TopicId
    /// A recipient.
    RecipientId
    /// A template.
    TemplateId
    /// Frozen content.
    ContentId
    /// A campaign.
    CampaignId
    /// What may reach a person only once: a campaign or a notice.
    MailingId
    /// A delivery.
    DeliveryId
    /// An attempt to hand a delivery over.
    AttemptId
    /// A claim of a delivery by a worker; made by the worker, so that it can ask whether its claim was committed.
    LeaseToken
    /// An opt-out, an opt-in or the undoing of one.
    OptEventId
    /// An API key.
    ApiKeyId
    /// A policy.
    PolicyId
    /// A version of a policy.
    VersionId
    /// A notice of a change.
    NoticeId
    /// Somebody's answer to a change.
    ApprovalId
    /// An entry in the audit log.
    AuditId
}
