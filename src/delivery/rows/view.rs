//! Deliveries as callers see them: counts, lists, attempts; and the workers' heartbeat.

use std::collections::HashMap;

use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, Statement,
    Value,
};
use serde::Serialize;

use super::entities::attempt;
use crate::address::AddressHash;
use crate::clock::Timestamp;
use crate::db::{Db, Kind, List};
use crate::decision::Class;
use crate::delivery::State;
use crate::id::{BrandId, ContentId, DeliveryId, MailingId, RecipientId, TopicId};

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

/// How a message came back after the relay had taken it over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = DeliveryBounce)]
pub struct BounceView {
    /// When the report came.
    pub at: Timestamp,
    /// The enhanced status (RFC 3463).
    pub status: Option<String>,
    /// What the mail server said, without any address.
    pub words: Option<String>,
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
    /// Frozen content.
    pub content: ContentId,
    /// The keyed hash of the address that it went to.
    pub address_hash: AddressHash,
    /// SHA-256 of what the last attempt handed over, where that is evidence.
    pub message_sha256: Option<Vec<u8>>,
    /// Its Message-ID, without brackets.
    pub message_id: Option<String>,
    /// Where it is.
    pub state: State,
    /// Why.
    pub reason: Option<String>,
    /// When it is tried next, while it is unfinished.
    pub due_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it came to its final state.
    pub settled_at: Option<Timestamp>,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptView>,
    /// How it came back.
    pub bounced: Option<BounceView>,
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
struct Row {
    id: DeliveryId,
    recipient_id: RecipientId,
    brand_id: BrandId,
    topic_id: TopicId,
    class: Class,
    mailing_id: Option<MailingId>,
    content_id: ContentId,
    address_hash: AddressHash,
    message_sha256: Option<Vec<u8>>,
    message_id: Option<String>,
    state: State,
    reason: Option<String>,
    due_at: Option<Timestamp>,
    created_at: Timestamp,
    settled_at: Option<Timestamp>,
    begun_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    outcome: Option<String>,
    phase: Option<String>,
    code: Option<i64>,
    enhanced: Option<String>,
    reply: Option<String>,
    begun: Option<bool>,
    queue_begun_at: Option<Timestamp>,
    bounced_at: Option<Timestamp>,
    bounced_status: Option<String>,
    bounced_words: Option<String>,
}

/// What is unfinished is told by the queue, the rest by the record.
const ROWS: &str = "SELECT d.id, d.recipient_id, d.brand_id, d.topic_id, d.class, d.mailing_id, \
    d.content_id, d.address_hash, d.message_sha256, d.message_id, \
    CASE WHEN d.state <> 'open' THEN d.state WHEN q.token IS NULL THEN 'queued' ELSE 'sending' END AS state, \
    d.reason, q.due_at, d.created_at, d.settled_at, d.begun_at, d.ended_at, d.outcome, d.phase, d.code, d.enhanced, \
    d.reply, q.begun, q.begun_at AS queue_begun_at, b.at AS bounced_at, b.status AS bounced_status, \
    b.words AS bounced_words";
/// Whether it came back.
const BOUNCED: &str = "LEFT JOIN bounces b ON b.delivery_id = d.id";

/// One delivery with its attempts.
///
/// # Errors
/// The database's own.
pub async fn get(on: &impl ConnectionTrait, id: DeliveryId) -> Result<Option<DeliveryView>, DbErr> {
    let sql = format!(
        "{ROWS} FROM deliveries d LEFT JOIN queue q ON q.delivery_id = d.id {BOUNCED} WHERE d.id = $1"
    );
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, [id.0.into()]);
    let rows = Row::find_by_statement(statement).all(on).await?;
    Ok(with_attempts(on, rows).await?.pop())
}

/// Those of these deliveries that there are, by id, with their attempts; at most 1,000 at a time.
///
/// # Errors
/// The database's own.
pub async fn these(on: &impl ConnectionTrait, ids: &[DeliveryId]) -> Result<Vec<DeliveryView>, DbErr> {
    let mut values = Vec::new();
    let list = List::of("id", Kind::Uuid, ids.iter().map(|id| id.0));
    let list = list.relation(on.get_database_backend(), "l", &mut values);
    let sql = format!(
        "{ROWS} FROM {list} JOIN deliveries d ON d.id = l.id LEFT JOIN queue q ON q.delivery_id = d.id {BOUNCED} ORDER BY d.id"
    );
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, values);
    with_attempts(on, Row::find_by_statement(statement).all(on).await?).await
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
    let mut values: Vec<Value> = Vec::new();
    let mut which = vec!["TRUE".to_owned()];
    let mut holds = |condition: &str, value: Value| {
        values.push(value);
        which.push(format!("{condition} ${}", values.len()));
    };
    if let Some(mailing) = filter.mailing {
        holds("d.mailing_id =", mailing.0.into());
    }
    if let Some(recipient) = filter.recipient {
        holds("d.recipient_id =", recipient.0.into());
    }
    if let Some(brand) = filter.brand {
        holds("d.brand_id =", brand.0.into());
    }
    if let Some(after) = after {
        holds("d.id >", after.0.into());
    }
    let join = match filter.state {
        None => "LEFT JOIN",
        Some(State::Queued) => {
            which.push("q.token IS NULL".into());
            "JOIN"
        }
        Some(State::Sending) => {
            which.push("q.token IS NOT NULL".into());
            "JOIN"
        }
        Some(State::Sent) => {
            which.push("d.state = 'sent'".into());
            "LEFT JOIN"
        }
        Some(state) => {
            which.push(format!("d.unsent = '{state}'"));
            "LEFT JOIN"
        }
    };
    let sql = format!(
        "{ROWS} FROM deliveries d {join} queue q ON q.delivery_id = d.id {BOUNCED} WHERE {} ORDER BY d.id LIMIT {limit}",
        which.join(" AND ")
    );
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, values);
    with_attempts(on, Row::find_by_statement(statement).all(on).await?).await
}

async fn with_attempts(on: &impl ConnectionTrait, rows: Vec<Row>) -> Result<Vec<DeliveryView>, DbErr> {
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
    let view = |row: Row| {
        let mut made = attempts.remove(&row.id).unwrap_or_default();
        made.extend(row.last());
        DeliveryView {
            attempts: made,
            bounced: row.bounced_at.map(|at| BounceView {
                at,
                status: row.bounced_status,
                words: row.bounced_words,
            }),
            id: row.id,
            recipient: row.recipient_id,
            brand: row.brand_id,
            topic: row.topic_id,
            class: row.class,
            mailing: row.mailing_id,
            content: row.content_id,
            address_hash: row.address_hash,
            message_sha256: row.message_sha256,
            message_id: row.message_id,
            state: row.state,
            reason: row.reason,
            due_at: row.due_at,
            created_at: row.created_at,
            settled_at: row.settled_at,
        }
    };
    Ok(rows.into_iter().map(view).collect())
}

impl Row {
    /// The attempt that ended it, or the one that is under way.
    fn last(&self) -> Option<AttemptView> {
        if self.outcome.is_some() {
            return Some(AttemptView {
                begun_at: self.begun_at.unwrap_or(self.created_at),
                ended_at: self.ended_at,
                outcome: self.outcome.clone(),
                phase: self.phase.clone(),
                code: self.code,
                enhanced: self.enhanced.clone(),
                reply: self.reply.clone(),
            });
        }
        (self.begun == Some(true)).then(|| AttemptView {
            begun_at: self.queue_begun_at.unwrap_or(self.created_at),
            ended_at: None,
            outcome: None,
            phase: None,
            code: None,
            enhanced: None,
            reply: None,
        })
    }
}

/// Notes that a worker looked for work, and how many messages it handed over since it last did, for those who watch.
/// Nothing is decided by it.
///
/// # Errors
/// The database's own.
pub async fn beat(db: &Db, handed_over: u64) -> Result<(), DbErr> {
    let txn = db.begin().await?;
    let sql = format!(
        "INSERT INTO heartbeats (name, seen_at, handed_over) VALUES ('worker', {}, $1) \
         ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at, \
         handed_over = heartbeats.handed_over + excluded.handed_over",
        db.now_sql()
    );
    let handed_over = i64::try_from(handed_over).unwrap_or(i64::MAX);
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, [handed_over.into()])).await?;
    txn.commit().await
}

/// How many messages all workers have handed over, as they told by their heartbeats.
///
/// # Errors
/// The database's own.
pub async fn handed_over(on: &impl ConnectionTrait) -> Result<u64, DbErr> {
    let sql = "SELECT handed_over FROM heartbeats WHERE name = 'worker'";
    let row = on.query_one_raw(Statement::from_string(on.get_database_backend(), sql)).await?;
    let count: i64 = row.map_or(Ok(0), |row| row.try_get("", "handed_over"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Whether anything may go now, as far as no limit keeps it, and has not gone yet.
///
/// # Errors
/// The database's own.
pub async fn anything_waits(db: &Db, on: &impl ConnectionTrait) -> Result<bool, DbErr> {
    let sql = format!(
        "SELECT 1 AS one FROM contents c WHERE c.active AND c.lane IN (0, 1) AND NOT c.held AND EXISTS \
         (SELECT 1 FROM queue q WHERE q.content_id = c.id AND q.due_at <= {} AND q.aside IS NULL) LIMIT 1",
        db.now_sql()
    );
    Ok(on.query_one_raw(Statement::from_string(db.backend(), sql)).await?.is_some())
}

/// How long ago a worker last looked for work; none when none ever did.
///
/// # Errors
/// The database's own.
pub async fn last_beat(db: &Db, on: &impl ConnectionTrait) -> Result<Option<std::time::Duration>, DbErr> {
    let sql = format!("SELECT {} - seen_at AS ago FROM heartbeats WHERE name = 'worker'", db.now_sql());
    let row = on.query_one_raw(Statement::from_string(db.backend(), sql)).await?;
    let Some(row) = row else { return Ok(None) };
    let ago: i64 = row.try_get("", "ago")?;
    Ok(Some(std::time::Duration::from_micros(u64::try_from(ago).unwrap_or(0))))
}
