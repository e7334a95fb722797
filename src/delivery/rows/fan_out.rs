//! Deliveries for people whom a query selects, made where they are: no person passes through this process.

use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement, Value};

use super::Lane;
use super::enqueue::{queue_up, wake};
use super::tally::Moves;
use crate::clock::Timestamp;
use crate::db::{Db, Write};
use crate::delivery::{State, Stream};
use crate::id::DeliveryId;

/// Makes a delivery for each of the people whom `people` selects, due at once: a query with the columns `id` and
/// `address_hash`, whose values `values` are bound from `$1` on. Who has one of this mailing already gets no second.
/// Returns how many were made. As [`super::enqueue`] it belongs into the transaction of the fact that causes them.
///
/// # Errors
/// The database's own.
pub async fn enqueue_selected(
    txn: &Write,
    db: &Db,
    stream: &Stream,
    people: &str,
    mut values: Vec<Value>,
) -> Result<u64, DbErr> {
    let now = db.read_clock(&**txn).await?;
    let mut bind = |value: Value| {
        values.push(value);
        format!("${}", values.len())
    };
    let content = bind(stream.content.0.into());
    let brand = bind(stream.brand.0.into());
    let topic = bind(stream.topic.0.into());
    let class = bind(stream.class.as_str().into());
    let not_after = bind(stream.not_after.map(|at| at.0).into());
    let mailing = bind(stream.mailing.map(|mailing| mailing.0).into());
    let milliseconds = bind((Timestamp::now().0 / 1000).into());
    let now = bind(now.0.into());
    let postgres = db.backend() == DbBackend::Postgres;
    let deliveries = format!(
        "INSERT INTO deliveries (id, content_id, mailing_id, brand_id, topic_id, class, recipient_id, address_hash, \
         state, not_after, doubted, attempts, created_at) \
         SELECT {id}, {content}, {mailing}, {brand}, {topic}, {class}, p.id, p.address_hash, \
         'open', {not_after}, FALSE, 0, {now} \
         FROM (SELECT id, address_hash, row_number() OVER (ORDER BY id) AS n FROM ({people}) AS meant) AS p \
         WHERE TRUE ON CONFLICT DO NOTHING",
        id = time_ordered(postgres, &milliseconds),
    );
    let made = if postgres {
        // One statement for both, and no id leaves the database.
        let sql = format!(
            "WITH made AS ({deliveries} RETURNING id, address_hash) \
             INSERT INTO queue (delivery_id, content_id, brand_id, topic_id, class, address_hash, due_at, not_after) \
             SELECT id, {content}, {brand}, {topic}, {class}, address_hash, {now}, {not_after} FROM made"
        );
        txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?.rows_affected()
    } else {
        let sql = format!("{deliveries} RETURNING id");
        let made = txn.query_all_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
        let made: Result<Vec<DeliveryId>, DbErr> = made.iter().map(|row| row.try_get("", "id")).collect();
        let made = made?;
        queue_up(txn, db, &made).await?;
        made.len() as u64
    };
    if made == 0 {
        return Ok(0);
    }
    wake(txn, db, stream.content, Lane::of(stream.class)).await?;
    let mut moves = Moves::default();
    moves.add(stream.content, State::Queued, "", i64::try_from(made).unwrap_or(i64::MAX));
    moves.write(txn, db).await?;
    Ok(made)
}

/// SQL of a UUID of version 7 for the row numbered `p.n`: each greater than the one before, so that they go to the end of
/// their index. The row's number fills the 12 bits after the time and runs over into its milliseconds; 62 bits are random.
fn time_ordered(postgres: bool, milliseconds: &str) -> String {
    if postgres {
        format!(
            "CAST(lpad(to_hex({milliseconds} + p.n / 4096), 12, '0') || '7' || lpad(to_hex(p.n % 4096), 3, '0') \
             || substr(CAST(gen_random_uuid() AS text), 20) AS uuid)"
        )
    } else {
        format!(
            "unhex(printf('%012x7%03x%016x', {milliseconds} + p.n / 4096, p.n % 4096, \
             (random() & 0x3fffffffffffffff) | 0x8000000000000000))"
        )
    }
}
