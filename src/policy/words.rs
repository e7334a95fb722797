//! The words of policies, which are part of the API. Pure.

use sea_orm::DeriveValueType;
use serde::{Deserialize, Serialize};

use crate::word::words;

/// How a version changes what its policy says, and so who hears of it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema, DeriveValueType,
)]
#[sea_orm(value_type = "String")]
#[serde(rename_all = "snake_case")]
#[schema(as = PolicyChange)]
pub enum Change {
    /// Shows on the policy's pages and mails nobody.
    Minor,
    /// Everyone is told before it takes effect.
    Material,
    /// Everyone is told and asked to approve.
    Adverse,
    /// Everyone is told and may refuse the new use of their data.
    NewUse,
}

words! {
    Change, "kind of change; use minor, material, adverse or new_use",
    Minor = "minor",
    Material = "material",
    Adverse = "adverse",
    NewUse = "new_use",
}

impl Change {
    /// Whether people are told of it by mail.
    pub fn makes_a_notice(self) -> bool {
        self != Self::Minor
    }
}

/// Whether people are asked to approve a version.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema, DeriveValueType,
)]
#[sea_orm(value_type = "String")]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// It stands for those who approved it.
    Required,
    /// It stands without.
    None,
}

words! {
    Approval, "kind of approval; use required or none",
    Required = "required",
    None = "none",
}

/// How far a version has come.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema, DeriveValueType,
)]
#[sea_orm(value_type = "String")]
#[serde(rename_all = "snake_case")]
#[schema(as = VersionState)]
pub enum State {
    /// May still be deleted; nobody else sees it.
    Draft,
    /// Published by one person, and waits for a second one to release it.
    AwaitingRelease,
    /// For everyone to read, for ever.
    Published,
    /// Published once, and called off before it took effect.
    Withdrawn,
}

words! {
    State, "state of a version",
    Draft = "draft",
    AwaitingRelease = "awaiting_release",
    Published = "published",
    Withdrawn = "withdrawn",
}

impl State {
    /// Whether everyone may read it, now and for ever.
    pub fn is_public(self) -> bool {
        matches!(self, Self::Published | Self::Withdrawn)
    }
}

/// What holds for who was asked to approve a version and did not answer. Silence is not consent.
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
pub enum OnSilence {
    /// The version that stood before goes on standing for them.
    #[default]
    EarlierVersionStands,
    /// The same, and their account is flagged for the company to see to.
    AccountFlagged,
}

words! {
    OnSilence, "rule for silence; use earlier_version_stands or account_flagged",
    EarlierVersionStands = "earlier_version_stands",
    AccountFlagged = "account_flagged",
}

/// What holds for who could not be told of a version in time.
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
pub enum OnUntold {
    /// It takes effect for them too.
    #[default]
    TakesEffect,
    /// The version that stood before goes on standing for them.
    EarlierVersionStands,
}

words! {
    OnUntold, "rule for who could not be told; use takes_effect or earlier_version_stands",
    TakesEffect = "takes_effect",
    EarlierVersionStands = "earlier_version_stands",
}
