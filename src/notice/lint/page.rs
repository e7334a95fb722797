//! The HTML part of a notice as browsers read it: what is seen in it, where it leads, and what it may not hold. Pure.
//!
//! Elements, attributes and styles are those of a list: none of them loads anything, runs anything or hides what stands in
//! it. What is on no list is refused, so all the text outside of `<title>` and comments is text that is seen.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use html5ever::tendril::StrTendril;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{
    BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts,
};

use super::samples::UNESCAPED;
use super::styles::{Look, is_colour};

/// Elements that end no line, and neither load nor hide anything.
const INLINE: [&str; 25] = [
    "a", "abbr", "b", "bdi", "big", "cite", "code", "em", "font", "i", "kbd", "mark", "q", "s", "samp",
    "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr",
];
/// Elements that stand on lines of their own.
const BLOCK: [&str; 42] = [
    "address",
    "article",
    "aside",
    "blockquote",
    "body",
    "br",
    "caption",
    "center",
    "col",
    "colgroup",
    "dd",
    "div",
    "dl",
    "dt",
    "footer",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "head",
    "header",
    "hr",
    "html",
    "li",
    "main",
    "meta",
    "nav",
    "ol",
    "p",
    "pre",
    "section",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "title",
    "tr",
    "ul",
];
/// Elements that have no end.
const VOID: [&str; 5] = ["br", "col", "hr", "meta", "wbr"];
/// Attributes of any element that neither load nor hide anything; `style` and colours are looked into.
const ATTRIBUTES: [&str; 35] = [
    "abbr",
    "align",
    "aria-describedby",
    "aria-label",
    "aria-labelledby",
    "bgcolor",
    "border",
    "cellpadding",
    "cellspacing",
    "class",
    "color",
    "colspan",
    "datetime",
    "dir",
    "face",
    "headers",
    "height",
    "id",
    "lang",
    "name",
    "nowrap",
    "rel",
    "reversed",
    "role",
    "rowspan",
    "scope",
    "span",
    "start",
    "style",
    "summary",
    "target",
    "title",
    "type",
    "valign",
    "width",
];
/// Elements that fetch something when the message is opened.
const LOADING: [&str; 13] = [
    "audio", "embed", "frame", "iframe", "image", "img", "input", "link", "object", "picture", "source",
    "svg", "video",
];

/// What stands in an HTML part.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The text that is seen, a space or more where a line ends.
    pub(super) text: String,
    /// Where links lead, as they are read.
    pub(super) links: Vec<Link>,
    /// What it may not hold, each once.
    pub(super) refused: Vec<String>,
}

/// A link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) href: String,
    /// Whether there is text to follow it by.
    pub(super) is_seen: bool,
}

/// Reads the HTML of a brand of this colour.
pub(super) fn read(html: &str, brand_colour: Option<&str>) -> Page {
    let reading = Reading { brand: Look::of_button(brand_colour), ..Reading::default() };
    let tokenizer = Tokenizer::new(Sink(RefCell::new(reading)), TokenizerOpts::default());
    let queue = BufferQueue::default();
    queue.push_back(StrTendril::from(html));
    // What is asked of it while it reads is asked of scripts alone.
    let _ = tokenizer.feed(&queue);
    tokenizer.end();
    tokenizer.sink.0.into_inner().page
}

/// What stands for the beginning or the end of a condition, which no text needs.
pub(super) const MARK: char = '\u{e000}';
/// How markup begins that a condition must not divide.
const BEGINNINGS: [&str; 4] = ["<", "</", "<!", "<!-"];

/// Whether a condition begins or ends inside of a tag or a comment: what is sent might then be a tag that stands in no
/// branch by itself.
pub(super) fn is_torn(marked: &str) -> bool {
    let divided = BEGINNINGS.iter().any(|begun| marked.contains(&format!("{begun}{MARK}")));
    let tokenizer = Tokenizer::new(Torn::default(), TokenizerOpts::default());
    let queue = BufferQueue::default();
    queue.push_back(StrTendril::from(marked));
    // It ends whatever was left open, which would not be read at all.
    queue.push_back(StrTendril::from("\"'>-->"));
    let _ = tokenizer.feed(&queue);
    tokenizer.end();
    divided || tokenizer.sink.0.get()
}

/// Whether a mark was read elsewhere than in text.
#[derive(Default)]
struct Torn(Cell<bool>);

impl TokenSink for Torn {
    type Handle = ();

    fn process_token(&self, token: Token, _: u64) -> TokenSinkResult<()> {
        let holds = match &token {
            Token::TagToken(tag) => {
                let mut attributes = tag.attrs.iter();
                tag.name.contains(MARK)
                    || attributes.any(|a| a.name.local.contains(MARK) || a.value.contains(MARK))
            }
            Token::CommentToken(text) => text.contains(MARK),
            _ => false,
        };
        self.0.set(self.0.get() || holds);
        TokenSinkResult::Continue
    }
}

struct Sink(RefCell<Reading>);

impl TokenSink for Sink {
    type Handle = ();

    fn process_token(&self, token: Token, _: u64) -> TokenSinkResult<()> {
        self.0.borrow_mut().take(token)
    }
}

/// A page that is being read.
#[derive(Default)]
struct Reading {
    page: Page,
    seen: BTreeSet<String>,
    /// The open elements and how text in each looks, the innermost last.
    open: Vec<(String, Look)>,
    /// Whether a link is open, as the last of the page.
    in_link: bool,
    in_title: bool,
    /// How the layout shows a button.
    brand: Look,
    is_document: bool,
}

impl Reading {
    fn refuse(&mut self, finding: String) {
        if self.seen.insert(finding.clone()) {
            self.page.refused.push(finding);
        }
    }

    fn look(&self) -> Look {
        self.open.last().map(|(_, look)| *look).unwrap_or_default()
    }

    fn take(&mut self, token: Token) -> TokenSinkResult<()> {
        match token {
            Token::TagToken(tag) if tag.kind == TagKind::StartTag => return self.begin(&tag),
            Token::TagToken(tag) => self.end(&tag.name),
            Token::CharacterTokens(text) => self.say(&text),
            Token::CommentToken(text) => {
                let text = text.to_ascii_lowercase();
                if text.contains("[if") || text.contains("[endif") {
                    self.refuse(
                        "it holds a comment with [if], which some programs show and others do not; take it out".into(),
                    );
                }
            }
            _ => {}
        }
        TokenSinkResult::Continue
    }

    fn say(&mut self, text: &str) {
        if self.in_title {
            return;
        }
        self.page.text.push_str(text);
        if text.trim().is_empty() {
            return;
        }
        if let Some(link) = self.page.links.last_mut().filter(|_| self.in_link) {
            link.is_seen = true;
        }
        if !self.look().is_readable() {
            let words: String = text.trim().chars().take(40).collect();
            self.refuse(format!(
                "it shows {words:?} nearly in the colour of its ground; choose another colour"
            ));
        }
    }

    fn end(&mut self, name: &str) {
        if BLOCK.contains(&name) {
            self.page.text.push(' ');
        }
        match name {
            "a" => self.in_link = false,
            "title" => self.in_title = false,
            _ => {}
        }
        if let Some(at) = self.open.iter().rposition(|(open, _)| open == name) {
            self.open.truncate(at);
        }
    }

    fn begin(&mut self, tag: &Tag) -> TokenSinkResult<()> {
        let name: &str = &tag.name;
        if BLOCK.contains(&name) {
            self.page.text.push(' ');
        }
        if !BLOCK.contains(&name) && !INLINE.contains(&name) {
            self.refuse(not_allowed(name));
            return TokenSinkResult::Continue;
        }
        self.is_document |= name == "html";
        let of =
            |wanted: &str| tag.attrs.iter().find(|a| &*a.name.local == wanted).map(|a| a.value.to_string());
        let mut look = self.look();
        if name == "a" {
            look = look.of_link();
        }
        let classes = of("class").unwrap_or_default();
        if classes.split_ascii_whitespace().any(|class| class == "button") && !self.is_document {
            look = self.brand.sized(look);
        }
        for attribute in &tag.attrs {
            let (attribute, value) = (&*attribute.name.local, &*attribute.value);
            if let Err(finding) = checked(name, attribute, value, &mut look) {
                self.refuse(finding);
            }
        }
        match (name, of("href")) {
            ("a", Some(href)) => {
                self.page.links.push(Link { href, is_seen: false });
                self.in_link = true;
            }
            ("a", None) => self.in_link = false,
            _ => {}
        }
        if !VOID.contains(&name) {
            self.open.push((name.to_owned(), look));
        }
        self.in_title |= name == "title";
        match name {
            "title" => TokenSinkResult::RawData(RawKind::Rcdata),
            _ => TokenSinkResult::Continue,
        }
    }
}

/// Holds an attribute to what may stand there, and works out how text then looks.
fn checked(name: &str, attribute: &str, value: &str, look: &mut Look) -> Result<(), String> {
    match (name, attribute) {
        (_, "style") => *look = look.styled(value).map_err(|what| in_style(name, &what))?,
        (_, "bgcolor" | "color") => {
            let property = if attribute == "color" { "color" } else { "background-color" };
            if !is_colour(value) {
                return Err(format!("its {attribute}={value:?} is no plain colour; write it as #rrggbb"));
            }
            *look = look.styled(&format!("{property}:{value}")).map_err(|what| in_style(name, &what))?;
        }
        ("a", "href") => {}
        ("html", "xmlns" | "xmlns:v" | "xmlns:o" | "xml:lang") => {}
        ("meta", "charset" | "content") => {}
        ("meta", "http-equiv") if value.eq_ignore_ascii_case("content-type") => {}
        ("meta", "http-equiv") if value.eq_ignore_ascii_case("x-ua-compatible") => {}
        (_, attribute) if ATTRIBUTES.contains(&attribute) => {}
        _ => {
            return Err(format!(
                "its <{name}> has {attribute}, which can load, run or hide something; take it out"
            ));
        }
    }
    Ok(())
}

fn in_style(name: &str, what: &str) -> String {
    format!("the style of its <{name}> has {what}, which can hide or load something; take it out")
}

fn not_allowed(name: &str) -> String {
    if name == UNESCAPED {
        return "it writes a value as it is, which may hold anything; put it in two braces, {{ }}, and not in three"
            .to_owned();
    }
    let why = match name {
        _ if LOADING.contains(&name) => {
            "which loads images or other things, and what is loaded can track; the brand's logo is shown by itself"
        }
        "script" => "a program, which can track; mail needs none",
        "style" => "which can hide and load things; write styles at the elements, as style=\"…\"",
        _ => "which is not for notices; write it with headings, paragraphs, lists, tables and links",
    };
    format!("it holds <{name}>, {why}; take it out")
}
