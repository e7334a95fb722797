//! Which text of a version is for whom, and how its language is written. Pure.

use icu_locale::LocaleDirectionality;

use crate::language::{Choice, are_kin, nearest, tags_accepted};

/// What languages call themselves; one that is not here is shown by its tag.
const NAMES: [(&str, &str); 28] = [
    ("ar", "العربية"),
    ("bg", "Български"),
    ("cs", "Čeština"),
    ("da", "Dansk"),
    ("de", "Deutsch"),
    ("el", "Ελληνικά"),
    ("en", "English"),
    ("es", "Español"),
    ("et", "Eesti"),
    ("fi", "Suomi"),
    ("fr", "Français"),
    ("he", "עברית"),
    ("hr", "Hrvatski"),
    ("hu", "Magyar"),
    ("it", "Italiano"),
    ("ja", "日本語"),
    ("ko", "한국어"),
    ("nl", "Nederlands"),
    ("nb", "Norsk bokmål"),
    ("pl", "Polski"),
    ("pt", "Português"),
    ("ro", "Română"),
    ("ru", "Русский"),
    ("sk", "Slovenčina"),
    ("sv", "Svenska"),
    ("tr", "Türkçe"),
    ("uk", "Українська"),
    ("zh", "中文"),
];

/// Of these languages the one to read in: what the address names, then what the browser asks for, then the default one.
/// `offered` is not empty, or the default one is given.
pub(super) fn choose<'t>(
    offered: &[&'t str],
    named: Option<&str>,
    accept_language: &str,
    default: &'t str,
) -> &'t str {
    let accepted = tags_accepted(accept_language);
    let wanted = named.into_iter().chain(accepted);
    wanted.filter_map(|tag| nearest(offered, default, tag)).next().unwrap_or(default)
}

/// In which language of ours the words around a text stand: that of the text if it is one of ours.
pub(super) fn around(language: &str, accept_language: &str) -> Choice {
    let choice = Choice::new(Some(language), accept_language);
    // Which text it is may hang on the request, whatever its language.
    Choice { by_request: true, ..choice }
}

/// `ltr` or `rtl`, as the `dir` of HTML has it.
pub fn direction(language: &str) -> &'static str {
    let locale = icu_locale::Locale::try_from_str(language);
    let rtl = locale.is_ok_and(|locale| LocaleDirectionality::new_common().is_right_to_left(&locale.id));
    if rtl { "rtl" } else { "ltr" }
}

/// What a language calls itself, with the region where it names one: `Português (BR)`.
pub fn name(language: &str) -> String {
    let known = NAMES.iter().find(|(tag, _)| are_kin(tag, language));
    match (known, language.split_once('-')) {
        (Some((_, name)), None) => (*name).to_owned(),
        (Some((_, name)), Some((_, rest))) => format!("{name} ({rest})"),
        (None, _) => language.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_goes_before_the_browser_and_the_browser_before_the_default() {
        let offered = ["en", "de", "pt-BR", "zh-Hant"];
        for (named, accept, is) in [
            (Some("de"), "pt", "de"),
            (Some("DE-at"), "pt", "de"),
            (Some("xx"), "pt", "pt-BR"),
            (None, "fr, pt-PT;q=0.5, de;q=0.1", "pt-BR"),
            (None, "fr;q=0.9, ZH;q=1", "zh-Hant"),
            (None, "de;q=0, pl", "en"),
            (None, "", "en"),
        ] {
            assert_eq!(choose(&offered, named, accept, "en"), is, "{named:?} {accept}");
        }
    }

    #[test]
    fn languages_are_named_by_themselves_and_run_their_own_way() {
        assert_eq!(
            (name("de").as_str(), name("pt-BR").as_str(), name("gsw").as_str()),
            ("Deutsch", "Português (BR)", "gsw")
        );
        assert_eq!(
            (direction("fa"), direction("he-IL"), direction("en"), direction("?")),
            ("rtl", "rtl", "ltr", "ltr")
        );
        assert_eq!(around("ar-EG", "de").locale.language().code(), "ar");
        assert_eq!(around("pl", "de").locale.language().code(), "de");
    }
}
