//! What a notice says: the words that its template sees, in each language. Pure.
//!
//! The built-in template says all that a notice must: what changes and what it means, from when, where the new and the old
//! text stand, what rights there are and how to use them, whom to ask. It has nothing to advertise and nothing to track.

use serde_json::{Value as Json, json};

use super::RoundKind;
use crate::clock::Local;
use crate::language::{Locale, Value};

/// What the built-in template is called in frozen content.
pub const NAME: &str = "@notice";
/// The subject of the built-in template.
pub const SUBJECT: &str = "{{data.words.subject}}";
/// Its HTML part.
pub const HTML: &str = include_str!("../../templates/mail/notice.html.hbs");
/// Its text part.
pub const TEXT: &str = include_str!("../../templates/mail/notice.txt.hbs");

/// What there is to say in one language.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// What is told.
    pub kind: RoundKind,
    /// The language tag of the text.
    pub language: &'a str,
    /// The brand's name.
    pub brand: &'a str,
    /// What the policy is called.
    pub title: &'a str,
    /// The version's number.
    pub version: i64,
    /// The kind of change, by its word.
    pub change: &'a str,
    /// What changes, in plain words; empty where nothing does.
    pub summary: &'a str,
    /// Why people are told again.
    pub reason: Option<&'a str>,
    /// From when it holds.
    pub effective_at: Local,
    /// From when another change holds that was announced, where this one does not come.
    pub next: Option<Local>,
    /// The earlier version without whose approval this one holds for nobody who had to give it, where there is one and this
    /// one asks nothing itself.
    pub needs: Option<i64>,
    /// SHA-256 of the text in this language, hexadecimal.
    pub sha256: &'a str,
    /// Where the version stands; of one that does not come, where the text in force does.
    pub url: &'a str,
    /// Where the version before it stands, and what changed between the two.
    pub before: Option<(&'a str, &'a str)>,
    /// Whether people are asked to approve.
    pub approval: bool,
    /// What people may refuse: the name of the topic that stands for a new use.
    pub new_use: Option<&'a str>,
}

impl Said<'_> {
    /// What templates see as `data`.
    pub fn data(&self) -> Json {
        let locale = Locale::of(self.language).unwrap_or_default();
        let date = locale.day(self.effective_at);
        let next = self.next.map(|next| locale.day(next)).unwrap_or_default();
        let needs = self.needs.map(|number| number.to_string()).unwrap_or_default();
        let values: [(&str, Value<'_>); 5] = [
            ("title", self.title.into()),
            ("brand", self.brand.into()),
            ("date", date.as_str().into()),
            ("next", next.as_str().into()),
            ("version", needs.as_str().into()),
        ];
        let words = |key: &str| locale.fill(key, &values);
        let kind = self.kind.as_str();
        let ahead = !matches!(self.kind, RoundKind::Withdrawal | RoundKind::Reminder);
        let (new, fingerprint) = match ahead {
            true => ("notice.new", "notice.fingerprint"),
            false => ("notice.current", "notice.fingerprint.current"),
        };
        let (why, preferences) = match self.kind {
            RoundKind::Reminder => ("notice.why.reminder", "notice.preferences.reminder"),
            _ => ("notice.why", "notice.preferences"),
        };
        let (subject, lead) = keys(self.kind, self.next.is_some());
        let mut approval = words("notice.approval.text");
        if self.kind == RoundKind::Correction && self.new_use.is_none() {
            approval = format!("{approval} {}", words("notice.approval.again"));
        }
        json!({
            "kind": kind,
            "policy": self.title,
            "version": self.version,
            "change": self.change,
            "summary": self.summary,
            "reason": self.reason,
            "effective_at": self.effective_at.to_string(),
            "effective_date": ahead.then_some(date.as_str()),
            // The name is older than dates that are named by another clock; it says how far that is from UTC.
            "effective_utc": ahead.then(|| self.effective_at.in_figures()),
            // What does not come is not what the message links to.
            "sha256": (self.kind != RoundKind::Withdrawal).then_some(self.sha256),
            "url": self.url,
            "old_url": self.before.map(|(old, _)| old).filter(|_| ahead),
            "changes_url": self.before.map(|(_, changes)| changes).filter(|_| ahead),
            "approval": self.approval && ahead,
            "new_use": self.new_use.filter(|_| ahead),
            "rights": words("notice.rights.text"),
            "words": {
                "subject": words(subject),
                "lead": words(lead),
                "reason": words("notice.reason"),
                "what": words("notice.what"),
                "when": words("notice.when"),
                "when_text": words("notice.when.text"),
                "needs": self.needs.map_or(String::new(), |_| words("notice.when.needs")),
                "read": words("notice.read"),
                "new": words(new),
                "old": words("notice.old"),
                "compare": words("notice.compare"),
                "approval": words("notice.approval"),
                "approval_text": approval,
                "approval_button": words("notice.approval.button"),
                "use": words("notice.use"),
                "use_text": words("notice.use.text"),
                "use_button": words("notice.use.button"),
                "rights_heading": words("notice.rights"),
                "contact": words("notice.contact"),
                "why": words(why),
                "preferences": words(preferences),
                "fingerprint": words(fingerprint),
            },
        })
    }
}

/// What a message of this kind is headed by, and begins with.
fn keys(kind: RoundKind, another_comes: bool) -> (&'static str, &'static str) {
    match kind {
        RoundKind::Change => ("notice.subject.change", "notice.lead.change"),
        RoundKind::Correction => ("notice.subject.correction", "notice.lead.correction"),
        RoundKind::Postponement => ("notice.subject.postponement", "notice.lead.postponement"),
        RoundKind::Withdrawal if another_comes => {
            ("notice.subject.withdrawal.next", "notice.lead.withdrawal.next")
        }
        RoundKind::Withdrawal => ("notice.subject.withdrawal", "notice.lead.withdrawal"),
        RoundKind::ApprovalReminder => ("notice.subject.approval_reminder", "notice.lead.approval_reminder"),
        RoundKind::Reminder => ("notice.subject.reminder", "notice.lead.reminder"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;

    fn said(kind: RoundKind, language: &str) -> Json {
        Said {
            kind,
            language,
            brand: "Acme",
            title: "Privacy policy",
            version: 2,
            change: "adverse",
            summary: "We share less.",
            reason: None,
            effective_at: "2027-01-16T00:30:00+01:00".parse().unwrap(),
            next: None,
            needs: Some(7),
            sha256: "00",
            url: "https://a.example/policies/privacy/2",
            before: Some((
                "https://a.example/policies/privacy/1",
                "https://a.example/policies/privacy/2/changes",
            )),
            approval: true,
            new_use: None,
        }
        .data()
    }

    #[test]
    fn every_kind_is_said_in_every_language_without_a_gap() {
        for language in Language::ALL {
            for kind in RoundKind::ALL {
                let data = said(kind, language.code());
                for (name, words) in data["words"].as_object().unwrap() {
                    let words = words.as_str().unwrap();
                    assert!(
                        !words.is_empty() && !words.contains(['{', '}']),
                        "{language:?} {kind} {name}: {words}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_does_not_come_has_no_date_and_asks_nothing() {
        let data = said(RoundKind::Withdrawal, "en");
        assert!(data["effective_date"].is_null() && data["approval"] == false && data["old_url"].is_null());
        assert!(data["sha256"].is_null());
        let data = said(RoundKind::Change, "pt");
        assert_eq!(data["effective_date"], "16 January 2027");
        assert_eq!(data["effective_utc"], "2027-01-16 00:30 UTC+01:00");
        assert_eq!(data["effective_at"], "2027-01-16T00:30:00+01:00");
        let said = |name: &str| data["words"][name].as_str().unwrap().to_owned();
        assert!(said("when_text").contains("16 January 2027") && said("needs").contains("version 7"));
        assert_eq!(data["approval"], true);
    }
}
