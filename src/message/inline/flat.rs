//! A template and all that it includes as one text, in which each tag is a mark, and from which the way back to the
//! sources is known.

use std::collections::BTreeMap;

use crate::message::template::scan::{Kind, scan};

/// Around the number of a tag; private characters.
pub(super) const OPEN: char = '\u{e000}';
pub(super) const CLOSE: char = '\u{e001}';
/// Longest text in octets.
const MAX_OCTETS: usize = 1024 * 1024;
/// How deep templates may include others: more than compiling allows.
const MAX_DEEP: usize = 16;

/// A place in one of the sources: its name (the first is empty) and the offset.
pub(super) type Origin<'s> = (&'s str, usize);

/// The text, and where it comes from.
pub(super) struct Flat<'s> {
    /// All text, each tag as its number between [`OPEN`] and [`CLOSE`].
    pub(super) text: String,
    /// What each tag does, and how it is spelt.
    pub(super) tags: Vec<(Kind, &'s str)>,
    /// From which offset on the text stands where.
    runs: Vec<(usize, Origin<'s>)>,
}

impl<'s> Flat<'s> {
    /// Puts everything in place. None for what can only be told by rendering it, and for what is far too large.
    pub(super) fn new(main: &'s str, partials: &BTreeMap<&'s str, &'s str>) -> Option<Self> {
        let mut flat = Self { text: String::new(), tags: Vec::new(), runs: Vec::new() };
        flat.add("", main, partials, 0)?;
        Some(flat)
    }

    fn add(
        &mut self,
        name: &'s str,
        source: &'s str,
        partials: &BTreeMap<&'s str, &'s str>,
        deep: usize,
    ) -> Option<()> {
        if deep > MAX_DEEP || source.contains([OPEN, CLOSE]) {
            return None;
        }
        let mut from = 0;
        for tag in scan(source).ok()? {
            self.literal(name, from, &source[from..tag.span.start])?;
            from = tag.span.end;
            let spelt = &source[tag.span];
            let inner = spelt.trim_matches(['{', '}', '~', ' ', '\t', '\r', '\n']);
            match inner.strip_prefix('>') {
                Some(partial) if tag.kind == Kind::Value => {
                    let partial = partial.trim().trim_matches(['"', '\'']);
                    let (partial, html) = partials.get_key_value(partial)?;
                    self.add(partial, html, partials, deep + 1)?;
                }
                _ if tag.kind == Kind::Comment => {}
                _ => {
                    self.text.push_str(&format!("{OPEN}{}{CLOSE}", self.tags.len()));
                    self.tags.push((tag.kind, spelt));
                }
            }
        }
        self.literal(name, from, &source[from..])
    }

    fn literal(&mut self, name: &'s str, at: usize, text: &str) -> Option<()> {
        self.runs.push((self.text.len(), (name, at)));
        self.text.push_str(text);
        (self.text.len() <= MAX_OCTETS).then_some(())
    }

    /// Where the character at this offset, which is part of no mark, comes from.
    pub(super) fn origin(&self, at: usize) -> Origin<'s> {
        let run = self.runs.partition_point(|(start, _)| *start <= at).saturating_sub(1);
        self.runs.get(run).map_or(("", 0), |(start, (name, from))| (name, from + (at - start)))
    }

    /// The tags of this piece of the text, in order.
    pub(super) fn tags_in<'f>(&'f self, piece: &'f str) -> impl Iterator<Item = (Kind, &'s str)> + 'f {
        let numbers =
            piece.split(OPEN).skip(1).filter_map(|rest| rest.split_once(CLOSE)?.0.parse::<usize>().ok());
        numbers.filter_map(|number| self.tags.get(number).copied())
    }

    /// A piece of the text with its tags as they were spelt.
    pub(super) fn spelt(&self, piece: &str) -> String {
        let mut parts = piece.split(OPEN);
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (number, rest) = part.split_once(CLOSE).unwrap_or(("", part));
            let tag = number.parse::<usize>().ok().and_then(|number| self.tags.get(number));
            text.push_str(tag.map_or("", |(_, spelt)| spelt));
            text.push_str(rest);
        }
        text
    }

    /// Whether every tag of this piece is one of the layout's own values, such as `{{@accent}}`: the same everywhere in
    /// a message, and nothing that must be escaped.
    pub(super) fn is_fixed(&self, piece: &str) -> bool {
        const FIXED: [&str; 4] = ["{{@accent}}", "{{@on_accent}}", "{{@link}}", "{{@link_dark}}"];
        self.tags_in(piece).all(|(_, spelt)| FIXED.contains(&spelt))
    }
}
