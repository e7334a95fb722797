//! The languages of pages and mail: which one a person reads, its words, and how its dates and numbers are written.
//!
//! Pure, and knows no idea. The words stand in `templates/languages/`, a file a language; a test fails on a word that is
//! missing in one of them. Dates, digits and plural forms are CLDR's. It promises: whatever is asked of it in whatever
//! spelling, the answer is one of the languages here, and never an error. It never guesses a language from a name, an
//! address or an IP address.
//!
//! To add a language: its file in `templates/languages/`, its variant in [`Language`], and what the tests then ask for.

mod choice;
mod forms;
mod texts;

use std::fmt;

use icu_locale::subtags::Region;
use icu_locale::{LanguageIdentifier, LocaleCanonicalizer, langid};

pub use choice::{Choice, are_kin, nearest, primary, tags_accepted};
pub use texts::Value;

/// A language that pages and mail are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Language {
    /// English: what everybody gets whose language is not here.
    #[default]
    English,
    /// German.
    German,
    /// French.
    French,
    /// Spanish.
    Spanish,
    /// Arabic: Modern Standard, written from right to left.
    Arabic,
}

impl Language {
    /// All of them, English first.
    pub const ALL: [Self; 5] = [Self::English, Self::German, Self::French, Self::Spanish, Self::Arabic];

    /// Its tag for `lang` and `Content-Language` (RFC 5646): `de`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
            Self::French => "fr",
            Self::Spanish => "es",
            Self::Arabic => "ar",
        }
    }

    /// The direction of its lines, as the `dir` of HTML has it: `ltr` or `rtl`.
    pub const fn direction(self) -> &'static str {
        match self {
            Self::Arabic => "rtl",
            _ => "ltr",
        }
    }

    /// The language of this locale, in any spelling that [`Locale::of`] reads, if it is one of ours.
    pub fn of_locale(locale: &str) -> Option<Self> {
        Locale::of(locale).map(Locale::language)
    }

    /// The language that an `Accept-Language` field asks for, if it is one of ours; see [`Locale::accepted`].
    pub fn accepted(field: &str) -> Option<Self> {
        Locale::accepted(field).map(Locale::language)
    }

    /// The words of this key as they stand; those of English when it has none here, and none when English has none
    /// either, which a test forbids. What has `{names}` is for [`Locale::fill`].
    pub fn text(self, key: &str) -> &'static str {
        texts::words(self, key).map_or("", |words| words.of("other"))
    }
}

/// A language as it is written somewhere: Austria's German, Morocco's Arabic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Locale {
    language: Language,
    region: Option<Region>,
}

/// Longest locale that is read, in octets; RFC 5646 section 4.4.1 asks for at least 35.
const MAX_LOCALE: usize = 64;

impl Locale {
    /// Reads a locale as BCP 47 or POSIX spell it: `de-AT`, `de_DE.UTF-8`, `AR-eg`, `deu`. What does not begin with a
    /// language of ours is none.
    pub fn of(locale: &str) -> Option<Self> {
        let locale = locale.trim().split(['.', '@']).next().filter(|bare| bare.len() <= MAX_LOCALE)?;
        let mut tag = locale.replace('_', "-");
        // Of a tag that is not well formed the part before the fault counts.
        let mut read = loop {
            match LanguageIdentifier::try_from_str(&tag) {
                Ok(read) => break icu_locale::Locale::from(read),
                Err(_) => tag.truncate(tag.rfind('-')?),
            }
        };
        LocaleCanonicalizer::new_common().canonicalize(&mut read);
        let language = Language::ALL.into_iter().find(|one| one.code() == read.id.language.as_str())?;
        Some(Self { language, region: read.id.region })
    }

    /// What an `Accept-Language` field asks for (RFC 9110 section 12.5.4), if it is one of ours: the greatest weight
    /// wins, then the earlier place; a weight of 0 rules a language out; `*` is any language that is not named, ours in
    /// the order of [`Language::ALL`]. What cannot be read is passed over, and so is what stands beyond the first 50
    /// ranges or 1,000 octets.
    pub fn accepted(field: &str) -> Option<Self> {
        choice::accepted(field)
    }

    /// Its language.
    pub const fn language(self) -> Language {
        self.language
    }

    /// For CLDR. English of no place is the world's, whose dates nobody misreads, and not that of the United States.
    fn for_cldr(self) -> icu_locale::Locale {
        let mut id = match self.language {
            Language::English => langid!("en-001"),
            Language::German => langid!("de"),
            Language::French => langid!("fr"),
            Language::Spanish => langid!("es"),
            Language::Arabic => langid!("ar"),
        };
        id.region = self.region.or(id.region);
        id.into()
    }
}

impl From<Language> for Locale {
    fn from(language: Language) -> Self {
        Self { language, region: None }
    }
}

/// As BCP 47 writes it, which [`Locale::of`] reads again.
impl fmt::Display for Locale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.language.code())?;
        self.region.map_or(Ok(()), |region| write!(f, "-{region}"))
    }
}

#[cfg(test)]
mod tests;
