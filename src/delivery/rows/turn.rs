//! A turn: what came to its end is settled, what comes next is begun, and its facts are read, in one transaction.
//!
//! Each names its claim by the token and may be repeated when its COMMIT stays unanswered.

use std::collections::HashMap;
use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, FromQueryResult, QueryResult, Statement, Value};

use super::claim::Claimed;
use super::tally::{ADD, Moves, shard_of_turns};
use crate::clock::{Timestamp, micros};
use crate::db::{Db, Kind, List, Write};
use crate::decision::{Facts, Reason};
use crate::delivery::State;
use crate::id::{AttemptId, DeliveryId, LeaseToken};
use crate::opt_out::rows::{FACTS, facts_of_p, scope_keys, to_facts};

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
    /// What was handed over, where that is to be proved.
    pub proof: Option<Proof>,
}

/// By what a message that was handed over can be known again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// SHA-256 of header and body.
    pub sha256: Vec<u8>,
    /// The Message-ID without brackets.
    pub message_id: String,
}

/// What is settled.
#[derive(Clone, Debug)]
pub struct Settling {
    /// What this worker holds.
    pub held: Claimed,
    /// Its claim.
    pub token: LeaseToken,
    /// How the claim ends.
    pub fate: Fate,
    /// What the attempt brought, if one was begun.
    pub attempt: Option<Attempt>,
}

/// What is begun.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// What this worker holds.
    pub held: Claimed,
    /// Its claim.
    pub token: LeaseToken,
    /// The message's Date, which stays over retries.
    pub date: Timestamp,
}

/// What a turn brought.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    /// How many of those to be settled were still held; the others were decided by somebody else, and nothing was changed.
    pub settled: usize,
    /// What was begun, with facts read later than the claim was committed. What is missing here was taken back, or its
    /// campaign was held or its time is over: no octet of it may be written.
    pub begun: HashMap<DeliveryId, Facts>,
}

/// Settles and begins in one transaction, in this order.
///
/// # Errors
/// The database's own. After an unanswered COMMIT it may be repeated: what was settled is found gone, what was begun
/// counts once.
pub async fn turn(
    db: &Db,
    settlings: &[Settling],
    beginnings: &[Beginning],
    silence: Duration,
) -> Result<Turn, DbErr> {
    let plain = |attempt: &Attempt| attempt.proof.is_none();
    let all_sent =
        settlings.iter().all(|one| one.fate == Fate::Sent && one.attempt.as_ref().is_some_and(plain));
    if db.backend() == DbBackend::Postgres && all_sent {
        return turn_at_once(db, settlings, beginnings).await;
    }
    if all_sent && let Some(turn) = turn_of_sent(db, settlings, beginnings).await? {
        return Ok(turn);
    }
    let txn = db.begin().await?;
    let mut moves = Moves::default();
    let settled = settle_on(&txn, db, settlings, silence, &mut moves).await?;
    let begun = begin_on(&txn, db, beginnings).await?;
    moves.write(&txn, db).await?;
    txn.commit().await?;
    Ok(Turn { settled, begun })
}

/// Begins alone; see [`turn`].
///
/// # Errors
/// As [`turn`].
pub async fn begin(db: &Db, beginning: &Beginning) -> Result<Option<Facts>, DbErr> {
    let mut turn = turn(db, &[], std::slice::from_ref(beginning), Duration::ZERO).await?;
    Ok(turn.begun.remove(&beginning.held.id))
}

/// Settles alone; see [`turn`]. Returns whether the claim still stood.
///
/// # Errors
/// As [`turn`].
pub async fn settle(db: &Db, settling: &Settling, silence: Duration) -> Result<bool, DbErr> {
    Ok(turn(db, std::slice::from_ref(settling), &[], silence).await?.settled == 1)
}

/// The state in which this leaves the delivery, and why.
fn end_of(settling: &Settling) -> (State, Option<String>) {
    let held = &settling.held;
    let plain = |state: State| if held.doubted { State::Unknown } else { state };
    let unknown = || Some("outcome_unknown".to_owned());
    match &settling.fate {
        Fate::Sent => (State::Sent, None),
        Fate::Suppressed(reason) => (plain(State::Suppressed), Some(reason.as_str().to_owned())),
        Fate::Failed(why) => (plain(State::Failed), Some(why.clone())),
        Fate::Again(_) => (State::Queued, None),
        Fate::Doubtful => (State::Unknown, unknown()),
        Fate::Unknown(_) if held.class.can_be_refused() => (State::Unknown, unknown()),
        Fate::Unknown(_) => (State::Queued, unknown()),
    }
}

#[derive(FromQueryResult)]
struct Standing {
    id: DeliveryId,
    begun_at: Option<i64>,
    dated_at: Option<i64>,
}

async fn settle_on(
    txn: &Write,
    db: &Db,
    settlings: &[Settling],
    silence: Duration,
    moves: &mut Moves,
) -> Result<usize, DbErr> {
    if settlings.is_empty() {
        return Ok(0);
    }
    let standing = still_held(txn, db, settlings).await?;
    let stood = || settlings.iter().filter_map(|one| Some((one, standing.get(&one.held.id)?)));
    let mut ends = List::new([
        ("id", Kind::Uuid),
        ("state", Kind::Text),
        ("reason", Kind::Text),
        ("wait", Kind::Int),
        ("doubt", Kind::Bool),
        ("begun_at", Kind::Int),
        ("dated_at", Kind::Int),
        ("outcome", Kind::Text),
        ("phase", Kind::Text),
        ("code", Kind::Int),
        ("enhanced", Kind::Text),
        ("reply", Kind::Text),
        ("attempt_id", Kind::Uuid),
        ("token", Kind::Uuid),
    ]);
    let mut doubts = Vec::new();
    let mut again = false;
    for (one, row) in stood() {
        let (state, reason) = end_of(one);
        again |= state == State::Queued;
        moves.add(one.held.content_id, State::Sending, "", -1);
        moves.add(one.held.content_id, state, reason.as_deref().unwrap_or_default(), 1);
        let doubt = matches!(one.fate, Fate::Unknown(_) | Fate::Doubtful);
        if doubt {
            doubts.push(one.held.id);
        }
        let wait = match &one.fate {
            Fate::Again(wait) | Fate::Unknown(wait) => micros(*wait),
            _ => 0,
        };
        let attempt = one.attempt.as_ref();
        ends.push([
            one.held.id.0.into(),
            state.as_str().into(),
            reason.map(without_nul).into(),
            wait.into(),
            doubt.into(),
            row.begun_at.into(),
            row.dated_at.into(),
            attempt.map(|attempt| attempt.outcome).into(),
            attempt.and_then(|attempt| attempt.phase).into(),
            attempt.and_then(|attempt| attempt.code).map(i64::from).into(),
            attempt.and_then(|attempt| attempt.enhanced.clone()).into(),
            attempt.map(|attempt| without_nul(attempt.reply.clone())).into(),
            AttemptId::new().0.into(),
            one.token.0.into(),
        ]);
    }
    doubt(txn, db, &doubts, silence).await?;
    write_ends(txn, db, &ends, again).await?;
    let proofs = stood().filter_map(|(one, _)| Some((one.held.id, one.attempt.as_ref()?.proof.clone()?)));
    keep_proofs(txn, db, proofs.collect()).await?;
    for (one, _) in stood() {
        if one.attempt.as_ref().is_some_and(|attempt| attempt.mailbox_gone) {
            crate::opt_out::rows::record_failure(txn, db, &one.held.address_hash).await?;
        }
    }
    Ok(standing.len())
}

/// What becomes of a delivery that was sent.
const SENT: &str = "state = 'sent', reason = NULL, attempts = attempts + 1, \
    dated_at = COALESCE(deliveries.dated_at, gone.dated_at), begun_at = gone.begun_at, \
    outcome = 'sent', phase = NULL, code = gone.code, enhanced = gone.enhanced, reply = gone.reply";

fn sent_list(settlings: &[Settling]) -> List<5> {
    let mut sent = List::new([
        ("id", Kind::Uuid),
        ("token", Kind::Uuid),
        ("code", Kind::Int),
        ("enhanced", Kind::Text),
        ("reply", Kind::Text),
    ]);
    for one in settlings {
        let attempt = one.attempt.as_ref();
        sent.push([
            one.held.id.0.into(),
            one.token.0.into(),
            attempt.and_then(|attempt| attempt.code).map(i64::from).into(),
            attempt.and_then(|attempt| attempt.enhanced.clone()).into(),
            attempt.map(|attempt| without_nul(attempt.reply.clone())).into(),
        ]);
    }
    sent
}

/// The same for what mostly happens on SQLite, everything sent and still held: with one writer, nothing need be locked and
/// read first. None, and nothing changed, when something is not held any more.
async fn turn_of_sent(
    db: &Db,
    settlings: &[Settling],
    beginnings: &[Beginning],
) -> Result<Option<Turn>, DbErr> {
    let txn = db.begin().await?;
    let mut moves = Moves::default();
    if !settlings.is_empty() {
        let mut values = Vec::new();
        let sent = sent_list(settlings).relation(db.backend(), "s", &mut values);
        let held = format!("{sent} JOIN queue q ON q.delivery_id = s.id AND q.token = s.token");
        let now = db.now_sql();
        let sql = format!(
            "UPDATE deliveries SET {SENT}, settled_at = {now}, ended_at = {now} \
             FROM (SELECT s.*, q.begun_at, q.dated_at FROM {held}) AS gone WHERE deliveries.id = gone.id"
        );
        txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values.clone())).await?;
        let sql = format!("DELETE FROM queue WHERE delivery_id IN (SELECT q.delivery_id FROM {held})");
        let gone = txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
        if gone.rows_affected() != settlings.len() as u64 {
            txn.rollback().await?;
            return Ok(None);
        }
        for one in settlings {
            moves.add(one.held.content_id, State::Sending, "", -1);
            moves.add(one.held.content_id, State::Sent, "", 1);
        }
    }
    let begun = begin_on(&txn, db, beginnings).await?;
    moves.write(&txn, db).await?;
    txn.commit().await?;
    Ok(Some(Turn { settled: settlings.len(), begun }))
}

fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "") } else { text }
}

/// Locks what is still held under its token, in the order of ids.
async fn still_held(
    txn: &Write,
    db: &Db,
    settlings: &[Settling],
) -> Result<HashMap<DeliveryId, Standing>, DbErr> {
    let mut list = List::new([("id", Kind::Uuid), ("token", Kind::Uuid)]);
    for one in settlings {
        list.push([one.held.id.0.into(), one.token.0.into()]);
    }
    let mut values = Vec::new();
    let list = list.relation(db.backend(), "l", &mut values);
    let sql = format!(
        "SELECT q.delivery_id AS id, q.begun_at, q.dated_at FROM {list} \
         JOIN queue q ON q.delivery_id = l.id AND q.token = l.token ORDER BY q.delivery_id{}",
        super::lock_of(db.backend(), "q")
    );
    let statement = Statement::from_sql_and_values(db.backend(), sql, values);
    let rows = Standing::find_by_statement(statement).all(&**txn).await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

/// Keeps by what messages that were handed over can be known again.
async fn keep_proofs(txn: &Write, db: &Db, proofs: Vec<(DeliveryId, Proof)>) -> Result<(), DbErr> {
    if proofs.is_empty() {
        return Ok(());
    }
    let mut list = List::new([("id", Kind::Uuid), ("sha256", Kind::Bytes), ("message_id", Kind::Text)]);
    for (id, proof) in proofs {
        list.push([id.0.into(), proof.sha256.into(), proof.message_id.into()]);
    }
    let mut values = Vec::new();
    let list = list.relation(db.backend(), "l", &mut values);
    let sql = format!(
        "UPDATE deliveries SET message_sha256 = l.sha256, message_id = l.message_id FROM {list} WHERE deliveries.id = l.id"
    );
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    Ok(())
}

/// Writes how claims ended; `again` tells whether anything is tried again.
async fn write_ends(txn: &Write, db: &Db, ends: &List<14>, again: bool) -> Result<(), DbErr> {
    if ends.is_empty() {
        return Ok(());
    }
    let now = db.now_sql();
    let mut values: Vec<Value> = Vec::new();
    let l = ends.relation(db.backend(), "l", &mut values);
    let run = async |sql: String| {
        let statement = Statement::from_sql_and_values(db.backend(), sql, values.clone());
        txn.execute_raw(statement).await
    };
    run(format!("DELETE FROM queue WHERE delivery_id IN (SELECT l.id FROM {l} WHERE l.state <> 'queued')"))
        .await?;
    // An attempt that ends the delivery is kept in its row, one after which it is tried again beside it.
    let tried = "l.outcome IS NOT NULL AND l.state <> 'queued'";
    run(format!(
            "UPDATE deliveries SET state = CASE WHEN l.state = 'queued' THEN 'open' ELSE l.state END, \
             unsent = CASE WHEN l.state IN ('queued', 'sent') THEN NULL ELSE l.state END, reason = l.reason, \
             doubted = doubted OR l.doubt, attempts = attempts + CASE WHEN l.outcome IS NULL THEN 0 ELSE 1 END, \
             dated_at = COALESCE(deliveries.dated_at, CASE WHEN l.outcome IS NULL THEN NULL ELSE l.dated_at END), \
             settled_at = CASE WHEN l.state = 'queued' THEN NULL ELSE {now} END, \
             begun_at = CASE WHEN {tried} THEN l.begun_at ELSE deliveries.begun_at END, \
             ended_at = CASE WHEN {tried} THEN {now} ELSE deliveries.ended_at END, \
             outcome = CASE WHEN {tried} THEN l.outcome ELSE deliveries.outcome END, \
             phase = CASE WHEN {tried} THEN l.phase ELSE deliveries.phase END, \
             code = CASE WHEN {tried} THEN l.code ELSE deliveries.code END, \
             enhanced = CASE WHEN {tried} THEN l.enhanced ELSE deliveries.enhanced END, \
             reply = CASE WHEN {tried} THEN l.reply ELSE deliveries.reply END \
             FROM {l} WHERE deliveries.id = l.id"
    ))
    .await?;
    if !again {
        return Ok(());
    }
    run(format!(
        "UPDATE queue SET token = NULL, begun = FALSE, aside = NULL, due_at = {now} + l.wait FROM {l} \
             WHERE queue.delivery_id = l.id AND l.state = 'queued'"
    ))
    .await?;
    run(format!(
            "INSERT INTO attempts (id, delivery_id, token, begun_at, ended_at, outcome, phase, code, enhanced, reply) \
             SELECT l.attempt_id, l.id, l.token, COALESCE(l.begun_at, {now}), {now}, l.outcome, l.phase, l.code, \
             l.enhanced, l.reply FROM {l} WHERE l.state = 'queued' AND l.outcome IS NOT NULL ON CONFLICT DO NOTHING"
    ))
    .await?;
    Ok(())
}

/// Notes that these hand-overs may still reach the relay for `silence` from now on.
pub(super) async fn doubt(txn: &Write, db: &Db, ids: &[DeliveryId], silence: Duration) -> Result<(), DbErr> {
    if ids.is_empty() {
        return Ok(());
    }
    let list = List::of("id", Kind::Uuid, ids.iter().map(|id| id.0));
    let mut values = vec![micros(silence).into()];
    let list = list.relation(db.backend(), "l", &mut values);
    let sql = format!(
        "INSERT INTO doubts (delivery_id, brand_id, topic_id, class, address_hash, until) \
         SELECT d.id, d.brand_id, d.topic_id, d.class, d.address_hash, {} + $1 \
         FROM {list} JOIN deliveries d ON d.id = l.id WHERE TRUE ORDER BY d.id \
         ON CONFLICT (delivery_id) DO UPDATE SET until = excluded.until",
        db.now_sql()
    );
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    Ok(())
}

/// Marks what comes next as begun. Nothing begins whose claim is gone, whose campaign was held since it was claimed, or
/// whose time is over.
fn begin_sql(db: &Db, list: &str) -> String {
    format!(
        "UPDATE queue SET begun = TRUE, begun_at = CASE WHEN begun THEN begun_at ELSE {now} END, \
         dated_at = b.date FROM {list} WHERE queue.delivery_id = b.id AND queue.token = b.token AND (begun \
         OR ((not_after IS NULL OR not_after > {now}) \
         AND NOT EXISTS (SELECT 1 FROM contents c WHERE c.id = queue.content_id AND c.held)))",
        now = db.now_sql()
    )
}

fn begin_list(beginnings: &[Beginning]) -> List<3> {
    let mut list = List::new([("id", Kind::Uuid), ("token", Kind::Uuid), ("date", Kind::Int)]);
    for one in beginnings {
        list.push([one.held.id.0.into(), one.token.0.into(), one.date.0.into()]);
    }
    list
}

/// Whose facts are wanted about which topics: see [`facts_of_p`].
fn facts_list(beginnings: &[Beginning]) -> List<6> {
    let mut list = List::new([
        ("id", Kind::Uuid),
        ("token", Kind::Uuid),
        ("address_hash", Kind::Bytes),
        ("topic_id", Kind::Uuid),
        ("brand_key", Kind::Text),
        ("topic_key", Kind::Text),
    ]);
    for one in beginnings {
        let (brand, topic) = scope_keys(one.held.brand_id, one.held.topic_id);
        let hash = one.held.address_hash.0.clone();
        list.push([
            one.held.id.0.into(),
            one.token.0.into(),
            hash.into(),
            one.held.topic_id.0.into(),
            brand.into(),
            topic.into(),
        ]);
    }
    list
}

async fn begin_on(
    txn: &Write,
    db: &Db,
    beginnings: &[Beginning],
) -> Result<HashMap<DeliveryId, Facts>, DbErr> {
    if beginnings.is_empty() {
        return Ok(HashMap::new());
    }
    let mut values = Vec::new();
    let sql = begin_sql(db, &begin_list(beginnings).relation(db.backend(), "b", &mut values));
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    // A statement of its own: its snapshot is later than the commit of every claim that is begun here.
    let mut values = Vec::new();
    let people = facts_list(beginnings).relation(db.backend(), "f", &mut values);
    let sql = format!(
        "SELECT p.id, {FACTS} FROM (SELECT f.* FROM {people} JOIN queue q ON q.delivery_id = f.id \
         AND q.token = f.token AND q.begun) AS p {}",
        facts_of_p(db.backend())
    );
    let rows = txn.query_all_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    rows.iter().map(fact).collect()
}

fn fact(row: &QueryResult) -> Result<(DeliveryId, Facts), DbErr> {
    Ok((row.try_get("", "id")?, to_facts(row)?))
}

/// The same for what mostly happens, everything sent, in one statement and one round trip. Its snapshot is taken when it
/// starts, so later than the commit of every claim that it names.
async fn turn_at_once(db: &Db, settlings: &[Settling], beginnings: &[Beginning]) -> Result<Turn, DbErr> {
    let now = db.now_sql();
    let mut values = Vec::new();
    let sent = sent_list(settlings).relation(DbBackend::Postgres, "s", &mut values);
    let begins = begin_list(beginnings).relation(DbBackend::Postgres, "b", &mut values);
    let people = facts_list(beginnings).relation(DbBackend::Postgres, "f", &mut values);
    let sql = format!(
        "WITH gone AS (DELETE FROM queue USING {sent} WHERE queue.delivery_id = s.id AND queue.token = s.token \
         RETURNING queue.delivery_id, queue.content_id, queue.begun_at, queue.dated_at, s.code, s.enhanced, s.reply), \
         kept AS (UPDATE deliveries SET {SENT}, settled_at = {now}, ended_at = {now} FROM gone WHERE deliveries.id = gone.delivery_id), \
         counted AS (INSERT INTO tally (content_id, shard, state, reason, n) \
         SELECT g.content_id, {shard}, w.word, '', w.sign * g.n \
         FROM (SELECT content_id, COUNT(*) AS n FROM gone GROUP BY content_id) AS g \
         CROSS JOIN (VALUES ('sending', -1), ('sent', 1)) AS w (word, sign) ORDER BY g.content_id, w.word {ADD}), \
         begun AS ({begin} RETURNING queue.delivery_id), \
         known AS (SELECT p.id AS known_id, {FACTS} FROM (SELECT f.* FROM {people} \
         JOIN begun ON begun.delivery_id = f.id) AS p {facts}) \
         SELECT g.settled, known.known_id AS id, known.* \
         FROM (SELECT COUNT(*) AS settled FROM gone) AS g LEFT JOIN known ON TRUE",
        shard = shard_of_turns(DbBackend::Postgres),
        begin = begin_sql(db, &begins),
        facts = facts_of_p(DbBackend::Postgres),
    );
    let rows = db.at_once(Statement::from_sql_and_values(DbBackend::Postgres, sql, values)).await?;
    let mut turn = Turn::default();
    for row in &rows {
        let settled: i64 = row.try_get("", "settled")?;
        turn.settled = usize::try_from(settled).unwrap_or(0);
        if row.try_get::<Option<DeliveryId>>("", "id")?.is_some() {
            let (id, facts) = fact(row)?;
            turn.begun.insert(id, facts);
        }
    }
    Ok(turn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_a_database_cannot_hold_loses_only_its_nul() {
        assert_eq!(without_nul("a\0b".to_owned()), "ab");
    }
}
