//! Recording opt-ins and undos, under the lock of the person's address row.

use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, Statement,
};

use super::entities::{event, suppression};
use super::refuse::Recorded;
use super::standing_words;
use crate::address::AddressHash;
use crate::clock::Timestamp;
use crate::db::{Db, Write};
use crate::id::{DeliveryId, OptEventId};
use crate::opt_out::events::{Channel, OptIn, Scope, Stood};

/// What an undo took back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undone {
    /// The scopes whose opt-out by this link was taken back.
    pub scopes: Vec<Scope>,
    /// What still stands for the person.
    pub still: Vec<Stood>,
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
            evidence: Some(asked.evidence.clone()),
            undoes: None,
            delivery: None,
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
    channel: Channel,
    actor: &str,
) -> Result<Undone, DbErr> {
    let fits =
        |scope: Scope, made: &event::Model| made.delivery_id == Some(delivery) && !keep.contains(&scope);
    take_back(txn, db, hash, fits, Some(delivery), (channel, actor)).await
}

/// Takes back the opt-out of exactly this scope that somebody said by letter, telephone or otherwise through no message, where
/// that is what stands. Wider ones stay.
///
/// # Errors
/// The database's own; nothing is taken back then.
pub async fn undo_said(
    txn: &Write,
    db: &Db,
    hash: &AddressHash,
    scope: Scope,
    channel: Channel,
    actor: &str,
) -> Result<Undone, DbErr> {
    let fits = |of: Scope, made: &event::Model| of == scope && made.delivery_id.is_none();
    take_back(txn, db, hash, fits, None, (channel, actor)).await
}

async fn take_back(
    txn: &Write,
    db: &Db,
    hash: &AddressHash,
    fits: impl Fn(Scope, &event::Model) -> bool,
    delivery: Option<DeliveryId>,
    (channel, actor): (Channel, &str),
) -> Result<Undone, DbErr> {
    let mut person = Person::lock(txn, db, hash).await?;
    let mut scopes = Vec::new();
    for stood in standing_words(&**txn, hash).await? {
        let made = event::Entity::find_by_id(stood.event)
            .filter(event::Column::Said.eq("opt_out"))
            .one(&**txn)
            .await?;
        if !made.is_some_and(|made| fits(stood.scope, &made)) {
            continue;
        }
        person
            .say(Event {
                said: "undo",
                scope: stood.scope,
                channel: channel.as_str(),
                evidence: None,
                undoes: Some(stood.event),
                delivery,
                actor,
            })
            .await?;
        scopes.push(stood.scope);
    }
    person.unlock().await?;
    let still = standing_words(&**txn, hash).await?;
    Ok(Undone { scopes, still })
}

struct Event<'a> {
    said: &'static str,
    scope: Scope,
    channel: &'static str,
    evidence: Option<String>,
    undoes: Option<OptEventId>,
    delivery: Option<DeliveryId>,
    actor: &'a str,
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
            complaint: Set(false),
            note: Set(None),
            evidence: Set(new.evidence),
            undoes: Set(new.undoes),
            delivery_id: Set(new.delivery),
            requested_at: Set(None),
            recorded_at: Set(self.now),
            recorded_by: Set(new.actor.to_owned()),
        };
        event::Entity::insert(row).exec_without_returning(&**self.txn).await?;
        if new.undoes.is_some() {
            self.amount_to(new.scope).await?;
        } else {
            // Nothing can have undone what was said just now.
            self.stands(new.scope, new.said, self.seq, false, id).await?;
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
        suppression::Entity::insert(row)
            .on_conflict(suppression::newest_wins())
            .exec_without_returning(&**self.txn)
            .await?;
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
