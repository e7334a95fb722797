//! Room for the versions that settling leaves, and an index for events that are undone, in databases that were migrated
//! before `m0003` had them. Elsewhere this changes nothing.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseBackend};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        db.execute_unprepared(UNDONE).await?;
        if db.get_database_backend() == DatabaseBackend::Postgres {
            db.execute_unprepared(ROOM).await?;
        }
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

// Whoever adds several events by one statement asks whether one of them is undone.
const UNDONE: &str =
    "CREATE INDEX IF NOT EXISTS opt_events_undone ON opt_events (undoes) WHERE undoes IS NOT NULL";

// Each row is written once more when it is settled, and longer: a quarter of a page was too little for all of them.
const ROOM: &str = "ALTER TABLE deliveries SET (fillfactor = 60)";
