//! What templates are tried with: every case that a notice can be, with values that stand nowhere else. Pure.

use std::fmt;

use serde_json::Value as Json;

use crate::brand::{Brand, Topic};
use crate::clock::Timestamp;
use crate::decision::Class;
use crate::id::TopicId;
use crate::language::{Language, Locale};
use crate::notice::RoundKind;
use crate::notice::message::Said;

/// When the samples are sent, in microseconds.
pub(super) const NOW: i64 = 1_940_000_000_000_000;
/// From when they hold: in the evening of 19 July 2031, UTC.
const EFFECTIVE_AT: i64 = 1_942_254_240_000_000;
const EFFECTIVE_DAY: &str = "2031-07-19";
/// An element that is none, in each value: it comes out as one where a template writes values as they are.
pub(super) const UNESCAPED: &str = "sample-value";
/// What the policy is called.
pub(super) const TITLE: &str = "Sample <sample-value> policy 7041";
const SUMMARY: &str = "Sample <sample-value> summary 3158 of what changes.";
const NAME: &str = "Sample <sample-value> person";

/// A notice that might come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    kind: RoundKind,
    language: Language,
    approval: bool,
    new_use: bool,
    named: bool,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.kind.as_str().replace('_', " "), self.language.code())?;
        let asks = [(self.approval, ", with approval"), (self.new_use, ", with a new use")];
        asks.iter().filter(|(asks, _)| *asks).try_for_each(|(_, words)| f.write_str(words))?;
        f.write_str(")")
    }
}

/// What must be seen: what it is, how it is written, and the words of which one must stand there.
type Must = (&'static str, &'static str, Vec<String>);

impl Case {
    /// All of them; without those that ask where nobody is asked.
    pub(super) fn all(asks: bool) -> Vec<Self> {
        let mut all = Vec::new();
        for (nth, language) in Language::ALL.into_iter().enumerate() {
            for kind in [
                RoundKind::Change,
                RoundKind::Correction,
                RoundKind::Postponement,
                RoundKind::ApprovalReminder,
            ] {
                for (approval, new_use) in [(false, false), (true, false), (false, true), (true, true)] {
                    let reminds = kind == RoundKind::ApprovalReminder;
                    if (approval || new_use) && !asks || reminds && !approval {
                        continue;
                    }
                    // Each of them comes with a name in some languages and without one in the others.
                    let named = (all.len() + nth).is_multiple_of(2);
                    all.push(Self { kind, language, approval, new_use, named });
                }
            }
        }
        all
    }

    /// The one with everything that can be conditional.
    pub(super) fn full() -> Self {
        Self {
            kind: RoundKind::Correction,
            language: Language::English,
            approval: true,
            new_use: true,
            named: true,
        }
    }

    pub(super) fn answers(&self) -> bool {
        self.approval || self.new_use
    }

    pub(super) fn language(&self) -> &'static str {
        self.language.code()
    }

    pub(super) fn name(&self) -> Option<&'static str> {
        self.named.then_some(NAME)
    }

    /// Where the new text stands, the old one, and what changes.
    pub(super) fn urls(&self, base: &str) -> (String, String, String) {
        let of = |what: &str| format!("{base}/policies/sample/{what}?lang={}", self.language());
        (of("2"), of("1"), of("2/changes"))
    }

    /// What templates see as `data`.
    pub(super) fn data(&self, brand: &Brand, base: &str) -> Json {
        let (new, old, changes) = self.urls(base);
        let again = matches!(self.kind, RoundKind::Correction | RoundKind::Postponement);
        Said {
            kind: self.kind,
            language: self.language(),
            brand: &brand.name,
            title: TITLE,
            version: 2,
            change: match (self.new_use, self.approval) {
                (true, _) => "new_use",
                (_, true) => "adverse",
                _ => "material",
            },
            summary: SUMMARY,
            reason: again.then_some("Sample <sample-value> reason 9067."),
            effective_at: Timestamp(EFFECTIVE_AT).into(),
            next: None,
            needs: None,
            sha256: "5a",
            url: &new,
            before: Some((&old, &changes)),
            approval: self.approval,
            new_use: self.new_use.then_some("Sample <sample-value> use 5512"),
        }
        .data()
    }

    /// The words that must be seen in each part, where this is what templates see.
    pub(super) fn words(&self, brand: &Brand, data: &Json) -> Vec<Must> {
        let locale = Locale::from(self.language);
        let rights = data["rights"].as_str().unwrap_or_default().to_owned();
        vec![
            ("what changes", "{{data.summary}}", vec![SUMMARY.to_owned()]),
            (
                "the date from which it holds",
                "{{data.effective_date}}",
                vec![locale.day(Timestamp(EFFECTIVE_AT))],
            ),
            (
                "the date as it is written everywhere, with its time zone,",
                "{{data.effective_utc}}",
                vec![EFFECTIVE_DAY.to_owned()],
            ),
            ("what rights people have", "{{data.rights}}", vec![rights]),
            ("whom to ask", "{{brand.postal_address}}", contacts(brand)),
        ]
    }
}

/// By what a brand may be asked.
fn contacts(brand: &Brand) -> Vec<String> {
    let given = [Some(&brand.postal_address), brand.phone.as_ref(), brand.website.as_ref()];
    given.into_iter().flatten().filter(|way| !way.trim().is_empty()).cloned().collect()
}

/// Whether it says how it may be asked.
pub(super) fn has_contact(brand: &Brand) -> bool {
    !contacts(brand).is_empty()
}

/// The brand with all that a template may ask for.
pub(super) fn complete(brand: &Brand) -> Brand {
    let mut whole = brand.clone();
    if whole.postal_address.trim().is_empty() {
        whole.postal_address = "Sample street 4408".into();
    }
    whole.phone = whole.phone.or_else(|| Some("+1 555 0100".into()));
    whole.website = whole.website.or_else(|| Some("https://brand.invalid/".into()));
    whole
}

/// The topic of notices.
pub(super) fn topic(brand: &Brand) -> Topic {
    Topic {
        id: TopicId::new(),
        brand_id: brand.id,
        slug: "policy-notices".into(),
        name: "Policy notices".into(),
        class: Class::Notice,
        description: None,
        consent: "opt_out".into(),
        customers_keep: false,
        created_at: Timestamp(NOW),
        updated_at: Timestamp(NOW),
        archived_at: None,
    }
}
