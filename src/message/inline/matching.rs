//! Which rules match which elements: css-inline matches them, on a copy of the document that holds nothing but elements
//! and classes, each rule setting a property that only says its number.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use css_inline::CSSInliner;

use super::elements::{Element, Elements, Step};
use super::flat::{CLOSE, OPEN};
use super::sheet::Rule;
use crate::message::html::{Piece, Pieces, Tag};

/// Most elements times rules: half a second of work.
const MAX_PRODUCT: usize = 4_000_000;
/// Deepest nesting of elements.
const MAX_DEPTH: usize = 200;
/// The attribute that carries the number of an element.
const NUMBER: &str = "data-n";
/// Elements left out of the copy: they are never seen, or have no HTML inside.
const LEFT_OUT: [&str; 12] = [
    "script",
    "style",
    "title",
    "textarea",
    "iframe",
    "noembed",
    "noframes",
    "xmp",
    "plaintext",
    "link",
    "meta",
    "base",
];

/// For each element the rules that match it, by number.
pub(super) struct Matches {
    /// However the template is rendered.
    pub(super) surely: Vec<BTreeSet<usize>>,
    /// In one rendering or another, and perhaps in none.
    pub(super) perhaps: Vec<BTreeSet<usize>>,
}

/// Matches rules and elements. None for what would take too long.
pub(super) fn find(elements: &Elements<'_>, rules: &[Rule]) -> Option<Matches> {
    if elements.all.len() * rules.len() > MAX_PRODUCT || deepest(elements) > MAX_DEPTH {
        return None;
    }
    let sure = rules.iter().map(|rule| rule.sure.as_ref().map(|(selector, _)| selector.as_str()));
    let sure = sheet_of(sure);
    let broad =
        rules.iter().map(|rule| Some(rule.sure.as_ref().map_or(rule.broad.as_str(), |(sure, _)| sure)));
    let broad = sheet_of(broad);
    // Whose classes are a matter of data may have each of them.
    let classes: BTreeSet<&str> = rules
        .iter()
        .flat_map(|rule| [Some(rule.broad.as_str()), rule.sure.as_ref().map(|(sure, _)| sure.as_str())])
        .flatten()
        .flat_map(|selector| selector.split('.').skip(1))
        .map(|rest| rest.split([' ', '>', '#', '*']).next().unwrap_or(rest))
        .collect();
    let classes: Vec<&str> = classes.into_iter().collect();
    let surely = run(&copy(elements, ""), sure, elements.all.len(), |found, more| {
        found.intersection(&more).copied().collect()
    })?;
    let all = copy(elements, &classes.join(" "));
    let perhaps = run(&all, broad, elements.all.len(), |found, more| found.union(&more).copied().collect())?;
    Some(Matches { surely, perhaps })
}

fn deepest(elements: &Elements<'_>) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for step in &elements.order {
        depth = if matches!(step, Step::Start(_)) { depth + 1 } else { depth.saturating_sub(1) };
        deepest = deepest.max(depth);
    }
    deepest
}

fn sheet_of<'r>(selectors: impl Iterator<Item = Option<&'r str>>) -> String {
    let numbered = selectors.enumerate().filter_map(|(number, selector)| Some((number, selector?)));
    numbered.map(|(number, selector)| format!("{selector}{{--r{number}:1}}\n")).collect()
}

/// The document with nothing but its elements, their classes and ids; those that are a matter of data have `classes`.
fn copy(elements: &Elements<'_>, classes: &str) -> String {
    let mut copy = String::from("<!doctype html>\n");
    for step in &elements.order {
        match step {
            Step::End(name) if is_copied(name) => copy.push_str(&format!("</{name}>")),
            Step::Start(number) => {
                let Some(element) = elements.all.get(*number).filter(|element| is_copied(element.name()))
                else {
                    continue;
                };
                copy.push_str(&format!("<{} {NUMBER}=\"{number}\"", element.name()));
                copy.push_str(&attributes(element, classes));
                copy.push('>');
            }
            Step::End(_) => {}
        }
    }
    copy
}

fn is_copied(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !LEFT_OUT.iter().any(|other| other.eq_ignore_ascii_case(name))
}

fn attributes(element: &Element<'_>, classes: &str) -> String {
    if element.is_dynamic {
        return if classes.is_empty() { String::new() } else { format!(" class=\"{classes}\"") };
    }
    let named = |name: &str| {
        let own = element.tag.attributes.iter().find(|a| a.name.eq_ignore_ascii_case(name));
        own.map(|a| format!(" {name}=\"{}\"", a.value.replace('"', "&quot;"))).unwrap_or_default()
    };
    named("class") + &named("id")
}

fn run(
    html: &str,
    css: String,
    count: usize,
    again: impl Fn(BTreeSet<usize>, BTreeSet<usize>) -> BTreeSet<usize>,
) -> Option<Vec<BTreeSet<usize>>> {
    // Nothing is ever loaded: the crate is built without a way to, and there are no links in the copy.
    let inliner = CSSInliner::options().load_remote_stylesheets(false).extra_css(Some(css.into())).build();
    let done = catch_unwind(AssertUnwindSafe(|| inliner.inline(html))).ok()?.ok()?;
    let mut found: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for piece in Pieces::new(&done) {
        let Piece::Tag(tag) = piece else { continue };
        let Some(number) = tag.attribute(NUMBER).and_then(|number| number.parse::<usize>().ok()) else {
            continue;
        };
        let rules = rules_of(&tag);
        let merged = match found.remove(&number) {
            // A browser makes two elements of one start tag where elements overlap.
            Some(before) => again(before, rules),
            None => rules,
        };
        found.insert(number, merged);
    }
    Some((0..count).map(|number| found.remove(&number).unwrap_or_default()).collect())
}

fn rules_of(tag: &Tag<'_>) -> BTreeSet<usize> {
    let style = tag.attribute("style").unwrap_or_default();
    let names = style.split(';').filter_map(|declaration| declaration.split_once(':'));
    names.filter_map(|(name, _)| name.trim().strip_prefix("--r")?.parse().ok()).collect()
}

/// Whether a text holds a mark of the template.
pub(super) fn is_marked(text: &str) -> bool {
    text.contains([OPEN, CLOSE])
}
