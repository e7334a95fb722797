//! Recording what somebody said, under the lock of the person's address row.

use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, Statement,
};

use super::entities::{event, suppression};
use super::standing_words;
use crate::address::AddressHash;
use crate::clock::Timestamp;
use crate::db::{Db, Write};
use crate::decision::Standing;
use crate::id::{DeliveryId, OptEventId, RecipientId};
use crate::opt_out::events::{OptIn, OptOut, Scope, Stood, stands_already};

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

/// What an undo took back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undone {
    /// The scopes whose opt-out by this link was taken back.
    pub scopes: Vec<Scope>,
    /// What still stands for the person.
    pub still: Vec<Stood>,
}

/// Records an opt-out in a transaction of its own that touches no delivery. Only [`crate::fence`] calls it.
///
/// # Errors
/// The database's own; nothing is recorded then.
pub async fn record_opt_out(txn: &Write, db: &Db, asked: &OptOut) -> Result<Recorded, DbErr> {
    let mut person = Person::lock(txn, db, &asked.address_hash).await?;
    let before = standing_words(&**txn, &asked.address_hash).await?;
    let mut answered: Option<Recorded> = None;
    for &scope in &asked.scopes {
        let stood = stands_already(&before, scope).filter(|stood| stood.complaint || !asked.complaint);
        let recorded = match stood {
            Some(stood) => {
                let first = event_of(txn, stood.event).await?;
                // Said again by another way than a link, it must outlive the undoing of that link.
                if first.delivery_id.is_some() && asked.delivery.is_none() {
                    person.say(Event::of(asked, scope)).await?;
                }
                Recorded { id: first.id, recorded_at: first.recorded_at, new: false, overruled: Vec::new() }
            }
            None => Recorded {
                id: person.say(Event::of(asked, scope)).await?,
                recorded_at: person.now,
                new: true,
                overruled: overruled(txn, &before, scope).await?,
            },
        };
        answered.get_or_insert(recorded);
    }
    person.unlock().await?;
    answered.ok_or_else(|| DbErr::Custom("an opt-out of nothing".into()))
}

/// Records an opt-in.
///
/// # Errors
/// The database's own; nothing is recorded then.
pub async fn record_opt_in(txn: &Write, db: &Db, asked: &OptIn) -> Result<Recorded, DbErr> {
    let mut person = Person::lock(txn, db, &asked.address_hash).await?;
    let id = person
        .say(Event {
            said: "opt_in",
            scope: asked.scope,
            channel: asked.channel.as_str(),
            complaint: false,
            note: None,
            evidence: Some(asked.evidence.clone()),
            undoes: None,
            delivery: None,
            requested_at: None,
            actor: &asked.actor,
        })
        .await?;
    let recorded_at = person.now;
    person.unlock().await?;
    Ok(Recorded { id, recorded_at, new: true, overruled: Vec::new() })
}

/// Takes back the opt-outs that were made through this message and still stand, but for those of the scopes to `keep`.
/// What was said before, or by another way, stands again.
///
/// # Errors
/// The database's own; nothing is taken back then.
pub async fn undo(
    txn: &Write,
    db: &Db,
    hash: &AddressHash,
    delivery: DeliveryId,
    keep: &[Scope],
    actor: &str,
) -> Result<Undone, DbErr> {
    let mut person = Person::lock(txn, db, hash).await?;
    let mut scopes = Vec::new();
    for stood in standing_words(&**txn, hash).await? {
        let made_here = event::Entity::find_by_id(stood.event)
            .filter(event::Column::DeliveryId.eq(delivery))
            .filter(event::Column::Said.eq("opt_out"))
            .one(&**txn)
            .await?;
        if made_here.is_none() || keep.contains(&stood.scope) {
            continue;
        }
        person
            .say(Event {
                said: "undo",
                scope: stood.scope,
                channel: "page",
                complaint: false,
                note: None,
                evidence: None,
                undoes: Some(stood.event),
                delivery: Some(delivery),
                requested_at: None,
                actor,
            })
            .await?;
        scopes.push(stood.scope);
    }
    person.unlock().await?;
    let still = standing_words(&**txn, hash).await?;
    Ok(Undone { scopes, still })
}

/// Counts a permanent failure that speaks of the mailbox.
///
/// # Errors
/// The database's own.
pub async fn record_failure(txn: &Write, db: &Db, hash: &AddressHash) -> Result<(), DbErr> {
    touch(txn, hash).await?;
    let sql = format!(
        "UPDATE addresses SET failures = failures + 1, first_failed_at = COALESCE(first_failed_at, {now}), \
         last_failed_at = {now} WHERE address_hash = $1",
        now = db.now_sql()
    );
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, [hash.0.clone().into()])).await?;
    Ok(())
}

/// Takes an address for alive again. Returns how many were dead.
///
/// # Errors
/// The database's own.
pub async fn revive(txn: &Write, hash: &AddressHash) -> Result<u64, DbErr> {
    let sql = "UPDATE addresses SET failures = 0, first_failed_at = NULL, last_failed_at = NULL \
               WHERE address_hash = $1 AND failures > 0";
    let done = txn
        .execute_raw(Statement::from_sql_and_values(txn.get_database_backend(), sql, [hash.0.clone().into()]))
        .await?;
    Ok(done.rows_affected())
}

/// Takes every address for alive again whose last failure lies in this window: a relay's bad hour. Returns how many.
///
/// # Errors
/// The database's own.
pub async fn revive_window(txn: &Write, since: Timestamp, until: Timestamp) -> Result<u64, DbErr> {
    let sql = "UPDATE addresses SET failures = 0, first_failed_at = NULL, last_failed_at = NULL \
               WHERE failures > 0 AND last_failed_at >= $1 AND last_failed_at <= $2";
    let values = [since.0.into(), until.0.into()];
    let done =
        txn.execute_raw(Statement::from_sql_and_values(txn.get_database_backend(), sql, values)).await?;
    Ok(done.rows_affected())
}

/// Changes a person's standing. Returns the hash of their address, or none for an unknown recipient. Only
/// [`crate::fence`] calls it, since a change may stop messages under way.
///
/// # Errors
/// The database's own.
pub async fn set_standing(
    txn: &Write,
    db: &Db,
    recipient: RecipientId,
    standing: Standing,
) -> Result<Option<AddressHash>, DbErr> {
    let sql = format!(
        "UPDATE recipients SET standing = $2, updated_at = {} WHERE id = $1 RETURNING address_hash",
        db.now_sql()
    );
    let values = [recipient.0.into(), standing.as_str().into()];
    let row = txn.query_one_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    row.map(|row| Ok(AddressHash(row.try_get("", "address_hash")?))).transpose()
}

async fn touch(txn: &Write, hash: &AddressHash) -> Result<(), DbErr> {
    let sql =
        "INSERT INTO addresses (address_hash, last_seq, failures) VALUES ($1, 0, 0) ON CONFLICT DO NOTHING";
    txn.execute_raw(Statement::from_sql_and_values(txn.get_database_backend(), sql, [hash.0.clone().into()]))
        .await?;
    Ok(())
}

async fn event_of(txn: &Write, id: OptEventId) -> Result<event::Model, DbErr> {
    let event = event::Entity::find_by_id(id).one(&**txn).await?;
    event.ok_or_else(|| DbErr::RecordNotFound("the event of a suppression".into()))
}

/// When the opt-ins were recorded that an opt-out of this scope overrules.
async fn overruled(txn: &Write, before: &[Stood], scope: Scope) -> Result<Vec<Timestamp>, DbErr> {
    let mut times = Vec::new();
    for stood in before {
        if stood.said == crate::decision::Said::OptIn && stood.scope.meets(scope) {
            times.push(event_of(txn, stood.event).await?.recorded_at);
        }
    }
    Ok(times)
}

struct Event<'a> {
    said: &'static str,
    scope: Scope,
    channel: &'static str,
    complaint: bool,
    note: Option<String>,
    evidence: Option<String>,
    undoes: Option<OptEventId>,
    delivery: Option<DeliveryId>,
    requested_at: Option<Timestamp>,
    actor: &'a str,
}

impl<'a> Event<'a> {
    /// An opt-out of this one of the scopes asked for.
    fn of(asked: &'a OptOut, scope: Scope) -> Self {
        Self {
            said: "opt_out",
            scope,
            channel: asked.channel.as_str(),
            complaint: asked.complaint,
            note: asked.note.clone(),
            evidence: None,
            undoes: None,
            delivery: asked.delivery,
            requested_at: asked.requested_at,
            actor: &asked.actor,
        }
    }
}

/// A person whose address row is locked until the transaction ends: their events come one after the other.
struct Person<'a> {
    txn: &'a Write,
    hash: &'a AddressHash,
    seq: i64,
    now: Timestamp,
}

impl<'a> Person<'a> {
    async fn lock(txn: &'a Write, db: &Db, hash: &'a AddressHash) -> Result<Self, DbErr> {
        // Whether the row is made or was there, it is written, and so locked.
        let sql = format!(
            "INSERT INTO addresses (address_hash, last_seq, failures) VALUES ($1, 0, 0) \
             ON CONFLICT (address_hash) DO UPDATE SET last_seq = addresses.last_seq \
             RETURNING last_seq, {} AS now",
            db.now_sql()
        );
        let row = txn
            .query_one_raw(Statement::from_sql_and_values(db.backend(), sql, [hash.0.clone().into()]))
            .await?
            .ok_or_else(|| DbErr::RecordNotFound("an address row".into()))?;
        Ok(Self { txn, hash, seq: row.try_get("", "last_seq")?, now: Timestamp(row.try_get("", "now")?) })
    }

    /// Adds an event as the person's newest and brings the scope's row up to date.
    async fn say(&mut self, new: Event<'_>) -> Result<OptEventId, DbErr> {
        self.seq += 1;
        let id = OptEventId::new();
        let row = event::ActiveModel {
            id: Set(id),
            address_hash: Set(self.hash.clone()),
            seq: Set(self.seq),
            said: Set(new.said.to_owned()),
            scope_kind: Set(new.scope.kind().to_owned()),
            brand_id: Set(new.scope.brand()),
            topic_id: Set(new.scope.topic()),
            channel: Set(new.channel.to_owned()),
            complaint: Set(new.complaint),
            note: Set(new.note),
            evidence: Set(new.evidence),
            undoes: Set(new.undoes),
            delivery_id: Set(new.delivery),
            requested_at: Set(new.requested_at),
            recorded_at: Set(self.now),
            recorded_by: Set(new.actor.to_owned()),
        };
        event::Entity::insert(row).exec_without_returning(&**self.txn).await?;
        if new.undoes.is_some() {
            self.amount_to(new.scope).await?;
        } else {
            // Nothing can have undone what was said just now.
            self.stands(new.scope, new.said, self.seq, new.complaint, id).await?;
        }
        Ok(id)
    }

    /// Writes what the events of this scope amount to: the newest that is no undo and was not undone.
    async fn amount_to(&self, scope: Scope) -> Result<(), DbErr> {
        let events = event::Entity::find()
            .filter(event::Column::AddressHash.eq(self.hash.clone()))
            .filter(event::Column::ScopeKind.eq(scope.kind()))
            .filter(match scope.brand() {
                Some(brand) => event::Column::BrandId.eq(brand),
                None => event::Column::BrandId.is_null(),
            })
            .filter(match scope.topic() {
                Some(topic) => event::Column::TopicId.eq(topic),
                None => event::Column::TopicId.is_null(),
            })
            .order_by_desc(event::Column::Seq)
            .all(&**self.txn)
            .await?;
        let undone: Vec<OptEventId> = events.iter().filter_map(|event| event.undoes).collect();
        let newest = events.iter().find(|event| event.said != "undo" && !undone.contains(&event.id));
        match newest {
            Some(newest) => self.stands(scope, &newest.said, newest.seq, newest.complaint, newest.id).await,
            None => {
                let key = (self.hash.clone(), scope.key());
                suppression::Entity::delete_by_id(key).exec(&**self.txn).await.map(|_| ())
            }
        }
    }

    /// Writes that this event is what stands for the scope.
    async fn stands(
        &self,
        scope: Scope,
        said: &str,
        seq: i64,
        complaint: bool,
        event: OptEventId,
    ) -> Result<(), DbErr> {
        let row = suppression::ActiveModel {
            address_hash: Set(self.hash.clone()),
            scope_key: Set(scope.key()),
            scope_kind: Set(scope.kind().to_owned()),
            brand_id: Set(scope.brand()),
            topic_id: Set(scope.topic()),
            said: Set(said.to_owned()),
            seq: Set(seq),
            complaint: Set(complaint),
            event_id: Set(event),
        };
        let replace = OnConflict::columns([suppression::Column::AddressHash, suppression::Column::ScopeKey])
            .update_columns([
                suppression::Column::Said,
                suppression::Column::Seq,
                suppression::Column::Complaint,
                suppression::Column::EventId,
            ])
            .to_owned();
        suppression::Entity::insert(row).on_conflict(replace).exec_without_returning(&**self.txn).await?;
        Ok(())
    }

    async fn unlock(self) -> Result<(), DbErr> {
        let sql = "UPDATE addresses SET last_seq = $2 WHERE address_hash = $1";
        let values = [self.hash.0.clone().into(), self.seq.into()];
        self.txn
            .execute_raw(Statement::from_sql_and_values(self.txn.get_database_backend(), sql, values))
            .await?;
        Ok(())
    }
}
