//! What is unfinished leaves the record: a narrow queue, leases by claim, doubts, and counts that are kept.
//!
//! `deliveries` stays one row a message from the first moment to the last, but is written only when it is made and when
//! an attempt ends; no index of it covers what then changes, so PostgreSQL updates it in place. Claims and
//! begins touch `queue` alone, where no index covers what they change either.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseBackend};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let postgres = db.get_database_backend() == DatabaseBackend::Postgres;
        let (uuid, bytes, json, narrow, now) = if postgres {
            ("uuid", "bytea", "jsonb", "", "CAST(extract(epoch FROM now()) * 1000000 AS bigint)")
        } else {
            ("blob", "blob", "text", "WITHOUT ROWID", "CAST(unixepoch('subsec') * 1000000 AS INTEGER)")
        };
        let sql = SCHEMA
            .replace("{uuid}", uuid)
            .replace("{bytes}", bytes)
            .replace("{json}", json)
            .replace("{narrow}", narrow)
            .replace("{now}", now);
        db.execute_unprepared(&sql).await?;
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
DROP INDEX deliveries_once;
DROP INDEX deliveries_due;
DROP INDEX deliveries_expiring;
DROP INDEX deliveries_leased;
DROP INDEX deliveries_person;
DROP INDEX deliveries_recipient;
DROP INDEX deliveries_mailing;
ALTER TABLE deliveries RENAME TO deliveries_before;
ALTER TABLE attempts RENAME TO attempts_before;

-- Whether something of a content is unfinished, and in which lane, so that a claim looks at those alone.
ALTER TABLE contents ADD COLUMN lane smallint NOT NULL DEFAULT 1 CHECK (lane IN (0, 1));
ALTER TABLE contents ADD COLUMN active boolean NOT NULL DEFAULT FALSE;
CREATE INDEX contents_active ON contents (lane, id) WHERE active;

-- One row a message to one person, from the first moment to the last. While it is 'open' the queue knows more.
-- `unsent` repeats a final state other than 'sent': the index over it is left alone by what goes well.
CREATE TABLE deliveries (
    id {uuid} PRIMARY KEY,
    content_id {uuid} NOT NULL REFERENCES contents (id),
    mailing_id {uuid},
    brand_id {uuid} NOT NULL REFERENCES brands (id),
    topic_id {uuid} NOT NULL REFERENCES topics (id),
    class text NOT NULL,
    recipient_id {uuid} NOT NULL REFERENCES recipients (id),
    address_hash {bytes} NOT NULL,
    data {json},
    state text NOT NULL CHECK (state IN ('open', 'sent', 'suppressed', 'failed', 'unknown', 'expired', 'cancelled')),
    unsent text,
    reason text,
    not_after bigint,
    dated_at bigint,
    doubted boolean NOT NULL,
    attempts bigint NOT NULL,
    created_at bigint NOT NULL,
    settled_at bigint,
    begun_at bigint,
    ended_at bigint,
    outcome text,
    phase text,
    code bigint,
    enhanced text,
    reply text,
    CHECK ((unsent IS NULL) = (state IN ('open', 'sent'))),
    CHECK (unsent IS NULL OR unsent = state)
);
INSERT INTO deliveries (id, content_id, mailing_id, brand_id, topic_id, class, recipient_id, address_hash, data, state,
        unsent, reason, not_after, dated_at, doubted, attempts, created_at, settled_at)
    SELECT id, content_id, mailing_id, brand_id, topic_id, class, recipient_id, address_hash, data,
        CASE WHEN state = 'queued' THEN 'open'
             WHEN state <> 'sending' THEN state
             WHEN begun AND lane = 1 THEN 'unknown'
             ELSE 'open' END,
        CASE WHEN state IN ('queued', 'sent') THEN NULL
             WHEN state <> 'sending' THEN state
             WHEN begun AND lane = 1 THEN 'unknown'
             ELSE NULL END,
        CASE WHEN begun THEN 'lease_lost' ELSE reason END,
        not_after, first_begun_at, doubted OR begun, attempts, created_at,
        CASE WHEN begun AND lane = 1 THEN {now} ELSE settled_at END
    FROM deliveries_before ORDER BY id;
-- A campaign or notice reaches a person once; a single message has no mailing.
CREATE UNIQUE INDEX deliveries_once ON deliveries (mailing_id, recipient_id) WHERE mailing_id IS NOT NULL;
CREATE INDEX deliveries_recipient ON deliveries (recipient_id, id);
CREATE INDEX deliveries_mailing ON deliveries (mailing_id, id) WHERE mailing_id IS NOT NULL;
CREATE INDEX deliveries_unsent ON deliveries (mailing_id, unsent, id) WHERE unsent IS NOT NULL;

-- Attempts after which the delivery was tried again, and those made before deliveries kept their last one themselves.
CREATE TABLE attempts (
    id {uuid} PRIMARY KEY,
    delivery_id {uuid} NOT NULL REFERENCES deliveries (id),
    token {uuid} NOT NULL,
    begun_at bigint NOT NULL,
    ended_at bigint,
    outcome text,
    phase text,
    code bigint,
    enhanced text,
    reply text,
    UNIQUE (delivery_id, token)
);
INSERT INTO attempts SELECT id, delivery_id, token, begun_at, ended_at, outcome, phase, code, enhanced, reply
    FROM attempts_before;

-- What is unfinished: queued while it has no token, else sending.
CREATE TABLE queue (
    delivery_id {uuid} NOT NULL PRIMARY KEY,
    content_id {uuid} NOT NULL,
    brand_id {uuid} NOT NULL,
    topic_id {uuid} NOT NULL,
    class text NOT NULL,
    address_hash {bytes} NOT NULL,
    due_at bigint NOT NULL,
    not_after bigint,
    token {uuid},
    begun boolean NOT NULL DEFAULT FALSE,
    begun_at bigint,
    dated_at bigint,
    CHECK (NOT begun OR token IS NOT NULL)
) {narrow};
INSERT INTO queue (delivery_id, content_id, brand_id, topic_id, class, address_hash, due_at, not_after)
    SELECT d.id, d.content_id, d.brand_id, d.topic_id, d.class, d.address_hash, b.due_at, d.not_after
    FROM deliveries d JOIN deliveries_before b ON b.id = d.id WHERE d.state = 'open' ORDER BY d.id;
CREATE INDEX queue_due ON queue (content_id, due_at, delivery_id);
CREATE INDEX queue_person ON queue (address_hash);
CREATE INDEX queue_expiring ON queue (not_after) WHERE not_after IS NOT NULL;

-- A claim: its token, when it ends unless renewed, and what it took (16 octets an id).
CREATE TABLE leases (
    token {uuid} NOT NULL PRIMARY KEY,
    lease_until bigint NOT NULL,
    ids {bytes} NOT NULL
);
CREATE INDEX leases_ending ON leases (lease_until);

-- Hand-overs whose outcome is unknown, until the relay must have hung up on a silent peer.
CREATE TABLE doubts (
    delivery_id {uuid} NOT NULL PRIMARY KEY,
    brand_id {uuid} NOT NULL,
    topic_id {uuid} NOT NULL,
    class text NOT NULL,
    address_hash {bytes} NOT NULL,
    until bigint NOT NULL
);
INSERT INTO doubts SELECT id, brand_id, topic_id, class, address_hash,
        CASE WHEN begun THEN {now} + 360000000 ELSE doubt_until END
    FROM deliveries_before WHERE begun OR doubt_until > {now};
CREATE INDEX doubts_person ON doubts (address_hash);
CREATE INDEX doubts_ending ON doubts (until);

-- How many deliveries of a content are in which state; the sum over the shards counts.
CREATE TABLE tally (
    content_id {uuid} NOT NULL REFERENCES contents (id),
    shard integer NOT NULL,
    state text NOT NULL,
    reason text NOT NULL,
    n bigint NOT NULL,
    PRIMARY KEY (content_id, shard, state, reason)
);
INSERT INTO tally SELECT content_id, 0, CASE WHEN state = 'open' THEN 'queued' ELSE state END AS word,
        CASE WHEN state = 'suppressed' THEN COALESCE(reason, '') ELSE '' END AS why, COUNT(*)
    FROM deliveries GROUP BY content_id, word, why;
UPDATE contents SET active = TRUE WHERE id IN (SELECT content_id FROM queue);
UPDATE contents SET lane = 0 WHERE topic_id IN (SELECT id FROM topics WHERE class IN ('requested', 'service', 'notice'));

-- Whoever adds several events at once asks whether one of them is undone.
CREATE INDEX opt_events_undone ON opt_events (undoes) WHERE undoes IS NOT NULL;

DROP TABLE attempts_before;
DROP TABLE deliveries_before;
";

// Room on each page for the versions that claim, begin and settle leave, and vacuums that come by number of rows, not
// by share of a table that is large at noon and empty at night.
const POSTGRES: &str = "
ALTER TABLE deliveries SET (fillfactor = 60);
ALTER TABLE queue SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000);
ALTER TABLE tally SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0);
ALTER TABLE leases SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_cost_delay = 0);
ALTER TABLE leases ALTER COLUMN ids SET STORAGE EXTERNAL;
";
