//! Tidings as a process of its own: the real binary, started, watched, killed.

use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};

use super::database::ADMIN_KEY;
use super::{Api, Database, LINK_KEYS, eventually};

/// Lines of a process's words that a failed test shows at most.
const LINES_SHOWN: usize = 200;

/// The binary under test, with nothing of the caller's environment but where to find programs and a place for files.
pub(crate) fn tidings() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.env_clear().stdin(Stdio::null());
    for name in ["PATH", "HOME", "USER", "TMPDIR", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Runs a command to its end in this folder.
pub(crate) fn run_in(folder: &Path, arguments: &[&str], env: &[(&str, &str)]) -> Output {
    tidings().args(arguments).envs(env.iter().copied()).current_dir(folder).output().unwrap()
}

/// Both outputs as text, for messages of failed assertions.
pub(crate) fn said(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A process that serves. It is killed when dropped.
pub(crate) struct Process {
    child: Child,
    logs: Arc<Mutex<String>>,
    /// Asks it with the admin key.
    pub(crate) api: Api,
    _folder: tempfile::TempDir,
}

impl Process {
    /// Starts `serve` with these further arguments and variables on this database and waits until it is ready.
    pub(crate) async fn serve(database: &Database, arguments: &[&str], env: &[(&str, &str)]) -> Self {
        Self::serve_on(&database.url(), arguments, env).await
    }

    /// As [`Process::serve`], on the database of this URL.
    pub(crate) async fn serve_on(database_url: &str, arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let mut all = vec![
            ("TIDINGS_DATABASE_URL", database_url),
            ("TIDINGS_LINK_KEYS", LINK_KEYS),
            ("TIDINGS_ADMIN_KEY", ADMIN_KEY),
        ];
        all.extend_from_slice(env);
        let mut serve = vec!["serve"];
        serve.extend_from_slice(arguments);
        Self::start(&serve, &all).await
    }

    /// Starts a command that serves, in a folder of its own, on a free port, and waits until it is ready.
    pub(crate) async fn start(arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let mut command = tidings();
        command.args(arguments).env("TIDINGS_LISTEN", &address).envs(env.iter().copied());
        command.current_dir(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let logs = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().unwrap(), logs.clone());
        collect(child.stderr.take().unwrap(), logs.clone());
        let api = Api::new(format!("http://{address}"), Some(ADMIN_KEY));
        let mut process = Self { child, logs, api, _folder: folder };
        process.wait_until_ready().await;
        process
    }

    async fn wait_until_ready(&mut self) {
        let request = self.api.request(reqwest::Method::GET, "/readyz");
        let logs = self.logs.clone();
        let child = &mut self.child;
        eventually("a process that is ready", async || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the process ended ({status}):\n{}", logs.lock().unwrap());
            }
            let answer = request.try_clone().unwrap().send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    /// Its id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far on both outputs.
    pub(crate) fn logs(&self) -> String {
        self.logs.lock().unwrap().clone()
    }

    /// Ends it as a power cut would: SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal, such as `TERM`, `STOP` or `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        send_signal(name, self.child.id());
    }

    /// Asks it to stop and waits for the end.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.end().await
    }

    /// Waits until it ends.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("a process that ends", async || child.try_wait().unwrap()).await
    }

    /// How it ended; none while it runs.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let logs = self.logs();
            let lines: Vec<&str> = logs.lines().collect();
            let last = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
            eprintln!("--- what the process said ---\n{}", last.join("\n"));
        }
    }
}

/// Sends a signal to a process that this test started.
pub(crate) fn send_signal(name: &str, process: u32) {
    let sent = Command::new("kill").args(["-s", name, &process.to_string()]).status().unwrap();
    assert!(sent.success(), "kill -s {name}");
}

/// An address of loopback that nobody used a moment ago.
pub(crate) fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// The root of the source tree.
pub(crate) fn source() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn collect(from: impl Read + Send + 'static, into: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut logs = into.lock().unwrap();
            logs.push_str(&line);
            logs.push('\n');
        }
    });
}
