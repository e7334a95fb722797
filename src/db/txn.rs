//! A transaction on a connection of its own.

use std::time::Duration;

use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, Statement};
use tokio::sync::{Mutex, OwnedSemaphorePermit};

use super::pool::{Connection, Pool, TRIES, is_broken};

/// How long taking back may last before the connection is closed, which takes back as well.
const ROLLBACK: Duration = Duration::from_secs(5);

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To change something; it waits for what others have locked as long as its pool says.
    Change,
    /// The same; it waits a second at most.
    ChangeSoon,
    /// To read everything as it is at one moment. It locks nothing and waits for nobody.
    Look,
}

/// Statements that take effect together. Dropped before its end, it is taken back.
pub struct Txn {
    backend: DbBackend,
    held: Mutex<Held>,
}

struct Held {
    /// Whether a statement failed: PostgreSQL then answers a COMMIT with success and commits nothing.
    failed: bool,
    /// None once it has ended.
    connection: Option<Connection>,
    /// The turn to write, kept until the end.
    turn: Option<OwnedSemaphorePermit>,
}

impl Txn {
    pub(super) async fn begin(
        pool: &Pool,
        turn: Option<OwnedSemaphorePermit>,
        purpose: Purpose,
    ) -> Result<Self, DbErr> {
        let backend = pool.backend();
        // What follows from the session's settings on PostgreSQL is READ COMMITTED.
        let begin = match (purpose, backend) {
            // The moment is that of the first statement.
            (Purpose::Look, DbBackend::Sqlite) => "BEGIN DEFERRED",
            (Purpose::Look, _) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            (_, DbBackend::Sqlite) => "BEGIN IMMEDIATE",
            (Purpose::Change, _) => "BEGIN",
            (Purpose::ChangeSoon, _) => "BEGIN; SET LOCAL lock_timeout = '1s'",
        };
        let mut tries = TRIES;
        let connection = loop {
            let mut connection = pool.take().await?;
            match connection.execute_unprepared(begin).await {
                Ok(_) => break connection,
                Err(error) => {
                    connection.give_up();
                    tries -= 1;
                    if tries == 0 || !is_broken(&error) {
                        return Err(error);
                    }
                    pool.distrust();
                }
            }
        };
        Ok(Self { backend, held: Mutex::new(Held { failed: false, connection: Some(connection), turn }) })
    }

    pub(super) async fn commit(self) -> Result<(), DbErr> {
        let mut held = self.held.lock().await;
        if held.failed && self.backend == DbBackend::Postgres {
            return Err(DbErr::Custom("a statement of the transaction failed".into()));
        }
        let connection = held.connection.as_mut().ok_or_else(over)?;
        match connection.execute_unprepared("COMMIT").await {
            Ok(_) => {
                held.connection = None;
                Ok(())
            }
            Err(error) => {
                if self.backend == DbBackend::Postgres {
                    // It may be committed or not; this connection cannot be asked.
                    connection.give_up();
                    held.connection = None;
                }
                Err(error)
            }
        }
    }

    pub(super) async fn rollback(self) -> Result<(), DbErr> {
        let mut held = self.held.lock().await;
        let mut connection = held.connection.take().ok_or_else(over)?;
        connection.execute_unprepared("ROLLBACK").await.map(|_| ()).inspect_err(|_| connection.give_up())
    }
}

/// One statement inside it.
macro_rules! within {
    ($self:ident, $connection:ident => $call:expr) => {{
        let mut held = $self.held.lock().await;
        // Stays so when nobody waits for the answer any more.
        let before = std::mem::replace(&mut held.failed, true);
        let $connection = held.connection.as_mut().ok_or_else(over)?;
        let answer = $call.await;
        held.failed = before || answer.is_err();
        answer
    }};
}

#[async_trait]
impl ConnectionTrait for Txn {
    fn get_database_backend(&self) -> DbBackend {
        self.backend
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        within!(self, on => on.execute(statement))
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        within!(self, on => on.execute_unprepared(sql))
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        within!(self, on => on.query_one(statement))
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        within!(self, on => on.query_all(statement))
    }
}

impl Drop for Txn {
    fn drop(&mut self) {
        let held = self.held.get_mut();
        let (Some(mut connection), turn) = (held.connection.take(), held.turn.take()) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return connection.give_up() };
        runtime.spawn(async move {
            let taken_back = tokio::time::timeout(ROLLBACK, connection.execute_unprepared("ROLLBACK")).await;
            if !matches!(taken_back, Ok(Ok(_))) {
                connection.give_up();
            }
            drop(connection);
            // Whoever writes next finds the file unlocked.
            drop(turn);
        });
    }
}

fn over() -> DbErr {
    DbErr::Custom("the transaction is over".into())
}
