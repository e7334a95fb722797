//! The command line: one file a command.
//!
//! A result goes to standard output, as words or with `--json` as JSON. An error is one plain sentence on standard
//! error that says what to do; the exit status is 2 for wrong use and 1 for a failure. No secret is printed but the keys
//! that a command was asked to make.

use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::address::EmailAddress;
use crate::app::App;
use crate::brand::{self, Brand, Topic};
use crate::config::Settings;
use crate::delivery::rows::last_beat;
use crate::telemetry;

mod api_key;
mod campaign;
mod demo;
mod evidence;
mod explain;
mod import;
mod key;
mod migrate;
mod notice;
mod opt_out;
mod out;
mod serve;

use out::Out;

/// A worker that has not looked for work for so long is taken for gone.
const ALIVE: Duration = Duration::from_secs(30);

/// Tidings sends the mail that people must get and stops the mail that people refuse.
#[derive(Debug, Parser)]
#[command(name = "tidings", version, about, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Command,
}

/// Settings that may be given as flags; they win over `tidings.toml` and the environment.
#[derive(Debug, Args)]
struct Flags {
    /// Settings file [default: tidings.toml in this folder, if it is there]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Settings")]
    config: Option<PathBuf>,
    /// sqlite: or postgres:// [variable: TIDINGS_DATABASE_URL]
    #[arg(long, global = true, value_name = "URL", help_heading = "Settings")]
    database_url: Option<String>,
    /// Address of the HTTP server [variable: TIDINGS_LISTEN]
    #[arg(long, global = true, value_name = "IP:PORT", help_heading = "Settings")]
    listen: Option<String>,
    /// What links in mail begin with [variable: TIDINGS_BASE_URL]
    #[arg(long, global = true, value_name = "URL", help_heading = "Settings")]
    base_url: Option<String>,
    /// Where messages are handed over [variable: TIDINGS_RELAY_URL]
    #[arg(long, global = true, value_name = "URL", help_heading = "Settings")]
    relay_url: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Serve(serve::Serve),
    Migrate(migrate::Migrate),
    Import(import::Import),
    Campaign(campaign::Campaign),
    #[command(name = "notice")]
    Notice(notice::Notices),
    OptOut(opt_out::OptOut),
    Explain(explain::Explain),
    Evidence(evidence::Evidence),
    Key(key::Key),
    ApiKey(api_key::ApiKey),
}

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// Wrong use: exit status 2.
    #[error("{0}")]
    Use(String),
    /// A failure: exit status 1.
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<sea_orm::DbErr> for CliError {
    fn from(error: sea_orm::DbErr) -> Self {
        Self::Failed(format!("the database failed: {error}; check TIDINGS_DATABASE_URL and try again"))
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What commands are given: the settings, unread as yet, and where results go.
struct Context {
    flags: Flags,
    out: Out,
}

impl Context {
    /// Reads file, environment and flags.
    fn settings(&self) -> Result<Settings, CliError> {
        let Flags { config, database_url, listen, base_url, relay_url } = &self.flags;
        let given = [
            ("database_url", database_url),
            ("listen", listen),
            ("base_url", base_url),
            ("relay_url", relay_url),
        ];
        let flags: Vec<(&'static str, String)> =
            given.into_iter().filter_map(|(name, value)| value.clone().map(|value| (name, value))).collect();
        Settings::load(config.as_deref(), std::env::vars_os(), &flags).map_err(CliError::failed)
    }

    /// Opens the database as it is, without migrating it.
    async fn app(&self) -> Result<App, CliError> {
        App::open(self.settings()?, false).await.map_err(CliError::failed)
    }
}

/// Reads an address from the command line.
fn address(text: &str) -> Result<EmailAddress, CliError> {
    EmailAddress::parse(text).map_err(|error| CliError::Use(format!("{error}; give it as name@example.com")))
}

/// The brand of this slug.
async fn brand_of(app: &App, slug: &str) -> Result<Brand, CliError> {
    let found = brand::rows::find(app.db.reads(), slug).await?.filter(|brand| brand.archived_at.is_none());
    found.ok_or_else(|| {
        CliError::Failed(format!("there is no brand {slug:?}; make it with PUT /api/v1/brands/{slug}"))
    })
}

/// The topic of this slug.
async fn topic_of(app: &App, brand: &Brand, slug: &str) -> Result<Topic, CliError> {
    let found = brand::rows::find_topic(app.db.reads(), brand.id, slug).await?;
    found.filter(|topic| topic.archived_at.is_none()).ok_or_else(|| {
        let brand = &brand.slug;
        CliError::Failed(format!(
            "the brand {brand:?} has no topic {slug:?}; make it with PUT /api/v1/brands/{brand}/topics/{slug}"
        ))
    })
}

/// Who is recorded as having done what a command does: `cli:` and the name of the Unix user.
fn actor() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(|variable| std::env::var(variable).ok())
        .filter(|name| !name.is_empty() && name.len() <= 64 && !name.chars().any(char::is_control))
        .unwrap_or_else(|| format!("uid-{}", own_uid()));
    format!("cli:{name}")
}

fn own_uid() -> String {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").map_or_else(|_| "unknown".to_owned(), |about| about.uid().to_string())
}

/// Runs the program with these arguments, the first of which is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return wrong_use(&error),
    };
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            out::complain(&error.to_string());
            ExitCode::from(if matches!(error, CliError::Use(_)) { 2 } else { 1 })
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), CliError> {
    // A second call in one process is refused, and the first one's provider is the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let context = Context { flags: cli.flags, out: Out };
    let talkative = matches!(cli.command, Command::Serve(_));
    let logging = if talkative { telemetry::init() } else { telemetry::init_quietly() };
    logging.map_err(CliError::Failed)?;
    match cli.command {
        Command::Demo(command) => block_on(command.run(&context)),
        Command::Serve(command) => block_on(command.run(&context)),
        Command::Migrate(command) => block_on(command.run(&context)),
        Command::Import(command) => block_on(command.run(&context)),
        Command::Campaign(command) => block_on(command.run(&context)),
        Command::Notice(command) => block_on(command.run(&context)),
        Command::OptOut(command) => block_on(command.run(&context)),
        Command::Explain(command) => block_on(command.run(&context)),
        Command::Evidence(command) => block_on(command.run(&context)),
        Command::Key(command) => command.run(&context),
        Command::ApiKey(command) => block_on(command.run(&context)),
    }
}

fn block_on(work: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(work)
}

/// Help and version are no errors; anything else becomes one sentence and status 2.
fn wrong_use(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A closed standard output is nobody's error.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(2);
    }
    let text = error.to_string();
    let said: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    let said = said.join(" ");
    out::complain(&format!("{}; see `{} --help`", said.trim_start_matches("error: "), used_command(&text)));
    ExitCode::from(2)
}

/// What to say when nobody would send.
async fn no_worker(app: &App) -> Result<Option<&'static str>, CliError> {
    let alive = last_beat(&app.db, app.db.reads()).await?.is_some_and(|ago| ago < ALIVE);
    Ok((!alive).then_some("No worker is alive: the messages wait until one is started with `tidings serve`."))
}

/// The command whose usage stands in this complaint, such as `tidings campaign send`.
fn used_command(complaint: &str) -> String {
    let usage = complaint.lines().find_map(|line| line.trim().strip_prefix("Usage: ")).unwrap_or("tidings");
    let words = usage.split_whitespace().take_while(|word| !word.starts_with(['[', '<', '-']));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_explains_itself() {
        fn look(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no text", command.get_name());
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {} has no text",
                    command.get_name(),
                    argument.get_id()
                );
            }
            command.get_subcommands().for_each(look);
        }
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        look(&command);
    }
}
