//! Messages that came back after the relay had taken them over.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseBackend};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let postgres = db.get_database_backend() == DatabaseBackend::Postgres;
        let uuid = if postgres { "uuid" } else { "blob" };
        db.execute_unprepared(&SCHEMA.replace("{uuid}", uuid)).await?;
        db.execute_unprepared(if postgres { DUE_ON_POSTGRES } else { DUE_ON_SQLITE }).await?;
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

const SCHEMA: &str = "
-- The first bounce of a delivery; its words name nobody. `mailing_id` is that of the delivery.
CREATE TABLE bounces (
    delivery_id {uuid} PRIMARY KEY REFERENCES deliveries (id),
    mailing_id {uuid},
    at bigint NOT NULL,
    status text,
    words text,
    permanent boolean NOT NULL,
    mailbox_gone boolean NOT NULL
);
CREATE INDEX bounces_mailing ON bounces (mailing_id, delivery_id) WHERE mailing_id IS NOT NULL;
-- Whether it is due because it came to its end; otherwise its end is in evidence, and its bounce is not.
ALTER TABLE evidence_due ADD COLUMN ended boolean NOT NULL DEFAULT TRUE;
";

// A bounce of a notice is due for evidence in the same transaction. One that comes before the delivery's own end is
// recorded with that. What is due already is locked, so that nobody records it without the bounce.
const DUE_ON_SQLITE: &str = "
CREATE TRIGGER bounces_evidence_due AFTER INSERT ON bounces WHEN NEW.mailing_id IS NOT NULL
BEGIN
    INSERT INTO evidence_due (mailing_id, delivery_id, ended)
        SELECT NEW.mailing_id, NEW.delivery_id, FALSE
        WHERE EXISTS (SELECT 1 FROM notice_rounds r WHERE r.id = NEW.mailing_id)
        AND EXISTS (SELECT 1 FROM deliveries d WHERE d.id = NEW.delivery_id AND d.state <> 'open')
        ON CONFLICT (mailing_id, delivery_id) DO UPDATE SET ended = evidence_due.ended;
END;
";
const DUE_ON_POSTGRES: &str = "
CREATE FUNCTION note_bounce_due() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO evidence_due (mailing_id, delivery_id, ended)
        SELECT NEW.mailing_id, NEW.delivery_id, FALSE
        WHERE EXISTS (SELECT 1 FROM notice_rounds r WHERE r.id = NEW.mailing_id)
        AND EXISTS (SELECT 1 FROM deliveries d WHERE d.id = NEW.delivery_id AND d.state <> 'open')
        ON CONFLICT (mailing_id, delivery_id) DO UPDATE SET ended = evidence_due.ended;
    RETURN NULL;
END $$;
CREATE TRIGGER bounces_evidence_due AFTER INSERT ON bounces FOR EACH ROW WHEN (NEW.mailing_id IS NOT NULL)
EXECUTE FUNCTION note_bounce_due();
";
