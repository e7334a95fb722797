//! The text part of a template that has none, made from its HTML once, when the content is frozen.
//!
//! The tags of the template stay, in their order, so that the text says what the HTML says to each person. html2text
//! lays the page out; where it moves or loses a tag, as with blocks around the rows of a table, a plainer way is taken
//! that reads the HTML from front to back.

use html2text::config;
use html2text::render::{TaggedLine, TextDecorator};

use super::html::{self, Piece};
use super::template::Parsed;
use super::template::scan::{Kind, Tag, scan};

/// Around the number of a tag while the HTML is read; private characters, taken out of the source before.
const OPEN: char = '\u{e000}';
const CLOSE: char = '\u{e001}';
/// Deepest nesting of elements given to html2text.
const MAX_DEPTH: usize = 150;
/// Wider than any line: mail programs wrap.
const WIDTH: usize = 2_000;

/// Makes the text of an HTML template. Never fails: what cannot be read is left out.
pub(super) fn from_html(source: &str) -> String {
    let source = source.replace([OPEN, CLOSE], "");
    let Ok(tags) = scan(&source) else { return String::new() };
    let marked = mark(&source, &tags);
    let pieces = in_text(&marked);
    laid_out(&marked)
        .and_then(|text| restored(&text, &source, &tags, &pieces))
        .or_else(|| restored(&front_to_back(&marked), &source, &tags, &pieces))
        .unwrap_or_default()
}

/// The source with each tag replaced by its number between marks, and comments of the template left out.
fn mark(source: &str, tags: &[Tag]) -> String {
    let mut marked = String::with_capacity(source.len());
    let mut from = 0;
    for (n, tag) in tags.iter().enumerate() {
        marked.push_str(&source[from..tag.span.start]);
        if tag.kind != Kind::Comment {
            marked.push_str(&format!("{OPEN}{n}{CLOSE}"));
        }
        from = tag.span.end;
    }
    marked.push_str(&source[from..]);
    marked
}

/// The numbers that stand in text, in order: these must all come out again.
fn in_text(marked: &str) -> Vec<usize> {
    let mut numbers = Vec::new();
    for piece in html::Pieces::new(marked) {
        if let Piece::Text(text) = piece {
            numbers.extend(numbers_of(text));
        }
    }
    numbers
}

fn numbers_of(text: &str) -> Vec<usize> {
    text.split(OPEN).skip(1).filter_map(|rest| rest.split_once(CLOSE)?.0.parse().ok()).collect()
}

/// By html2text; tables are taken as boxes, since a browser's parser moves what stands between their rows.
fn laid_out(marked: &str) -> Option<String> {
    const TABLE: [&str; 9] = ["table", "thead", "tbody", "tfoot", "tr", "td", "th", "colgroup", "caption"];
    let loose = holds_a_loose_list(marked);
    let mut flat = String::with_capacity(marked.len());
    let (mut from, mut depth, mut deepest) = (0, 0_usize, 0);
    for piece in html::Pieces::new(marked) {
        let Piece::Tag(tag) = piece else { continue };
        if !html::VOID.iter().any(|name| tag.is(name)) {
            depth = if tag.closing { depth.saturating_sub(1) } else { depth + 1 };
            deepest = deepest.max(depth);
        }
        let item = loose && tag.is("li");
        if item || TABLE.iter().any(|name| tag.is(name)) || loose && (tag.is("ul") || tag.is("ol")) {
            flat.push_str(&marked[from..tag.span.start]);
            flat.push_str(match (tag.closing, item) {
                (true, _) => "</div>",
                (false, true) => "<div>* ",
                (false, false) => "<div>",
            });
            from = tag.span.end;
        }
    }
    flat.push_str(&marked[from..]);
    if deepest > MAX_DEPTH {
        return None;
    }
    let plain = std::panic::catch_unwind(|| {
        config::with_decorator(Plain::default()).no_link_wrapping().string_from_read(flat.as_bytes(), WIDTH)
    });
    plain.ok()?.ok()
}

/// Whether a tag of the template stands in a list and in none of its items, as those of a loop around an item do:
/// html2text would make an item of each.
fn holds_a_loose_list(marked: &str) -> bool {
    // The open lists (true) and items (false), the innermost last.
    let mut open: Vec<bool> = Vec::new();
    html::Pieces::new(marked).any(|piece| {
        match piece {
            Piece::Text(text) => return text.contains(OPEN) && open.last() == Some(&true),
            Piece::Tag(tag) if ["ul", "ol", "li"].iter().any(|name| tag.is(name)) => {
                let list = !tag.is("li");
                if !tag.closing {
                    open.push(list);
                } else if let Some(at) = open.iter().rposition(|&opened| opened == list) {
                    open.truncate(at);
                }
            }
            _ => {}
        }
        false
    })
}

/// Without html2text: blocks end lines, links follow their text.
fn front_to_back(marked: &str) -> String {
    const ENDS_LINE: [&str; 24] = [
        "p",
        "div",
        "br",
        "tr",
        "table",
        "ul",
        "ol",
        "li",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "section",
        "article",
        "header",
        "footer",
        "blockquote",
        "pre",
        "hr",
        "dl",
        "dt",
        "dd",
    ];
    let mut text = String::new();
    let mut links: Vec<String> = Vec::new();
    let mut in_head = false;
    for piece in html::Pieces::new(marked) {
        match piece {
            Piece::Text(piece) if !in_head => {
                let words: Vec<&str> = piece.split_ascii_whitespace().collect();
                let spaced = |c: Option<char>| c.is_some_and(char::is_whitespace);
                if spaced(piece.chars().next()) {
                    text.push(' ');
                }
                text.push_str(&html::decode(&words.join(" ")));
                if spaced(piece.chars().next_back()) {
                    text.push(' ');
                }
            }
            Piece::Tag(tag) => {
                if tag.is("head") {
                    in_head = !tag.closing;
                } else if tag.is("a") && !tag.closing {
                    links.push(tag.attribute("href").unwrap_or_default().into_owned());
                } else if tag.is("a") {
                    text.push_str(&link_after(links.pop()));
                } else if tag.is("img") {
                    text.push_str(&tag.attribute("alt").unwrap_or_default());
                } else if tag.is("li") && !tag.closing {
                    text.push_str("\n* ");
                } else if ENDS_LINE.iter().any(|name| tag.is(name)) {
                    text.push('\n');
                } else if tag.is("td") || tag.is("th") {
                    text.push(' ');
                }
            }
            _ => {}
        }
    }
    text
}

fn link_after(url: Option<String>) -> String {
    match url {
        Some(url) if !url.is_empty() && !url.starts_with('#') => format!(" ({url})"),
        _ => String::new(),
    }
}

/// Puts the tags back and tidies the lines; none when a tag that stood in text is gone or has moved, or when the
/// outcome does not parse.
fn restored(text: &str, source: &str, tags: &[Tag], must_stand: &[usize]) -> Option<String> {
    let come_out = numbers_of(text);
    let mut rest = come_out.iter();
    if !must_stand.iter().all(|number| rest.any(|n| n == number)) {
        return None;
    }
    let joined = join(text, source, tags)?;
    let found = scan(&joined).ok()?;
    (found.len() == come_out.len() && Parsed::new(&joined).is_ok()).then_some(joined)
}

fn join(text: &str, source: &str, tags: &[Tag]) -> Option<String> {
    let mut joined = String::with_capacity(text.len());
    for (i, piece) in tidy(text).split(OPEN).enumerate() {
        let literal = if i == 0 {
            piece
        } else {
            let (number, literal) = piece.split_once(CLOSE)?;
            joined.push_str(source.get(tags.get(number.parse::<usize>().ok()?)?.span.clone())?);
            literal
        };
        // What was no tag must not become one.
        joined.push_str(&literal.replace("{{", "{ {").replace("}}", "} }"));
        if joined.ends_with(['\\', '{']) {
            joined.push(' ');
        }
    }
    Some(joined)
}

/// No space at the ends of lines, at most one empty line between lines, none around.
fn tidy(text: &str) -> String {
    let mut tidy = String::with_capacity(text.len());
    let mut empty = 0;
    for line in text.lines() {
        let line = line.replace('\u{a0}', " ");
        let line = line.trim();
        empty = if line.is_empty() { empty + 1 } else { 0 };
        if empty < 2 {
            tidy.push_str(line);
            tidy.push('\n');
        }
    }
    let mut text = tidy.trim().to_owned();
    text.push('\n');
    text
}

/// Plain text with each link after its words.
#[derive(Clone, Debug, Default)]
struct Plain {
    links: Vec<String>,
}

impl TextDecorator for Plain {
    type Annotation = ();

    fn decorate_link_start(&mut self, url: &str) -> (String, ()) {
        self.links.push(url.to_owned());
        (String::new(), ())
    }

    fn decorate_link_end(&mut self) -> String {
        link_after(self.links.pop())
    }

    fn decorate_em_start(&self) -> (String, ()) {
        (String::new(), ())
    }

    fn decorate_em_end(&self) -> String {
        String::new()
    }

    fn decorate_strong_start(&self) -> (String, ()) {
        (String::new(), ())
    }

    fn decorate_strong_end(&self) -> String {
        String::new()
    }

    fn decorate_strikeout_start(&self) -> (String, ()) {
        (String::new(), ())
    }

    fn decorate_strikeout_end(&self) -> String {
        String::new()
    }

    fn decorate_code_start(&self) -> (String, ()) {
        (String::new(), ())
    }

    fn decorate_code_end(&self) -> String {
        String::new()
    }

    fn decorate_preformat_first(&self) {}

    fn decorate_preformat_cont(&self) {}

    fn decorate_image(&mut self, _: &str, title: &str) -> (String, ()) {
        (title.to_owned(), ())
    }

    fn header_prefix(&self, _: usize) -> String {
        String::new()
    }

    fn quote_prefix(&self) -> String {
        "> ".into()
    }

    fn unordered_item_prefix(&self) -> String {
        "* ".into()
    }

    fn ordered_item_prefix(&self, i: i64) -> String {
        format!("{i}. ")
    }

    fn make_subblock_decorator(&self) -> Self {
        Self::default()
    }

    fn finalise(&mut self, _: Vec<String>) -> Vec<TaggedLine<()>> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lists_and_entities_become_text() {
        let html = "<h1>Hello {{name}}</h1><p>See <a href=\"https://x.example/{{data.id}}\">our site</a>&nbsp;&amp; \
                    more.</p><ul><li>One</li><li>Two</li></ul><style>p{}</style>";
        let text = from_html(html);
        assert!(text.contains("Hello {{name}}"), "{text}");
        assert!(text.contains("our site (https://x.example/{{data.id}})"), "{text}");
        assert!(text.contains("& more."), "{text}");
        assert!(text.contains("* One") && text.contains("* Two"), "{text}");
        assert!(!text.contains("p{}"));
    }

    #[test]
    fn blocks_around_rows_stay_in_order() {
        let html = "<table><tr><th>Item</th></tr>{{#each data.items}}<tr><td>{{this.name}}</td><td><a \
                    href=\"{{this.url}}\">look</a></td></tr>{{else}}<tr><td>None</td></tr>{{/each}}</table><p>End</p>";
        let text = from_html(html);
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} in {text}"));
        assert!(at("Item") < at("{{#each data.items}}"));
        assert!(at("{{#each data.items}}") < at("{{this.name}}"));
        assert!(at("{{this.name}}") < at("look ({{this.url}})"));
        assert!(at("look") < at("{{else}}") && at("{{else}}") < at("None"));
        assert!(at("{{/each}}") < at("End"));
    }

    #[test]
    fn a_loop_around_items_is_no_item() {
        let html = "<p>We have</p>\n<ul>\n{{#each data.items}}\n<li>{{this}}, <b>new</b></li>\n{{/each}}\n</ul>\n<p>End</p>";
        let text = from_html(html);
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(
            lines,
            ["We have", "{{#each data.items}}", "* {{this}}, new", "{{/each}}", "End"],
            "{text}"
        );
    }

    #[test]
    fn blocks_in_attributes_go_and_comments_too() {
        let html = "{{!-- note {{x}} --}}<p {{#if data.x}}class=\"{{data.x}}\"{{/if}}>a</p><!-- {{hidden}} -->\
                    <a href=\"{{#if data.u}}{{data.u}}{{else}}https://x.example{{/if}}\">b</a>";
        let text = from_html(html);
        assert!(!text.contains("note") && !text.contains("hidden") && !text.contains("class"), "{text}");
        assert!(text.contains("b ({{#if data.u}}{{data.u}}{{else}}https://x.example{{/if}})"), "{text}");
    }

    #[test]
    fn what_only_looks_like_a_tag_becomes_none() {
        let text = from_html("<p>&#123;&#123;evil}} &#92;{{name}}</p>");
        assert_eq!(scan(&text).unwrap().len(), 1, "{text}");
        assert!(Parsed::new(&text).is_ok());
    }

    #[test]
    fn deep_html_is_read_without_a_deep_stack() {
        let deep = format!("{}x{{{{name}}}}{}", "<div>".repeat(20_000), "</div>".repeat(20_000));
        assert_eq!(from_html(&deep).trim(), "x{{name}}");
        let bold = format!("{}x{{{{name}}}}", "<b>".repeat(20_000));
        assert_eq!(from_html(&bold).trim(), "x{{name}}");
    }

    proptest::proptest! {
        #[test]
        fn the_text_of_any_template_that_parses_parses(
            html in proptest::collection::vec(proptest::sample::select(vec![
                "<p>", "</p>", "<table>", "<tr>", "<td>", "</td></tr>", "</table>", "{{name}}", "{{#if data.x}}",
                "{{else}}", "{{/if}}", "<a href=\"{{data.u}}\">", "</a>", "text ", "&amp;", "<br>", "{{{data.y}}}",
                "<!-- ", " -->", "<div style=\"{{data.z}}\">", "</div>", "&#123;", "\\", "\u{e000}", "{", "}", "\n",
                "{{> part}}", "<select>", "<li>", "<b>", "<title>", "</title>",
            ]), 0..24)
        ) {
            let html: String = html.concat();
            if Parsed::new(&html).is_ok() {
                let text = from_html(&html);
                proptest::prop_assert!(Parsed::new(&text).is_ok(), "{html:?} gave {text:?}");
            }
        }
    }
}
