//! Limits in the database: books, permits, who waits, and shares of the relay's connections.
//!
//! Whoever changes what a limit's book says holds the lock of its row, several in the order of their names. Time is the
//! database's, read after the locks were taken: on PostgreSQL a transaction's own time is that of its start, which may
//! lie before what others committed while it waited.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, QueryResult, Statement, Value};
use uuid::Uuid;

use super::tally::Moves;
use super::{Lane, lock_of, skip_locked};
use crate::clock::{Timestamp, micros};
use crate::db::{Db, Kind, List, Write};
use crate::delivery::State;
use crate::delivery::limit::{BackOff, Book, Heard, Limit, Name, Plan, Rate, fair_shares, room, share_out};
use crate::id::{ContentId, DeliveryId, LeaseToken};

/// How long after its limit may have room a delivery set aside comes due by itself, should nobody call it up.
const BY_ITSELF: Duration = Duration::from_secs(6 * 3600);
/// Lines that are looked at together, and deliveries called up of one.
const LINES_AT_ONCE: u64 = 50;
const CALLED_AT_ONCE: u32 = 1_000;
/// When a line is looked at again after some were called up: they need a while to ask for their permits.
const AFTER_A_CALL: Duration = Duration::from_millis(500);
const AFTER_A_FEW: Duration = Duration::from_millis(50);
/// So few are called up again and again, as messages under way end.
const A_FEW: u32 = 64;
/// How long a limit's row is kept beyond its window when nobody uses it: a warm-up counts by the day.
const KEPT_UNUSED: Duration = Duration::from_secs(2 * 24 * 3600);
/// Rows forgotten together.
const FORGOTTEN_AT_ONCE: u64 = 1_000;

/// A claimed delivery and what limits it, at least one.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Its lane: what must be sent waits before what can be refused.
    pub lane: Lane,
    /// What it needs a permit of.
    pub limits: Vec<Name>,
}

/// The rows of some limits, locked.
struct Locked {
    books: BTreeMap<Name, (Limit, Book)>,
    feeds: BTreeMap<Name, Option<Timestamp>>,
    now: Timestamp,
}

/// Asks for permits: each of these gets one of each of its limits, or is back in the queue when this returns, in the
/// line of the limit that has no room for longest, without an attempt counted. `limits` says what is set for every
/// name that occurs. Returns for each the limit that keeps it, or none when it may go. Who is asked for again under the
/// same claim gives back what it had first.
///
/// # Errors
/// The database's own. Nothing may go then; what was granted all the same ends as soon as the claim does.
pub async fn ask(
    db: &Db,
    token: LeaseToken,
    wanted: &[Wanted],
    limits: &BTreeMap<Name, Limit>,
) -> Result<Vec<Option<Name>>, DbErr> {
    let txn = db.begin().await?;
    let mut locked = lock(&txn, db, limits.clone()).await?;
    end_permits(&txn, db, &mut locked, wanted).await?;
    let names = wanted.iter().map(|one| (one.lane, one.limits.as_slice()));
    let shared = share_out(&mut locked.books, names, locked.now);
    let mut permits = List::new([("name", Kind::Text), ("id", Kind::Uuid)]);
    let mut aside = List::new([("id", Kind::Uuid), ("name", Kind::Text), ("due", Kind::Int)]);
    for (one, answer) in wanted.iter().zip(&shared) {
        match answer {
            Ok(()) => {
                for name in &one.limits {
                    permits.push([name.to_string().into(), one.delivery.0.into()]);
                }
            }
            Err((name, more_at)) => {
                // In their order: the line is walked by due time.
                let place = i64::try_from(aside.len()).unwrap_or(0);
                let due = locked.now.max(*more_at).plus(BY_ITSELF).0.saturating_add(place);
                aside.push([one.delivery.0.into(), line_of(name, one.lane).into(), due.into()]);
                let feed = locked.feeds.entry(name.clone()).or_default();
                *feed = Some(feed.map_or(*more_at, |feed| feed.min(*more_at)));
            }
        }
    }
    insert_permits(&txn, db, token, &permits).await?;
    write(&txn, db, &locked).await?;
    set_aside(&txn, db, token, &aside).await?;
    txn.commit().await?;
    Ok(shared.into_iter().map(|answer| answer.err().map(|(name, _)| name)).collect())
}

fn statement(db: &Db, sql: String, values: Vec<Value>) -> Statement {
    Statement::from_sql_and_values(db.backend(), sql, values)
}

async fn moment(on: &impl ConnectionTrait, db: &Db) -> Result<Timestamp, DbErr> {
    let sql = format!("SELECT {} AS now", db.clock().moment_sql(db.backend()));
    let row = on.query_one_raw(statement(db, sql, Vec::new())).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound("the database's clock".into()))?;
    Ok(Timestamp(row.try_get("", "now")?))
}

/// Where a delivery waits, as the queue knows it.
pub(super) fn line_of(name: &Name, lane: Lane) -> String {
    format!("{} {name}", lane as i16)
}

pub(super) fn name_list<'a>(names: impl IntoIterator<Item = &'a Name>) -> List<1> {
    List::of("name", Kind::Text, names.into_iter().map(Name::to_string))
}

/// Locks the rows of these limits, and makes those that are missing.
async fn lock(txn: &Write, db: &Db, limits: BTreeMap<Name, Limit>) -> Result<Locked, DbErr> {
    let list = name_list(limits.keys());
    let mut rows = locked_rows(txn, db, &list).await?;
    // What was just made may just be forgotten again; that is rare enough to be over at the next try.
    for _ in 0..3 {
        if rows.len() == limits.len() {
            break;
        }
        let mut values = Vec::new();
        let relation = list.relation(db.backend(), "n", &mut values);
        let sql = format!(
            "INSERT INTO limits (name, book, forget_at) SELECT n.name, '{{}}', {} + {} \
             FROM {relation} WHERE TRUE ORDER BY n.name ON CONFLICT DO NOTHING",
            db.now_sql(),
            micros(KEPT_UNUSED)
        );
        txn.execute_raw(statement(db, sql, values)).await?;
        rows = locked_rows(txn, db, &list).await?;
    }
    let now = moment(&**txn, db).await?;
    let mut locked = Locked { books: BTreeMap::new(), feeds: BTreeMap::new(), now };
    for (name, limit) in limits {
        let (mut book, feed) = rows.remove(&name).ok_or_else(|| DbErr::RecordNotFound(name.to_string()))?;
        book.back_off.lapse(now);
        locked.books.insert(name.clone(), (limit, book));
        locked.feeds.insert(name, feed);
    }
    Ok(locked)
}

async fn locked_rows(
    txn: &Write,
    db: &Db,
    list: &List<1>,
) -> Result<BTreeMap<Name, (Book, Option<Timestamp>)>, DbErr> {
    let mut values = Vec::new();
    let relation = list.relation(db.backend(), "n", &mut values);
    let sql = format!(
        "SELECT l.name, l.book, l.feed_at FROM {relation} JOIN limits l ON l.name = n.name ORDER BY l.name{}",
        lock_of(db.backend(), "l")
    );
    let rows = txn.query_all_raw(statement(db, sql, values)).await?;
    rows.iter().map(row_of).collect()
}

pub(super) fn row_of(row: &QueryResult) -> Result<(Name, (Book, Option<Timestamp>)), DbErr> {
    let broken = |why: String| DbErr::Custom(format!("a row of limits cannot be read: {why}"));
    let name: Name = row.try_get::<String>("", "name")?.parse().map_err(broken)?;
    let book = serde_json::from_str(&row.try_get::<String>("", "book")?);
    let feed: Option<Timestamp> = row.try_get("", "feed_at")?;
    Ok((name, (book.map_err(|error| broken(error.to_string()))?, feed)))
}

/// Ends the permits whose delivery is not held any more under the claim that had them, and those of whom asks again.
async fn end_permits(txn: &Write, db: &Db, locked: &mut Locked, again: &[Wanted]) -> Result<(), DbErr> {
    let mut values = Vec::new();
    let names = name_list(locked.books.keys()).relation(db.backend(), "n", &mut values);
    let asking = List::of("id", Kind::Uuid, again.iter().map(|one| one.delivery.0));
    let asking = asking.relation(db.backend(), "a", &mut values);
    let sql = format!(
        "DELETE FROM permits WHERE limit_name IN (SELECT n.name FROM {names}) \
         AND (delivery_id IN (SELECT a.id FROM {asking}) OR NOT EXISTS (SELECT 1 FROM queue q \
         WHERE q.delivery_id = permits.delivery_id AND q.token = permits.token)) RETURNING limit_name"
    );
    let mut ended: HashMap<String, u32> = HashMap::new();
    for row in txn.query_all_raw(statement(db, sql, values)).await? {
        *ended.entry(row.try_get("", "limit_name")?).or_default() += 1;
    }
    // They were in use until just now at the latest.
    locked.now = moment(&**txn, db).await?.max(locked.now);
    for (name, (limit, book)) in &mut locked.books {
        book.end(limit, ended.get(&name.to_string()).copied().unwrap_or(0), locked.now);
    }
    Ok(())
}

async fn insert_permits(txn: &Write, db: &Db, token: LeaseToken, permits: &List<2>) -> Result<(), DbErr> {
    if permits.is_empty() {
        return Ok(());
    }
    let mut values = vec![token.0.into()];
    let relation = permits.relation(db.backend(), "p", &mut values);
    let sql = format!(
        "INSERT INTO permits (limit_name, delivery_id, token) SELECT p.name, p.id, $1 FROM {relation} WHERE TRUE"
    );
    txn.execute_raw(statement(db, sql, values)).await?;
    Ok(())
}

/// Queues again, in the line of a limit, what this claim holds and has not begun.
async fn set_aside(txn: &Write, db: &Db, token: LeaseToken, aside: &List<3>) -> Result<(), DbErr> {
    if aside.is_empty() {
        return Ok(());
    }
    let mut values = vec![token.0.into()];
    let relation = aside.relation(db.backend(), "l", &mut values);
    let sql = format!(
        "UPDATE queue SET token = NULL, aside = l.name, due_at = l.due FROM {relation} \
         WHERE queue.delivery_id = l.id AND queue.token = $1 AND NOT queue.begun RETURNING queue.content_id"
    );
    let mut moves = Moves::default();
    for row in txn.query_all_raw(statement(db, sql, values)).await? {
        let content: ContentId = row.try_get("", "content_id")?;
        moves.add(content, State::Sending, "", -1);
        moves.add(content, State::Queued, "", 1);
    }
    moves.write(txn, db).await
}

async fn write(txn: &Write, db: &Db, locked: &Locked) -> Result<(), DbErr> {
    let mut list = List::new([
        ("name", Kind::Text),
        ("book", Kind::Text),
        ("heed_until", Kind::Int),
        ("feed_at", Kind::Int),
        ("forget_at", Kind::Int),
    ]);
    for (name, (limit, book)) in &locked.books {
        let window = limit.rate.map_or(Duration::ZERO, |rate| rate.window);
        let forget_at = locked.now.plus(window + KEPT_UNUSED);
        let json = serde_json::to_string(book).map_err(|error| DbErr::Custom(error.to_string()))?;
        let mut feed = locked.feeds.get(name).copied().flatten();
        if book.open > 0 {
            let soon = locked.now.plus(limit.look_again(book.back_off.width()));
            feed = Some(feed.map_or(soon, |feed| feed.min(soon)));
        }
        list.push([
            name.to_string().into(),
            json.into(),
            book.back_off.heed_until().map(|until| until.0).into(),
            feed.map(|feed| feed.0).into(),
            forget_at.0.into(),
        ]);
    }
    let mut values = Vec::new();
    let relation = list.relation(db.backend(), "l", &mut values);
    let sql = format!(
        "UPDATE limits SET book = l.book, heed_until = l.heed_until, feed_at = l.feed_at, forget_at = l.forget_at \
         FROM {relation} WHERE limits.name = l.name"
    );
    txn.execute_raw(statement(db, sql, values)).await?;
    Ok(())
}

/// Finds permits that ended, and calls up those who wait for a limit that has room again. Several processes may do so at
/// once: each looks at other limits. Returns how many were called up.
///
/// # Errors
/// The database's own; what waits comes due by itself later.
pub async fn feed(db: &Db, plan: &Plan) -> Result<u64, DbErr> {
    let txn = db.begin().await?;
    let sql = format!(
        "SELECT name, book, feed_at FROM limits WHERE feed_at IS NOT NULL AND feed_at <= {} \
         ORDER BY feed_at LIMIT {LINES_AT_ONCE}{}",
        db.clock().moment_sql(db.backend()),
        skip_locked(db.backend())
    );
    let rows = txn.query_all_raw(statement(db, sql, Vec::new())).await?;
    if rows.is_empty() {
        txn.rollback().await?;
        return Ok(0);
    }
    let now = moment(&*txn, db).await?;
    let mut locked = Locked { books: BTreeMap::new(), feeds: BTreeMap::new(), now };
    for row in &rows {
        let (name, (mut book, feed)) = row_of(row)?;
        book.back_off.lapse(now);
        let limit = match name {
            Name::Content(content) => limits_of(&*txn, &[content]).await?.remove(&content),
            _ => plan.limit(&name).cloned(),
        };
        locked.books.insert(name.clone(), (limit.unwrap_or_default(), book));
        locked.feeds.insert(name, feed);
    }
    end_permits(&txn, db, &mut locked, &[]).await?;
    let mut called = 0;
    for (name, (limit, book)) in &locked.books {
        let (mut up, mut next) = (0, None);
        for lane in Lane::ALL {
            let room = room(&limit.part_of(name, lane), book, locked.now);
            let line = line_of(name, lane);
            let most = room.free.min(CALLED_AT_ONCE).saturating_sub(up);
            let here = call_up(&txn, db, &line, most).await?;
            up += here;
            if here > 0 || anybody_waits(&txn, db, &line).await? {
                let again = match room.free {
                    0 => room.more_at,
                    1..=A_FEW => locked.now.plus(AFTER_A_FEW),
                    _ => locked.now.plus(AFTER_A_CALL),
                };
                next = Some(next.map_or(again, |next: Timestamp| next.min(again)));
            }
        }
        called += u64::from(up);
        locked.feeds.insert(name.clone(), next);
    }
    write(&txn, db, &locked).await?;
    txn.commit().await?;
    Ok(called)
}

async fn call_up(txn: &Write, db: &Db, line: &str, most: u32) -> Result<u32, DbErr> {
    if most == 0 {
        return Ok(0);
    }
    let sql = format!(
        "WITH line AS MATERIALIZED (SELECT delivery_id FROM queue WHERE aside = $1 AND token IS NULL \
         ORDER BY due_at, delivery_id LIMIT {most}{}) \
         UPDATE queue SET aside = NULL, due_at = {} FROM line WHERE queue.delivery_id = line.delivery_id",
        skip_locked(db.backend()),
        db.now_sql()
    );
    let done = txn.execute_raw(statement(db, sql, vec![line.into()])).await?;
    Ok(u32::try_from(done.rows_affected()).unwrap_or(u32::MAX))
}

async fn anybody_waits(txn: &Write, db: &Db, line: &str) -> Result<bool, DbErr> {
    let sql = "SELECT 1 AS one FROM queue WHERE aside = $1 AND token IS NULL LIMIT 1".to_owned();
    Ok(txn.query_one_raw(statement(db, sql, vec![line.into()])).await?.is_some())
}

/// What a worker keeps an eye on.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The database's time.
    pub now: Timestamp,
    /// What destinations and relay said, as far as it still counts.
    pub backing_off: HashMap<Name, BackOff>,
    /// When the first line is to be looked at.
    pub feed_at: Option<Timestamp>,
    /// What is remembered of the relay's own limit.
    pub relay: Option<Book>,
}

/// Looks at what is backed off from and who waits.
///
/// # Errors
/// The database's own.
pub async fn watch(db: &Db) -> Result<Watched, DbErr> {
    let sql = format!(
        "SELECT name, book, feed_at, {now} AS now FROM limits WHERE heed_until > {now} UNION ALL \
         SELECT name, book, feed_at, {now} FROM limits WHERE name = 'relay' UNION ALL \
         SELECT 'clock', '{{}}', (SELECT MIN(feed_at) FROM limits WHERE feed_at IS NOT NULL), {now}",
        now = db.clock().moment_sql(db.backend())
    );
    let mut watched = Watched { now: Timestamp(0), backing_off: HashMap::new(), feed_at: None, relay: None };
    for row in db.reads().query_all_raw(statement(db, sql, Vec::new())).await? {
        watched.now = Timestamp(row.try_get("", "now")?);
        if row.try_get::<String>("", "name")? == "clock" {
            watched.feed_at = row.try_get("", "feed_at")?;
            continue;
        }
        let (name, (mut book, _)) = row_of(&row)?;
        book.back_off.lapse(watched.now);
        if !book.back_off.is_over() {
            watched.backing_off.insert(name.clone(), book.back_off);
        }
        if name == Name::Relay {
            watched.relay = Some(book);
        }
    }
    Ok(watched)
}

/// Takes in what destinations and relay said, in this order. Returns what it amounts to for each.
///
/// # Errors
/// The database's own; then it was not heard.
pub async fn hear(db: &Db, said: &[(Name, Heard)], plan: &Plan) -> Result<HashMap<Name, BackOff>, DbErr> {
    let limits =
        said.iter().map(|(name, _)| (name.clone(), plan.limit(name).cloned().unwrap_or_default())).collect();
    let txn = db.begin().await?;
    let mut locked = lock(&txn, db, limits).await?;
    for (name, heard) in said {
        if let Some((_, book)) = locked.books.get_mut(name) {
            book.back_off.hear(name, *heard, locked.now);
        }
    }
    write(&txn, db, &locked).await?;
    txn.commit().await?;
    Ok(locked.books.into_iter().map(|(name, (_, book))| (name, book.back_off)).collect())
}

/// Has every line looked at anew: the settings may give it more room than when it was looked at last.
///
/// # Errors
/// The database's own.
pub async fn look_anew(db: &Db, name: Option<&Name>) -> Result<(), DbErr> {
    let txn = db.begin().await?;
    look_anew_on(&txn, db, name).await?;
    txn.commit().await
}

async fn look_anew_on(txn: &Write, db: &Db, name: Option<&Name>) -> Result<(), DbErr> {
    let only = if name.is_some() { " AND name = $1" } else { "" };
    let sql = format!("UPDATE limits SET feed_at = {} WHERE feed_at IS NOT NULL{only}", db.now_sql());
    let values = name.iter().map(|name| name.to_string().into()).collect();
    txn.execute_raw(statement(db, sql, values)).await?;
    Ok(())
}

/// Forgets limits that nobody has used for so long that nothing counts any more.
///
/// # Errors
/// The database's own.
pub async fn forget(db: &Db) -> Result<(), DbErr> {
    let txn = db.begin().await?;
    let sql = format!(
        "DELETE FROM limits WHERE name IN (SELECT name FROM limits WHERE forget_at <= {} AND feed_at IS NULL \
         AND NOT EXISTS (SELECT 1 FROM permits p WHERE p.limit_name = limits.name) LIMIT {FORGOTTEN_AT_ONCE}{})",
        db.now_sql(),
        skip_locked(db.backend())
    );
    txn.execute_raw(statement(db, sql, Vec::new())).await?;
    txn.commit().await
}

#[derive(FromQueryResult)]
struct ContentLimit {
    content_id: ContentId,
    messages: Option<i64>,
    per_seconds: Option<i64>,
    connections: Option<i64>,
}

/// The limits that these contents set themselves.
///
/// # Errors
/// The database's own.
pub async fn limits_of(
    on: &impl ConnectionTrait,
    contents: &[ContentId],
) -> Result<HashMap<ContentId, Limit>, DbErr> {
    let list = List::of("id", Kind::Uuid, contents.iter().map(|content| content.0));
    let mut values = Vec::new();
    let relation = list.relation(on.get_database_backend(), "c", &mut values);
    let sql = format!(
        "SELECT l.content_id, l.messages, l.per_seconds, l.connections FROM {relation} \
         JOIN content_limits l ON l.content_id = c.id"
    );
    let rows = ContentLimit::find_by_statement(Statement::from_sql_and_values(
        on.get_database_backend(),
        sql,
        values,
    ))
    .all(on)
    .await?;
    let small = |number: i64| u32::try_from(number).ok();
    let limit =
        |row: &ContentLimit| Limit {
            rate: row.messages.and_then(small).zip(row.per_seconds.and_then(small)).map(
                |(messages, seconds)| Rate { messages, window: Duration::from_secs(u64::from(seconds)) },
            ),
            at_once: row.connections.and_then(small),
            warm_up: None,
        };
    Ok(rows.iter().map(|row| (row.content_id, limit(row))).collect())
}

/// Sets the limit of a content, or takes it away.
///
/// # Errors
/// The database's own.
pub async fn limit_content(
    txn: &Write,
    db: &Db,
    content: ContentId,
    limit: Option<&Limit>,
) -> Result<(), DbErr> {
    let sql = "DELETE FROM content_limits WHERE content_id = $1".to_owned();
    txn.execute_raw(statement(db, sql, vec![content.0.into()])).await?;
    if let Some(limit) = limit {
        let sql = "INSERT INTO content_limits (content_id, messages, per_seconds, connections) \
                   VALUES ($1, $2, $3, $4)";
        let seconds = limit.rate.map(|rate| i64::try_from(rate.window.as_secs()).unwrap_or(i64::MAX));
        let values = vec![
            content.0.into(),
            limit.rate.map(|rate| i64::from(rate.messages)).into(),
            seconds.into(),
            limit.at_once.map(i64::from).into(),
        ];
        txn.execute_raw(statement(db, sql.to_owned(), values)).await?;
    }
    look_anew_on(txn, db, Some(&Name::Content(content))).await
}

/// What a worker process has and wants of the relay's connections.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// The process.
    pub process: Uuid,
    /// Connections that are open, or being opened.
    pub open: u32,
    /// Connections that it could use.
    pub wanted: u32,
    /// How long the share lasts unless it is asked for again.
    pub lease: Duration,
}

/// Asks for a share of the `most` connections to the relay, and renews it. Returns how many the process may have from
/// now on; what is open beyond that keeps counting until it was closed and this was asked again. After the share's
/// lease nothing may be written over any of them.
///
/// # Errors
/// The database's own; the share stays as it was.
pub async fn share(db: &Db, most: u32, mine: Share) -> Result<u32, DbErr> {
    let txn = db.begin().await?;
    // One at a time, by the lock of the relay's row.
    let locked = lock(&txn, db, BTreeMap::from([(Name::Relay, Limit::default())])).await?;
    let sql = "DELETE FROM relay_shares WHERE lease_until <= $1".to_owned();
    txn.execute_raw(statement(db, sql, vec![locked.now.0.into()])).await?;
    let sql = "SELECT process, connections, wanted FROM relay_shares WHERE process <> $1".to_owned();
    let (mut taken, mut everybody) = (0_u32, vec![(mine.process, mine.wanted)]);
    for row in txn.query_all_raw(statement(db, sql, vec![mine.process.into()])).await? {
        taken = taken.saturating_add(u32::try_from(row.try_get::<i64>("", "connections")?).unwrap_or(0));
        let wanted = u32::try_from(row.try_get::<i64>("", "wanted")?).unwrap_or(0);
        everybody.push((row.try_get("", "process")?, wanted));
    }
    everybody.sort_unstable();
    let wanted: Vec<u32> = everybody.iter().map(|(_, wanted)| *wanted).collect();
    let place = everybody.iter().position(|(process, _)| *process == mine.process).unwrap_or(0);
    let fair = fair_shares(most, &wanted).get(place).copied().unwrap_or(0);
    let allowed = fair.min(most.saturating_sub(taken));
    let sql = "INSERT INTO relay_shares (process, connections, wanted, lease_until) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (process) DO UPDATE SET connections = excluded.connections, wanted = excluded.wanted, \
               lease_until = excluded.lease_until";
    let values = vec![
        mine.process.into(),
        i64::from(allowed.max(mine.open)).into(),
        i64::from(mine.wanted).into(),
        locked.now.plus(mine.lease).0.into(),
    ];
    txn.execute_raw(statement(db, sql.to_owned(), values)).await?;
    txn.commit().await?;
    Ok(allowed)
}

/// Gives the share back: every connection is closed.
///
/// # Errors
/// The database's own; then the lease's end does it.
pub async fn leave(db: &Db, process: Uuid) -> Result<(), DbErr> {
    let txn = db.begin().await?;
    let sql = "DELETE FROM relay_shares WHERE process = $1".to_owned();
    txn.execute_raw(statement(db, sql, vec![process.into()])).await?;
    txn.commit().await
}
