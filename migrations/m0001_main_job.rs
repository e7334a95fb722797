//! Brands, people, opt-outs, templates, campaigns and deliveries.
//!
//! Times are microseconds since 1970 in UTC (`bigint`): both databases order and compare them alike.
//! Foreign keys and unique indexes carry what must never happen.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseBackend};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let postgres = db.get_database_backend() == DatabaseBackend::Postgres;
        let (uuid, bytes, json) =
            if postgres { ("uuid", "bytea", "jsonb") } else { ("blob", "blob", "text") };
        let sql = SCHEMA.replace("{uuid}", uuid).replace("{bytes}", bytes).replace("{json}", json);
        db.execute_unprepared(&sql).await?;
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

const SCHEMA: &str = "
CREATE TABLE settings (
    name text PRIMARY KEY,
    value {bytes} NOT NULL
);

CREATE TABLE brands (
    id {uuid} PRIMARY KEY,
    slug text NOT NULL UNIQUE,
    name text NOT NULL,
    from_mailbox text NOT NULL,
    notice_from text,
    reply_to text,
    postal_address text NOT NULL,
    phone text,
    website text,
    base_url text,
    bounce_domain text,
    color text,
    logo text,
    origins {json} NOT NULL,
    one_click_scope text NOT NULL CHECK (one_click_scope IN ('all', 'brand', 'topic')),
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    archived_at bigint
);

CREATE TABLE topics (
    id {uuid} PRIMARY KEY,
    brand_id {uuid} NOT NULL REFERENCES brands (id),
    slug text NOT NULL,
    name text NOT NULL,
    class text NOT NULL CHECK (class IN ('requested', 'service', 'notice', 'relationship', 'reminder', 'marketing')),
    description text,
    consent text NOT NULL CHECK (consent IN ('opt_out', 'opt_in')),
    customers_keep boolean NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    archived_at bigint,
    UNIQUE (brand_id, slug)
);

CREATE TABLE recipients (
    id {uuid} PRIMARY KEY,
    address text,
    folded text UNIQUE,
    address_hash {bytes} NOT NULL UNIQUE,
    name text,
    external_id text,
    locale text,
    standing text NOT NULL CHECK (standing IN ('active', 'restricted', 'deactivated', 'contact_ban', 'erased')),
    every_brand boolean NOT NULL,
    tags {json} NOT NULL,
    attributes {json} NOT NULL,
    policies {json} NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL
);
CREATE INDEX recipients_external_id ON recipients (external_id) WHERE external_id IS NOT NULL;

CREATE TABLE recipient_brands (
    recipient_id {uuid} NOT NULL REFERENCES recipients (id),
    brand_id {uuid} NOT NULL REFERENCES brands (id),
    belongs boolean NOT NULL,
    customer boolean NOT NULL,
    PRIMARY KEY (recipient_id, brand_id)
);
CREATE INDEX recipient_brands_brand ON recipient_brands (brand_id, recipient_id);

-- One row an address hash: the lock under which its opt-outs and opt-ins take their order, and whether it is dead.
CREATE TABLE addresses (
    address_hash {bytes} PRIMARY KEY,
    last_seq bigint NOT NULL,
    failures bigint NOT NULL,
    first_failed_at bigint,
    last_failed_at bigint
);

CREATE TABLE opt_events (
    id {uuid} PRIMARY KEY,
    address_hash {bytes} NOT NULL REFERENCES addresses (address_hash),
    seq bigint NOT NULL,
    said text NOT NULL CHECK (said IN ('opt_out', 'opt_in', 'undo')),
    scope_kind text NOT NULL CHECK (scope_kind IN ('all', 'brand', 'topic')),
    brand_id {uuid} REFERENCES brands (id),
    topic_id {uuid} REFERENCES topics (id),
    channel text NOT NULL,
    complaint boolean NOT NULL,
    note text,
    evidence text,
    undoes {uuid} REFERENCES opt_events (id),
    delivery_id {uuid},
    requested_at bigint,
    recorded_at bigint NOT NULL,
    recorded_by text NOT NULL,
    UNIQUE (address_hash, seq)
);

-- What the events amount to now. The scope key is 'all', 'brand:<id>' or 'topic:<id>': one row a scope.
CREATE TABLE suppressions (
    address_hash {bytes} NOT NULL REFERENCES addresses (address_hash),
    scope_key text NOT NULL,
    scope_kind text NOT NULL,
    brand_id {uuid} REFERENCES brands (id),
    topic_id {uuid} REFERENCES topics (id),
    said text NOT NULL CHECK (said IN ('opt_out', 'opt_in')),
    seq bigint NOT NULL,
    complaint boolean NOT NULL,
    event_id {uuid} NOT NULL REFERENCES opt_events (id),
    PRIMARY KEY (address_hash, scope_key)
);

CREATE TABLE templates (
    id {uuid} PRIMARY KEY,
    slug text NOT NULL UNIQUE,
    subject text NOT NULL,
    html text NOT NULL,
    text text,
    brand_id {uuid} REFERENCES brands (id),
    classes {json} NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL
);

-- What a start freezes. `held` keeps the deliveries that point here from being claimed.
CREATE TABLE contents (
    id {uuid} PRIMARY KEY,
    digest {bytes} UNIQUE,
    brand_id {uuid} NOT NULL REFERENCES brands (id),
    topic_id {uuid} NOT NULL REFERENCES topics (id),
    template text NOT NULL,
    subject text NOT NULL,
    html text NOT NULL,
    text text NOT NULL,
    partials {json} NOT NULL,
    data {json} NOT NULL,
    reply_to text,
    held boolean NOT NULL,
    created_at bigint NOT NULL,
    frozen_at bigint
);

CREATE TABLE campaigns (
    id {uuid} PRIMARY KEY,
    name text,
    brand_id {uuid} NOT NULL REFERENCES brands (id),
    topic_id {uuid} NOT NULL REFERENCES topics (id),
    template text NOT NULL,
    data {json} NOT NULL,
    audience {json},
    send_at bigint,
    not_after bigint,
    reply_to text,
    state text NOT NULL CHECK (state IN ('draft', 'scheduled', 'running', 'paused', 'finished', 'cancelled')),
    content_id {uuid} NOT NULL UNIQUE REFERENCES contents (id),
    fan_out_after {uuid},
    fanned_out boolean NOT NULL,
    created_by text NOT NULL,
    created_at bigint NOT NULL,
    started_at bigint,
    finished_at bigint
);
CREATE INDEX campaigns_unfinished ON campaigns (state) WHERE state IN ('scheduled', 'running', 'paused', 'cancelled');

-- One row a message to one person, from the first moment to the last.
CREATE TABLE deliveries (
    id {uuid} PRIMARY KEY,
    content_id {uuid} NOT NULL REFERENCES contents (id),
    mailing_id {uuid},
    brand_id {uuid} NOT NULL REFERENCES brands (id),
    topic_id {uuid} NOT NULL REFERENCES topics (id),
    class text NOT NULL,
    lane smallint NOT NULL CHECK (lane IN (0, 1)),
    recipient_id {uuid} NOT NULL REFERENCES recipients (id),
    address_hash {bytes} NOT NULL,
    data {json},
    state text NOT NULL CHECK (state IN ('queued', 'sending', 'sent', 'suppressed', 'failed', 'unknown', 'expired', 'cancelled')),
    reason text,
    due_at bigint NOT NULL,
    not_after bigint,
    first_begun_at bigint,
    token {uuid},
    lease_until bigint,
    begun boolean NOT NULL,
    doubt_until bigint,
    doubted boolean NOT NULL,
    attempts bigint NOT NULL,
    created_at bigint NOT NULL,
    settled_at bigint,
    CHECK ((state = 'sending') = (token IS NOT NULL)),
    CHECK (NOT begun OR token IS NOT NULL)
);
-- A campaign or notice reaches a person once; a single message has no mailing.
CREATE UNIQUE INDEX deliveries_once ON deliveries (mailing_id, recipient_id) WHERE mailing_id IS NOT NULL;
-- By content, so that a claim passes over a held campaign in one step, however many lines wait in it.
CREATE INDEX deliveries_due ON deliveries (lane, content_id, due_at) WHERE state = 'queued';
CREATE INDEX deliveries_expiring ON deliveries (not_after) WHERE state = 'queued' AND not_after IS NOT NULL;
CREATE INDEX deliveries_leased ON deliveries (lease_until) WHERE state = 'sending';
CREATE INDEX deliveries_person ON deliveries (address_hash);
CREATE INDEX deliveries_recipient ON deliveries (recipient_id, id);
CREATE INDEX deliveries_mailing ON deliveries (mailing_id, state, id) WHERE mailing_id IS NOT NULL;

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

-- When any worker last looked for work, for those who watch; nothing is decided by it.
CREATE TABLE heartbeats (
    name text PRIMARY KEY,
    seen_at bigint NOT NULL
);

CREATE TABLE api_keys (
    id {uuid} PRIMARY KEY,
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('admin', 'accounts', 'marketer', 'sender', 'operator', 'auditor')),
    brand_id {uuid} REFERENCES brands (id),
    prefix text NOT NULL UNIQUE,
    secret_sha256 {bytes} NOT NULL,
    created_by text NOT NULL,
    created_at bigint NOT NULL,
    revoked_at bigint
);

CREATE TABLE audit (
    id {uuid} PRIMARY KEY,
    at bigint NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    detail {json} NOT NULL
);
CREATE INDEX audit_at ON audit (at);

CREATE TABLE idempotency (
    api_key text NOT NULL,
    path text NOT NULL,
    key text NOT NULL,
    body_sha256 {bytes} NOT NULL,
    resource_id {uuid} NOT NULL,
    owner {uuid} NOT NULL,
    started_at bigint NOT NULL,
    lease_until bigint NOT NULL,
    status smallint,
    content_type text,
    body {bytes},
    PRIMARY KEY (api_key, path, key)
);
CREATE INDEX idempotency_started ON idempotency (started_at);
";
