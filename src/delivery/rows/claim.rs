//! Claiming: deliveries that are due become this worker's for as long as their lease lasts.
//!
//! A claim is one transaction: it first decides what became of claims whose lease ended, then takes what is due and keeps
//! one lease for all of it. The facts are read only after it has committed.

use std::collections::HashMap;
use std::time::Duration;

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, JsonValue, Statement, Value};
use uuid::Uuid;

use super::skip_locked;
use super::tally::Moves;
use crate::address::AddressHash;
use crate::clock::{Instant, Timestamp, micros};
use crate::db::{Db, Kind, List, Write};
use crate::decision::Class;
use crate::delivery::State;
use crate::id::{AttemptId, BrandId, ContentId, DeliveryId, LeaseToken, MailingId, RecipientId, TopicId};

/// Overdue deliveries that one claim ends at most.
const EXPIRED_AT_ONCE: u64 = 1_000;
/// Contents that one claim takes from at most.
const CONTENTS_AT_ONCE: usize = 64;
/// How long a worker goes on where its last claim ended before it looks from the start again, at least.
const LOOK_BACK: Duration = Duration::from_secs(1);
/// What part of the time looking from the start may take: one in so many.
const LOOK_BACK_SHARE: u32 = 20;

/// The two queues of a worker: what must be sent never waits behind what can be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Requested, service and notice.
    ServiceSide = 0,
    /// Relationship, reminder and marketing.
    CanBeRefused = 1,
}

impl Lane {
    /// Both, the service side first.
    pub const ALL: [Self; 2] = [Self::ServiceSide, Self::CanBeRefused];

    /// This lane and no other.
    pub fn alone(self) -> &'static [Self] {
        &Self::ALL[self as usize..=self as usize]
    }

    /// The lane of a class.
    pub fn of(class: Class) -> Self {
        if class.can_be_refused() { Self::CanBeRefused } else { Self::ServiceSide }
    }
}

/// Where a worker's claims ended, so that the next one goes on there instead of passing over what was taken and what is
/// finished. For speed only: from time to time each claim looks from the start.
#[derive(Debug, Default)]
pub struct Trail {
    of: HashMap<ContentId, Mark>,
    /// The content after which the next claim begins.
    last: Option<ContentId>,
    goes_on: bool,
}

impl Trail {
    /// Whether there are contents that the last claim did not come to, so that one which took nothing says nothing yet.
    pub fn goes_on(&self) -> bool {
        self.goes_on
    }
}

#[derive(Debug)]
struct Mark {
    after: (i64, Uuid),
    looked_back: Instant,
    took: Duration,
}

impl Mark {
    fn is_fresh(&self) -> bool {
        self.looked_back.elapsed() < LOOK_BACK.max(self.took * LOOK_BACK_SHARE)
    }
}

/// What is claimed.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Made by the worker, so that it can ask whether its claim was committed.
    pub token: LeaseToken,
    /// How long the claim lasts unless renewed.
    pub lease: Duration,
    /// How long an unknown hand-over stays in doubt.
    pub silence: Duration,
    /// From which lanes, in this order.
    pub lanes: &'static [Lane],
    /// How many at most.
    pub limit: usize,
}

#[derive(FromQueryResult)]
struct Taken {
    delivery_id: DeliveryId,
    due_at: i64,
}

/// Claims deliveries that are due under the token that the worker made, fairly among contents.
///
/// Before that it decides, in the same transaction, what became of deliveries whose lease ended: not begun, queued
/// again; begun, the outcome is unknown, so the service side is queued again and what can be refused ends as
/// `unknown`. They are never leased as they are. Facts are read only after this has committed.
///
/// # Errors
/// The database's own. After an unanswered COMMIT, ask with [`claimed_by`].
pub async fn claim(db: &Db, ask: Ask, trail: &mut Trail) -> Result<Vec<DeliveryId>, DbErr> {
    let txn = db.begin().await?;
    let mut moves = Moves::default();
    end_overdue_on(&txn, db, ask.silence, &mut moves).await?;
    let mut ids = Vec::new();
    for lane in ask.lanes {
        let contents = contents_in(&txn, db, *lane, trail).await?;
        let mut left = contents.len();
        for content in contents {
            let fair = (ask.limit - ids.len()).div_ceil(left);
            left -= 1;
            if fair == 0 {
                break;
            }
            let taken = take(&txn, db, content, ask.token, fair, trail).await?;
            trail.last = Some(content);
            moves.add(content, State::Queued, "", -(taken.len() as i64));
            moves.add(content, State::Sending, "", taken.len() as i64);
            ids.extend(taken);
        }
    }
    if !ids.is_empty() {
        lease(&txn, db, ask, &ids).await?;
    }
    moves.write(&txn, db).await?;
    txn.commit().await?;
    Ok(ids)
}

/// What a claim does before it takes anything, by itself: it has to happen where nothing may be claimed, too. What a lost
/// worker held counts against limits until then, and they may be what forbids to claim.
///
/// # Errors
/// The database's own; then nothing was changed, or nothing was confirmed.
pub async fn end_overdue(db: &Db, silence: Duration) -> Result<(), DbErr> {
    let txn = db.begin().await?;
    let mut moves = Moves::default();
    end_overdue_on(&txn, db, silence, &mut moves).await?;
    moves.write(&txn, db).await?;
    txn.commit().await
}

async fn end_overdue_on(txn: &Write, db: &Db, silence: Duration, moves: &mut Moves) -> Result<(), DbErr> {
    end_leases(txn, db, silence, moves).await?;
    super::enqueue::expire_into(txn, db, EXPIRED_AT_ONCE, moves).await?;
    Ok(())
}

#[derive(FromQueryResult)]
struct Found {
    id: ContentId,
}

/// The contents of this lane that are not held and have something unfinished, from the one after the last claim's on, and
/// after the last one of all from the first again.
async fn contents_in(txn: &Write, db: &Db, lane: Lane, trail: &mut Trail) -> Result<Vec<ContentId>, DbErr> {
    let next = async |bounds: &str, content: ContentId, most: usize| {
        let sql = format!(
            "SELECT id FROM contents WHERE active AND lane = {} AND NOT held AND id {bounds} $1 ORDER BY id LIMIT {most}",
            lane as i16
        );
        let statement = Statement::from_sql_and_values(db.backend(), sql, [content.0.into()]);
        Found::find_by_statement(statement).all(&**txn).await
    };
    let last = trail.last.unwrap_or(ContentId(Uuid::nil()));
    let mut found = next(">", last, CONTENTS_AT_ONCE).await?;
    trail.goes_on = found.len() == CONTENTS_AT_ONCE;
    if !trail.goes_on {
        let left = CONTENTS_AT_ONCE - found.len();
        found.extend(next("<=", last, left).await?);
    }
    Ok(found.into_iter().map(|row| row.id).collect())
}

/// Takes up to `limit` of this content, where the last claim ended if that was just now, else from the start.
async fn take(
    txn: &Write,
    db: &Db,
    content: ContentId,
    token: LeaseToken,
    limit: usize,
    trail: &mut Trail,
) -> Result<Vec<DeliveryId>, DbErr> {
    if let Some(mark) = trail.of.get_mut(&content).filter(|mark| mark.is_fresh()) {
        let taken = take_after(txn, db, content, token, limit, mark.after).await?;
        if let Some(end) = end_of(&taken) {
            mark.after = end;
            return Ok(taken.into_iter().map(|one| one.delivery_id).collect());
        }
    }
    let asked = Instant::now();
    let taken = take_after(txn, db, content, token, limit, (i64::MIN, Uuid::nil())).await?;
    match end_of(&taken) {
        Some(after) => {
            let mark = Mark { after, looked_back: asked, took: asked.elapsed() };
            trail.of.insert(content, mark);
        }
        None => {
            trail.of.remove(&content);
            put_to_rest(txn, db, content).await?;
        }
    }
    Ok(taken.into_iter().map(|one| one.delivery_id).collect())
}

fn end_of(taken: &[Taken]) -> Option<(i64, Uuid)> {
    taken.iter().map(|one| (one.due_at, one.delivery_id.0)).max()
}

async fn take_after(
    txn: &Write,
    db: &Db,
    content: ContentId,
    token: LeaseToken,
    limit: usize,
    after: (i64, Uuid),
) -> Result<Vec<Taken>, DbErr> {
    let sql = format!(
        "WITH due AS MATERIALIZED (SELECT delivery_id FROM queue WHERE content_id = $2 AND token IS NULL \
         AND due_at <= {now} AND (due_at, delivery_id) > ($3, $4) ORDER BY due_at, delivery_id LIMIT $5{lock}) \
         UPDATE queue SET token = $1, begun = FALSE FROM due WHERE queue.delivery_id = due.delivery_id \
         RETURNING queue.delivery_id, queue.due_at",
        now = db.now_sql(),
        lock = skip_locked(db.backend()),
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let values: [Value; 5] = [token.0.into(), content.0.into(), after.0.into(), after.1.into(), limit.into()];
    Taken::find_by_statement(Statement::from_sql_and_values(db.backend(), sql, values)).all(&**txn).await
}

/// Notes that nothing of a content is unfinished, so that claims pass it over. Whoever enqueues holds a share of the
/// content's lock until they commit, and this takes it whole: nothing is enqueued unseen in between.
async fn put_to_rest(txn: &Write, db: &Db, content: ContentId) -> Result<(), DbErr> {
    let sql = format!("SELECT id FROM contents WHERE id = $1 AND active{}", skip_locked(db.backend()));
    let statement = Statement::from_sql_and_values(db.backend(), sql, [content.0.into()]);
    if txn.query_one_raw(statement).await?.is_none() {
        return Ok(());
    }
    let sql = "UPDATE contents SET active = FALSE WHERE id = $1 \
               AND NOT EXISTS (SELECT 1 FROM queue WHERE content_id = $1)";
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, [content.0.into()])).await?;
    Ok(())
}

async fn lease(txn: &Write, db: &Db, ask: Ask, ids: &[DeliveryId]) -> Result<(), DbErr> {
    let sql = format!("INSERT INTO leases (token, lease_until, ids) VALUES ($1, {} + $2, $3)", db.now_sql());
    let octets: Vec<u8> = ids.iter().flat_map(|id| id.0.into_bytes()).collect();
    let values = [ask.token.0.into(), micros(ask.lease).into(), octets.into()];
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    Ok(())
}

fn ids_of(octets: &[u8]) -> impl Iterator<Item = DeliveryId> {
    octets.chunks_exact(16).filter_map(|id| Uuid::from_slice(id).ok()).map(DeliveryId)
}

fn id_list(ids: impl IntoIterator<Item = DeliveryId>) -> List<1> {
    List::of("id", Kind::Uuid, ids.into_iter().map(|id| id.0))
}

/// What is still held under this token: asked when a claim's COMMIT stayed unanswered.
///
/// # Errors
/// The database's own.
pub async fn claimed_by(db: &Db, token: LeaseToken) -> Result<Vec<DeliveryId>, DbErr> {
    let statement =
        |sql: String, values: Vec<Value>| Statement::from_sql_and_values(db.backend(), sql, values);
    let leased = statement("SELECT ids FROM leases WHERE token = $1".into(), vec![token.0.into()]);
    let Some(row) = db.reads().query_one_raw(leased).await? else { return Ok(Vec::new()) };
    let octets: Vec<u8> = row.try_get("", "ids")?;
    let mut values = vec![token.0.into()];
    let list = id_list(ids_of(&octets)).relation(db.backend(), "l", &mut values);
    let sql = format!(
        "SELECT q.delivery_id AS id FROM {list} JOIN queue q ON q.delivery_id = l.id AND q.token = $1"
    );
    let rows = db.reads().query_all_raw(statement(sql, values)).await?;
    rows.iter().map(|row| row.try_get("", "id")).collect()
}

/// A delivery that this worker holds, as it was made and as its attempts left it.
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
    /// The message's date, once an attempt was begun.
    pub dated_at: Option<Timestamp>,
    /// How many attempts there were before.
    pub attempts: i64,
    /// Whether the outcome of some attempt stayed unknown.
    pub doubted: bool,
}

/// What is known of the deliveries that were claimed.
///
/// # Errors
/// The database's own.
pub async fn load(db: &Db, ids: &[DeliveryId]) -> Result<Vec<Claimed>, DbErr> {
    let mut values = Vec::new();
    let list = id_list(ids.iter().copied()).relation(db.backend(), "l", &mut values);
    let sql = format!(
        "SELECT d.id, d.content_id, d.mailing_id, d.brand_id, d.topic_id, d.class, d.recipient_id, d.address_hash, \
         d.data, d.dated_at, d.attempts, d.doubted FROM {list} JOIN deliveries d ON d.id = l.id"
    );
    let statement = Statement::from_sql_and_values(db.backend(), sql, values);
    Claimed::find_by_statement(statement).all(db.reads()).await
}

#[derive(FromQueryResult)]
struct Lost {
    id: DeliveryId,
    content_id: ContentId,
    class: Class,
    token: LeaseToken,
    begun: bool,
    begun_at: Option<i64>,
    dated_at: Option<i64>,
}

/// Decides what became of every claim whose lease ended.
async fn end_leases(txn: &Write, db: &Db, silence: Duration, moves: &mut Moves) -> Result<(), DbErr> {
    let now = db.now_sql();
    let sql = format!(
        "DELETE FROM leases WHERE token IN (SELECT token FROM leases WHERE lease_until <= {now} LIMIT 16{}) \
         RETURNING token, ids",
        skip_locked(db.backend())
    );
    for row in txn.query_all_raw(Statement::from_string(db.backend(), sql)).await? {
        let token: LeaseToken = row.try_get("", "token")?;
        let octets: Vec<u8> = row.try_get("", "ids")?;
        let mut values = vec![token.0.into()];
        let list = id_list(ids_of(&octets)).relation(db.backend(), "l", &mut values);
        // Locked in the order of their ids, as whoever settles several at once does.
        let sql = format!(
            "SELECT q.delivery_id AS id, q.content_id, q.class, q.token, q.begun, q.begun_at, q.dated_at \
             FROM {list} JOIN queue q ON q.delivery_id = l.id WHERE q.token = $1 ORDER BY q.delivery_id{}",
            super::lock_of(db.backend(), "q")
        );
        let statement = Statement::from_sql_and_values(db.backend(), sql, values);
        let lost = Lost::find_by_statement(statement).all(&**txn).await?;
        let (begun, unbegun): (Vec<_>, Vec<_>) = lost.into_iter().partition(|one| one.begun);
        metrics::counter!("tidings_leases_lost_total", "begun" => "false").increment(unbegun.len() as u64);
        metrics::counter!("tidings_leases_lost_total", "begun" => "true").increment(begun.len() as u64);
        let ids: Vec<DeliveryId> = unbegun.iter().map(|one| one.id).collect();
        give_back_on(txn, db, &ids, token, moves).await?;
        for one in begun {
            lose(txn, db, &one, silence, moves).await?;
        }
    }
    let sql = format!("DELETE FROM doubts WHERE until <= {now}");
    txn.execute_raw(Statement::from_string(db.backend(), sql)).await?;
    Ok(())
}

/// A hand-over was begun and its worker is gone: the outcome is unknown, and the class decides.
async fn lose(txn: &Write, db: &Db, one: &Lost, silence: Duration, moves: &mut Moves) -> Result<(), DbErr> {
    let now = db.now_sql();
    let run = async |sql: String, values: Vec<Value>| {
        txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await
    };
    let id: Value = one.id.0.into();
    super::turn::doubt(txn, db, &[one.id], silence).await?;
    moves.add(one.content_id, State::Sending, "", -1);
    if one.class.can_be_refused() {
        run("DELETE FROM queue WHERE delivery_id = $1".into(), vec![id.clone()]).await?;
        moves.add(one.content_id, State::Unknown, "", 1);
        let sql = format!(
            "UPDATE deliveries SET state = 'unknown', unsent = 'unknown', reason = 'lease_lost', doubted = TRUE, \
             attempts = attempts + 1, dated_at = COALESCE(dated_at, $3), settled_at = {now}, begun_at = $2, \
             ended_at = {now}, outcome = 'unknown', reply = 'the worker was lost' WHERE id = $1"
        );
        run(sql, vec![id, one.begun_at.into(), one.dated_at.into()]).await?;
        return Ok(());
    }
    let sql = format!(
        "UPDATE queue SET token = NULL, begun = FALSE, aside = NULL, due_at = {now} WHERE delivery_id = $1"
    );
    run(sql, vec![id.clone()]).await?;
    moves.add(one.content_id, State::Queued, "", 1);
    let sql = "UPDATE deliveries SET reason = 'lease_lost', doubted = TRUE, attempts = attempts + 1, \
               dated_at = COALESCE(dated_at, $2) WHERE id = $1";
    run(sql.into(), vec![id.clone(), one.dated_at.into()]).await?;
    let sql = format!(
        "INSERT INTO attempts (id, delivery_id, token, begun_at, ended_at, outcome, reply) \
         VALUES ($1, $2, $3, COALESCE($4, {now}), {now}, 'unknown', 'the worker was lost') ON CONFLICT DO NOTHING"
    );
    run(sql, vec![AttemptId::new().0.into(), id, one.token.0.into(), one.begun_at.into()]).await?;
    Ok(())
}

/// Queues again what this worker holds and has not begun.
///
/// # Errors
/// The database's own; then the lease's end does it.
pub async fn give_back(db: &Db, ids: &[DeliveryId], token: LeaseToken) -> Result<(), DbErr> {
    let txn = db.begin().await?;
    let mut moves = Moves::default();
    give_back_on(&txn, db, ids, token, &mut moves).await?;
    moves.write(&txn, db).await?;
    txn.commit().await
}

async fn give_back_on(
    txn: &Write,
    db: &Db,
    ids: &[DeliveryId],
    token: LeaseToken,
    moves: &mut Moves,
) -> Result<(), DbErr> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut values = vec![token.0.into()];
    let list = id_list(ids.iter().copied()).relation(db.backend(), "l", &mut values);
    let sql = format!(
        "UPDATE queue SET token = NULL FROM {list} \
         WHERE queue.delivery_id = l.id AND queue.token = $1 AND NOT queue.begun RETURNING queue.content_id AS id"
    );
    let statement = Statement::from_sql_and_values(db.backend(), sql, values);
    for row in Found::find_by_statement(statement).all(&**txn).await? {
        moves.add(row.id, State::Sending, "", -1);
        moves.add(row.id, State::Queued, "", 1);
    }
    Ok(())
}

/// Makes a claim last `lease` from now on. Returns whether it still stood.
///
/// # Errors
/// The database's own; the lease stays as it was then.
pub async fn renew(db: &Db, token: LeaseToken, lease: Duration) -> Result<bool, DbErr> {
    let txn = db.begin().await?;
    let sql = format!("UPDATE leases SET lease_until = {} + $2 WHERE token = $1", db.now_sql());
    let values = [token.0.into(), micros(lease).into()];
    let done = txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    txn.commit().await?;
    Ok(done.rows_affected() == 1)
}

/// Ends a claim of which nothing is held any more. Left undone, the lease's end does it.
///
/// # Errors
/// The database's own.
pub async fn release(db: &Db, token: LeaseToken) -> Result<(), DbErr> {
    // What is held for all that, because it could not be settled, is found by the lease's end.
    if !claimed_by(db, token).await?.is_empty() {
        return Ok(());
    }
    let txn = db.begin().await?;
    let sql = "DELETE FROM leases WHERE token = $1";
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, [token.0.into()])).await?;
    txn.commit().await
}
