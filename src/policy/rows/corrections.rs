//! What people are told of a version now, where what it said of itself was wrong. The version stays as it was published.

use std::collections::BTreeMap;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveValue, ConnectionTrait};

use crate::clock::Timestamp;
use crate::db::Write;
use crate::id::VersionId;

/// The newest words on what changes, as stored.
pub type Correction = correction::Model;

/// The table of corrections.
pub mod correction {
    use super::*;

    /// What changes with a version, in one language, as people are told now.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "policy_corrections")]
    pub struct Model {
        /// Of which version.
        #[sea_orm(primary_key, auto_increment = false)]
        pub version_id: VersionId,
        /// The language tag (RFC 5646).
        #[sea_orm(primary_key, auto_increment = false)]
        pub language: String,
        /// What changes, in plain words.
        pub summary: String,
        /// Since when these words are the ones that count.
        pub corrected_at: Timestamp,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Keeps what people are told of a version from now on, by language. A language that is not named keeps what it says.
///
/// # Errors
/// The database's own.
pub async fn correct(
    txn: &Write,
    version: VersionId,
    summaries: &BTreeMap<String, String>,
    now: Timestamp,
) -> Result<(), DbErr> {
    for (language, summary) in summaries {
        let row = correction::ActiveModel {
            version_id: ActiveValue::Set(version),
            language: ActiveValue::Set(language.clone()),
            summary: ActiveValue::Set(summary.clone()),
            corrected_at: ActiveValue::Set(now),
        };
        let key = [correction::Column::VersionId, correction::Column::Language];
        let newest = [correction::Column::Summary, correction::Column::CorrectedAt];
        correction::Entity::insert(row)
            .on_conflict(OnConflict::columns(key).update_columns(newest).to_owned())
            .exec_without_returning(&**txn)
            .await?;
    }
    Ok(())
}

/// What was corrected of these versions.
///
/// # Errors
/// The database's own.
pub async fn corrections(
    on: &impl ConnectionTrait,
    versions: &[VersionId],
) -> Result<Vec<Correction>, DbErr> {
    let of_them = correction::Column::VersionId.is_in(versions.iter().copied());
    correction::Entity::find().filter(of_them).all(on).await
}
