//! Markdown to HTML that can do nothing but be read: no script, no style, nothing that is loaded, no address that runs
//! something. Pure.
//!
//! Headings begin below the page's own, and none is left out between two: their outline is that of the text whatever
//! levels it was written in.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use ammonia::{Builder, UrlRelative};
use pulldown_cmark::{CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd, html};

/// HTML tags that are taken for what they mean. Any other, such as `<Company Name>` or a script, is shown as it was
/// written, so that nothing of a text is lost unseen.
const TAGS: [&str; 32] = [
    "a",
    "abbr",
    "b",
    "blockquote",
    "br",
    "code",
    "dd",
    "del",
    "dl",
    "dt",
    "em",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "i",
    "ins",
    "kbd",
    "li",
    "ol",
    "p",
    "pre",
    "s",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "ul",
    "thead",
];
const CELLS: [&str; 3] = ["tr", "th", "td"];
/// Where a link may lead.
const SCHEMES: [&str; 4] = ["http", "https", "mailto", "tel"];

/// How deep quotations, lists and the like may stand inside of one another; what is deeper stands at this depth. Without
/// a bound, reading HTML would take a time that grows with the square of the depth.
const MAX_DEPTH: usize = 32;
/// How many tags of a text may be HTML; those after them are shown as they were written, for the same reason.
const MAX_TAGS: usize = 1_000;

static CLEANER: LazyLock<Builder<'static>> = LazyLock::new(|| {
    let mut cleaner = Builder::empty();
    cleaner
        .tags(TAGS.into_iter().chain(CELLS).collect())
        .clean_content_tags(HashSet::from([
            "script", "style", "template", "noscript", "iframe", "object", "svg", "math",
        ]))
        .tag_attributes(HashMap::from([
            ("a", HashSet::from(["href"])),
            ("abbr", HashSet::from(["title"])),
            ("ol", HashSet::from(["start"])),
        ]))
        .url_schemes(HashSet::from(SCHEMES))
        .url_relative(UrlRelative::PassThrough)
        .link_rel(Some("noopener"))
        .strip_comments(true);
    cleaner
});

fn parsed(markdown: &str) -> Parser<'_> {
    Parser::new_ext(markdown, Options::ENABLE_TABLES)
}

/// The text as HTML, to stand below a heading of the first level.
pub fn to_html(markdown: &str) -> String {
    let mut outline = Outline::default();
    let (mut depth, mut tags, mut block) = (0_usize, 0_usize, None::<String>);
    let events = parsed(markdown).filter_map(|event| match event {
        Event::Start(tag) => {
            depth += 1;
            match tag {
                // Read as a whole: a comment may have many lines.
                Tag::HtmlBlock => {
                    block = Some(String::new());
                    None
                }
                _ if depth > MAX_DEPTH => None,
                // What an image shows in words stays; the image would be asked for by whoever reads.
                Tag::Image { .. } => None,
                Tag::Heading { level, .. } => {
                    let level = outline.enter(level);
                    Some(Event::Start(Tag::Heading {
                        level,
                        id: None,
                        classes: Vec::new(),
                        attrs: Vec::new(),
                    }))
                }
                other => Some(Event::Start(other)),
            }
        }
        Event::End(tag) => {
            depth -= 1;
            match tag {
                TagEnd::HtmlBlock => block.take().map(|block| of_html(&block, tags)),
                _ if depth >= MAX_DEPTH => None,
                TagEnd::Image => None,
                TagEnd::Heading(_) => Some(Event::End(TagEnd::Heading(outline.now()))),
                other => Some(Event::End(other)),
            }
        }
        Event::Html(text) | Event::InlineHtml(text) => {
            tags += text.matches('<').count();
            if let Some(block) = &mut block {
                block.push_str(&text);
                return None;
            }
            Some(of_html(&text, tags))
        }
        other => Some(other),
    });
    let mut rendered = String::with_capacity(markdown.len() * 3 / 2);
    html::push_html(&mut rendered, events);
    CLEANER.clean(&rendered).to_string()
}

/// A piece of HTML as it is shown, with so many tags in the text up to its end.
fn of_html<'h>(html: &str, tags: usize) -> Event<'h> {
    match tags {
        0..=MAX_TAGS => Event::InlineHtml(formatting(html).into()),
        _ => Event::Text(html.to_owned().into()),
    }
}

/// The piece with every tag made a text that is none to format with, or not whole.
fn formatting(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let end = end_of_tag(tag);
        out.push_str(if end == 0 { "&lt;" } else { &tag[..end] });
        rest = &tag[end.max(1)..];
    }
    out.push_str(rest);
    out
}

/// Where the tag or comment ends that begins here; 0 when it is none that text is formatted with.
fn end_of_tag(html: &str) -> usize {
    if let Some(comment) = html.strip_prefix("<!--") {
        return comment.find("-->").map_or(0, |end| end + 7);
    }
    let name = html.trim_start_matches('<');
    let name = name.strip_prefix('/').unwrap_or(name);
    let end = name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len());
    let (name, after) = name.split_at(end);
    let name = name.to_ascii_lowercase();
    let is_known = TAGS.contains(&name.as_str()) || CELLS.contains(&name.as_str());
    let is_parted = after.starts_with(|c: char| c.is_ascii_whitespace() || c == '>' || c == '/');
    if !is_known || !is_parted {
        return 0;
    }
    html.find('>').map_or(0, |end| end + 1)
}

/// The levels of the headings around the one that is being read, as they were written.
#[derive(Default)]
struct Outline(Vec<HeadingLevel>);

impl Outline {
    /// The level at which a heading written at this level is shown.
    fn enter(&mut self, level: HeadingLevel) -> HeadingLevel {
        while self.0.last().is_some_and(|above| *above >= level) {
            self.0.pop();
        }
        self.0.push(level);
        self.now()
    }

    /// How deep a heading written at this level stands, 1 where none is above it.
    fn depth(&mut self, level: HeadingLevel) -> u8 {
        self.enter(level);
        u8::try_from(self.0.len()).unwrap_or(u8::MAX)
    }

    fn now(&self) -> HeadingLevel {
        HeadingLevel::try_from(self.0.len() + 1).unwrap_or(HeadingLevel::H6)
    }
}

/// A piece of a text that is read as one: a paragraph, an entry of a list, a row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// What it is besides words.
    pub(super) kind: BlockKind,
    /// Its words on one line; a link is followed by where it leads.
    pub(super) text: String,
}

/// What a block is besides its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockKind {
    /// A paragraph, an entry of a list, a line of code.
    Words,
    /// A heading, and how deep: 1 where no other heading is above it.
    Heading(u8),
    /// The row of a table that names its columns.
    TableHead,
    /// Another row of a table.
    TableRow,
}

/// What the text says, without how it looks: what is compared with another version.
pub(super) fn blocks(markdown: &str) -> Vec<Block> {
    let mut reader = Reader::default();
    for event in parsed(markdown) {
        reader.read(event);
    }
    reader.end(BlockKind::Words);
    reader.blocks
}

const BULLET: &str = "• ";

#[derive(Default)]
struct Reader<'m> {
    blocks: Vec<Block>,
    text: String,
    outline: Outline,
    in_code: bool,
    /// The next number of each ordered list around; none for the others.
    lists: Vec<Option<u64>>,
    /// Where links around lead, and where their words begin.
    links: Vec<(CowStr<'m>, usize)>,
}

impl<'m> Reader<'m> {
    fn read(&mut self, event: Event<'m>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(TagEnd::Link | TagEnd::Image) => {
                if let Some((url, from)) = self.links.pop()
                    && self.text.get(from..) != Some(&*url)
                {
                    self.text.push_str(&format!(" ({url})"));
                }
            }
            Event::End(TagEnd::Heading(level)) => {
                let depth = self.outline.depth(level);
                self.end(BlockKind::Heading(depth));
            }
            Event::End(TagEnd::TableHead) => self.end(BlockKind::TableHead),
            Event::End(TagEnd::TableRow) => self.end(BlockKind::TableRow),
            Event::End(TagEnd::CodeBlock) => {
                self.in_code = false;
                self.end(BlockKind::Words);
            }
            Event::End(TagEnd::List(_)) => {
                self.end(BlockKind::Words);
                self.lists.pop();
            }
            Event::End(TagEnd::Paragraph | TagEnd::Item | TagEnd::HtmlBlock) => self.end(BlockKind::Words),
            Event::End(_) => {}
            Event::Text(words) if self.in_code => {
                for line in words.lines() {
                    self.text.push_str(line);
                    self.end(BlockKind::Words);
                }
            }
            Event::Text(words)
            | Event::Code(words)
            | Event::Html(words)
            | Event::InlineHtml(words)
            | Event::InlineMath(words)
            | Event::DisplayMath(words)
            | Event::FootnoteReference(words) => self.text.push_str(&words),
            Event::SoftBreak | Event::HardBreak => self.text.push(' '),
            Event::Rule => {
                self.text.push('—');
                self.end(BlockKind::Words);
            }
            Event::TaskListMarker(_) => {}
        }
    }

    fn start(&mut self, tag: Tag<'m>) {
        match tag {
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => {
                self.links.push((dest_url, self.text.len()));
            }
            Tag::List(first) => {
                self.end(BlockKind::Words);
                self.lists.push(first);
            }
            Tag::Item => {
                self.end(BlockKind::Words);
                match self.lists.last_mut() {
                    Some(Some(number)) => {
                        self.text = format!("{number}. ");
                        *number = number.saturating_add(1);
                    }
                    _ => self.text = BULLET.to_owned(),
                }
            }
            Tag::TableCell if !self.text.is_empty() => self.text.push_str(" | "),
            Tag::CodeBlock(_) => {
                self.end(BlockKind::Words);
                self.in_code = true;
            }
            Tag::Heading { .. } | Tag::HtmlBlock | Tag::TableHead | Tag::TableRow => {
                self.end(BlockKind::Words)
            }
            _ => {}
        }
    }

    /// Ends a block, if there is one.
    fn end(&mut self, kind: BlockKind) {
        let text = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        self.text.clear();
        if !text.is_empty() {
            self.blocks.push(Block { kind, text });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(markdown: &str) -> Vec<String> {
        blocks(markdown).into_iter().map(|block| block.text).collect()
    }

    #[test]
    fn what_markdown_can_say_is_shown() {
        let html = to_html(
            "# Privacy\n\nWe *keep* **data** for `30` days, see [terms](https://a.example/t).\n\n\
             - one\n- two\n\n3. three\n4. four\n\n> quote\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n---\n",
        );
        for part in [
            "<h2>Privacy</h2>",
            "<em>keep</em>",
            "<strong>data</strong>",
            "<code>30</code>",
            "<a href=\"https://a.example/t\" rel=\"noopener\">terms</a>",
            "<li>one</li>",
            "<ol start=\"3\">",
            "<blockquote>",
            "<th>a</th>",
            "<td>2</td>",
            "<hr>",
        ] {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert!(!to_html("a[^1]\n\n[^1]: b").contains("<sup"));
    }

    #[test]
    fn headings_stand_below_that_of_the_page_and_leave_none_out() {
        let html = to_html("### A\n\n##### B\n\n# C\n\n## D\n\n###### E\n\n## F\n");
        let levels: Vec<&str> =
            html.split("<h").skip(1).map(|rest| &rest[..1]).filter(|l| *l != "r").collect();
        assert_eq!(levels, ["2", "3", "2", "3", "4", "3"]);
        assert!(!to_html("<h1 id=x>Mine</h1>").contains("<h1"));
    }

    #[test]
    fn what_could_run_is_harmless() {
        for bad in [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "![x](https://track.example/p.gif)",
            "[x](javascript:alert(1))",
            "[x](JaVaScRiPt:alert(1))",
            "[x](data:text/html,<script>1</script>)",
            "<a href=\"jav&#x09;ascript:alert(1)\">x</a>",
            "<p onclick=\"x()\" style=\"position:fixed\">x</p>",
            "<style>body{display:none}</style>",
            "<iframe src=\"https://a.example\"></iframe>",
            "<svg><script>1</script></svg>",
            "<form action=\"https://a.example\"><input name=p></form>",
            "</main><h1>Mine</h1>",
            "<base href=\"https://a.example/\">",
            "<meta http-equiv=refresh content=0>",
        ] {
            harmless(&to_html(bad));
        }
        assert!(to_html("![A map](https://a.example/m.png)").contains("A map"));
    }

    #[test]
    fn nothing_of_a_text_is_lost_unseen() {
        for (markdown, shown) in [
            ("Dear <Company Name>, we keep", "Dear &lt;Company Name&gt;, we keep"),
            ("Use <details>this</details> now", "Use &lt;details&gt;this&lt;/details&gt; now"),
            ("<script>\nwhat follows\n\n| a |\n|---|\n| b |\n", "what follows"),
            ("a <style> b\n\nc", "&lt;style&gt; b"),
            ("<div>\n<b>bold</b>\n</div>", "<b>bold</b>"),
            ("<p>whole</p>\n<table><tr><td>1</td></tr></table>", "<td>1</td>"),
        ] {
            let html = to_html(markdown);
            assert!(html.contains(shown), "{markdown}: {html}");
        }
        assert!(to_html("<script>\n\n| a |\n|---|\n| b |\n").contains("| b |"));
        // A note of whoever wrote it is no part of the text.
        assert!(!to_html("<!-- ask\nlegal -->\n\nText <!-- really? --> goes on").contains("legal"));
        assert!(!to_html("a <!-- really? --> b").contains("really"));
    }

    /// Reads the HTML and looks at each tag and attribute.
    #[track_caller]
    fn harmless(html: &str) {
        let mut rest = html;
        while let Some(at) = rest.find('<') {
            let tag = rest[at + 1..].split('>').next().unwrap();
            let name = tag.trim_start_matches('/').split(' ').next().unwrap();
            assert!(TAGS.contains(&name) || CELLS.contains(&name), "{tag}: {html}");
            for attribute in tag.split(' ').skip(1).filter(|part| part.contains("=\"")) {
                let (name, value) = attribute.split_once("=\"").unwrap();
                assert!(["href", "rel", "title", "start"].contains(&name), "{attribute}: {html}");
                // What browsers leave out when they look for a scheme (WHATWG URL) hides none here either.
                let value: String = value.chars().filter(|c| !c.is_control() && !c.is_whitespace()).collect();
                let scheme = value.split(['/', '?', '#', '"']).next().unwrap().split_once(':');
                let scheme = scheme.map(|(scheme, _)| scheme.to_lowercase()).filter(|scheme| {
                    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+.-&;".contains(c))
                });
                let known = scheme.is_none_or(|scheme| SCHEMES.contains(&scheme.as_str()));
                assert!(name != "href" || known, "{attribute}: {html}");
            }
            rest = &rest[at + 1..];
        }
    }

    #[test]
    fn what_is_compared_is_what_it_says() {
        assert_eq!(
            words("# Privacy\nWe keep\ndata for *30* days.\n\n- one\n- two\n  more\n\n1. first\n2. second\n"),
            ["Privacy", "We keep data for 30 days.", "• one", "• two more", "1. first", "2. second"]
        );
        assert_eq!(
            words("See [terms](https://a.example) or <https://b.example>."),
            ["See terms (https://a.example) or https://b.example."]
        );
        assert_eq!(words("| a | b |\n|---|---|\n| 1 | 2 |"), ["a | b", "1 | 2"]);
        assert_eq!(words("```\nx = 1\ny = 2\n```"), ["x = 1", "y = 2"]);
        let kinds: Vec<BlockKind> =
            blocks("# A\n\n### B\n\nWords.\n\n## C\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")
                .iter()
                .map(|block| block.kind)
                .collect();
        let (first, second) = (BlockKind::Heading(1), BlockKind::Heading(2));
        assert_eq!(
            kinds,
            [first, second, BlockKind::Words, second, BlockKind::TableHead, BlockKind::TableRow]
        );
        assert_eq!(words("a\n\n***\n\nb"), ["a", "—", "b"]);
    }

    #[test]
    fn a_text_of_the_greatest_size_is_read_soon_whatever_it_is_made_of() {
        for bad in [">", "*", "[", "<b>", "- ", "|a", "`", "![", "<table>"] {
            let text = bad.repeat(256 * 1024 / bad.len());
            let begun = std::time::Instant::now();
            to_html(&text);
            blocks(&text);
            let taken = begun.elapsed();
            assert!(taken.as_secs() < 20, "{bad}: {taken:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_runs_survives_whatever_the_markdown(markdown in pieces()) {
            harmless(&to_html(&markdown));
        }
    }

    /// Texts made of what scripts hide in, with anything between.
    fn pieces() -> impl Strategy<Value = String> {
        let hiding = prop::sample::select(vec![
            "<script>",
            "</script>",
            "<img src=x onerror=1 ",
            "<svg/onload=1>",
            "javascript:",
            "[a](",
            ")",
            "<a href=",
            "\"",
            "'",
            ">",
            "<",
            "&#106;",
            "&lt;",
            "<!--",
            "-->",
            "<style>",
            "</style>",
            "<math><mi>",
            "<template>",
            "\n\n",
            "> ",
            "`",
            "```\n",
            "<![CDATA[",
            "]]>",
            "<p style=",
            "data:text/html,",
            "<noscript>",
            "<title>",
            "<textarea>",
            "\t",
            "|a|\n|-|\n|",
            "# ",
            "java\nscript:",
            "vbscript:",
            "<h1>",
            "<table><caption>",
        ]);
        let piece = prop_oneof![3 => hiding.prop_map(str::to_owned), 1 => ".{0,8}"];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }
}
