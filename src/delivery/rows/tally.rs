//! How many deliveries of a content are in which state, kept with every change, so that nobody counts rows.
//!
//! Each connection adds to a shard of its own as far as possible, so that workers do not wait for one another; the sum
//! counts. A transaction writes here last, its rows in one order, so that no two wait for each other.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, FromQueryResult, Statement};

use crate::db::{Db, Kind, List, Write};
use crate::decision::Class;
use crate::delivery::{Counts, State};
use crate::id::ContentId;

/// Shards of PostgreSQL; SQLite has one writer and needs one.
const SHARDS: i64 = 16;

/// What a transaction moved from state to state.
#[derive(Debug, Default)]
pub(super) struct Moves(BTreeMap<(ContentId, &'static str, String), i64>);

impl Moves {
    /// `n` more (or fewer) deliveries of this content are in this state; `reason` where it is suppressed.
    pub(super) fn add(&mut self, content: ContentId, state: State, reason: &str, n: i64) {
        let reason = if state == State::Suppressed { reason } else { "" };
        *self.0.entry((content, state.as_str(), reason.to_owned())).or_default() += n;
    }

    /// Writes what was moved, as the last thing of the transaction.
    pub(super) async fn write(&self, txn: &Write, db: &Db) -> Result<(), DbErr> {
        self.write_to(txn, db, &shard(db.backend(), 0)).await
    }

    /// The same for a refusal, which waits for no worker that was stopped right before its COMMIT.
    pub(super) async fn write_apart(&self, txn: &Write, db: &Db) -> Result<(), DbErr> {
        self.write_to(txn, db, &shard(db.backend(), 2 * SHARDS)).await
    }

    async fn write_to(&self, txn: &Write, db: &Db, shard: &str) -> Result<(), DbErr> {
        let mut list = List::new([
            ("content_id", Kind::Uuid),
            ("state", Kind::Text),
            ("reason", Kind::Text),
            ("n", Kind::Int),
        ]);
        for ((content, state, reason), n) in self.0.iter().filter(|(_, n)| **n != 0) {
            list.push([content.0.into(), (*state).into(), reason.as_str().into(), (*n).into()]);
        }
        if list.is_empty() {
            return Ok(());
        }
        let mut values = Vec::new();
        let relation = list.relation(db.backend(), "m", &mut values);
        let sql = format!(
            "INSERT INTO tally (content_id, shard, state, reason, n) \
             SELECT m.content_id, {shard}, m.state, m.reason, m.n FROM {relation} WHERE TRUE \
             ORDER BY m.content_id, m.state, m.reason {ADD}"
        );
        txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
        Ok(())
    }
}

/// What an INSERT into the tally does where there is a row.
pub(super) const ADD: &str =
    "ON CONFLICT (content_id, shard, state, reason) DO UPDATE SET n = tally.n + excluded.n";

/// The shard of the connection, as an expression.
pub(super) fn shard(backend: DbBackend, from: i64) -> String {
    if backend == DbBackend::Postgres {
        format!("{from} + pg_backend_pid() % {SHARDS}")
    } else {
        "0".to_owned()
    }
}

/// The shards of those who write here before they are done; see [`super::turn`].
pub(super) fn shard_of_turns(backend: DbBackend) -> String {
    shard(backend, SHARDS)
}

#[derive(FromQueryResult)]
struct Counted {
    word: String,
    n: i64,
}

/// How many deliveries of a content are in which state.
///
/// # Errors
/// The database's own.
pub async fn counts(on: &impl ConnectionTrait, content: ContentId) -> Result<Counts, DbErr> {
    let sql =
        "SELECT state AS word, CAST(SUM(n) AS bigint) AS n FROM tally WHERE content_id = $1 GROUP BY state";
    let mut counts = Counts::default();
    for row in counted(on, sql, content).await? {
        let state: State = row.word.parse().map_err(|_| DbErr::Type("a delivery's state".into()))?;
        counts.add(state, u64::try_from(row.n).unwrap_or(0));
    }
    Ok(counts)
}

/// How many deliveries of a content were suppressed for which reason.
///
/// # Errors
/// The database's own.
pub async fn suppressed_by(
    on: &impl ConnectionTrait,
    content: ContentId,
) -> Result<BTreeMap<String, u64>, DbErr> {
    let sql = "SELECT reason AS word, CAST(SUM(n) AS bigint) AS n FROM tally \
               WHERE content_id = $1 AND state = 'suppressed' GROUP BY reason HAVING SUM(n) > 0";
    let rows = counted(on, sql, content).await?;
    Ok(rows.into_iter().map(|row| (row.word, u64::try_from(row.n).unwrap_or(0))).collect())
}

/// How much of a class is unfinished.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Depth {
    /// The class.
    pub class: Class,
    /// Deliveries that wait, those of held campaigns left out.
    pub queued: i64,
    /// Deliveries with a worker.
    pub sending: i64,
    /// How long the one that is due longest has been due, in microseconds; below zero when none is due yet.
    pub oldest: Option<i64>,
}

/// How much of each class is unfinished and may go now. A class of which nothing is unfinished is missing.
///
/// # Errors
/// The database's own.
pub async fn depths(db: &Db, on: &impl ConnectionTrait) -> Result<Vec<Depth>, DbErr> {
    let sum = |state: &str| {
        format!(
            "CAST(SUM((SELECT COALESCE(SUM(a.n), 0) FROM tally a WHERE a.content_id = c.id \
             AND a.state = '{state}')) AS bigint) AS {state}"
        )
    };
    let sql = format!(
        "SELECT t.class, {}, {}, MAX({} - (SELECT MIN(q.due_at) FROM queue q WHERE q.content_id = c.id)) AS oldest \
         FROM contents c JOIN topics t ON t.id = c.topic_id WHERE c.active AND c.lane IN (0, 1) AND NOT c.held \
         GROUP BY t.class",
        sum("queued"),
        sum("sending"),
        db.now_sql()
    );
    Depth::find_by_statement(Statement::from_string(db.backend(), sql)).all(on).await
}

async fn counted(on: &impl ConnectionTrait, sql: &str, content: ContentId) -> Result<Vec<Counted>, DbErr> {
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, [content.0.into()]);
    Counted::find_by_statement(statement).all(on).await
}

/// Whether nothing of a content is queued or being sent.
///
/// # Errors
/// The database's own.
pub async fn is_settled(on: &impl ConnectionTrait, content: ContentId) -> Result<bool, DbErr> {
    let counts = counts(on, content).await?;
    Ok(counts.queued + counts.sending == 0)
}

/// Whether a delivery of a content waits that was never tried, or is being tried for the first time.
///
/// # Errors
/// The database's own.
pub async fn any_untried(on: &impl ConnectionTrait, content: ContentId) -> Result<bool, DbErr> {
    // Those that were put off are due later than those that were not tried.
    let sql = "SELECT 1 AS n FROM queue q JOIN deliveries d ON d.id = q.delivery_id \
               WHERE q.content_id = $1 AND d.attempts = 0 ORDER BY q.due_at LIMIT 1";
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, [content.0.into()]);
    Ok(on.query_one_raw(statement).await?.is_some())
}
