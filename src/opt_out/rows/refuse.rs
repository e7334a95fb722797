//! Recording opt-outs: of many people at once, each under the lock of the person's address row.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement};

use super::entities::event;
use super::{to_said, to_scope};
use crate::address::AddressHash;
use crate::clock::Timestamp;
use crate::db::{Db, Kind, List, Write};
use crate::decision::Said;
use crate::id::{BrandId, DeliveryId, OptEventId, TopicId};
use crate::opt_out::events::{OptOut, Scope, Stood, stands_already};

/// What was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The event that says so: the new one, or the one that stood already.
    pub id: OptEventId,
    /// When that was recorded.
    pub recorded_at: Timestamp,
    /// Whether it is new.
    pub new: bool,
    /// The opt-ins that stood until now and met this opt-out's first scope, by the time they were recorded.
    pub overruled: Vec<Timestamp>,
}

/// An opt-out that was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its event, or that of the first time.
    pub recorded: Recorded,
    /// What stands for the person now, one entry a scope.
    pub standing: Vec<Stood>,
    /// Whether nothing of the person was unfinished or in doubt when that was asked, after it was committed.
    pub quiet: bool,
}

/// Records opt-outs of different people, each wholly and under the person's own lock, in a transaction that touches no
/// delivery. Only [`crate::fence`] calls it. The answers come in the order of what is asked.
///
/// The locks are taken in the order of the hashes, so that two of these never wait for one another.
///
/// # Errors
/// The database's own; nothing is recorded then.
pub async fn record_opt_outs(txn: &Write, db: &Db, asked: &[OptOut]) -> Result<Vec<Refused>, DbErr> {
    let locked = lock(txn, db, asked).await?;
    // Who had said nothing before has nothing standing either.
    let known = asked.iter().filter(|one| locked.of(one).is_ok_and(|(seq, _)| seq > room(one)));
    let before = standing_of(txn, &known.map(|one| &one.address_hash).collect::<Vec<_>>()).await?;
    let mut said = Vec::new();
    let mut fewer = Vec::new();
    let mut answers = Vec::with_capacity(asked.len());
    for one in asked {
        let (last, now) = locked.of(one)?;
        let before = before.get(&one.address_hash).map_or(&[][..], Vec::as_slice);
        let person = Person { asked: one, before, seq: last - room(one), now };
        let (refused, events) = person.refuse()?;
        let reached = person.seq + i64::try_from(events.len()).unwrap_or(i64::MAX);
        if reached < last {
            fewer.push((&one.address_hash, reached));
        }
        said.extend(events);
        answers.push(refused);
    }
    write(txn, said).await?;
    for (hash, seq) in fewer {
        let sql = "UPDATE addresses SET last_seq = $2 WHERE address_hash = $1";
        let values = [hash.0.clone().into(), seq.into()];
        txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    }
    Ok(answers)
}

/// The most events that one opt-out makes.
fn room(asked: &OptOut) -> i64 {
    i64::try_from(asked.scopes.len()).unwrap_or(i64::MAX)
}

/// The people whose rows are locked: the last of the places kept for their events, and the time.
struct Locked(HashMap<AddressHash, (i64, Timestamp)>);

impl Locked {
    fn of(&self, asked: &OptOut) -> Result<(i64, Timestamp), DbErr> {
        let found = self.0.get(&asked.address_hash).copied();
        found.ok_or_else(|| DbErr::RecordNotFound("an address row".into()))
    }
}

/// Locks the people's rows, made where they are missing, and keeps places for as many events as each opt-out can make.
async fn lock(txn: &Write, db: &Db, asked: &[OptOut]) -> Result<Locked, DbErr> {
    let mut people = List::new([("address_hash", Kind::Bytes), ("places", Kind::Int)]);
    for one in asked {
        people.push([one.address_hash.0.clone().into(), room(one).into()]);
    }
    let mut values = Vec::new();
    let people = people.relation(db.backend(), "l", &mut values);
    // Whether a row is made or was there, it is written, and so locked.
    let sql = format!(
        "INSERT INTO addresses (address_hash, last_seq, failures) \
         SELECT l.address_hash, l.places, 0 FROM {people} WHERE TRUE ORDER BY l.address_hash \
         ON CONFLICT (address_hash) DO UPDATE SET last_seq = addresses.last_seq + excluded.last_seq \
         RETURNING address_hash, last_seq, {} AS now",
        db.now_sql()
    );
    let rows = txn.query_all_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    let row = |row: &sea_orm::QueryResult| {
        let hash = AddressHash(row.try_get("", "address_hash")?);
        Ok::<_, DbErr>((hash, (row.try_get("", "last_seq")?, Timestamp(row.try_get("", "now")?))))
    };
    Ok(Locked(rows.iter().map(row).collect::<Result<_, _>>()?))
}

/// What stands about one scope, and what its event tells.
struct Standing {
    stood: Stood,
    recorded_at: Timestamp,
    delivery: Option<DeliveryId>,
}

#[derive(FromQueryResult)]
struct Row {
    address_hash: AddressHash,
    scope_kind: String,
    brand_id: Option<BrandId>,
    topic_id: Option<TopicId>,
    said: String,
    seq: i64,
    complaint: bool,
    event_id: OptEventId,
    recorded_at: Timestamp,
    delivery_id: Option<DeliveryId>,
}

/// What stands for these people, read under their locks.
async fn standing_of(
    txn: &Write,
    people: &[&AddressHash],
) -> Result<HashMap<AddressHash, Vec<Standing>>, DbErr> {
    let mut standing: HashMap<AddressHash, Vec<Standing>> = HashMap::new();
    if people.is_empty() {
        return Ok(standing);
    }
    let list = List::of("address_hash", Kind::Bytes, people.iter().map(|hash| hash.0.clone()));
    let backend = txn.get_database_backend();
    let mut values = Vec::new();
    let list = list.relation(backend, "l", &mut values);
    let sql = format!(
        "SELECT s.address_hash, s.scope_kind, s.brand_id, s.topic_id, s.said, s.seq, s.complaint, s.event_id, \
         e.recorded_at, e.delivery_id FROM {list} JOIN suppressions s ON s.address_hash = l.address_hash \
         JOIN opt_events e ON e.id = s.event_id ORDER BY s.address_hash, s.seq"
    );
    let statement = Statement::from_sql_and_values(backend, sql, values);
    for row in Row::find_by_statement(statement).all(&**txn).await? {
        let stood = Stood {
            scope: to_scope(&row.scope_kind, row.brand_id, row.topic_id)?,
            said: to_said(&row.said)?,
            seq: row.seq,
            complaint: row.complaint,
            event: row.event_id,
        };
        let one = Standing { stood, recorded_at: row.recorded_at, delivery: row.delivery_id };
        standing.entry(row.address_hash).or_default().push(one);
    }
    Ok(standing)
}

/// A person whose row is locked.
struct Person<'a> {
    asked: &'a OptOut,
    before: &'a [Standing],
    /// The place of their newest event.
    seq: i64,
    now: Timestamp,
}

impl Person<'_> {
    /// What the opt-out amounts to, and the events to be written for it.
    fn refuse(&self) -> Result<(Refused, Vec<event::Model>), DbErr> {
        let stands: Vec<Stood> = self.before.iter().map(|one| one.stood.clone()).collect();
        let mut standing = stands.clone();
        let mut events: Vec<event::Model> = Vec::new();
        let mut answered = None;
        for (n, &scope) in self.asked.scopes.iter().enumerate() {
            if self.asked.scopes[..n].contains(&scope) {
                continue;
            }
            let stood =
                stands_already(&stands, scope).filter(|stood| stood.complaint || !self.asked.complaint);
            let first = stood.and_then(|stood| self.before.iter().find(|one| one.stood.event == stood.event));
            // Said again by another way than a link, it must outlive the undoing of that link.
            let again = first.is_none_or(|first| first.delivery.is_some() && self.asked.delivery.is_none());
            if again {
                let seq = self.seq + 1 + i64::try_from(events.len()).unwrap_or(i64::MAX);
                let event = self.event(scope, seq);
                standing.retain(|stood| stood.scope != scope);
                standing.push(Stood {
                    scope,
                    said: Said::OptOut,
                    seq,
                    complaint: event.complaint,
                    event: event.id,
                });
                events.push(event);
            }
            let recorded = match (first, events.last()) {
                (Some(first), _) => Recorded {
                    id: first.stood.event,
                    recorded_at: first.recorded_at,
                    new: false,
                    overruled: Vec::new(),
                },
                (None, Some(event)) => Recorded {
                    id: event.id,
                    recorded_at: self.now,
                    new: true,
                    overruled: self.overruled(scope),
                },
                (None, None) => return Err(DbErr::Custom("an opt-out without an event".into())),
            };
            answered.get_or_insert(recorded);
        }
        let recorded = answered.ok_or_else(|| DbErr::Custom("an opt-out of nothing".into()))?;
        Ok((Refused { recorded, standing, quiet: false }, events))
    }

    /// When the opt-ins were recorded that an opt-out of this scope overrules.
    fn overruled(&self, scope: Scope) -> Vec<Timestamp> {
        let met = |one: &&Standing| one.stood.said == Said::OptIn && one.stood.scope.meets(scope);
        self.before.iter().filter(met).map(|one| one.recorded_at).collect()
    }

    fn event(&self, scope: Scope, seq: i64) -> event::Model {
        let asked = self.asked;
        event::Model {
            id: OptEventId::new(),
            address_hash: asked.address_hash.clone(),
            seq,
            said: "opt_out".to_owned(),
            scope_kind: scope.kind().to_owned(),
            brand_id: scope.brand(),
            topic_id: scope.topic(),
            channel: asked.channel.as_str().to_owned(),
            complaint: asked.complaint,
            note: asked.note.clone(),
            evidence: None,
            undoes: None,
            delivery_id: asked.delivery,
            requested_at: asked.requested_at,
            recorded_at: self.now,
            recorded_by: asked.actor.clone(),
        }
    }
}

/// Writes events, each the newest of its scope, and that they are what stands.
async fn write(txn: &Write, events: Vec<event::Model>) -> Result<(), DbErr> {
    if events.is_empty() {
        return Ok(());
    }
    let mut said = List::new([
        ("id", Kind::Uuid),
        ("address_hash", Kind::Bytes),
        ("seq", Kind::Int),
        ("said", Kind::Text),
        ("scope_key", Kind::Text),
        ("scope_kind", Kind::Text),
        ("brand_id", Kind::Uuid),
        ("topic_id", Kind::Uuid),
        ("channel", Kind::Text),
        ("complaint", Kind::Bool),
        ("note", Kind::Text),
        ("delivery_id", Kind::Uuid),
        ("requested_at", Kind::Int),
        ("recorded_at", Kind::Int),
        ("recorded_by", Kind::Text),
    ]);
    for event in events {
        let scope = to_scope(&event.scope_kind, event.brand_id, event.topic_id)?;
        said.push([
            event.id.0.into(),
            event.address_hash.0.into(),
            event.seq.into(),
            event.said.into(),
            scope.key().into(),
            event.scope_kind.into(),
            event.brand_id.map(|id| id.0).into(),
            event.topic_id.map(|id| id.0).into(),
            event.channel.into(),
            event.complaint.into(),
            event.note.into(),
            event.delivery_id.map(|id| id.0).into(),
            event.requested_at.map(|at| at.0).into(),
            event.recorded_at.0.into(),
            event.recorded_by.into(),
        ]);
    }
    let backend = txn.get_database_backend();
    let mut values = Vec::new();
    let list = said.relation(backend, "l", &mut values);
    let of = "id, address_hash, seq, said, scope_kind, brand_id, topic_id, channel, complaint, note, delivery_id, \
              requested_at, recorded_at, recorded_by";
    let sql = format!("INSERT INTO opt_events ({of}) SELECT {of} FROM {list}");
    txn.execute_raw(Statement::from_sql_and_values(backend, sql, values.clone())).await?;
    // Nothing can have undone what was said just now.
    let of = "address_hash, scope_key, scope_kind, brand_id, topic_id, said, seq, complaint";
    let sql = format!(
        "INSERT INTO suppressions ({of}, event_id) SELECT {of}, id FROM {list} WHERE TRUE \
         ON CONFLICT (address_hash, scope_key) DO UPDATE SET said = excluded.said, \
         seq = excluded.seq, complaint = excluded.complaint, event_id = excluded.event_id"
    );
    txn.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    Ok(())
}
