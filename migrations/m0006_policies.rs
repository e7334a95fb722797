//! Policies, their versions and texts; notices of their changes, who was told how, what was answered, and the evidence.

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
        let narrow = if postgres { "" } else { "WITHOUT ROWID" };
        let sql = SCHEMA.replace("{uuid}", uuid).replace("{bytes}", bytes).replace("{json}", json);
        db.execute_unprepared(&sql.replace("{narrow}", narrow)).await?;
        db.execute_unprepared(if postgres { DUE_ON_POSTGRES } else { DUE_ON_SQLITE }).await?;
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

const SCHEMA: &str = "
-- The topic is the one of class notice in which the policy's notices go out, `reminder_topic_id` the one of class reminder
-- for those of notices in force.
CREATE TABLE policies (
    id {uuid} PRIMARY KEY,
    slug text NOT NULL UNIQUE,
    brand_id {uuid} NOT NULL REFERENCES brands (id),
    topic_id {uuid} NOT NULL REFERENCES topics (id),
    reminder_topic_id {uuid} REFERENCES topics (id),
    title text NOT NULL,
    language text NOT NULL,
    template text,
    lead_time_days bigint NOT NULL,
    two_person boolean NOT NULL,
    on_silence text NOT NULL CHECK (on_silence IN ('earlier_version_stands', 'account_flagged')),
    on_untold text NOT NULL CHECK (on_untold IN ('takes_effect', 'earlier_version_stands')),
    remind_days_before {json} NOT NULL,
    reminder_months bigint,
    banner_days_after bigint NOT NULL,
    placements {json} NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL
);
CREATE INDEX policies_brand ON policies (brand_id);

-- A version. Its texts are never changed once it has left the draft.
CREATE TABLE policy_versions (
    id {uuid} PRIMARY KEY,
    policy_id {uuid} NOT NULL REFERENCES policies (id),
    number bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('draft', 'awaiting_release', 'published', 'withdrawn')),
    change text NOT NULL CHECK (change IN ('minor', 'material', 'adverse', 'new_use')),
    approval text NOT NULL CHECK (approval IN ('required', 'none')),
    use_topic_id {uuid} REFERENCES topics (id),
    effective_at bigint,
    override_reason text,
    created_by text NOT NULL,
    created_at bigint NOT NULL,
    published_by text,
    published_at bigint,
    released_by text,
    withdrawn_at bigint,
    UNIQUE (policy_id, number)
);

-- One row a language; `sha256` is that of `body_markdown` in UTF-8.
CREATE TABLE policy_texts (
    version_id {uuid} NOT NULL REFERENCES policy_versions (id) ON DELETE CASCADE,
    language text NOT NULL,
    title text NOT NULL,
    summary text NOT NULL,
    body_markdown text NOT NULL,
    sha256 {bytes} NOT NULL,
    PRIMARY KEY (version_id, language)
);

-- What tells people of a version. `approved` and `declined` count what stands in `approvals_standing`.
CREATE TABLE notices (
    id {uuid} PRIMARY KEY,
    policy_id {uuid} NOT NULL REFERENCES policies (id),
    version_id {uuid} NOT NULL UNIQUE REFERENCES policy_versions (id),
    brand_id {uuid} NOT NULL REFERENCES brands (id),
    state text NOT NULL CHECK (state IN ('running', 'in_effect', 'withdrawn')),
    effective_at bigint NOT NULL,
    complete_by bigint NOT NULL,
    late_since bigint,
    approved bigint NOT NULL,
    declined bigint NOT NULL,
    created_by text NOT NULL,
    created_at bigint NOT NULL,
    closed_at bigint
);
CREATE INDEX notices_unfinished ON notices (id) WHERE closed_at IS NULL;
CREATE INDEX notices_policy ON notices (policy_id, id);

-- Each time that people are told: of the change, of its correction, postponement or withdrawal, or reminded. Its id is the
-- mailing of its deliveries. Everyone is walked through once by id (`walk_after`), then whoever was changed since `swept_to`.
-- `completed_at` is when everyone walked through was told or given up.
CREATE TABLE notice_rounds (
    id {uuid} PRIMARY KEY,
    notice_id {uuid} NOT NULL REFERENCES notices (id),
    number bigint NOT NULL,
    kind text NOT NULL CHECK (kind IN ('change', 'correction', 'postponement', 'withdrawal', 'approval_reminder', 'reminder')),
    reason text,
    state text NOT NULL CHECK (state IN ('walking', 'open', 'closing', 'stopping', 'closed')),
    walk_after {uuid},
    swept_to bigint NOT NULL,
    created_by text NOT NULL,
    created_at bigint NOT NULL,
    completed_at bigint,
    closed_at bigint,
    UNIQUE (notice_id, number)
);
CREATE INDEX notice_rounds_unfinished ON notice_rounds (notice_id, number) WHERE closed_at IS NULL;

-- What a round says in each language, and the content that its deliveries point to.
CREATE TABLE notice_texts (
    round_id {uuid} NOT NULL REFERENCES notice_rounds (id),
    language text NOT NULL,
    content_id {uuid} NOT NULL UNIQUE REFERENCES contents (id),
    summary text NOT NULL,
    PRIMARY KEY (round_id, language)
);

-- Who was told another way of what a round told.
CREATE TABLE notice_told (
    notice_id {uuid} NOT NULL REFERENCES notices (id),
    round_id {uuid} NOT NULL REFERENCES notice_rounds (id),
    recipient_id {uuid} NOT NULL REFERENCES recipients (id),
    told_by text NOT NULL CHECK (told_by IN ('letter', 'phone')),
    note text,
    told_at bigint NOT NULL,
    recorded_by text NOT NULL,
    PRIMARY KEY (notice_id, recipient_id, round_id)
);

-- Every answer, and the newest one of each person. `sha256` is that of the text that the person was shown.
CREATE TABLE approvals (
    id {uuid} PRIMARY KEY,
    version_id {uuid} NOT NULL REFERENCES policy_versions (id),
    recipient_id {uuid} NOT NULL REFERENCES recipients (id),
    address_hash {bytes} NOT NULL,
    decision text NOT NULL CHECK (decision IN ('approve', 'decline')),
    language text NOT NULL,
    sha256 {bytes} NOT NULL,
    delivery_id {uuid} NOT NULL,
    decided_at bigint NOT NULL
);
CREATE TABLE approvals_standing (
    version_id {uuid} NOT NULL,
    recipient_id {uuid} NOT NULL,
    approval_id {uuid} NOT NULL REFERENCES approvals (id),
    decision text NOT NULL,
    decided_at bigint NOT NULL,
    PRIMARY KEY (version_id, recipient_id)
);

-- The proof of a notice: rows are added and never changed, each names the hash of the one before. `person` is the keyed hash
-- of an address, which outlives erasure.
CREATE TABLE evidence (
    notice_id {uuid} NOT NULL REFERENCES notices (id),
    seq bigint NOT NULL,
    at bigint NOT NULL,
    kind text NOT NULL,
    person {bytes},
    body text NOT NULL,
    previous {bytes} NOT NULL,
    hash {bytes} NOT NULL,
    PRIMARY KEY (notice_id, seq)
);
CREATE INDEX evidence_person ON evidence (notice_id, person, seq) WHERE person IS NOT NULL;
CREATE TABLE evidence_heads (
    notice_id {uuid} PRIMARY KEY REFERENCES notices (id),
    seq bigint NOT NULL,
    hash {bytes} NOT NULL
);

-- Deliveries of notices that came to their end and are not in evidence yet.
CREATE TABLE evidence_due (
    mailing_id {uuid} NOT NULL,
    delivery_id {uuid} NOT NULL,
    PRIMARY KEY (mailing_id, delivery_id)
) {narrow};

-- How fast messages were handed over lately while some waited, in thousandths of a message a second; one row.
CREATE TABLE pace (
    id smallint PRIMARY KEY CHECK (id = 1),
    sampled_at bigint NOT NULL,
    sent bigint NOT NULL,
    waited boolean NOT NULL,
    per_thousand_seconds bigint
);

-- How many messages all workers handed over since there was somebody to count.
ALTER TABLE heartbeats ADD COLUMN handed_over bigint NOT NULL DEFAULT 0;
-- SHA-256 of the message that the last attempt handed over, where it is evidence.
ALTER TABLE deliveries ADD COLUMN message_sha256 {bytes};
-- Until when deliveries of a content are tried again at least, where that is later than their class says.
ALTER TABLE contents ADD COLUMN retry_until bigint;
-- By whom people who were changed lately are found.
CREATE INDEX recipients_updated ON recipients (updated_at, id);
";

// Whichever way a delivery of a notice ends, it is due for evidence in the same transaction.
const DUE_ON_SQLITE: &str = "
CREATE TRIGGER deliveries_evidence_due AFTER UPDATE OF state ON deliveries
WHEN NEW.class IN ('notice', 'reminder') AND NEW.mailing_id IS NOT NULL AND OLD.state = 'open' AND NEW.state <> 'open'
BEGIN
    INSERT INTO evidence_due (mailing_id, delivery_id)
        SELECT NEW.mailing_id, NEW.id WHERE EXISTS (SELECT 1 FROM notice_rounds r WHERE r.id = NEW.mailing_id)
        ON CONFLICT DO NOTHING;
END;
";
const DUE_ON_POSTGRES: &str = "
CREATE FUNCTION note_evidence_due() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO evidence_due (mailing_id, delivery_id)
        SELECT NEW.mailing_id, NEW.id WHERE EXISTS (SELECT 1 FROM notice_rounds r WHERE r.id = NEW.mailing_id)
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER deliveries_evidence_due AFTER UPDATE OF state ON deliveries FOR EACH ROW
WHEN (NEW.class IN ('notice', 'reminder') AND NEW.mailing_id IS NOT NULL AND OLD.state = 'open' AND NEW.state <> 'open')
EXECUTE FUNCTION note_evidence_due();
ALTER TABLE evidence_due SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0);
";
