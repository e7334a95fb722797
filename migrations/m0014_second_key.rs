//! Answers that came by letter or telephone, by no message of ours; changes of notices that wait for a second key, and the
//! wish to do without one.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseBackend};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let postgres = db.get_database_backend() == DatabaseBackend::Postgres;
        let (uuid, json) = if postgres { ("uuid", "jsonb") } else { ("blob", "text") };
        db.execute_unprepared(&SCHEMA.replace("{uuid}", uuid).replace("{json}", json)).await?;
        db.execute_unprepared(if postgres { NO_MESSAGE_ON_POSTGRES } else { NO_MESSAGE_ON_SQLITE }).await?;
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

const SCHEMA: &str = "
-- How an answer came that was not given on the page, what there is to say about that, and who recorded it.
ALTER TABLE approvals ADD COLUMN given_by text CHECK (given_by IN ('letter', 'phone'));
ALTER TABLE approvals ADD COLUMN note text;
ALTER TABLE approvals ADD COLUMN recorded_by text;

-- Whether the policy asked for two people when the notice was published.
ALTER TABLE notices ADD COLUMN two_person boolean NOT NULL DEFAULT FALSE;
UPDATE notices SET two_person = TRUE WHERE EXISTS (
    SELECT 1 FROM policy_versions v JOIN policies p ON p.id = v.policy_id
    WHERE v.id = notices.version_id AND (p.two_person OR v.released_by IS NOT NULL));

-- The newest change of a notice that somebody asked for and somebody else has to release, and who did. `request` is what
-- was asked, as the API took it.
CREATE TABLE notice_requests (
    notice_id {uuid} NOT NULL PRIMARY KEY REFERENCES notices (id),
    change text NOT NULL CHECK (change IN ('correct', 'postpone', 'withdraw')),
    request {json} NOT NULL,
    asked_by text NOT NULL,
    asked_at bigint NOT NULL,
    released_by text,
    released_at bigint
);

-- Who asked that one person be enough from now on, and when, as long as nobody else has asked for it too.
ALTER TABLE policies ADD COLUMN one_person_asked_by text;
ALTER TABLE policies ADD COLUMN one_person_asked_at bigint;
";

// Who answers by letter may never have got a message.
const NO_MESSAGE_ON_POSTGRES: &str = "ALTER TABLE approvals ALTER COLUMN delivery_id DROP NOT NULL";
const NO_MESSAGE_ON_SQLITE: &str = "
ALTER TABLE approvals ADD COLUMN by_delivery blob;
UPDATE approvals SET by_delivery = delivery_id;
ALTER TABLE approvals DROP COLUMN delivery_id;
ALTER TABLE approvals RENAME COLUMN by_delivery TO delivery_id;
";
