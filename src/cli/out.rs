//! Where results and complaints go: the one place that writes to standard output and standard error.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// How often a bar is drawn anew while nothing moves.
const TICK: Duration = Duration::from_millis(200);
/// How far messages have come.
const SENT: &str = "  {bar:32} {percent:>3} %  {pos} of {len} messages  {elapsed}";
/// The same with a few words besides, for which the bar makes room.
const SENT_AND_SAID: &str = "  {bar:8} {percent:>3} %  {pos} of {len}  {elapsed}, {msg}";

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
        look(bar, SENT);
    }
    bar.set_length(total);
    bar.set_position(done);
}

/// Up to 34 columns of words beside how far the messages of [`show_sent`] have come; none takes them away again.
pub(super) fn show_words(bar: &ProgressBar, words: &str) {
    if bar.length().is_none() || bar.message() == words {
        return;
    }
    look(bar, if words.is_empty() { SENT } else { SENT_AND_SAID });
    bar.set_message(words.to_owned());
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;

    /// A terminal of 80 columns that keeps what was last drawn.
    #[derive(Clone, Debug, Default)]
    struct Terminal(Arc<Mutex<String>>);

    impl Terminal {
        fn shows(&self) -> String {
            self.0.lock().unwrap().trim_end().to_owned()
        }
    }

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            80
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.0.lock().unwrap().clear();
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn words_stand_beside_the_bar_and_leave_it_as_it_is_when_there_are_none() {
        let terminal = Terminal::default();
        let bar = message_bar();
        bar.set_draw_target(ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        let shows = || {
            bar.force_draw();
            terminal.shows()
        };
        show_words(&bar, "too early");
        assert!(shows().contains("Gathering the people"), "{}", shows());
        show_sent(&bar, 250_000, 1_000_000);
        let alone = shows();
        assert!(alone.contains(" 25 %  250000 of 1000000 messages  0s"), "{alone}");
        let words = "until 2027-01-31 00:00 UTC, LATE";
        show_words(&bar, words);
        let beside = shows();
        assert!(beside.contains(" 25 %  250000 of 1000000  0s, ") && beside.ends_with(words), "{beside}");
        assert!(beside.chars().count() < 80, "{beside}");
        show_words(&bar, "");
        assert_eq!(shows(), alone);
        bar.finish_and_clear();
    }
}
