//! The load harness: what sending, importing, fanning out and clicking cost, each beside a yardstick of this very machine.
//!
//! What it measures, what it does not and how to run it stands in `benches/README.md`. It starts PostgreSQL, the relay
//! and the built program as processes of their own and drives them from outside. It promises to say *broken* (exit
//! status 1) when mail was lost or came twice, and void when a yardstick drifted; it judges no figure by its exit status.
#![expect(clippy::print_stdout, reason = "numbers are all it is for")]

mod campaign;
mod cases;
mod chain;
mod clicker;
mod filled;
mod letter;
mod machine;
mod measure;
mod options;
mod people;
mod postgres;
mod program;
mod relay;
mod report;
mod sink;
mod stage;
mod store;
mod yardstick;

use std::error::Error;
use std::process::ExitCode;

use options::{Asked, Options};
use tokio::signal::unix::{SignalKind, signal};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    match begin() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nbroken: {error}");
            ExitCode::FAILURE
        }
    }
}

fn begin() -> Outcome<()> {
    let asked = Options::from_arguments()?;
    machine::share_two_cores()?;
    // As many threads as the cores that everything shares.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match asked {
        Asked::Help => {
            println!("{}", options::HELP);
            Ok(())
        }
        Asked::Cases(options) => runtime.block_on(until_stopped(&options)),
        Asked::Chain(chain) => runtime.block_on(chain::run(&chain)),
    }
}

/// Runs the cases, and ends in order all that was started when somebody ends the harness.
async fn until_stopped(options: &Options) -> Outcome<()> {
    let (mut asked, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        done = cases::run(options) => done,
        _ = asked.recv() => Err("ended by SIGTERM".into()),
        _ = interrupted.recv() => Err("ended by SIGINT".into()),
    }
}
