//! A look at a template's tags before it is parsed.
//!
//! The parser and everything after it recurse with the depth of a template, so depth is bounded here, by a scan that
//! takes one pass and no recursion. The scan must never see less depth than the parser: what it could read in another
//! way than the parser does (`{{` inside a tag, a quote in brackets, raw blocks, escaped tags) is refused.

use std::ops::Range;

/// Longest template in octets.
pub(in crate::message) const MAX_SOURCE: usize = 256 * 1024;
/// Longest run of backslashes.
const MAX_BACKSLASHES: usize = 20;
/// Most tags in one template.
const MAX_TAGS: usize = 5_000;
/// Most tags times octets: for each tag the parser counts lines from the start, about 20 ns an octet unoptimised.
const MAX_PRODUCT: usize = 100_000_000;
/// Longest tag in octets.
const MAX_TAG: usize = 1_000;
/// Deepest nesting of blocks in one template; each `else if` counts as one.
const MAX_BLOCKS: usize = 48;
/// Deepest nesting of parentheses in a tag.
const MAX_PARENS: usize = 6;

/// What a tag does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::message) enum Kind {
    /// `{{! … }}`
    Comment,
    /// `{{#if …}}`
    Open,
    /// `{{else}}`, `{{^}}` and `{{else if …}}`
    Else,
    /// `{{/if}}`
    Close,
    /// Anything else: a value, a helper, a partial.
    Value,
}

/// A tag and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::message) struct Tag {
    pub(in crate::message) span: Range<usize>,
    pub(in crate::message) kind: Kind,
}

/// What is wrong with a template and where, as an offset in octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::message) struct Fault {
    pub(in crate::message) at: usize,
    pub(in crate::message) reason: String,
}

impl Fault {
    fn new<T>(at: usize, reason: impl Into<String>) -> Result<T, Self> {
        Err(Self { at, reason: reason.into() })
    }

    /// Line and column, both from 1; columns count characters.
    pub(in crate::message) fn position(&self, source: &str) -> (usize, usize) {
        let before = source.get(..self.at).unwrap_or(source);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        (line, before[start..].chars().count() + 1)
    }
}

/// Finds the tags and holds the template to its bounds.
pub(in crate::message) fn scan(source: &str) -> Result<Vec<Tag>, Fault> {
    if source.len() > MAX_SOURCE {
        return Fault::new(MAX_SOURCE, format!("longer than {MAX_SOURCE} octets; shorten it"));
    }
    // The parser looks ahead from each backslash to the end of its run.
    if let Some(at) = source.find(&"\\".repeat(MAX_BACKSLASHES + 1)) {
        return Fault::new(at, format!("more than {MAX_BACKSLASHES} backslashes in a row"));
    }
    let mut tags: Vec<Tag> = Vec::new();
    // For each open block how deep it makes the tree: itself and its `else if`s.
    let mut open: Vec<usize> = Vec::new();
    let mut from = 0;
    while let Some(at) = source[from..].find("{{").map(|at| from + at) {
        let tag = read_tag(source, at)?;
        match tag.kind {
            Kind::Open => open.push(1),
            Kind::Else if is_chained(&source[tag.span.clone()]) => {
                if let Some(depth) = open.last_mut() {
                    *depth += 1;
                }
            }
            Kind::Close => {
                open.pop();
            }
            _ => {}
        }
        if open.iter().sum::<usize>() > MAX_BLOCKS {
            return Fault::new(at, format!("blocks are nested more than {MAX_BLOCKS} deep"));
        }
        from = tag.span.end;
        tags.push(tag);
        if tags.len() > MAX_TAGS {
            return Fault::new(at, format!("more than {MAX_TAGS} tags; shorten it"));
        }
        if tags.len() * source.len() > MAX_PRODUCT {
            return Fault::new(at, "too many tags for so long a template; move parts of it into partials");
        }
    }
    Ok(tags)
}

fn is_chained(tag: &str) -> bool {
    let inner = tag.trim_matches(['{', '}', '~', ' ', '\t', '\r', '\n']);
    let rest = inner.strip_prefix("else").or_else(|| inner.strip_prefix('^')).unwrap_or("");
    !rest.trim().is_empty()
}

fn read_tag(source: &str, at: usize) -> Result<Tag, Fault> {
    let backslashes = source[..at].bytes().rev().take_while(|b| *b == b'\\').count();
    if backslashes == 1 {
        return Fault::new(at, "escaped tags are not available; remove the backslash");
    }
    let rest = &source[at..];
    if rest.starts_with("{{{{") {
        return Fault::new(at, "raw blocks are not available");
    }
    if rest.starts_with("{{!") {
        return read_comment(rest, at);
    }
    let triple = rest.starts_with("{{{");
    let start = if triple { 3 } else { 2 };
    let inner_end = end_of_inner(rest, start, at)?;
    let close = if triple { "}}}" } else { "}}" };
    if !rest[inner_end..].starts_with(close) {
        return Fault::new(at, format!("this tag must end with {close}"));
    }
    let end = inner_end + close.len();
    if end > MAX_TAG {
        return Fault::new(at, format!("this tag is longer than {MAX_TAG} octets"));
    }
    let inner = rest[start..inner_end].trim_matches(['~', ' ', '\t', '\r', '\n']);
    let kind = if triple { Kind::Value } else { kind_of(inner, at)? };
    Ok(Tag { span: at..at + end, kind })
}

fn read_comment(rest: &str, at: usize) -> Result<Tag, Fault> {
    let body = &rest[3..];
    let dashed = body.trim_start_matches([' ', '\t', '\r', '\n']);
    let long = dashed.strip_prefix("--").and_then(|inner| {
        let skipped = rest.len() - inner.len();
        inner.find("--}}").map(|end| skipped + end + 4)
    });
    match long.or_else(|| body.find("}}").map(|end| 3 + end + 2)) {
        Some(end) => Ok(Tag { span: at..at + end, kind: Kind::Comment }),
        None => Fault::new(at, "this comment is not closed"),
    }
}

/// Where the inside of a tag ends, reading strings and brackets as the parser does.
fn end_of_inner(rest: &str, start: usize, at: usize) -> Result<usize, Fault> {
    let bytes = rest.as_bytes();
    let mut parens = 0_usize;
    let mut i = start;
    while let Some(&byte) = bytes.get(i) {
        match byte {
            b'"' | b'\'' => i = end_of_string(rest, i, at)?,
            b'[' => {
                let Some(length) = rest[i..].find(']') else {
                    return Fault::new(at + i, "a bracket in this tag is not closed");
                };
                if rest[i + 1..i + length].contains(['"', '\'', '[', '{', '}']) {
                    return Fault::new(at + i, "brackets in a tag may hold no quotes, brackets or braces");
                }
                i += length;
            }
            b'(' => {
                parens += 1;
                if parens > MAX_PARENS {
                    return Fault::new(at + i, format!("parentheses are nested more than {MAX_PARENS} deep"));
                }
            }
            b')' => parens = parens.saturating_sub(1),
            b'}' if bytes.get(i + 1) == Some(&b'}') => return Ok(i),
            b'{' | b'}' => return Fault::new(at, "this tag is not closed, or holds a brace"),
            _ => {}
        }
        i += 1;
    }
    Fault::new(at, "this tag is not closed")
}

fn end_of_string(rest: &str, start: usize, at: usize) -> Result<usize, Fault> {
    let bytes = rest.as_bytes();
    let mut i = start + 1;
    while let Some(&byte) = bytes.get(i) {
        if byte == bytes[start] {
            let inside = &rest[start..i];
            if inside.contains("{{") || inside.contains("}}") {
                return Fault::new(at + start, "a string in a tag may hold neither {{ nor }}");
            }
            return Ok(i);
        }
        i += if byte == b'\\' { 2 } else { 1 };
    }
    Fault::new(at + start, "a string in this tag is not closed")
}

fn kind_of(inner: &str, at: usize) -> Result<Kind, Fault> {
    let after_else = inner.strip_prefix("else").and_then(|rest| rest.chars().next());
    Ok(match inner.chars().next() {
        Some('#') => match inner[1..].trim_start().chars().next() {
            Some('*') => return Fault::new(at, "inline partials are not available"),
            Some('>') => return Fault::new(at, "partial blocks are not available; use {{> name}}"),
            _ => Kind::Open,
        },
        Some('*') => return Fault::new(at, "decorators are not available"),
        Some('/') => Kind::Close,
        Some('^') => Kind::Else,
        _ if inner == "else" || after_else.is_some_and(|c| c.is_whitespace() || c == '~') => Kind::Else,
        _ => Kind::Value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(source: &str) -> Vec<Kind> {
        scan(source).unwrap().into_iter().map(|tag| tag.kind).collect()
    }

    #[test]
    fn tags_are_found_and_known() {
        use Kind::{Close, Comment, Else, Open, Value};
        assert_eq!(
            kinds("a {{#if x}}{{y}}{{else if z}}{{^}}{{/if}}{{!-- {{#if}} --}}{{> p}}{{{raw}}}{{~w~}}"),
            [Open, Value, Else, Else, Close, Comment, Value, Value, Value]
        );
        assert_eq!(kinds("{{elsewhere}}{{! a }}b}}"), [Value, Comment]);
        assert_eq!(kinds(r#"{{lookup data "a b"}}{{data.[first name]}}"#), [Value, Value]);
    }

    #[test]
    fn what_could_hide_depth_is_refused() {
        for source in [
            r"\{{a}}",
            "{{{{raw}}}} {{/if}} {{{{/raw}}}}",
            r#"{{#if "}}{{/if}}"}}"#,
            r#"{{#if a.["]}}{{/if}}{{b.["]}}"#,
            "{{#*inline \"x\"}}{{/inline}}",
            "{{#> layout}}{{/layout}}",
            "{{* x}}",
            "{{a",
            "{{a {{b}}",
            "{{a \"b}}",
            "{{!-- a",
        ] {
            assert!(scan(source).is_err(), "{source}");
        }
    }

    #[test]
    fn depth_is_bounded_whatever_makes_it() {
        let deep = |n: usize| "{{#if a}}".repeat(n) + &"{{/if}}".repeat(n);
        assert!(scan(&deep(MAX_BLOCKS)).is_ok());
        assert!(scan(&deep(MAX_BLOCKS + 1)).is_err());
        assert!(scan(&deep(2_000)).is_err());
        let hidden = "{{#if a}}{{!-- {{/if}} --}}".repeat(2_000);
        assert!(scan(&hidden).is_err());
        let chain = format!("{{{{#if a}}}}{}{{{{/if}}}}", "{{else if b}}".repeat(MAX_BLOCKS));
        assert!(scan(&chain).is_err());
        assert!(scan(&format!("{{{{{}a{}}}}}", "(".repeat(40), ")".repeat(40))).is_err());
    }

    #[test]
    fn a_fault_names_line_and_column() {
        let source = "one\ntwö {{a";
        let fault = scan(source).unwrap_err();
        assert_eq!(fault.position(source), (2, 5));
    }
}
