//! Connections: opened, kept, and never waited for without end.
//!
//! A connection that was left between two statements is handed on as it is. sqlx's own pool would ask each one whether it
//! lives whenever it is given back, which doubles the round trips of a statement; it makes and closes them here.
//!
//! Every statement has a time limit on this side of the connection. When it is over the connection is closed and never
//! used again, and the server is not asked to cancel anything: a COMMIT that is cancelled while it waits for a
//! synchronous standby would be answered as if it had been done. For the same reason no session has a
//! `statement_timeout`.
//!
//! That a server whose standby is missing says so in a mere warning (as after `pg_cancel_backend` during a COMMIT) is
//! seen by nobody: sqlx hands warnings to the log alone. Whoever cancels commits by hand has to know.

use std::collections::VecDeque;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{
    ConnAcquireErr, ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult,
    RuntimeErr, SqlxPostgresConnector, SqlxSqliteConnector, Statement,
};
use sea_query_sqlx::SqlxValues;
use sqlx::pool::{PoolConnection, PoolOptions};
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgPool, Postgres, Sqlite, SqlitePool,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Observer;

/// A connection that nobody used for so long is asked whether it lives before it is used again.
const FRESH: Duration = Duration::from_millis(500);
/// How long it may take to say so.
const LIVES: Duration = Duration::from_secs(1);
/// How long what nobody waits for any more may take to end.
const ENDS: Duration = Duration::from_secs(5);
/// A connection that nobody used for so long is closed.
const LONG_IDLE: Duration = Duration::from_secs(600);
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
pub struct Pool(Arc<Inner>);

struct Inner {
    maker: Maker,
    bounds: Bounds,
    /// One for each connection that may be out.
    permits: Arc<Semaphore>,
    /// The connections that nobody uses, the newest last, each with the moment since when.
    idle: Mutex<VecDeque<(Line, Instant)>>,
    /// Who is told of every statement.
    observer: OnceLock<Observer>,
}

/// What makes and closes connections.
enum Maker {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

/// A connection.
enum Line {
    Postgres(PoolConnection<Postgres>),
    Sqlite(PoolConnection<Sqlite>),
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
            // Planning the statement of a turn takes longer than running it.
            ("plan_cache_mode", "force_generic_plan"),
        ]);
        let pool = bounded::<Postgres>(bounds);
        let pool = if at_once { pool.connect_with(options).await? } else { pool.connect_lazy_with(options) };
        Ok(Self::of(Maker::Postgres(pool), bounds))
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
        Ok(Self::of(Maker::Sqlite(pool), bounds))
    }

    fn of(maker: Maker, bounds: Bounds) -> Self {
        let permits = Arc::new(Semaphore::new(bounds.connections as usize));
        let (idle, observer) = (Mutex::default(), OnceLock::new());
        Self(Arc::new(Inner { maker, bounds, permits, idle, observer }))
    }

    /// The same connections for the migrator, which bounds nothing.
    pub(super) fn raw(&self) -> DatabaseConnection {
        match &self.0.maker {
            Maker::Postgres(pool) => SqlxPostgresConnector::from_sqlx_postgres_pool(pool.clone()),
            Maker::Sqlite(pool) => SqlxSqliteConnector::from_sqlx_sqlite_pool(pool.clone()),
        }
    }

    /// Tells `observer` of every statement from now on; the first one asked for is told.
    pub(super) fn tell_of_statements(&self, observer: &Observer) {
        self.0.observer.get_or_init(|| observer.clone());
    }

    pub(super) fn backend(&self) -> DbBackend {
        match &self.0.maker {
            Maker::Postgres(_) => DbBackend::Postgres,
            Maker::Sqlite(_) => DbBackend::Sqlite,
        }
    }

    /// A connection of one's own until it is dropped.
    pub(super) async fn take(&self) -> Result<Connection, DbErr> {
        let taken = tokio::time::timeout(self.0.bounds.acquire, self.take_at_last()).await;
        taken.unwrap_or(Err(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)))
    }

    async fn take_at_last(&self) -> Result<Connection, DbErr> {
        let closed = |_| DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed);
        let permit = self.0.permits.clone().acquire_owned().await.map_err(closed)?;
        let line = match self.pop() {
            Some((line, since)) if since.elapsed() < FRESH => line,
            Some((mut line, _)) => {
                if line.is_alive(LIVES).await {
                    line
                } else {
                    line.close();
                    drop(line);
                    self.make().await?
                }
            }
            None => self.make().await?,
        };
        Ok(Connection { line: Some(line), pool: self.clone(), between: true, permit: Some(permit) })
    }

    async fn make(&self) -> Result<Line, DbErr> {
        let made = match &self.0.maker {
            Maker::Postgres(pool) => pool.acquire().await.map(Line::Postgres),
            Maker::Sqlite(pool) => pool.acquire().await.map(Line::Sqlite),
        };
        made.map_err(not_acquired)
    }

    fn pop(&self) -> Option<(Line, Instant)> {
        self.idle().pop_back()
    }

    /// Keeps a connection for the next one, and closes what has been too many for long.
    fn keep(&self, line: Line) {
        let mut idle = self.idle();
        if self.0.permits.is_closed() {
            // What is being closed waits for this one.
            return drop(line);
        }
        idle.push_back((line, Instant::now()));
        let long = idle.front().is_some_and(|(_, since)| since.elapsed() > LONG_IDLE);
        if long && let Some((mut line, _)) = idle.pop_front() {
            line.close();
        }
    }

    /// Closes every connection that nobody uses: one was found dead, and a server that ended left none alive.
    pub(super) fn distrust(&self) {
        let idle = std::mem::take(&mut *self.idle());
        for (mut line, _) in idle {
            line.close();
        }
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<(Line, Instant)>> {
        // Nothing in here panics while it holds the lock.
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn close(&self) {
        self.0.permits.close();
        self.idle().clear();
        match &self.0.maker {
            Maker::Postgres(pool) => pool.close().await,
            Maker::Sqlite(pool) => pool.close().await,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // sqlx gives connections back in a task; where none can run any more they are only closed.
        if tokio::runtime::Handle::try_current().is_err() {
            let idle = self.idle.get_mut().unwrap_or_else(PoisonError::into_inner);
            idle.drain(..).for_each(|(line, _)| line.leak());
        }
    }
}

fn bounded<DB: sqlx::Database>(bounds: Bounds) -> PoolOptions<DB> {
    PoolOptions::new()
        // The permits here are the bound; beside them there may be as many that are being closed.
        .max_connections(bounds.connections * 2)
        .acquire_timeout(bounds.acquire)
        .test_before_acquire(false)
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
                Err(error) if tries > 0 && is_broken(&error) => {
                    connection.give_up();
                    $self.distrust();
                }
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
    /// None once it was given up.
    line: Option<Line>,
    pool: Pool,
    /// Whether it stands between two statements, none of which is under way.
    between: bool,
    permit: Option<OwnedSemaphorePermit>,
}

impl Line {
    /// Closes it, whatever it is at.
    fn close(&mut self) {
        match self {
            Self::Postgres(connection) => connection.close_on_drop(),
            Self::Sqlite(connection) => connection.close_on_drop(),
        }
    }

    /// Whether it answers within this time.
    async fn is_alive(&mut self, within: Duration) -> bool {
        let answers = async {
            match self {
                Self::Postgres(connection) => connection.ping().await.is_ok(),
                Self::Sqlite(connection) => connection.ping().await.is_ok(),
            }
        };
        tokio::time::timeout(within, answers).await.unwrap_or(false)
    }

    fn leak(self) {
        match self {
            Self::Postgres(connection) => drop(connection.leak()),
            Self::Sqlite(connection) => drop(connection.leak()),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(mut line) = self.line.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return line.leak() };
        if self.between {
            return self.pool.keep(line);
        }
        // Nobody waited for the end of what was begun.
        let (pool, permit) = (self.pool.clone(), self.permit.take());
        runtime.spawn(async move {
            if line.is_alive(ENDS).await {
                pool.keep(line);
            } else {
                line.close();
            }
            drop(permit);
        });
    }
}

/// One call of sqlx on whichever connection it is.
macro_rules! on_line {
    ($self:ident, $connection:ident => $call:expr) => {{
        let limit = $self.pool.0.bounds.statement;
        $self.between = false;
        let answer = match &mut $self.line {
            Some(Line::Postgres($connection)) => {
                tokio::time::timeout(limit, async { $call.await.map(Into::into) }).await
            }
            // Nothing lies between this process and its file that could vanish.
            Some(Line::Sqlite($connection)) => Ok($call.await.map(Into::into)),
            None => Ok(Err(sqlx::Error::Io(std::io::ErrorKind::NotConnected.into()))),
        };
        let answer = answer.unwrap_or_else(|_| {
            $self.give_up();
            Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))
        });
        $self.between = matches!(answer, Ok(_) | Err(sqlx::Error::Database(_) | sqlx::Error::RowNotFound));
        answer
    }};
}

impl Connection {
    pub(super) async fn execute(&mut self, statement: Statement) -> Result<ExecResult, DbErr> {
        let Statement { sql, values, .. } = self.observed(statement);
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
        let Statement { sql, values, .. } = self.observed(statement);
        let values = SqlxValues(values.unwrap_or_else(|| sea_orm::Values(Vec::new())));
        let query = AssertSqlSafe(sql);
        match on_line!(self, on => sqlx::query_with(query, values).fetch_one(&mut **on)) {
            Ok(row) => Ok(Some(row)),
            Err(sqlx::Error::RowNotFound) => Ok(None),
            Err(error) => Err(DbErr::Query(RuntimeErr::SqlxError(error.into()))),
        }
    }

    pub(super) async fn query_all(&mut self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let Statement { sql, values, .. } = self.observed(statement);
        let values = SqlxValues(values.unwrap_or_else(|| sea_orm::Values(Vec::new())));
        let query = AssertSqlSafe(sql);
        let rows: Result<Rows, _> =
            on_line!(self, on => sqlx::query_with(query, values).fetch_all(&mut **on));
        rows.map(|rows| rows.0).map_err(|error| DbErr::Query(RuntimeErr::SqlxError(error.into())))
    }

    fn observed(&self, statement: Statement) -> Statement {
        if let Some(Observer(told)) = self.pool.0.observer.get() {
            told(&statement.sql);
        }
        statement
    }

    /// Nobody uses it again: it is closed.
    pub(super) fn give_up(&mut self) {
        if let Some(mut line) = self.line.take() {
            line.close();
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
    let (DbErr::Exec(RuntimeErr::SqlxError(inner)) | DbErr::Query(RuntimeErr::SqlxError(inner))) = error
    else {
        return false;
    };
    match &**inner {
        sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::TimedOut,
        // admin_shutdown, crash_shutdown, idle_in_transaction and the like.
        sqlx::Error::Database(said) => matches!(said.code().as_deref(), Some("57P01" | "57P02" | "57P05")),
        _ => false,
    }
}
