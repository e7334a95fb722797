//! Answers by version, so that they can be compared with the evidence; and a seal on the head of each chain.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseBackend};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let postgres = db.get_database_backend() == DatabaseBackend::Postgres;
        let bytes = if postgres { "bytea" } else { "blob" };
        db.execute_unprepared("CREATE INDEX approvals_version ON approvals (version_id, id)").await?;
        db.execute_unprepared(&format!("ALTER TABLE evidence_heads ADD COLUMN seal {bytes}")).await?;
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
