//! Logos that Tidings serves itself.
//!
//! A row is an image under the name in its URL, which says what it holds; it is never changed or deleted, since mail that
//! was sent long ago still shows it. Until now a brand's logo was a URL of elsewhere, from which no page may load
//! anything: such a brand has none from here on.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseBackend};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let bytes = if db.get_database_backend() == DatabaseBackend::Postgres { "bytea" } else { "blob" };
        db.execute_unprepared(&SCHEMA.replace("{bytes}", bytes)).await?;
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

const SCHEMA: &str = "
CREATE TABLE logos (
    name text PRIMARY KEY,
    octets {bytes} NOT NULL,
    created_at bigint NOT NULL
);

UPDATE brands SET logo = NULL;
";
