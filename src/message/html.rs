//! As much of HTML as a sender must read: tags with their attributes, what is visible, where links lead.
//!
//! One pass, no recursion, never fails: what is no tag is text. It reads what templates and mail programs write, not
//! every corner of the standard; where it may be wrong, the message gets a footer too many rather than one too few.

use std::borrow::Cow;
use std::ops::Range;

use super::hiding::{Sheets, hides, is_root};
use super::nesting::Nesting;

/// A piece of HTML, with its place in the source.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'s> {
    /// Text between tags, entities not decoded.
    Text(&'s str),
    /// A tag.
    Tag(Tag<'s>),
    /// A comment, a doctype, what stands inside script, style and title, or a tag that never ends and all after it.
    Hidden(&'s str),
}

/// A tag.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tag<'s> {
    /// The name as spelt.
    pub(super) name: &'s str,
    /// Whether it is `</name>`.
    pub(super) closing: bool,
    /// Where the whole tag stands.
    pub(super) span: Range<usize>,
    /// Its attributes.
    pub(super) attributes: Vec<Attribute<'s>>,
}

/// An attribute, its value as spelt and without quotes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attribute<'s> {
    pub(super) name: &'s str,
    pub(super) value: &'s str,
    /// Where the value stands, quotes included.
    pub(super) span: Range<usize>,
}

impl Tag<'_> {
    /// Whether this is its name.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    pub(super) fn is_one_of(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.is(name))
    }

    /// The value of an attribute, entities decoded.
    pub(super) fn attribute(&self, name: &str) -> Option<Cow<'_, str>> {
        self.attributes.iter().find(|a| a.name.eq_ignore_ascii_case(name)).map(|a| decode(a.value))
    }
}

/// Elements that have no end.
pub(super) const VOID: [&str; 14] = [
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track",
    "wbr",
];
/// Elements that end a paragraph which is open (HTML §13.2.6.4.7), in old mail programs too. A table does so in some
/// documents alone.
pub(super) const ENDS_PARAGRAPH: [&str; 27] = [
    "address",
    "article",
    "aside",
    "blockquote",
    "center",
    "div",
    "dl",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "main",
    "nav",
    "ol",
    "p",
    "pre",
    "section",
    "ul",
];
/// Elements whose inside is no HTML, or no text for a reader.
pub(super) const OPAQUE: [&str; 9] =
    ["script", "style", "title", "textarea", "iframe", "noembed", "noframes", "xmp", "plaintext"];
/// Elements whose inside many programs do not show, or show elsewhere.
const CONCEALING: [&str; 13] = [
    "head", "template", "noscript", "select", "datalist", "object", "video", "audio", "canvas", "svg",
    "math", "dialog", "details",
];

/// Cuts HTML into pieces.
pub(super) struct Pieces<'s> {
    source: &'s str,
    at: usize,
    /// The opaque element that was just opened.
    inside: Option<&'s str>,
}

impl<'s> Pieces<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        Self { source, at: 0, inside: None }
    }

    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn skip_opaque(&mut self, name: &str) {
        let rest = self.rest().as_bytes();
        let end = (0..rest.len()).find(|&i| {
            rest[i] == b'<'
                && rest.get(i + 1) == Some(&b'/')
                && rest[i + 2..]
                    .get(..name.len())
                    .is_some_and(|tag| tag.eq_ignore_ascii_case(name.as_bytes()))
        });
        self.at += end.unwrap_or(rest.len());
    }

    /// The tag that begins here; [`Begun::Cut`] when the source ends before it does.
    fn read_tag(&self) -> Begun<'s> {
        let bytes = self.source.as_bytes();
        let closing = bytes.get(self.at + 1) == Some(&b'/');
        let name_at = self.at + 1 + usize::from(closing);
        if !bytes.get(name_at).is_some_and(u8::is_ascii_alphabetic) {
            return Begun::Nothing;
        }
        self.read_named(name_at, closing).map_or(Begun::Cut, Begun::Tag)
    }

    fn read_named(&self, name_at: usize, closing: bool) -> Option<Tag<'s>> {
        let source = self.source;
        let bytes = source.as_bytes();
        let mut i = end_of(bytes, name_at, |b| b.is_ascii_whitespace() || b == b'/' || b == b'>');
        let name = &source[name_at..i];
        let mut attributes = Vec::new();
        loop {
            i = end_of(bytes, i, |b| !b.is_ascii_whitespace() && b != b'/');
            if *bytes.get(i)? == b'>' {
                return Some(Tag { name, closing, span: self.at..i + 1, attributes });
            }
            // A name may begin with `=`, as browsers read it.
            let end = end_of(bytes, i + 1, |b| b.is_ascii_whitespace() || matches!(b, b'/' | b'>' | b'='));
            let attribute = source.get(i..end)?;
            let equals = end_of(bytes, end, |b| !b.is_ascii_whitespace());
            if bytes.get(equals) != Some(&b'=') {
                attributes.push(Attribute { name: attribute, value: "", span: end..end });
                i = end;
                continue;
            }
            let start = end_of(bytes, equals + 1, |b| !b.is_ascii_whitespace());
            let quote = *bytes.get(start)?;
            let (value, span) = if matches!(quote, b'"' | b'\'') {
                let close = end_of(bytes, start + 1, |b| b == quote);
                bytes.get(close)?;
                (&source[start + 1..close], start..close + 1)
            } else {
                let close = end_of(bytes, start, |b| b.is_ascii_whitespace() || b == b'>');
                (&source[start..close], start..close)
            };
            i = span.end;
            attributes.push(Attribute { name: attribute, value, span });
        }
    }
}

/// What begins at a `<`.
enum Begun<'s> {
    Tag(Tag<'s>),
    /// A tag, but the source ends in it.
    Cut,
    /// Text.
    Nothing,
}

/// Where a comment ends that begins before this text, as browsers read it: `<!-->` and `--!>` end one too.
fn end_of_comment(comment: &str) -> Option<usize> {
    if comment.starts_with('>') {
        return Some(1);
    }
    if comment.starts_with("->") {
        return Some(2);
    }
    let ends = [("-->", 3), ("--!>", 4)];
    ends.iter().filter_map(|(end, length)| Some(comment.find(end)? + length)).min()
}

fn end_of(bytes: &[u8], from: usize, stops: impl Fn(u8) -> bool) -> usize {
    bytes[from.min(bytes.len())..].iter().position(|b| stops(*b)).map_or(bytes.len(), |n| from + n)
}

impl<'s> Iterator for Pieces<'s> {
    type Item = Piece<'s>;

    fn next(&mut self) -> Option<Piece<'s>> {
        if let Some(name) = self.inside.take() {
            let from = self.at;
            self.skip_opaque(name);
            return Some(Piece::Hidden(&self.source[from..self.at]));
        }
        let rest = self.rest();
        if rest.is_empty() {
            return None;
        }
        if let Some(comment) = rest.strip_prefix("<!--") {
            let length = end_of_comment(comment).map_or(rest.len(), |end| 4 + end);
            self.at += length;
            return Some(Piece::Hidden(&rest[..length]));
        }
        if rest.starts_with("<!") || rest.starts_with("<?") {
            let length = rest.find('>').map_or(rest.len(), |end| end + 1);
            self.at += length;
            return Some(Piece::Hidden(&rest[..length]));
        }
        match if rest.starts_with('<') { self.read_tag() } else { Begun::Nothing } {
            Begun::Tag(tag) => {
                self.at = tag.span.end;
                if !tag.closing && tag.is_one_of(&OPAQUE) {
                    self.inside = Some(tag.name);
                }
                return Some(Piece::Tag(tag));
            }
            // Browsers drop it all. To look for tags in it would cost the square of its length.
            Begun::Cut => {
                self.at = self.source.len();
                return Some(Piece::Hidden(rest));
            }
            Begun::Nothing => {}
        }
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let length = rest[first..].find('<').map_or(rest.len(), |end| first + end);
        self.at += length;
        Some(Piece::Text(&rest[..length]))
    }
}

/// Decodes numeric entities and the named ones that mail is written with; others stay as they are.
pub(super) fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        decoded.push_str(&rest[..at]);
        rest = &rest[at..];
        match entity(rest) {
            Some((character, length)) => {
                decoded.push(character);
                rest = &rest[length..];
            }
            None => {
                decoded.push('&');
                rest = &rest[1..];
            }
        }
    }
    decoded.push_str(rest);
    Cow::Owned(decoded)
}

/// Whether this text ends in what could be the beginning of an entity.
pub(super) fn begins_entity(text: &str) -> bool {
    let Some((_, name)) = text.rsplit_once('&') else { return false };
    let digits = name.strip_prefix('#').map(|number| number.trim_start_matches(['x', 'X']));
    NAMED.iter().any(|(spelt, _)| spelt.starts_with(name))
        || digits.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The entities that are known by name.
const NAMED: [(&str, char); 26] = [
    ("amp;", '&'),
    ("lt;", '<'),
    ("gt;", '>'),
    ("quot;", '"'),
    ("apos;", '\''),
    ("nbsp;", '\u{a0}'),
    ("Tab;", '\t'),
    ("NewLine;", '\n'),
    ("colon;", ':'),
    ("copy;", '©'),
    ("reg;", '®'),
    ("trade;", '™'),
    ("mdash;", '—'),
    ("ndash;", '–'),
    ("hellip;", '…'),
    ("middot;", '·'),
    ("bull;", '•'),
    ("euro;", '€'),
    ("auml;", 'ä'),
    ("ouml;", 'ö'),
    ("uuml;", 'ü'),
    ("Auml;", 'Ä'),
    ("Ouml;", 'Ö'),
    ("Uuml;", 'Ü'),
    ("szlig;", 'ß'),
    ("eacute;", 'é'),
];

fn entity(text: &str) -> Option<(char, usize)> {
    let name = text.strip_prefix('&')?;
    if let Some((spelt, character)) = NAMED.iter().find(|(spelt, _)| name.starts_with(spelt)) {
        return Some((*character, 1 + spelt.len()));
    }
    let number = name.strip_prefix('#')?;
    let (digits, radix, skipped) = match number.strip_prefix(['x', 'X']) {
        Some(hex) => (hex, 16, 3),
        None => (number, 10, 2),
    };
    let length = digits.bytes().take(10).take_while(|b| char::from(*b).is_digit(radix)).count();
    let character = char::from_u32(u32::from_str_radix(&digits[..length], radix).ok()?)?;
    let semicolon = usize::from(digits.as_bytes().get(length) == Some(&b';'));
    Some((character, skipped + length + semicolon))
}

/// What a reader sees.
pub(super) struct Visible {
    /// All text, tags as spaces.
    pub(super) text: String,
    /// Whether a link that can be seen leads to the URL asked for.
    pub(super) has_link: bool,
}

/// Reads what is visible where style sheets hide what they may, and whether `url` is linked to from it.
pub(super) fn visible(html: &str, url: &str, sheets: &Sheets) -> Visible {
    let mut seen = Visible { text: String::with_capacity(html.len() / 2), has_link: false };
    let mut nesting = Nesting::default();
    // How many elements are open where the one that hides begins.
    let mut hidden: Option<usize> = None;
    let mut in_link = false;
    for piece in Pieces::new(html) {
        match piece {
            // Where a drawing holds such a section, no one pass can tell where it ends.
            Piece::Hidden(text) if text.starts_with("<![CDATA[") && nesting.is_foreign() => break,
            Piece::Hidden(_) => {}
            Piece::Text(text) if hidden.is_none() => {
                let text = decode(text);
                seen.has_link |= in_link && !text.trim().is_empty();
                seen.text.push_str(&text);
            }
            Piece::Text(_) => {}
            Piece::Tag(tag) => {
                let opens = nesting.take(&tag);
                let around = nesting.depth() - usize::from(opens);
                hidden = hidden.filter(|outside| around > *outside);
                if hidden.is_some() {
                    continue;
                }
                seen.text.push(' ');
                let conceals =
                    tag.is_one_of(&CONCEALING) || !is_root(&tag) && (hides(&tag) || sheets.may_hide(&tag));
                if !tag.closing && conceals {
                    if opens {
                        hidden = Some(around);
                    }
                } else if tag.is("a") {
                    in_link = !tag.closing && tag.attribute("href").is_some_and(|to| to.trim() == url);
                } else if tag.is("img") {
                    seen.has_link |= in_link;
                }
            }
        }
    }
    seen
}

/// Attributes that lead somewhere.
pub(super) const HOLD_URLS: [&str; 9] =
    ["href", "src", "action", "formaction", "background", "poster", "cite", "data", "xlink:href"];

/// Makes harmless every URL that would run something: a `javascript:`, `vbscript:` or `data:` URL (images aside) in an
/// attribute that holds one becomes `#`. It may have come in with somebody's data, so the message still goes.
pub(super) fn defuse_urls(html: String) -> String {
    let mut bad: Vec<Range<usize>> = Vec::new();
    for piece in Pieces::new(&html) {
        if let Piece::Tag(tag) = piece {
            bad.extend(
                tag.attributes
                    .iter()
                    .filter(|a| {
                        HOLD_URLS.iter().any(|name| a.name.eq_ignore_ascii_case(name)) && runs(a.value)
                    })
                    .map(|a| a.span.clone()),
            );
        }
    }
    if bad.is_empty() {
        return html;
    }
    let mut safe = html;
    for span in bad.into_iter().rev() {
        safe.replace_range(span, "\"#\"");
    }
    safe
}

/// Schemes that run something.
const RUN: [&str; 3] = ["javascript:", "vbscript:", "data:"];

/// Whether a URL, as an attribute spells it, would run something.
pub(super) fn runs(value: &str) -> bool {
    const IMAGES: [&str; 4] = ["data:image/png", "data:image/jpeg", "data:image/gif", "data:image/webp"];
    let scheme = scheme(value);
    RUN.iter().any(|run| scheme.starts_with(run)) && !IMAGES.iter().any(|image| scheme.starts_with(image))
}

/// Whether a URL that begins so may.
pub(super) fn may_run(beginning: &str) -> bool {
    let scheme = scheme(beginning);
    RUN.iter().any(|run| scheme.starts_with(run) || run.starts_with(&scheme))
}

/// How it begins for a browser, which drops control characters and spaces before and inside the scheme.
fn scheme(value: &str) -> String {
    let kept = |c: &char| !c.is_control() && !c.is_whitespace();
    decode(value).chars().filter(kept).take(32).collect::<String>().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_not_seen() {
        let url = "https://x.example/u/abc";
        let link = format!("<a href=\"{url}\">Stop</a>");
        let seen = |html: &str| visible(html, url, &Sheets::default()).has_link;
        assert!(seen(&link));
        assert!(seen(&format!("<p>a<A class=x HREF='{url}'\n><img src=y></A>")));
        for hiding in [
            format!("<!-- {link} -->"),
            format!("<div style=\"display: none\"><div>a</div>{link}</div>"),
            format!("<span hidden>{link}</span>"),
            format!("<p style='font-size:0px'>{link}</p>"),
            format!("<head><title>{link}</title>{link}</head>"),
            format!("<style>{link}</style>"),
            format!("<iframe>{link}"),
            format!("<plaintext>{link}"),
            format!("<xmp>{link}</xmp>"),
            format!("<select><option>{link}"),
            format!("<object>{link}</object>"),
            format!("<a {link}").replace('>', " "),
            format!("<a href=\"{url}\">  </a>"),
            format!("<a href=\"{url}\" style=\"display:none\">Stop</a>"),
            url.to_owned(),
        ] {
            assert!(!seen(&hiding), "{hiding}");
        }
        assert!(seen(&format!("<div style='display:none'><div>pre</div>header</div>{link}")));
        assert_eq!(visible("a&amp;b<br>c<style>d</style>", "", &Sheets::default()).text.trim(), "a&b c");
    }

    #[test]
    fn urls_that_run_something_are_defused() {
        for bad in [
            "javascript:alert(1)",
            " JaVa&#115;cript:x",
            "java\tscript:x",
            "&#x6A;avascript:x",
            "vbscript:x",
            "data:text/html,x",
        ] {
            let safe =
                defuse_urls(format!("<a title=\"javascript:\" href=\"{bad}\">x</a><p>javascript:x</p>"));
            assert_eq!(safe, "<a title=\"javascript:\" href=\"#\">x</a><p>javascript:x</p>");
        }
        for good in
            ["https://x.example/?a=javascript:b", "data:image/png;base64,AA", "mailto:a@b.example", "#"]
        {
            let html = format!("<a href=\"{good}\">x</a>");
            assert_eq!(defuse_urls(html.clone()), html);
        }
        assert_eq!(defuse_urls("<a href=javascript:x>".into()), "<a href=\"#\">");
    }

    #[test]
    fn what_is_no_tag_is_text() {
        for odd in
            ["<", "a < b", "<ä", "é<", "<a href=\"x", "< p>", "</", "<!", "<!--", "&", "&#;", "&#x110000;"]
        {
            let texts: usize = Pieces::new(odd).count();
            assert!(texts >= 1, "{odd}");
            let _ = visible(odd, "u", &Sheets::default());
        }
    }

    #[test]
    fn tags_that_never_end_are_read_once() {
        let started = std::time::Instant::now();
        for never in ["<a ", "<a \"", "<a b='", "</a ", "<a/", "<a =", "<!--", "<?", "<title>", "<svg>"] {
            let html = never.repeat(250_000 / never.len());
            let _ = visible(&html, "https://x.example/", &Sheets::default());
            let _ = defuse_urls(html);
        }
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }

    proptest::proptest! {
        #[test]
        fn any_text_can_be_read(html in "[<>a-z\"'=/!& é#;-]{0,80}") {
            let _ = visible(&html, "https://x.example/", &Sheets::default());
            let _ = defuse_urls(html);
        }
    }
}
