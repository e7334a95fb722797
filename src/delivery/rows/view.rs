//! Deliveries as callers see them: counts, lists, attempts; and the workers' heartbeat.

use std::collections::{BTreeMap, HashMap};

use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QuerySelect,
    Statement,
};
use serde::Serialize;

use super::entities::{attempt, delivery};
use crate::clock::Timestamp;
use crate::db::Db;
use crate::decision::Class;
use crate::delivery::{Counts, State};
use crate::id::{BrandId, DeliveryId, MailingId, RecipientId, TopicId};

/// An attempt as callers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct AttemptView {
    /// When it began.
    pub begun_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// `sent`, `refused`, `deferred`, `not_sent` or `unknown`.
    pub outcome: Option<String>,
    /// How far the SMTP dialogue had come.
    pub phase: Option<String>,
    /// The relay's code.
    pub code: Option<i64>,
    /// The relay's enhanced status (RFC 3463).
    pub enhanced: Option<String>,
    /// The relay's words, or what broke.
    pub reply: Option<String>,
}

/// A delivery as callers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryView {
    /// Its id.
    pub id: DeliveryId,
    /// To whom.
    pub recipient: RecipientId,
    /// The sender.
    pub brand: BrandId,
    /// The stream of messages.
    pub topic: TopicId,
    /// The class.
    pub class: Class,
    /// The campaign or notice.
    pub mailing: Option<MailingId>,
    /// Where it is.
    pub state: State,
    /// Why.
    pub reason: Option<String>,
    /// When it is tried next, while it is queued.
    pub due_at: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it came to its final state.
    pub settled_at: Option<Timestamp>,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptView>,
}

/// Which deliveries to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeliveryFilter {
    /// Of this campaign or notice.
    pub mailing: Option<MailingId>,
    /// To this recipient.
    pub recipient: Option<RecipientId>,
    /// Of this brand.
    pub brand: Option<BrandId>,
    /// In this state.
    pub state: Option<State>,
}

#[derive(FromQueryResult)]
struct Counted {
    word: Option<String>,
    n: i64,
}

/// How many deliveries of a mailing are in which state.
///
/// # Errors
/// The database's own.
pub async fn counts(on: &impl ConnectionTrait, mailing: MailingId) -> Result<Counts, DbErr> {
    let sql = "SELECT state AS word, COUNT(*) AS n FROM deliveries WHERE mailing_id = $1 GROUP BY state";
    let mut counts = Counts::default();
    for row in counted(on, sql, mailing).await? {
        let state: State =
            row.word.unwrap_or_default().parse().map_err(|_| DbErr::Type("a delivery's state".into()))?;
        counts.add(state, u64::try_from(row.n).unwrap_or(0));
    }
    Ok(counts)
}

/// How many deliveries of a mailing were suppressed for which reason.
///
/// # Errors
/// The database's own.
pub async fn suppressed_by(
    on: &impl ConnectionTrait,
    mailing: MailingId,
) -> Result<BTreeMap<String, u64>, DbErr> {
    let sql = "SELECT reason AS word, COUNT(*) AS n FROM deliveries \
               WHERE mailing_id = $1 AND state = 'suppressed' GROUP BY reason";
    let rows = counted(on, sql, mailing).await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.word.unwrap_or_default(), u64::try_from(row.n).unwrap_or(0)))
        .collect())
}

async fn counted(on: &impl ConnectionTrait, sql: &str, mailing: MailingId) -> Result<Vec<Counted>, DbErr> {
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, [mailing.0.into()]);
    Counted::find_by_statement(statement).all(on).await
}

/// One delivery with its attempts.
///
/// # Errors
/// The database's own.
pub async fn get(on: &impl ConnectionTrait, id: DeliveryId) -> Result<Option<DeliveryView>, DbErr> {
    let row = delivery::Entity::find_by_id(id).one(on).await?;
    Ok(with_attempts(on, row.into_iter().collect()).await?.pop())
}

/// Up to `limit` deliveries by id, from the one after `after` on, with their attempts.
///
/// # Errors
/// The database's own.
pub async fn list(
    on: &impl ConnectionTrait,
    filter: DeliveryFilter,
    after: Option<DeliveryId>,
    limit: u64,
) -> Result<Vec<DeliveryView>, DbErr> {
    let mut query = delivery::Entity::find().order_by_asc(delivery::Column::Id).limit(limit);
    if let Some(mailing) = filter.mailing {
        query = query.filter(delivery::Column::MailingId.eq(mailing));
    }
    if let Some(recipient) = filter.recipient {
        query = query.filter(delivery::Column::RecipientId.eq(recipient));
    }
    if let Some(brand) = filter.brand {
        query = query.filter(delivery::Column::BrandId.eq(brand));
    }
    if let Some(state) = filter.state {
        query = query.filter(delivery::Column::State.eq(state));
    }
    if let Some(after) = after {
        query = query.filter(delivery::Column::Id.gt(after));
    }
    with_attempts(on, query.all(on).await?).await
}

async fn with_attempts(
    on: &impl ConnectionTrait,
    rows: Vec<delivery::Model>,
) -> Result<Vec<DeliveryView>, DbErr> {
    let ids: Vec<DeliveryId> = rows.iter().map(|row| row.id).collect();
    let mut attempts: HashMap<DeliveryId, Vec<AttemptView>> = HashMap::new();
    if !ids.is_empty() {
        let found = attempt::Entity::find()
            .filter(attempt::Column::DeliveryId.is_in(ids))
            .order_by_asc(attempt::Column::BegunAt)
            .order_by_asc(attempt::Column::Id)
            .all(on)
            .await?;
        for one in found {
            attempts.entry(one.delivery_id).or_default().push(AttemptView {
                begun_at: one.begun_at,
                ended_at: one.ended_at,
                outcome: one.outcome,
                phase: one.phase,
                code: one.code,
                enhanced: one.enhanced,
                reply: one.reply,
            });
        }
    }
    let view = |row: delivery::Model| DeliveryView {
        attempts: attempts.remove(&row.id).unwrap_or_default(),
        id: row.id,
        recipient: row.recipient_id,
        brand: row.brand_id,
        topic: row.topic_id,
        class: row.class,
        mailing: row.mailing_id,
        state: row.state,
        reason: row.reason,
        due_at: row.due_at,
        created_at: row.created_at,
        settled_at: row.settled_at,
    };
    Ok(rows.into_iter().map(view).collect())
}

/// Notes that a worker looked for work, for those who watch. Nothing is decided by it.
///
/// # Errors
/// The database's own.
pub async fn beat(db: &Db) -> Result<(), DbErr> {
    let txn = db.begin().await?;
    let sql = format!(
        "INSERT INTO heartbeats (name, seen_at) VALUES ('worker', {}) \
         ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at",
        db.now_sql()
    );
    txn.execute_raw(Statement::from_string(db.backend(), sql)).await?;
    txn.commit().await
}

/// How long ago a worker last looked for work; none when none ever did.
///
/// # Errors
/// The database's own.
pub async fn last_beat(db: &Db) -> Result<Option<std::time::Duration>, DbErr> {
    let sql = format!("SELECT {} - seen_at AS ago FROM heartbeats WHERE name = 'worker'", db.now_sql());
    let row = db.reads().query_one_raw(Statement::from_string(db.backend(), sql)).await?;
    let Some(row) = row else { return Ok(None) };
    let ago: i64 = row.try_get("", "ago")?;
    Ok(Some(std::time::Duration::from_micros(u64::try_from(ago).unwrap_or(0))))
}
