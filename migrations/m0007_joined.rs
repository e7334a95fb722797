//! Since when people belong to a brand, where that is later than their account.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        // Without a moment they belong to it for as long as they are known.
        db.execute_unprepared("ALTER TABLE recipients ADD COLUMN every_brand_since bigint").await?;
        db.execute_unprepared("ALTER TABLE recipient_brands ADD COLUMN joined_at bigint").await?;
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
