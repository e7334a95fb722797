//! A database that is prepared once and copied for each run, so that every run begins with the same.

use std::fs;
use std::path::PathBuf;

use super::Outcome;
use super::postgres::Postgres;

/// Where databases are.
pub(crate) enum Store<'a> {
    /// On a server.
    Postgres(&'a Postgres),
    /// Files in a folder.
    Sqlite(PathBuf),
}

/// What a SQLite database's files end with.
const ENDINGS: [&str; 2] = ["", "-wal"];

impl Store<'_> {
    /// Makes an empty database and returns its URL.
    pub(crate) fn create(&self, name: &str) -> Outcome<String> {
        if let Self::Postgres(server) = self {
            server.psql("postgres", &format!("CREATE DATABASE {name}"))?;
        }
        Ok(self.url(name))
    }

    /// Where programs reach it.
    pub(crate) fn url(&self, name: &str) -> String {
        match self {
            Self::Postgres(server) => server.url(name),
            Self::Sqlite(folder) => format!("sqlite://{}", folder.join(format!("{name}.db")).display()),
        }
    }

    /// Leaves it as autovacuum and a checkpoint leave a database that has rested for a minute.
    pub(crate) fn rest(&self, name: &str) -> Outcome<()> {
        if let Self::Postgres(server) = self {
            server.psql(name, "VACUUM (ANALYZE);\nCHECKPOINT")?;
        }
        Ok(())
    }

    /// Copies one that nobody uses, in place of an earlier copy, and returns the URL of the copy.
    pub(crate) fn copy(&self, from: &str, to: &str) -> Outcome<String> {
        self.drop(to)?;
        match self {
            Self::Postgres(server) => {
                // Before version 15 there was no other strategy, and no word for it.
                let version = server.psql("postgres", "SHOW server_version_num")?;
                let how = if version.trim().parse::<u32>()? < 150_000 { "" } else { " STRATEGY file_copy" };
                server
                    .psql("postgres", &format!("CREATE DATABASE {to} TEMPLATE {from}{how};\nCHECKPOINT"))?;
            }
            Self::Sqlite(folder) => {
                for ending in ENDINGS {
                    let source = folder.join(format!("{from}.db{ending}"));
                    if source.exists() {
                        fs::copy(source, folder.join(format!("{to}.db{ending}")))?;
                    }
                }
            }
        }
        Ok(self.url(to))
    }

    /// Removes it, if it is there.
    pub(crate) fn drop(&self, name: &str) -> Outcome<()> {
        match self {
            Self::Postgres(server) => {
                server.psql("postgres", &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))?;
            }
            Self::Sqlite(folder) => {
                for ending in ["", "-wal", "-shm"] {
                    let file = folder.join(format!("{name}.db{ending}"));
                    if file.exists() {
                        fs::remove_file(file)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Seconds of CPU of the server; a file has none of its own.
    pub(crate) fn cpu(&self) -> f64 {
        match self {
            Self::Postgres(server) => server.cpu(),
            Self::Sqlite(_) => 0.0,
        }
    }
}
