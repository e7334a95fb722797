//! Making deliveries, and the changes that concern a whole mailing.

use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{ActiveValue::Set, ConnectionTrait, DbErr, EntityTrait, Statement};

use super::entities::delivery;
use crate::db::{Db, Write};
use crate::delivery::{NewDelivery, State, Stream};
use crate::id::MailingId;

/// Rows a statement; 24 columns a row stay under SQLite's limit of bound values.
const CHUNK: usize = 500;

/// Makes a delivery for each of these people, due at once. Who has one of this mailing already gets no second.
/// Returns how many were made. It belongs into the transaction of the fact that causes the deliveries.
///
/// # Errors
/// The database's own.
pub async fn enqueue(txn: &Write, db: &Db, stream: &Stream, new: &[NewDelivery]) -> Result<u64, DbErr> {
    let now = db.read_clock(&**txn).await?;
    let mut added = 0;
    for chunk in new.chunks(CHUNK) {
        let rows = chunk.iter().map(|one| delivery::ActiveModel {
            id: Set(one.id),
            content_id: Set(stream.content),
            mailing_id: Set(stream.mailing),
            brand_id: Set(stream.brand),
            topic_id: Set(stream.topic),
            class: Set(stream.class),
            lane: Set(i16::from(stream.class.can_be_refused())),
            recipient_id: Set(one.recipient),
            address_hash: Set(one.address_hash.clone()),
            data: Set(one.data.clone()),
            state: Set(State::Queued),
            reason: Set(None),
            due_at: Set(now),
            not_after: Set(stream.not_after),
            first_begun_at: Set(None),
            token: Set(None),
            lease_until: Set(None),
            begun: Set(false),
            doubt_until: Set(None),
            doubted: Set(false),
            attempts: Set(0),
            created_at: Set(now),
            settled_at: Set(None),
        });
        let once = OnConflict::new().do_nothing().to_owned();
        added += delivery::Entity::insert_many(rows).on_conflict(once).exec_without_returning(&**txn).await?;
    }
    Ok(added)
}

/// Cancels up to `limit` queued deliveries of a mailing. Returns how many; fewer than `limit` means that none is left.
///
/// # Errors
/// The database's own.
pub async fn cancel_some(txn: &Write, db: &Db, mailing: MailingId, limit: u64) -> Result<u64, DbErr> {
    end_queued(txn, db, "cancelled", "mailing_id = $1", limit, vec![mailing.0.into()]).await
}

/// Ends up to `limit` queued deliveries whose time is over. Returns how many.
///
/// # Errors
/// The database's own.
pub async fn expire_some(txn: &Write, db: &Db, limit: u64) -> Result<u64, DbErr> {
    let over = format!("not_after <= {}", db.now_sql());
    end_queued(txn, db, "expired", &over, limit, Vec::new()).await
}

async fn end_queued(
    txn: &Write,
    db: &Db,
    state: &str,
    which: &str,
    limit: u64,
    values: Vec<sea_orm::Value>,
) -> Result<u64, DbErr> {
    // What was once in doubt may have been sent: it is not plainly cancelled or expired.
    let sql = format!(
        "UPDATE deliveries SET state = CASE WHEN doubted THEN 'unknown' ELSE '{state}' END, settled_at = {now} \
         WHERE id IN (SELECT id FROM deliveries WHERE state = 'queued' AND {which} LIMIT {limit}{lock})",
        now = db.now_sql(),
        lock = super::hold::skip_locked(db.backend()),
    );
    let done = txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    Ok(done.rows_affected())
}

/// Takes the failed deliveries of a mailing up again, with a fresh schedule of attempts; never what is unknown.
/// Returns how many.
///
/// # Errors
/// The database's own.
pub async fn retry_failed(txn: &Write, db: &Db, mailing: MailingId) -> Result<u64, DbErr> {
    use sea_orm::{ColumnTrait, QueryFilter};
    let done = delivery::Entity::update_many()
        .col_expr(delivery::Column::State, Expr::value(State::Queued))
        .col_expr(delivery::Column::DueAt, db.now())
        .col_expr(delivery::Column::Attempts, Expr::value(0))
        .col_expr(delivery::Column::FirstBegunAt, Expr::value(Option::<i64>::None))
        .col_expr(delivery::Column::Reason, Expr::value(Option::<String>::None))
        .col_expr(delivery::Column::SettledAt, Expr::value(Option::<i64>::None))
        .filter(delivery::Column::MailingId.eq(mailing))
        .filter(delivery::Column::State.eq(State::Failed))
        .exec(&**txn)
        .await?;
    Ok(done.rows_affected)
}
