//! What a chain amounts to, for people who read it: counted entry by entry, in bounded memory.

use std::collections::BTreeMap;

use handlebars::Handlebars;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::body::{Answer, Bounce, Changed, Delivery, Exported, Published, Round, Told};
use super::{Entry, Kind};
use crate::clock::{Local, Timestamp};
use crate::notice::{Decision, RoundKind, ToldBy};

/// The summary that a lawyer reads.
const PAGE: &str = include_str!("../../../templates/evidence/summary.html.hbs");
/// Acts of administrators that a summary lists at most.
const MAX_ACTS: usize = 1_000;

/// How the messages of a round ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundSum {
    /// Its number.
    pub number: i64,
    /// What was told.
    pub kind: RoundKind,
    /// Messages that ended in each state.
    pub ended: BTreeMap<String, u64>,
    /// Messages among those that came back after the mail server had taken them over.
    #[serde(default)]
    pub bounced: u64,
    /// What was told, by language; empty where the chain does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<Words>,
}

/// What a round told in one language.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words {
    /// When the round began.
    pub at: Timestamp,
    /// The language tag (RFC 5646).
    pub language: String,
    /// Whether it was told to those who had heard nothing before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub newcomers: bool,
    /// What changes, in plain words; empty where nothing does.
    pub summary: String,
    /// Why people were told again.
    pub reason: Option<String>,
}

/// What an administrator did, or what happened by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// When.
    pub at: Timestamp,
    /// What, in words.
    pub what: String,
    /// Who.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// What a chain amounts to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Entries.
    pub entries: u64,
    /// The rounds, the first one first.
    pub rounds: Vec<RoundSum>,
    /// People told by letter.
    pub told_by_letter: u64,
    /// People told by telephone.
    pub told_by_phone: u64,
    /// Answers given, those that were changed later included.
    pub answers: u64,
    /// Those of them that came by letter.
    #[serde(default)]
    pub answers_by_letter: u64,
    /// Those that came by telephone.
    #[serde(default)]
    pub answers_by_phone: u64,
    /// How many approve, as their last answer says.
    pub approved: i64,
    /// How many decline.
    pub declined: i64,
    /// What happened to the notice, the first thing first.
    pub acts: Vec<Act>,
}

impl Summary {
    /// Takes the next entry into account. One that is not what its kind says counts as an entry and no more.
    pub fn take(&mut self, entry: &Entry) {
        self.entries += 1;
        let Ok(kind) = entry.kind.parse::<Kind>() else { return };
        match kind {
            Kind::Delivery => {
                if let Some(one) = read::<Delivery>(entry) {
                    let ended = &mut self.round(one.round, one.round_kind).ended;
                    *ended.entry(one.state.to_string()).or_default() += 1;
                }
            }
            Kind::Bounced => {
                if let Some(one) = read::<Bounce>(entry) {
                    self.round(one.round, one.round_kind).bounced += 1;
                }
            }
            Kind::Told => match read::<Told>(entry).map(|told| told.told_by) {
                Some(ToldBy::Letter) => self.told_by_letter += 1,
                Some(ToldBy::Phone) => self.told_by_phone += 1,
                None => {}
            },
            Kind::Approval => {
                if let Some(answer) = read::<Answer>(entry) {
                    self.answers += 1;
                    match answer.by {
                        Some(ToldBy::Letter) => self.answers_by_letter += 1,
                        Some(ToldBy::Phone) => self.answers_by_phone += 1,
                        None => {}
                    }
                    self.count(answer.decision, 1);
                    if let Some(before) = answer.before {
                        self.count(before, -1);
                    }
                }
            }
            Kind::Round => {
                if let Some(round) = read::<Round>(entry) {
                    let told = round.told.into_iter().map(|one| Words {
                        at: entry.at,
                        language: one.language,
                        newcomers: one.newcomers,
                        summary: one.summary,
                        reason: one.reason,
                    });
                    self.round(round.number, round.kind).told = told.collect();
                    let languages = round.languages.join(", ");
                    let what = format!("Round {} began: {} ({languages})", round.number, round.kind);
                    self.act(entry.at, what, Some(round.by), round.reason);
                }
            }
            Kind::Published => {
                if let Some(Published { published_by, override_reason, version, .. }) = read(entry) {
                    let what = format!("Version {} was published", version.number);
                    self.act(entry.at, what, published_by, override_reason);
                }
            }
            Kind::Corrected | Kind::Postponed | Kind::Withdrawn => {
                let (reason, by, to, lapsed) = read::<Changed>(entry).map_or((None, None, None, 0), |one| {
                    let by = match one.asked_by {
                        Some(asked_by) => format!("{asked_by}, released by {}", one.by),
                        None => one.by,
                    };
                    let to = one.effective_at.map(|at| Local { at, east: one.effective_offset });
                    (one.reason, Some(by), to, one.approvals_lapsed)
                });
                self.approved -= lapsed;
                let what = match (kind, to, lapsed) {
                    (Kind::Postponed, Some(to), _) => format!("The change was postponed to {to}"),
                    (Kind::Postponed, None, _) => "The change was postponed".to_owned(),
                    (Kind::Corrected, _, 0) => "What people were told was corrected".to_owned(),
                    (Kind::Corrected, _, lapsed) => format!(
                        "What people were told was corrected; approvals given before that count no longer: {lapsed}"
                    ),
                    _ => "The change was withdrawn".to_owned(),
                };
                self.act(entry.at, what, by, reason);
            }
            Kind::Late => {
                self.act(
                    entry.at,
                    "It became known that not everyone would be told in time".into(),
                    None,
                    None,
                );
            }
            Kind::InEffect => self.act(entry.at, "The change took effect".into(), None, None),
            Kind::Exported => {
                let by = read::<Exported>(entry).map(|one| one.by);
                self.act(entry.at, "The evidence was exported".into(), by, None);
            }
        }
    }

    fn round(&mut self, number: i64, kind: RoundKind) -> &mut RoundSum {
        let at = match self.rounds.iter().position(|round| round.number == number) {
            Some(at) => at,
            None => {
                self.rounds.push(RoundSum {
                    number,
                    kind,
                    ended: BTreeMap::new(),
                    bounced: 0,
                    told: Vec::new(),
                });
                self.rounds.len() - 1
            }
        };
        &mut self.rounds[at]
    }

    fn count(&mut self, decision: Decision, by: i64) {
        match decision {
            Decision::Approve => self.approved += by,
            Decision::Decline => self.declined += by,
        }
    }

    fn act(&mut self, at: Timestamp, what: String, by: Option<String>, reason: Option<String>) {
        if self.acts.len() < MAX_ACTS {
            self.acts.push(Act { at, what, by, reason });
        }
    }
}

/// The body of an entry, where it is of this shape.
pub(super) fn read<T: DeserializeOwned>(entry: &Entry) -> Option<T> {
    serde_json::from_str(&entry.body).ok()
}

/// A page that says it all in words, for printing. Everything in it is escaped.
///
/// # Errors
/// What the template engine says.
pub fn page(seen: &impl Serialize) -> Result<String, String> {
    Handlebars::new().render_template(PAGE, seen).map_err(|error| error.to_string())
}
