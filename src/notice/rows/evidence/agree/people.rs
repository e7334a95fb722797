//! Entries about people, and the rows that they tell of.

use std::collections::{BTreeSet, HashMap};

use sea_orm::entity::prelude::*;
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement, Value};

use super::super::Row as EntryRow;
use super::{Agreement, LEEWAY, differs, person};
use crate::address::AddressHash;
use crate::clock::Timestamp;
use crate::db::{Kind as Column, List};
use crate::delivery::State;
use crate::id::{ApprovalId, DeliveryId, MailingId, NoticeId, RecipientId};
use crate::notice::Decision;
use crate::notice::evidence::body::{Answer, Bounce, Delivery, Told};
use crate::notice::evidence::{About, Entry, Kind};
use crate::notice::rows::{approval, approval_standing, told};

/// How often what may have moved on is looked at again.
const LOOKS: usize = 3;

/// An entry's number, whom it is about, when it was made, and what it says.
struct Said<T> {
    seq: i64,
    at: Timestamp,
    person: Vec<u8>,
    body: T,
}

impl<T> Said<T> {
    /// The words of a disagreement.
    fn words(&self, table: &str, how: &str) -> String {
        format!("{table} says otherwise than entry {}: {how}; {}", self.seq, person(&self.person))
    }
}

/// What a piece of a chain says about people.
#[derive(Default)]
pub(super) struct People {
    deliveries: Vec<Said<Delivery>>,
    bounces: Vec<Said<Bounce>>,
    answers: Vec<Said<Answer>>,
    told: Vec<Said<Told>>,
}

#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
struct Ended {
    id: DeliveryId,
    mailing_id: Option<MailingId>,
    recipient_id: RecipientId,
    address_hash: AddressHash,
    state: String,
    unsent: Option<String>,
    reason: Option<String>,
    message_sha256: Option<Vec<u8>>,
    message_id: Option<String>,
    settled_at: Option<Timestamp>,
    queued: bool,
    due: bool,
}

impl Ended {
    /// How the row differs from what an entry says, where it does.
    fn differs(&self, said: &Said<Delivery>, round: Option<MailingId>) -> Option<String> {
        let body = &said.body;
        // What names the person is left out of the entry.
        let same = |entry: &str| entry.contains('…') || self.reason.as_deref() == Some(entry);
        let reason = body.reason.as_deref().map_or(self.reason.is_none(), same);
        let unsent = (body.state != State::Sent).then(|| body.state.to_string());
        None.or_else(|| differs("state", &body.state.to_string(), &self.state))
            .or_else(|| differs("unsent", &unsent, &self.unsent))
            .or_else(|| differs("mailing_id", &round, &self.mailing_id))
            .or_else(|| differs("recipient_id", &body.recipient, &self.recipient_id))
            .or_else(|| {
                differs("address_hash", &hex::encode(&said.person), &hex::encode(&self.address_hash.0))
            })
            .or_else(|| differs("settled_at", &body.settled_at, &self.settled_at))
            .or_else(|| {
                differs(
                    "message_sha256",
                    &body.message_sha256,
                    &self.message_sha256.as_deref().map(hex::encode),
                )
            })
            .or_else(|| differs("message_id", &body.message_id, &self.message_id))
            .or_else(|| (!reason).then(|| format!("reason is {:?}, not {:?}", self.reason, body.reason)))
    }
}

impl People {
    /// Adds what an entry says about a person.
    pub(super) fn add(&mut self, entry: &Entry, about: About) {
        let (seq, at, person) = (entry.seq, entry.at, entry.person.clone().unwrap_or_default());
        match about {
            About::Delivery(body) => self.deliveries.push(Said { seq, at, person, body }),
            About::Bounce(body) => self.bounces.push(Said { seq, at, person, body }),
            About::Answer(body) => self.answers.push(Said { seq, at, person, body }),
            About::Told(body) => self.told.push(Said { seq, at, person, body }),
        }
    }

    /// Compares all of it with the rows.
    pub(super) async fn compare(self, with: &mut Agreement, on: &impl ConnectionTrait) -> Result<(), DbErr> {
        let Self { deliveries, bounces, answers, told } = self;
        compare_deliveries(with, on, deliveries).await?;
        compare_bounces(with, on, &bounces).await?;
        if !answers.is_empty() {
            compare_answers(with, on, &answers).await?;
        }
        if !told.is_empty() {
            compare_told(with, on, &told).await?;
        }
        Ok(())
    }
}

async fn compare_deliveries(
    with: &mut Agreement,
    on: &impl ConnectionTrait,
    mut open: Vec<Said<Delivery>>,
) -> Result<(), DbErr> {
    for look in 1..=LOOKS {
        if open.is_empty() {
            return Ok(());
        }
        let rows = ended(on, open.iter().map(|said| said.body.delivery)).await?;
        let mut doubted = Vec::new();
        for said in open {
            let row = rows.get(&said.body.delivery);
            let how = match row {
                None => Some("there is no such delivery".to_owned()),
                Some(row) => row.differs(&said, with.story.round(said.body.round)),
            };
            let Some(how) = how else {
                with.ended += 1;
                continue;
            };
            // What the relay took over is never taken up again; anything else may end another way.
            let moves = row.is_some_and(|row| row.queued || row.due);
            if said.body.state == State::Sent || row.is_none() {
                with.say(said.words("deliveries", &how));
            } else if !moves {
                doubted.push((said, how));
            }
        }
        let later = later_deliveries(on, with.notice, &doubted).await?;
        open = Vec::new();
        for (said, how) in doubted {
            let row = rows.get(&said.body.delivery);
            let newer = later.get(&said.body.delivery).into_iter().flatten();
            let told = newer.filter(|other| other.seq > said.seq).any(|other| {
                row.is_some_and(|row| row.differs(other, with.story.round(other.body.round)).is_none())
            });
            if !told && look == LOOKS {
                with.say(said.words("deliveries", &how));
            } else if !told {
                open.push(said);
            }
        }
    }
    Ok(())
}

async fn ended(
    on: &impl ConnectionTrait,
    ids: impl Iterator<Item = DeliveryId>,
) -> Result<HashMap<DeliveryId, Ended>, DbErr> {
    let mut values = Vec::new();
    let list = List::of("id", Column::Uuid, ids.map(|id| id.0).collect::<BTreeSet<_>>());
    let list = list.relation(on.get_database_backend(), "l", &mut values);
    let sql = format!(
        "SELECT d.id, d.mailing_id, d.recipient_id, d.address_hash, d.state, d.unsent, d.reason, d.message_sha256, \
         d.message_id, d.settled_at, CASE WHEN q.delivery_id IS NULL THEN FALSE ELSE TRUE END AS queued, \
         CASE WHEN w.delivery_id IS NULL THEN FALSE ELSE TRUE END AS due FROM {list} JOIN deliveries d ON d.id = l.id \
         LEFT JOIN queue q ON q.delivery_id = d.id \
         LEFT JOIN evidence_due w ON w.mailing_id = d.mailing_id AND w.delivery_id = d.id"
    );
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, values);
    let rows = Ended::find_by_statement(statement).all(on).await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

async fn later_deliveries(
    on: &impl ConnectionTrait,
    notice: NoticeId,
    doubted: &[(Said<Delivery>, String)],
) -> Result<HashMap<DeliveryId, Vec<Said<Delivery>>>, DbErr> {
    let people = doubted.iter().map(|(said, _)| said.person.clone());
    let mut found: HashMap<DeliveryId, Vec<Said<Delivery>>> = HashMap::new();
    for entry in entries_of(on, notice, Kind::Delivery, people).await? {
        if let Ok(body) = serde_json::from_str::<Delivery>(&entry.body) {
            let person = entry.person.unwrap_or_default();
            let said = Said { seq: entry.seq, at: entry.at, person, body };
            found.entry(said.body.delivery).or_default().push(said);
        }
    }
    Ok(found)
}

#[derive(FromQueryResult)]
struct Back {
    delivery_id: DeliveryId,
    mailing_id: Option<MailingId>,
    at: Timestamp,
    status: Option<String>,
    words: Option<String>,
}

async fn compare_bounces(
    with: &mut Agreement,
    on: &impl ConnectionTrait,
    bounces: &[Said<Bounce>],
) -> Result<(), DbErr> {
    if bounces.is_empty() {
        return Ok(());
    }
    let mut values = Vec::new();
    let list = List::of("id", Column::Uuid, bounces.iter().map(|said| said.body.delivery.0));
    let list = list.relation(on.get_database_backend(), "l", &mut values);
    let sql = format!(
        "SELECT b.delivery_id, b.mailing_id, b.at, b.status, b.words FROM {list} JOIN bounces b ON b.delivery_id = l.id"
    );
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, values);
    let rows = Back::find_by_statement(statement).all(on).await?;
    let rows: HashMap<DeliveryId, Back> = rows.into_iter().map(|row| (row.delivery_id, row)).collect();
    for said in bounces {
        let body = &said.body;
        let how = match rows.get(&body.delivery) {
            None => Some("nothing came back".to_owned()),
            Some(row) => differs("mailing_id", &with.story.round(body.round), &row.mailing_id)
                .or_else(|| differs("at", &body.bounced_at, &row.at))
                .or_else(|| differs("status", &body.status, &row.status))
                .or_else(|| differs("words", &body.words, &row.words)),
        };
        match how {
            Some(how) => with.say(said.words("bounces", &how)),
            None => with.bounced += 1,
        }
    }
    Ok(())
}

/// The entries of a kind about these people, by number.
pub(super) async fn entries_of(
    on: &impl ConnectionTrait,
    notice: NoticeId,
    kind: Kind,
    people: impl Iterator<Item = Vec<u8>>,
) -> Result<Vec<Entry>, DbErr> {
    let people: BTreeSet<Vec<u8>> = people.collect();
    if people.is_empty() {
        return Ok(Vec::new());
    }
    let mut values: Vec<Value> = vec![notice.0.into(), kind.as_str().into()];
    let list = List::of("person", Column::Bytes, people);
    let list = list.relation(on.get_database_backend(), "l", &mut values);
    let sql = format!(
        "SELECT x.seq, x.at, x.kind, x.person, x.body, x.previous, x.hash FROM {list} \
         JOIN evidence x ON x.notice_id = $1 AND x.person = l.person AND x.person IS NOT NULL WHERE x.kind = $2 \
         ORDER BY x.seq"
    );
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, values);
    let rows = EntryRow::find_by_statement(statement).all(on).await?;
    Ok(rows.into_iter().map(|row| row.entry(notice)).collect())
}

async fn compare_answers(
    with: &mut Agreement,
    on: &impl ConnectionTrait,
    answers: &[Said<Answer>],
) -> Result<(), DbErr> {
    let Some(version) = with.row.as_ref().map(|row| row.version_id) else { return Ok(()) };
    let rows = answers_of(on, answers.iter().map(|said| said.body.approval)).await?;
    let standing = approval_standing::Entity::find()
        .filter(approval_standing::Column::VersionId.eq(version))
        .filter(approval_standing::Column::RecipientId.is_in(answers.iter().map(|said| said.body.recipient)))
        .all(on)
        .await?;
    let standing: HashMap<_, _> = standing.into_iter().map(|row| (row.recipient_id, row)).collect();
    // What stands instead must have been answered later.
    let newer = answers_of(on, standing.values().map(|row| row.approval_id)).await?;
    let people = newer.values().map(|row| row.address_hash.0.clone());
    let told: HashMap<ApprovalId, i64> = entries_of(on, with.notice, Kind::Approval, people)
        .await?
        .into_iter()
        .filter_map(|entry| Some((serde_json::from_str::<Answer>(&entry.body).ok()?.approval, entry.seq)))
        .collect();
    for said in answers {
        let body = &said.body;
        let Some(row) = rows.get(&body.approval) else {
            with.say(said.words("approvals", "there is no such answer"));
            continue;
        };
        let how = differs("version_id", &version, &row.version_id)
            .or_else(|| differs("decision", &body.decision.to_string(), &row.decision.to_string()))
            .or_else(|| differs("recipient_id", &body.recipient, &row.recipient_id))
            .or_else(|| {
                differs("address_hash", &hex::encode(&said.person), &hex::encode(&row.address_hash.0))
            })
            .or_else(|| differs("language", &body.language, &row.language))
            .or_else(|| differs("sha256", &body.sha256, &hex::encode(&row.sha256)))
            .or_else(|| differs("delivery_id", &body.delivery, &row.delivery_id))
            .or_else(|| differs("given_by", &body.by, &row.given_by))
            .or_else(|| differs("recorded_by", &body.recorded_by, &row.recorded_by))
            .or_else(|| {
                let kept = (body.has_note, body.note_seal.as_deref());
                with.other_note(&said.person, row.note.as_deref(), kept)
            })
            .or_else(|| near("decided_at", said.at, row.decided_at));
        match how {
            Some(how) => with.say(said.words("approvals", &how)),
            None => with.answers += 1,
        }
        match standing.get(&body.recipient) {
            Some(stands) if stands.approval_id == body.approval => {
                let how = differs("decision", &body.decision.to_string(), &stands.decision.to_string())
                    .or_else(|| differs("decided_at", &row.decided_at, &stands.decided_at));
                with.standing += 1;
                if let Some(how) = how {
                    with.say(said.words("approvals_standing", &how));
                }
            }
            Some(stands) if told.get(&stands.approval_id).is_some_and(|later| *later > said.seq) => {}
            Some(_) => with.say(said.words("approvals_standing", "an answer given earlier stands")),
            None if lapsed(on, with.notice, &said.person).await? => {}
            None => with.say(said.words("approvals_standing", "no answer stands")),
        }
    }
    Ok(())
}

async fn answers_of(
    on: &impl ConnectionTrait,
    ids: impl Iterator<Item = ApprovalId>,
) -> Result<HashMap<ApprovalId, approval::Model>, DbErr> {
    let found = approval::Entity::find().filter(approval::Column::Id.is_in(ids)).all(on).await?;
    Ok(found.into_iter().map(|row| (row.id, row)).collect())
}

/// Whether none of somebody's answers stands any more: the last one agreed to words that were corrected after it.
async fn lapsed(on: &impl ConnectionTrait, notice: NoticeId, person: &[u8]) -> Result<bool, DbErr> {
    let all = entries_of(on, notice, Kind::Approval, std::iter::once(person.to_vec())).await?;
    let Some(last) = all.last() else { return Ok(false) };
    let agrees =
        serde_json::from_str::<Answer>(&last.body).is_ok_and(|answer| answer.decision == Decision::Approve);
    Ok(agrees && corrected_after(on, notice, last.seq).await?)
}

/// Whether what people were told was corrected after this entry.
async fn corrected_after(on: &impl ConnectionTrait, notice: NoticeId, seq: i64) -> Result<bool, DbErr> {
    let sql = "SELECT seq FROM evidence WHERE notice_id = $1 AND seq > $2 AND kind = 'corrected' LIMIT 1";
    let values: [Value; 2] = [notice.0.into(), seq.into()];
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, values);
    Ok(on.query_one_raw(statement).await?.is_some())
}

/// Whether a row was written when its entry was made.
fn near(what: &str, entry: Timestamp, row: Timestamp) -> Option<String> {
    let far = entry.0.abs_diff(row.0) > LEEWAY.unsigned_abs();
    far.then(|| format!("{what} is {row}, and the entry was made at {entry}"))
}

async fn compare_told(
    with: &mut Agreement,
    on: &impl ConnectionTrait,
    people: &[Said<Told>],
) -> Result<(), DbErr> {
    let mut rows = told::Entity::find()
        .filter(told::Column::NoticeId.eq(with.notice))
        .filter(told::Column::RecipientId.is_in(people.iter().map(|said| said.body.recipient)))
        .all(on)
        .await?;
    for said in people {
        let body = &said.body;
        let differ = |with: &Agreement, row: &told::Model| {
            differs("told_by", &body.told_by.to_string(), &row.told_by.to_string())
                .or_else(|| differs("recorded_by", &body.recorded_by, &row.recorded_by))
                .or_else(|| {
                    let kept = (body.has_note, body.note_seal.as_deref());
                    with.other_note(&said.person, row.note.as_deref(), kept)
                })
                .or_else(|| near("told_at", said.at, row.told_at))
        };
        let theirs = |row: &told::Model| row.recipient_id == body.recipient;
        match rows.iter().position(|row| theirs(row) && differ(with, row).is_none()) {
            Some(at) => {
                rows.swap_remove(at);
                with.told += 1;
            }
            None => {
                let how = rows.iter().find(|row| theirs(row)).and_then(|row| differ(with, row));
                let how = how.unwrap_or_else(|| "nothing is there of them".to_owned());
                with.say(said.words("notice_told", &how));
            }
        }
    }
    Ok(())
}
