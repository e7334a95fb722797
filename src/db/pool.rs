//! Connections: opened, kept, and never waited for without end.
//!
//! Every statement has a time limit on this side of the connection. When it is over the connection is closed and never
//! used again, and the server is not asked to cancel anything: a COMMIT that is cancelled while it waits for a
//! synchronous standby would be answered as if it had been done. For the same reason no session has a
//! `statement_timeout`.
//!
//! That a server whose standby is missing says so in a mere warning (as after `pg_cancel_backend` during a COMMIT) is
//! seen by nobody: sqlx hands warnings to the log alone. Whoever cancels commits by hand has to know.

use std::str::FromStr as _;
use std::time::Duration;

use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{
    ConnAcquireErr, ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult,
    RuntimeErr, SqlxPostgresConnector, SqlxSqliteConnector, Statement,
};
use sea_query_sqlx::SqlxValues;
use sqlx::pool::{PoolConnection, PoolOptions};
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgPool, Postgres, Sqlite, SqlitePool};

/// A connection that nobody used for so long is asked whether it lives before it is used again.
const FRESH: Duration = Duration::from_millis(500);
/// How often another connection is tried when one turns out to be dead.
pub(super) const TRIES: usize = 4;

/// What bounds a pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Most connections.
    pub(super) connections: u32,
    /// Longest wait for one, a new one included.
    pub(super) acquire: Duration,
    /// Longest wait for the answer to one statement; none on SQLite, which waits for no other machine.
    pub(super) statement: Duration,
    /// Longest that the server lets a statement wait for a lock; zero is for ever.
    pub(super) lock: Duration,
}

/// Connections of one kind. As a [`ConnectionTrait`] each statement takes one for itself: for reading.
#[derive(Clone)]
pub struct Pool {
    connections: Connections,
    limit: Duration,
}

#[derive(Clone)]
enum Connections {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

impl Pool {
    /// A pool on the PostgreSQL server that `url` names. With `at_once` the first connection is made now.
    pub(super) async fn postgres(url: &str, bounds: Bounds, at_once: bool) -> Result<Self, sqlx::Error> {
        let lock = bounds.lock.as_millis().to_string();
        let options = PgConnectOptions::from_str(url)?.disable_statement_logging().options([
            ("synchronous_commit", "on"),
            ("idle_in_transaction_session_timeout", "10000"),
            ("default_transaction_isolation", "read committed"),
            ("lock_timeout", &lock),
            // A plan made while a table was small stays when it is large: none may read a table from end to end.
            ("enable_seqscan", "off"),
            ("jit", "off"),
        ]);
        let pool = bounded::<Postgres>(bounds).before_acquire(|connection, about| {
            Box::pin(async move {
                Ok(about.idle_for < FRESH || alive(connection.ping()).await)
            })
        });
        let pool = if at_once { pool.connect_with(options).await? } else { pool.connect_lazy_with(options) };
        Ok(Self { connections: Connections::Postgres(pool), limit: bounds.statement })
    }

    /// A pool on the SQLite file that `url` names, which is made when it is not there.
    pub(super) async fn sqlite(url: &str, bounds: Bounds) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::from_str(url)?
            .disable_statement_logging()
            .create_if_missing(true)
            .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
            .synchronous(sqlx::sqlite::SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10))
            .foreign_keys(true);
        let pool = bounded::<Sqlite>(bounds).min_connections(1).connect_with(options).await?;
        Ok(Self { connections: Connections::Sqlite(pool), limit: Duration::MAX })
    }

    /// The same connections for the migrator, which bounds nothing.
    pub(super) fn raw(&self) -> DatabaseConnection {
        match &self.connections {
            Connections::Postgres(pool) => SqlxPostgresConnector::from_sqlx_postgres_pool(pool.clone()),
            Connections::Sqlite(pool) => SqlxSqliteConnector::from_sqlx_sqlite_pool(pool.clone()),
        }
    }

    pub(super) fn backend(&self) -> DbBackend {
        match &self.connections {
            Connections::Postgres(_) => DbBackend::Postgres,
            Connections::Sqlite(_) => DbBackend::Sqlite,
        }
    }

    /// A connection of one's own until it is dropped.
    pub(super) async fn take(&self) -> Result<Connection, DbErr> {
        let lines = match &self.connections {
            Connections::Postgres(pool) => pool.acquire().await.map(Line::Postgres),
            Connections::Sqlite(pool) => pool.acquire().await.map(Line::Sqlite),
        };
        Ok(Connection { line: lines.map_err(not_acquired)?, limit: self.limit })
    }

    pub(super) async fn close(&self) {
        match &self.connections {
            Connections::Postgres(pool) => pool.close().await,
            Connections::Sqlite(pool) => pool.close().await,
        }
    }
}

fn bounded<DB: sqlx::Database>(bounds: Bounds) -> PoolOptions<DB> {
    PoolOptions::new()
        .max_connections(bounds.connections)
        .acquire_timeout(bounds.acquire)
        .test_before_acquire(false)
}

/// Whether a connection answers soon.
async fn alive(ping: impl Future<Output = Result<(), sqlx::Error>>) -> bool {
    matches!(tokio::time::timeout(Duration::from_secs(1), ping).await, Ok(Ok(())))
}

/// Asks, and asks again on another connection when one turns out to be dead, as only reads can.
macro_rules! read {
    ($self:ident, $connection:ident => $ask:expr) => {{
        let mut tries = TRIES;
        loop {
            let mut connection = $self.take().await?;
            let $connection = &mut connection;
            let answer = $ask.await;
            tries -= 1;
            match answer {
                Err(error) if tries > 0 && is_broken(&error) => connection.give_up(),
                answer => return answer,
            }
        }
    }};
}

#[async_trait]
impl ConnectionTrait for Pool {
    fn get_database_backend(&self) -> DbBackend {
        self.backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.take().await?.execute(statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.take().await?.execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        read!(self, on => on.query_one(statement.clone()))
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        read!(self, on => on.query_all(statement.clone()))
    }
}

/// One connection, given back when dropped, or closed when it did not answer in time.
pub(super) struct Connection {
    line: Line,
    limit: Duration,
}

enum Line {
    Postgres(PoolConnection<Postgres>),
    Sqlite(PoolConnection<Sqlite>),
}

/// One call of sqlx on whichever connection it is.
macro_rules! on_line {
    ($self:ident, $connection:ident => $call:expr) => {{
        let limit = $self.limit;
        let answer = match &mut $self.line {
            Line::Postgres($connection) => tokio::time::timeout(limit, async { $call.await.map(Into::into) }).await,
            Line::Sqlite($connection) => Ok(async { $call.await.map(Into::into) }.await),
        };
        answer.unwrap_or_else(|_| {
            $self.give_up();
            Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))
        })
    }};
}

impl Connection {
    pub(super) async fn execute(&mut self, statement: Statement) -> Result<ExecResult, DbErr> {
        let Statement { sql, values, .. } = statement;
        let values = SqlxValues(values.unwrap_or_else(|| sea_orm::Values(Vec::new())));
        let query = AssertSqlSafe(sql);
        let done = on_line!(self, on => sqlx::query_with(query, values).execute(&mut **on));
        done.map_err(|error| DbErr::Exec(RuntimeErr::SqlxError(error.into())))
    }

    pub(super) async fn execute_unprepared(&mut self, sql: &str) -> Result<ExecResult, DbErr> {
        let sql = AssertSqlSafe(sql.to_owned());
        let done = on_line!(self, on => (&mut **on).execute(sql));
        done.map_err(|error| DbErr::Exec(RuntimeErr::SqlxError(error.into())))
    }

    pub(super) async fn query_one(&mut self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let Statement { sql, values, .. } = statement;
        let values = SqlxValues(values.unwrap_or_else(|| sea_orm::Values(Vec::new())));
        let query = AssertSqlSafe(sql);
        match on_line!(self, on => sqlx::query_with(query, values).fetch_one(&mut **on)) {
            Ok(row) => Ok(Some(row)),
            Err(sqlx::Error::RowNotFound) => Ok(None),
            Err(error) => Err(DbErr::Query(RuntimeErr::SqlxError(error.into()))),
        }
    }

    pub(super) async fn query_all(&mut self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let Statement { sql, values, .. } = statement;
        let values = SqlxValues(values.unwrap_or_else(|| sea_orm::Values(Vec::new())));
        let query = AssertSqlSafe(sql);
        let rows: Result<Rows, _> = on_line!(self, on => sqlx::query_with(query, values).fetch_all(&mut **on));
        rows.map(|rows| rows.0).map_err(|error| DbErr::Query(RuntimeErr::SqlxError(error.into())))
    }

    /// Nobody uses it again.
    pub(super) fn give_up(&mut self) {
        match &mut self.line {
            Line::Postgres(connection) => connection.close_on_drop(),
            Line::Sqlite(connection) => connection.close_on_drop(),
        }
    }
}

/// The rows of either database.
struct Rows(Vec<QueryResult>);

impl<R: Into<QueryResult>> From<Vec<R>> for Rows {
    fn from(rows: Vec<R>) -> Self {
        Self(rows.into_iter().map(Into::into).collect())
    }
}

fn not_acquired(error: sqlx::Error) -> DbErr {
    match error {
        sqlx::Error::PoolTimedOut => DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
        sqlx::Error::PoolClosed => DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed),
        error => DbErr::Conn(RuntimeErr::SqlxError(error.into())),
    }
}

/// Whether the connection broke before the statement could be answered, as that of a server that was restarted.
pub(super) fn is_broken(error: &DbErr) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(inner)) | DbErr::Query(RuntimeErr::SqlxError(inner))) = error else {
        return false;
    };
    match &**inner {
        sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::TimedOut,
        // admin_shutdown, crash_shutdown, idle_in_transaction and the like.
        sqlx::Error::Database(said) => matches!(said.code().as_deref(), Some("57P01" | "57P02" | "57P05")),
        _ => false,
    }
}
