//! Evidence in the database: entries are appended and never changed.
//!
//! Whoever appends holds the notice's head locked until the transaction ends, and before it a share of the notice's own
//! lock, which whoever changes the notice holds alone: append last in a transaction, after every other lock, and commit
//! soon. An append that does not follow the head fails, and nothing mends a chain. Each seals the head that it leaves, where
//! the one that it found was sealed ([`seal`]).

mod agree;
mod due;
mod look;
mod published;
mod seal;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, FromQueryResult, Statement, Value};
use serde::Serialize;

use crate::address::AddressHash;
use crate::clock::Timestamp;
use crate::db::{Db, Kind as Column, List, Write};
use crate::id::NoticeId;
use crate::notice::evidence::{Entry, Head, Kind, seal_of_note};

pub use agree::{Untold, notices, untold};
pub(super) use due::is_due;
pub use due::{RECORDED_AT_ONCE, due, record_deliveries};
pub use look::{Read, Reading, Unfit, by_person, examine, verify};
pub use published::{made_from, published};
pub use seal::{Seal, all_sealed, not_sealed_yet, read_through, seal, seal_now};

/// What is to be appended.
#[derive(Clone, Debug)]
pub struct NewEntry {
    /// What it tells.
    pub kind: Kind,
    /// Whom it is about.
    pub person: Option<AddressHash>,
    /// What it says: JSON on one line.
    pub body: String,
}

impl NewEntry {
    /// An entry with this body, one of [`crate::notice::evidence::body`].
    ///
    /// # Errors
    /// When the body is no JSON.
    pub fn new(kind: Kind, person: Option<&AddressHash>, body: &impl Serialize) -> Result<Self, DbErr> {
        let body = serde_json::to_string(body).map_err(|error| DbErr::Json(error.to_string()))?;
        Ok(Self { kind, person: person.cloned(), body })
    }
}

/// By what a note about somebody is known again; none where there is no note.
pub(in crate::notice::rows) fn note_seal(
    db: &Db,
    notice: NoticeId,
    person: &AddressHash,
    note: Option<&str>,
) -> Option<String> {
    seal_of_note(notice, &person.0, note?, db.sealing_key()?)
}

/// Appends an entry to a notice's chain.
///
/// # Errors
/// The database's own; when the chain was tampered with so that nothing follows it.
pub async fn append(
    txn: &Write,
    db: &Db,
    notice: NoticeId,
    kind: Kind,
    person: Option<&AddressHash>,
    body: &impl Serialize,
) -> Result<(), DbErr> {
    append_many(txn, db, notice, vec![NewEntry::new(kind, person, body)?]).await
}

/// Appends entries in their order.
///
/// # Errors
/// As [`append`].
pub async fn append_many(txn: &Write, db: &Db, notice: NoticeId, new: Vec<NewEntry>) -> Result<(), DbErr> {
    if new.is_empty() {
        return Ok(());
    }
    share(txn, db, notice).await?;
    let (mut head, found, at) = locked_head(txn, db, notice).await?;
    let sealed = head.seq == 0 || seal::is_seal_of(db, notice, &head, found.as_deref());
    let mut list = List::new([
        ("seq", Column::Int),
        ("kind", Column::Text),
        ("person", Column::Bytes),
        ("body", Column::Text),
        ("previous", Column::Bytes),
        ("hash", Column::Bytes),
    ]);
    for one in new {
        let person = one.person.map(|person| person.0);
        let (entry, next) = head.follow(notice, at, one.kind.as_str(), person, one.body);
        list.push([
            entry.seq.into(),
            entry.kind.into(),
            entry.person.into(),
            entry.body.into(),
            entry.previous.into(),
            entry.hash.into(),
        ]);
        head = next;
    }
    let mut values: Vec<Value> = vec![notice.0.into(), at.0.into()];
    let relation = list.relation(db.backend(), "l", &mut values);
    let sql = format!(
        "INSERT INTO evidence (notice_id, seq, at, kind, person, body, previous, hash) \
         SELECT $1, l.seq, $2, l.kind, l.person, l.body, l.previous, l.hash FROM {relation} WHERE TRUE ORDER BY l.seq"
    );
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    let seal = match sealed {
        true => db.sealing_key().and_then(|key| head.seal(notice, key)),
        false => found,
    };
    let sql = "UPDATE evidence_heads SET seq = $2, hash = $3, seal = $4 WHERE notice_id = $1";
    let values: [Value; 4] = [notice.0.into(), head.seq.into(), head.hash.into(), seal.into()];
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    Ok(())
}

/// Takes a share of the notice's lock. An entry needs one, since it refers to the notice, and taken after the head's lock it
/// would wait for somebody who waits for the head.
async fn share(txn: &Write, db: &Db, notice: NoticeId) -> Result<(), DbErr> {
    if db.backend() == DbBackend::Postgres {
        let sql = "SELECT id FROM notices WHERE id = $1 FOR KEY SHARE";
        txn.query_one_raw(Statement::from_sql_and_values(db.backend(), sql, [notice.0.into()])).await?;
    }
    Ok(())
}

#[derive(FromQueryResult)]
struct Locked {
    seq: i64,
    hash: Vec<u8>,
    seal: Option<Vec<u8>>,
    now: i64,
}

/// The head of a chain, made where there is none, locked until the transaction ends; its seal, and what time it is then.
async fn locked_head(
    txn: &Write,
    db: &Db,
    notice: NoticeId,
) -> Result<(Head, Option<Vec<u8>>, Timestamp), DbErr> {
    let lock = if db.backend() == DbBackend::Postgres { " FOR UPDATE" } else { "" };
    let now = db.clock().moment_sql(db.backend());
    let look = async || {
        let sql =
            format!("SELECT seq, hash, seal, {now} AS now FROM evidence_heads WHERE notice_id = $1{lock}");
        let statement = Statement::from_sql_and_values(db.backend(), sql, [notice.0.into()]);
        Locked::find_by_statement(statement).one(&**txn).await
    };
    let found = match look().await? {
        Some(found) => found,
        None => {
            let start = Head::start();
            let sql = "INSERT INTO evidence_heads (notice_id, seq, hash) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
            let values = [notice.0.into(), start.seq.into(), start.hash.into()];
            txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
            look().await?.ok_or_else(|| DbErr::RecordNotFound("the head of the evidence".into()))?
        }
    };
    let Locked { seq, hash, seal, now } = found;
    Ok((Head { seq, hash }, seal, Timestamp(now)))
}

#[derive(FromQueryResult)]
struct Row {
    seq: i64,
    at: Timestamp,
    kind: String,
    person: Option<Vec<u8>>,
    body: String,
    previous: Vec<u8>,
    hash: Vec<u8>,
}

/// Up to `limit` entries of a notice in the order of their numbers, from the one after `after` on; all come after
/// [`i64::MIN`].
///
/// # Errors
/// The database's own.
pub async fn entries(
    on: &impl ConnectionTrait,
    notice: NoticeId,
    after: i64,
    limit: u64,
) -> Result<Vec<Entry>, DbErr> {
    let sql = format!(
        "SELECT seq, at, kind, person, body, previous, hash FROM evidence \
         WHERE notice_id = $1 AND seq > $2 ORDER BY seq LIMIT {limit}"
    );
    let values = [notice.0.into(), after.into()];
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, values);
    let rows = Row::find_by_statement(statement).all(on).await?;
    Ok(rows.into_iter().map(|row| row.entry(notice)).collect())
}

impl Row {
    fn entry(self, notice: NoticeId) -> Entry {
        let Self { seq, at, kind, person, body, previous, hash } = self;
        Entry { notice, seq, at, kind, person, body, previous, hash }
    }
}

/// The head of a notice's chain; none before its first entry.
///
/// # Errors
/// The database's own.
pub async fn head(on: &impl ConnectionTrait, notice: NoticeId) -> Result<Option<Head>, DbErr> {
    let sql = "SELECT seq, hash FROM evidence_heads WHERE notice_id = $1";
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, [notice.0.into()]);
    let Some(row) = on.query_one_raw(statement).await? else { return Ok(None) };
    Ok(Some(Head { seq: row.try_get("", "seq")?, hash: row.try_get("", "hash")? }))
}
