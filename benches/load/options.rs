//! What the command line asks for.

use std::path::PathBuf;

use super::Outcome;
use super::chain::ChainOptions;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
cargo bench --locked --bench load [-- CASE ... [--sqlite] [--signed] [--runs N] [--messages N] [--people N] [--clicks N] [--history N] [--program FILE]]

Cases: machine send first memory slow fanout import clicks history; none: all of them.
--sqlite, --signed   for send: on SQLite; with RSA-2048 and Ed25519 signatures
--runs N             measured runs of each case, after one to warm up (5)
--messages N         of a campaign (200000); slow sends a fifth, history a quarter, memory this and five times this
--people N           recipients of fanout and import (1000000)
--clicks N           one-click POSTs (50000)
--history N          finished deliveries in the table (10000000)
--program FILE       another build of tidings than the one just made
What each measures stands in benches/README.md.";

/// The names of the cases, in the order in which they run.
pub(crate) const CASES: [&str; 9] =
    ["machine", "send", "first", "memory", "slow", "fanout", "import", "clicks", "history"];

/// What to do.
pub(crate) enum Asked {
    /// Say how to ask.
    Help,
    /// Run these cases.
    Cases(Options),
    /// Be the chain without a database: the harness runs itself so, as a process whose CPU is its own.
    Chain(ChainOptions),
}

/// Which cases, and how much of each.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// None means all.
    pub(crate) cases: Vec<String>,
    /// `send` on SQLite alone.
    pub(crate) sqlite: bool,
    /// `send` with signatures alone.
    pub(crate) signed: bool,
    /// Measured runs of each case.
    pub(crate) runs: usize,
    /// Messages of a campaign.
    pub(crate) messages: u64,
    /// Recipients that are imported and found by filter.
    pub(crate) people: u64,
    /// One-click POSTs.
    pub(crate) clicks: u64,
    /// Finished deliveries that are there already.
    pub(crate) history: u64,
    /// The program that is measured.
    pub(crate) program: PathBuf,
}

impl Options {
    /// Reads the arguments of this process.
    pub(crate) fn from_arguments() -> Outcome<Asked> {
        // Cargo itself adds --bench.
        let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench").peekable();
        if arguments.next_if(|first| first == "chain").is_some() {
            return Ok(Asked::Chain(ChainOptions::from_arguments(arguments)?));
        }
        let mut options = Self {
            cases: Vec::new(),
            sqlite: false,
            signed: false,
            runs: 5,
            messages: 200_000,
            people: 1_000_000,
            clicks: 50_000,
            history: 10_000_000,
            program: PathBuf::from(env!("CARGO_BIN_EXE_tidings")),
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            let mut number = || -> Outcome<u64> {
                let value = value()?;
                let number = value.replace('_', "").parse().map_err(|_| format!("{value:?} is no number"))?;
                if number == 0 { Err(format!("{argument} must be 1 or more").into()) } else { Ok(number) }
            };
            match argument.as_str() {
                "--help" | "-h" | "help" => return Ok(Asked::Help),
                "--sqlite" => options.sqlite = true,
                "--signed" => options.signed = true,
                "--runs" => options.runs = usize::try_from(number()?)?,
                "--messages" => options.messages = number()?,
                "--people" => options.people = number()?,
                "--clicks" => options.clicks = number()?,
                "--history" => options.history = number()?,
                "--program" => options.program = std::fs::canonicalize(value()?)?,
                case if CASES.contains(&case) => options.cases.push(argument),
                _ => return Err(format!("{argument} is not known.\n\n{HELP}").into()),
            }
        }
        Ok(Asked::Cases(options))
    }

    /// Whether this case is asked for.
    pub(crate) fn wants(&self, case: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|asked| asked == case)
    }
}
