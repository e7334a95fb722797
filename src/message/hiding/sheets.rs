//! What the style sheets of a message may hide.
//!
//! A rule is known by the last name in its selector: what bears that class, that id or that name may be hidden, whatever
//! else the selector asks for and whatever media it applies to. A rule that has no such name, moves what it matches over
//! other elements, or cannot be read, may hide anything.

use std::collections::HashSet;

use super::{block_may_hide, block_moves, cuts_off, hides, is_root};
use crate::message::html::{Piece, Pieces, Tag};

/// What style sheets, and what `<html>` and `<body>` say of themselves, may hide. Names are in lower case, as documents
/// without a doctype are matched.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::message) struct Sheets {
    anything: bool,
    classes: HashSet<String>,
    ids: HashSet<String>,
    elements: HashSet<String>,
}

/// What a selector may match, by its last name.
enum Subject<'s> {
    Class(&'s str),
    Id(&'s str),
    Element(&'s str),
    /// A box that is made before or after an element.
    Generated,
    Anything,
}

impl Sheets {
    /// Reads all of them in this HTML.
    pub(in crate::message) fn of(html: &str) -> Self {
        let mut sheets = Self::default();
        let mut in_style = false;
        for piece in Pieces::new(html) {
            match piece {
                Piece::Tag(tag) => {
                    in_style = !tag.closing && tag.is("style");
                    let loads = tag.is("link")
                        && tag
                            .attribute("rel")
                            .is_some_and(|rel| rel.to_ascii_lowercase().contains("stylesheet"));
                    let moves = || tag.attribute("style").is_some_and(|style| block_moves(&style));
                    sheets.anything |= !tag.closing && (loads || is_root(&tag) && hides(&tag) || moves());
                }
                Piece::Hidden(css) if std::mem::take(&mut in_style) => sheets.read(css),
                Piece::Hidden(_) | Piece::Text(_) => {}
            }
        }
        sheets
    }

    /// Whether anything may be hidden.
    pub(in crate::message) fn may_hide_anything(&self) -> bool {
        self.anything
    }

    /// Whether an element of the footer may be.
    pub(in crate::message) fn may_hide_footer(&self) -> bool {
        let elements = ["div", "p", "a", "bdi", "br"];
        self.anything
            || self.classes.contains("t-foot")
            || elements.iter().any(|name| self.elements.contains(*name))
    }

    /// Whether the element of this start tag may be.
    pub(in crate::message) fn may_hide(&self, tag: &Tag<'_>) -> bool {
        let has = |names: &HashSet<String>, name: &str| names.contains(&name.to_ascii_lowercase());
        let class = || tag.attribute("class").unwrap_or_default();
        let id = || tag.attribute("id").unwrap_or_default();
        self.anything
            || !self.elements.is_empty() && has(&self.elements, tag.name)
            || !self.classes.is_empty() && class().split_ascii_whitespace().any(|one| has(&self.classes, one))
            || !self.ids.is_empty() && has(&self.ids, &id())
    }

    fn read(&mut self, css: &str) {
        let Some(plain) = plain(css) else {
            self.anything = true;
            return;
        };
        // What is small hides something only where what is too large for it is cut off.
        let cuts = cuts_off(&plain);
        self.anything |= plain.to_ascii_lowercase().contains("@import");
        for (before, block) in rules(&plain) {
            // Where rules are nested, declarations of the outer one may stand before the inner one.
            let outer = before.rsplit_once(['{', ';']).map_or("", |(outer, _)| outer);
            self.anything |= outer.split('{').any(|block| block_may_hide(block, cuts));
            let moves = block_moves(block);
            if !moves && !block_may_hide(block, cuts) {
                continue;
            }
            for selector in selectors(before) {
                match subject(&selector) {
                    Subject::Generated if !moves => {}
                    Subject::Class(name) if !moves => _ = self.classes.insert(name.to_ascii_lowercase()),
                    Subject::Id(name) if !moves => _ = self.ids.insert(name.to_ascii_lowercase()),
                    Subject::Element(name) if !moves => _ = self.elements.insert(name.to_ascii_lowercase()),
                    _ => self.anything = true,
                }
            }
        }
    }
}

/// What the last part of a selector names, brackets left out.
fn subject(selector: &str) -> Subject<'_> {
    // They are there without a tag, or are all of the document.
    const UNTAGGED: [&str; 7] = ["html", "body", "tbody", "tr", "colgroup", "from", "to"];
    if selector.contains(['@', '&', '\\', '|']) {
        return Subject::Anything;
    }
    let last =
        selector.trim().rsplit([' ', '\t', '\n', '\r', '\u{c}', '>', '+', '~']).next().unwrap_or_default();
    let (names, pseudo) = last.split_once(':').unwrap_or((last, ""));
    if pseudo.contains("before") || pseudo.contains("after") {
        return Subject::Generated;
    }
    let (before, name) = match names.rfind(['.', '#']) {
        Some(at) => names.split_at(at),
        None => ("", names),
    };
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    match (name.strip_prefix('.'), name.strip_prefix('#')) {
        (Some(class), _) if is_name(class) => Subject::Class(class),
        (_, Some(id)) if is_name(id) => Subject::Id(id),
        (None, None)
            if before.is_empty()
                && is_name(name)
                && !UNTAGGED.iter().any(|u| u.eq_ignore_ascii_case(name)) =>
        {
            Subject::Element(name)
        }
        _ => Subject::Anything,
    }
}

/// Whether any style sheet is so.
pub(super) fn any_sheet(html: &str, holds: impl Fn(&str) -> bool) -> bool {
    let mut in_style = false;
    Pieces::new(html).any(|piece| match piece {
        Piece::Tag(tag) => {
            in_style = !tag.closing && tag.is("style");
            false
        }
        Piece::Hidden(css) => std::mem::take(&mut in_style) && holds(css),
        Piece::Text(_) => false,
    })
}

/// A style sheet without comments and without what strings and URLs hold. None for one with escapes, or with a string
/// that does not end: only a browser can read these.
pub(super) fn plain(css: &str) -> Option<String> {
    if css.contains('\\') {
        return None;
    }
    let mut plain = String::with_capacity(css.len());
    let mut rest = css;
    while let Some(at) = rest.find(['"', '\'', '/', '(', '<', '-']) {
        let (before, from) = rest.split_at(at);
        plain.push_str(before);
        let is_url = plain.len() >= 3
            && plain.get(plain.len() - 3..).is_some_and(|name| name.eq_ignore_ascii_case("url"));
        rest = if let Some(comment) = from.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, after)| after)
        } else if let Some(after) = from.strip_prefix("<!--").or_else(|| from.strip_prefix("-->")) {
            plain.push(' ');
            after
        } else if let Some(url) = from.strip_prefix('(').filter(|url| is_url && !is_quoted(url)) {
            plain.push_str("()");
            url.split_once(')').map_or("", |(_, after)| after)
        } else if from.starts_with(['"', '\'']) {
            let (quote, string) = from.split_at(1);
            let (within, after) = string.split_once(quote)?;
            if within.contains(['\n', '\r', '\u{c}']) {
                return None;
            }
            plain.push_str("\"\"");
            after
        } else {
            let (one, after) = from.split_at(1);
            plain.push_str(one);
            after
        };
    }
    plain.push_str(rest);
    Some(plain)
}

fn is_quoted(url: &str) -> bool {
    url.trim_start().starts_with(['"', '\''])
}

/// What stands before the inmost braces, and what in them.
pub(super) fn rules(plain: &str) -> impl Iterator<Item = (&str, &str)> {
    plain.split('}').map(|chunk| chunk.rsplit_once('{').unwrap_or(("", chunk)))
}

/// The selectors at the end of what stands before a rule, without all that stands in brackets; at least one.
fn selectors(before: &str) -> impl Iterator<Item = String> {
    let list = before.rsplit(['{', ';']).next().unwrap_or_default();
    let mut flat = String::with_capacity(list.len());
    let mut depth = 0_usize;
    for c in list.chars() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ if depth == 0 => flat.push(c),
            _ => {}
        }
    }
    flat.split(',').map(str::to_owned).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hides_link(css: &str, link: &str) -> bool {
        let html = format!("<style>{css}</style>{link}");
        let sheets = Sheets::of(&html);
        sheets.may_hide_anything() || !crate::message::html::visible(&html, "u", &sheets).has_link
    }

    #[test]
    fn a_rule_is_held_against_what_bears_the_last_name_of_its_selector() {
        let link = "<div class='box foot'><p id=last><a CLASS=\"x Off\" href=u>Stop</a></p></div>";
        for css in [
            ".hide-mobile{display:none}",
            "@media (max-width:600px){.wide,td.wide{display:none!important;max-height:0;overflow:hidden}}",
            "<!-- .preheader{display:none!important;visibility:hidden;mso-hide:all;font-size:1px;color:transparent} -->",
            "[data-ogsc] .light-img , .foot .dark-img{display:none!important}",
            ".clear:after{content:\"\";display:table;clear:both}",
            "img[alt=\"} .off{\"], .x b{display:none}",
            ".a{background:url(https://x.example/a;b}c.png);margin:0 -8px}.b{display:none}",
            ".a{color:red;.b{display:none}}",
            "@supports (display:grid){ u + .body .gone{display:none} }",
        ] {
            assert!(!hides_link(css, link), "{css}");
        }
        for css in [
            ".foot{display:none}",
            "@media (max-width:600px){table .Foot:first-child{display:none}}",
            "#last{opacity:0}",
            "div:not(.box){display:none}",
            ".y,.off{font-size:0}",
            "a{visibility:hidden}",
            ".other:is(a,b){}*{display:none}",
            ".z:hover,[href]{display:none}",
            ".a{content:\"/*\"} .foot{display:none} /* */",
            ".a{background:url(/*)} .foot{display:none} /* */",
            ".b{.a{color:red} display:none}",
            ".foot{display:none;.b{color:red}}",
            ".foot{&:hover{display:none}}",
            ".foot{@media all{display:none}}",
            ".elsewhere{position:absolute;top:0}",
            ".elsewhere{margin-bottom:-400px}",
            ".elsewhere::before{content:\"\";position:fixed}",
            ".elsewhere{content:\"x\n} .foot{display:none}",
            ".foot/**/{display:none}",
            ".é,.b.é{display:none}",
            "tbody{display:none}",
            ".b|a{display:none}",
        ] {
            assert!(hides_link(css, link), "{css}");
        }
        let misnested = "<div class=off><table><tr><td></div><a href=u>Stop</a>";
        assert!(hides_link(".off{display:none}", misnested));
        assert!(hides_link("", "<div style='margin-bottom:-900px'>x</div><a href=u>Stop</a>"));
        assert!(hides_link("", "<svg><![CDATA[></svg><a href=u>Stop</a>]]></svg>"));
    }
}
