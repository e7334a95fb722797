//! What a version of a policy is made of before anybody checks it, and the checks that need no database. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use icu_locale::Locale;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{Approval, Change};
use crate::clock::{Local, Timestamp};

/// Most characters of a title.
pub(super) const MAX_TITLE: usize = 200;
/// Most characters of a summary.
const MAX_SUMMARY: usize = 5_000;
/// Most octets of a text.
const MAX_BODY: usize = 256 * 1024;
/// Most translations of a version.
const MAX_TRANSLATIONS: usize = 30;
/// Most characters of a reason.
const MAX_REASON: usize = 2_000;
/// Most characters of a language tag.
const MAX_LANGUAGE: usize = 35;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A version as somebody wants it.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The text in the policy's language, Markdown.
    pub body_markdown: String,
    /// How it changes the policy.
    pub change: Change,
    /// What changes, in plain words.
    pub summary: String,
    /// From when it holds.
    pub effective_at: Option<Local>,
    /// Whether people are asked to approve it; as the change says when absent.
    pub approval: Option<Approval>,
    /// Why it may do what the policy's rules forbid.
    pub override_reason: Option<String>,
    /// What it says in other languages, by tag.
    pub translations: BTreeMap<String, Translation>,
    /// The slug of the topic that stands for a new use.
    pub topic: Option<String>,
}

impl Draft {
    /// By how many minutes the clock is ahead of UTC by which its date is named.
    pub(super) fn offset(&self) -> i64 {
        self.effective_at.map_or(0, |named| named.east)
    }
}

/// What a version says in another language.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TranslationFields)]
pub struct Translation {
    /// What the policy is called in it; as in its own language when absent. At most 200 characters.
    #[serde(default)]
    pub title: Option<String>,
    /// What changes, in plain words; at most 5,000 characters.
    pub summary: String,
    /// The text, Markdown of at most 256 kB.
    pub body_markdown: String,
}

/// A field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// JSON pointer to the field.
    pub pointer: String,
    /// What is wrong and what to do.
    pub reason: String,
}

impl Flaw {
    /// One field is wrong.
    pub fn new(pointer: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), reason: reason.into() }
    }
}

/// Why something cannot be done with a policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// These fields are wrong.
    #[error("{}", sentence(.0))]
    Flaws(Vec<Flaw>),
    /// Not as things stand: what stands in the way, and what to do.
    #[error("{0}")]
    Conflict(String),
    /// Somebody else has to do it.
    #[error("{0}")]
    SomebodyElse(String),
    /// There is no such version, or not any more.
    #[error("there is no such version")]
    Gone,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] sea_orm::DbErr),
}

fn sentence(flaws: &[Flaw]) -> String {
    flaws.iter().map(|flaw| format!("{}: {}", flaw.pointer, flaw.reason)).collect::<Vec<_>>().join("; ")
}

/// What the date of a version is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    /// The database's time.
    pub now: Timestamp,
    /// From when the version before it holds; none before the baseline.
    pub before: Option<Timestamp>,
    /// Days that people must have between being told and the date.
    pub lead_time_days: i64,
    /// Whether people are told of it.
    pub tells: bool,
    /// Whether somebody gave a reason for leaving them less time.
    pub overridden: bool,
}

impl Calendar {
    /// Checks the date of a version. That of the baseline may be any, or none.
    ///
    /// # Errors
    /// What is wrong with it and what to do.
    pub fn check(&self, effective_at: Option<Timestamp>) -> Result<(), String> {
        let Some(before) = self.before else { return Ok(()) };
        let Some(at) = effective_at else {
            return Err(
                "is missing: from when does it hold? Only the first version of a policy may leave it out"
                    .into(),
            );
        };
        if at < self.now {
            return Err(format!("{at} lies in the past; it is {} now", self.now));
        }
        if at < before {
            return Err(format!(
                "{at} comes before {before}, from when the version before it holds; choose that or a later date"
            ));
        }
        if self.tells && !self.overridden && at < self.lead_end() {
            let earliest = next_day(self.lead_end()).max(before);
            return Err(format!(
                "{at} is nearer than the policy's lead time of {} days; choose {earliest} or a later date, or say in \
                 override_reason why people get less time",
                self.lead_time_days
            ));
        }
        Ok(())
    }

    fn lead_end(&self) -> Timestamp {
        let days = u32::try_from(self.lead_time_days).unwrap_or(0);
        self.now.plus(DAY * days)
    }
}

/// The first midnight (UTC) that is not before it, so that who takes it has a moment to write it down.
fn next_day(at: Timestamp) -> Timestamp {
    let day = crate::clock::micros(DAY);
    Timestamp(at.0.saturating_add(day - 1).div_euclid(day) * day)
}

/// Checks what hangs on nothing but the draft and the policy's own language.
pub(super) fn check(draft: &Draft, language: &str) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    check_words("", None, &draft.summary, &draft.body_markdown, &mut flaws);
    if draft.translations.len() > MAX_TRANSLATIONS {
        let reason = format!("has more than {MAX_TRANSLATIONS} entries");
        flaws.push(Flaw::new("/translations", reason));
    }
    let mut seen = vec![language.to_owned()];
    for (tag, translation) in draft.translations.iter().take(MAX_TRANSLATIONS) {
        let pointer = format!("/translations/{}", escaped(tag));
        match language_tag(tag) {
            None => {
                let reason = "is no language tag; use one of RFC 5646 such as de, pt-BR or zh-Hant";
                flaws.push(Flaw::new(&pointer, reason));
            }
            Some(tag) if seen.contains(&tag) => {
                let reason =
                    format!("{tag} is there already, as the policy's own language or under another spelling");
                flaws.push(Flaw::new(&pointer, reason));
            }
            Some(tag) => seen.push(tag),
        }
        let Translation { title, summary, body_markdown } = translation;
        check_words(&pointer, title.as_deref(), summary, body_markdown, &mut flaws);
    }
    if let Some(reason) = draft.override_reason.as_deref().and_then(bad_reason) {
        flaws.push(Flaw::new("/override_reason", reason));
    }
    match (draft.change, &draft.topic) {
        (Change::NewUse, None) => {
            let reason =
                "is missing: name the topic that stands for the new use, so that people can refuse it";
            flaws.push(Flaw::new("/topic", reason));
        }
        (Change::NewUse, Some(_)) | (_, None) => {}
        (other, Some(_)) => {
            flaws.push(Flaw::new("/topic", format!("is for changes of kind new_use; this one is {other}")));
        }
    }
    flaws
}

/// Whether people are asked to approve it.
pub(super) fn approval_of(draft: &Draft, baseline: bool) -> Result<Approval, Flaw> {
    let refused = |reason: &str| Err(Flaw::new("/approval", reason));
    match (draft.change, draft.approval) {
        (_, Some(Approval::Required)) if baseline => {
            refused("the first version of a policy is told to nobody, so nobody can be asked; leave it out")
        }
        (Change::Minor, Some(Approval::Required)) => {
            refused("a minor change is told to nobody, so nobody can be asked; choose another kind of change")
        }
        (Change::Adverse, Some(Approval::None)) if !baseline && draft.override_reason.is_none() => {
            refused("an adverse change asks for approval; say in override_reason why this one does not")
        }
        (_, Some(approval)) => Ok(approval),
        (Change::Adverse, None) if !baseline => Ok(Approval::Required),
        (_, None) => Ok(Approval::None),
    }
}

/// What is wrong with a reason, if anything is.
pub(super) fn bad_reason(reason: &str) -> Option<String> {
    bad_words(reason, MAX_REASON)
}

/// A well-formed language tag in its usual spelling: `pt-BR` for `PT-br`. None for what is no tag.
pub fn language_tag(tag: &str) -> Option<String> {
    if tag.len() > MAX_LANGUAGE || tag.contains('_') {
        return None;
    }
    Locale::try_from_str(tag).ok().map(|read| read.to_string())
}

fn check_words(at: &str, title: Option<&str>, summary: &str, body: &str, flaws: &mut Vec<Flaw>) {
    if let Some(title) = title {
        let reason = bad_words(title, MAX_TITLE);
        let reason = reason.or_else(|| title.contains('\n').then(|| "must be one line".to_owned()));
        flaws.extend(reason.map(|reason| Flaw::new(format!("{at}/title"), reason)));
    }
    flaws.extend(bad_words(summary, MAX_SUMMARY).map(|reason| Flaw::new(format!("{at}/summary"), reason)));
    let reason = if body.len() > MAX_BODY {
        Some(format!("is longer than {} kB", MAX_BODY / 1024))
    } else {
        bad_words(body, MAX_BODY)
    };
    flaws.extend(reason.map(|reason| Flaw::new(format!("{at}/body_markdown"), reason)));
}

fn bad_words(text: &str, most: usize) -> Option<String> {
    if text.trim().is_empty() {
        return Some("must not be empty".into());
    }
    let unwelcome = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.replace("\r\n", "\n").chars().any(unwelcome) {
        return Some("must not hold NUL or other control characters".into());
    }
    (text.chars().count() > most).then(|| format!("is longer than {most} characters"))
}

/// A part of a JSON pointer (RFC 6901).
fn escaped(part: &str) -> String {
    part.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

    fn days(n: u32) -> Timestamp {
        NOW.plus(DAY * n)
    }

    fn draft() -> Draft {
        Draft {
            body_markdown: "# Privacy".into(),
            change: Change::Material,
            summary: "We keep less.".into(),
            effective_at: Some(days(31).into()),
            approval: None,
            override_reason: None,
            translations: BTreeMap::new(),
            topic: None,
        }
    }

    fn translated(tag: &str) -> Draft {
        let translation =
            Translation { title: None, summary: "Weniger.".into(), body_markdown: "# Datenschutz".into() };
        Draft { translations: [(tag.to_owned(), translation)].into(), ..draft() }
    }

    fn pointers(draft: &Draft) -> Vec<String> {
        check(draft, "en").into_iter().map(|flaw| flaw.pointer).collect()
    }

    fn calendar() -> Calendar {
        Calendar { now: NOW, before: Some(days(0)), lead_time_days: 30, tells: true, overridden: false }
    }

    #[track_caller]
    fn refused(calendar: Calendar, at: Timestamp, words: &str) {
        let reason = calendar.check(Some(at)).unwrap_err();
        assert!(reason.contains(words), "{reason}");
    }

    #[test]
    fn a_later_date_leaves_the_lead_time_and_the_reason_names_the_earliest() {
        assert!(calendar().check(Some(days(30))).is_ok());
        let earliest = next_day(days(30));
        assert!(earliest >= days(30) && earliest.since(days(30)) < DAY);
        refused(calendar(), Timestamp(days(30).0 - 1), &format!("choose {earliest} or a later date"));
        assert!(Calendar { overridden: true, ..calendar() }.check(Some(days(1))).is_ok());
        assert!(Calendar { tells: false, ..calendar() }.check(Some(days(0))).is_ok());
        let before = Some(days(90));
        let late = Calendar { before, ..calendar() };
        assert!(late.check(before).is_ok());
        refused(late, days(89), "comes before");
    }

    #[test]
    fn what_no_reason_overrides() {
        let overridden = Calendar { overridden: true, ..calendar() };
        refused(overridden, Timestamp(NOW.0 - 1), "in the past");
        refused(Calendar { before: Some(days(2)), ..overridden }, days(1), "comes before");
        assert!(overridden.check(None).unwrap_err().contains("is missing"));
    }

    #[test]
    fn the_baseline_may_hold_since_any_time() {
        let baseline = Calendar { before: None, ..calendar() };
        assert!(baseline.check(None).is_ok() && baseline.check(Some(Timestamp(0))).is_ok());
    }

    #[test]
    fn languages_are_tags_and_each_comes_once() {
        for good in ["de", "pt-BR", "zh-Hant", "de-1996", "es-419"] {
            assert!(pointers(&translated(good)).is_empty(), "{good}");
        }
        for bad in ["", "deutsch!", "d", "de_DE", "de-", "english-language", "en", "EN"] {
            assert_eq!(pointers(&translated(bad)), [format!("/translations/{bad}")], "{bad}");
        }
        let mut twice = translated("pt-BR");
        twice.translations.extend(translated("pt-br").translations);
        assert_eq!(pointers(&twice).len(), 1);
        let mut many = draft();
        for a in b'a'..=b'z' {
            for b in b'x'..=b'z' {
                let tag = String::from_utf8(vec![a, b]).unwrap();
                many.translations.extend(translated(&tag).translations);
            }
        }
        assert!(pointers(&many).contains(&"/translations".to_owned()));
    }

    #[test]
    fn what_is_empty_or_too_long_is_named() {
        let mut bad = translated("de");
        bad.summary = " ".into();
        bad.body_markdown = "x".repeat(MAX_BODY + 1);
        let translation = bad.translations.get_mut("de").unwrap();
        translation.summary = "x".repeat(MAX_SUMMARY + 1);
        translation.title = Some("a\nb".into());
        translation.body_markdown = "a\u{7}b".into();
        bad.override_reason = Some(String::new());
        bad.topic = Some("offers".into());
        let expected = [
            "/summary",
            "/body_markdown",
            "/translations/de/title",
            "/translations/de/summary",
            "/translations/de/body_markdown",
            "/override_reason",
            "/topic",
        ];
        assert_eq!(pointers(&bad), expected);
        assert_eq!(pointers(&Draft { change: Change::NewUse, ..draft() }), ["/topic"]);
    }

    #[test]
    fn approval_follows_the_change_unless_it_is_set() {
        let of = |change, approval, reason: Option<&str>, baseline| {
            let override_reason = reason.map(str::to_owned);
            approval_of(&Draft { change, approval, override_reason, ..draft() }, baseline).ok()
        };
        assert_eq!(of(Change::Adverse, None, None, false), Some(Approval::Required));
        assert_eq!(of(Change::Adverse, Some(Approval::None), None, false), None);
        assert_eq!(of(Change::Adverse, Some(Approval::None), Some("law"), false), Some(Approval::None));
        assert_eq!(of(Change::Adverse, None, None, true), Some(Approval::None));
        assert_eq!(of(Change::Material, None, None, false), Some(Approval::None));
        assert_eq!(of(Change::Material, Some(Approval::Required), None, false), Some(Approval::Required));
        assert_eq!(of(Change::Minor, Some(Approval::Required), None, false), None);
        assert_eq!(of(Change::Material, Some(Approval::Required), None, true), None);
    }
}
