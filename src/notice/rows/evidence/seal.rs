//! Seals on the heads of chains, by which it is seen that nobody cut off an end or wrote a head without the program.
//!
//! A head is sealed with every entry, provided that the one before it was: who finds a seal missing or wrong leaves it so,
//! and it stays found out. Chains that were begun by a version of the program that knew no seals are sealed when a server
//! starts, once, each after it was verified. Until then they are *not sealed yet*, which is believed of a chain only
//! while that was not done, and only when its first entry is older than the migration that brought the seals.
//!
//! So taking a seal away helps nobody who does not take away the row of that as well, and who cuts off a chain that is
//! younger than the migration has to move the time of the migration too. Who does all that, on a chain whose rows elsewhere
//! they cut likewise, gets a seal at the next start; but the audit trail and the log then say that one was made, of how many
//! entries, on a day on which none was due. What was cut off before there were seals is not seen here at all. Against
//! both helps the head's hash, noted elsewhere.

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement, Value};

use super::{entries, locked_head, share};
use crate::db::{Db, Write};
use crate::id::NoticeId;
use crate::notice::evidence::{Break, Head, Verifier};

/// The row of settings that says that older chains were sealed.
const DONE: &str = "evidence_sealed";
/// The migration that brought the seals.
const SINCE: &str = "m0011_evidence";
/// Entries read at once.
const PIECE: u64 = 1_000;

/// Whether a head is as the program left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// It is.
    Whole,
    /// Nobody knows: the program knew no seals when it was written, and has not sealed it since.
    NotYet,
    /// It is not: the seal is missing or wrong.
    Broken,
}

/// Whether the head of a notice's chain is as the program left it. A chain without a head is none of its business.
///
/// # Errors
/// The database's own.
pub async fn seal(db: &Db, notice: NoticeId) -> Result<Seal, DbErr> {
    let sql = "SELECT seq, hash, seal FROM evidence_heads WHERE notice_id = $1";
    let statement = Statement::from_sql_and_values(db.backend(), sql, [notice.0.into()]);
    let Some(row) = db.reads().query_one_raw(statement).await? else { return Ok(Seal::Whole) };
    let head = Head { seq: row.try_get("", "seq")?, hash: row.try_get("", "hash")? };
    let seal: Option<Vec<u8>> = row.try_get("", "seal")?;
    Ok(match seal {
        Some(_) if is_seal_of(db, notice, &head, seal.as_deref()) => Seal::Whole,
        None if db.kept(DONE).await?.is_none() && is_older(db, notice).await? => Seal::NotYet,
        _ => Seal::Broken,
    })
}

/// Whether this is the seal of a head.
pub(super) fn is_seal_of(db: &Db, notice: NoticeId, head: &Head, seal: Option<&[u8]>) -> bool {
    seal.is_some() && seal == db.sealing_key().and_then(|key| head.seal(notice, key)).as_deref()
}

/// Whether a chain was begun before there were seals.
async fn is_older(db: &Db, notice: NoticeId) -> Result<bool, DbErr> {
    // The time of a migration is kept in seconds.
    let sql = "SELECT e.at FROM evidence e JOIN seaql_migrations m ON m.version = $2 \
        WHERE e.notice_id = $1 AND e.seq = 1 AND e.at < m.applied_at * 1000000";
    let values: [Value; 2] = [notice.0.into(), SINCE.into()];
    let statement = Statement::from_sql_and_values(db.backend(), sql, values);
    Ok(db.reads().query_one_raw(statement).await?.is_some())
}

#[derive(FromQueryResult)]
struct Unsealed {
    notice_id: NoticeId,
}

/// The notices whose chains are not sealed yet; none once [`all_sealed`] was said.
///
/// # Errors
/// The database's own.
pub async fn not_sealed_yet(db: &Db) -> Result<Option<Vec<NoticeId>>, DbErr> {
    if db.kept(DONE).await?.is_some() {
        return Ok(None);
    }
    let sql = "SELECT notice_id FROM evidence_heads WHERE seal IS NULL ORDER BY notice_id";
    let statement = Statement::from_string(db.backend(), sql);
    let mut found = Vec::new();
    for Unsealed { notice_id } in Unsealed::find_by_statement(statement).all(db.reads()).await? {
        if is_older(db, notice_id).await? {
            found.push(notice_id);
        }
    }
    Ok(Some(found))
}

/// Says that no chain is left that is not sealed yet: from now on a seal that is missing was taken away.
///
/// # Errors
/// The database's own.
pub async fn all_sealed(db: &Db) -> Result<(), DbErr> {
    db.keep(DONE, b"once").await.map(|_| ())
}

/// Reads a chain to its present end and verifies it on the way.
///
/// # Errors
/// The database's own.
pub async fn read_through(
    on: &impl ConnectionTrait,
    notice: NoticeId,
    verifier: &mut Verifier,
) -> Result<(), DbErr> {
    loop {
        let after = verifier.last().map_or(i64::MIN, |last| last.seq);
        let found = entries(on, notice, after, PIECE).await?;
        let mut whole = !found.is_empty();
        for entry in found {
            whole = verifier.push(entry);
        }
        // What comes after the place where it breaks is judged no more.
        if !whole {
            return Ok(());
        }
    }
}

/// Seals a chain that has no seal, once its last entries are found to follow those that were read before. Gives the head;
/// none where somebody else sealed it meanwhile.
///
/// # Errors
/// The database's own; where the chain breaks is the answer.
pub async fn seal_now(
    txn: &Write,
    db: &Db,
    notice: NoticeId,
    mut verifier: Verifier,
) -> Result<Result<Option<Head>, Break>, DbErr> {
    share(txn, db, notice).await?;
    let (head, seal, _) = locked_head(txn, db, notice).await?;
    if seal.is_some() {
        return Ok(Ok(None));
    }
    read_through(&**txn, notice, &mut verifier).await?;
    if let Err(broken) = verifier.finish(Some(&head)) {
        return Ok(Err(broken));
    }
    let seal = db.sealing_key().and_then(|key| head.seal(notice, key));
    let sql = "UPDATE evidence_heads SET seal = $2 WHERE notice_id = $1";
    let values: [Value; 2] = [notice.0.into(), seal.into()];
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    Ok(Ok(Some(head)))
}
