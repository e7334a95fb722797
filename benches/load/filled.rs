//! Which tables a run filled, and how long PostgreSQL itself takes to fill their like.
//!
//! It reads the schema that is there, so that it stays true when the schema changes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Outcome;
use super::postgres::Postgres;

/// How many rows each table of a database has.
pub(crate) fn counts(server: &Postgres, database: &str) -> Outcome<BTreeMap<String, u64>> {
    let tables = server.psql(
        database,
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition
           AND relnamespace = 'public'::regnamespace",
    )?;
    let mut counts = BTreeMap::new();
    for table in tables.lines() {
        let count = server.psql(database, &format!("SELECT count(*) FROM \"{table}\""))?;
        counts.insert(table.to_owned(), count.trim().parse()?);
    }
    Ok(counts)
}

/// The tables that have at least so many rows more than before.
pub(crate) fn filled(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
    rows: u64,
) -> Vec<String> {
    let grown = |(table, count): (&String, &u64)| count - before.get(table).copied().unwrap_or(0).min(*count);
    after.iter().filter(|entry| grown(*entry) >= rows).map(|(table, _)| table.clone()).collect()
}

/// Makes an empty table like this one, with its defaults, checks, indexes and foreign keys, and returns its name.
fn like(server: &Postgres, database: &str, table: &str) -> Outcome<String> {
    let name = format!("like_{table}");
    server.psql(
        database,
        &format!("DROP TABLE IF EXISTS {name};\nCREATE TABLE {name} (LIKE \"{table}\" INCLUDING ALL)"),
    )?;
    let keys = server.psql(
        database,
        &format!(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f' AND conrelid = '{table}'::regclass"
        ),
    )?;
    for key in keys.lines() {
        server.psql(database, &format!("ALTER TABLE {name} ADD {key}"))?;
    }
    Ok(name)
}

/// The columns that can be written.
fn columns(server: &Postgres, database: &str, table: &str) -> Outcome<String> {
    let columns = server.psql(
        database,
        &format!(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
              WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
        ),
    )?;
    Ok(columns.trim().to_owned())
}

/// How long `INSERT ... SELECT` takes, in one transaction, to fill the like of these tables with the very rows that stand
/// in them.
pub(crate) fn inserted(server: &Postgres, database: &str, tables: &[String]) -> Outcome<Duration> {
    let mut took = Duration::ZERO;
    for table in tables {
        let name = like(server, database, table)?;
        let columns = columns(server, database, table)?;
        server.psql(database, "CHECKPOINT")?;
        took += server.timed(
            database,
            &format!(
                "INSERT INTO {name} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM \"{table}\""
            ),
        )?;
        server.psql(database, &format!("DROP TABLE {name}"))?;
    }
    Ok(took)
}

/// How long psql's `\copy` takes to fill the like of these tables with the very rows that stand in them.
pub(crate) fn copied(server: &Postgres, database: &str, tables: &[String]) -> Outcome<Duration> {
    let mut took = Duration::ZERO;
    for table in tables {
        let name = like(server, database, table)?;
        let columns = columns(server, database, table)?;
        let file = server.folder().join("rows.copy");
        server.psql(database, &format!("\\copy \"{table}\" ({columns}) TO '{}'", file.display()))?;
        server.psql(database, "CHECKPOINT")?;
        took += server.timed(database, &format!("\\copy {name} ({columns}) FROM '{}'", file.display()))?;
        std::fs::remove_file(file)?;
        server.psql(database, &format!("DROP TABLE {name}"))?;
    }
    Ok(took)
}
