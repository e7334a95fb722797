//! What a brand's own pages show of changes, and which policies concern a person.

use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, QueryFilter, Statement};

use super::TELLING;
use crate::clock::Timestamp;
use crate::db::{Db, Kind, List};
use crate::id::{BrandId, VersionId};
use crate::policy::rows::{Policy, Text, text};
use crate::policy::{Approval, Change};
use crate::recipient::rows::Recipient;

/// Most changes shown at a time.
const MOST: u64 = 50;

/// A change that is shown now.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Shown {
    /// The slug of the policy.
    pub slug: String,
    /// The language of the policy's own texts.
    pub language: String,
    /// Where on the brand's pages it is shown: an array of words.
    pub placements: sea_orm::JsonValue,
    /// The version.
    pub version_id: VersionId,
    /// Its number.
    pub number: i64,
    /// How it changes the policy.
    pub change: Change,
    /// Whether it holds only for those who approve.
    pub approval: Approval,
    /// Whether it brings a use that people can refuse.
    pub new_use: bool,
    /// When everyone could read it.
    pub published_at: Timestamp,
    /// From when it holds.
    pub effective_at: Timestamp,
    /// By how many minutes the clock is ahead of UTC by which that was named.
    pub effective_offset: i64,
}

/// What people are told of a version in one language.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Telling {
    /// The version.
    pub version_id: VersionId,
    /// The language tag.
    pub language: String,
    /// What changes, in plain words.
    pub summary: String,
}

/// The changes of a brand's policies that are shown now: from their publication until as many days after they took effect
/// as the policy says. Baselines change nothing and are left out, and so is what was withdrawn.
///
/// # Errors
/// The database's own.
pub async fn shown(on: &impl ConnectionTrait, db: &Db, brand: BrandId) -> Result<Vec<Shown>, DbErr> {
    let effective = "COALESCE(n.effective_at, v.effective_at, v.published_at)";
    let sql = format!(
        "SELECT p.slug, p.language, p.placements, v.id AS version_id, v.number, v.change, v.approval, \
         v.use_topic_id IS NOT NULL AS new_use, v.published_at, v.effective_offset, \
         {effective} AS effective_at \
         FROM policies p JOIN policy_versions v ON v.policy_id = p.id LEFT JOIN notices n ON n.version_id = v.id \
         WHERE p.brand_id = $1 AND v.state = 'published' AND (n.state IS NULL OR n.state <> 'withdrawn') \
         AND v.published_at IS NOT NULL AND {effective} + p.banner_days_after * 86400000000 > {} \
         AND EXISTS (SELECT 1 FROM policy_versions e \
             WHERE e.policy_id = v.policy_id AND e.number < v.number AND e.state = 'published') \
         ORDER BY effective_at, p.slug, v.number LIMIT {MOST}",
        db.now_sql()
    );
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, [brand.0.into()]);
    Shown::find_by_statement(statement).all(on).await
}

/// The texts of these versions.
///
/// # Errors
/// The database's own.
pub async fn texts(on: &impl ConnectionTrait, versions: &[VersionId]) -> Result<Vec<Text>, DbErr> {
    text::Entity::find().filter(text::Column::VersionId.is_in(versions.iter().copied())).all(on).await
}

/// What people are told of these versions, by the newest round that tells of the change.
///
/// # Errors
/// The database's own.
pub async fn tellings(on: &impl ConnectionTrait, versions: &[VersionId]) -> Result<Vec<Telling>, DbErr> {
    if versions.is_empty() {
        return Ok(Vec::new());
    }
    let backend = on.get_database_backend();
    let mut values = Vec::new();
    let list = List::of("id", Kind::Uuid, versions.iter().map(|version| version.0));
    let list = list.relation(backend, "l", &mut values);
    let sql = format!(
        "SELECT n.version_id, t.language, t.summary FROM {list} JOIN notices n ON n.version_id = l.id \
         JOIN notice_rounds r ON r.notice_id = n.id JOIN notice_texts t ON t.round_id = r.id \
         WHERE r.kind IN {TELLING} AND NOT EXISTS (SELECT 1 FROM notice_rounds m \
             WHERE m.notice_id = n.id AND m.number > r.number AND m.kind IN {TELLING})"
    );
    Telling::find_by_statement(Statement::from_sql_and_values(backend, sql, values)).all(on).await
}

/// The policies of the brands that a person belongs to, each with the slug of its brand, by slug; those of one brand alone
/// where one is named.
///
/// # Errors
/// The database's own.
pub async fn policies_for(
    on: &impl ConnectionTrait,
    person: &Recipient,
    only: Option<BrandId>,
    after: Option<&str>,
    limit: u64,
) -> Result<Vec<(Policy, String)>, DbErr> {
    let mut values: Vec<sea_orm::Value> = vec![person.id.0.into(), person.every_brand.into()];
    let mut more = String::new();
    if let Some(only) = only {
        values.push(only.0.into());
        more += &format!(" AND p.brand_id = ${}", values.len());
    }
    if let Some(after) = after {
        values.push(after.into());
        more += &format!(" AND p.slug > ${}", values.len());
    }
    let sql = format!(
        "SELECT p.*, b.slug AS brand_slug FROM policies p JOIN brands b ON b.id = p.brand_id \
         WHERE ($2 OR EXISTS (SELECT 1 FROM recipient_brands t \
             WHERE t.recipient_id = $1 AND t.brand_id = p.brand_id AND t.belongs)){more} ORDER BY p.slug LIMIT {limit}"
    );
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, values);
    let rows = on.query_all_raw(statement).await?;
    rows.iter().map(|row| Ok((Policy::from_query_result(row, "")?, row.try_get("", "brand_slug")?))).collect()
}
