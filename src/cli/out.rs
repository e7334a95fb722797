//! Where results and complaints go: the one place that writes to standard output and standard error.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// How often a bar is drawn anew while nothing moves.
const TICK: Duration = Duration::from_millis(200);

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

/// A progress bar for a file of so many octets. Like every bar it goes to standard error, shows only on a terminal, and
/// is narrow enough for one of 80 columns: a longer line would be drawn anew below itself.
pub(super) fn file_bar(octets: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(octets), target());
    look(&bar, "  {bar:20} {percent:>3} %  {msg}  {elapsed}, {eta} left");
    bar.enable_steady_tick(TICK);
    bar
}

/// A progress bar for messages, of which nobody knows yet how many there will be; [`show_sent`] moves it.
pub(super) fn message_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, target());
    look(&bar, "  {spinner} Gathering the people  {elapsed}");
    bar.enable_steady_tick(TICK);
    bar
}

/// So many messages of so many are done with.
pub(super) fn show_sent(bar: &ProgressBar, done: u64, total: u64) {
    if total == 0 {
        return;
    }
    if bar.length().is_none() {
        look(bar, "  {bar:32} {percent:>3} %  {pos} of {len} messages  {elapsed}");
    }
    bar.set_length(total);
    bar.set_position(done);
}

fn target() -> ProgressDrawTarget {
    if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(8)
    } else {
        ProgressDrawTarget::hidden()
    }
}

fn look(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}
