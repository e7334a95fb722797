//! Notices in the database.
//!
//! Whatever changes a notice first takes its row's lock, so that changes, answers and the worker's steps come one after the
//! other; on SQLite every writing transaction is alone anyway.

pub mod approvals;
mod change;
mod evidence;
mod open;
mod pace;
mod people;
mod reminders;
mod requests;
mod shown;
pub mod site;
mod steps;
mod uses;
mod view;
mod walk;

use std::collections::BTreeMap;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::LockType;
use sea_orm::{ConnectionTrait, PaginatorTrait, QueryOrder, QuerySelect};

use super::{Decision, Request, RoundKind, RoundState, State, ToldBy};
use crate::address::AddressHash;
use crate::brand::{self, Topic};
use crate::clock::Timestamp;
use crate::db::Write;
use crate::id::{
    ApprovalId, BrandId, ContentId, DeliveryId, MailingId, NoticeId, PolicyId, RecipientId, VersionId,
};
use crate::policy::rows::Policy;
use crate::policy::{self, OnSilence, OnUntold};

pub use change::{Reasons, correct, postpone, withdraw};
pub use evidence::{
    NewEntry, RECORDED_AT_ONCE, Read, Reading, Seal, Unfit, Untold, all_sealed, append, append_many,
    by_person, due, entries, examine, head, made_from, not_sealed_yet, notices as known_notices, published,
    read_through, record_deliveries, seal, seal_now, untold, verify,
};
pub use open::open;
pub use pace::{Beat, keep_pace, outlook, somebody_sends};
pub use people::{
    ToldFailure, UNREACHED_HEADER, Unreached, tell_otherwise, telling, unreached, unreached_as_csv,
};
pub use reminders::remind;
pub use requests::{By, Waiting, ask, requested, take_back, take_up, takes_two};
pub use shown::{RoundView, View, WaitingView, look, view};
pub(super) use steps::{Work, act, waiting};
pub use uses::{OfUse, heed, still_refused};
pub use view::{
    Answers, Forecast, Told, answers, anybody_untried, counts, counts_of_round, forecast, waiting_for,
};

/// A notice as stored.
pub type Notice = notice::Model;
/// A round as stored.
pub type Round = round::Model;
/// What a round says in one language, as stored.
pub type RoundText = round_text::Model;

/// Which rounds told of the change itself, as [`RoundKind::tells_of_the_change`] says it.
const TELLING: &str = "('change', 'correction', 'postponement')";

/// The table of notices.
pub mod notice {
    use super::*;

    /// What tells everyone of a version of a policy.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "notices")]
    pub struct Model {
        /// Its id.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: NoticeId,
        /// Of which policy.
        pub policy_id: PolicyId,
        /// Of which version; a version has one notice at most.
        pub version_id: VersionId,
        /// Whose people are told.
        pub brand_id: BrandId,
        /// How far it has come.
        pub state: State,
        /// From when the change holds.
        pub effective_at: Timestamp,
        /// By when everyone is to be told.
        pub complete_by: Timestamp,
        /// Since when it has been known that not everyone will be.
        pub late_since: Option<Timestamp>,
        /// How many approve, as things stand.
        pub approved: i64,
        /// How many decline, as things stand.
        pub declined: i64,
        /// What holds for who is asked to approve and does not answer, as the policy said when it was published.
        pub on_silence: OnSilence,
        /// What holds for who cannot be told, as the policy said when it was published.
        pub on_untold: OnUntold,
        /// Whether what one key asks another one must release, as the policy said when it was published.
        pub two_person: bool,
        /// Who published it.
        pub created_by: String,
        /// When it was published.
        pub created_at: Timestamp,
        /// When nothing was left to do.
        pub closed_at: Option<Timestamp>,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The table of rounds.
pub mod round {
    use super::*;

    /// One telling of a notice.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "notice_rounds")]
    pub struct Model {
        /// Its id, by which its deliveries are found.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: MailingId,
        /// Of which notice.
        pub notice_id: NoticeId,
        /// Its number, from 1.
        pub number: i64,
        /// What is told.
        pub kind: RoundKind,
        /// Why, where it is not the first one.
        pub reason: Option<String>,
        /// How far it has come.
        pub state: RoundState,
        /// The last person whom the walk has looked at.
        pub walk_after: Option<RecipientId>,
        /// Up to when changed people were looked at.
        pub swept_to: Timestamp,
        /// Who began it.
        pub created_by: String,
        /// When it began.
        pub created_at: Timestamp,
        /// When everyone whom the walk found was told or given up.
        pub completed_at: Option<Timestamp>,
        /// When it ended.
        pub closed_at: Option<Timestamp>,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The table of what rounds say.
pub mod round_text {
    use super::*;

    /// What a round says in one language.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "notice_texts")]
    pub struct Model {
        /// Of which round.
        #[sea_orm(primary_key, auto_increment = false)]
        pub round_id: MailingId,
        /// The language tag (RFC 5646).
        #[sea_orm(primary_key, auto_increment = false)]
        pub language: String,
        /// What its deliveries point to.
        pub content_id: ContentId,
        /// What the deliveries of those point to who heard nothing of the rounds before, where that is something else.
        pub newcomer_content_id: Option<ContentId>,
        /// What changes, in plain words.
        pub summary: String,
        /// Why people are told again, in this language.
        pub reason: Option<String>,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The table of who was told another way.
pub mod told {
    use super::*;

    /// Somebody who was told by letter or telephone.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "notice_told")]
    pub struct Model {
        /// Of which notice.
        #[sea_orm(primary_key, auto_increment = false)]
        pub notice_id: NoticeId,
        /// Who.
        #[sea_orm(primary_key, auto_increment = false)]
        pub recipient_id: RecipientId,
        /// Of what: the round that did not reach them.
        #[sea_orm(primary_key, auto_increment = false)]
        pub round_id: MailingId,
        /// How.
        pub told_by: ToldBy,
        /// What there is to say about it.
        pub note: Option<String>,
        /// When it was recorded.
        pub told_at: Timestamp,
        /// Who recorded it.
        pub recorded_by: String,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The table of answers.
pub mod approval {
    use super::*;

    /// An answer; never changed.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "approvals")]
    pub struct Model {
        /// Its id; ids sort by time.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: ApprovalId,
        /// To which version.
        pub version_id: VersionId,
        /// Whose.
        pub recipient_id: RecipientId,
        /// The keyed hash of their address, which outlives erasure.
        pub address_hash: AddressHash,
        /// What it says.
        pub decision: Decision,
        /// In which language the change was shown.
        pub language: String,
        /// SHA-256 of the text that was shown.
        pub sha256: Vec<u8>,
        /// The message by whose link it came; of an answer by letter or telephone the one that told of the change, if there
        /// was one.
        pub delivery_id: Option<DeliveryId>,
        /// When.
        pub decided_at: Timestamp,
        /// How it came, if not on the page.
        pub given_by: Option<ToldBy>,
        /// What there is to say about that.
        pub note: Option<String>,
        /// Who recorded it, if not the person.
        pub recorded_by: Option<String>,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The table of the newest answer of each person.
pub mod approval_standing {
    use super::*;

    /// What a person's answer to a version is now.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "approvals_standing")]
    pub struct Model {
        /// To which version.
        #[sea_orm(primary_key, auto_increment = false)]
        pub version_id: VersionId,
        /// Whose.
        #[sea_orm(primary_key, auto_increment = false)]
        pub recipient_id: RecipientId,
        /// The answer itself.
        pub approval_id: ApprovalId,
        /// What it says.
        pub decision: Decision,
        /// When it was given.
        pub decided_at: Timestamp,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The table of changes that wait for a second key.
pub mod request {
    use super::*;

    /// The newest change of a notice that somebody asked for and somebody else has to release.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "notice_requests")]
    pub struct Model {
        /// Of which notice.
        #[sea_orm(primary_key, auto_increment = false)]
        pub notice_id: NoticeId,
        /// What is to be done.
        pub change: Request,
        /// What was asked, as the API took it.
        pub request: Json,
        /// Who asked for it.
        pub asked_by: String,
        /// When.
        pub asked_at: Timestamp,
        /// Who released it.
        pub released_by: Option<String>,
        /// When.
        pub released_at: Option<Timestamp>,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The notice of this id.
///
/// # Errors
/// The database's own.
pub async fn find(on: &impl ConnectionTrait, id: NoticeId) -> Result<Option<Notice>, DbErr> {
    notice::Entity::find_by_id(id).one(on).await
}

/// The notice of this version, if it has one.
///
/// # Errors
/// The database's own.
pub async fn of_version(on: &impl ConnectionTrait, version: VersionId) -> Result<Option<Notice>, DbErr> {
    notice::Entity::find().filter(notice::Column::VersionId.eq(version)).one(on).await
}

/// The notice of this id, locked until the transaction ends.
///
/// # Errors
/// The database's own.
pub async fn locked(txn: &Write, id: NoticeId) -> Result<Option<Notice>, DbErr> {
    notice::Entity::find_by_id(id).lock(LockType::Update).one(&**txn).await
}

/// The rounds of a notice by number.
///
/// # Errors
/// The database's own.
pub async fn rounds(on: &impl ConnectionTrait, notice: NoticeId) -> Result<Vec<Round>, DbErr> {
    let found = round::Entity::find().filter(round::Column::NoticeId.eq(notice));
    found.order_by_asc(round::Column::Number).all(on).await
}

/// The round of this mailing, if it is one.
///
/// # Errors
/// The database's own.
pub async fn round_of(on: &impl ConnectionTrait, mailing: MailingId) -> Result<Option<Round>, DbErr> {
    round::Entity::find_by_id(mailing).one(on).await
}

impl RoundText {
    /// All that deliveries of the round in this language point to.
    pub fn contents(&self) -> impl Iterator<Item = ContentId> + use<> {
        [Some(self.content_id), self.newcomer_content_id].into_iter().flatten()
    }
}

/// What a round says, by language.
///
/// # Errors
/// The database's own.
pub async fn texts(on: &impl ConnectionTrait, round: MailingId) -> Result<Vec<RoundText>, DbErr> {
    let found = round_text::Entity::find().filter(round_text::Column::RoundId.eq(round));
    found.order_by_asc(round_text::Column::Language).all(on).await
}

/// The newest round that told of the change itself; of one that was called off, that which says so.
///
/// # Errors
/// The database's own.
pub async fn telling_round(on: &impl ConnectionTrait, notice: NoticeId) -> Result<Option<Round>, DbErr> {
    let rounds = rounds(on, notice).await?;
    let tells = |round: &Round| round.kind.tells_of_the_change() || round.kind == RoundKind::Withdrawal;
    Ok(rounds.into_iter().rev().find(tells))
}

/// What people were told last, by language.
async fn said(on: &impl ConnectionTrait, notice: NoticeId) -> Result<BTreeMap<String, String>, DbErr> {
    let Some(round) = telling_round(on, notice).await? else { return Ok(BTreeMap::new()) };
    Ok(texts(on, round.id).await?.into_iter().map(|text| (text.language, text.summary)).collect())
}

/// How many running notices will be late, as is known.
///
/// # Errors
/// The database's own.
pub async fn late(on: &impl ConnectionTrait) -> Result<u64, DbErr> {
    let running = notice::Entity::find().filter(notice::Column::ClosedAt.is_null());
    let late = running
        .filter(notice::Column::State.eq(State::Running))
        .filter(notice::Column::LateSince.is_not_null());
    late.count(on).await
}

/// Notices by id, from the first after `after`; of one brand or of all, of one policy or of all.
///
/// # Errors
/// The database's own.
pub async fn list(
    on: &impl ConnectionTrait,
    brand: Option<BrandId>,
    policy: Option<PolicyId>,
    after: Option<NoticeId>,
    limit: u64,
) -> Result<Vec<Notice>, DbErr> {
    let mut found = notice::Entity::find().order_by_asc(notice::Column::Id).limit(limit);
    if let Some(brand) = brand {
        found = found.filter(notice::Column::BrandId.eq(brand));
    }
    if let Some(policy) = policy {
        found = found.filter(notice::Column::PolicyId.eq(policy));
    }
    if let Some(after) = after {
        found = found.filter(notice::Column::Id.gt(after));
    }
    found.all(on).await
}

/// The topic in which a round of a policy goes out: reminders have one of their own, which can be refused.
async fn topic_of(on: &impl ConnectionTrait, policy: &Policy, kind: RoundKind) -> Result<Topic, DbErr> {
    let id = match (kind, policy.reminder_topic_id) {
        (RoundKind::Reminder, Some(topic)) => topic,
        _ => policy.topic_id,
    };
    let topic = brand::rows::topic_by_id(on, id).await?;
    topic.ok_or_else(|| DbErr::RecordNotFound("the topic of a policy's notices".into()))
}

/// The number that a statement counts as `n`.
async fn number(
    on: &impl ConnectionTrait,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<u64, DbErr> {
    let statement = sea_orm::Statement::from_sql_and_values(on.get_database_backend(), sql, values);
    let row = on.query_one_raw(statement).await?;
    let n: i64 = row.map_or(Ok(0), |row| row.try_get("", "n"))?;
    Ok(u64::try_from(n).unwrap_or(0))
}

/// The number of the newest version of a policy that is published and was not withdrawn: nobody accepted a later one.
async fn newest(on: &impl ConnectionTrait, policy: &Policy) -> Result<i64, DbErr> {
    let versions = policy::rows::versions(on, policy.id).await?;
    let published = versions.iter().filter(|version| version.state == policy::State::Published);
    Ok(published.map(|version| version.number).max().unwrap_or(0))
}
