//! What people are asked about a version, and for how long. Pure.

use sha2::{Digest, Sha256};

use super::rows::Notice;
use super::{Decision, State};
use crate::clock::Timestamp;
use crate::id::VersionId;
use crate::policy::rows::Version;
use crate::policy::{self, Approval};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Nothing: the change is told and holds.
    Nothing,
    /// Whether the version may hold for them.
    Approval,
    /// Whether a new use of their data is allowed.
    Use,
}

impl Question {
    /// What is asked about this version.
    pub fn of(version: &Version) -> Self {
        Self::about(version.use_topic_id.is_some(), version.approval)
    }

    /// What is asked about a version with or without a new use that can be refused.
    pub fn about(new_use: bool, approval: Approval) -> Self {
        match (new_use, approval) {
            (true, _) => Self::Use,
            (false, Approval::Required) => Self::Approval,
            (false, Approval::None) => Self::Nothing,
        }
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Approval => "approval",
            Self::Use => "use",
        }
    }

    /// The key of the words for such an answer: `agree`, `decline`, `allow` or `refuse`.
    pub fn word(self, decision: Decision) -> &'static str {
        match (self, decision) {
            (Self::Use, Decision::Approve) => "allow",
            (Self::Use, Decision::Decline) => "refuse",
            (_, Decision::Approve) => "agree",
            (_, Decision::Decline) => "decline",
        }
    }
}

/// By what it is known again which words somebody was shown who is asked: SHA-256 over the version, the language, the hash of
/// the text in it and what people are told that changes; hexadecimal. It is no secret, since it proves nothing of who asks.
pub fn shown(version: VersionId, language: &str, text_sha256: &[u8], summary: &str) -> String {
    let mut hash = Sha256::new();
    for part in [version.0.as_bytes(), language.as_bytes(), text_sha256, summary.as_bytes()] {
        // With their lengths, so that no two parts run into one another.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

/// Why no answer is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The change does not come.
    Withdrawn,
    /// A newer version was published that asks as well, or took its place.
    Superseded,
    /// The change has taken effect.
    InEffect,
    /// The account is no more.
    Gone,
    /// The change asks nothing.
    NotAsked,
}

impl Closed {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Withdrawn => "withdrawn",
            Self::Superseded => "superseded",
            Self::InEffect => "in_effect",
            Self::Gone => "gone",
            Self::NotAsked => "not_asked",
        }
    }
}

/// What decides whether an answer is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What is asked.
    pub question: Question,
    /// Whether the version stands for nobody who does not approve it.
    pub needs_approval: bool,
    /// How far the notice has come.
    pub state: State,
    /// From when the change holds.
    pub effective_at: Timestamp,
    /// Whether people are told of newer versions, and whether one of them asks for approval too.
    pub newer: Option<Approval>,
    /// Whether the person was erased.
    pub gone: bool,
}

/// Of a policy's versions those after this one that people are told of: the newest of them, and what is asked last by any
/// that asks for approval.
pub fn newer<'v>(versions: &'v [Version], version: &Version) -> (Option<&'v Version>, Option<Approval>) {
    let told_later = |other: &&Version| {
        other.state == policy::State::Published
            && other.number > version.number
            && other.change.makes_a_notice()
    };
    let newer: Vec<&Version> = versions.iter().filter(told_later).collect();
    let asks = newer.iter().find(|newer| newer.approval == Approval::Required);
    (newer.last().copied(), asks.or(newer.last()).map(|newer| newer.approval))
}

impl Asked {
    /// What is asked of somebody about this version, of which this notice tells. `versions` are those of its policy.
    pub fn of(notice: &Notice, version: &Version, versions: &[Version], gone: bool) -> Self {
        Self {
            question: Question::of(version),
            needs_approval: version.approval == Approval::Required,
            state: notice.state,
            effective_at: notice.effective_at,
            newer: newer(versions, version).1,
            gone,
        }
    }

    /// Why no answer is taken at `now`; none while one is. An approval can be given until the day of the change, unless a
    /// newer version asks too: one question at a time. A newer one that asks nothing takes no question away, since it
    /// holds for nobody who has not agreed to this one. A use can be refused at any time, as the message says: the refusal is about the use, which goes on
    /// through later versions.
    pub fn closed(&self, now: Timestamp) -> Option<Closed> {
        self.closed_to(Decision::Decline, now)
    }

    /// Why this answer is not taken at `now`: a use whose version needs approval can be refused at any time, and allowed as long
    /// as the version can be approved.
    pub fn closed_to(&self, decision: Decision, now: Timestamp) -> Option<Closed> {
        if self.state == State::Withdrawn {
            return Some(Closed::Withdrawn);
        }
        if self.gone {
            return Some(Closed::Gone);
        }
        if self.question == Question::Use && !(self.needs_approval && decision == Decision::Approve) {
            return None;
        }
        let is_over = self.state == State::InEffect || self.effective_at <= now;
        match (self.newer, self.question) {
            (Some(Approval::Required), _) => Some(Closed::Superseded),
            (Some(Approval::None), question) if is_over || question == Question::Nothing => {
                Some(Closed::Superseded)
            }
            (_, Question::Nothing) => Some(Closed::NotAsked),
            _ if is_over => Some(Closed::InEffect),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_approval_ends_with_its_version_and_on_the_day_of_the_change() {
        let asked = Asked {
            question: Question::Approval,
            needs_approval: true,
            state: State::Running,
            effective_at: Timestamp(100),
            newer: None,
            gone: false,
        };
        let closed = |asked: Asked, now| asked.closed(Timestamp(now));
        assert_eq!(closed(asked, 99), None);
        assert_eq!(closed(asked, 100), Some(Closed::InEffect));
        assert_eq!(closed(Asked { state: State::InEffect, ..asked }, 99), Some(Closed::InEffect));
        let (asks, tells) = (Some(Approval::Required), Some(Approval::None));
        assert_eq!(closed(Asked { newer: asks, ..asked }, 99), Some(Closed::Superseded));
        assert_eq!(closed(Asked { newer: tells, ..asked }, 99), None, "a newer one that asks nothing");
        assert_eq!(closed(Asked { newer: tells, ..asked }, 100), Some(Closed::Superseded));
        assert_eq!(
            closed(Asked { newer: asks, state: State::Withdrawn, ..asked }, 99),
            Some(Closed::Withdrawn)
        );
        assert_eq!(closed(Asked { gone: true, ..asked }, 99), Some(Closed::Gone));
        let told = Asked { question: Question::Nothing, needs_approval: false, ..asked };
        assert_eq!(closed(told, 99), Some(Closed::NotAsked));
        assert_eq!(closed(Asked { newer: tells, ..told }, 99), Some(Closed::Superseded));
    }

    #[test]
    fn other_words_another_language_text_or_version_are_not_what_was_shown() {
        let version = VersionId::new();
        let one = shown(version, "en", b"12", "We keep less.");
        assert_eq!(one, shown(version, "en", b"12", "We keep less."));
        for other in [
            shown(version, "en", b"12", "We keep more."),
            shown(version, "en", b"1", "2We keep less."),
            shown(version, "de", b"12", "We keep less."),
            shown(VersionId::new(), "en", b"12", "We keep less."),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_use_can_be_refused_at_any_time_unless_it_never_comes() {
        let asked = Asked {
            question: Question::Use,
            needs_approval: false,
            state: State::InEffect,
            effective_at: Timestamp(100),
            newer: Some(Approval::Required),
            gone: false,
        };
        assert_eq!(asked.closed(Timestamp(500)), None);
        let withdrawn = Asked { state: State::Withdrawn, ..asked };
        assert_eq!(withdrawn.closed(Timestamp(1)), Some(Closed::Withdrawn));
        let both = Asked { needs_approval: true, newer: None, ..asked };
        let closed = |decision| both.closed_to(decision, Timestamp(500));
        assert_eq!((closed(Decision::Approve), closed(Decision::Decline)), (Some(Closed::InEffect), None));
        assert_eq!(both.closed(Timestamp(500)), None);
        let ahead = Asked { state: State::Running, ..both };
        assert_eq!(ahead.closed_to(Decision::Approve, Timestamp(99)), None);
        let overtaken = Asked { newer: Some(Approval::Required), ..ahead };
        assert_eq!(overtaken.closed_to(Decision::Approve, Timestamp(99)), Some(Closed::Superseded));
    }
}
