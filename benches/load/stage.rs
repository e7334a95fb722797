//! What every case needs: a folder that goes away, PostgreSQL, the program, and how much of each.

use std::path::{Path, PathBuf};

use super::Outcome;
use super::options::Options;
use super::postgres::Postgres;
use super::program::Program;
use super::store::Store;

/// What every case needs.
pub(crate) struct Stage {
    /// How much of each.
    pub(crate) options: Options,
    /// The program, unsigned.
    pub(crate) program: Program,
    /// The server. Before the folder: it ends before its files go.
    pub(crate) postgres: Postgres,
    folder: tempfile::TempDir,
}

impl Stage {
    /// Sets all of it up.
    pub(crate) fn new(options: Options) -> Outcome<Self> {
        let folder = tempfile::Builder::new().prefix("tidings-load-").tempdir()?;
        let postgres = Postgres::start(folder.path())?;
        let program = Program::new(&options.program, folder.path());
        Ok(Self { options, program, postgres, folder })
    }

    /// A folder that goes away with the harness.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Databases on the server.
    pub(crate) fn on_postgres(&self) -> Store<'_> {
        Store::Postgres(&self.postgres)
    }

    /// Databases in files.
    pub(crate) fn on_sqlite(&self) -> Store<'static> {
        Store::Sqlite(self.folder.path().to_owned())
    }

    /// Messages that a yardstick sends: enough for a few seconds.
    pub(crate) fn yardstick_messages(&self) -> u64 {
        self.options.messages.min(100_000)
    }
}
