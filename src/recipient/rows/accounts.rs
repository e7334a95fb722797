//! Whom a notice is for, asked of the database: everyone of a brand but those who accepted the version at sign-up, those
//! whose account is deactivated and the erased, each in the language that they read.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, FromQueryResult, QueryResult, Statement, Value};

use super::audience::{Selection, from};
use crate::clock::{Timestamp, micros};
use crate::db::Db;
use crate::id::{BrandId, RecipientId};
use crate::language::{are_kin, primary};

/// How old a transaction may be that still adds people, at most: longer than any of ours can take.
const OLDEST: std::time::Duration = std::time::Duration::from_secs(600);

/// Which of the people are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Those with ids after the first and up to the second.
    Ids(Option<RecipientId>, Option<RecipientId>),
    /// Those about whom something changed after the first moment and up to the second.
    Changed(Timestamp, Timestamp),
}

/// The language in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told<'t> {
    /// The tag (RFC 5646) of the text.
    pub tag: &'t str,
    /// The tag of the text for whoever reads none of the others.
    pub default: &'t str,
    /// The tags of all texts.
    pub all: &'t [&'t str],
}

/// Whom a notice is for.
#[derive(Clone, Copy, Debug)]
pub struct Accounts<'a> {
    /// Whose people.
    pub brand: BrandId,
    /// The slug of the policy, the number of the version and that of the newest one: who accepted one from that on, which
    /// has to be there, is told of nothing.
    pub accepted: (&'a str, i64, i64),
    /// Which of them.
    pub span: Span,
    /// Those who joined the brand before this moment.
    pub joined_before: Option<Timestamp>,
    /// Those for whom the version of this number, which holds since this moment, holds though they were not asked about it:
    /// they accepted it, or one after it, or joined the brand when it held already.
    pub bound_by: Option<(i64, Timestamp)>,
}

impl Accounts<'_> {
    /// Those of them who are told in this language; of everyone, where none is named.
    pub fn selection(&self, backend: DbBackend, told: Option<Told<'_>>) -> Selection {
        let mut asked = Asked { postgres: backend == DbBackend::Postgres, values: Vec::new() };
        let brand = asked.bind(self.brand.0);
        let mut tie = format!("b.brand_id = {brand} AND b.recipient_id = r.id");
        let mut conditions = match self.span {
            Span::Ids(after, upto) => {
                let after = asked.bind(from(after));
                let upto = asked.bind(upto.map_or(uuid::Uuid::max(), |upto| upto.0));
                // The ties are bounded as the people are: no step reads those of all.
                tie += &format!(" AND b.recipient_id > {after} AND b.recipient_id <= {upto}");
                vec![format!("r.id > {after} AND r.id <= {upto}")]
            }
            Span::Changed(after, upto) => {
                let (after, upto) = (asked.bind(after.0), asked.bind(upto.0));
                vec![format!("r.updated_at > {after} AND r.updated_at <= {upto}")]
            }
        };
        conditions.push("r.standing NOT IN ('erased', 'deactivated')".to_owned());
        conditions.push("(r.every_brand OR b.belongs)".to_owned());
        conditions.push(asked.not_accepted(self.accepted));
        if let Some(before) = self.joined_before {
            conditions.push(asked.joined_before(before));
        }
        if let Some((number, since)) = self.bound_by {
            let (policy, _, newest) = self.accepted;
            let not_accepted = asked.not_accepted((policy, number, newest));
            // Whoever is known to have accepted an earlier version only was here before, whenever they were stored.
            let (none, before) = (asked.not_accepted((policy, 1, newest)), asked.joined_before(since));
            conditions.push(format!("(NOT {not_accepted} OR {none} AND NOT {before})"));
        }
        if let Some(told) = told {
            conditions.push(asked.told(told));
        }
        let sql = format!(
            "SELECT r.id, r.address_hash FROM recipients r LEFT JOIN recipient_brands b ON {tie} WHERE {}",
            conditions.join(" AND ")
        );
        Selection { sql, values: asked.values }
    }
}

/// How many they are.
///
/// # Errors
/// The database's own.
pub async fn count_accounts(on: &impl ConnectionTrait, accounts: &Accounts<'_>) -> Result<u64, DbErr> {
    let backend = on.get_database_backend();
    let Selection { sql, values } = accounts.selection(backend, None);
    let sql = format!("SELECT COUNT(*) AS n FROM ({sql}) AS people");
    let row = on.query_one_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    let n = row.map_or(Ok(0), |row| row.try_get::<i64>("", "n"))?;
    Ok(u64::try_from(n).unwrap_or(0))
}

/// How many they are at each mail domain, which takes a look at each of them as [`count_accounts`] does.
///
/// # Errors
/// The database's own.
pub async fn accounts_by_domain(
    on: &impl ConnectionTrait,
    accounts: &Accounts<'_>,
) -> Result<HashMap<String, u64>, DbErr> {
    let backend = on.get_database_backend();
    let Selection { sql, values } = accounts.selection(backend, None);
    let sql = format!(
        "SELECT {} AS domain, COUNT(*) AS n FROM ({sql}) AS people JOIN recipients p ON p.id = people.id \
         WHERE p.folded IS NOT NULL GROUP BY 1",
        domain_of(backend, "p.folded")
    );
    by_domain(on, Statement::from_sql_and_values(backend, sql, values)).await
}

/// The mail domain of a folded address, an A-label, as an expression.
pub fn domain_of(backend: DbBackend, folded: &str) -> String {
    match backend {
        DbBackend::Postgres => format!("split_part({folded}, '@', 2)"),
        _ => format!("substr({folded}, instr({folded}, '@') + 1)"),
    }
}

/// Reads rows of a domain and a number.
///
/// # Errors
/// The database's own.
pub async fn by_domain(
    on: &impl ConnectionTrait,
    statement: Statement,
) -> Result<HashMap<String, u64>, DbErr> {
    let rows = on.query_all_raw(statement).await?;
    let number = |row: &QueryResult| row.try_get::<i64>("", "n").map(|n| u64::try_from(n).unwrap_or(0));
    rows.iter().map(|row| Ok((row.try_get("", "domain")?, number(row)?))).collect()
}

/// Up to which moment at most some `size` people changed after `after`; none when there are fewer. People who changed at
/// one moment are never parted.
///
/// # Errors
/// The database's own.
pub async fn end_of_changes(
    on: &impl ConnectionTrait,
    after: Timestamp,
    size: u64,
) -> Result<Option<Timestamp>, DbErr> {
    let sql = format!(
        "SELECT updated_at FROM recipients WHERE updated_at > $1 ORDER BY updated_at LIMIT 1 OFFSET {}",
        size.saturating_sub(1)
    );
    let backend = on.get_database_backend();
    let row = on.query_one_raw(Statement::from_sql_and_values(backend, sql, [after.0.into()])).await?;
    row.map(|row| row.try_get("", "updated_at").map(Timestamp)).transpose()
}

#[derive(FromQueryResult)]
struct Age {
    micros: Option<i64>,
}

/// The moment up to which nobody's change can still be uncommitted, as of `now`: whoever looks at everything up to it
/// misses nobody. A change carries the time at which its transaction began.
///
/// # Errors
/// The database's own.
pub async fn settled_until(on: &impl ConnectionTrait, db: &Db, now: Timestamp) -> Result<Timestamp, DbErr> {
    if db.backend() != DbBackend::Postgres {
        // One writer at a time: whoever reads inside a writing transaction has everything before it.
        return Ok(now);
    }
    let sql = "SELECT CAST(EXTRACT(epoch FROM clock_timestamp() - MIN(xact_start)) * 1000000 AS bigint) AS micros \
        FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
        AND backend_type = 'client backend' AND xact_start IS NOT NULL";
    let statement = Statement::from_string(db.backend(), sql);
    let age = Age::find_by_statement(statement).one(on).await?.and_then(|age| age.micros);
    let age = age.unwrap_or(0).clamp(0, micros(OLDEST));
    Ok(Timestamp(now.0 - age))
}

/// How far before it began a look at changes has to start: what was uncommitted then began no earlier.
pub fn before_any_change(at: Timestamp) -> Timestamp {
    Timestamp(at.0 - micros(OLDEST))
}

struct Asked {
    postgres: bool,
    values: Vec<Value>,
}

impl Asked {
    fn bind(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    fn joined_before(&mut self, moment: Timestamp) -> String {
        let before = self.bind(moment.0);
        format!(
            "COALESCE(r.every_brand AND COALESCE(r.every_brand_since, r.created_at) < {before} \
             OR b.belongs AND COALESCE(b.joined_at, r.created_at) < {before}, FALSE)"
        )
    }

    fn not_accepted(&mut self, (policy, version, newest): (&str, i64, i64)) -> String {
        let (version, newest) = (self.bind(version), self.bind(newest));
        if self.postgres {
            let policy = self.bind(policy);
            return format!(
                "NOT COALESCE(CASE WHEN jsonb_typeof(r.policies -> CAST({policy} AS text)) = 'number' \
                 THEN CAST(r.policies ->> CAST({policy} AS text) AS numeric) BETWEEN {version} AND {newest} END, FALSE)"
            );
        }
        let path = self.bind(format!("$.\"{policy}\""));
        format!("NOT COALESCE(json_extract(r.policies, {path}) BETWEEN {version} AND {newest}, FALSE)")
    }

    fn told(&mut self, Told { tag, default, all }: Told<'_>) -> String {
        if tag != default {
            return self.reads(tag, default, all);
        }
        let others = all.iter().filter(|other| **other != default);
        let others: Vec<String> = others.map(|other| self.reads(other, default, all)).collect();
        if others.is_empty() { "TRUE".to_owned() } else { format!("NOT ({})", others.join(" OR ")) }
    }

    /// Whether of all these tags this one, which is not the default one, is nearest to the person's locale, as
    /// [`crate::language::nearest`] has it with the default one preferred.
    fn reads(&mut self, tag: &str, default: &str, all: &[&str]) -> String {
        let own = self.reads_itself(tag, all);
        let kin: Vec<&&str> = all.iter().filter(|other| are_kin(other, tag)).collect();
        if are_kin(default, tag) || kin.first() != Some(&&tag) {
            return own;
        }
        // The first of its kind is for all who read the language in a form that no text has.
        let in_none: Vec<String> = kin.into_iter().map(|other| self.in_language(other)).collect();
        let language = self.in_language(primary(tag));
        format!("({own} OR {language} AND NOT ({}))", in_none.join(" OR "))
    }

    /// Whether of all these tags this one is the longest that the person's locale begins with (RFC 4647 §3.4).
    fn reads_itself(&mut self, tag: &str, all: &[&str]) -> String {
        let longer = |other: &&&str| other.len() > tag.len() && begins(other, tag);
        let longer: Vec<String> = all.iter().filter(longer).map(|other| self.in_language(other)).collect();
        let own = self.in_language(tag);
        if longer.is_empty() { own } else { format!("({own} AND NOT ({}))", longer.join(" OR ")) }
    }

    fn in_language(&mut self, tag: &str) -> String {
        let range = self.bind(format!("{}-", tag.to_ascii_lowercase()));
        let locale = if self.postgres { "r.locale COLLATE \"C\"" } else { "r.locale" };
        format!(
            "COALESCE(substr(replace(lower({locale}), '_', '-') || '-', 1, length({range})) = {range}, FALSE)"
        )
    }
}

fn begins(longer: &str, tag: &str) -> bool {
    longer.len() > tag.len()
        && longer.as_bytes()[..tag.len()].eq_ignore_ascii_case(tag.as_bytes())
        && longer.as_bytes()[tag.len()] == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_reads_exactly_one_of_the_texts() {
        let all = ["en", "de", "de-AT", "pt-BR"];
        let accounts = Accounts {
            brand: BrandId::new(),
            accepted: ("privacy", 2, 2),
            span: Span::Ids(None, None),
            joined_before: None,
            bound_by: None,
        };
        let of = |tag| {
            let told = Told { tag, default: "en", all: &all };
            accounts.selection(DbBackend::Sqlite, Some(told)).sql
        };
        assert!(of("de").contains("AND NOT (COALESCE(substr("));
        assert!(!of("de-AT").contains("AND NOT (COALESCE(substr("));
        assert!(of("en").contains("AND NOT ("));
    }
}
