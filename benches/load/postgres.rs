//! A PostgreSQL of the harness's own: a server in a folder that goes away with it.
//!
//! What it is told besides the defaults stands in [`SETTINGS`]; commits wait for the disk.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::Outcome;
use super::machine::{Running, cpu_of_family, free_port, output, wait_until};

/// Its settings, besides the defaults. Autovacuum is on, as it is by default.
pub(crate) const SETTINGS: [&str; 8] = [
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "shared_buffers=1GB",
    "max_wal_size=8GB",
    "checkpoint_timeout=15min",
    "max_connections=200",
    "listen_addresses=127.0.0.1",
];

/// How long it may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. It trusts whoever comes from this machine.
pub(crate) struct Postgres {
    server: Running,
    port: u16,
    programs: PathBuf,
    folder: PathBuf,
}

impl Postgres {
    /// Makes a server in this folder and starts it; as the user postgres when root runs the harness, since the server
    /// refuses to be root.
    pub(crate) fn start(below: &Path) -> Outcome<Self> {
        let programs = programs()?;
        let folder = below.join("postgres");
        fs::create_dir_all(&folder)?;
        let user = server_user()?;
        if let Some((uid, gid)) = user {
            fs::set_permissions(below, fs::Permissions::from_mode(0o755))?;
            chown(&folder, Some(uid), Some(gid))?;
        }
        let program = |name: &str| {
            let mut command = Command::new(programs.join(name));
            command.current_dir(&folder);
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command
        };
        let data = folder.join("data");
        output(
            program("initdb")
                .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D"])
                .arg(&data),
        )?;
        let port = free_port()?;
        let log = fs::File::create(below.join("postgres.log"))?;
        let mut command = program("postgres");
        command.arg("-D").arg(&data).args(["-p", &port.to_string()]).arg("-k").arg(&folder);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.stdout(Stdio::null()).stderr(log);
        let mut server = Running::start("postgres", &mut command, Signal::INT)?;
        let mut ready = Command::new(programs.join("pg_isready"));
        ready.args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()]);
        wait_until(PATIENCE, "PostgreSQL does not come up", || {
            server.alive()?;
            Ok(ready.status()?.success())
        })?;
        Ok(Self { server, port, programs, folder })
    }

    /// Where programs reach this database.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// A program of PostgreSQL's, pointed at this database: `psql`, `pgbench`.
    pub(crate) fn client(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string());
        command.env("PGUSER", "postgres").env("PGDATABASE", database);
        command
    }

    /// Runs statements through psql, each by itself, and returns the rows, their fields parted by `|`.
    pub(crate) fn psql(&self, database: &str, statements: &str) -> Outcome<String> {
        let mut command = self.client("psql", database);
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1"]);
        for statement in statements.split(";\n").filter(|statement| !statement.trim().is_empty()) {
            command.args(["-c", statement]);
        }
        output(&mut command)
    }

    /// How long one statement takes, by psql from its start to its end.
    pub(crate) fn timed(&self, database: &str, statement: &str) -> Outcome<Duration> {
        let begun = Instant::now();
        self.psql(database, statement)?;
        Ok(begun.elapsed())
    }

    /// Seconds of CPU of the server and all its processes, those that ended included.
    pub(crate) fn cpu(&self) -> f64 {
        cpu_of_family(self.server.pid())
    }

    /// Where files are that both the server and the harness can read.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The newest version's folder of programs.
fn programs() -> Outcome<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, bin)| bin.join("initdb").is_file())
        .collect();
    found.sort();
    if let Some((_, bin)) = found.pop() {
        return Ok(bin);
    }
    let bin = output(Command::new("pg_config").arg("--bindir"))?;
    Ok(PathBuf::from(bin.trim()))
}

/// User and group of the server, when it cannot be our own.
fn server_user() -> Outcome<Option<(u32, u32)>> {
    if !rustix::process::getuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find_map(|line| line.strip_prefix("postgres:"));
    let mut fields = line.ok_or("there is no user postgres to run PostgreSQL as")?.split(':').skip(1);
    let mut number =
        || fields.next().and_then(|field| field.parse().ok()).ok_or("/etc/passwd makes no sense");
    Ok(Some((number()?, number()?)))
}
