//! How fast messages go, so that a notice knows when its last one will.

use std::time::Duration;

use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue, ConnectionTrait, FromQueryResult, IntoActiveModel, QueryOrder, Statement, Value};

use super::{Notice, RoundText, Told, counts, evidence, newest, notice, telling_round, texts};
use crate::app::App;
use crate::clock::{Timestamp, micros};
use crate::config::Limited;
use crate::db::{Db, Write};
use crate::delivery;
use crate::id::NoticeId;
use crate::notice::clock::{Outlook, Sample, measured};
use crate::notice::evidence::{Kind, body};
use crate::notice::{RoundState, State};
use crate::policy;
use crate::recipient::rows::{Accounts, Span, count_accounts};

/// How far apart two looks at what was handed over are.
const APART: Duration = Duration::from_secs(10);
/// For how long a worker that was not heard of counts as alive.
const ALIVE: Duration = Duration::from_secs(60);

/// What a look at the clock found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The notice.
    pub notice: NoticeId,
    /// Whether it has become known now that it will be late; else that it will be in time after all.
    pub late: bool,
    /// When the last one will be told; none while nobody sends.
    pub projected_end: Option<Timestamp>,
    /// By when everyone is to be told.
    pub complete_by: Timestamp,
}

#[derive(FromQueryResult)]
struct Kept {
    sampled_at: i64,
    sent: i64,
    waited: bool,
    per_thousand_seconds: Option<i64>,
}

/// Looks at what was handed over since the last look, unless that was a moment ago, and at the clocks of the notices that
/// run. Gives those of which it has become known that they will be late, or in time after all; none at all where somebody
/// looked a moment ago.
///
/// # Errors
/// The database's own.
pub async fn keep_pace(app: &App) -> Result<Option<Vec<Beat>>, DbErr> {
    let db = &app.db;
    let now = db.read_clock(db.reads()).await?;
    let before = kept(db.reads()).await?;
    if before.as_ref().is_some_and(|before| now.0 - before.sampled_at < micros(APART)) {
        return Ok(None);
    }
    let txn = db.begin().await?;
    sample(&txn, db, now).await?;
    let mut beats = Vec::new();
    let running = notice::Entity::find()
        .filter(notice::Column::State.eq(State::Running))
        .filter(notice::Column::ClosedAt.is_null())
        .order_by_asc(notice::Column::Id)
        .all(&*txn)
        .await?;
    for notice in running {
        beats.extend(judge(&txn, app, notice, now).await?);
    }
    txn.commit().await?;
    Ok(Some(beats))
}

async fn judge(txn: &Write, app: &App, notice: Notice, now: Timestamp) -> Result<Option<Beat>, DbErr> {
    // Whoever looks is a worker, whether or not it has shown itself yet.
    let told = counts(&**txn, &notice).await?;
    let outlook = Outlook { sending: true, ..outlook(&**txn, app, &notice, told).await? };
    let projected_end = outlook.projected_end(now);
    let completed = telling_round(&**txn, notice.id).await?.and_then(|round| round.completed_at);
    let late = completed.or(projected_end).is_none_or(|end| end > notice.complete_by);
    if late == notice.late_since.is_some() {
        return Ok(None);
    }
    let beat = Beat { notice: notice.id, late, projected_end, complete_by: notice.complete_by };
    let mut row = notice.into_active_model();
    row.late_since = ActiveValue::Set(late.then_some(now));
    notice::Entity::update(row).exec(&**txn).await?;
    if late {
        let body = body::Late { complete_by: beat.complete_by, projected_end };
        evidence::append(txn, &app.db, beat.notice, Kind::Late, None, &body).await?;
    }
    Ok(Some(beat))
}

async fn kept(on: &impl ConnectionTrait) -> Result<Option<Kept>, DbErr> {
    let sql = "SELECT sampled_at, sent, waited, per_thousand_seconds FROM pace WHERE id = 1";
    Kept::find_by_statement(Statement::from_string(on.get_database_backend(), sql)).one(on).await
}

async fn sample(txn: &Write, db: &Db, now: Timestamp) -> Result<(), DbErr> {
    let sent = delivery::rows::handed_over(&**txn).await?;
    let waited = delivery::rows::anything_waits(db, &**txn).await?;
    let after = Sample { at: now, sent, waited };
    let rate = match kept(&**txn).await? {
        Some(before) => {
            let known = before.per_thousand_seconds.map(|rate| rate as f64 / 1000.0);
            let at = Timestamp(before.sampled_at);
            let sent = u64::try_from(before.sent).unwrap_or(0);
            measured(known, Sample { at, sent, waited: before.waited }, after)
        }
        None => None,
    };
    let rate = rate.map(|rate| (rate * 1000.0).round().clamp(0.0, 1e15) as i64);
    let sql = "INSERT INTO pace (id, sampled_at, sent, waited, per_thousand_seconds) VALUES (1, $1, $2, $3, $4) \
        ON CONFLICT (id) DO UPDATE SET sampled_at = excluded.sampled_at, sent = excluded.sent, \
        waited = excluded.waited, per_thousand_seconds = excluded.per_thousand_seconds";
    let sent = i64::try_from(sent).unwrap_or(i64::MAX);
    let values: [Value; 4] = [now.0.into(), sent.into(), waited.into(), rate.into()];
    txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await?;
    Ok(())
}

/// What the queue and the relay look like without any notice: for `pending` people who would be told now.
///
/// # Errors
/// The database's own.
pub(super) async fn outlook_for(
    on: &impl ConnectionTrait,
    app: &App,
    pending: u64,
) -> Result<Outlook, DbErr> {
    let rate = kept(on).await?.and_then(|kept| kept.per_thousand_seconds).map(|rate| rate as f64 / 1000.0);
    let depths = delivery::rows::depths(&app.db, on).await?;
    let service = depths.iter().filter(|depth| !depth.class.can_be_refused());
    let waiting: i64 = service.map(|depth| depth.queued + depth.sending).sum();
    let alive = delivery::rows::last_beat(&app.db, on).await?.is_some_and(|ago| ago < ALIVE);
    let relay = app.settings.limits.iter().find(|entry| entry.limited == Limited::Relay);
    let allowed = relay.and_then(|entry| entry.rate).map(|(n, window)| f64::from(n) / window.as_secs_f64());
    Ok(Outlook {
        pending,
        beside: u64::try_from(waiting).unwrap_or(0),
        measured_per_second: rate,
        allowed_per_second: allowed,
        last_due: None,
        sending: alive,
    })
}

/// What the queue and the relay look like for this notice, of which so many were told. Those whom the first walk has not come
/// to yet wait as well.
///
/// # Errors
/// The database's own.
pub async fn outlook(
    on: &impl ConnectionTrait,
    app: &App,
    notice: &Notice,
    told: Told,
) -> Result<Outlook, DbErr> {
    let Some(round) = telling_round(on, notice.id).await? else { return Ok(Outlook::default()) };
    let mut pending = told.pending;
    if round.state == RoundState::Walking
        && let (Some(policy), Some(version)) = (
            policy::rows::by_id(on, notice.policy_id).await?,
            policy::rows::version_by_id(on, notice.version_id).await?,
        )
        && notice.state == State::Running
    {
        let accounts = Accounts {
            brand: policy.brand_id,
            accepted: (&policy.slug, version.number, newest(on, &policy).await?),
            span: Span::Ids(round.walk_after, None),
            joined_before: None,
            bound_by: None,
        };
        pending += count_accounts(on, &accounts).await?;
    }
    let outlook = outlook_for(on, app, pending).await?;
    let mut last_due = None;
    for content in texts(on, round.id).await?.iter().flat_map(RoundText::contents) {
        let sql = "SELECT MAX(due_at) AS due FROM queue WHERE content_id = $1";
        let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, [content.0.into()]);
        let row = on.query_one_raw(statement).await?;
        let due: Option<i64> = row.map_or(Ok(None), |row| row.try_get("", "due"))?;
        last_due = last_due.max(due.map(Timestamp));
    }
    // Its own messages are among those that wait on the service side.
    Ok(Outlook { beside: outlook.beside.saturating_sub(told.pending), last_due, ..outlook })
}
