//! Storing people: one statement for the new ones of a chunk, one for the changed.

use std::collections::{HashMap, HashSet};

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{LockType, OnConflict};
use sea_orm::{ConnectionTrait, IntoActiveModel, QuerySelect};

use super::{Recipient, RecipientBrand, recipient, recipient_brand, ties};
use crate::address::{AddressHash, AddressKey, EmailAddress};
use crate::clock::Timestamp;
use crate::db::{Db, Write};
use crate::id::{BrandId, RecipientId};
use crate::recipient::change::{self, Membership, Outcome, Upsert, Upserted};

/// Somebody who is to become a recipient of a brand unless the address is known already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// The address.
    pub address: EmailAddress,
    /// The name.
    pub name: Option<String>,
}

/// Stores what is said of one person. Calls at the same moment for one address wait for each other and do not fail.
///
/// # Errors
/// The database's own.
pub async fn upsert(txn: &Write, db: &Db, key: &AddressKey, said: &Upsert) -> Result<Upserted, DbErr> {
    one(store(txn, db, key, std::slice::from_ref(said), Known::Change).await?)
}

/// Stores what is said of many people, at most 1,000 at a time; the answers come in the order of the lines. Of two
/// lines with one address the first counts.
///
/// # Errors
/// The database's own; on PostgreSQL also a deadlock with another upload, after which the transaction can be tried anew.
pub async fn upsert_lines(
    txn: &Write,
    db: &Db,
    key: &AddressKey,
    lines: &[Upsert],
) -> Result<Vec<Upserted>, DbErr> {
    store(txn, db, key, lines, Known::Change).await
}

/// Makes somebody a recipient who belongs to no brand, and so to no audience; somebody known stays as stored.
///
/// # Errors
/// The database's own.
pub async fn ensure_stranger(
    txn: &Write,
    db: &Db,
    key: &AddressKey,
    newcomer: &Newcomer,
) -> Result<Upserted, DbErr> {
    let mut said = Upsert::new(newcomer.address.clone());
    said.name = newcomer.name.clone().map(Some);
    said.membership = Membership::Only(Vec::new());
    one(store(txn, db, key, &[said], Known::Leave).await?)
}

/// Makes the newcomers recipients of the brand, at most 1,000 at a time; somebody known stays as stored, of whatever
/// brand. The answers come in the order of the lines.
///
/// # Errors
/// As [`upsert_lines`].
pub async fn ensure_lines(
    txn: &Write,
    db: &Db,
    key: &AddressKey,
    lines: &[Newcomer],
    brand: BrandId,
) -> Result<Vec<Upserted>, DbErr> {
    let lines: Vec<Upsert> = lines
        .iter()
        .map(|line| {
            let mut said = Upsert::new(line.address.clone());
            said.name = line.name.clone().map(Some);
            said.membership = Membership::Join(brand);
            said
        })
        .collect();
    store(txn, db, key, &lines, Known::Leave).await
}

/// What happens to people who are stored already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Change,
    Leave,
}

struct Line<'a> {
    hash: AddressHash,
    folded: String,
    said: &'a Upsert,
}

async fn store(
    txn: &Write,
    db: &Db,
    key: &AddressKey,
    said: &[Upsert],
    known: Known,
) -> Result<Vec<Upserted>, DbErr> {
    if said.is_empty() {
        return Ok(Vec::new());
    }
    let hashes: Vec<AddressHash> = said.iter().map(|said| key.hash(&said.address)).collect();
    let mut seen = HashSet::with_capacity(said.len());
    let lines: Vec<Line<'_>> = said
        .iter()
        .zip(&hashes)
        .filter(|(_, hash)| seen.insert(*hash))
        .map(|(said, hash)| Line { hash: hash.clone(), folded: said.address.folded(), said })
        .collect();
    let now = db.read_clock(&**txn).await?;

    let mut stored = lock(txn, lines.iter().map(|line| &line.hash)).await?;
    let mut answers = insert_new(txn, &lines, &mut stored, now).await?;
    match known {
        Known::Leave => {
            for (hash, person) in stored {
                answers.insert(hash, Upserted { id: person.id, outcome: Outcome::Unchanged });
            }
        }
        Known::Change => change_known(txn, &lines, stored, now, &mut answers).await?,
    }
    hashes
        .iter()
        .map(|hash| {
            answers.get(hash).copied().ok_or_else(|| DbErr::RecordNotFound("an upserted person".into()))
        })
        .collect()
}

fn one(answers: Vec<Upserted>) -> Result<Upserted, DbErr> {
    answers.first().copied().ok_or_else(|| DbErr::RecordNotFound("the upserted person".into()))
}

/// Reads those stored and keeps them from changing until the transaction ends. In the order of the hash, so that two
/// uploads of the same people take their turns; the lock lets foreign keys to the person through.
async fn lock<'a>(
    txn: &Write,
    hashes: impl Iterator<Item = &'a AddressHash>,
) -> Result<HashMap<AddressHash, Recipient>, DbErr> {
    let mut query = recipient::Entity::find()
        .filter(recipient::Column::AddressHash.is_in(hashes.cloned()))
        .lock(LockType::NoKeyUpdate);
    sea_orm::QueryOrder::query(&mut query)
        .order_by(recipient::Column::AddressHash, sea_orm::sea_query::Order::Asc);
    let people = query.all(&**txn).await?;
    Ok(people.into_iter().map(|person| (person.address_hash.clone(), person)).collect())
}

/// Inserts those who are not in `stored`, and adds to `stored` whom somebody else inserted in the meantime.
async fn insert_new(
    txn: &Write,
    lines: &[Line<'_>],
    stored: &mut HashMap<AddressHash, Recipient>,
    now: Timestamp,
) -> Result<HashMap<AddressHash, Upserted>, DbErr> {
    let mut created: HashMap<AddressHash, Upserted> = HashMap::with_capacity(lines.len());
    let mut people: Vec<(Recipient, Vec<RecipientBrand>)> = lines
        .iter()
        .filter(|line| !stored.contains_key(&line.hash))
        .map(|line| newcomer(line, now))
        .collect();
    if people.is_empty() {
        return Ok(created);
    }
    people.sort_by(|(a, _), (b, _)| a.address_hash.cmp(&b.address_hash));
    let rows = people.iter().map(|(person, _)| as_new(person));
    // On any conflict: with one index named, PostgreSQL still fails on the other when two come at the same moment.
    let inserted = recipient::Entity::insert_many(rows)
        .on_conflict(OnConflict::new().do_nothing().to_owned())
        .exec_without_returning(&**txn)
        .await?;
    let mut others: HashMap<AddressHash, Recipient> = HashMap::new();
    if inserted != people.len() as u64 {
        others = lock(txn, people.iter().map(|(person, _)| &person.address_hash)).await?;
        let ours: HashSet<RecipientId> = people.iter().map(|(person, _)| person.id).collect();
        others.retain(|_, person| !ours.contains(&person.id));
    }
    let mut new_ties = Vec::new();
    for (person, ties) in people {
        if !others.contains_key(&person.address_hash) {
            created.insert(person.address_hash, Upserted { id: person.id, outcome: Outcome::Created });
            new_ties.extend(ties);
        }
    }
    write_ties(&**txn, new_ties).await?;
    stored.extend(others);
    Ok(created)
}

fn newcomer(line: &Line<'_>, now: Timestamp) -> (Recipient, Vec<RecipientBrand>) {
    let mut person = Recipient {
        id: RecipientId::new(),
        address: Some(line.said.address.as_str().to_owned()),
        folded: Some(line.folded.clone()),
        address_hash: line.hash.clone(),
        name: None,
        external_id: None,
        locale: None,
        standing: crate::decision::Standing::Active,
        every_brand: matches!(line.said.membership, Membership::Unsaid),
        tags: Json::Array(Vec::new()),
        attributes: Json::Object(serde_json::Map::new()),
        policies: Json::Object(serde_json::Map::new()),
        created_at: now,
        updated_at: now,
    };
    change::lay_over(&mut person, line.said);
    let ties = change::lay_ties(&mut person, &[], line.said);
    (person, ties)
}

async fn change_known(
    txn: &Write,
    lines: &[Line<'_>],
    mut stored: HashMap<AddressHash, Recipient>,
    now: Timestamp,
    answers: &mut HashMap<AddressHash, Upserted>,
) -> Result<(), DbErr> {
    let touched: Vec<RecipientId> = lines
        .iter()
        .filter(|line| line.said.speaks_of_brands())
        .filter_map(|line| stored.get(&line.hash).map(|person| person.id))
        .collect();
    let known_ties = ties(&**txn, &touched).await?;
    let mut changed = Vec::new();
    let mut changed_ties = Vec::new();
    for line in lines {
        let Some(mut person) = stored.remove(&line.hash) else { continue };
        let id = person.id;
        let outcome = if person.address.is_none() {
            Outcome::Erased
        } else {
            let mut differs = change::lay_over(&mut person, line.said);
            let before = person.every_brand;
            let none = Vec::new();
            let ties = change::lay_ties(&mut person, known_ties.get(&id).unwrap_or(&none), line.said);
            let row_differs = differs || person.every_brand != before;
            differs = row_differs || !ties.is_empty();
            changed_ties.extend(ties);
            if differs {
                person.updated_at = now;
                changed.push(person);
                Outcome::Updated
            } else {
                Outcome::Unchanged
            }
        };
        answers.insert(line.hash.clone(), Upserted { id, outcome });
    }
    write_changed(&**txn, changed).await?;
    write_ties(&**txn, changed_ties).await
}

/// One statement for all: each row is there already, so each conflicts and is updated.
async fn write_changed(on: &impl ConnectionTrait, people: Vec<Recipient>) -> Result<(), DbErr> {
    use recipient::Column;
    if people.is_empty() {
        return Ok(());
    }
    // The standing is not among the columns updated: only the fence writes it.
    recipient::Entity::insert_many(people.into_iter().map(|person| as_new(&person)))
        .on_conflict(
            OnConflict::column(Column::Id)
                .update_columns([
                    Column::Name,
                    Column::ExternalId,
                    Column::Locale,
                    Column::EveryBrand,
                    Column::Tags,
                    Column::Attributes,
                    Column::Policies,
                    Column::UpdatedAt,
                ])
                .to_owned(),
        )
        .exec_without_returning(on)
        .await
        .map(|_| ())
}

async fn write_ties(on: &impl ConnectionTrait, ties: Vec<RecipientBrand>) -> Result<(), DbErr> {
    use recipient_brand::Column;
    // A person may have many brands; four columns a row stay far under SQLite's limit of 32,766 values.
    for part in ties.chunks(1000) {
        recipient_brand::Entity::insert_many(part.iter().map(as_new_tie))
            .on_conflict(
                OnConflict::columns([Column::RecipientId, Column::BrandId])
                    .update_columns([Column::Belongs, Column::Customer])
                    .to_owned(),
            )
            .exec_without_returning(on)
            .await?;
    }
    Ok(())
}

/// Every column set, as an insert needs it.
fn as_new(person: &Recipient) -> recipient::ActiveModel {
    person.clone().into_active_model().reset_all()
}

fn as_new_tie(tie: &RecipientBrand) -> recipient_brand::ActiveModel {
    tie.clone().into_active_model().reset_all()
}
