//! Storing people: one statement for the new ones of a chunk, one for the changed.
//!
//! Any number of uploads of the same people may run at once, and none waits for another in a circle. Each transaction
//! first inserts whoever may be new and then locks whoever was stored already, each in the order of the hashes. While it
//! inserts it can only wait for somebody who inserted a greater hash or is past inserting; while it locks, all that it
//! locks is committed, so it can only wait for somebody who has locked a greater hash.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sea_orm::entity::prelude::*;
use sea_orm::{ConnectionTrait, DbBackend, Statement};

use super::{Recipient, RecipientBrand, recipient, ties};
use crate::address::{AddressHash, AddressKey, EmailAddress};
use crate::clock::Timestamp;
use crate::db::{Db, Kind, List, Write};
use crate::id::{BrandId, RecipientId};
use crate::recipient::change::{self, Membership, Outcome, Published, Refused, Upsert, Upserted};

/// Somebody who is to become a recipient of a brand unless the address is known already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// The address.
    pub address: EmailAddress,
    /// The name.
    pub name: Option<String>,
}

/// What is said of one person, with what the address is known by.
#[derive(Clone, Debug)]
pub struct Line {
    said: Upsert,
    folded: String,
    hash: AddressHash,
}

impl Line {
    /// Folds and hashes the address.
    pub fn new(said: Upsert, key: &AddressKey) -> Self {
        let folded = said.address.folded();
        let hash = key.hash_folded(&folded);
        Self { said, folded, hash }
    }

    /// The hash of the address.
    pub fn hash(&self) -> &AddressHash {
        &self.hash
    }
}

/// Stores what is said of one person, or says why it cannot. Calls at the same moment for one address wait for each other and
/// do not fail.
///
/// # Errors
/// The database's own.
pub async fn upsert(txn: &Write, db: &Db, key: &AddressKey, said: &Upsert, by: By) -> Result<Answer, DbErr> {
    one(store(txn, db, &[Line::new(said.clone(), key)], Known::Change(by)).await?)
}

/// Stores what is said of many people; the answers come in the order of the lines. Of two lines with one address the
/// first counts. Some thousand lines at a time: their rows stay locked until the transaction ends.
///
/// # Errors
/// The database's own.
pub async fn upsert_lines(txn: &Write, db: &Db, lines: &[Line], by: By) -> Result<Vec<Answer>, DbErr> {
    store(txn, db, lines, Known::Change(by)).await
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
    let said = as_upsert(newcomer, Membership::Only(Vec::new()));
    one(store(txn, db, &[Line::new(said, key)], Known::Leave).await?)?.map_err(unheard_of)
}

/// Makes the newcomers recipients of the brand; somebody known stays as stored, of whatever brand. Says who they are
/// and the hashes of their addresses, in the order of the lines. Some thousand lines at a time.
///
/// # Errors
/// The database's own.
pub async fn ensure_lines(
    txn: &Write,
    db: &Db,
    key: &AddressKey,
    newcomers: &[Newcomer],
    brand: BrandId,
) -> Result<Vec<(RecipientId, AddressHash)>, DbErr> {
    let line = |newcomer| Line::new(as_upsert(newcomer, Membership::Join(brand)), key);
    let lines: Vec<Line> = newcomers.iter().map(line).collect();
    let stored = store(txn, db, &lines, Known::Leave).await?;
    let known =
        stored.into_iter().zip(lines).map(|(stored, line)| Ok((stored.map_err(unheard_of)?.id, line.hash)));
    known.collect()
}

/// Of a newcomer nothing is said that can be refused.
fn unheard_of(refused: Refused) -> DbErr {
    DbErr::Custom(refused.to_string())
}

fn as_upsert(newcomer: &Newcomer, membership: Membership) -> Upsert {
    let mut said = Upsert::new(newcomer.address.clone());
    said.name = newcomer.name.clone().map(Some);
    said.membership = membership;
    said
}

/// Who says it, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Who may say what people accepted.
    Keeper,
    /// Who may say so of people who are new alone.
    Marketer,
}

/// What happens to people who are stored already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Change(By),
    Leave,
}

async fn store(txn: &Write, db: &Db, lines: &[Line], known: Known) -> Result<Vec<Answer>, DbErr> {
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    // By hash: the order in which rows are locked.
    let mut distinct: BTreeMap<&AddressHash, &Line> = BTreeMap::new();
    for line in lines {
        distinct.entry(&line.hash).or_insert(line);
    }
    let published = published(txn, lines).await?;
    let mut answers = refused_newcomers(txn, &distinct, &published).await?;
    distinct.retain(|hash, _| !answers.contains_key(*hash));
    let now = db.read_clock(&**txn).await?;
    let people: Vec<(Recipient, Vec<RecipientBrand>)> =
        distinct.values().map(|line| newcomer(line, now)).collect();
    let inserted = insert(txn, people.iter().map(|(person, _)| person), now).await?;
    let others = if inserted == people.len() as u64 {
        HashMap::new()
    } else {
        let mut stored = lock(txn, distinct.keys().copied()).await?;
        for (person, _) in &people {
            if stored.get(&person.address_hash).is_some_and(|stored| stored.id == person.id) {
                stored.remove(&person.address_hash);
            }
        }
        stored
    };
    let mut new_ties = Vec::new();
    for (person, ties) in people {
        if !others.contains_key(&person.address_hash) {
            answers.insert(person.address_hash, Ok(Upserted { id: person.id, outcome: Outcome::Created }));
            new_ties.extend(ties);
        }
    }
    write_ties(txn, new_ties).await?;
    match known {
        Known::Leave => {
            for (hash, person) in others {
                answers.insert(hash, Ok(Upserted { id: person.id, outcome: Outcome::Unchanged }));
            }
        }
        Known::Change(by) => {
            for (hash, person) in &others {
                let Some(line) = distinct.get(hash) else { continue };
                if let Some(refused) = refused(line, person, by, &published) {
                    answers.insert(hash.clone(), Err(refused));
                }
            }
            distinct.retain(|hash, _| !answers.get(*hash).is_some_and(Result::is_err));
            change_known(txn, &distinct, others, now, &mut answers).await?;
        }
    }
    let answer = |line: &Line| answers.get(&line.hash).cloned();
    let all: Option<Vec<Answer>> = lines.iter().map(answer).collect();
    all.ok_or_else(|| DbErr::RecordNotFound("an upserted person".into()))
}

/// What became of a line.
pub type Answer = Result<Upserted, Refused>;

fn one(answers: Vec<Answer>) -> Result<Answer, DbErr> {
    answers.into_iter().next().ok_or_else(|| DbErr::RecordNotFound("the upserted person".into()))
}

/// Of the policies that these lines name, the versions that are published and not withdrawn.
async fn published(txn: &Write, lines: &[Line]) -> Result<Published, DbErr> {
    let named: BTreeSet<&String> = lines.iter().flat_map(|line| line.said.policies.keys()).collect();
    if named.is_empty() {
        return Ok(Published::new());
    }
    let backend = txn.get_database_backend();
    let mut values = Vec::new();
    let named = List::of("slug", Kind::Text, named.into_iter().cloned());
    let named = named.relation(backend, "named", &mut values);
    let sql = format!(
        "SELECT p.slug, v.number FROM {named} JOIN policies p ON p.slug = named.slug \
         JOIN policy_versions v ON v.policy_id = p.id WHERE v.state = 'published'"
    );
    let rows = txn.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    rows.iter().map(|row| Ok((row.try_get("", "slug")?, row.try_get("", "number")?))).collect()
}

/// Those who are not stored yet and are said to have accepted what is not published. Nobody stored is ever taken away, so
/// that who is known now is known when the lines are stored.
async fn refused_newcomers(
    txn: &Write,
    lines: &BTreeMap<&AddressHash, &Line>,
    published: &Published,
) -> Result<HashMap<AddressHash, Answer>, DbErr> {
    let refused = |(hash, line): (&&AddressHash, &&Line)| {
        let refused = change::not_published(&line.said, &Json::Null, published)?;
        Some(((*hash).clone(), Err(refused)))
    };
    let mut refused: HashMap<AddressHash, Answer> = lines.iter().filter_map(refused).collect();
    if refused.is_empty() {
        return Ok(refused);
    }
    let backend = txn.get_database_backend();
    let mut values = Vec::new();
    let asked = List::of("address_hash", Kind::Bytes, refused.keys().map(|hash| hash.0.clone()));
    let asked = asked.relation(backend, "asked", &mut values);
    let sql = format!(
        "SELECT r.address_hash FROM {asked} JOIN recipients r ON r.address_hash = asked.address_hash"
    );
    for row in txn.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await? {
        refused.remove(&row.try_get("", "address_hash")?);
    }
    Ok(refused)
}

/// Why what a line says of somebody stored is not stored. Of the erased nothing is, whatever it says.
fn refused(line: &Line, person: &Recipient, by: By, published: &Published) -> Option<Refused> {
    person.address.as_ref()?;
    let changed = || change::changes_what_was_accepted(&line.said, &person.policies);
    let not_theirs = if by == By::Marketer { changed() } else { None };
    not_theirs.or_else(|| change::not_published(&line.said, &person.policies, published))
}

fn newcomer(line: &Line, now: Timestamp) -> (Recipient, Vec<RecipientBrand>) {
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
        every_brand_since: None,
        tags: Json::Array(Vec::new()),
        attributes: Json::Object(serde_json::Map::new()),
        policies: Json::Object(serde_json::Map::new()),
        created_at: now,
        updated_at: now,
    };
    change::lay_over(&mut person, &line.said);
    let ties = change::lay_ties(&mut person, &[], &line.said, now);
    (person, ties)
}

/// Inserts those whose address is not known, in the order given; somebody stored stays. Returns how many were new.
async fn insert(txn: &Write, people: impl Iterator<Item = &Recipient>, now: Timestamp) -> Result<u64, DbErr> {
    let mut said = List::new([
        ("id", Kind::Uuid),
        ("address", Kind::Text),
        ("folded", Kind::Text),
        ("address_hash", Kind::Bytes),
        ("name", Kind::Text),
        ("external_id", Kind::Text),
        ("locale", Kind::Text),
        ("every_brand", Kind::Bool),
        ("tags", Kind::Json),
        ("attributes", Kind::Json),
        ("policies", Kind::Json),
    ]);
    for person in people {
        // Most are spelt as they are known, and have neither tags nor policies.
        let differs = person.folded != person.address;
        said.push([
            person.id.0.into(),
            person.address.clone().into(),
            person.folded.clone().filter(|_| differs).into(),
            person.address_hash.0.clone().into(),
            person.name.clone().into(),
            person.external_id.clone().into(),
            person.locale.clone().into(),
            person.every_brand.into(),
            filled(&person.tags).into(),
            filled(&person.attributes).into(),
            filled(&person.policies).into(),
        ]);
    }
    let mut values = vec![now.0.into()];
    let relation = said.relation(txn.get_database_backend(), "said", &mut values);
    // On any conflict: with one index named, PostgreSQL still fails on the other when two come at the same moment.
    let sql = format!(
        "INSERT INTO recipients (id, address, folded, address_hash, name, external_id, locale, standing, every_brand, \
         tags, attributes, policies, created_at, updated_at) \
         SELECT id, address, COALESCE(folded, address), address_hash, name, external_id, locale, 'active', every_brand, \
         COALESCE(tags, '[]'), COALESCE(attributes, '{{}}'), COALESCE(policies, '{{}}'), $1, $1 \
         FROM {relation} WHERE TRUE ON CONFLICT DO NOTHING"
    );
    execute(txn, sql, values).await
}

/// Reads those stored and keeps them from changing until the transaction ends; the lock lets foreign keys to the person
/// through.
async fn lock(
    txn: &Write,
    hashes: impl Iterator<Item = &AddressHash>,
) -> Result<HashMap<AddressHash, Recipient>, DbErr> {
    let backend = txn.get_database_backend();
    let lock = if backend == DbBackend::Postgres { " FOR NO KEY UPDATE OF stored" } else { "" };
    let said = List::of("address_hash", Kind::Bytes, hashes.map(|hash| hash.0.clone()));
    let mut values = Vec::new();
    let relation = said.relation(backend, "said", &mut values);
    let sql = format!(
        "SELECT stored.* FROM {relation} JOIN recipients stored ON stored.address_hash = said.address_hash \
         ORDER BY stored.address_hash{lock}"
    );
    let people = recipient::Entity::find().from_raw_sql(Statement::from_sql_and_values(backend, sql, values));
    let people = people.all(&**txn).await?;
    Ok(people.into_iter().map(|person| (person.address_hash.clone(), person)).collect())
}

async fn change_known(
    txn: &Write,
    lines: &BTreeMap<&AddressHash, &Line>,
    mut stored: HashMap<AddressHash, Recipient>,
    now: Timestamp,
    answers: &mut HashMap<AddressHash, Answer>,
) -> Result<(), DbErr> {
    let touched: Vec<RecipientId> = lines
        .values()
        .filter(|line| line.said.speaks_of_brands())
        .filter_map(|line| stored.get(&line.hash).map(|person| person.id))
        .collect();
    let known_ties = ties(&**txn, &touched).await?;
    let mut changed = Vec::new();
    let mut changed_ties = Vec::new();
    for line in lines.values() {
        let Some(mut person) = stored.remove(&line.hash) else { continue };
        let id = person.id;
        let outcome = if person.address.is_none() {
            Outcome::Erased
        } else {
            let mut differs = change::lay_over(&mut person, &line.said);
            let before = person.every_brand;
            let none = Vec::new();
            let ties = change::lay_ties(&mut person, known_ties.get(&id).unwrap_or(&none), &line.said, now);
            let row_differs = differs || person.every_brand != before;
            differs = row_differs || !ties.is_empty();
            changed_ties.extend(ties);
            if differs {
                changed.push(person);
                Outcome::Updated
            } else {
                Outcome::Unchanged
            }
        };
        answers.insert(line.hash.clone(), Ok(Upserted { id, outcome }));
    }
    write_changed(txn, &changed, now).await?;
    write_ties(txn, changed_ties).await
}

async fn write_changed(txn: &Write, people: &[Recipient], now: Timestamp) -> Result<(), DbErr> {
    if people.is_empty() {
        return Ok(());
    }
    let mut said = List::new([
        ("id", Kind::Uuid),
        ("name", Kind::Text),
        ("external_id", Kind::Text),
        ("locale", Kind::Text),
        ("every_brand", Kind::Bool),
        ("every_brand_since", Kind::Int),
        ("tags", Kind::Json),
        ("attributes", Kind::Json),
        ("policies", Kind::Json),
    ]);
    for person in people {
        said.push([
            person.id.0.into(),
            person.name.clone().into(),
            person.external_id.clone().into(),
            person.locale.clone().into(),
            person.every_brand.into(),
            person.every_brand_since.map(|since| since.0).into(),
            person.tags.to_string().into(),
            person.attributes.to_string().into(),
            person.policies.to_string().into(),
        ]);
    }
    let mut values = vec![now.0.into()];
    let relation = said.relation(txn.get_database_backend(), "said", &mut values);
    // The standing is not among the columns: only the fence writes it.
    let sql = format!(
        "UPDATE recipients SET name = said.name, external_id = said.external_id, locale = said.locale, \
         every_brand = said.every_brand, every_brand_since = said.every_brand_since, tags = said.tags, attributes = said.attributes, policies = said.policies, \
         updated_at = $1 FROM {relation} WHERE recipients.id = said.id"
    );
    execute(txn, sql, values).await.map(|_| ())
}

async fn write_ties(txn: &Write, ties: Vec<RecipientBrand>) -> Result<(), DbErr> {
    if ties.is_empty() {
        return Ok(());
    }
    let mut said = List::new([
        ("recipient_id", Kind::Uuid),
        ("brand_id", Kind::Uuid),
        ("belongs", Kind::Bool),
        ("joined_at", Kind::Int),
        ("customer", Kind::Bool),
    ]);
    for tie in ties {
        said.push([
            tie.recipient_id.0.into(),
            tie.brand_id.0.into(),
            tie.belongs.into(),
            tie.joined_at.map(|joined| joined.0).into(),
            tie.customer.into(),
        ]);
    }
    let mut values = Vec::new();
    let relation = said.relation(txn.get_database_backend(), "said", &mut values);
    let sql = format!(
        "INSERT INTO recipient_brands (recipient_id, brand_id, belongs, joined_at, customer) \
         SELECT recipient_id, brand_id, belongs, joined_at, customer FROM {relation} WHERE TRUE \
         ON CONFLICT (recipient_id, brand_id) DO UPDATE SET belongs = excluded.belongs, \
         joined_at = excluded.joined_at, customer = excluded.customer"
    );
    execute(txn, sql, values).await.map(|_| ())
}

async fn execute(txn: &Write, sql: String, values: Vec<Value>) -> Result<u64, DbErr> {
    let statement = Statement::from_sql_and_values(txn.get_database_backend(), sql, values);
    Ok(txn.execute_raw(statement).await?.rows_affected())
}

/// JSON as a cell, none when it is empty.
fn filled(json: &Json) -> Option<String> {
    let empty =
        json.as_array().is_some_and(Vec::is_empty) || json.as_object().is_some_and(|named| named.is_empty());
    (!empty).then(|| json.to_string())
}
