//! A template with its conditions decided, so that each branch is said at least once: for whoever judges all that it may
//! ever say, whatever a condition asks for. Pure; nothing is sent from it.

use std::collections::{BTreeMap, BTreeSet};

use super::template::scan::{Kind, Tag, scan};
use super::{Frozen, Partial};

/// Most conditions of one part, those of what it includes among them.
pub const MAX_CONDITIONS: usize = 60;
/// Longest part with all that it includes in place, in octets.
const MAX_OCTETS: usize = 200 * 1024;
/// How deep partials are followed; content that goes deeper cannot be compiled.
const MAX_DEEP: usize = 13;

/// Contents that say, together, every branch of every part, with what they include in place; none when there are more
/// conditions than can be tried, or a part is too long with all that it includes.
pub fn branches(frozen: &Frozen) -> Option<Vec<Frozen>> {
    let part = |source: &str, pick: fn(&Partial) -> &str| {
        let mut flat = String::new();
        lay_out(source, &frozen.partials, pick, MAX_DEEP, &mut flat)?;
        decided(&flat)
    };
    let subject = part(&frozen.subject, |partial| &partial.text)?;
    let html = part(&frozen.html, |partial| &partial.html)?;
    let text = part(&frozen.text, |partial| &partial.text)?;
    let most = subject.len().max(html.len()).max(text.len());
    // What has fewer branches is said again as it is when all holds.
    let nth = |of: &[String], n: usize| of.get(n).or(of.first()).cloned().unwrap_or_default();
    let one = |n| Frozen {
        subject: nth(&subject, n),
        html: nth(&html, n),
        text: nth(&text, n),
        partials: BTreeMap::new(),
        ..frozen.clone()
    };
    Some((0..most).map(one).collect())
}

/// The HTML part with what it includes in place, a mark for each tag of a block and nothing for its other tags; none when
/// it is too long. It shows where conditions begin and end.
pub fn blocks_marked(frozen: &Frozen, mark: char) -> Option<String> {
    let mut flat = String::new();
    lay_out(&frozen.html, &frozen.partials, |partial| &partial.html, MAX_DEEP, &mut flat)?;
    let mut marked = String::with_capacity(flat.len());
    let mut from = 0;
    for tag in scan(&flat).ok()? {
        marked.push_str(&flat[from..tag.span.start]);
        if matches!(tag.kind, Kind::Open | Kind::Else | Kind::Close) {
            marked.push(mark);
        }
        from = tag.span.end;
    }
    marked.push_str(&flat[from..]);
    Some(marked)
}

/// The words that stand in the tags of a template and of all that it includes, comments left out: every name that it asks
/// for is among them.
pub fn names(frozen: &Frozen) -> BTreeSet<String> {
    let partials = frozen.partials.values().flat_map(|partial| [&partial.html, &partial.text]);
    let mut names = BTreeSet::new();
    for source in [&frozen.subject, &frozen.html, &frozen.text].into_iter().chain(partials) {
        for tag in scan(source).unwrap_or_default().iter().filter(|tag| tag.kind != Kind::Comment) {
            let words = source[tag.span.clone()].split(|c: char| !(c.is_alphanumeric() || c == '_'));
            names.extend(words.filter(|word| !word.is_empty()).map(str::to_owned));
        }
    }
    names
}

/// Writes what is included in its place. What is not there stays as it is, and cannot be compiled.
fn lay_out(
    source: &str,
    partials: &BTreeMap<String, Partial>,
    pick: fn(&Partial) -> &str,
    deep: usize,
    flat: &mut String,
) -> Option<()> {
    let mut from = 0;
    for tag in scan(source).ok()? {
        let Some(partial) = included(&source[tag.span.clone()]).and_then(|name| partials.get(name)) else {
            continue;
        };
        flat.push_str(&source[from..tag.span.start]);
        lay_out(pick(partial), partials, pick, deep.checked_sub(1)?, flat)?;
        from = tag.span.end;
        if flat.len() > MAX_OCTETS {
            return None;
        }
    }
    flat.push_str(&source[from..]);
    (flat.len() <= MAX_OCTETS).then_some(())
}

fn inner(tag: &str) -> &str {
    tag.trim_matches(['{', '}', '~', ' ', '\t', '\r', '\n'])
}

/// The name in `{{> name}}`.
fn included(tag: &str) -> Option<&str> {
    let name = inner(tag).strip_prefix('>')?.trim();
    Some(name.trim_matches(['"', '\'', '[', ']']))
}

/// A condition: where its tag stands, how it is written, and which decisions lead to it.
struct Condition {
    tag: Tag,
    opens: &'static str,
    taken: bool,
    led_by: Vec<(usize, bool)>,
}

/// The source once for each decision that leads somewhere new: all conditions hold, or all but one and those on the way
/// to it. None when there are too many.
fn decided(flat: &str) -> Option<Vec<String>> {
    let conditions = conditions(flat)?;
    let mut all = vec![written(flat, &conditions, &BTreeMap::new())];
    for (n, condition) in conditions.iter().enumerate() {
        let mut decisions: BTreeMap<usize, bool> = condition.led_by.iter().copied().collect();
        decisions.insert(n, false);
        all.push(written(flat, &conditions, &decisions));
    }
    Some(all)
}

fn conditions(flat: &str) -> Option<Vec<Condition>> {
    let mut found: Vec<Condition> = Vec::new();
    // For each open block what has been decided in it: its own condition and those of its `else if`s.
    let mut open: Vec<Vec<(usize, bool)>> = Vec::new();
    for tag in scan(flat).ok()? {
        let words = inner(&flat[tag.span.clone()]);
        match tag.kind {
            Kind::Open => {
                let asks = asked(words.trim_start_matches('#'), ["#if", "#unless"]);
                let led_by = open.concat();
                open.push(Vec::new());
                if let Some((opens, taken)) = asks {
                    open.last_mut()?.push((found.len(), true));
                    found.push(Condition { tag, opens, taken, led_by });
                }
            }
            Kind::Else => {
                if let Some(last) = open.last_mut().and_then(|block| block.last_mut()) {
                    last.1 = false;
                }
                let rest = words.strip_prefix("else").or_else(|| words.strip_prefix('^')).unwrap_or_default();
                if let Some((opens, taken)) = asked(rest, ["else if", "else unless"]) {
                    let led_by = open.concat();
                    open.last_mut()?.push((found.len(), true));
                    found.push(Condition { tag, opens, taken, led_by });
                }
            }
            Kind::Close => drop(open.pop()),
            Kind::Value | Kind::Comment => {}
        }
        if found.len() > MAX_CONDITIONS {
            return None;
        }
    }
    Some(found)
}

/// How a tag of `if` or `unless` begins, and what its value must be for its body to be said.
fn asked(words: &str, opens: [&'static str; 2]) -> Option<(&'static str, bool)> {
    match words.split_whitespace().next()? {
        "if" => Some((opens[0], true)),
        "unless" => Some((opens[1], false)),
        _ => None,
    }
}

fn written(flat: &str, conditions: &[Condition], decisions: &BTreeMap<usize, bool>) -> String {
    let mut written = String::with_capacity(flat.len());
    let mut from = 0;
    for (n, condition) in conditions.iter().enumerate() {
        let tag = &flat[condition.tag.span.clone()];
        let holds = decisions.get(&n).copied().unwrap_or(true) == condition.taken;
        let left = if tag.starts_with("{{~") { "~" } else { "" };
        let right = if tag.ends_with("~}}") { "~" } else { "" };
        written.push_str(&flat[from..condition.tag.span.start]);
        written.push_str(&format!("{{{{{left}{} {holds}{right}}}}}", condition.opens));
        from = condition.tag.span.end;
    }
    written.push_str(&flat[from..]);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(source: &str) -> Vec<String> {
        decided(source).unwrap()
    }

    #[test]
    fn each_branch_is_said_once_at_least() {
        let source = "{{#if a}}A{{#unless b}}B{{else}}C{{/unless}}{{else if (eq c \"x\")}}D{{else}}E{{~#if d~}}F{{/if}}{{/if}}";
        let said = all(source);
        assert_eq!(said.len(), 5);
        assert!(said[0].starts_with("{{#if true}}A{{#unless false}}B"), "{said:?}");
        assert!(said[1].starts_with("{{#if false}}") && said[1].contains("{{else if true}}D"), "{said:?}");
        assert!(said[2].starts_with("{{#if true}}A{{#unless true}}"), "{said:?}");
        assert!(
            said[3].starts_with("{{#if false}}")
                && said[3].contains("{{else if false}}D{{else}}E{{~#if true~}}F")
        );
        assert!(said[4].contains("{{else if false}}D{{else}}E{{~#if false~}}F"), "{said:?}");
        assert_eq!(all("{{#each a}}x{{else}}y{{/each}}"), ["{{#each a}}x{{else}}y{{/each}}"]);
        assert!(decided(&"{{#if a}}{{/if}}".repeat(MAX_CONDITIONS + 1)).is_none());
    }

    #[test]
    fn what_is_included_stands_in_its_place() {
        let partial = |html: &str| Partial { html: html.into(), text: String::new() };
        let partials =
            BTreeMap::from([("a".to_owned(), partial("1{{> b}}")), ("b".to_owned(), partial("2"))]);
        let mut flat = String::new();
        lay_out("<{{~> a}}>{{> gone}}", &partials, |partial| &partial.html, 3, &mut flat).unwrap();
        assert_eq!(flat, "<12>{{> gone}}");
        let ring = BTreeMap::from([("a".to_owned(), partial("{{> a}}"))]);
        assert!(lay_out("{{> a}}", &ring, |partial| &partial.html, 3, &mut String::new()).is_none());
    }
}
