//! The language of a message: the tag of its `lang`, and in which direction its lines run.

/// Languages written from right to left, unless a subtag names another script.
const RTL: [&str; 13] = ["ar", "arc", "ckb", "dv", "fa", "he", "iw", "ks", "ps", "sd", "ug", "ur", "yi"];
/// Scripts written from right to left (ISO 15924).
const RTL_SCRIPTS: [&str; 7] = ["adlm", "arab", "hebr", "nkoo", "rohg", "syrc", "thaa"];
/// Of those who told us no language.
const DEFAULT: &str = "en";

/// The locale as a tag of RFC 5646; English when it is none.
pub(super) fn tag(locale: Option<&str>) -> String {
    let bare = locale.unwrap_or_default().split(['.', '@']).next().unwrap_or_default().replace('_', "-");
    let mut parts = bare.split('-');
    let is_language = parts.next().is_some_and(|first| {
        (2..=8).contains(&first.len()) && first.bytes().all(|b| b.is_ascii_alphabetic())
    });
    let well_formed =
        parts.all(|part| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric()));
    if is_language && well_formed && bare.len() <= 35 { bare } else { DEFAULT.to_owned() }
}

/// `rtl` or `ltr` for the language of a tag.
pub(super) fn direction(tag: &str) -> &'static str {
    if is_rtl(tag) { "rtl" } else { "ltr" }
}

/// Whether the language of this tag is written from right to left.
pub(super) fn is_rtl(tag: &str) -> bool {
    let mut parts = tag.trim().split(['-', '_']).map(str::to_ascii_lowercase);
    let language = parts.next().unwrap_or_default();
    match parts.find(|part| part.len() == 4 && part.bytes().all(|b| b.is_ascii_alphabetic())) {
        Some(script) => RTL_SCRIPTS.contains(&script.as_str()),
        None => RTL.contains(&language.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_becomes_a_tag_and_nothing_else_does() {
        for (locale, expected) in [
            (Some("de-AT"), "de-AT"),
            (Some("de_DE.UTF-8"), "de-DE"),
            (Some("ar"), "ar"),
            (None, "en"),
            (Some(""), "en"),
            (Some("x\" onload=\""), "en"),
            (Some("de--AT"), "en"),
            (Some("1a"), "en"),
        ] {
            assert_eq!(tag(locale), expected, "{locale:?}");
        }
    }

    #[test]
    fn the_script_decides_on_the_direction() {
        for rtl in ["ar", "ar-EG", "he", "fa-IR", "az-Arab", "pa_Arab_PK"] {
            assert_eq!(direction(rtl), "rtl", "{rtl}");
        }
        for ltr in ["en", "de-AT", "ar-Latn", "zh-Hant", "", "arn"] {
            assert_eq!(direction(ltr), "ltr", "{ltr}");
        }
    }
}
