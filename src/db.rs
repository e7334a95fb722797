//! The database: connections, transactions, migrations. It knows no idea of the product.
//!
//! Every change goes through [`Db::begin`]: on SQLite it begins IMMEDIATE (a transaction that reads first and writes
//! later would fail at once, whatever the busy timeout) and one at a time in a process; on PostgreSQL it is READ
//! COMMITTED. What is committed has reached the disk (`synchronous=FULL`, `synchronous_commit=on`).
//!
//! A database that does not answer is given up on, statement by statement, and everything goes on by itself once it
//! answers again.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sea_orm::sea_query::{Expr, SimpleExpr};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr};
use sea_orm_migration::MigratorTrait;
use sqlx::Connection as _;
use sqlx::postgres::PgListener;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

pub use self::gather::Gather;
use self::pool::Bounds;
pub use self::pool::Pool;
use self::txn::Purpose;
pub use self::txn::Txn;
use crate::clock::{Clock, Timestamp};
use crate::migrations::Migrator;

pub use list::{Cell, Kind, List};

mod gather;
mod list;
mod pool;
mod txn;

/// The connections of a process. A web service and a worker together stay within the 100 that PostgreSQL grants unless
/// told otherwise.
const WORK: Bounds = Bounds {
    connections: 24,
    acquire: Duration::from_secs(15),
    statement: Duration::from_secs(120),
    lock: Duration::ZERO,
};
/// Those kept for opt-outs, which are answered soon or not at all.
const OPT_OUTS: Bounds = Bounds {
    connections: 12,
    acquire: Duration::from_secs(3),
    statement: Duration::from_secs(6),
    lock: Duration::from_secs(5),
};

/// Why the database cannot be used; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DbSetupError {
    /// The URL names no database that Tidings can use.
    #[error("TIDINGS_DATABASE_URL must begin with sqlite: or postgres://")]
    Url,
    /// It cannot be opened.
    #[error(
        "the database cannot be opened: {0}; check TIDINGS_DATABASE_URL and that the folder or server is there and writable"
    )]
    Open(String),
    /// A newer program has migrated it.
    #[error(
        "the database was migrated by a newer Tidings ({0} is not known here); run that version or a newer one"
    )]
    Newer(String),
    /// It has not been migrated.
    #[error("the database is not up to date; run `tidings migrate`")]
    Pending,
    /// A migration failed.
    #[error("the database cannot be migrated: {0}")]
    Migrate(String),
}

/// The channel on which PostgreSQL tells workers of news.
macro_rules! news_channel {
    () => {
        "tidings_news"
    };
}

/// A handle to the database; cheap to clone.
#[derive(Clone)]
pub struct Db {
    pool: Pool,
    /// Opt-outs have connections of their own, so that no flood of other work keeps one waiting.
    opt_out_pool: Pool,
    writer: Option<Arc<Semaphore>>,
    news: Arc<Notify>,
    clock: Clock,
    sqlite_file: Option<PathBuf>,
    seal: Arc<OnceLock<Vec<u8>>>,
}

/// Who is told of the text of every statement, without its values: for tests that look at plans.
#[derive(Clone)]
pub struct Observer(pub Arc<dyn Fn(&str) + Send + Sync>);

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}

/// A transaction that may change something. Dropped without [`Write::commit`], it is rolled back.
pub struct Write {
    txn: Txn,
    news: Arc<Notify>,
    tells: AtomicBool,
}

impl Write {
    /// Makes it durable.
    ///
    /// # Errors
    /// When the database did not say that it committed. It may have: ask, or do it again.
    pub async fn commit(self) -> Result<(), DbErr> {
        let tells = self.tells.load(Ordering::Relaxed);
        if tells && self.txn.get_database_backend() == DbBackend::Postgres {
            self.txn.execute_unprepared(concat!("NOTIFY ", news_channel!())).await?;
        }
        self.txn.commit().await?;
        if tells {
            self.news.notify_waiters();
        }
        Ok(())
    }

    /// Tells every worker, here and on other machines, that there is something to do, once this is committed. Whoever
    /// misses it finds it by looking.
    pub fn tell(&self) {
        self.tells.store(true, Ordering::Relaxed);
    }

    /// Takes it all back.
    ///
    /// # Errors
    /// When the connection is lost; then it is taken back as well.
    pub async fn rollback(self) -> Result<(), DbErr> {
        self.txn.rollback().await
    }
}

impl Deref for Write {
    type Target = Txn;

    fn deref(&self) -> &Txn {
        &self.txn
    }
}

impl Db {
    /// Opens the database that `url` names, without migrating it. A SQLite file is made when it is not there.
    ///
    /// # Errors
    /// [`DbSetupError::Url`] and [`DbSetupError::Open`].
    pub async fn open(url: &str) -> Result<Self, DbSetupError> {
        Self::open_with_clock(url, Clock::default()).await
    }

    /// As [`Db::open`], with a clock that a test can shift.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub async fn open_with_clock(url: &str, clock: Clock) -> Result<Self, DbSetupError> {
        let sqlite = url.starts_with("sqlite:");
        if !sqlite && !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(DbSetupError::Url);
        }
        let sqlite_file = sqlite.then(|| sqlite_path(url)).flatten();
        if let Some(file) = sqlite_file.as_deref().filter(|_| !url.contains(['?', '%'])) {
            make_private(file);
        }
        let (pool, opt_out_pool) = if sqlite {
            let open = async |connections| {
                let opened = Pool::sqlite(url, Bounds { connections, ..WORK }).await;
                opened.map_err(|error| DbSetupError::Open(in_words(&error)))
            };
            // Whoever makes the file changes its journal, and SQLite waits for nobody there: one process at a time.
            let turn = MigrationTurn::sqlite(sqlite_file.as_deref()).await?;
            let opened = (open(12).await?, open(4).await?);
            turn.end().await;
            opened
        } else {
            let pool = Pool::postgres(url, WORK, true).await;
            let pool = match pool {
                Ok(pool) => pool,
                // The pool tried again and again and tells no more than that its time was up.
                Err(error) => {
                    let why = why_not(url).await.unwrap_or_else(|| in_words(&error));
                    return Err(DbSetupError::Open(why));
                }
            };
            let opt_outs = Pool::postgres(url, OPT_OUTS, false).await;
            (pool, opt_outs.map_err(|error| DbSetupError::Open(in_words(&error)))?)
        };
        let writer = sqlite.then(|| Arc::new(Semaphore::new(1)));
        Ok(Self {
            pool,
            opt_out_pool,
            writer,
            news: Arc::default(),
            clock,
            sqlite_file,
            seal: Arc::default(),
        })
    }

    /// Keeps a key by which the program seals what it writes, so that whoever writes here without the program is found out.
    /// The first one stays.
    pub fn seal_with(&self, key: Vec<u8>) {
        let _ = self.seal.set(key);
    }

    /// The key that seals, once there is one.
    pub fn sealing_key(&self) -> Option<&[u8]> {
        self.seal.get().map(Vec::as_slice)
    }

    /// Told when there may be something to do: see [`Write::tell`].
    pub fn news(&self) -> &Notify {
        &self.news
    }

    /// Passes on what other processes tell, until `stop`. On SQLite a worker has but its own process and looking.
    pub async fn listen(self, stop: CancellationToken) {
        if self.writer.is_some() {
            return;
        }
        while !stop.is_cancelled() {
            let heard = stop.run_until_cancelled(self.hear()).await;
            if let Some(Err(error)) = heard {
                tracing::warn!(%error, "cannot listen for news; looking instead");
            }
            stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await;
        }
    }

    async fn hear(&self) -> Result<(), sqlx::Error> {
        let mut listener = PgListener::connect_with(self.pool.raw().get_postgres_connection_pool()).await?;
        listener.listen(news_channel!()).await?;
        loop {
            // None: the connection was lost, and what was told meanwhile too.
            listener.try_recv().await?;
            self.news.notify_waiters();
        }
    }

    /// Tells `observer` of every statement from now on.
    pub fn tell_of_statements(&self, observer: &Observer) {
        self.pool.tell_of_statements(observer);
        self.opt_out_pool.tell_of_statements(observer);
    }

    /// Where to read. Changes go through [`Db::begin`].
    pub fn reads(&self) -> &Pool {
        &self.pool
    }

    /// Where to read what belongs together: every statement on it sees the database as it was at one moment, however much is
    /// written meanwhile. It can change nothing. Drop it soon: whoever looks for people who joined waits for those who are
    /// under way, and cannot tell that this one only reads.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn snapshot(&self) -> Result<Txn, DbErr> {
        begun(&self.pool, None, Purpose::Look).await
    }

    /// Where the fence reads: the connections kept for opt-outs.
    pub fn opt_out_reads(&self) -> &Pool {
        &self.opt_out_pool
    }

    /// Begins a transaction that may change something.
    ///
    /// # Errors
    /// When the database cannot be reached or stays locked.
    pub async fn begin(&self) -> Result<Write, DbErr> {
        self.begin_on(&self.pool, Purpose::Change).await
    }

    /// Runs one statement that changes something, in the transaction that PostgreSQL gives each statement: committed when
    /// this returns. For the few places where every round trip counts; not on SQLite.
    ///
    /// # Errors
    /// The database's own. It may have been committed all the same.
    pub async fn at_once(&self, statement: sea_orm::Statement) -> Result<Vec<sea_orm::QueryResult>, DbErr> {
        if self.writer.is_some() {
            return Err(DbErr::Custom(
                "SQLite has no transaction without BEGIN that its readers respect".into(),
            ));
        }
        // On one connection, whatever becomes of it: only what reads may be asked again.
        self.pool.take().await?.query_all(statement).await
    }

    /// Begins a transaction on the connections kept for opt-outs.
    ///
    /// # Errors
    /// As [`Db::begin`].
    pub async fn begin_opt_out(&self) -> Result<Write, DbErr> {
        self.begin_on(&self.opt_out_pool, Purpose::Change).await
    }

    /// As [`Db::begin_opt_out`], for those of many people: it gives up soon where somebody else keeps one of them
    /// locked, since the others wait.
    ///
    /// # Errors
    /// As [`Db::begin`].
    pub async fn begin_opt_outs(&self) -> Result<Write, DbErr> {
        self.begin_on(&self.opt_out_pool, Purpose::ChangeSoon).await
    }

    async fn begin_on(&self, pool: &Pool, purpose: Purpose) -> Result<Write, DbErr> {
        let turn = match &self.writer {
            Some(writer) => Some(
                writer
                    .clone()
                    .acquire_owned()
                    .await
                    .map_err(|_| DbErr::Custom("the database is closed".into()))?,
            ),
            None => None,
        };
        let txn = begun(pool, turn, purpose).await?;
        Ok(Write { txn, news: self.news.clone(), tells: AtomicBool::new(false) })
    }

    /// Which of the two it is.
    pub fn backend(&self) -> DbBackend {
        self.pool.backend()
    }

    /// The database's clock, for use inside a statement: a bigint of microseconds.
    pub fn now(&self) -> SimpleExpr {
        Expr::cust(self.clock.now_sql(self.backend()))
    }

    /// The same as text, for raw statements.
    pub fn now_sql(&self) -> String {
        self.clock.now_sql(self.backend())
    }

    /// Asks the database for its time.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn read_clock(&self, on: &impl ConnectionTrait) -> Result<Timestamp, DbErr> {
        let sql = format!("SELECT {} AS now", self.now_sql());
        let row = on
            .query_one_raw(sea_orm::Statement::from_string(self.backend(), sql))
            .await?
            .ok_or_else(|| DbErr::RecordNotFound("the database's clock".into()))?;
        Ok(Timestamp(row.try_get("", "now")?))
    }

    /// The clock that this handle's statements use.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The SQLite file, for what is kept beside it; none on PostgreSQL and in memory.
    pub fn sqlite_file(&self) -> Option<&Path> {
        self.sqlite_file.as_deref()
    }

    /// Brings the schema up to date; several processes may do so at once.
    ///
    /// # Errors
    /// [`DbSetupError::Newer`] and [`DbSetupError::Migrate`].
    pub async fn migrate(&self) -> Result<(), DbSetupError> {
        let failed = |error: DbErr| DbSetupError::Migrate(error.to_string());
        self.refuse_newer().await?;
        // One at a time: the migrator itself would let two processes create the same table.
        let turn = match self.backend() {
            DbBackend::Postgres => MigrationTurn::postgres(&self.pool.raw()).await.map_err(failed)?,
            _ => MigrationTurn::sqlite(self.sqlite_file()).await?,
        };
        let done = Migrator::up(&self.pool.raw(), None).await.map_err(failed);
        turn.end().await;
        done
    }

    /// Whether the schema is the one this program was written for.
    ///
    /// # Errors
    /// [`DbSetupError::Newer`], [`DbSetupError::Pending`] and [`DbSetupError::Migrate`].
    pub async fn check_migrated(&self) -> Result<(), DbSetupError> {
        self.refuse_newer().await?;
        let applied = self.applied().await?;
        if applied.len() < Migrator::migrations().len() { Err(DbSetupError::Pending) } else { Ok(()) }
    }

    async fn refuse_newer(&self) -> Result<(), DbSetupError> {
        let known: Vec<String> = Migrator::migrations().iter().map(|m| m.name().to_owned()).collect();
        match self.applied().await?.into_iter().find(|name| !known.contains(name)) {
            Some(name) => Err(DbSetupError::Newer(name)),
            None => Ok(()),
        }
    }

    async fn applied(&self) -> Result<Vec<String>, DbSetupError> {
        let failed = |error: DbErr| DbSetupError::Migrate(error.to_string());
        let there = sea_orm_migration::SchemaManager::new(&self.pool.raw())
            .has_table("seaql_migrations")
            .await
            .map_err(failed)?;
        if !there {
            return Ok(Vec::new());
        }
        let statement =
            sea_orm::Statement::from_string(self.backend(), "SELECT version FROM seaql_migrations");
        let rows = self.pool.query_all_raw(statement).await.map_err(failed)?;
        rows.iter().map(|row| row.try_get::<String>("", "version").map_err(failed)).collect()
    }

    /// What is kept under `name` in the table of settings.
    ///
    /// # Errors
    /// The database's own.
    pub async fn kept(&self, name: &str) -> Result<Option<Vec<u8>>, DbErr> {
        self.read_kept(&self.pool, name).await
    }

    /// Keeps `value` under `name` unless something is kept there; answers with what is kept now.
    ///
    /// # Errors
    /// The database's own.
    pub async fn keep(&self, name: &str, value: &[u8]) -> Result<Vec<u8>, DbErr> {
        let sql = "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
        let write = self.begin().await?;
        write.execute_raw(self.statement(sql, [name.into(), value.into()])).await?;
        let kept = self.read_kept(&*write, name).await?;
        write.commit().await?;
        kept.ok_or_else(|| DbErr::RecordNotFound(name.to_owned()))
    }

    /// Keeps `value` under `name` in place of what is kept there.
    ///
    /// # Errors
    /// The database's own.
    pub async fn replace_kept(&self, name: &str, value: &[u8]) -> Result<(), DbErr> {
        let write = self.begin().await?;
        let sql = "UPDATE settings SET value = $2 WHERE name = $1";
        write.execute_raw(self.statement(sql, [name.into(), value.into()])).await?;
        write.commit().await
    }

    async fn read_kept(&self, on: &impl ConnectionTrait, name: &str) -> Result<Option<Vec<u8>>, DbErr> {
        let sql = "SELECT value FROM settings WHERE name = $1";
        let row = on.query_one_raw(self.statement(sql, [name.into()])).await?;
        row.map(|row| row.try_get("", "value")).transpose()
    }

    fn statement(&self, sql: &str, values: impl IntoIterator<Item = sea_orm::Value>) -> sea_orm::Statement {
        sea_orm::Statement::from_sql_and_values(self.backend(), sql, values)
    }

    /// Whether the database answers and the schema is current.
    ///
    /// # Errors
    /// The database's own.
    pub async fn ping(&self) -> Result<(), DbErr> {
        self.read_clock(&self.pool).await.map(|_| ())
    }

    /// Closes every connection.
    pub async fn close(self) {
        self.pool.close().await;
        self.opt_out_pool.close().await;
    }
}

/// A transaction that has begun, in a task of its own: a BEGIN that nobody waits for any more would leave its connection
/// inside a transaction, and whoever reads there next would read by its clock.
async fn begun(pool: &Pool, turn: Option<OwnedSemaphorePermit>, purpose: Purpose) -> Result<Txn, DbErr> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { Txn::begin(&pool, turn, purpose).await });
    begun.await.map_err(|error| DbErr::Custom(format!("a transaction did not begin: {error}")))?
}

/// The right to migrate, held by one process at a time.
enum MigrationTurn {
    Postgres(Box<sqlx::pool::PoolConnection<sqlx::Postgres>>),
    Sqlite(Option<std::fs::File>),
}

/// Any number that nobody else uses as an advisory lock in this database.
const MIGRATION_LOCK: i64 = 0x7469_6469_6e67_7301;

impl MigrationTurn {
    async fn postgres(pool: &DatabaseConnection) -> Result<Self, DbErr> {
        let lost = |error: sqlx::Error| DbErr::Custom(error.to_string());
        let mut connection = pool.get_postgres_connection_pool().acquire().await.map_err(lost)?;
        sqlx::query("SELECT pg_advisory_lock($1)")
            .bind(MIGRATION_LOCK)
            .execute(&mut *connection)
            .await
            .map_err(lost)?;
        Ok(Self::Postgres(Box::new(connection)))
    }

    async fn sqlite(file: Option<&Path>) -> Result<Self, DbSetupError> {
        let Some(file) = file else { return Ok(Self::Sqlite(None)) };
        let path = file.with_extension("migrating");
        let locked = tokio::task::spawn_blocking(move || {
            let lock = std::fs::File::create(path)?;
            lock.lock()?;
            Ok::<_, std::io::Error>(lock)
        });
        match locked.await {
            Ok(Ok(lock)) => Ok(Self::Sqlite(Some(lock))),
            Ok(Err(error)) => Err(DbSetupError::Open(error.to_string())),
            Err(error) => Err(DbSetupError::Migrate(error.to_string())),
        }
    }

    async fn end(self) {
        match self {
            Self::Postgres(mut connection) => {
                // Closing the connection would free the lock as well.
                let _ = sqlx::query("SELECT pg_advisory_unlock($1)")
                    .bind(MIGRATION_LOCK)
                    .execute(&mut **connection)
                    .await;
            }
            Self::Sqlite(lock) => drop(lock),
        }
    }
}

/// What the database said, without the names that the libraries wrap round it.
fn in_words(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(said) => said.message().to_owned(),
        other => other.to_string(),
    }
}

/// Asks a PostgreSQL server once, for its own reason.
async fn why_not(url: &str) -> Option<String> {
    let server = url::Url::parse(url).ok()?;
    let server = format!("{}:{}", server.host_str().unwrap_or("localhost"), server.port().unwrap_or(5432));
    let asked = tokio::time::timeout(Duration::from_secs(5), sqlx::PgConnection::connect(url)).await;
    match asked {
        Err(_) => Some(format!("the PostgreSQL server at {server} does not answer")),
        Ok(Err(sqlx::Error::Io(error))) => {
            Some(format!("no PostgreSQL server answers at {server} ({error})"))
        }
        Ok(Err(sqlx::Error::Database(said))) => Some(format!("PostgreSQL says: {}", said.message())),
        Ok(Err(error)) => Some(error.to_string()),
        Ok(Ok(_)) => None,
    }
}

/// Makes the file for its owner alone, unless it is there: it holds people's addresses and the key of their hashes.
/// SQLite gives the files beside it the same mode.
fn make_private(file: &Path) {
    use std::os::unix::fs::OpenOptionsExt as _;
    // Where it cannot be made, SQLite says why.
    let _ = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
}

fn sqlite_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"))?;
    let path = path.split('?').next()?;
    (path != ":memory:" && !path.is_empty()).then(|| PathBuf::from(path))
}
