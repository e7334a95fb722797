//! What may be said of a person: the limits of each field, for the API and for files alike.
//!
//! Pure. A reason tells what is wrong and what to do; it never repeats what was given.

use serde_json::{Map, Value};

use crate::web::check::is_slug;

/// Longest name and longest external id, in characters.
pub const MAX_NAME: usize = 200;
/// Longest language tag, in characters.
pub const MAX_LOCALE: usize = 35;
/// Longest tag, in characters.
pub const MAX_TAG: usize = 64;
/// Most tags of one person.
pub const MAX_TAGS: usize = 50;
/// Longest key of an attribute, in characters.
pub const MAX_KEY: usize = 64;
/// Longest value of an attribute, in octets as JSON text where it is no string, in characters where it is one.
pub const MAX_VALUE: usize = 1000;
/// Most brands that a person may be said to belong to at once.
pub const MAX_BRANDS: usize = 100;
/// Most attributes named at once.
pub const MAX_ATTRIBUTES: usize = 100;

/// A name or an external id: one line of at most 200 characters.
///
/// # Errors
/// What is wrong with it.
pub fn line(text: &str) -> Result<(), String> {
    one_line(text, MAX_NAME)
}

/// A language tag such as `de` or `pt-BR`.
///
/// # Errors
/// What is wrong with it.
pub fn locale(text: &str) -> Result<(), String> {
    one_line(text, MAX_LOCALE)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if text.chars().all(fits) { Ok(()) } else { Err("must be a language tag such as de or pt-BR".to_owned()) }
}

/// The tags of a person.
///
/// # Errors
/// What is wrong with them.
pub fn tags(tags: &[String]) -> Result<(), String> {
    if tags.len() > MAX_TAGS {
        return Err(format!("has {} tags; at most {MAX_TAGS} are kept", tags.len()));
    }
    for (n, tag) in tags.iter().enumerate() {
        if tag.trim().is_empty() {
            return Err(format!("tag number {} is empty", n + 1));
        }
        one_line(tag, MAX_TAG).map_err(|reason| format!("tag number {}: {reason}", n + 1))?;
    }
    Ok(())
}

/// Each tag once, in the order given.
pub(super) fn each_once(tags: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    tags.into_iter().filter(|tag| seen.insert(tag.clone())).collect()
}

/// Which versions of which policies were accepted.
///
/// # Errors
/// What is wrong with them.
pub fn policies(named: &Map<String, Value>) -> Result<(), String> {
    if named.len() > MAX_ATTRIBUTES {
        return Err(format!("names more than {MAX_ATTRIBUTES} policies"));
    }
    let fits = |(slug, version): (&String, &Value)| {
        is_slug(slug) && (version.is_null() || version.as_u64().is_some_and(|n| n > 0))
    };
    if named.iter().all(fits) {
        Ok(())
    } else {
        Err("must name policies by their slugs, each with the number of a version, such as {\"privacy\": 3}"
            .to_owned())
    }
}

/// Attributes of a person, or the data of a message.
///
/// # Errors
/// What is wrong with them.
pub fn attributes(named: &Map<String, Value>) -> Result<(), String> {
    if named.len() > MAX_ATTRIBUTES {
        return Err(format!("names {} keys; at most {MAX_ATTRIBUTES} are taken", named.len()));
    }
    for (n, (key, value)) in named.iter().enumerate() {
        attribute_key(key).map_err(|reason| format!("key number {}: {reason}", n + 1))?;
        attribute(value).map_err(|reason| format!("the value of {}: {reason}", shown(key)))?;
    }
    Ok(())
}

/// The key of an attribute.
///
/// # Errors
/// What is wrong with it.
pub fn attribute_key(key: &str) -> Result<(), String> {
    if key.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    one_line(key, MAX_KEY)
}

/// The value of an attribute. Text may have several lines and tabs, but no other control character.
///
/// # Errors
/// What is wrong with it.
pub fn attribute(value: &Value) -> Result<(), String> {
    let too_long = match value {
        Value::String(text) => text.len() > MAX_VALUE && text.chars().count() > MAX_VALUE,
        Value::Array(_) | Value::Object(_) => value.to_string().len() > MAX_VALUE,
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    };
    if too_long {
        return Err(format!("is longer than {MAX_VALUE} characters"));
    }
    if has_control(value) { Err("holds a control character".to_owned()) } else { Ok(()) }
}

/// A key as a reason may show it: what looks like an address is masked.
pub(super) fn shown(key: &str) -> String {
    if key.contains('@') {
        return format!("`{}`", crate::address::mask(key));
    }
    let short: String = key.chars().filter(|c| !c.is_control()).take(MAX_KEY).collect();
    format!("`{short}`")
}

fn one_line(text: &str, most: usize) -> Result<(), String> {
    if text.chars().any(char::is_control) {
        return Err("holds a line break or another control character".to_owned());
    }
    if text.len() > most && text.chars().count() > most {
        return Err(format!("is longer than {most} characters"));
    }
    Ok(())
}

fn has_control(value: &Value) -> bool {
    let bad = |text: &str| text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
    match value {
        Value::String(text) => bad(text),
        Value::Array(items) => items.iter().any(has_control),
        Value::Object(named) => named.iter().any(|(key, value)| bad(key) || has_control(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
