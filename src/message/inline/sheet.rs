//! The rules of style sheets, as far as inlining must know them: whom each may match, what it sets, what it outweighs.

use cssparser::{ParseError, Parser, Token};

use super::flat::{CLOSE, OPEN};

/// What a rule sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Declaration {
    /// The property, in lower case.
    pub(super) name: String,
    /// Its value, on one line and without `!important`.
    pub(super) value: String,
    pub(super) important: bool,
}

/// A rule with one selector.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// Finds every element that the rule may match, and perhaps more.
    pub(super) broad: String,
    /// The selector and its specificity, when it can be known from the template alone whom it matches: it is made of
    /// names, classes and ids and stands under no condition.
    pub(super) sure: Option<(String, [usize; 3])>,
    pub(super) declarations: Vec<Declaration>,
}

/// Reads a style sheet in which tags of the template are marked. None when it cannot be known which rules it will hold.
/// `sure` is false for a sheet that is there on a condition.
pub(super) fn read(css: &str, sure: bool, is_fixed: &dyn Fn(&str) -> bool) -> Option<Vec<Rule>> {
    let mut sheet = Sheet { rules: Vec::new(), is_fixed };
    let mut parser = Parser::new(css);
    sheet.read_rules(&mut parser, sure).then_some(sheet.rules)
}

struct Sheet<'c> {
    rules: Vec<Rule>,
    /// Whether a value with tags of the template is the same everywhere.
    is_fixed: &'c dyn Fn(&str) -> bool,
}

/// At-rules whose inside is rules for elements.
const GROUPS: [&str; 6] = ["media", "supports", "layer", "container", "scope", "starting-style"];

impl Sheet<'_> {
    fn read_rules(&mut self, parser: &mut Parser<'_>, sure: bool) -> bool {
        loop {
            parser.skip_whitespace();
            let start = parser.position();
            let Ok(token) = parser.next() else { return true };
            let group = match token {
                Token::CDO | Token::CDC | Token::Semicolon => continue,
                Token::AtKeyword(name) => Some(GROUPS.iter().any(|group| name.eq_ignore_ascii_case(group))),
                Token::CurlyBracketBlock => return false,
                _ => None,
            };
            // Up to the block, or to the `;` of an at-rule without one.
            let prelude = loop {
                match parser.next() {
                    Ok(Token::CurlyBracketBlock) => break parser.slice_from(start).trim_end_matches('{'),
                    Ok(Token::Semicolon) if group.is_some() => break "",
                    Ok(_) => {}
                    Err(_) => return group.is_some(),
                }
            };
            if prelude.is_empty() || group == Some(false) {
                continue;
            }
            let inside = |parser: &mut Parser<'_>| -> Result<bool, ParseError<()>> {
                Ok(match group {
                    Some(_) => self.read_rules(parser, false),
                    None => self.read_rule(parser, prelude, sure),
                })
            };
            if !parser.parse_nested_block(inside).unwrap_or(false) {
                return false;
            }
        }
    }

    fn read_rule(&mut self, parser: &mut Parser<'_>, prelude: &str, sure: bool) -> bool {
        // Where a tag of the template stands among selectors, anything may come of it.
        let Some(prelude) = without_comments(prelude).filter(|prelude| !prelude.contains([OPEN, CLOSE]))
        else {
            return false;
        };
        let Some(declarations) = read_declarations(parser) else { return false };
        let fixed = declarations.iter().all(|declaration| (self.is_fixed)(&declaration.value));
        for selector in split(&prelude, |c| c == ',') {
            let selector = selector.trim();
            let sure =
                specificity(selector).filter(|_| sure && fixed).map(|weight| (selector.to_owned(), weight));
            self.rules.push(Rule { broad: broad(selector), sure, declarations: declarations.clone() });
        }
        true
    }
}

/// None when something but declarations stands there: nested rules, or tags of the template.
fn read_declarations(parser: &mut Parser<'_>) -> Option<Vec<Declaration>> {
    let mut declarations = Vec::new();
    loop {
        parser.skip_whitespace();
        let start = parser.position();
        let ended = loop {
            match parser.next() {
                Ok(Token::Semicolon) => break false,
                Ok(Token::CurlyBracketBlock) => return None,
                Ok(_) => {}
                Err(_) => break true,
            }
        };
        let before = without_comments(parser.slice_from(start).trim_end_matches(';'))?;
        let before = before.replace(['\r', '\n', '\t'], " ");
        if let Some((name, value)) = before.split_once(':') {
            let name = name.trim().to_ascii_lowercase();
            let (value, important) = without_important(value.trim());
            if name.contains([OPEN, CLOSE]) {
                return None;
            }
            if is_ident(&name) && !value.is_empty() {
                declarations.push(Declaration { name, value: value.to_owned(), important });
            }
        } else if before.contains([OPEN, CLOSE]) {
            return None;
        }
        if ended {
            return Some(declarations);
        }
    }
}

fn is_ident(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn without_important(value: &str) -> (&str, bool) {
    let bang = value.rfind('!').filter(|at| value[at + 1..].trim().eq_ignore_ascii_case("important"));
    bang.map_or((value, false), |at| (value[..at].trim_end(), true))
}

/// None when a comment is not closed, or may be none: one that begins in a string.
fn without_comments(text: &str) -> Option<String> {
    let mut bare = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("/*") {
        bare.push_str(&rest[..at]);
        bare.push(' ');
        rest = &rest[at + rest[at..].find("*/")? + 2..];
    }
    bare.push_str(rest);
    (bare.len() == text.len() || !text.contains(['"', '\''])).then_some(bare)
}

/// Cuts where `ends` says, outside of brackets, parentheses and strings.
fn split(text: &str, ends: impl Fn(char) -> bool) -> Vec<&str> {
    let (mut parts, mut from, mut depth, mut quote, mut escaped) = (Vec::new(), 0, 0_usize, None, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if quote == Some(c) => quote = None,
            _ if quote.is_some() => {}
            '"' | '\'' => quote = Some(c),
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ if depth == 0 && ends(c) => {
                parts.push(&text[from..at]);
                from = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

/// Ids, classes and names of a selector of nothing else, joined as descendants and children.
fn specificity(selector: &str) -> Option<[usize; 3]> {
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '#' | '*' | '>') || c == ' ';
    let selector = selector.replace(['\n', '\r', '\t'], " ");
    if selector.is_empty() || !selector.chars().all(plain) {
        return None;
    }
    let mut weight = [0; 3];
    for compound in selector.split([' ', '>']).filter(|compound| !compound.is_empty()) {
        weight[0] += compound.matches('#').count();
        weight[1] += compound.matches('.').count();
        weight[2] += usize::from(!compound.starts_with(['.', '#', '*']));
    }
    Some(weight)
}

/// The name and the classes of what stands last: what else a selector asks for is not asked.
fn broad(selector: &str) -> String {
    if selector.contains(['\\', '|', '&']) || !selector.is_ascii() {
        return "*".into();
    }
    let last = split(selector, |c| c.is_whitespace() || matches!(c, '>' | '+' | '~'))
        .into_iter()
        .rev()
        .find(|compound| !compound.is_empty())
        .unwrap_or("");
    let last = last.split([':', '[']).next().unwrap_or("");
    let mut kept = String::new();
    let mut from = 0;
    for at in last.char_indices().skip(1).filter(|(_, c)| matches!(c, '.' | '#')).map(|(at, _)| at) {
        kept.push_str(if last[from..at].starts_with('#') { "" } else { &last[from..at] });
        from = at;
    }
    kept.push_str(if last[from..].starts_with('#') { "" } else { &last[from..] });
    if kept.is_empty() { "*".into() } else { kept }
}

/// Whether setting one of these properties may change what the other one sets.
pub(super) fn are_related(a: &str, b: &str) -> bool {
    // It only sounds like a part of the colour.
    if a == "color-scheme" || b == "color-scheme" {
        return a == b;
    }
    let part_of = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('-'));
    if a == b || a == "all" || b == "all" || part_of(a, b) || part_of(b, a) {
        return true;
    }
    if matches!((a, b), ("font", "line-height") | ("line-height", "font")) {
        return true;
    }
    // `border-color` and `border-top`, `margin-inline` and `margin-left` overlap; two different sides do not.
    let side = |name: &str| ["top", "right", "bottom", "left"].into_iter().find(|side| name.contains(side));
    let family =
        ["border", "margin", "padding"].into_iter().any(|family| part_of(a, family) && part_of(b, family));
    family && !matches!((side(a), side(b)), (Some(a), Some(b)) if a != b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sure(css: &str) -> Vec<(String, [usize; 3])> {
        read(css, true, &|value| !value.contains(OPEN))
            .unwrap()
            .into_iter()
            .filter_map(|rule| rule.sure)
            .collect()
    }

    #[test]
    fn only_what_is_plain_and_unconditional_is_sure() {
        let css =
            "/* a { */ h1, td.b > .c #d { color : RED!important; margin:0 } a:hover,li+li,p[x]{color:blue}
            @media (max-width:9px) { h1 { color: green } } @font-face{src:url(x)} @import 'x'; b{color:red}";
        assert_eq!(
            sure(css),
            [("h1".into(), [0, 0, 1]), ("td.b > .c #d".into(), [1, 2, 1]), ("b".into(), [0, 0, 1])]
        );
        let rules = read(css, true, &|value| !value.contains(OPEN)).unwrap();
        let broad: Vec<&str> = rules.iter().map(|rule| rule.broad.as_str()).collect();
        assert_eq!(broad, ["h1", "*", "a", "li", "p", "h1", "b"]);
        let first = &rules[0].declarations;
        assert_eq!(
            (first[0].name.as_str(), first[0].value.as_str(), first[0].important),
            ("color", "RED", true)
        );
        assert_eq!(
            (first[1].name.as_str(), first[1].value.as_str(), first[1].important),
            ("margin", "0", false)
        );
        assert!(read(css, false, &|_| true).unwrap().iter().all(|rule| rule.sure.is_none()));
    }

    #[test]
    fn functions_and_strings_in_values_stay_whole() {
        let css =
            "a{background:url(\"data:image/png;base64,x{\") no-repeat;width:calc(1px + (2px))}b{content:';'}";
        let rules = read(css, true, &|value| !value.contains(OPEN)).unwrap();
        assert_eq!(rules[0].declarations[0].value, "url(\"data:image/png;base64,x{\") no-repeat");
        assert_eq!(rules[0].declarations[1].value, "calc(1px + (2px))");
        assert_eq!(rules[1].declarations[0].value, "';'");
    }

    #[test]
    fn values_of_the_template_make_a_rule_unsure_and_rules_of_it_the_sheet_unknown() {
        let rules =
            read(&format!("a{{color:{OPEN}1{CLOSE}}}b{{color:red}}"), true, &|value| !value.contains(OPEN))
                .unwrap();
        assert!(rules[0].sure.is_none() && rules[1].sure.is_some());
        for css in [".{}{color:red}", "{}a{color:red}", "a{{}}", "a{{}:red}", "a{b{color:red}}"] {
            let css = css.replacen("{}", &format!("{OPEN}1{CLOSE}"), 1);
            assert!(read(&css, true, &|_| false).is_none(), "{css}");
        }
    }

    #[test]
    fn shorthands_are_related_to_what_they_hold() {
        for (a, b) in
            [("margin", "margin-left"), ("border-top", "border-color"), ("font", "font-size"), ("all", "x")]
        {
            assert!(are_related(a, b) && are_related(b, a));
        }
        for (a, b) in
            [("margin-left", "margin-right"), ("font-size", "font-weight"), ("color", "background-color")]
        {
            assert!(!are_related(a, b));
        }
    }
}
