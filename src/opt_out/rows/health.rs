//! Whether an address is dead, and a person's standing.

use sea_orm::{ConnectionTrait, DbErr, Statement};

use crate::address::AddressHash;
use crate::clock::Timestamp;
use crate::db::{Db, Write};
use crate::decision::Standing;
use crate::id::RecipientId;

/// Counts a permanent failure that speaks of the mailbox.
///
/// # Errors
/// The database's own.
pub async fn record_failure(txn: &Write, db: &Db, hash: &AddressHash) -> Result<(), DbErr> {
    touch(txn, hash).await?;
    let sql = format!(
        "UPDATE addresses SET failures = failures + 1, first_failed_at = COALESCE(first_failed_at, {now}), \
         last_failed_at = {now} WHERE address_hash = $1",
        now = db.now_sql()
    );
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, [hash.0.clone().into()])).await?;
    Ok(())
}

/// Takes an address for alive again. Returns how many were dead.
///
/// # Errors
/// The database's own.
pub async fn revive(txn: &Write, hash: &AddressHash) -> Result<u64, DbErr> {
    let sql = "UPDATE addresses SET failures = 0, first_failed_at = NULL, last_failed_at = NULL \
               WHERE address_hash = $1 AND failures > 0";
    let done = txn
        .execute_raw(Statement::from_sql_and_values(txn.get_database_backend(), sql, [hash.0.clone().into()]))
        .await?;
    Ok(done.rows_affected())
}

/// Takes every address for alive again whose last failure lies in this window: a relay's bad hour. Returns how many.
///
/// # Errors
/// The database's own.
pub async fn revive_window(txn: &Write, since: Timestamp, until: Timestamp) -> Result<u64, DbErr> {
    let sql = "UPDATE addresses SET failures = 0, first_failed_at = NULL, last_failed_at = NULL \
               WHERE failures > 0 AND last_failed_at >= $1 AND last_failed_at <= $2";
    let values = [since.0.into(), until.0.into()];
    let done =
        txn.execute_raw(Statement::from_sql_and_values(txn.get_database_backend(), sql, values)).await?;
    Ok(done.rows_affected())
}

/// Changes a person's standing. Returns the hash of their address, or none for an unknown recipient. Only
/// [`crate::fence`] calls it, since a change may stop messages under way.
///
/// # Errors
/// The database's own.
pub async fn set_standing(
    txn: &Write,
    db: &Db,
    recipient: RecipientId,
    standing: Standing,
) -> Result<Option<AddressHash>, DbErr> {
    let sql = format!(
        "UPDATE recipients SET standing = $2, updated_at = {} WHERE id = $1 RETURNING address_hash",
        db.now_sql()
    );
    let values = [recipient.0.into(), standing.as_str().into()];
    let row = txn.query_one_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    row.map(|row| Ok(AddressHash(row.try_get("", "address_hash")?))).transpose()
}

async fn touch(txn: &Write, hash: &AddressHash) -> Result<(), DbErr> {
    let sql =
        "INSERT INTO addresses (address_hash, last_seq, failures) VALUES ($1, 0, 0) ON CONFLICT DO NOTHING";
    txn.execute_raw(Statement::from_sql_and_values(txn.get_database_backend(), sql, [hash.0.clone().into()]))
        .await?;
    Ok(())
}
