//! Which language is chosen; that the five files say the same things, as each of their languages writes them; forms.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use icu_plurals::PluralRules;
use proptest::prelude::*;

use super::texts::{TEXTS, Words, source};
use super::*;
use crate::clock::Timestamp;

fn locale(text: &str) -> Locale {
    Locale::of(text).unwrap_or_else(|| panic!("{text} is no locale of ours"))
}

#[test]
fn a_locale_is_read_in_every_spelling_that_is_in_use() {
    let spellings = [
        ("de", "de"),
        ("de-AT", "de-AT"),
        ("de_DE.UTF-8", "de-DE"),
        ("de_DE@euro", "de-DE"),
        ("AR-eg", "ar-EG"),
        ("ar-Arab-MA", "ar-MA"),
        ("es-419", "es-419"),
        ("fr-CA-x-mine", "fr-CA"),
        ("de-CH-1996", "de-CH"),
        ("ar-u-nu-latn", "ar"),
        ("deu", "de"),
        ("spa-MX", "es-MX"),
        ("arb", "ar"),
        (" en ", "en"),
        ("de-", "de"),
        ("de-Ä", "de"),
    ];
    for (text, is) in spellings {
        assert_eq!(locale(text).to_string(), is, "{text}");
        assert_eq!(Locale::of(is), Locale::of(text), "{text}");
    }
    for text in ["", "C", "POSIX", "*", "pl", "nds", "gsw", "den", "d", "x-de", "i-klingon", "-de", "de1 "] {
        assert_eq!(Language::of_locale(text), None, "{text}");
    }
    assert_eq!(Language::of_locale(&"de-".repeat(1_000)), None);
}

#[test]
fn accept_language_is_read_as_rfc_9110_has_it() {
    let fields = [
        ("de", Some("de")),
        ("de, ar", Some("de")),
        ("ar,de", Some("ar")),
        ("da, en-gb;q=0.8, en;q=0.7", Some("en-GB")),
        ("de-AT,de;q=0.9,en;q=0.8", Some("de-AT")),
        ("pl,fr;q=0.3,es;q=0.31", Some("es")),
        ("en;q=0.5, DE;Q=0.501", Some("de")),
        ("fr ; q = 1.000 , es;q=0.9", Some("fr")),
        ("es;q=0", None),
        ("es;q=0.000, fr;q=0.001", Some("fr")),
        ("*", Some("en")),
        ("pl, *;q=0.1", Some("en")),
        ("en;q=0, *", Some("de")),
        ("en;q=0, de;q=0, *;q=0.5", Some("fr")),
        ("*;q=0", None),
        ("de;q=0.2, *;q=0", Some("de")),
        ("de;q=0.2, *;q=0.5", Some("en")),
        ("de;q=0, de-AT", Some("de-AT")),
        ("fr;q=2, fr;q=-1, es;q=x, es;q=, ;q=1, ,, de;q=0.1", Some("de")),
        ("fr;q=0.1234, fr;q=1.001, fr;q=.5, de;q=0.", None),
        ("fr;level=1;q=0.4, ar;q=0.5", Some("ar")),
        ("\u{feff}de \u{202e}", None),
        ("", None),
        ("pl,cs", None),
    ];
    for (field, is) in fields {
        assert_eq!(Locale::accepted(field).map(|locale| locale.to_string()).as_deref(), is, "{field}");
    }
}

#[test]
fn accept_language_is_read_no_further_than_its_bounds() {
    assert_eq!(Language::accepted(&format!("{}de", "pl,".repeat(49))), Some(Language::German));
    assert_eq!(Language::accepted(&format!("{}de", "pl,".repeat(50))), None);
    let within = format!("de;q=0.1,{}", "x".repeat(2_000));
    assert_eq!(Language::accepted(&within), Some(Language::German));
    assert_eq!(Language::accepted(&format!("{}de", " ".repeat(1_000))), None);
}

#[test]
fn a_persons_own_locale_comes_before_what_their_browser_asks_for() {
    let chosen = |own, field| {
        let Choice { locale, by_request } = Choice::new(own, field);
        (locale.to_string(), by_request)
    };
    assert_eq!(chosen(Some("ar-MA"), "de"), ("ar-MA".into(), false));
    assert_eq!(chosen(Some("pl"), "de-CH, en"), ("de-CH".into(), true));
    assert_eq!(chosen(None, "fr"), ("fr".into(), true));
    assert_eq!(chosen(None, "pl"), ("en".into(), true));
    assert_eq!(chosen(Some(""), ""), ("en".into(), true));
}

#[test]
fn a_day_is_written_out_as_people_write_it_there() {
    let day = |text: &str, at: &str| locale(text).day(at.parse::<Timestamp>().unwrap());
    let late = "2026-11-02T23:59:59Z";
    assert_eq!(day("en", late), "2 November 2026");
    assert_eq!(day("en-US", late), "November 2, 2026");
    assert_eq!(day("de-AT", late), "2. November 2026");
    assert_eq!(day("de-AT", "2027-01-05T00:00:00Z"), "5. Jänner 2027");
    assert_eq!(day("fr", late), "2 novembre 2026");
    assert_eq!(day("fr", "2027-05-01T00:00:00Z"), "1er mai 2027");
    assert_eq!(day("fr", "2027-05-11T00:00:00Z"), "11 mai 2027");
    assert_eq!(day("es-MX", late), "2 de noviembre de 2026");
    assert_eq!(day("ar-EG", late), "٢ نوفمبر ٢٠٢٦");
    assert_eq!(day("ar-MA", late), "2 نونبر 2026");
}

#[test]
fn a_count_has_the_digits_and_the_plural_of_its_language() {
    assert_eq!(locale("en").number(1_234_567), "1,234,567");
    assert_eq!(locale("de").number(1_234_567), "1.234.567");
    assert_eq!(locale("fr").number(1_234_567), "1\u{202f}234\u{202f}567");
    assert_eq!(locale("ar-EG").number(1_234_567), "١٬٢٣٤٬٥٦٧");
    let said = |text: &str, n: u64| {
        locale(text).fill("done.flight.topic", &[("topic", "News".into()), ("n", n.into())])
    };
    assert!(said("en", 1).starts_with("A message in “News”") && said("en", 2).starts_with("2 messages"));
    assert!(said("fr", 1_000_000).starts_with("1\u{202f}000\u{202f}000 de messages"));
    let arabic = [
        (1, "رسالة واحدة"),
        (2, "رسالتان"),
        (3, "3\u{2069} رسائل"),
        (11, "11\u{2069} رسالة"),
        (100, "100\u{2069} رسالة"),
    ];
    for (n, words) in arabic {
        assert!(said("ar", n).contains(words), "{n}: {}", said("ar", n));
    }
    assert!(said("ar-EG", 3).contains("\u{2068}٣\u{2069} رسائل"), "{}", said("ar-EG", 3));
}

#[test]
fn what_runs_the_other_way_is_set_apart_and_reaches_no_further() {
    let who = |text: &str, brand: &str| {
        let values = [("address", "a…@e….org".into()), ("topic", "News".into()), ("brand", brand.into())];
        (locale(text).fill("ask.who", &values), locale(text).fill_html("ask.who", &values))
    };
    let (plain, html) = who("en", "Acme & Söhne");
    assert_eq!(plain, "a…@e….org gets “News” from Acme & Söhne.");
    assert_eq!(
        html,
        "<bdi class=\"whole\">a…@e….org</bdi> gets “<bdi>News</bdi>” from <bdi>Acme &amp; Söhne</bdi>."
    );
    assert!(who("en", "متجر").0.ends_with("from \u{2068}متجر\u{2069}."));
    assert!(who("ar", "Acme").0.contains("\u{2068}Acme\u{2069}"));
    assert!(!who("ar", "متجر").0.contains("\u{2068}متجر"));
    assert_eq!(Language::English.isolate("\u{202e}evil\u{2069}\u{2066}"), "evil");
    assert_eq!(Language::English.isolate("\u{2067}شر\u{2069}\u{202c}"), "\u{2068}شر\u{2069}");
    assert_eq!(
        locale("de").fill("ask.scope.topic", &[]),
        "„{topic}“. Auf der nächsten Seite können Sie mehr abbestellen."
    );
}

proptest! {
    #[test]
    fn whatever_is_asked_the_answer_is_a_language_or_none(text in "\\PC{0,60}", field in "[deafrsn*;q=.0-9, -]{0,80}") {
        for asked in [&text, &field] {
            if let Some(locale) = Locale::of(asked) {
                prop_assert_eq!(Locale::of(&locale.to_string()), Some(locale));
            }
            let _ = Locale::accepted(asked);
        }
    }
}

/// Every set of words of a language: key, plural form (`other` where there is one set), words.
fn all(language: Language) -> Vec<(&'static str, &'static str, &'static str)> {
    let mut found = Vec::new();
    for (key, words) in &TEXTS[language as usize] {
        match words {
            Words::Plain(words) => found.push((key.as_str(), "other", words.as_str())),
            Words::ByCount(forms) => {
                found.extend(forms.iter().map(|(form, words)| (key.as_str(), form.as_str(), words.as_str())));
            }
        }
    }
    found.sort_unstable();
    found
}

/// The names in braces, sorted.
fn names(words: &str) -> Vec<&str> {
    let mut names: Vec<&str> =
        words.split('{').skip(1).map(|part| part.split_once('}').expect("a brace is closed").0).collect();
    names.sort_unstable();
    names
}

/// The words without what is put in.
fn own(words: &str) -> String {
    let mut parts = words.split('{');
    let first = parts.next().unwrap_or_default().to_owned();
    first + &parts.map(|part| part.split_once('}').unwrap().1).collect::<String>()
}

#[test]
fn every_language_has_every_text_once_and_no_other() {
    let keys = |language: Language| -> BTreeSet<&str> {
        TEXTS[language as usize].keys().map(String::as_str).collect()
    };
    for language in Language::ALL {
        let code = language.code();
        let (ours, english) = (keys(language), keys(Language::English));
        assert!(ours == english, "{code}: {:?}", ours.symmetric_difference(&english).collect::<Vec<_>>());
        for key in ours {
            assert_eq!(source(language).matches(&format!("\n  \"{key}\": ")).count(), 1, "{code}: {key}");
        }
        for (key, form, words) in all(language) {
            assert!(!words.trim().is_empty() && words.trim() == words, "{code}: {key}, {form}");
            assert!(!words.contains("  "), "{code}: {key} has two spaces");
        }
    }
}

#[test]
fn every_language_puts_the_same_values_into_a_text_and_has_the_plural_forms_it_needs() {
    for language in Language::ALL {
        let code = language.code();
        let rules =
            PluralRules::try_new(Locale::from(language).for_cldr().into(), Default::default()).unwrap();
        let needed: BTreeSet<&str> = rules.categories().map(forms::name).collect();
        for (key, words) in &TEXTS[language as usize] {
            let english = &TEXTS[Language::English as usize][key];
            let count_apart = |words: &'static str| -> Vec<&str> {
                names(words).into_iter().filter(|name| *name != "n").collect()
            };
            match words {
                Words::Plain(words) => {
                    assert!(matches!(english, Words::Plain(_)), "{code}: {key} has forms in English");
                    assert_eq!(names(words), names(english.of("other")), "{code}: {key}");
                }
                Words::ByCount(forms) => {
                    assert_eq!(
                        forms.keys().map(String::as_str).collect::<BTreeSet<_>>(),
                        needed,
                        "{code}: {key}"
                    );
                    for (form, words) in forms {
                        assert_eq!(
                            count_apart(words),
                            count_apart(english.of("other")),
                            "{code}: {key}, {form}"
                        );
                        let says_count = names(words).contains(&"n");
                        let must = matches!(form.as_str(), "few" | "many" | "other");
                        assert!(says_count || !must, "{code}: {key}, {form} does not say how many");
                    }
                }
            }
        }
    }
}

#[test]
fn no_text_was_left_in_english_and_each_is_in_the_letters_of_its_language() {
    let english: BTreeMap<_, _> =
        all(Language::English).into_iter().map(|(key, form, words)| ((key, form), words)).collect();
    let arabic_letter = |c: char| ('\u{600}'..='\u{6ff}').contains(&c) && c.is_alphabetic();
    for language in Language::ALL.into_iter().skip(1) {
        for (key, form, words) in all(language) {
            let (code, own) = (language.code(), own(words));
            if own.contains(char::is_alphabetic) {
                assert_ne!(Some(&words), english.get(&(key, form)), "{code}: {key} is English");
            }
            let of_the_language = |c: char| arabic_letter(c) == (language == Language::Arabic);
            // A standard is called the same everywhere.
            let own = own.replace("SHA-256", "");
            assert!(own.chars().filter(|c| c.is_alphabetic()).all(of_the_language), "{code}: {key}: {words}");
        }
    }
}

#[test]
fn quotation_marks_and_spaces_are_those_of_the_language() {
    for language in Language::ALL {
        let (open, close) = match language {
            Language::English => ("“", "”"),
            Language::German => ("„", "“"),
            Language::French => ("«\u{202f}", "\u{202f}»"),
            Language::Spanish | Language::Arabic => ("«", "»"),
        };
        for (key, _, words) in all(language) {
            let is = format!("{}: {key}: {words}", language.code());
            let mut rest = words.to_owned();
            while let Some(at) = rest.find(open) {
                let end = at + rest[at..].find(close).unwrap_or_else(|| panic!("{is} is not closed"));
                rest.replace_range(end..end + close.len(), "");
                rest.replace_range(at..at + open.len(), "");
            }
            assert!(!rest.contains(['"', '\'', '“', '”', '„', '‟', '«', '»', '`']), "{is}");
            assert!(!words.contains("..."), "{is}");
            match language {
                Language::French => {
                    for (at, mark) in words.match_indices(['?', '!', ';']) {
                        assert!(words[..at].ends_with('\u{202f}'), "{is}: before {mark}");
                    }
                    for (at, _) in words.match_indices(':') {
                        assert!(words[..at].ends_with('\u{a0}'), "{is}: before :");
                    }
                }
                Language::Spanish => {
                    assert_eq!(words.matches('?').count(), words.matches('¿').count(), "{is}");
                    assert_eq!(words.matches('!').count(), words.matches('¡').count(), "{is}");
                }
                Language::Arabic => assert!(!own(words).contains(['?', ',', ';', '%']), "{is}"),
                Language::English | Language::German => {
                    assert!(!words.contains(['\u{202f}', '\u{a0}']), "{is}");
                }
            }
        }
    }
}

#[test]
fn every_text_that_is_named_is_there_and_nobody_names_none() {
    fn below(folder: &Path, into: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("languages") && !path.ends_with("language") {
                below(&path, into);
            } else if path.extension().is_some_and(|kind| ["rs", "html", "hbs"].iter().any(|of| kind == *of))
            {
                // Without the tests at the end.
                let text = std::fs::read_to_string(&path).unwrap();
                into.push_str(text.split("#[cfg(test)]\nmod tests {").next().unwrap());
            }
        }
    }
    let mut all = String::new();
    for folder in ["src", "templates"] {
        below(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut all);
    }
    let texts = &TEXTS[Language::English as usize];
    for key in texts.keys() {
        assert!(all.contains(&format!("\"{key}\"")), "nobody uses {key}");
    }
    for named in all.split("{{t \"").skip(1) {
        let key = named.split('"').next().unwrap();
        assert!(key == "key" || texts.contains_key(key), "no text for {key}");
    }
}
