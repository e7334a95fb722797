//! What the owner of a mailing asks and changes about its deliveries as a whole, in bounded steps.

use sea_orm::{ConnectionTrait, DbErr, Statement};

use crate::clock::Timestamp;
use crate::db::Write;
use crate::id::MailingId;

/// Whether nothing of a mailing is queued or being sent.
///
/// # Errors
/// The database's own.
pub async fn is_settled(on: &impl ConnectionTrait, mailing: MailingId) -> Result<bool, DbErr> {
    // Two equalities, each answered by the first entry of the index on mailing and state.
    let open = |state: &str| {
        format!("EXISTS (SELECT 1 FROM deliveries WHERE mailing_id = $1 AND state = '{state}')")
    };
    let sql = format!("SELECT CASE WHEN {} OR {} THEN 1 ELSE 0 END AS open", open("queued"), open("sending"));
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, [mailing.0.into()]);
    let row = on.query_one_raw(statement).await?;
    let open: i32 = row.ok_or_else(|| DbErr::RecordNotFound("an answer".into()))?.try_get("", "open")?;
    Ok(open == 0)
}

/// Gives up to `limit` deliveries of a mailing the deadline `not_after` where they have another: those that are queued,
/// and those that expired by the other one, which are queued again. Returns how many; fewer than `limit` means that
/// none is left.
///
/// # Errors
/// The database's own.
pub async fn move_deadline(
    txn: &Write,
    mailing: MailingId,
    not_after: Option<Timestamp>,
    limit: u64,
) -> Result<u64, DbErr> {
    let another = match not_after {
        Some(_) => "(not_after IS NULL OR not_after <> $2)",
        None => "not_after IS NOT NULL",
    };
    let (set, values): (&str, Vec<sea_orm::Value>) = match not_after {
        Some(at) => ("$2", vec![mailing.0.into(), at.0.into()]),
        None => ("NULL", vec![mailing.0.into()]),
    };
    let sql = format!(
        "UPDATE deliveries SET not_after = {set}, state = 'queued', settled_at = NULL \
         WHERE id IN (SELECT id FROM deliveries \
         WHERE mailing_id = $1 AND state IN ('queued', 'expired') AND {another} LIMIT {limit})"
    );
    changed(txn, sql, values).await
}

/// Deletes up to `limit` deliveries of a mailing of which nothing was ever sent. Returns how many; fewer than `limit`
/// means that none is left.
///
/// # Errors
/// The database's own; an attempt that was made keeps its delivery.
pub async fn delete_some(txn: &Write, mailing: MailingId, limit: u64) -> Result<u64, DbErr> {
    let sql = format!(
        "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE mailing_id = $1 LIMIT {limit})"
    );
    changed(txn, sql, vec![mailing.0.into()]).await
}

async fn changed(txn: &Write, sql: String, values: Vec<sea_orm::Value>) -> Result<u64, DbErr> {
    let statement = Statement::from_sql_and_values(txn.get_database_backend(), sql, values);
    Ok(txn.execute_raw(statement).await?.rows_affected())
}
