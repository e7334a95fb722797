//! What the fence does to deliveries: taking back what has not begun, and looking for what has.

use std::collections::HashSet;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, FromQueryResult, Statement, Value};

use super::tally::Moves;
use crate::address::AddressHash;
use crate::db::{Db, Kind, List, Write};
use crate::decision::{Class, objections};
use crate::delivery::State;
use crate::id::{BrandId, ContentId, DeliveryId, LeaseToken, TopicId};
use crate::opt_out::rows::{Wanted, facts_of};

/// Deliveries of one person that one taking-back handles at most; the rest meets the decision.
const TAKEN_BACK_AT_ONCE: u64 = 500;

/// Which of a person's deliveries a refusal covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    /// Whose.
    pub address_hash: AddressHash,
    /// Of these classes.
    pub classes: Vec<Class>,
    /// Of this brand; of every brand when none.
    pub brand: Option<BrandId>,
    /// Of this topic; of every topic when none.
    pub topic: Option<TopicId>,
}

impl Covered {
    /// A condition on `queue` or `doubts`, with its values from `$1` on.
    fn condition(&self) -> (String, Vec<Value>) {
        // The words of classes are literals of this program.
        let classes: Vec<String> = self.classes.iter().map(|class| format!("'{class}'")).collect();
        let mut sql = format!("address_hash = $1 AND class IN ({})", classes.join(", "));
        let mut values: Vec<Value> = vec![self.address_hash.0.clone().into()];
        if let Some(brand) = self.brand {
            values.push(brand.0.into());
            sql.push_str(&format!(" AND brand_id = ${}", values.len()));
        }
        if let Some(topic) = self.topic {
            values.push(topic.0.into());
            sql.push_str(&format!(" AND topic_id = ${}", values.len()));
        }
        (sql, values)
    }
}

/// A delivery that an opt-out found under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// Which.
    pub delivery: DeliveryId,
    /// In which topic.
    pub topic: TopicId,
    /// The claim, while it is sending.
    pub token: Option<LeaseToken>,
}

/// What a look found, in one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Claimed by a worker, begun or not, whatever their lease.
    pub sending: Vec<InFlight>,
    /// Their outcome is unknown and they may still reach the relay.
    pub in_doubt: Vec<InFlight>,
}

#[derive(FromQueryResult)]
struct Row {
    id: DeliveryId,
    topic_id: TopicId,
    token: Option<LeaseToken>,
}

/// Looks for what is under way, in one statement with a snapshot of its own on the primary, so that nothing can pass
/// from sending to doubt unseen. It must not run inside a transaction that began before the refusal was committed.
///
/// # Errors
/// The database's own.
pub async fn look(db: &Db, covered: &Covered) -> Result<Look, DbErr> {
    let (which, values) = covered.condition();
    let sql = format!(
        "SELECT delivery_id AS id, topic_id, token FROM queue WHERE {which} AND token IS NOT NULL UNION ALL \
         SELECT delivery_id AS id, topic_id, NULL AS token FROM doubts WHERE {which} AND until > {now}",
        now = db.now_sql()
    );
    let statement = Statement::from_sql_and_values(db.backend(), sql, values);
    let mut found = Look::default();
    for row in Row::find_by_statement(statement).all(db.opt_out_reads()).await? {
        let one = InFlight { delivery: row.id, topic: row.topic_id, token: row.token };
        if row.token.is_some() { found.sending.push(one) } else { found.in_doubt.push(one) }
    }
    Ok(found)
}

/// Those of these people of whom anything at all is unfinished or in doubt, in one statement with a snapshot of its own on
/// the primary. Of the others a [`look`] would find nothing.
///
/// # Errors
/// The database's own.
pub async fn unfinished_among(db: &Db, people: &[AddressHash]) -> Result<HashSet<AddressHash>, DbErr> {
    let list = List::of("address_hash", Kind::Bytes, people.iter().map(|hash| hash.0.clone()));
    let mut values = Vec::new();
    let queued = list.relation(db.backend(), "l", &mut values);
    let doubted = list.relation(db.backend(), "m", &mut values);
    let sql = format!(
        "SELECT l.address_hash FROM {queued} JOIN queue q ON q.address_hash = l.address_hash UNION ALL \
         SELECT m.address_hash FROM {doubted} JOIN doubts d ON d.address_hash = m.address_hash"
    );
    let statement = Statement::from_sql_and_values(db.backend(), sql, values);
    let rows = db.opt_out_reads().query_all_raw(statement).await?;
    rows.iter().map(|row| Ok(AddressHash(row.try_get("", "address_hash")?))).collect()
}

#[derive(FromQueryResult)]
struct Candidate {
    id: DeliveryId,
    content_id: ContentId,
    class: Class,
    topic_id: TopicId,
    claimed: bool,
    doubted: bool,
}

/// Suppresses what is queued, or claimed and not begun, as far as the decision says so. For speed only: whatever it
/// skips meets the decision. Rows that somebody else has locked are skipped, so that no stopped worker can hold it up.
///
/// # Errors
/// The database's own.
pub async fn take_back(db: &Db, covered: &Covered) -> Result<u64, DbErr> {
    let (which, values) = covered.condition();
    // Mostly there is nothing, and nobody waits for a turn to write.
    let sql = format!("SELECT 1 FROM queue WHERE {which} AND NOT begun LIMIT 1");
    let statement = Statement::from_sql_and_values(db.backend(), sql, values.clone());
    if db.opt_out_reads().query_one_raw(statement).await?.is_none() {
        return Ok(0);
    }
    let txn = db.begin_opt_out().await?;
    let lock = if db.backend() == DbBackend::Postgres { " FOR UPDATE OF q SKIP LOCKED" } else { "" };
    let sql = format!(
        "SELECT q.delivery_id AS id, q.content_id, q.class, q.topic_id, q.token IS NOT NULL AS claimed, d.doubted \
         FROM queue q JOIN deliveries d ON d.id = q.delivery_id \
         WHERE {} AND NOT q.begun LIMIT {TAKEN_BACK_AT_ONCE}{lock}",
        which_of(&which, "q")
    );
    let statement = Statement::from_sql_and_values(db.backend(), sql, values);
    let candidates = Candidate::find_by_statement(statement).all(&*txn).await?;
    let mut topics: Vec<TopicId> = candidates.iter().map(|one| one.topic_id).collect();
    topics.sort_unstable();
    topics.dedup();
    let mut moves = Moves::default();
    let mut ends = List::new([("id", Kind::Uuid), ("state", Kind::Text), ("reason", Kind::Text)]);
    for topic in topics {
        let Some(topic) = crate::brand::rows::topic_by_id(&*txn, topic).await? else { continue };
        let people = [covered.address_hash.clone()];
        let facts = facts_of(&*txn, Wanted { people: &people, topic: &topic }).await?;
        let Some(facts) = facts.get(&covered.address_hash) else { continue };
        for one in candidates.iter().filter(|one| one.topic_id == topic.id) {
            let Some(reason) = objections(one.class, facts).first().copied() else { continue };
            let state = if one.doubted { State::Unknown } else { State::Suppressed };
            ends.push([one.id.0.into(), state.as_str().into(), reason.as_str().into()]);
            moves.add(one.content_id, if one.claimed { State::Sending } else { State::Queued }, "", -1);
            moves.add(one.content_id, state, reason.as_str(), 1);
        }
    }
    end(&txn, db, &ends).await?;
    moves.write_apart(&txn, db).await?;
    txn.commit().await?;
    Ok(ends.len() as u64)
}

fn which_of(which: &str, table: &str) -> String {
    // Every condition names its column after `AND` or at the start.
    format!("{table}.{}", which.replace(" AND ", &format!(" AND {table}.")))
}

/// Takes these out of the queue, locked as they are, and writes their final state.
pub(super) async fn end(txn: &Write, db: &Db, ends: &List<3>) -> Result<(), DbErr> {
    if ends.is_empty() {
        return Ok(());
    }
    let mut values = Vec::new();
    let list = ends.relation(db.backend(), "l", &mut values);
    let sql = format!("DELETE FROM queue WHERE delivery_id IN (SELECT l.id FROM {list})");
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values.clone())).await?;
    let sql = format!(
        "UPDATE deliveries SET state = l.state, unsent = l.state, reason = l.reason, settled_at = {} \
         FROM {list} WHERE deliveries.id = l.id",
        db.now_sql()
    );
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    Ok(())
}
