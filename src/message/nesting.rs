//! Which elements may be open at a place in HTML.
//!
//! It promises: an element that a browser holds open there is among them, however badly the tags are nested. An end tag
//! that a browser may ignore closes nothing, so it may name one that has ended. One pass, no recursion, never fails.

use super::hiding::is_root;
use super::html::{ENDS_PARAGRAPH, Tag, VOID};

/// Elements that end by themselves where one that holds them ends (HTML §13.2.6.3).
const IMPLIED: [&str; 4] = ["p", "li", "dt", "dd"];
/// The parts of a table, which end where one before them or the table ends: a cell with its row, a row with its group.
const PARTS: [&str; 6] = ["td", "th", "tr", "tbody", "thead", "tfoot"];
/// Elements that go on in what follows when others end around them (HTML §13.2.4.3).
const FORMATTING: [&str; 14] =
    ["a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u"];
/// The elements that may be open, outermost first, their names in lower case. `<html>` and `<body>` are not counted.
#[derive(Debug, Default)]
pub(super) struct Nesting {
    open: Vec<String>,
}

impl Nesting {
    /// Takes in a tag; whether it opened an element, which then is the innermost.
    pub(super) fn take(&mut self, tag: &Tag<'_>) -> bool {
        let name = tag.name.to_ascii_lowercase();
        if is_root(tag) {
            if name == "body" && self.open.last().is_some_and(|open| open == "head") {
                self.open.pop();
            }
            return false;
        }
        if tag.closing {
            self.end(&name);
            return false;
        }
        self.make_way(&name);
        let opens = !VOID.contains(&name.as_str());
        if opens {
            self.open.push(name);
        }
        opens
    }

    /// How many may be open.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Their names, innermost first.
    pub(super) fn inside_out(&self) -> impl Iterator<Item = &str> {
        self.open.iter().rev().map(String::as_str)
    }

    /// Whether what stands here may be no HTML but a drawing or a formula.
    pub(super) fn is_foreign(&self) -> bool {
        self.open.iter().any(|name| name == "svg" || name == "math")
    }

    fn end(&mut self, name: &str) {
        let parts = match name {
            "table" => &PARTS[..],
            "tbody" | "thead" | "tfoot" => &PARTS[..3],
            "tr" => &PARTS[..2],
            _ => &[],
        };
        let ends = |open: &str| IMPLIED.contains(&open) || parts.contains(&open);
        let last = self.open.len();
        if FORMATTING.contains(&name) {
            if self.open.last().is_some_and(|open| open == name) {
                self.open.pop();
            }
            return;
        }
        let at = (0..last).rev().find(|at| self.open[*at] == name || !ends(&self.open[*at]));
        if let Some(at) = at.filter(|at| self.open[*at] == name) {
            self.open.truncate(at);
        }
    }

    /// Ends what a start tag ends, where nothing but paragraphs stands between.
    fn make_way(&mut self, name: &str) {
        let ended: &[&str] = match name {
            "li" => &["li"],
            "dt" | "dd" => &["dt", "dd"],
            "td" | "th" => &["td", "th"],
            "tr" => &["td", "th", "tr"],
            _ if ENDS_PARAGRAPH.contains(&name) => &["p"],
            _ => return,
        };
        loop {
            let kept = self.open.iter().rposition(|open| open != "p").map_or(0, |at| at + 1);
            let is_ended = |open: &String| ended.contains(&open.as_str());
            if self.open.last().is_some_and(is_ended) {
                self.open.pop();
            } else if kept > 0 && is_ended(&self.open[kept - 1]) {
                self.open.truncate(kept - 1);
            } else {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::html::{Piece, Pieces};

    fn open(html: &str) -> String {
        let mut nesting = Nesting::default();
        for piece in Pieces::new(html) {
            if let Piece::Tag(tag) = piece {
                nesting.take(&tag);
            }
        }
        nesting.inside_out().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_a_browser_may_hold_open_is_open() {
        for (html, expected) in [
            ("<html><head></head><body><div><p>a<p>b</div>", ""),
            ("<head><title></title><body>", ""),
            ("<ul><li>a<li><p>b</ul><br><img>", ""),
            ("<table><tr><td>a<td>b<tr><td>c</table>", ""),
            ("<dl><dt>a<dd>b</dl>", ""),
            ("<TABLE><tr><td></div>", "td tr table"),
            // A browser ignores this end of a division: it stands in a cell.
            ("<div><table><tr><td></div>", "td tr table div"),
            // Letters that are bold stay so in the next paragraph.
            ("<p><b>a</p>", "b p"),
            // The paragraph goes on after the bold letters.
            ("<b><p>a</b>", "p b"),
            ("<div></div></div></span>", ""),
            ("<p>a<div>b", "div"),
        ] {
            assert_eq!(open(html), expected, "{html}");
        }
    }
}
