//! The facts of the decision, read fresh: of many people, about one topic, in one query.

use std::collections::{HashMap, HashSet};

use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement, Value};

use super::to_said;
use crate::address::AddressHash;
use crate::brand::Topic;
use crate::db::{Kind, List};
use crate::decision::{Facts, Health, Stand, Standing};
use crate::id::{BrandId, TopicId};

/// How far apart two failures must lie to count as two, in microseconds: a day.
const A_DAY: i64 = 24 * 3600 * 1_000_000;

/// Whose facts are wanted, about messages of which topic.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The people; each may be unknown, and then only opt-outs and failures speak.
    pub people: &'a [AddressHash],
    /// The topic; whether it asks for consent and what customers keep is read fresh.
    pub topic: &'a Topic,
}

/// The facts of these people. One statement, so one moment.
///
/// It must run after the claim that it is to decide about was committed, on the primary, and not inside a transaction
/// that began earlier: see [`crate::fence`].
///
/// # Errors
/// The database's own.
pub async fn facts_of(
    on: &impl ConnectionTrait,
    wanted: Wanted<'_>,
) -> Result<HashMap<AddressHash, Facts>, DbErr> {
    if wanted.people.is_empty() {
        return Ok(HashMap::new());
    }
    let backend = on.get_database_backend();
    let people = List::of("address_hash", Kind::Bytes, wanted.people.iter().map(|hash| hash.0.clone()));
    let (brand_key, topic_key) = scope_keys(wanted.topic.brand_id, wanted.topic.id);
    let mut values: Vec<Value> = vec![wanted.topic.id.into(), brand_key.into(), topic_key.into()];
    let people = people.relation(backend, "l", &mut values);
    let keys = if backend == DbBackend::Postgres {
        "CAST($1 AS uuid) AS topic_id, CAST($2 AS text) AS brand_key, CAST($3 AS text) AS topic_key"
    } else {
        "$1 AS topic_id, $2 AS brand_key, $3 AS topic_key"
    };
    let sql = format!(
        "SELECT p.address_hash, {FACTS} FROM (SELECT l.address_hash, {keys} FROM {people}) AS p {}",
        facts_of_p(backend)
    );
    let rows = on.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    rows.iter().map(|row| Ok((AddressHash(row.try_get("", "address_hash")?), to_facts(row)?))).collect()
}

/// Those of these people who ever said anything, or whose address ever failed; of the others the standing is all there is
/// to know, and whether their consent is asked for.
///
/// # Errors
/// The database's own.
pub async fn known_among(
    on: &impl ConnectionTrait,
    people: &[AddressHash],
) -> Result<HashSet<AddressHash>, DbErr> {
    let list = List::of("address_hash", Kind::Bytes, people.iter().map(|hash| hash.0.clone()));
    let mut values = Vec::new();
    let list = list.relation(on.get_database_backend(), "l", &mut values);
    let sql =
        format!("SELECT a.address_hash FROM {list} JOIN addresses a ON a.address_hash = l.address_hash");
    let rows =
        on.query_all_raw(Statement::from_sql_and_values(on.get_database_backend(), sql, values)).await?;
    rows.iter().map(|row| Ok(AddressHash(row.try_get("", "address_hash")?))).collect()
}

/// Under which keys the suppressions of a brand and of a topic stand.
pub fn scope_keys(brand: BrandId, topic: TopicId) -> (String, String) {
    (format!("brand:{brand}"), format!("topic:{topic}"))
}

/// What [`to_facts`] reads, in a SELECT that joins [`facts_of_p`].
pub const FACTS: &str = "r.standing, m.customer, t.customers_keep, t.consent, \
    a.failures, a.first_failed_at, a.last_failed_at, \
    sa.said AS all_said, sa.seq AS all_seq, sa.complaint AS all_complaint, \
    sb.said AS brand_said, sb.seq AS brand_seq, sb.complaint AS brand_complaint, \
    st.said AS topic_said, st.seq AS topic_seq, st.complaint AS topic_complaint";

/// Where the facts of a relation `p (address_hash, topic_id, brand_key, topic_key)` are found. Who never said anything and
/// never failed has no row in `addresses`, and then none in `suppressions`.
pub fn facts_of_p(backend: DbBackend) -> String {
    let stood = |name: &str, scope: &str| {
        let of = |s: &str| format!("{s}.address_hash = a.address_hash AND {s}.scope_key = {scope}");
        if backend == DbBackend::Postgres {
            // LIMIT keeps it a look-up by both. A plan made while the table was empty would else read all of a scope, and
            // be kept until the table is analyzed, while somebody imports a million refusals.
            let row = format!("SELECT * FROM suppressions s WHERE {} LIMIT 1", of("s"));
            format!("LEFT JOIN LATERAL ({row}) AS {name} ON TRUE")
        } else {
            format!("LEFT JOIN suppressions AS {name} ON {}", of(name))
        }
    };
    format!(
        "JOIN topics t ON t.id = p.topic_id \
         LEFT JOIN recipients r ON r.address_hash = p.address_hash \
         LEFT JOIN recipient_brands m ON m.recipient_id = r.id AND m.brand_id = t.brand_id \
         LEFT JOIN addresses a ON a.address_hash = p.address_hash {} {} {}",
        stood("sa", "'all'"),
        stood("sb", "p.brand_key"),
        stood("st", "p.topic_key"),
    )
}

/// Reads a row of [`FACTS`].
///
/// # Errors
/// When the row does not hold them.
pub fn to_facts(row: &QueryResult) -> Result<Facts, DbErr> {
    let standing: Option<Standing> = row.try_get("", "standing")?;
    let consent: String = row.try_get("", "consent")?;
    Ok(Facts {
        standing: standing.unwrap_or_default(),
        health: to_health(row)?,
        customer: row.try_get::<Option<bool>>("", "customer")?.unwrap_or(false),
        customers_keep: row.try_get("", "customers_keep")?,
        consent_required: consent == "opt_in",
        all: to_stand(row, "all")?,
        brand: to_stand(row, "brand")?,
        topic: to_stand(row, "topic")?,
    })
}

fn to_stand(row: &QueryResult, scope: &str) -> Result<Option<Stand>, DbErr> {
    let Some(said) = row.try_get::<Option<String>>("", &format!("{scope}_said"))? else { return Ok(None) };
    Ok(Some(Stand {
        said: to_said(&said)?,
        seq: row.try_get("", &format!("{scope}_seq"))?,
        complaint: row.try_get("", &format!("{scope}_complaint"))?,
    }))
}

fn to_health(row: &QueryResult) -> Result<Health, DbErr> {
    let failures = row.try_get::<Option<i64>>("", "failures")?.unwrap_or(0);
    let first = row.try_get::<Option<i64>>("", "first_failed_at")?;
    let last = row.try_get::<Option<i64>>("", "last_failed_at")?;
    Ok(match (failures, first, last) {
        (0, ..) => Health::Alive,
        (_, Some(first), Some(last)) if last - first >= A_DAY => Health::Dead,
        _ => Health::DeadForRefusable,
    })
}
