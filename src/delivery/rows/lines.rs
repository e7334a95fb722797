//! Who waits for which limit, and how much of each was used, for whoever looks ahead.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, DbErr, Statement};

use super::Lane;
use super::limits::{line_of, name_list, row_of};
use crate::delivery::limit::{Book, Name};
use crate::id::ContentId;
use crate::recipient::rows::{by_domain, domain_of};

/// What is remembered of these limits; nothing of those that nobody has used lately.
///
/// # Errors
/// The database's own.
pub async fn books(
    on: &impl ConnectionTrait,
    names: impl IntoIterator<Item = &Name>,
) -> Result<HashMap<Name, Book>, DbErr> {
    let mut values = Vec::new();
    let relation = name_list(names).relation(on.get_database_backend(), "n", &mut values);
    let sql = format!("SELECT l.name, l.book, l.feed_at FROM {relation} JOIN limits l ON l.name = n.name");
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, values);
    let rows = on.query_all_raw(statement).await?;
    rows.iter().map(|row| row_of(row).map(|(name, (book, _))| (name, book))).collect()
}

/// How many messages of the service side wait in the lines of domains, by the name of the limit.
///
/// # Errors
/// The database's own.
pub async fn in_lines(on: &impl ConnectionTrait) -> Result<HashMap<String, u64>, DbErr> {
    let before = line_of(&Name::Domain(String::new()), Lane::ServiceSide);
    let sql = "SELECT aside, COUNT(*) AS n FROM queue WHERE aside IS NOT NULL GROUP BY aside";
    let rows = on.query_all_raw(Statement::from_string(on.get_database_backend(), sql)).await?;
    let mut found = HashMap::new();
    for row in rows {
        let line: String = row.try_get("", "aside")?;
        if let Some(name) = line.strip_prefix(&before) {
            found.insert(name.to_owned(), u64::try_from(row.try_get::<i64>("", "n")?).unwrap_or(0));
        }
    }
    Ok(found)
}

/// To which domains the next `limit` messages of a content go that wait in no domain's line, and how many to each.
///
/// # Errors
/// The database's own.
pub async fn next_by_domain(
    on: &impl ConnectionTrait,
    content: ContentId,
    limit: u64,
) -> Result<HashMap<String, u64>, DbErr> {
    let backend = on.get_database_backend();
    let sql = format!(
        "SELECT {} AS domain, COUNT(*) AS n FROM (SELECT delivery_id FROM queue WHERE content_id = $1 \
         AND (aside IS NULL OR aside = $2) ORDER BY due_at, delivery_id LIMIT {limit}) AS q \
         JOIN deliveries d ON d.id = q.delivery_id JOIN recipients r ON r.id = d.recipient_id \
         WHERE r.folded IS NOT NULL GROUP BY 1",
        domain_of(backend, "r.folded")
    );
    let line = line_of(&Name::Relay, Lane::ServiceSide);
    by_domain(on, Statement::from_sql_and_values(backend, sql, [content.0.into(), line.into()])).await
}
