//! Claim, begin, renew, settle: what a worker does to a delivery that it holds.
//!
//! Each is one transaction, names the claim by its token, and may be repeated when its COMMIT stays unanswered.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, FromQueryResult, JsonValue, Statement, Value};

use crate::address::AddressHash;
use crate::clock::{Timestamp, micros};
use crate::db::{Db, Write};
use crate::decision::{Class, Reason};
use crate::delivery::State;
use crate::id::{AttemptId, BrandId, ContentId, DeliveryId, LeaseToken, MailingId, RecipientId, TopicId};

/// Ended leases that one claim decides at most.
const ENDED_AT_ONCE: u64 = 1_000;
/// Overdue deliveries that one claim ends at most.
const EXPIRED_AT_ONCE: u64 = 1_000;
/// The lanes, in the order in which they are served.
const SERVICE_SIDE: i16 = 0;
const CAN_BE_REFUSED: i16 = 1;

/// `FOR UPDATE SKIP LOCKED` where there are row locks; SQLite has one writer at a time.
pub(super) fn skip_locked(backend: DbBackend) -> &'static str {
    if backend == DbBackend::Postgres { " FOR UPDATE SKIP LOCKED" } else { "" }
}

/// A delivery that this worker holds.
#[derive(Clone, Debug, FromQueryResult)]
pub struct Claimed {
    /// Its id.
    pub id: DeliveryId,
    /// What is sent.
    pub content_id: ContentId,
    /// The campaign or notice.
    pub mailing_id: Option<MailingId>,
    /// The sender.
    pub brand_id: BrandId,
    /// The stream of messages.
    pub topic_id: TopicId,
    /// The class.
    pub class: Class,
    /// To whom.
    pub recipient_id: RecipientId,
    /// The hash of the address it goes to, and of no other.
    pub address_hash: AddressHash,
    /// Laid over the content's data.
    pub data: Option<JsonValue>,
    /// When its first attempt began.
    pub first_begun_at: Option<Timestamp>,
    /// How many attempts there were before.
    pub attempts: i64,
    /// Whether the outcome of some attempt stayed unknown.
    pub doubted: bool,
}

const CLAIMED: &str = "id, content_id, mailing_id, brand_id, topic_id, class, recipient_id, address_hash, data, \
                       first_begun_at, attempts, doubted";

/// Claims up to `limit` deliveries that are due, the service side first, under the token that the worker made.
///
/// Before that it decides, in the same transaction, what became of deliveries whose lease ended: not begun, queued
/// again; begun, the outcome is unknown, so the service side is queued again and what can be refused ends as
/// `unknown`. They are never leased as they are. Facts are read only after this has committed.
///
/// # Errors
/// The database's own. After an unanswered COMMIT, ask with [`claimed_by`].
pub async fn claim(
    db: &Db,
    token: LeaseToken,
    lease: Duration,
    silence: Duration,
    limit: u64,
) -> Result<Vec<Claimed>, DbErr> {
    let txn = db.begin().await?;
    end_leases(&txn, db, silence).await?;
    super::expire_some(&txn, db, EXPIRED_AT_ONCE).await?;
    let mut claimed = Vec::new();
    let mut room = limit;
    for lane in [SERVICE_SIDE, CAN_BE_REFUSED] {
        if room == 0 {
            break;
        }
        // Each content found has something due, so as many as there is room for are enough.
        for content in due_contents(&txn, db, lane, room).await? {
            let more = claim_of(&txn, db, lane, content, token, lease, room).await?;
            room = room.saturating_sub(more.len() as u64);
            claimed.extend(more);
            if room == 0 {
                break;
            }
        }
    }
    txn.commit().await?;
    Ok(claimed)
}

#[derive(FromQueryResult)]
struct Due {
    id: ContentId,
}

/// The contents of this lane that are not held and have something due, the longest due first. It steps from content
/// to content through the index and looks at one row of each: a held campaign of a million lines costs one step.
async fn due_contents(txn: &Write, db: &Db, lane: i16, limit: u64) -> Result<Vec<ContentId>, DbErr> {
    let queued = format!("d.state = 'queued' AND d.lane = {lane}");
    let sql = format!(
        "WITH RECURSIVE queued (id) AS (\
         SELECT first.content_id FROM (SELECT d.content_id FROM deliveries d WHERE {queued} \
         ORDER BY d.content_id LIMIT 1) AS first \
         UNION ALL SELECT (SELECT d.content_id FROM deliveries d WHERE {queued} AND d.content_id > q.id \
         ORDER BY d.content_id LIMIT 1) FROM queued q WHERE q.id IS NOT NULL) \
         SELECT open.id FROM (SELECT c.id, (SELECT MIN(d.due_at) FROM deliveries d WHERE {queued} \
         AND d.content_id = c.id) AS due FROM queued q JOIN contents c ON c.id = q.id WHERE NOT c.held) AS open \
         WHERE open.due <= {now} ORDER BY open.due LIMIT {limit}",
        now = db.now_sql(),
    );
    let found = Due::find_by_statement(Statement::from_string(db.backend(), sql)).all(&**txn).await?;
    Ok(found.into_iter().map(|due| due.id).collect())
}

async fn claim_of(
    txn: &Write,
    db: &Db,
    lane: i16,
    content: ContentId,
    token: LeaseToken,
    lease: Duration,
    room: u64,
) -> Result<Vec<Claimed>, DbErr> {
    let sql = format!(
        "UPDATE deliveries SET state = 'sending', token = $1, lease_until = {now} + $2, begun = FALSE \
         WHERE id IN (SELECT d.id FROM deliveries d \
         WHERE d.state = 'queued' AND d.lane = {lane} AND d.content_id = $3 AND d.due_at <= {now} \
         ORDER BY d.due_at LIMIT {room}{lock}) RETURNING {CLAIMED}",
        now = db.now_sql(),
        lock = skip_locked(db.backend()),
    );
    let values = [token.0.into(), micros(lease).into(), content.0.into()];
    Claimed::find_by_statement(Statement::from_sql_and_values(db.backend(), sql, values)).all(&**txn).await
}

/// What is held under this token: asked when a claim's COMMIT stayed unanswered.
///
/// # Errors
/// The database's own.
pub async fn claimed_by(db: &Db, token: LeaseToken) -> Result<Vec<Claimed>, DbErr> {
    let sql = format!("SELECT {CLAIMED} FROM deliveries WHERE state = 'sending' AND token = $1");
    let statement = Statement::from_sql_and_values(db.backend(), sql, [token.0.into()]);
    Claimed::find_by_statement(statement).all(db.reads()).await
}

#[derive(FromQueryResult)]
struct Ended {
    id: DeliveryId,
    token: LeaseToken,
    begun: bool,
}

async fn end_leases(txn: &Write, db: &Db, silence: Duration) -> Result<(), DbErr> {
    let now = db.now_sql();
    let sql = format!(
        "SELECT id, token, begun FROM deliveries WHERE state = 'sending' AND lease_until <= {now} \
         LIMIT {ENDED_AT_ONCE}{}",
        skip_locked(db.backend())
    );
    let ended = Ended::find_by_statement(Statement::from_string(db.backend(), sql)).all(&**txn).await?;
    for one in ended {
        if one.begun {
            let sql = format!(
                "UPDATE deliveries SET \
                 state = CASE WHEN lane = 0 THEN 'queued' ELSE 'unknown' END, \
                 settled_at = CASE WHEN lane = 0 THEN NULL ELSE {now} END, \
                 reason = 'lease_lost', token = NULL, lease_until = NULL, begun = FALSE, doubted = TRUE, \
                 doubt_until = {now} + $3, due_at = {now} \
                 WHERE id = $1 AND token = $2"
            );
            let values = [one.id.0.into(), one.token.0.into(), micros(silence).into()];
            txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
            let sql = format!(
                "UPDATE attempts SET ended_at = {now}, outcome = 'unknown', reply = 'the worker was lost' \
                 WHERE delivery_id = $1 AND token = $2 AND ended_at IS NULL"
            );
            let values = [one.id.0.into(), one.token.0.into()];
            txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
            metrics::counter!("tidings_leases_lost_total", "begun" => "true").increment(1);
        } else {
            give_back_on(txn, db, one.id, one.token).await?;
            metrics::counter!("tidings_leases_lost_total", "begun" => "false").increment(1);
        }
    }
    Ok(())
}

/// Queues again what this worker holds and has not begun.
///
/// # Errors
/// The database's own; then the lease's end does it.
pub async fn give_back(db: &Db, ids: &[DeliveryId], token: LeaseToken) -> Result<(), DbErr> {
    let txn = db.begin().await?;
    for &id in ids {
        give_back_on(&txn, db, id, token).await?;
    }
    txn.commit().await
}

async fn give_back_on(txn: &Write, db: &Db, id: DeliveryId, token: LeaseToken) -> Result<(), DbErr> {
    let sql = "UPDATE deliveries SET state = 'queued', token = NULL, lease_until = NULL \
               WHERE id = $1 AND token = $2 AND state = 'sending' AND NOT begun";
    let values = [id.0.into(), token.0.into()];
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    Ok(())
}

/// Makes the lease of what is held under this token last `lease` from now on. Returns whether anything was.
///
/// # Errors
/// The database's own; the lease stays as it was then.
pub async fn renew(db: &Db, id: DeliveryId, token: LeaseToken, lease: Duration) -> Result<bool, DbErr> {
    let txn = db.begin().await?;
    let sql = format!(
        "UPDATE deliveries SET lease_until = {} + $3 WHERE id = $1 AND token = $2 AND state = 'sending'",
        db.now_sql()
    );
    let values = [id.0.into(), token.0.into(), micros(lease).into()];
    let done = txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    txn.commit().await?;
    Ok(done.rows_affected() == 1)
}

/// Commits that the hand-over begins, before the envelope's first byte. `date` becomes the message's Date unless an
/// earlier attempt set it. Returns whether the claim still stands; without it there is no hand-over. Nothing begins
/// either whose campaign was held since it was claimed, or whose time is over: that may be given back.
///
/// # Errors
/// The database's own. After an unanswered COMMIT it may be repeated: it counts once.
pub async fn begin(
    db: &Db,
    id: DeliveryId,
    token: LeaseToken,
    date: Timestamp,
    lease: Duration,
) -> Result<bool, DbErr> {
    let txn = db.begin().await?;
    let sql = format!(
        "UPDATE deliveries SET attempts = attempts + CASE WHEN begun THEN 0 ELSE 1 END, begun = TRUE, \
         first_begun_at = COALESCE(first_begun_at, $3), lease_until = {now} + $4 \
         WHERE id = $1 AND token = $2 AND state = 'sending' AND (begun OR ((not_after IS NULL OR not_after > {now}) \
         AND NOT EXISTS (SELECT 1 FROM contents c WHERE c.id = deliveries.content_id AND c.held)))",
        now = db.now_sql()
    );
    let values = [id.0.into(), token.0.into(), date.0.into(), micros(lease).into()];
    let begun = txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    if begun.rows_affected() != 1 {
        txn.rollback().await?;
        return Ok(false);
    }
    let sql = format!(
        "INSERT INTO attempts (id, delivery_id, token, begun_at) VALUES ($1, $2, $3, {}) ON CONFLICT DO NOTHING",
        db.now_sql()
    );
    let values = [AttemptId::new().0.into(), id.0.into(), token.0.into()];
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    txn.commit().await?;
    Ok(true)
}

/// How a claim ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The relay took the message over.
    Sent,
    /// The decision said no.
    Suppressed(Reason),
    /// It will not be tried again; the sentence says why.
    Failed(String),
    /// It is tried again after this long.
    Again(Duration),
    /// Nobody knows whether it was sent. What can be refused ends here; the service side is tried again after this long.
    Unknown(Duration),
    /// Nobody knows whether it was sent, and the time to try again is over.
    Doubtful,
}

/// What an attempt brought, to be kept with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    /// `sent`, `refused`, `deferred`, `not_sent` or `unknown`.
    pub outcome: &'static str,
    /// How far the dialogue had come.
    pub phase: Option<&'static str>,
    /// The relay's code.
    pub code: Option<u16>,
    /// The relay's enhanced status.
    pub enhanced: Option<String>,
    /// The relay's words, or what broke.
    pub reply: String,
    /// Whether the reply says that the mailbox is gone.
    pub mailbox_gone: bool,
}

/// Ends a claim. Returns whether it still stood; when not, somebody else decided and nothing is changed.
///
/// # Errors
/// The database's own. After an unanswered COMMIT it may be repeated: the second time it finds its claim gone.
pub async fn settle(
    db: &Db,
    held: &Claimed,
    token: LeaseToken,
    fate: &Fate,
    attempt: Option<&Attempt>,
    silence: Duration,
) -> Result<bool, DbErr> {
    let txn = db.begin().await?;
    let now = db.now_sql();
    let refusable = held.class.can_be_refused();
    let plain = |state: State| if held.doubted { State::Unknown } else { state };
    let (state, reason, wait, doubt) = match fate {
        Fate::Sent => (State::Sent, None, None, false),
        Fate::Suppressed(reason) => (plain(State::Suppressed), Some(reason.as_str().to_owned()), None, false),
        Fate::Failed(why) => (plain(State::Failed), Some(why.clone()), None, false),
        Fate::Again(wait) => (State::Queued, None, Some(*wait), false),
        Fate::Doubtful => (State::Unknown, Some("outcome_unknown".to_owned()), None, true),
        Fate::Unknown(_) if refusable => (State::Unknown, Some("outcome_unknown".to_owned()), None, true),
        Fate::Unknown(wait) => (State::Queued, Some("outcome_unknown".to_owned()), Some(*wait), true),
    };
    let sql = format!(
        "UPDATE deliveries SET state = $3, reason = $4, token = NULL, lease_until = NULL, \
         attempts = attempts + CASE WHEN begun OR NOT $8 THEN 0 ELSE 1 END, begun = FALSE, \
         due_at = CASE WHEN $3 = 'queued' THEN {now} + $5 ELSE due_at END, \
         settled_at = CASE WHEN $3 = 'queued' THEN NULL ELSE {now} END, \
         doubted = doubted OR $6, doubt_until = CASE WHEN $6 THEN {now} + $7 ELSE doubt_until END, \
         first_begun_at = CASE WHEN $8 THEN COALESCE(first_begun_at, {now}) ELSE first_begun_at END \
         WHERE id = $1 AND token = $2 AND state = 'sending'"
    );
    let values: [Value; 8] = [
        held.id.0.into(),
        token.0.into(),
        state.as_str().into(),
        reason.into(),
        wait.map_or(0, micros).into(),
        doubt.into(),
        micros(silence).into(),
        attempt.is_some().into(),
    ];
    let settled = txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    if settled.rows_affected() != 1 {
        txn.rollback().await?;
        return Ok(false);
    }
    if let Some(attempt) = attempt {
        keep_attempt(&txn, db, held, token, attempt).await?;
        if attempt.mailbox_gone {
            crate::opt_out::rows::record_failure(&txn, db, &held.address_hash).await?;
        }
    }
    txn.commit().await?;
    Ok(true)
}

/// Keeps what an attempt brought; one that never came to begin (no connection) gets its row here.
async fn keep_attempt(
    txn: &Write,
    db: &Db,
    held: &Claimed,
    token: LeaseToken,
    attempt: &Attempt,
) -> Result<(), DbErr> {
    let now = db.now_sql();
    let sql = format!(
        "INSERT INTO attempts (id, delivery_id, token, begun_at, ended_at, outcome, phase, code, enhanced, reply) \
         VALUES ($1, $2, $3, {now}, {now}, $4, $5, $6, $7, $8) \
         ON CONFLICT (delivery_id, token) DO UPDATE SET ended_at = excluded.ended_at, \
         outcome = excluded.outcome, phase = excluded.phase, code = excluded.code, \
         enhanced = excluded.enhanced, reply = excluded.reply"
    );
    let values: [Value; 8] = [
        AttemptId::new().0.into(),
        held.id.0.into(),
        token.0.into(),
        attempt.outcome.into(),
        attempt.phase.into(),
        attempt.code.map(i64::from).into(),
        attempt.enhanced.clone().into(),
        attempt.reply.clone().into(),
    ];
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    Ok(())
}
