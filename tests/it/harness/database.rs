//! A database for each test: a SQLite file, or a PostgreSQL database copied from a migrated template.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;

use sea_orm::{ConnectionTrait as _, DatabaseConnection, Statement};
use secrecy::SecretString;
use tempfile::TempDir;
use tidings::config::Settings;
use tidings::db::Db;
use url::Url;
use uuid::Uuid;

/// Names the server: a URL of a user who may create databases.
const SERVER: &str = "TIDINGS_TEST_POSTGRES";
/// Any number that nobody else uses as an advisory lock on a test server.
const TEMPLATE_LOCK: i64 = 0x7469_6469_7465_7374;

/// The ring of link keys that tests use.
pub(crate) const LINK_KEYS: &str = "t1:dGVzdHMtYW5kLW5vdGhpbmctZWxzZS11c2UtdGhpcy1rZXk=";
/// The admin key that tests use.
pub(crate) const ADMIN_KEY: &str = "admin-key-of-the-tests";

/// A database that lives as long as this value.
pub(crate) enum Database {
    Sqlite(TempDir),
    Postgres { url: String, name: String },
}

impl Database {
    /// A SQLite file in a folder of its own, not migrated yet.
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    /// A migrated PostgreSQL database.
    pub(crate) async fn postgres() -> Self {
        let template = template().await;
        Self::create_postgres(&format!(" TEMPLATE {template}")).await
    }

    async fn create_postgres(how: &str) -> Self {
        let name = format!("tidings_test_{}", Uuid::now_v7().simple());
        let server = connect("postgres").await;
        server.execute_unprepared(&format!("CREATE DATABASE {name}{how}")).await.unwrap();
        server.close().await.unwrap();
        Self::Postgres { url: url_of(&name), name }
    }

    /// Another one of the same kind, that holds nothing and was never migrated.
    pub(crate) async fn empty_again(&self) -> Self {
        match self {
            Self::Sqlite(_) => Self::sqlite(),
            Self::Postgres { .. } => Self::create_postgres("").await,
        }
    }

    /// As `TIDINGS_DATABASE_URL` takes it.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite(folder) => format!("sqlite://{}", folder.path().join("tidings.db").display()),
            Self::Postgres { url, .. } => url.clone(),
        }
    }

    /// The folder of the SQLite file.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(folder) => Some(folder.path()),
            Self::Postgres { .. } => None,
        }
    }

    /// Settings for this database: everything else at its default, the embedded mailbox, an admin key.
    pub(crate) fn settings(&self) -> Settings {
        let mut settings = Settings::local(&self.url());
        settings.link_keys = Some(SecretString::from(LINK_KEYS));
        settings.admin_key = Some(SecretString::from(ADMIN_KEY));
        settings
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Self::Postgres { name, .. } = self else { return };
        let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        // Dropping is not async, and the test's own runtime may be gone: a thread with another one does it.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = connect("postgres").await;
                server.execute_unprepared(&sql).await.unwrap();
                server.close().await.unwrap();
            });
        });
        if dropped.join().is_err() && !std::thread::panicking() {
            panic!("the test's database could not be dropped");
        }
    }
}

fn url_of(database: &str) -> String {
    let server = std::env::var(SERVER).unwrap_or_else(|_| {
        panic!("{SERVER} is not set: run tests/run, or set it to a PostgreSQL server such as postgres://postgres@127.0.0.1:5432")
    });
    let mut url = Url::parse(&server).unwrap_or_else(|_| panic!("{SERVER} is not a URL"));
    url.set_path(database);
    url.into()
}

async fn connect(database: &str) -> DatabaseConnection {
    let mut options = sea_orm::ConnectOptions::new(url_of(database));
    options.max_connections(1).sqlx_logging(false);
    sea_orm::Database::connect(options).await.unwrap_or_else(|error| {
        panic!("the PostgreSQL server of {SERVER} cannot be reached: {error}");
    })
}

/// The name of a database that is migrated as this source tree says; made by whichever test comes first.
async fn template() -> String {
    let name = format!("tidings_template_{:016x}", hash_of_migrations());
    let server = connect("postgres").await;
    let ask = |sql: String| Statement::from_string(sea_orm::DbBackend::Postgres, sql);
    // The pool has one connection, which takes the lock and gives it back.
    server.query_one_raw(ask(format!("SELECT pg_advisory_lock({TEMPLATE_LOCK})"))).await.unwrap();
    let there = server
        .query_one_raw(ask(format!("SELECT 1 AS one FROM pg_database WHERE datname = '{name}'")))
        .await
        .unwrap();
    if there.is_none() {
        let draft = format!("tidings_draft_{}", Uuid::now_v7().simple());
        server.execute_unprepared(&format!("CREATE DATABASE {draft}")).await.unwrap();
        let db = Db::open(&url_of(&draft)).await.unwrap();
        db.migrate().await.unwrap();
        db.close().await;
        server.execute_unprepared(&format!("ALTER DATABASE {draft} RENAME TO {name}")).await.unwrap();
    }
    server.query_one_raw(ask(format!("SELECT pg_advisory_unlock({TEMPLATE_LOCK})"))).await.unwrap();
    server.close().await.unwrap();
    name
}

fn hash_of_migrations() -> u64 {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        std::fs::read(file).unwrap().hash(&mut hasher);
    }
    hasher.finish()
}
