//! Dates, numbers and plural forms, as CLDR has them for a locale.

use icu_datetime::FixedCalendarDateTimeFormatter;
use icu_datetime::fieldsets::YMD;
use icu_datetime::input::Date;
use icu_decimal::DecimalFormatter;
use icu_decimal::input::Decimal;
use icu_plurals::{PluralCategory, PluralRules};

use super::{Language, Locale};
use crate::clock::Local;

impl Locale {
    /// The day of a moment, by the clock by which it was named or else in UTC, as people there write it out, by the
    /// Gregorian calendar: `2 November 2026`,
    /// `2. November 2026`, `November 2, 2026` in the United States, `2 نونبر 2026` in Morocco.
    pub fn day(self, at: impl Into<Local>) -> String {
        use chrono::Datelike;
        let date = at.into().date();
        let written = || {
            // Days of the month and months fit in an octet.
            let (month, day) = (u8::try_from(date.month()).ok()?, u8::try_from(date.day()).ok()?);
            let day = Date::try_new_gregorian(date.year(), month, day).ok()?;
            let form = FixedCalendarDateTimeFormatter::try_new(self.for_cldr().into(), YMD::long()).ok()?;
            Some(form.format(&day).to_string())
        };
        let written: String = written().unwrap_or_else(|| date.to_string());
        match (self.language, written.strip_prefix("1 ")) {
            // In French the first day is "premier", which CLDR's pattern does not know.
            (Language::French, Some(rest)) => format!("1er {rest}"),
            _ => written,
        }
    }

    /// The number with the digits and the grouping of the place: `1,234`, `1.234`, `1 234`, `١٬٢٣٤`.
    pub fn number(self, number: u64) -> String {
        match DecimalFormatter::try_new(self.for_cldr().into(), Default::default()) {
            Ok(form) => form.format(&Decimal::from(number)).to_string(),
            Err(_) => number.to_string(),
        }
    }

    /// The plural form that this number asks for, by CLDR's name: `one`, `few`.
    pub(super) fn plural(self, number: u64) -> &'static str {
        let category = PluralRules::try_new(self.for_cldr().into(), Default::default())
            .map_or(PluralCategory::Other, |rules| rules.category_for(number));
        name(category)
    }
}

/// CLDR's name of a plural form.
pub(super) const fn name(category: PluralCategory) -> &'static str {
    match category {
        PluralCategory::Zero => "zero",
        PluralCategory::One => "one",
        PluralCategory::Two => "two",
        PluralCategory::Few => "few",
        PluralCategory::Many => "many",
        PluralCategory::Other => "other",
    }
}
