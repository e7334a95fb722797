//! Limits that hold over all workers: what was used of each, who waits for which, who may have how many connections.

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
        if postgres {
            db.execute_unprepared(POSTGRES).await?;
        }
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

const SCHEMA: &str = "
-- The lane and the limit for whose room a delivery waits, until it is called up or its time comes anyway.
ALTER TABLE queue ADD COLUMN aside text;
CREATE INDEX queue_aside ON queue (aside, due_at, delivery_id) WHERE aside IS NOT NULL;

-- What was used of a limit, as JSON; until when what a destination said is heeded; when it is looked at next, if permits
-- are open or anybody waits.
CREATE TABLE limits (
    name text NOT NULL PRIMARY KEY,
    book text NOT NULL,
    heed_until bigint,
    feed_at bigint,
    forget_at bigint NOT NULL
);
CREATE INDEX limits_heeded ON limits (heed_until) WHERE heed_until IS NOT NULL;
CREATE INDEX limits_feeding ON limits (feed_at) WHERE feed_at IS NOT NULL;
CREATE INDEX limits_forgotten ON limits (forget_at);

-- The right of one delivery, under one claim, to use of a limit. It ends when the queue does not show that claim any more.
CREATE TABLE permits (
    limit_name text NOT NULL,
    delivery_id {uuid} NOT NULL,
    token {uuid} NOT NULL,
    PRIMARY KEY (limit_name, delivery_id)
);

-- The limit that a campaign sets itself.
CREATE TABLE content_limits (
    content_id {uuid} NOT NULL PRIMARY KEY REFERENCES contents (id) ON DELETE CASCADE,
    messages bigint,
    per_seconds bigint,
    connections bigint
);

-- How many connections to the relay a worker process may have, and how many it could use.
CREATE TABLE relay_shares (
    process {uuid} NOT NULL PRIMARY KEY,
    connections bigint NOT NULL,
    wanted bigint NOT NULL,
    lease_until bigint NOT NULL
);
";

// Small tables whose rows change all the time: vacuums come by number of rows.
const POSTGRES: &str = "
ALTER TABLE limits SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0);
ALTER TABLE permits SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);
";
