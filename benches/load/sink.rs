//! The relay that takes everything and keeps nothing: Debian postfix's `smtp-sink`.
//!
//! It writes its counters to a file after each message (`-c`), and the file's end tells how many it took over.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::Outcome;
use super::machine::{Running, cpu_of, free_port, on_core, wait_until};

/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running `smtp-sink`.
pub(crate) struct Sink {
    process: Running,
    port: u16,
    counters: PathBuf,
}

impl Sink {
    /// Starts it in this folder, on the cores that everything shares.
    pub(crate) fn start(folder: &Path) -> Outcome<Self> {
        Self::by(Command::new("smtp-sink"), folder)
    }

    /// Starts it on a core of its own.
    pub(crate) fn pinned(folder: &Path, core: u8) -> Outcome<Self> {
        Self::by(on_core(core, "smtp-sink"), folder)
    }

    fn by(mut command: Command, folder: &Path) -> Outcome<Self> {
        let port = free_port()?;
        let counters = folder.join(format!("sink-{port}"));
        command.arg("-c").stdout(fs::File::create(&counters)?).stderr(Stdio::null());
        if rustix::process::getuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        command.args([&format!("127.0.0.1:{port}"), "128"]);
        let mut process = Running::start("smtp-sink", &mut command, Signal::TERM)?;
        wait_until(PATIENCE, "smtp-sink does not listen", || {
            process.alive()?;
            Ok(TcpStream::connect(("127.0.0.1", port)).is_ok())
        })?;
        Ok(Self { process, port, counters })
    }

    /// Where it takes mail.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The same for Tidings.
    pub(crate) fn relay_url(&self) -> String {
        format!("smtp://127.0.0.1:{}", self.port)
    }

    /// Seconds of CPU that it used, which no figure holds.
    pub(crate) fn cpu(&self) -> f64 {
        cpu_of(self.process.pid())
    }

    /// How many messages it took over.
    pub(crate) fn count(&self) -> Outcome<u64> {
        let mut file = fs::File::open(&self.counters)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(200)))?;
        let mut end = String::new();
        file.read_to_string(&mut end)?;
        // "sess=16 quit=0 mesg=4711\r", again and again; the last one may be half written.
        let whole = end.rfind('\r').map_or("", |at| &end[..at]);
        let count = whole.rsplit_once("mesg=").map_or("0", |(_, count)| count);
        Ok(count.trim().parse()?)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.counters);
    }
}
