//! What entries say: the shape of each kind's body, the same in the database, in an export and for whoever reads it.
//!
//! Nothing here holds an address. Times are RFC 3339 in UTC, hashes hexadecimal.

use serde::{Deserialize, Serialize};

use super::super::{Decision, RoundKind, ToldBy};
use crate::clock::Timestamp;
use crate::delivery::State;
use crate::id::{ApprovalId, DeliveryId, MailingId, RecipientId};
use crate::policy::{Approval, Change, OnSilence, OnUntold};

/// What a version says in one language, by its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = EvidenceText)]
pub struct Text {
    /// The language tag (RFC 5646).
    pub language: String,
    /// What the policy is called in it.
    pub title: String,
    /// What changes, in plain words.
    pub summary: String,
    /// SHA-256 of the text, Markdown in UTF-8.
    pub sha256: String,
}

/// A version by its hashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its number.
    pub number: i64,
    /// What it says.
    pub texts: Vec<Text>,
}

/// [`super::Kind::Published`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The policy's name in paths.
    pub policy: String,
    /// What the policy is called.
    pub title: String,
    /// The brand's name in paths.
    pub brand: String,
    /// The brand's name.
    pub brand_name: String,
    /// The version.
    pub version: Version,
    /// The version that it follows; none for what follows none.
    pub before: Option<Version>,
    /// How it changes the policy.
    pub change: Change,
    /// Whether people are asked to approve.
    pub approval: Approval,
    /// From when it holds.
    pub effective_at: Timestamp,
    /// By how many minutes the clock is ahead of UTC by which that was named, and people were told the day.
    #[serde(default, skip_serializing_if = "is_none")]
    pub effective_offset: i64,
    /// By when everyone is to be told.
    pub complete_by: Timestamp,
    /// What holds for who is asked to approve and does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_silence: Option<OnSilence>,
    /// What holds for who cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_untold: Option<OnUntold>,
    /// Whether it takes two people to change the notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub two_person: Option<bool>,
    /// Why it may do what the policy's rules forbid.
    pub override_reason: Option<String>,
    /// Who wrote it.
    pub written_by: String,
    /// Who published it.
    pub published_by: Option<String>,
    /// Who released it.
    pub released_by: Option<String>,
}

/// [`super::Kind::Round`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// Its id, by which its deliveries are found.
    pub round: MailingId,
    /// Its number, from 1.
    pub number: i64,
    /// What is told.
    pub kind: RoundKind,
    /// Why.
    pub reason: Option<String>,
    /// In which languages.
    pub languages: Vec<String>,
    /// What is told in each; empty in entries that were made before this was kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<ToldText>,
    /// Who began it.
    pub by: String,
}

/// What a round tells in one language: its words, and the SHA-256 of each thing that its messages are made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldText {
    /// The language tag (RFC 5646).
    pub language: String,
    /// Whether it is told to those who heard nothing of the rounds before, as a first notice.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub newcomers: bool,
    /// What changes, in plain words; empty where nothing does.
    pub summary: String,
    /// Why people are told again.
    pub reason: Option<String>,
    /// Of the subject, Handlebars in UTF-8.
    pub subject_sha256: String,
    /// Of the HTML part, Handlebars in UTF-8.
    pub html_sha256: String,
    /// Of the text part, Handlebars in UTF-8.
    pub text_sha256: String,
    /// Of the templates that these include: JSON by name, without spaces.
    pub partials_sha256: String,
    /// Of what the templates see as `data`: JSON with its keys sorted, without spaces.
    pub data_sha256: String,
}

/// An attempt to hand a message over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = EvidenceAttempt)]
pub struct Attempt {
    /// When it began.
    pub begun_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// `sent`, `refused`, `deferred`, `not_sent` or `unknown`.
    pub outcome: Option<String>,
    /// How far the SMTP dialogue had come.
    pub phase: Option<String>,
    /// The relay's code.
    pub code: Option<i64>,
    /// The relay's enhanced status (RFC 3463).
    pub enhanced: Option<String>,
    /// The relay's words, without any address.
    pub reply: Option<String>,
}

/// [`super::Kind::Delivery`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = EvidenceDelivery)]
pub struct Delivery {
    /// The message's delivery.
    pub delivery: DeliveryId,
    /// To whom.
    pub recipient: RecipientId,
    /// In which round.
    pub round: i64,
    /// What was told.
    pub round_kind: RoundKind,
    /// The version's number.
    pub version: i64,
    /// In which language.
    pub language: String,
    /// SHA-256 of the version's text in this language.
    pub text_sha256: Option<String>,
    /// How it ended.
    pub state: State,
    /// Why.
    pub reason: Option<String>,
    /// The Message-ID, without angle brackets; none when no attempt was made.
    pub message_id: Option<String>,
    /// SHA-256 of header and body as the last attempt had them ready; of one that was refused before the message came to
    /// be sent too.
    pub message_sha256: Option<String>,
    /// When the message was queued.
    pub queued_at: Timestamp,
    /// When it came to its end.
    pub settled_at: Option<Timestamp>,
    /// Every attempt, the oldest first.
    pub attempts: Vec<Attempt>,
}

/// [`super::Kind::Bounced`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = EvidenceBounce)]
pub struct Bounce {
    /// The delivery whose message came back.
    pub delivery: DeliveryId,
    /// Whom it did not reach.
    pub recipient: RecipientId,
    /// In which round.
    pub round: i64,
    /// What was to be told.
    pub round_kind: RoundKind,
    /// The message's Message-ID, without angle brackets; none when nobody knows what was handed over.
    pub message_id: Option<String>,
    /// When the report came.
    pub bounced_at: Timestamp,
    /// The enhanced status (RFC 3463).
    pub status: Option<String>,
    /// What the mail server said, without any address.
    pub words: Option<String>,
}

/// [`super::Kind::Told`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = EvidenceTold)]
pub struct Told {
    /// Who was told.
    pub recipient: RecipientId,
    /// How.
    pub told_by: ToldBy,
    /// Whether there is a note; the note itself may hold an address and stays out.
    pub has_note: bool,
    /// By what that note is known again, with the key of the database: see [`super::seal_of_note`]. None in entries that were
    /// made before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note_seal: Option<String>,
    /// Who recorded it.
    pub recorded_by: String,
}

/// [`super::Kind::Approval`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = EvidenceApproval)]
pub struct Answer {
    /// The answer.
    pub approval: ApprovalId,
    /// Whose.
    pub recipient: RecipientId,
    /// What it says.
    pub decision: Decision,
    /// What the answer before it said, which no longer stands.
    pub before: Option<Decision>,
    /// To which version.
    pub version: i64,
    /// In which language it was shown.
    pub language: String,
    /// SHA-256 of the text that was shown.
    pub sha256: String,
    /// The message by whose link it came; of an answer by letter or telephone the one that told of the change, if there was
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryId>,
    /// How it came; none: on the page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<ToldBy>,
    /// Whether there is a note about that; the note itself may hold an address and stays out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_note: bool,
    /// By what that note is known again, with the key of the database: see [`super::seal_of_note`]. None in entries that were
    /// made before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note_seal: Option<String>,
    /// Who recorded it, if not the person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded_by: Option<String>,
}

/// [`super::Kind::Corrected`], [`super::Kind::Postponed`] and [`super::Kind::Withdrawn`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Why.
    pub reason: Option<String>,
    /// From when the version holds now; none when it was called off.
    pub effective_at: Option<Timestamp>,
    /// By how many minutes the clock is ahead of UTC by which that was named, and people were told the day.
    #[serde(default, skip_serializing_if = "is_none")]
    pub effective_offset: i64,
    /// By when everyone is to be told now; none when it was called off.
    pub complete_by: Option<Timestamp>,
    /// How many approvals count no longer, since they were given to what was corrected.
    #[serde(default, skip_serializing_if = "is_none")]
    pub approvals_lapsed: i64,
    /// Who did it.
    pub by: String,
    /// Who asked for it, where it took two people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<String>,
}

fn is_none(n: &i64) -> bool {
    *n == 0
}

/// [`super::Kind::Late`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late {
    /// By when everyone is to be told.
    pub complete_by: Timestamp,
    /// When the last one is expected to be told; none when nobody knows.
    pub projected_end: Option<Timestamp>,
}

/// [`super::Kind::InEffect`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InEffect {
    /// From when the version holds.
    pub effective_at: Timestamp,
}

/// [`super::Kind::Exported`]: the last entry of the archive that it tells of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// SHA-256 of the sample message that was made for it; none where none could be made.
    pub sample_sha256: Option<String>,
    /// By which program.
    pub program: String,
    /// Who did it.
    pub by: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_on_the_page_says_what_it_always_said_and_one_by_letter_says_so() {
        let id = "01890000-0000-7000-8000-000000000000";
        let page = format!(
            r#"{{"approval":"{id}","recipient":"{id}","decision":"approve","before":null,"version":2,"language":"en","sha256":"00","delivery":"{id}"}}"#
        );
        let read: Answer = serde_json::from_str(&page).unwrap();
        assert_eq!((read.by, read.delivery.is_some()), (None, true));
        assert_eq!(serde_json::to_string(&read).unwrap(), page);
        let by_letter = Answer { delivery: None, by: Some(ToldBy::Letter), has_note: true, ..read };
        let words = serde_json::to_string(&by_letter).unwrap();
        assert!(words.ends_with(r#""sha256":"00","by":"letter","has_note":true}"#), "{words}");
        assert_eq!(serde_json::from_str::<Answer>(&words).unwrap(), by_letter);
    }
}
