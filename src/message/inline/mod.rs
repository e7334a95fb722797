//! The styles of a template written at its elements, for mail programs that drop `<style>`: once, when it is frozen.
//!
//! It promises: text is added inside of start tags and nothing is taken away, moved or written anew, so that every tag of
//! the template stays as it is and a message differs from what it would have been in these additions alone. `<style>`
//! stays for those who read it, and to them an element looks as before: a property is written at an element only when it
//! is known from the template alone that the rule matches, and when no rule that cannot be known so (under `@media`, with
//! `:hover`, of a class that data decides) may set it too. What cannot be known is left as it is, and said. Nothing is
//! ever loaded from anywhere.

mod elements;
mod flat;
mod matching;
mod sheet;

use std::collections::{BTreeMap, BTreeSet};

use elements::{Element, Elements};
use flat::{Flat, Origin};
use matching::is_marked;
use sheet::{Declaration, Rule, are_related};

/// What an image without alternative text gets, so that nobody is read its address. Written as hardly anybody writes it:
/// a preview tells it by this from one that the author meant.
pub(super) const DECORATIVE: &str = " alt=''";

/// What came of a template and all that it includes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Inlined {
    /// What to add: for each source by name (the first is empty) where and what.
    additions: BTreeMap<String, BTreeMap<usize, String>>,
    /// What stays in `<style>` alone, and why.
    pub(super) left: Vec<String>,
}

impl Inlined {
    /// A source of this name with the additions.
    pub(super) fn applied(&self, name: &str, source: &str) -> String {
        let mut added = source.to_owned();
        for (at, text) in self.additions.get(name).into_iter().flatten().rev() {
            added.insert_str(*at, text);
        }
        added
    }
}

/// Works out what to add to a template, whose partials are given by name. Never fails: what cannot be done is said.
pub(super) fn inline(main: &str, partials: &BTreeMap<&str, &str>) -> Inlined {
    let Some(flat) = Flat::new(main, partials) else {
        return Inlined {
            left: vec!["the template cannot be put together with what it includes".into()],
            ..Inlined::default()
        };
    };
    let elements = elements::read(&flat);
    let mut additions = Additions { flat: &flat, made: BTreeMap::new() };
    let mut left = BTreeSet::new();
    let styles = styles(&flat, &elements, &mut left);
    for (number, element) in elements.all.iter().enumerate() {
        if element.tag.is("img") && !element.is_closed && element.tag.attribute("alt").is_none() {
            additions.add(after_name(element), DECORATIVE.into());
        }
        if element.tag.is("html") && !element.is_closed {
            additions.add(after_name(element), language(element));
        }
        let declarations = styles.get(number).map(Vec::as_slice).unwrap_or_default();
        match addition(element, declarations) {
            Ok((at, text)) => additions.add(at, flat.spelt(&text)),
            Err(()) if declarations.is_empty() => {}
            Err(()) => {
                left.insert(format!("data decides on the attributes of a <{}>", shown(element.name())));
            }
        }
    }
    Inlined { additions: additions.agreed(&mut left), left: left.into_iter().collect() }
}

/// For each element what its sure rules set, weakest first.
fn styles(flat: &Flat<'_>, elements: &Elements<'_>, left: &mut BTreeSet<String>) -> Vec<Vec<Declaration>> {
    let mut rules: Vec<Rule> = Vec::new();
    for (css, sure) in &elements.sheets {
        match sheet::read(css, *sure, &|value| flat.is_fixed(value)) {
            Some(read) => rules.extend(read),
            None => {
                left.insert("data decides on the rules of a <style>, or rules are nested".into());
                return Vec::new();
            }
        }
    }
    if rules.is_empty() {
        return Vec::new();
    }
    let dynamic_id = |e: &Element<'_>| {
        e.is_dynamic
            && e.tag.attributes.iter().any(|a| a.name.eq_ignore_ascii_case("id") && is_marked(a.value))
    };
    let unsettled = elements
        .unsettled
        .or_else(|| elements.all.iter().any(dynamic_id).then_some("data decides on the id of an element"));
    if let Some(why) = unsettled {
        left.insert(why.into());
        return Vec::new();
    }
    let Some(matches) = matching::find(elements, &rules) else {
        left.insert("the template is too large or too deep".into());
        return Vec::new();
    };
    let by_element = matches.surely.iter().zip(&matches.perhaps).zip(&elements.all);
    by_element
        .map(|((surely, perhaps), element)| {
            let open: Vec<&Declaration> =
                perhaps.difference(surely).filter_map(|n| rules.get(*n)).flat_map(|rule| &rule.declarations).collect();
            cascade(surely, &rules)
                .into_iter()
                .filter(|own| {
                    let rival = open.iter().find(|other| {
                        other.important == own.important && are_related(&other.name, &own.name)
                    });
                    if rival.is_some() {
                        left.insert(format!(
                            "`{}` of a <{}>: a rule under @media, with `:`, or of a class that data decides may set it \
                             too; write !important there",
                            own.name, shown(element.name())
                        ));
                    }
                    rival.is_none()
                })
                .collect()
        })
        .collect()
}

/// What these rules set, in the order in which later ones win.
fn cascade(matching: &BTreeSet<usize>, rules: &[Rule]) -> Vec<Declaration> {
    let mut ordered: Vec<(bool, [usize; 3], usize, &Declaration)> = Vec::new();
    for number in matching {
        if let Some(Rule { sure: Some((_, weight)), declarations, .. }) = rules.get(*number) {
            ordered.extend(declarations.iter().map(|one| (one.important, *weight, *number, one)));
        }
    }
    ordered.sort_by_key(|(important, weight, number, _)| (*important, *weight, *number));
    let mut kept: Vec<(usize, &Declaration)> = Vec::new();
    for (_, _, number, one) in ordered {
        // A later value that every program knows makes earlier ones needless; others may be there as a fallback.
        if !one.value.contains('(') && !one.value.starts_with('-') && one.name != "display" {
            kept.retain(|(other, before)| {
                *other == number || before.name != one.name || before.important != one.important
            });
        }
        kept.push((number, one));
    }
    kept.into_iter().map(|(_, one)| one.clone()).filter(can_be_written).collect()
}

/// What could be read as a tag of the template, or ends the attribute, stays in `<style>`.
fn can_be_written(declaration: &Declaration) -> bool {
    !declaration.value.contains(['{', '}', '\\', '<', '>', ';']) && !declaration.name.starts_with("--")
}

/// Where and what to add for these declarations; an error where nothing may be added.
fn addition(element: &Element<'_>, declarations: &[Declaration]) -> Result<(usize, String), ()> {
    let one = |declaration: &Declaration| {
        let flag = if declaration.important { " !important" } else { "" };
        format!("{}:{}{flag}", declaration.name, declaration.value)
    };
    let css = declarations.iter().map(one).collect::<Vec<_>>().join(";");
    let css = css.replace('&', "&amp;").replace('"', "&quot;").replace('\'', "&#39;");
    if element.is_closed {
        return Err(());
    }
    let mut own = element.tag.attributes.iter().filter(|a| a.name.eq_ignore_ascii_case("style"));
    match own.next() {
        // The first counts where there are two.
        Some(style) if style.span.len() == style.value.len() + 2 => {
            let gap = if css.is_empty() { "" } else { ";" };
            Ok((style.span.start + 1, format!("{css}{gap}")))
        }
        Some(_) => Err(()),
        None if css.is_empty() => Ok((after_name(element), String::new())),
        None => Ok((after_name(element), format!(" style=\"{css}\""))),
    }
}

/// The language and the direction of a document that names none.
fn language(element: &Element<'_>) -> String {
    let dir = element.tag.attribute("dir").is_some();
    match element.tag.attribute("lang") {
        None if dir => " lang=\"{{@lang}}\"".into(),
        None => " lang=\"{{@lang}}\" dir=\"{{@dir}}\"".into(),
        Some(own) if !dir && super::locale::is_rtl(&own) => " dir=\"rtl\"".into(),
        Some(_) => String::new(),
    }
}

fn after_name(element: &Element<'_>) -> usize {
    element.tag.span.start + 1 + element.tag.name.len()
}

/// A name that may be long or hold a mark, for a warning.
fn shown(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).take(20).collect::<String>().to_ascii_lowercase()
}

/// Collects what is to be added where in the sources.
struct Additions<'f, 's> {
    flat: &'f Flat<'s>,
    /// For each place what was asked for, once for each time that its source is included.
    made: BTreeMap<Origin<'s>, BTreeMap<usize, String>>,
}

impl Additions<'_, '_> {
    /// Adds `text` before the character at this offset of the flat text, which follows one that is no mark.
    fn add(&mut self, at: usize, text: String) {
        let (source, before) = self.flat.origin(at - 1);
        self.made.entry((source, before + 1)).or_default().entry(at).or_default().push_str(&text);
    }

    /// What every inclusion of a source asks for; where they differ, nothing.
    fn agreed(self, left: &mut BTreeSet<String>) -> BTreeMap<String, BTreeMap<usize, String>> {
        let mut agreed: BTreeMap<String, BTreeMap<usize, String>> = BTreeMap::new();
        for ((source, at), asked) in self.made {
            let texts: BTreeSet<String> = asked.into_values().collect();
            let mut texts = texts.into_iter();
            match (texts.next(), texts.next()) {
                (Some(text), None) if text.is_empty() => {}
                (Some(text), None) => {
                    agreed.entry(source.to_owned()).or_default().insert(at, text);
                }
                _ => {
                    left.insert(format!("{source:?} is included in places where it looks different"));
                }
            }
        }
        agreed
    }
}

#[cfg(test)]
mod tests;
