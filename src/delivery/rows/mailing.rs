//! What the owner of a mailing changes about its deliveries as a whole, in bounded steps.

use sea_orm::{ConnectionTrait, DbErr, Statement, Value};

use super::Lane;
use super::enqueue::{reopen_some, wake};
use super::tally::Moves;
use crate::clock::Timestamp;
use crate::db::{Db, Kind, List, Write};
use crate::delivery::State;
use crate::id::{ContentId, MailingId};

/// A mailing whose deliveries share one content.
#[derive(Clone, Copy, Debug)]
pub struct Mailing {
    /// The campaign or notice.
    pub id: MailingId,
    /// What its deliveries point to.
    pub content: ContentId,
    /// Where they wait.
    pub lane: Lane,
}

/// Gives up to `limit` deliveries of a mailing the deadline `not_after` where they have another: those that are queued,
/// and those that expired by the other one, which are queued again. Returns how many; fewer than `limit` means that
/// none is left.
///
/// # Errors
/// The database's own.
pub async fn move_deadline(
    txn: &Write,
    db: &Db,
    mailing: Mailing,
    not_after: Option<Timestamp>,
    limit: u64,
) -> Result<u64, DbErr> {
    let at = not_after.map(|at| at.0);
    let another = match at {
        Some(_) => "(not_after IS NULL OR not_after <> $2)",
        None => "not_after IS NOT NULL AND CAST($2 AS bigint) IS NULL",
    };
    let values: Vec<Value> = vec![mailing.content.0.into(), at.into()];
    let sql = format!(
        "UPDATE queue SET not_after = $2 WHERE delivery_id IN (SELECT delivery_id FROM queue \
         WHERE content_id = $1 AND token IS NULL AND {another} LIMIT {limit}) RETURNING delivery_id"
    );
    let queued = txn.query_all_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    let ids: Result<Vec<uuid::Uuid>, DbErr> =
        queued.iter().map(|row| row.try_get("", "delivery_id")).collect();
    let ids = ids?;
    let list = List::of("id", Kind::Uuid, ids.iter().copied());
    let mut values: Vec<Value> = vec![at.into()];
    let relation = list.relation(db.backend(), "l", &mut values);
    let sql = format!("UPDATE deliveries SET not_after = $1 FROM {relation} WHERE deliveries.id = l.id");
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    let moved = ids.len() as u64;
    let reopened = reopen_some(txn, db, mailing, "expired", limit - moved, Some(at)).await?;
    if reopened > 0 {
        wake(txn, db, mailing.content, mailing.lane).await?;
        let mut moves = Moves::default();
        let n = i64::try_from(reopened).unwrap_or(i64::MAX);
        moves.add(mailing.content, State::Expired, "", -n);
        moves.add(mailing.content, State::Queued, "", n);
        moves.write(txn, db).await?;
    }
    Ok(moved + reopened)
}

/// Deletes up to `limit` deliveries of a mailing of which nothing was ever sent. Returns how many; fewer than `limit`
/// means that none is left.
///
/// # Errors
/// The database's own; an attempt that was made keeps its delivery.
pub async fn delete_some(txn: &Write, mailing: Mailing, limit: u64) -> Result<u64, DbErr> {
    let backend = txn.get_database_backend();
    let these = format!("SELECT id FROM deliveries WHERE mailing_id = $1 ORDER BY id LIMIT {limit}");
    let run = async |sql: String, id: uuid::Uuid| {
        let done = txn.execute_raw(Statement::from_sql_and_values(backend, sql, [id.into()])).await?;
        Ok::<u64, DbErr>(done.rows_affected())
    };
    run(format!("DELETE FROM queue WHERE delivery_id IN ({these})"), mailing.id.0).await?;
    let deleted = run(format!("DELETE FROM deliveries WHERE id IN ({these})"), mailing.id.0).await?;
    if deleted < limit {
        run("DELETE FROM tally WHERE content_id = $1".to_owned(), mailing.content.0).await?;
    }
    Ok(deleted)
}
