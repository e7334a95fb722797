//! The built program, run as anybody would run it: its command line, its settings in the environment, its HTTP API.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::Signal;
use serde_json::Value;
use tidings::link::KeyRing;

use super::Outcome;
use super::machine::{LOOK, Running, cpu_of, free_port, output, peak_mb};

const ADMIN_KEY: &str = "load-harness";
const LOG: &str = "tidings.log";

/// The program and the settings that all its processes share.
#[derive(Clone)]
pub(crate) struct Program {
    file: PathBuf,
    folder: PathBuf,
    link_keys: String,
    /// `TIDINGS_DKIM`, when mail is signed.
    dkim: Option<String>,
}

/// What an import did.
pub(crate) struct Imported {
    /// From the start of the process to its end.
    pub(crate) took: Duration,
    /// The most memory that it held, in MB.
    pub(crate) peak_mb: f64,
}

impl Program {
    /// This program, run in this folder.
    pub(crate) fn new(file: &Path, folder: &Path) -> Self {
        Self { file: file.to_owned(), folder: folder.to_owned(), link_keys: KeyRing::new_key(), dkim: None }
    }

    /// The same with these keys to sign mail, if any: `domain:selector:file`, parted by commas.
    pub(crate) fn signing(&self, dkim: Option<String>) -> Self {
        Self { dkim, ..self.clone() }
    }

    fn command(&self, database: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.file);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDINGS_"))
        {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .current_dir(&self.folder)
            .env("TIDINGS_DATABASE_URL", database)
            .env("TIDINGS_LINK_KEYS", &self.link_keys)
            .env("TIDINGS_ADMIN_KEY", ADMIN_KEY)
            .env("TIDINGS_LOG", "warn")
            .envs(self.dkim.as_ref().map(|keys| ("TIDINGS_DKIM", keys)));
        command
    }

    /// The last lines that served programs wrote to their log.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.join(LOG)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// Makes an empty database ready.
    pub(crate) fn migrate(&self, database: &str) -> Outcome<()> {
        output(&mut self.command(database, &["migrate"]))?;
        Ok(())
    }

    /// Imports a file of so many people, none of whom is there yet.
    pub(crate) async fn import(&self, database: &str, file: &Path, people: u64) -> Outcome<Imported> {
        let result = self.folder.join("import.json");
        let begun = Instant::now();
        let mut command = self.command(database, &["import", &file.to_string_lossy(), "--json"]);
        command.stdin(Stdio::null()).stdout(fs::File::create(&result)?);
        let mut process = command.spawn()?;
        let mut peak = 0.0;
        let status = loop {
            peak = peak_mb(process.id()).unwrap_or(0.0).max(peak);
            if let Some(status) = process.try_wait()? {
                break status;
            }
            tokio::time::sleep(LOOK).await;
        };
        let took = begun.elapsed();
        if !status.success() {
            return Err(format!("tidings import ended with {status}").into());
        }
        let result: Value = serde_json::from_slice(&fs::read(&result)?)?;
        if result["created"] != people {
            return Err(format!("not every line made a recipient: {result}").into());
        }
        Ok(Imported { took, peak_mb: peak })
    }

    /// Starts web and worker in one process and waits until it is ready.
    pub(crate) async fn serve(&self, database: &str, relay: &str) -> Outcome<Serving> {
        let port = free_port()?;
        let listen = format!("127.0.0.1:{port}");
        let mut command = self.command(database, &["serve", "--listen", &listen, "--relay-url", relay]);
        let log = fs::File::options().create(true).append(true).open(self.folder.join(LOG))?;
        command.stdout(log.try_clone()?).stderr(log);
        let process = Running::start("tidings serve", &mut command, Signal::TERM)?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        let mut serving = Serving { process, listen, client };
        let ready = format!("http://{}/readyz", serving.listen);
        while !serving.client.get(&ready).send().await.is_ok_and(|answer| answer.status().is_success()) {
            serving.process.alive()?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(serving)
    }
}

/// A running `tidings serve`.
pub(crate) struct Serving {
    process: Running,
    listen: String,
    client: reqwest::Client,
}

impl Serving {
    /// Where it listens: host and port.
    pub(crate) fn listen(&self) -> &str {
        &self.listen
    }

    /// A call of the API with a JSON body.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Value) -> Outcome<Value> {
        self.send(self.request(method, path).json(&body)).await
    }

    /// A GET of the API.
    pub(crate) async fn get(&self, path: &str) -> Outcome<Value> {
        self.send(self.request(Method::GET, path)).await
    }

    /// A POST of a CSV file.
    pub(crate) async fn upload(&self, path: &str, file: &Path) -> Outcome<Value> {
        let request = self.request(Method::POST, path).header("content-type", "text/csv");
        self.send(request.body(fs::read(file)?)).await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}/api/v1{path}", self.listen);
        self.client.request(method, url).bearer_auth(ADMIN_KEY)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Outcome<Value> {
        let answer = request.send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        if status.is_success() { Ok(body) } else { Err(format!("{status}: {body}").into()) }
    }

    /// Seconds of CPU that it has used.
    pub(crate) fn cpu(&self) -> f64 {
        cpu_of(self.process.pid())
    }

    /// The most memory that it ever held, in MB.
    pub(crate) fn peak_mb(&self) -> Outcome<f64> {
        peak_mb(self.process.pid()).ok_or_else(|| "this kernel does not tell VmHWM".into())
    }

    /// Asks it to end and waits until it has.
    pub(crate) fn stop(mut self) -> Outcome<()> {
        self.process.stop()
    }
}
