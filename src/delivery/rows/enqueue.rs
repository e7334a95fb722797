//! Making deliveries, and ending what waits.

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement, Value};

use super::look::end;
use super::tally::Moves;
use super::{Lane, Mailing, skip_locked};
use crate::db::{Db, Kind, List, Write};
use crate::delivery::{NewDelivery, State, Stream};
use crate::id::{AttemptId, ContentId, DeliveryId};

/// Deliveries taken up again in one statement.
const RETRIED_AT_ONCE: u64 = 1_000;

/// Makes a delivery for each of these people, due at once. Who has one of this mailing already gets no second.
/// Returns how many were made. It belongs into the transaction of the fact that causes the deliveries.
///
/// # Errors
/// The database's own.
pub async fn enqueue(txn: &Write, db: &Db, stream: &Stream, new: &[NewDelivery]) -> Result<u64, DbErr> {
    if new.is_empty() {
        return Ok(0);
    }
    let now = db.now_sql();
    let mut list = List::new([
        ("id", Kind::Uuid),
        ("recipient_id", Kind::Uuid),
        ("address_hash", Kind::Bytes),
        ("data", Kind::Json),
    ]);
    for one in new {
        let data = one.data.as_ref().map(ToString::to_string);
        list.push([one.id.0.into(), one.recipient.0.into(), one.address_hash.0.clone().into(), data.into()]);
    }
    let mut values: Vec<Value> = vec![
        stream.content.0.into(),
        stream.mailing.map(|mailing| mailing.0).into(),
        stream.brand.0.into(),
        stream.topic.0.into(),
        stream.class.as_str().into(),
        stream.not_after.map(|at| at.0).into(),
    ];
    let relation = list.relation(db.backend(), "n", &mut values);
    let sql = format!(
        "INSERT INTO deliveries (id, content_id, mailing_id, brand_id, topic_id, class, recipient_id, address_hash, \
         data, state, not_after, doubted, attempts, created_at) \
         SELECT n.id, $1, $2, $3, $4, $5, n.recipient_id, n.address_hash, n.data, 'open', $6, FALSE, 0, {now} \
         FROM {relation} WHERE TRUE ON CONFLICT DO NOTHING RETURNING id"
    );
    let made = txn.query_all_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    let made: Result<Vec<DeliveryId>, DbErr> = made.iter().map(|row| row.try_get("", "id")).collect();
    let made = made?;
    if made.is_empty() {
        return Ok(0);
    }
    queue_up(txn, db, &made).await?;
    wake(txn, db, stream.content, Lane::of(stream.class)).await?;
    let mut moves = Moves::default();
    moves.add(stream.content, State::Queued, "", made.len() as i64);
    moves.write(txn, db).await?;
    Ok(made.len() as u64)
}

/// Puts these open deliveries into the queue, due at once.
pub(super) async fn queue_up(txn: &Write, db: &Db, ids: &[DeliveryId]) -> Result<(), DbErr> {
    let list = List::of("id", Kind::Uuid, ids.iter().map(|id| id.0));
    let mut values = Vec::new();
    let relation = list.relation(db.backend(), "l", &mut values);
    let sql = format!(
        "INSERT INTO queue (delivery_id, content_id, brand_id, topic_id, class, address_hash, due_at, not_after) \
         SELECT d.id, d.content_id, d.brand_id, d.topic_id, d.class, d.address_hash, {}, d.not_after \
         FROM {relation} JOIN deliveries d ON d.id = l.id WHERE TRUE ORDER BY d.id",
        db.now_sql()
    );
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    Ok(())
}

/// Notes that something of this content is unfinished. Whoever calls it holds a share of the content's lock, by the
/// foreign key of a delivery just made or by their own statement, so that no claim puts it to rest meanwhile.
pub(super) async fn wake(txn: &Write, db: &Db, content: ContentId, lane: Lane) -> Result<(), DbErr> {
    let sql = "UPDATE contents SET active = TRUE, lane = $2 WHERE id = $1 AND (NOT active OR lane <> $2)";
    let values = [content.0.into(), (lane as i16).into()];
    let woken = txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    if woken.rows_affected() > 0 || lane == Lane::ServiceSide {
        txn.tell();
    }
    Ok(())
}

/// Cancels up to `limit` queued deliveries of a content. Returns how many; fewer than `limit` means that none is left.
///
/// # Errors
/// The database's own.
pub async fn cancel_some(txn: &Write, db: &Db, content: ContentId, limit: u64) -> Result<u64, DbErr> {
    let mut moves = Moves::default();
    let values = vec![content.0.into()];
    let ended = end_queued(txn, db, State::Cancelled, "q.content_id = $1", limit, values, &mut moves).await?;
    moves.write(txn, db).await?;
    Ok(ended)
}

/// Ends up to `limit` queued deliveries whose time is over. Returns how many.
///
/// # Errors
/// The database's own.
pub async fn expire_some(txn: &Write, db: &Db, limit: u64) -> Result<u64, DbErr> {
    let mut moves = Moves::default();
    let ended = expire_into(txn, db, limit, &mut moves).await?;
    moves.write(txn, db).await?;
    Ok(ended)
}

pub(super) async fn expire_into(txn: &Write, db: &Db, limit: u64, moves: &mut Moves) -> Result<u64, DbErr> {
    let over = format!("q.not_after <= {}", db.now_sql());
    end_queued(txn, db, State::Expired, &over, limit, Vec::new(), moves).await
}

#[derive(FromQueryResult)]
struct Waiting {
    id: DeliveryId,
    content_id: ContentId,
    doubted: bool,
    reason: Option<String>,
}

async fn end_queued(
    txn: &Write,
    db: &Db,
    state: State,
    which: &str,
    limit: u64,
    values: Vec<Value>,
    moves: &mut Moves,
) -> Result<u64, DbErr> {
    let lock = if skip_locked(db.backend()).is_empty() { "" } else { " FOR UPDATE OF q SKIP LOCKED" };
    let sql = format!(
        "SELECT q.delivery_id AS id, q.content_id, d.doubted, d.reason FROM queue q \
         JOIN deliveries d ON d.id = q.delivery_id WHERE q.token IS NULL AND {which} LIMIT {limit}{lock}"
    );
    let waiting = Waiting::find_by_statement(Statement::from_sql_and_values(db.backend(), sql, values));
    let mut ends = List::new([("id", Kind::Uuid), ("state", Kind::Text), ("reason", Kind::Text)]);
    for one in waiting.all(&**txn).await? {
        // What was once in doubt may have been sent: it is not plainly cancelled or expired.
        let state = if one.doubted { State::Unknown } else { state };
        ends.push([one.id.0.into(), state.as_str().into(), one.reason.into()]);
        moves.add(one.content_id, State::Queued, "", -1);
        moves.add(one.content_id, state, "", 1);
    }
    end(txn, db, &ends).await?;
    Ok(ends.len() as u64)
}

#[derive(FromQueryResult)]
struct Again {
    id: DeliveryId,
    tried: bool,
}

/// Takes the failed deliveries of a mailing up again, with a fresh schedule of attempts; never what is unknown.
/// Returns how many.
///
/// # Errors
/// The database's own.
pub async fn retry_failed(txn: &Write, db: &Db, mailing: Mailing) -> Result<u64, DbErr> {
    let Mailing { content, lane, .. } = mailing;
    let mut again = 0;
    loop {
        let moved = reopen_some(txn, db, mailing, "failed", RETRIED_AT_ONCE, None).await?;
        again += moved;
        if moved < RETRIED_AT_ONCE {
            break;
        }
    }
    if again > 0 {
        wake(txn, db, content, lane).await?;
        let mut moves = Moves::default();
        let n = i64::try_from(again).unwrap_or(i64::MAX);
        moves.add(content, State::Failed, "", -n);
        moves.add(content, State::Queued, "", n);
        moves.write(txn, db).await?;
    }
    Ok(again)
}

/// Opens up to `limit` ended deliveries of a mailing again that ended as `state`, and queues them; `not_after` is a new
/// deadline. What was said of the last attempt moves beside the delivery.
pub(super) async fn reopen_some(
    txn: &Write,
    db: &Db,
    mailing: Mailing,
    state: &'static str,
    limit: u64,
    not_after: Option<Option<i64>>,
) -> Result<u64, DbErr> {
    share(txn, db, mailing.content).await?;
    let sql = format!(
        "SELECT id, outcome IS NOT NULL AS tried FROM deliveries \
         WHERE mailing_id = $1 AND unsent = $2 ORDER BY id LIMIT {limit}"
    );
    let values = [mailing.id.0.into(), state.into()];
    let found = Again::find_by_statement(Statement::from_sql_and_values(db.backend(), sql, values));
    let found = found.all(&**txn).await?;
    if found.is_empty() {
        return Ok(0);
    }
    let mut tried = List::new([("id", Kind::Uuid), ("attempt_id", Kind::Uuid)]);
    for one in found.iter().filter(|one| one.tried) {
        tried.push([one.id.0.into(), AttemptId::new().0.into()]);
    }
    if !tried.is_empty() {
        let mut values = Vec::new();
        let relation = tried.relation(db.backend(), "l", &mut values);
        let sql = format!(
            "INSERT INTO attempts (id, delivery_id, token, begun_at, ended_at, outcome, phase, code, enhanced, reply) \
             SELECT l.attempt_id, d.id, l.attempt_id, COALESCE(d.begun_at, d.created_at), d.ended_at, d.outcome, \
             d.phase, d.code, d.enhanced, d.reply FROM {relation} JOIN deliveries d ON d.id = l.id WHERE TRUE"
        );
        txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    }
    let ids: Vec<DeliveryId> = found.iter().map(|one| one.id).collect();
    open_again(txn, db, &ids, not_after).await?;
    Ok(ids.len() as u64)
}

/// Opens these again and queues them.
async fn open_again(
    txn: &Write,
    db: &Db,
    ids: &[DeliveryId],
    not_after: Option<Option<i64>>,
) -> Result<(), DbErr> {
    let list = List::of("id", Kind::Uuid, ids.iter().map(|id| id.0));
    let mut values: Vec<Value> = vec![not_after.flatten().into()];
    let relation = list.relation(db.backend(), "l", &mut values);
    let deadline =
        if not_after.is_some() { "CAST($1 AS bigint)" } else { "COALESCE(not_after, CAST($1 AS bigint))" };
    let sql = format!(
        "UPDATE deliveries SET state = 'open', unsent = NULL, reason = NULL, attempts = 0, dated_at = NULL, \
         settled_at = NULL, begun_at = NULL, ended_at = NULL, outcome = NULL, phase = NULL, code = NULL, \
         enhanced = NULL, reply = NULL, not_after = {deadline} FROM {relation} WHERE deliveries.id = l.id"
    );
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    queue_up(txn, db, ids).await
}

/// Opens these deliveries of a mailing again, which were suppressed for a reason that holds no more, and queues them.
///
/// # Errors
/// The database's own.
pub async fn reopen_suppressed(
    txn: &Write,
    db: &Db,
    mailing: Mailing,
    ids: &[DeliveryId],
    reason: &str,
) -> Result<(), DbErr> {
    if ids.is_empty() {
        return Ok(());
    }
    share(txn, db, mailing.content).await?;
    open_again(txn, db, ids, None).await?;
    wake(txn, db, mailing.content, mailing.lane).await?;
    let mut moves = Moves::default();
    let n = i64::try_from(ids.len()).unwrap_or(i64::MAX);
    moves.add(mailing.content, State::Suppressed, reason, -n);
    moves.add(mailing.content, State::Queued, "", n);
    moves.write(txn, db).await
}

/// No claim may put the content to rest before this is committed.
async fn share(txn: &Write, db: &Db, content: ContentId) -> Result<(), DbErr> {
    let share = if skip_locked(db.backend()).is_empty() { "" } else { " FOR KEY SHARE" };
    let sql = format!("SELECT id FROM contents WHERE id = $1{share}");
    txn.query_one_raw(Statement::from_sql_and_values(db.backend(), sql, [content.0.into()])).await?;
    Ok(())
}
