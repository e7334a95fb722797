//! Policies, their versions and texts in the database.

mod corrections;
mod settings;
mod versions;

use sea_orm::entity::prelude::*;
use sea_orm::{ConnectionTrait, QueryOrder, QuerySelect};

use super::{Approval, Change, OnSilence, OnUntold, State};
use crate::clock::{Local, Timestamp};
use crate::db::Write;
use crate::id::{BrandId, PolicyId, TopicId, VersionId};

pub use corrections::{Correction, correct, correction, corrections};
pub use settings::{Wanted, list, put};
pub use versions::{
    Published, create, discard, in_force, public, publish, release, text_for, texts_alike, twin,
    versions_after,
};

/// A policy as stored.
pub type Policy = policy::Model;
/// A version as stored.
pub type Version = version::Model;
/// What a version says in one language, as stored.
pub type Text = text::Model;

/// The table of policies.
pub mod policy {
    use super::*;

    /// A policy: a text that a brand promises to keep, and how its changes are told.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "policies")]
    pub struct Model {
        /// Its id.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: PolicyId,
        /// Its name in paths.
        pub slug: String,
        /// Its brand.
        pub brand_id: BrandId,
        /// The topic of class notice in which its notices go out.
        pub topic_id: TopicId,
        /// The topic of class reminder in which people are reminded of notices in force.
        pub reminder_topic_id: Option<TopicId>,
        /// What it is called.
        pub title: String,
        /// The language tag (RFC 5646) of its texts unless a translation says otherwise.
        pub language: String,
        /// The slug of the template of its notices; the built-in one when absent.
        pub template: Option<String>,
        /// Days between the time by which everyone is told and the effective date, at least.
        pub lead_time_days: i64,
        /// Whether what one key publishes another one must release.
        pub two_person: bool,
        /// Who asked that one person be enough from now on, as long as nobody else has.
        pub one_person_asked_by: Option<String>,
        /// When.
        pub one_person_asked_at: Option<Timestamp>,
        /// What holds for who does not answer.
        pub on_silence: OnSilence,
        /// What holds for who could not be told.
        pub on_untold: OnUntold,
        /// Days before the effective date on which those who have not answered are asked again: an array of numbers.
        pub remind_days_before: Json,
        /// Months between two reminders of what is in force; none when absent.
        pub reminder_months: Option<i64>,
        /// Days after the effective date for which the banner is shown.
        pub banner_days_after: i64,
        /// Where on the brand's pages the banner is shown: an array of words.
        pub placements: Json,
        /// When it was made.
        pub created_at: Timestamp,
        /// When it was changed.
        pub updated_at: Timestamp,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The table of versions.
pub mod version {
    use super::*;

    /// A version of a policy.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "policy_versions")]
    pub struct Model {
        /// Its id.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: VersionId,
        /// Of which policy.
        pub policy_id: PolicyId,
        /// Its number, from 1.
        pub number: i64,
        /// How far it has come.
        pub state: State,
        /// How it changes the policy.
        pub change: Change,
        /// Whether people are asked to approve it.
        pub approval: Approval,
        /// The topic that stands for the new use, which people can refuse.
        pub use_topic_id: Option<TopicId>,
        /// From when it holds; of a baseline that names none, from its publication.
        pub effective_at: Option<Timestamp>,
        /// By how many minutes the clock is ahead of UTC by which that was named.
        pub effective_offset: i64,
        /// The same of the date that it was written with, whatever became of that: by this clock are the days on which
        /// something happened to it.
        pub named_offset: i64,
        /// Why it may do what the policy's rules forbid.
        pub override_reason: Option<String>,
        /// Who wrote it.
        pub created_by: String,
        /// When it was written.
        pub created_at: Timestamp,
        /// Who published it.
        pub published_by: Option<String>,
        /// When everyone could read it.
        pub published_at: Option<Timestamp>,
        /// Who released it.
        pub released_by: Option<String>,
        /// When it was called off.
        pub withdrawn_at: Option<Timestamp>,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The table of texts.
pub mod text {
    use super::*;

    /// What a version says in one language.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "policy_texts")]
    pub struct Model {
        /// Of which version.
        #[sea_orm(primary_key, auto_increment = false)]
        pub version_id: VersionId,
        /// The language tag (RFC 5646).
        #[sea_orm(primary_key, auto_increment = false)]
        pub language: String,
        /// What the policy is called in it.
        pub title: String,
        /// What changes, in plain words.
        pub summary: String,
        /// The text, Markdown.
        pub body_markdown: String,
        /// SHA-256 of `body_markdown` in UTF-8.
        pub sha256: Vec<u8>,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The policy of this slug.
///
/// # Errors
/// The database's own.
pub async fn find(on: &impl ConnectionTrait, slug: &str) -> Result<Option<Policy>, DbErr> {
    policy::Entity::find().filter(policy::Column::Slug.eq(slug)).one(on).await
}

/// The policy of this id.
///
/// # Errors
/// The database's own.
pub async fn by_id(on: &impl ConnectionTrait, id: PolicyId) -> Result<Option<Policy>, DbErr> {
    policy::Entity::find_by_id(id).one(on).await
}

/// The policies of a brand, by slug.
///
/// # Errors
/// The database's own.
pub async fn of_brand(on: &impl ConnectionTrait, brand: BrandId) -> Result<Vec<Policy>, DbErr> {
    let found = policy::Entity::find().filter(policy::Column::BrandId.eq(brand));
    found.order_by_asc(policy::Column::Slug).all(on).await
}

/// The version of this id.
///
/// # Errors
/// The database's own.
pub async fn version_by_id(on: &impl ConnectionTrait, id: VersionId) -> Result<Option<Version>, DbErr> {
    version::Entity::find_by_id(id).one(on).await
}

/// The version of this number.
///
/// # Errors
/// The database's own.
pub async fn version(
    on: &impl ConnectionTrait,
    policy: PolicyId,
    number: i64,
) -> Result<Option<Version>, DbErr> {
    let found = version::Entity::find().filter(version::Column::PolicyId.eq(policy));
    found.filter(version::Column::Number.eq(number)).one(on).await
}

/// The versions of a policy by number, drafts and withdrawn ones included.
///
/// # Errors
/// The database's own.
pub async fn versions(on: &impl ConnectionTrait, policy: PolicyId) -> Result<Vec<Version>, DbErr> {
    let found = version::Entity::find().filter(version::Column::PolicyId.eq(policy));
    found.order_by_asc(version::Column::Number).all(on).await
}

/// The numbers of the versions that ask for approval and take effect after this moment.
///
/// # Errors
/// The database's own.
pub async fn asking(on: &impl ConnectionTrait, policy: PolicyId, now: Timestamp) -> Result<Vec<i64>, DbErr> {
    let asks = |version: &Version| {
        version.state == State::Published
            && version.approval == Approval::Required
            && version.effective_at.is_some_and(|at| at > now)
    };
    let asking = versions(on, policy).await?.into_iter().filter(asks);
    Ok(asking.map(|version| version.number).collect())
}

/// The number of the newest version before this one that needs approval, where this one asks for none itself: who owed it
/// that and did not give it keeps what stood for them, whatever comes after.
///
/// # Errors
/// The database's own.
pub async fn owed_before(on: &impl ConnectionTrait, version: &Version) -> Result<Option<i64>, DbErr> {
    if version.approval == Approval::Required {
        return Ok(None);
    }
    let mut earlier = versions(on, version.policy_id).await?.into_iter().rev();
    let asking = earlier.find(|one| {
        one.number < version.number && one.state == State::Published && one.approval == Approval::Required
    });
    Ok(asking.map(|one| one.number))
}

/// The newest version before this one that was published and not withdrawn.
///
/// # Errors
/// The database's own.
pub async fn before(on: &impl ConnectionTrait, version: &Version) -> Result<Option<Version>, DbErr> {
    version::Entity::find()
        .filter(version::Column::PolicyId.eq(version.policy_id))
        .filter(version::Column::Number.lt(version.number))
        .filter(version::Column::State.eq(State::Published))
        .order_by_desc(version::Column::Number)
        .limit(1)
        .one(on)
        .await
}

/// What a version says, by language.
///
/// # Errors
/// The database's own.
pub async fn texts(on: &impl ConnectionTrait, version: VersionId) -> Result<Vec<Text>, DbErr> {
    let found = text::Entity::find().filter(text::Column::VersionId.eq(version));
    found.order_by_asc(text::Column::Language).all(on).await
}

/// Moves the date from which a published version holds, and the clock by which it is named.
///
/// # Errors
/// The database's own.
pub async fn set_effective(txn: &Write, version: VersionId, to: Local) -> Result<(), DbErr> {
    version::Entity::update_many()
        .col_expr(version::Column::EffectiveAt, Expr::value(to.at))
        .col_expr(version::Column::EffectiveOffset, Expr::value(to.east))
        .filter(version::Column::Id.eq(version))
        .exec(&**txn)
        .await?;
    Ok(())
}

/// Calls a published version off.
///
/// # Errors
/// The database's own.
pub async fn withdraw(txn: &Write, version: VersionId, now: Timestamp) -> Result<(), DbErr> {
    version::Entity::update_many()
        .col_expr(version::Column::State, Expr::value(State::Withdrawn))
        .col_expr(version::Column::WithdrawnAt, Expr::value(now))
        .filter(version::Column::Id.eq(version))
        .exec(&**txn)
        .await?;
    Ok(())
}

/// The policies of whose texts in force people are reminded.
///
/// # Errors
/// The database's own.
pub async fn with_reminders(on: &impl ConnectionTrait) -> Result<Vec<Policy>, DbErr> {
    let found = policy::Entity::find().filter(policy::Column::ReminderMonths.is_not_null());
    found.order_by_asc(policy::Column::Slug).all(on).await
}
