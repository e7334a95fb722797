//! The elements of a template, and whether their nesting is the same however its blocks turn out.

use super::flat::{CLOSE, Flat, OPEN};
use crate::message::html::{Attribute, ENDS_PARAGRAPH, Piece, Pieces, Tag, VOID};
use crate::message::template::scan::Kind;

/// A start tag of the template.
pub(super) struct Element<'f> {
    pub(super) tag: Tag<'f>,
    /// Whether a person's data decides on its classes or on which attributes it has.
    pub(super) is_dynamic: bool,
    /// Whether its data decides on which attributes it has: then none can be added.
    pub(super) is_closed: bool,
}

impl Element<'_> {
    /// Its name, without a tag of the template that follows it at once: `<tr{{#if data.x}} class="a"{{/if}}>`.
    pub(super) fn name(&self) -> &str {
        bare(self.tag.name)
    }

    fn new(tag: Tag<'_>) -> Element<'_> {
        let marked = |text: &str| text.contains([OPEN, CLOSE]);
        let quoted = |a: &Attribute<'_>| a.span.len() != a.value.len();
        let is_closed = marked(tag.name)
            || tag.attributes.iter().any(|a| marked(a.name) || marked(a.value) && !quoted(a));
        let names =
            |a: &Attribute<'_>| a.name.eq_ignore_ascii_case("class") || a.name.eq_ignore_ascii_case("id");
        let is_dynamic = is_closed || tag.attributes.iter().any(|a| names(a) && marked(a.value));
        Element { tag, is_dynamic, is_closed }
    }
}

fn bare(name: &str) -> &str {
    name.split(OPEN).next().unwrap_or(name)
}

/// What was read of a template.
pub(super) struct Elements<'f> {
    pub(super) all: Vec<Element<'f>>,
    /// Start tags by their place in `all`, and end tags by their name, in order.
    pub(super) order: Vec<Step<'f>>,
    /// What stands in its `<style>` elements, and whether it does so on no condition.
    pub(super) sheets: Vec<(&'f str, bool)>,
    /// Why the nesting depends on how its blocks turn out, if it does.
    pub(super) unsettled: Option<&'static str>,
}

/// A step through the text.
pub(super) enum Step<'f> {
    Start(usize),
    End(&'f str),
}

/// Reads the elements of a template from front to back.
pub(super) fn read<'f>(flat: &'f Flat<'_>) -> Elements<'f> {
    let mut reader = Reader {
        flat,
        found: Elements { all: Vec::new(), order: Vec::new(), sheets: Vec::new(), unsettled: None },
        open: Vec::new(),
        blocks: Vec::new(),
    };
    let mut sheet: Option<bool> = None;
    for piece in Pieces::new(&flat.text) {
        match piece {
            Piece::Text(text) => reader.blocks_of(text),
            Piece::Hidden(text) => {
                if let Some(plain) = sheet.take() {
                    let sure = plain && reader.blocks.is_empty();
                    reader.found.sheets.push((text, sure));
                }
                reader.whole(text);
            }
            Piece::Tag(tag) => {
                reader.whole(&flat.text[tag.span.clone()]);
                if !tag.closing && tag.is("style") {
                    sheet = Some(tag.attributes.is_empty() || tag.attributes.iter().all(is_type));
                }
                reader.element(tag);
            }
        }
    }
    if !reader.blocks.is_empty() {
        reader.found.unsettled = Some("a block is not closed");
    }
    reader.found
}

fn is_type(attribute: &Attribute<'_>) -> bool {
    attribute.name.eq_ignore_ascii_case("type") && attribute.value.eq_ignore_ascii_case("text/css")
}

struct Reader<'f, 's> {
    flat: &'f Flat<'s>,
    found: Elements<'f>,
    /// The elements that are open, by name.
    open: Vec<&'f str>,
    /// For each open block how many elements were open when it began.
    blocks: Vec<usize>,
}

impl<'f> Reader<'f, '_> {
    /// The blocks that begin and end in a piece of text.
    fn blocks_of(&mut self, text: &'f str) {
        for (kind, _) in self.flat.tags_in(text) {
            let began = self.blocks.last().copied();
            match kind {
                Kind::Open => self.blocks.push(self.open.len()),
                Kind::Else | Kind::Close => {
                    if began != Some(self.open.len()) {
                        self.found.unsettled =
                            Some("an element begins or ends inside of a block, but not both");
                    }
                    if kind == Kind::Close {
                        self.blocks.pop();
                    }
                }
                Kind::Value | Kind::Comment => {}
            }
        }
    }

    /// A tag or a comment: blocks that begin inside of it must end there.
    fn whole(&mut self, text: &'f str) {
        let mut depth = 0_usize;
        for (kind, _) in self.flat.tags_in(text) {
            match kind {
                Kind::Open => depth += 1,
                Kind::Else | Kind::Close if depth == 0 => {
                    self.found.unsettled = Some("a block ends inside of a tag")
                }
                Kind::Close => depth -= 1,
                _ => {}
            }
        }
        if depth > 0 {
            self.found.unsettled = Some("a block begins inside of a tag");
        }
    }

    fn element(&mut self, tag: Tag<'f>) {
        if self.flat.tags_in(tag.name).next().is_some_and(|(kind, _)| kind == Kind::Value) {
            self.found.unsettled = Some("data decides on the name of an element");
        }
        let name = bare(tag.name);
        let is = |other: &&str| other.eq_ignore_ascii_case(name);
        if tag.closing {
            let began = self.blocks.last().copied().unwrap_or(0);
            if let Some(at) = self.open.iter().rposition(is) {
                if at < began {
                    self.found.unsettled = Some("an element ends inside of a block and begins before it");
                }
                self.open.truncate(at);
            }
            self.found.order.push(Step::End(name));
            return;
        }
        let ends_paragraph = ENDS_PARAGRAPH.iter().chain(&["table"]).any(is);
        let paragraph = self.open.iter().rposition(|open| open.eq_ignore_ascii_case("p"));
        if ends_paragraph && paragraph.is_some_and(|at| self.blocks.last().is_some_and(|began| at < *began)) {
            self.found.unsettled = Some("a paragraph ends inside of a block and begins before it");
        }
        if ends_paragraph && paragraph.is_some_and(|at| at + 1 == self.open.len()) {
            self.open.pop();
        }
        if !VOID.iter().any(is) {
            self.open.push(name);
        }
        self.found.order.push(Step::Start(self.found.all.len()));
        self.found.all.push(Element::new(tag));
    }
}
