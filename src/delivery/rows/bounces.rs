//! Bounces: recorded once for a delivery, and never changed.

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement, Value};

use super::lock_of;
use crate::address::{AddressHash, AddressKey, EmailAddress};
use crate::db::{Db, Write};
use crate::delivery::bounce::{Failure, Failures};
use crate::id::{DeliveryId, MailingId};

/// What became of a report that a delivery failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bounced {
    /// It is recorded.
    New(Failure),
    /// One was recorded before; that one stands.
    Repeated,
    /// There is no such delivery, or it was never handed over.
    NotSent,
}

#[derive(FromQueryResult)]
struct HandedOver {
    mailing_id: Option<MailingId>,
    address_hash: AddressHash,
    address: Option<String>,
}

/// Records that a message came back, and counts it against its address where it says that the mailbox is gone; a
/// repeated report changes nothing.
///
/// # Errors
/// The database's own.
pub async fn record_bounce(
    txn: &Write,
    db: &Db,
    key: &AddressKey,
    delivery: DeliveryId,
    failures: Failures,
) -> Result<Bounced, DbErr> {
    let Some(sent) = handed_over(txn, db, delivery).await? else { return Ok(Bounced::NotSent) };
    let fits = |address: &str| {
        EmailAddress::parse(address).is_ok_and(|address| key.hash(&address) == sent.address_hash)
    };
    let failure = failures.of(fits, sent.address.as_deref());
    let sql = format!(
        "INSERT INTO bounces (delivery_id, mailing_id, at, status, words, permanent, mailbox_gone) \
         VALUES ($1, $2, {}, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        db.now_sql()
    );
    let values: [Value; 6] = [
        delivery.0.into(),
        sent.mailing_id.map(|mailing| mailing.0).into(),
        failure.status.clone().into(),
        failure.words.clone().into(),
        failure.permanent.into(),
        failure.mailbox_gone.into(),
    ];
    let made = txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    if made.rows_affected() == 0 {
        return Ok(Bounced::Repeated);
    }
    if failure.mailbox_gone {
        crate::opt_out::rows::record_failure(txn, db, &sent.address_hash).await?;
    }
    Ok(Bounced::New(failure))
}

/// A delivery whose message the relay has, as far as anybody knows, locked: its end and its bounce come one after the other.
async fn handed_over(txn: &Write, db: &Db, delivery: DeliveryId) -> Result<Option<HandedOver>, DbErr> {
    let sql = format!(
        "SELECT d.mailing_id, d.address_hash, r.address FROM deliveries d JOIN recipients r ON r.id = d.recipient_id \
         LEFT JOIN queue q ON q.delivery_id = d.id WHERE d.id = $1 \
         AND (d.state IN ('sent', 'unknown') OR (d.state = 'open' AND (d.doubted OR q.begun))){}",
        lock_of(db.backend(), "d")
    );
    let statement = Statement::from_sql_and_values(db.backend(), sql, [delivery.0.into()]);
    HandedOver::find_by_statement(statement).one(&**txn).await
}
