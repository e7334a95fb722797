//! Where the values of a page stand, and whether it matters there what they are.

use super::super::html::{HOLD_URLS, OPAQUE, Piece, Pieces, Tag, begins_entity, decode, may_run};

/// Stands for the unsubscribe URL.
pub(super) const URL: char = '\u{10_0000}';
/// Stands for the first value; those after it follow. Private characters, which are no letters, digits or space.
const FIRST: u32 = 0xf_0000;
/// Most values in a page.
const MOST: usize = 0xf000;

/// Whether it stands, or could stand, for something.
pub(super) fn is_mark(c: char) -> bool {
    u32::from(c) >= FIRST
}

/// What stands for the value of this number.
pub(super) fn mark(number: usize) -> Option<char> {
    if number < MOST { char::from_u32(FIRST + u32::try_from(number).ok()?) } else { None }
}

/// The number of the value that it stands for.
pub(super) fn number(mark: char) -> Option<usize> {
    usize::try_from(u32::from(mark).checked_sub(FIRST)?).ok().filter(|number| *number < MOST)
}

/// Attributes whose values decide on what is seen, or on what is loaded.
const DECIDE: [&str; 4] = ["style", "class", "id", "rel"];
/// Octets of the longest that begins with `<` and is no tag: `<![CDATA[`, or `</` and the name of an opaque element.
const LONGEST: usize = 12;

/// Where the values of a page stand.
#[derive(Default)]
pub(super) struct Places {
    /// Values that neither stand in text nor between quotes, or decide on what is seen: by their numbers, in order.
    pub(super) elsewhere: Vec<usize>,
    /// Values of attributes that lead somewhere, and may run something as far as their fixed part tells.
    pub(super) urls: Vec<String>,
}

impl Places {
    /// None when the unsubscribe URL stands where a value must not.
    pub(super) fn of(shape: &str) -> Option<Self> {
        let mut places = Self::default();
        let mut opaque = None;
        for piece in Pieces::new(shape) {
            match piece {
                Piece::Text(text) => {
                    for (at, mark) in marks(text) {
                        let before = &text[..at];
                        places.take(mark, !near(before).contains('<') && !begins_entity(before))?;
                    }
                }
                Piece::Tag(tag) => {
                    places.tag(shape, &tag)?;
                    opaque = (!tag.closing && tag.is_one_of(&OPAQUE)).then_some(tag.is("style"));
                }
                Piece::Hidden(text) => {
                    let is_safe = |at: usize, after: &str| match opaque {
                        Some(is_style) => !is_style && !near(&text[..at]).contains('<'),
                        None if text.starts_with("<!--") => !first(after, 3).contains('>') && at >= 4,
                        None => (text.starts_with("<!") || text.starts_with("<?")) && at >= LONGEST,
                    };
                    for (at, mark) in marks(text) {
                        places.take(mark, is_safe(at, &text[at + mark.len_utf8()..]))?;
                    }
                    opaque = None;
                }
            }
        }
        places.elsewhere.sort_unstable();
        Some(places)
    }

    fn take(&mut self, mark: char, is_safe: bool) -> Option<()> {
        if !is_safe {
            self.elsewhere.push(number(mark)?);
        }
        Some(())
    }

    fn tag(&mut self, shape: &str, tag: &Tag<'_>) -> Option<()> {
        let source = &shape[tag.span.clone()];
        if !source.contains(is_mark) {
            return Some(());
        }
        let mut quoted = Vec::new();
        for attribute in &tag.attributes {
            if !attribute.value.contains(is_mark) {
                continue;
            }
            let is = |name: &&str| attribute.name.eq_ignore_ascii_case(name);
            let is_quoted = shape[attribute.span.clone()].starts_with(['"', '\'']);
            if !is_quoted || DECIDE.iter().any(is) {
                continue;
            }
            for (at, mark) in marks(attribute.value) {
                self.take(mark, !begins_entity(&attribute.value[..at]))?;
            }
            quoted.push(attribute.span.clone());
            let fixed = attribute.value.split(is_mark).next().unwrap_or_default();
            // The unsubscribe URL runs nothing.
            let is_ours = fixed.is_empty() && attribute.value.starts_with(URL);
            if HOLD_URLS.iter().any(is) && !is_ours && may_run(&decode(fixed)) {
                self.urls.push(attribute.value.to_owned());
            }
        }
        for (at, mark) in marks(source) {
            let at = tag.span.start + at;
            if !quoted.iter().any(|span| span.contains(&at)) {
                self.take(mark, false)?;
            }
        }
        Some(())
    }
}

fn marks(text: &str) -> impl Iterator<Item = (usize, char)> {
    text.char_indices().filter(|(_, c)| is_mark(*c))
}

/// The last octets of it, as many as could begin something that the value after it would go on with.
fn near(before: &str) -> &str {
    &before[before.ceil_char_boundary(before.len().saturating_sub(LONGEST))..]
}

fn first(text: &str, octets: usize) -> &str {
    &text[..text.ceil_char_boundary(octets.min(text.len()))]
}
