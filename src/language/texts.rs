//! The words, and putting values into them: in plain text and in HTML, each value set apart from the direction of the
//! words around it, so that neither turns the other round.

use std::collections::HashMap;
use std::sync::LazyLock;

use icu_properties::CodePointMapData;
use icu_properties::props::BidiClass;
use serde::Deserialize;

use super::{Language, Locale};

/// The words of a key, or a set of them for each plural form by CLDR's name.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Words {
    Plain(String),
    ByCount(HashMap<String, String>),
}

impl Words {
    pub(super) fn of(&self, form: &str) -> &str {
        match self {
            Self::Plain(words) => words,
            Self::ByCount(forms) => forms.get(form).or_else(|| forms.get("other")).map_or("", String::as_str),
        }
    }
}

type Texts = HashMap<String, Words>;

/// By the place of the language in [`Language::ALL`].
pub(super) static TEXTS: LazyLock<[Texts; Language::ALL.len()]> = LazyLock::new(|| {
    Language::ALL.map(|language| {
        #[expect(clippy::expect_used, reason = "the texts are part of the program; a test reads them")]
        serde_json::from_str(source(language)).expect("the texts are JSON")
    })
});

/// The file of this language.
pub(super) const fn source(language: Language) -> &'static str {
    match language {
        Language::English => include_str!("../../templates/languages/en.json"),
        Language::German => include_str!("../../templates/languages/de.json"),
        Language::French => include_str!("../../templates/languages/fr.json"),
        Language::Spanish => include_str!("../../templates/languages/es.json"),
        Language::Arabic => include_str!("../../templates/languages/ar.json"),
    }
}

pub(super) fn words(language: Language, key: &str) -> Option<&'static Words> {
    let of = |language: Language| TEXTS[language as usize].get(key);
    of(language).or_else(|| of(Language::English))
}

/// What is put into a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Words of others: a name, an address, a day.
    Words(&'a str),
    /// A count: written as the locale writes numbers. The one under the name `n` chooses the plural form.
    Count(u64),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(words: &'a str) -> Self {
        Self::Words(words)
    }
}

impl From<u64> for Value<'_> {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl Locale {
    /// The words of this key as plain text, each `{name}` in them replaced by the value of that name. A value that runs,
    /// in part or in whole, in the other direction stands between isolates (U+2068, U+2069); what controls direction
    /// inside of it is left out, so that it cannot reach beyond. A name without a value stays as it is.
    pub fn fill(self, key: &str, values: &[(&str, Value<'_>)]) -> String {
        self.filled(key, values, str::to_owned, |_, value| self.language.isolate(value))
    }

    /// The words of this key as HTML: words and values escaped, each value in `<bdi>`; one named `address` besides of the
    /// class `whole`, since lines would break at its ellipsis. A name without a value stays as it is.
    pub fn fill_html(self, key: &str, values: &[(&str, Value<'_>)]) -> String {
        let escape = handlebars::html_escape;
        self.filled(key, values, escape, |name, value| {
            let whole = if name == "address" { " class=\"whole\"" } else { "" };
            format!("<bdi{whole}>{}</bdi>", escape(value))
        })
    }

    fn filled(
        self,
        key: &str,
        values: &[(&str, Value<'_>)],
        words_as: impl Fn(&str) -> String,
        value_as: impl Fn(&str, &str) -> String,
    ) -> String {
        let given = |name: &str| values.iter().find(|(given, _)| *given == name).map(|(_, value)| *value);
        let form = match given("n") {
            Some(Value::Count(n)) => self.plural(n),
            _ => "other",
        };
        let words = words(self.language, key).map_or("", |words| words.of(form));
        let mut filled = String::with_capacity(words.len() + 64);
        for (n, part) in words.split('{').enumerate() {
            let Some((name, rest)) = part.split_once('}').filter(|_| n > 0) else {
                filled.push_str(&words_as(part));
                continue;
            };
            match given(name) {
                Some(Value::Words(value)) => filled.push_str(&value_as(name, value)),
                Some(Value::Count(count)) => filled.push_str(&value_as(name, &self.number(count))),
                None => filled.push_str(&words_as(&format!("{{{name}}}"))),
            }
            filled.push_str(&words_as(rest));
        }
        filled
    }
}

impl Language {
    /// The names that the words of this key want values for.
    pub fn names(self, key: &str) -> impl Iterator<Item = &'static str> {
        words(self, key).map_or("", |words| words.of("other")).split('{').skip(1).filter_map(|part| {
            let (name, _) = part.split_once('}')?;
            Some(name)
        })
    }

    /// Whether there are words under this key.
    pub fn has(self, key: &str) -> bool {
        words(self, key).is_some()
    }

    /// Words of others, in isolates (U+2068, U+2069) where they run the other way than this language or may turn round
    /// what stands beside them; what controls direction inside of them is left out, so that it reaches no further. For
    /// plain text and titles; HTML has `<bdi>`.
    pub fn isolate(self, words: &str) -> String {
        let controls = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let words: String = words.chars().filter(|&c| !controls(c)).collect();
        let rightward = self.direction() == "ltr";
        let class = CodePointMapData::<BidiClass>::new();
        let foreign = words.chars().any(|c| match class.get(c) {
            BidiClass::LeftToRight | BidiClass::EuropeanNumber => !rightward,
            BidiClass::RightToLeft | BidiClass::ArabicLetter => rightward,
            BidiClass::ArabicNumber => true,
            _ => false,
        });
        if foreign { format!("\u{2068}{words}\u{2069}") } else { words }
    }
}
