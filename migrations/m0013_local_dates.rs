//! By which clock the date of a version was named: minutes east of UTC, for the day that people read.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        // The first one moves with the date; the second one stays, for what happened to the version.
        for column in ["effective_offset", "named_offset"] {
            let sql = format!("ALTER TABLE policy_versions ADD COLUMN {column} bigint NOT NULL DEFAULT 0");
            db.execute_unprepared(&sql).await?;
        }
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
