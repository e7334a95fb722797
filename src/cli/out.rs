//! Where results and complaints go: the one place that writes to standard output and standard error.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Standard output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Out;

impl Out {
    /// A line of words. A reader that has gone away, such as `head`, is no failure.
    pub(super) fn line(self, text: impl AsRef<str>) {
        let _ = writeln!(io::stdout().lock(), "{}", text.as_ref());
    }

    /// A result as JSON, indented.
    pub(super) fn json(self, result: &impl Serialize) {
        let text = serde_json::to_string_pretty(result).unwrap_or_default();
        self.line(text);
    }

    /// `result` as JSON when `json` is set, the words otherwise.
    pub(super) fn result(self, json: bool, result: &impl Serialize, words: impl AsRef<str>) {
        if json { self.json(result) } else { self.line(words) }
    }
}

/// One sentence on standard error.
pub(super) fn complain(sentence: &str) {
    let sentence = sentence.split_whitespace().collect::<Vec<_>>().join(" ");
    let _ = writeln!(io::stderr().lock(), "tidings: {}", sentence.trim_end_matches('.'));
}

/// A remark on standard error, beside the result.
pub(super) fn remark(sentence: &str) {
    let _ = writeln!(io::stderr().lock(), "{sentence}");
}

/// A progress bar on standard error that shows only on a terminal; `of` is the unit, such as `messages`.
pub(super) fn bar(total: Option<u64>, of: &str) -> ProgressBar {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(8)
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(total, target);
    let template = match (total, of) {
        (Some(_), "bytes") => {
            "  {bar:32} {percent:>3} %  {bytes} of {total_bytes}  {msg}  {elapsed} (left: {eta})".to_owned()
        }
        (Some(_), of) => {
            format!("  {{bar:32}} {{percent:>3}} %  {{pos}} of {{len}} {of}  {{msg}}  {{elapsed}}")
        }
        (None, of) => format!("  {{spinner}} {{pos}} {of}  {{msg}}  {{elapsed}}"),
    };
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
