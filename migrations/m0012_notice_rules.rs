//! The rules under which a notice was published: what the policy says later changes nothing about it.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        db.execute_unprepared(
            "ALTER TABLE notices ADD COLUMN on_silence text NOT NULL DEFAULT 'earlier_version_stands'",
        )
        .await?;
        db.execute_unprepared(
            "ALTER TABLE notices ADD COLUMN on_untold text NOT NULL DEFAULT 'takes_effect'",
        )
        .await?;
        db.execute_unprepared(
            "UPDATE notices SET on_silence = (SELECT p.on_silence FROM policies p WHERE p.id = notices.policy_id), \
             on_untold = (SELECT p.on_untold FROM policies p WHERE p.id = notices.policy_id)",
        )
        .await?;
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
