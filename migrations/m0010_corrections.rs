//! What people are told of a version now, where that is not what it says itself; why they are told so, in each language; and
//! what a later round says to those who heard nothing of the earlier ones.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseBackend};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let uuid = if db.get_database_backend() == DatabaseBackend::Postgres { "uuid" } else { "blob" };
        db.execute_unprepared(&SCHEMA.replace("{uuid}", uuid)).await?;
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

const SCHEMA: &str = "
-- The newest words on what changes with a version, in one language, and since when they are the ones that count. What the
-- version itself says stays in `policy_texts`.
CREATE TABLE policy_corrections (
    version_id {uuid} NOT NULL REFERENCES policy_versions (id),
    language text NOT NULL,
    summary text NOT NULL,
    corrected_at bigint NOT NULL,
    PRIMARY KEY (version_id, language)
);
-- What was corrected before there was a place for it.
INSERT INTO policy_corrections (version_id, language, summary, corrected_at)
    SELECT n.version_id, t.language, t.summary, r.created_at
    FROM notices n JOIN notice_rounds r ON r.notice_id = n.id JOIN notice_texts t ON t.round_id = r.id
    JOIN policy_texts p ON p.version_id = n.version_id AND p.language = t.language AND p.summary <> t.summary
    WHERE r.kind = 'correction' AND NOT EXISTS (SELECT 1 FROM notice_rounds l
        WHERE l.notice_id = n.id AND l.kind = 'correction' AND l.number > r.number);

-- Why people are told again, in the language of the text.
ALTER TABLE notice_texts ADD COLUMN reason text;
-- What the deliveries of those point to who heard nothing of the rounds before: to them it is the first word of the change.
ALTER TABLE notice_texts ADD COLUMN newcomer_content_id {uuid} REFERENCES contents (id);
CREATE UNIQUE INDEX notice_texts_newcomer ON notice_texts (newcomer_content_id) WHERE newcomer_content_id IS NOT NULL;
";
