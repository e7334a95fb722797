//! Choosing among the languages: what a person's locale says, then what their browser asks for, then English.

use super::{Language, Locale};

/// Most octets of an `Accept-Language` field that are read.
const MAX_FIELD: usize = 1_000;
/// Most ranges that are read.
const MAX_RANGES: usize = 50;
/// The weight of a range that names none, in thousandths.
const FULL: u16 = 1_000;

/// The language of a page, and what it hangs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The language, as it is written where the reader lives.
    pub locale: Locale,
    /// Whether `Accept-Language` had a say, so that the answer to another request may differ (RFC 9110 section 12.5.5).
    pub by_request: bool,
}

impl Choice {
    /// The person's own locale when it is of a language of ours; else what the request asks for; else English.
    pub fn new(own: Option<&str>, accept_language: &str) -> Self {
        match own.and_then(Locale::of) {
            Some(locale) => Self { locale, by_request: false },
            None => Self { locale: Locale::accepted(accept_language).unwrap_or_default(), by_request: true },
        }
    }
}

/// See [`Locale::accepted`].
pub(super) fn accepted(field: &str) -> Option<Locale> {
    let mut named: [Option<(u16, usize, Locale)>; Language::ALL.len()] = [None; Language::ALL.len()];
    let mut any = None;
    for (place, range) in bounded(field).split(',').take(MAX_RANGES).enumerate() {
        let Some((tag, weight)) = range_and_weight(range) else { continue };
        if tag == "*" {
            any.get_or_insert((weight, place));
        } else if let Some(locale) = Locale::of(tag) {
            let best = &mut named[locale.language as usize];
            if best.is_none_or(|(other, _, _)| weight > other) {
                *best = Some((weight, place, locale));
            }
        }
    }
    let all = named.into_iter().zip(Language::ALL).filter_map(|(named, language)| {
        named.or_else(|| any.map(|(weight, place)| (weight, place, Locale::from(language))))
    });
    // Of equals `max_by_key` takes the last; so English must come last for a `*`.
    all.filter(|(weight, _, _)| *weight > 0)
        .rev()
        .max_by_key(|(weight, place, _)| (*weight, std::cmp::Reverse(*place)))
        .map(|(_, _, locale)| locale)
}

/// The tags of an `Accept-Language` field, the one wanted most first; see [`Locale::accepted`]. `*` and what is ruled out
/// are not among them.
pub fn tags_accepted(field: &str) -> Vec<&str> {
    let ranges = bounded(field).split(',').take(MAX_RANGES).filter_map(range_and_weight);
    let mut tags: Vec<(&str, u16)> = ranges.filter(|(tag, weight)| *tag != "*" && *weight > 0).collect();
    // Stable: of equals the earlier one.
    tags.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    tags.into_iter().map(|(tag, _)| tag).collect()
}

/// As much of the field as is read, ending with a whole range.
fn bounded(field: &str) -> &str {
    if field.len() <= MAX_FIELD {
        return field;
    }
    let head = &field[..field.floor_char_boundary(MAX_FIELD)];
    head.rfind(',').map_or("", |end| &head[..end])
}

/// `de-AT;q=0.5` in two; none when the weight cannot be read.
fn range_and_weight(range: &str) -> Option<(&str, u16)> {
    let mut parts = range.split(';').map(str::trim);
    let tag = parts.next().filter(|tag| !tag.is_empty())?;
    let weight = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then_some(value.trim())
    });
    Some((tag, weight.map_or(Some(FULL), thousandths)?))
}

/// A qvalue (RFC 9110 section 12.4.2): `0` to `1`, with at most three digits after the point.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits = rest.len() <= 3 && rest.bytes().all(|digit| digit.is_ascii_digit());
    if !digits || !matches!(whole, "0" | "1") {
        return None;
    }
    let weight: u16 = format!("{whole}{rest:0<3}").parse().ok()?;
    (weight <= FULL).then_some(weight)
}

/// Of the tags of some texts (RFC 5646) the one nearest to what is wanted: the longest that it begins with (RFC 4647 §3.4), or
/// else another form of the same language, `preferred` before the others. None where no text is in that language.
pub fn nearest<'t>(tags: &[&'t str], preferred: &str, wanted: &str) -> Option<&'t str> {
    let wanted = wanted.replace('_', "-").to_ascii_lowercase();
    let begins = |tag: &&&str| {
        let rest = wanted.strip_prefix(&tag.to_ascii_lowercase());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let kin: Vec<&&str> = tags.iter().filter(|tag| are_kin(tag, &wanted)).collect();
    let own = tags.iter().filter(begins).max_by_key(|tag| tag.len());
    own.or(kin.iter().find(|tag| tag.eq_ignore_ascii_case(preferred)).copied())
        .or(kin.first().copied())
        .copied()
}

/// The language that a tag names, without script, region and what else follows (RFC 5646 §2.2.1).
pub fn primary(tag: &str) -> &str {
    tag.split('-').next().unwrap_or(tag)
}

/// Whether two tags name forms of one language.
pub fn are_kin(one: &str, other: &str) -> bool {
    primary(one).eq_ignore_ascii_case(primary(other))
}
