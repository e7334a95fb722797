//! A person's evidence on one line: every message to them, which of them came back, what they answered, how else they were told.

use serde::Serialize;

use super::body::{Answer, Bounce, Delivery, Told};
use super::summary::read;
use super::{Entry, Kind};
use crate::clock::Timestamp;
use crate::id::{DeliveryId, RecipientId};
use crate::notice::{AnsweredBy, Decision, ToldBy};

/// What a person answered last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = EvidenceAnswer)]
pub struct Answered {
    /// When.
    pub at: Timestamp,
    /// What.
    pub decision: Decision,
    /// To which version.
    pub version: i64,
    /// In which language it was shown.
    pub language: String,
    /// SHA-256 of the text that was shown.
    pub sha256: String,
    /// The message by whose link it came; of an answer by letter or telephone the one that told of the change, null where
    /// there was none.
    pub delivery: Option<DeliveryId>,
    /// How it came.
    pub by: AnsweredBy,
    /// Who recorded it; null: the person.
    pub recorded_by: Option<String>,
}

/// How a person was told another way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = EvidenceToldOtherwise)]
pub struct Otherwise {
    /// When that was recorded.
    pub at: Timestamp,
    /// How.
    pub by: ToldBy,
    /// Who recorded it.
    pub recorded_by: String,
}

/// What there is about one person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = EvidenceLine)]
pub struct Line {
    /// The keyed hash of their address, hexadecimal.
    pub person: String,
    /// The recipient, as the newest entry names them.
    pub recipient: Option<RecipientId>,
    /// Every message to them that came to its end, the first one first.
    pub deliveries: Vec<Delivery>,
    /// Those messages that came back after the relay had taken them over.
    pub bounces: Vec<Bounce>,
    /// What they answered last.
    pub approval: Option<Answered>,
    /// How else they were told.
    pub told_otherwise: Option<Otherwise>,
    /// The numbers of the entries in the chain that say so; the newest 100.
    pub entries: Vec<i64>,
}

/// Numbers of entries on a line.
const MAX_ENTRIES: usize = 100;

impl Line {
    /// A line about this person, without entries.
    pub fn new(person: &[u8]) -> Self {
        Self {
            person: hex::encode(person),
            recipient: None,
            deliveries: Vec::new(),
            bounces: Vec::new(),
            approval: None,
            told_otherwise: None,
            entries: Vec::new(),
        }
    }

    /// Takes the next entry about the person into account.
    pub fn take(&mut self, entry: &Entry) {
        if self.entries.len() == MAX_ENTRIES {
            self.entries.remove(0);
        }
        self.entries.push(entry.seq);
        match entry.kind.parse() {
            Ok(Kind::Delivery) => {
                if let Some(one) = read::<Delivery>(entry) {
                    self.recipient = Some(one.recipient);
                    self.deliveries.push(one);
                }
            }
            Ok(Kind::Bounced) => {
                if let Some(one) = read::<Bounce>(entry) {
                    self.recipient = Some(one.recipient);
                    self.bounces.push(one);
                }
            }
            Ok(Kind::Approval) => {
                if let Some(answer) = read::<Answer>(entry) {
                    self.recipient = Some(answer.recipient);
                    self.approval = Some(Answered {
                        at: entry.at,
                        decision: answer.decision,
                        version: answer.version,
                        language: answer.language,
                        sha256: answer.sha256,
                        delivery: answer.delivery,
                        by: answer.by.into(),
                        recorded_by: answer.recorded_by,
                    });
                }
            }
            Ok(Kind::Told) => {
                if let Some(Told { recipient, told_by, recorded_by, .. }) = read(entry) {
                    self.recipient = Some(recipient);
                    self.told_otherwise = Some(Otherwise { at: entry.at, by: told_by, recorded_by });
                }
            }
            _ => {}
        }
    }
}
