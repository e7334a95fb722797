//! The facts of the decision, read fresh: of many people, about one topic, in one query.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement, Value};

use super::to_said;
use crate::address::AddressHash;
use crate::brand::Topic;
use crate::decision::{Facts, Health, Stand, Standing};

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
    let statement = statement(on.get_database_backend(), wanted);
    let rows = on.query_all_raw(statement).await?;
    rows.iter().map(|row| Ok((AddressHash(row.try_get("", "address_hash")?), to_facts(row)?))).collect()
}

fn statement(backend: DbBackend, wanted: Wanted<'_>) -> Statement {
    let bytes = if backend == DbBackend::Postgres { "bytea" } else { "blob" };
    let people: Vec<String> =
        (0..wanted.people.len()).map(|n| format!("(CAST(${} AS {bytes}))", n + 4)).collect();
    let sql = format!(
        "SELECT p.column1 AS address_hash, r.standing, m.customer, t.customers_keep, t.consent, \
         a.failures, a.first_failed_at, a.last_failed_at, \
         sa.said AS all_said, sa.seq AS all_seq, sa.complaint AS all_complaint, \
         sb.said AS brand_said, sb.seq AS brand_seq, sb.complaint AS brand_complaint, \
         st.said AS topic_said, st.seq AS topic_seq, st.complaint AS topic_complaint \
         FROM (VALUES {people}) AS p \
         JOIN topics t ON t.id = $1 \
         LEFT JOIN recipients r ON r.address_hash = p.column1 \
         LEFT JOIN recipient_brands m ON m.recipient_id = r.id AND m.brand_id = t.brand_id \
         LEFT JOIN addresses a ON a.address_hash = p.column1 \
         LEFT JOIN suppressions sa ON sa.address_hash = p.column1 AND sa.scope_key = 'all' \
         LEFT JOIN suppressions sb ON sb.address_hash = p.column1 AND sb.scope_key = $2 \
         LEFT JOIN suppressions st ON st.address_hash = p.column1 AND st.scope_key = $3",
        people = people.join(", "),
    );
    let mut values: Vec<Value> = vec![
        wanted.topic.id.into(),
        format!("brand:{}", wanted.topic.brand_id).into(),
        format!("topic:{}", wanted.topic.id).into(),
    ];
    values.extend(wanted.people.iter().map(|hash| Value::from(hash.0.clone())));
    Statement::from_sql_and_values(backend, sql, values)
}

fn to_facts(row: &QueryResult) -> Result<Facts, DbErr> {
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
