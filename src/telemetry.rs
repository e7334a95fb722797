//! Logs and metrics.
//!
//! Logs go to standard error, pretty on a terminal and JSON otherwise. `TIDINGS_LOG` (or `RUST_LOG`) chooses how much, of
//! Tidings alone: the libraries that see addresses, keys and statements never get below warnings. Whatever looks
//! like an address is masked before it is written, as a last resort: the code logs ids.

use std::any::Any;
use std::io::{self, IsTerminal as _, Write};
use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// What is logged when neither `TIDINGS_LOG` nor `RUST_LOG` says.
const DEFAULT_FILTER: &str = "warn,tidings=info";

/// Begins to log to standard error. A second call does nothing.
///
/// # Errors
/// When `TIDINGS_LOG` or `RUST_LOG` cannot be used: a sentence that names it.
pub fn init() -> Result<(), String> {
    init_from(DEFAULT_FILTER)
}

/// As [`init`], with warnings only unless the environment asks for more: for commands that print their result.
///
/// # Errors
/// As [`init`].
pub fn init_quietly() -> Result<(), String> {
    init_from("warn")
}

fn init_from(default: &str) -> Result<(), String> {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(location, "{}", words_of(panic.payload()));
    }));
    let (name, asked) = ["TIDINGS_LOG", "RUST_LOG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| (name, text)))
        .unwrap_or(("TIDINGS_LOG", default.to_owned()));
    let filter = EnvFilter::try_new(&asked)
        .map_err(|error| format!("{name} is not a filter such as tidings=debug: {error}"))?;
    let ours = tracing_subscriber::filter::filter_fn(|about| {
        *about.level() <= tracing::Level::WARN || about.target().split("::").next() == Some("tidings")
    });
    let terminal = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(MaskedStderr);
    let lines = if terminal {
        lines.with_ansi(true).boxed()
    } else {
        lines.json().flatten_event(true).with_span_list(false).boxed()
    };
    // A subscriber that stands already, as in tests, stays.
    let _ = tracing_subscriber::registry()
        .with(lines.with_filter(ours))
        .with(filter)
        .with(LevelFilter::TRACE)
        .try_init();
    Ok(())
}

/// What a panic says, as far as it is a part of the program: words put together may hold somebody's data, as those of a
/// slice or an `unwrap` do.
fn words_of(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("a panic, its words left out")
}

/// The process's metrics, installed at the first call; its `render` writes them for Prometheus.
pub fn metrics_handle() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        // Buckets, not quantiles: only those of several processes can be put together. An empty list is the one error.
        let builder = PrometheusBuilder::new();
        let builder = builder.set_buckets(SECONDS).unwrap_or_else(|_| PrometheusBuilder::new());
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // Only this function installs a recorder, and only once.
        let _ = metrics::set_global_recorder(recorder);
        handle
    })
}

/// The bounds of what is measured in seconds: from a look into the database to the longest wait for a final dot's answer.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0];

/// Standard error with addresses masked; a writer lives for one line.
struct MaskedStderr;

struct Line(Vec<u8>);

impl<'a> MakeWriter<'a> for MaskedStderr {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Vec::with_capacity(512))
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.0);
        // Nobody is left to tell when standard error is closed.
        let _ = io::stderr().lock().write_all(masked(&text).as_bytes());
    }
}

/// The line with `…@…` in place of whatever looks like an address.
fn masked(line: &str) -> String {
    let part_of_address = |c: char| !c.is_whitespace() && !"\"<>(),;:[]\\=`{}".contains(c);
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find('@') {
        let before = rest[..at].trim_end_matches(part_of_address);
        let after = rest[at + 1..].trim_start_matches(part_of_address);
        if before.len() < at && after.len() < rest.len() - at - 1 {
            out.push_str(before);
            out.push_str("…@…");
        } else {
            out.push_str(&rest[..rest.len() - after.len()]);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_panic_only_the_programs_own_words_are_written() {
        let said = |panic: fn()| words_of(&*std::panic::catch_unwind(panic).unwrap_err());
        assert_eq!(said(|| panic!("it was never so")), "it was never so");
        assert_eq!(
            said(|| panic!("{} was given", std::hint::black_box("a@b.example"))),
            "a panic, its words left out"
        );
        assert_eq!(said(|| _ = "a@b.example".parse::<u8>().unwrap()), "a panic, its words left out");
    }

    #[test]
    fn whatever_looks_like_an_address_is_masked() {
        assert_eq!(masked("to \"ann.o'x+y@a.example.com\" ok"), "to \"…@…\" ok");
        assert_eq!(masked("<jo@a.example>, <jörg@b.example> and m@c"), "<…@…>, <…@…> and …@…");
        assert_eq!(masked("an @ alone, at@ and @home"), "an @ alone, at@ and @home");
        assert_eq!(masked("Key (folded)=(ann@a.example) exists"), "Key (folded)=(…@…) exists");
        assert_eq!(masked("nothing"), "nothing");
    }
}
