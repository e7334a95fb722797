//! A PostgreSQL server of a test's own, for what must not befall the one that all tests share: it is stopped, cut off,
//! paused and started again on the same port.
//!
//! A machine that goes on keeps what PostgreSQL wrote, so it need not wait for the disk (`fsync=off`); a commit is a
//! commit all the same (`synchronous_commit=on`).

use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sea_orm::{ConnectionTrait as _, DatabaseConnection};

use super::process::send_signal;
use super::{eventually, free_address};

/// Every table that knows when something is due, without waiting for a lock.
const HURRY: &str = "DO $$ DECLARE one text; now_us bigint := extract(epoch FROM now()) * 1000000; BEGIN \
    FOR one IN SELECT table_name FROM information_schema.columns \
        WHERE column_name = 'due_at' AND table_schema = 'public' LOOP \
    EXECUTE format('UPDATE %I SET due_at = %s WHERE ctid = ANY (ARRAY(SELECT ctid FROM %I \
        WHERE due_at > %s FOR UPDATE SKIP LOCKED))', one, now_us, one, now_us); \
    END LOOP; END $$";

/// A server of its own; it and its data are gone when it is dropped.
pub(crate) struct PostgresServer {
    folder: tempfile::TempDir,
    programs: PathBuf,
    address: String,
    process: Option<Child>,
}

impl PostgresServer {
    /// A new server on a free port of loopback.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let programs = programs();
        if let Some((user, group)) = somebody() {
            chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let mut server = Self { folder, programs, address: free_address(), process: None };
        let data = server.data();
        let mut initdb = server.command("initdb");
        initdb.arg("-D").arg(data).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]);
        let made = initdb.output().unwrap();
        assert!(made.status.success(), "{}", super::said(&made));
        server.start_again().await;
        server
    }

    /// Starts it again after [`PostgresServer::stop`], on the same port with the same data.
    pub(crate) async fn start_again(&mut self) {
        let port = self.address.rsplit(':').next().unwrap().to_owned();
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let mut server = self.command("postgres");
        server.arg("-D").arg(self.data()).args(["-h", "127.0.0.1", "-p", &port]);
        for setting in ["unix_socket_directories=", "max_connections=300", "fsync=off"] {
            server.args(["-c", setting]);
        }
        server.stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(server.spawn().unwrap());
        eventually("a PostgreSQL server that answers", async || {
            if let Some(status) = self.process.as_mut()?.try_wait().unwrap() {
                let said = std::fs::read_to_string(self.log()).unwrap_or_default();
                panic!("PostgreSQL ended ({status}):\n{said}");
            }
            self.connect("postgres").await.ok()?.close().await.ok()
        })
        .await;
    }

    /// Ends it as an administrator does: open transactions are rolled back.
    pub(crate) async fn stop(&mut self) {
        self.end("INT").await;
    }

    /// Ends it as a crash does: the next start recovers from its log.
    pub(crate) async fn crash(&mut self) {
        self.end("QUIT").await;
    }

    async fn end(&mut self, signal: &str) {
        let mut process = self.process.take().unwrap();
        send_signal(signal, process.id());
        eventually("a PostgreSQL server that ends", async || process.try_wait().unwrap()).await;
    }

    /// Lets none of its processes do anything, as a machine that hangs; connections stay open.
    pub(crate) fn freeze(&self) {
        self.signal_all("STOP");
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self) {
        self.signal_all("CONT");
    }

    fn signal_all(&self, signal: &str) {
        let main = self.process.as_ref().unwrap().id();
        send_signal(signal, main);
        let children = std::fs::read_to_string(format!("/proc/{main}/task/{main}/children")).unwrap();
        for child in children.split_whitespace() {
            // A child may have ended since.
            let _ = Command::new("kill").args(["-s", signal, child]).output();
        }
    }

    /// A new database that holds nothing; gives its URL.
    pub(crate) async fn empty_database(&self, name: &str) -> String {
        let server = self.connect("postgres").await.unwrap();
        server.execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
        server.close().await.unwrap();
        self.url(name)
    }

    /// As `TIDINGS_DATABASE_URL` takes it.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.address)
    }

    /// One connection to this database.
    pub(crate) async fn connect(&self, database: &str) -> Result<DatabaseConnection, sea_orm::DbErr> {
        let mut options = sea_orm::ConnectOptions::new(self.url(database));
        options.max_connections(1).sqlx_logging(false).connect_timeout(std::time::Duration::from_secs(2));
        sea_orm::Database::connect(options).await
    }

    /// Makes due whatever of a Tidings waits to be tried again: a test has no hour.
    pub(crate) async fn hurry(&self, database: &str) {
        let connection = self.connect(database).await.unwrap();
        connection.execute_unprepared(HURRY).await.unwrap();
        connection.close().await.unwrap();
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// One of PostgreSQL's programs, as a user that it accepts.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        if let Some((user, group)) = somebody() {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended already.
            let _ = Command::new("kill").args(["-s", "QUIT", &process.id().to_string()]).output();
            let _ = process.wait();
        }
    }
}

/// The folder of the newest PostgreSQL's programs, as `tests/run` finds it.
fn programs() -> PathBuf {
    let all = |folder: &Path| ["initdb", "postgres"].iter().all(|program| folder.join(program).exists());
    let version = |path: &PathBuf| path.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    found.sort_by_key(version);
    found.reverse();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path));
    found.into_iter().find(|folder| all(folder)).expect("install PostgreSQL's server, or let tests/run do it")
}

/// An ordinary user and group where this test runs as root, whom PostgreSQL refuses.
fn somebody() -> Option<(u32, u32)> {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let ids = |name: &str| {
        let mut fields = users.lines().find(|line| line.split(':').next() == Some(name))?.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    ids("postgres").or_else(|| ids("nobody"))
}
