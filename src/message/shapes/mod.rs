//! Pages judged by their shape: what a page shows, where its footer goes and what in it is defused is worked out once
//! for all messages that differ in escaped values alone.
//!
//! A shape is what a template says with a mark in the place of each value. It is judged as a page is; the outcome, cut at
//! the marks, then makes the page of every message of that shape. An escaped value holds neither tags nor quotes, so in
//! text and between quotes it cannot change how the rest is read; [`places`] says where values stand, and those that
//! stand elsewhere, or in what decides on sight, are part of the shape. So is whether a value is empty or is the
//! unsubscribe URL. Whatever is not known to be safe is judged afresh: it promises, for all data, the page that
//! [`afresh`] makes, and never keeps more than a bound.

mod places;

use std::collections::HashMap;
use std::mem::discriminant;
use std::sync::{Arc, PoisonError, RwLock};

use super::ComposeError;
use super::footing::{self, Kept, Must, Seen, Sight};
use super::html::{decode, defuse_urls, runs};
use super::template::program::{Piece, is_plain};
use places::{Places, URL, mark};

/// Most octets of shapes that are kept for a content, about; then it starts afresh.
const MAX_KEPT: usize = 512 * 1024;

/// Makes a page of what a template said, as if there were no shapes.
pub(super) fn afresh(html: String, must: Option<&Must<'_>>) -> Result<String, ComposeError> {
    let html = defuse_urls(html);
    match must {
        Some(must) => must.complete_html(html),
        None => Ok(html),
    }
}

/// The shapes of one content for one brand and topic.
#[derive(Default)]
pub(super) struct Shapes(RwLock<Known>);

#[derive(Default)]
struct Known {
    shapes: HashMap<Box<[u8]>, Shape>,
    octets: usize,
}

#[derive(Clone)]
enum Shape {
    /// Came once; what comes once often never comes again.
    Once,
    /// Judged afresh each time.
    Odd,
    /// The values of these numbers are part of it.
    With(Arc<[usize]>),
    Judged(Arc<Judged>),
    /// What pages are made of.
    Page(Arc<[Part]>),
}

/// What is known of a shape.
struct Judged {
    has_link: bool,
    /// The text in which an address would be seen.
    text: Vec<SeenPart>,
    /// Whether the footer must hold against style sheets, and then whether these know the night.
    hard: Option<bool>,
    /// What leads somewhere and begins with a value.
    urls: Vec<Vec<Part>>,
}

/// A part of a shape.
enum Part {
    Text(Box<str>),
    /// The value of this number.
    Value(usize),
    Url,
}

enum SeenPart {
    Text(Kept),
    Value(usize),
    Url,
}

/// What a piece is in a shape.
#[derive(Clone, Copy)]
enum Sort<'p> {
    Fixed(u32, &'p str),
    Verbatim(&'p str),
    Empty,
    Url,
    Value(&'p str),
}

impl<'p> Sort<'p> {
    fn of(piece: &'p Piece<'_>, url: &str) -> Self {
        let text = piece.as_str();
        match piece {
            Piece::Fixed(number, _) => Self::Fixed(*number, text),
            _ if text.is_empty() => Self::Empty,
            _ if text == url => Self::Url,
            Piece::Value(_) if !text.trim().is_empty() => Self::Value(text),
            _ => Self::Verbatim(text),
        }
    }

    fn value(&self) -> Option<&'p str> {
        match self {
            Self::Value(text) => Some(text),
            _ => None,
        }
    }
}

/// One message's page in the making.
struct Making<'p> {
    sorts: Vec<Sort<'p>>,
    values: Vec<&'p str>,
    must: Option<&'p Must<'p>>,
}

impl Shapes {
    /// The page that a template's pieces make.
    ///
    /// # Errors
    /// Those of [`afresh`].
    pub(super) fn page(&self, pieces: &[Piece<'_>], must: Option<&Must<'_>>) -> Result<String, ComposeError> {
        let url = must.map_or("", |must| must.url);
        if is_plain(url) {
            let sorts: Vec<Sort<'_>> = pieces.iter().map(|piece| Sort::of(piece, url)).collect();
            let values = sorts.iter().filter_map(Sort::value).collect();
            let making = Making { sorts, values, must };
            if let Some(page) = self.shaped(&making) {
                return Ok(page);
            }
        }
        afresh(pieces.iter().map(Piece::as_str).collect(), must)
    }

    /// None when it must be made afresh.
    fn shaped(&self, making: &Making<'_>) -> Option<String> {
        let mut key = making.key();
        let mut with: Arc<[usize]> = Arc::default();
        let judged = loop {
            match self.get_or(&key, || making.judge(&with))? {
                Shape::Judged(judged) => break judged,
                Shape::With(more) if with.is_empty() => {
                    key.push(TAG_WITH);
                    more.iter().for_each(|number| push_text(&mut key, making.values[*number]));
                    with = more;
                }
                _ => return None,
            }
        };
        if judged.urls.iter().any(|url| runs(&making.written(url))) {
            return None;
        }
        let has_address = making.shows_address(&judged);
        let complete = has_address && judged.has_link || making.must.is_none();
        let hard = judged.hard.map(|night| night || footing::knows_night(&making.rendered()));
        let hard = hard.filter(|_| !complete);
        let language = making.must.map_or(0, |must| must.language as u8);
        key.extend([TAG_PAGE, has_address.into(), hard.map_or(2, u8::from), language]);
        match self.get_or(&key, || making.draw(&with, &judged, complete, has_address, hard))? {
            Shape::Page(parts) => Some(making.written(&parts)),
            _ => None,
        }
    }

    /// What is known under this key, or else found out when it comes again.
    fn get_or(&self, key: &[u8], find_out: impl FnOnce() -> Shape) -> Option<Shape> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).shapes.get(key).cloned();
        let shape = match known {
            None => Shape::Once,
            Some(Shape::Once) => find_out(),
            known => return known,
        };
        let octets = key.len() + shape.octets();
        let (shape, octets) = if octets > MAX_KEPT / 2 { (Shape::Odd, key.len()) } else { (shape, octets) };
        // A panic while it is written leaves at worst a shape less.
        let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if kept.octets + octets > MAX_KEPT {
            *kept = Known::default();
        }
        if kept.shapes.get(key).map(discriminant) != Some(discriminant(&shape)) {
            kept.octets += octets;
            kept.shapes.insert(key.into(), shape.clone());
        }
        Some(shape)
    }
}

impl Shape {
    fn octets(&self) -> usize {
        let of = |parts: &[Part]| parts.iter().map(Part::octets).sum::<usize>();
        64 + match self {
            Self::Once | Self::Odd => 0,
            Self::With(numbers) => size_of_val(&**numbers),
            Self::Page(parts) => of(parts),
            Self::Judged(judged) => {
                let text: usize = judged.text.iter().map(SeenPart::octets).sum();
                text + judged.urls.iter().map(|url| of(url)).sum::<usize>()
            }
        }
    }
}

impl Part {
    fn octets(&self) -> usize {
        let Self::Text(text) = self else { return size_of::<Self>() };
        size_of::<Self>() + text.len()
    }
}

impl SeenPart {
    fn octets(&self) -> usize {
        let Self::Text(text) = self else { return size_of::<Self>() };
        size_of::<Self>() + text.octets()
    }
}

/// What follows in a key; no other octet stands where one of these does.
const TAG_FIXED: u8 = 1;
const TAG_VERBATIM: u8 = 2;
const TAG_EMPTY: u8 = 3;
const TAG_URL: u8 = 4;
const TAG_VALUE: u8 = 5;
const TAG_WITH: u8 = 6;
const TAG_PAGE: u8 = 7;

fn push_text(key: &mut Vec<u8>, text: &str) {
    key.extend(text.len().to_le_bytes());
    key.extend(text.as_bytes());
}

impl Making<'_> {
    fn key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.sorts.len() * 5 + 8);
        for sort in &self.sorts {
            match sort {
                Sort::Fixed(number, _) => {
                    key.push(TAG_FIXED);
                    key.extend(number.to_le_bytes());
                }
                Sort::Verbatim(text) => {
                    key.push(TAG_VERBATIM);
                    push_text(&mut key, text);
                }
                Sort::Empty => key.push(TAG_EMPTY),
                Sort::Url => key.push(TAG_URL),
                Sort::Value(_) => key.push(TAG_VALUE),
            }
        }
        key
    }

    /// The shape with a mark for each value but those in `with`; none when it holds what would be taken for a mark.
    fn marked(&self, with: &[usize]) -> Option<String> {
        let mut shape = String::new();
        let mut number = 0;
        for sort in &self.sorts {
            match sort {
                Sort::Value(text) => {
                    if with.contains(&number) {
                        shape.push_str(unmarked(text)?);
                    } else {
                        shape.push(mark(number)?);
                    }
                    number += 1;
                }
                Sort::Fixed(_, text) | Sort::Verbatim(text) => shape.push_str(unmarked(text)?),
                Sort::Url => shape.push(URL),
                Sort::Empty => {}
            }
        }
        Some(shape)
    }

    fn judge(&self, with: &Arc<[usize]>) -> Shape {
        self.judged(with).unwrap_or(Shape::Odd)
    }

    fn judged(&self, with: &Arc<[usize]>) -> Option<Shape> {
        let shape = self.marked(with)?;
        let Places { elsewhere, urls } = Places::of(&shape)?;
        if !elsewhere.is_empty() {
            return with.is_empty().then(|| Shape::With(elsewhere.into()));
        }
        if defuse_urls(shape.clone()) != shape {
            return None;
        }
        let urls = urls.iter().map(|url| parts(url)).collect();
        let Some(must) = self.must else {
            return Some(Shape::Judged(Arc::new(Judged {
                has_link: true,
                text: Vec::new(),
                hard: None,
                urls,
            })));
        };
        let sight = Sight::of(&shape, URL.encode_utf8(&mut [0; 4]));
        let text = if sight.trusted { &sight.text } else { "" };
        let text = parts(text).into_iter().map(|part| match part {
            Part::Text(text) => SeenPart::Text(must.address.keep(&text)),
            Part::Value(number) => SeenPart::Value(number),
            Part::Url => SeenPart::Url,
        });
        let hard = sight.asks_for_a_hard_footer(&shape).then(|| footing::knows_night(&shape));
        Some(Shape::Judged(Arc::new(Judged { has_link: sight.has_link, text: text.collect(), hard, urls })))
    }

    fn shows_address(&self, judged: &Judged) -> bool {
        let Some(must) = self.must else { return false };
        must.address.stands_in_all(judged.text.iter().map(|part| match part {
            SeenPart::Text(kept) => Seen::Kept(kept),
            // Decoded, as all text that is seen.
            SeenPart::Value(number) => Seen::New(decode(self.values[*number])),
            SeenPart::Url => Seen::New(must.url.into()),
        }))
    }

    /// The shape with what it lacks.
    fn draw(
        &self,
        with: &[usize],
        judged: &Judged,
        complete: bool,
        has_address: bool,
        hard: Option<bool>,
    ) -> Shape {
        self.drawn(with, judged, complete, has_address, hard).map_or(Shape::Odd, Shape::Page)
    }

    fn drawn(
        &self,
        with: &[usize],
        judged: &Judged,
        complete: bool,
        has_address: bool,
        hard: Option<bool>,
    ) -> Option<Arc<[Part]>> {
        let shape = self.marked(with)?;
        let must = match self.must {
            Some(must) if !complete => must,
            _ => return Some(parts(&shape).into()),
        };
        let url = URL.to_string();
        let footer = must.html_footer(&url, (judged.has_link, has_address), hard).ok()?;
        // Names may hold anything.
        if footer.matches(places::is_mark).count() != usize::from(!judged.has_link) {
            return None;
        }
        let sheets = Sight::of(&shape, &url).sheets;
        Some(parts(&footing::insert(shape, &url, &sheets, &footer).ok()?).into())
    }

    fn rendered(&self) -> String {
        let text = |sort: &Sort<'_>| match sort {
            Sort::Fixed(_, text) | Sort::Verbatim(text) | Sort::Value(text) => (*text).to_owned(),
            Sort::Empty => String::new(),
            Sort::Url => self.must.map_or_else(String::new, |must| must.url.to_owned()),
        };
        self.sorts.iter().map(text).collect()
    }

    fn written(&self, parts: &[Part]) -> String {
        let url = self.must.map_or("", |must| must.url);
        let texts: Vec<&str> = parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => &**text,
                Part::Value(number) => self.values[*number],
                Part::Url => url,
            })
            .collect();
        texts.concat()
    }
}

/// The text itself, when it holds no mark.
fn unmarked(text: &str) -> Option<&str> {
    (!text.contains(places::is_mark)).then_some(text)
}

/// Cuts it at the marks.
fn parts(marked: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut from = 0;
    for (at, found) in marked.match_indices(places::is_mark) {
        if from < at {
            parts.push(Part::Text(marked[from..at].into()));
        }
        parts.push(found.chars().next().and_then(places::number).map_or(Part::Url, Part::Value));
        from = at + found.len();
    }
    if from < marked.len() {
        parts.push(Part::Text(marked[from..].into()));
    }
    parts
}

#[cfg(test)]
pub(super) mod tests;
