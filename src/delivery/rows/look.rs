//! What the fence does to deliveries: taking back what has not begun, and looking for what has.

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement, Value};

use super::hold::skip_locked;
use crate::address::AddressHash;
use crate::db::Db;
use crate::decision::{Class, objections};
use crate::delivery::State;
use crate::id::{BrandId, DeliveryId, LeaseToken, TopicId};
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
    /// A condition on `deliveries`, with its values from `$1` on.
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
    sending: bool,
    doubt: bool,
}

/// Looks for what is under way, in one statement with a snapshot of its own on the primary, so that nothing can pass
/// from sending to doubt unseen. It must not run inside a transaction that began before the refusal was committed.
///
/// # Errors
/// The database's own.
pub async fn look(db: &Db, covered: &Covered) -> Result<Look, DbErr> {
    let (which, values) = covered.condition();
    let sql = format!(
        "SELECT id, topic_id, token, state = 'sending' AS sending, \
         COALESCE(doubt_until, 0) > {now} AS doubt FROM deliveries \
         WHERE {which} AND (state = 'sending' OR doubt_until > {now})",
        now = db.now_sql()
    );
    let statement = Statement::from_sql_and_values(db.backend(), sql, values);
    let mut found = Look::default();
    for row in Row::find_by_statement(statement).all(db.opt_out_reads()).await? {
        let one = InFlight { delivery: row.id, topic: row.topic_id, token: row.token };
        if row.doubt {
            found.in_doubt.push(InFlight { token: None, ..one.clone() });
        }
        if row.sending {
            found.sending.push(one);
        }
    }
    Ok(found)
}

#[derive(FromQueryResult)]
struct Candidate {
    id: DeliveryId,
    class: Class,
    topic_id: TopicId,
}

/// What a taking-back may touch.
const NOT_BEGUN: &str = "(state = 'queued' OR (state = 'sending' AND NOT begun))";

/// Suppresses what is queued, or claimed and not begun, as far as the decision says so. For speed only: whatever it
/// skips meets the decision. Rows that somebody else has locked are skipped, so that no stopped worker can hold it up.
///
/// # Errors
/// The database's own.
pub async fn take_back(db: &Db, covered: &Covered) -> Result<u64, DbErr> {
    let (which, values) = covered.condition();
    // Mostly there is nothing, and nobody waits for a turn to write.
    let sql = format!("SELECT 1 FROM deliveries WHERE {which} AND {NOT_BEGUN} LIMIT 1");
    let statement = Statement::from_sql_and_values(db.backend(), sql, values.clone());
    if db.opt_out_reads().query_one_raw(statement).await?.is_none() {
        return Ok(0);
    }
    let txn = db.begin_opt_out().await?;
    let sql = format!(
        "SELECT id, class, topic_id FROM deliveries WHERE {which} AND {NOT_BEGUN} LIMIT {TAKEN_BACK_AT_ONCE}{}",
        skip_locked(db.backend())
    );
    let statement = Statement::from_sql_and_values(db.backend(), sql, values);
    let candidates = Candidate::find_by_statement(statement).all(&*txn).await?;
    let mut topics: Vec<TopicId> = candidates.iter().map(|one| one.topic_id).collect();
    topics.sort_unstable();
    topics.dedup();
    let mut taken = 0;
    for topic in topics {
        let Some(topic) = crate::brand::rows::topic_by_id(&*txn, topic).await? else { continue };
        let people = [covered.address_hash.clone()];
        let facts = facts_of(&*txn, Wanted { people: &people, topic: &topic }).await?;
        let Some(facts) = facts.get(&covered.address_hash) else { continue };
        for one in candidates.iter().filter(|one| one.topic_id == topic.id) {
            let Some(reason) = objections(one.class, facts).first().copied() else { continue };
            let sql = format!(
                "UPDATE deliveries SET state = CASE WHEN doubted THEN 'unknown' ELSE '{}' END, reason = $2, \
                 settled_at = {}, token = NULL, lease_until = NULL WHERE id = $1",
                State::Suppressed,
                db.now_sql()
            );
            let values = [one.id.0.into(), reason.as_str().into()];
            taken += txn
                .execute_raw(Statement::from_sql_and_values(db.backend(), sql, values))
                .await?
                .rows_affected();
        }
    }
    txn.commit().await?;
    Ok(taken)
}
