//! How fast messages go, so that a notice knows when its last one will.

use std::collections::HashMap;
use std::time::Duration;

use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue, ConnectionTrait, FromQueryResult, IntoActiveModel, QueryOrder, Statement, Value};
use serde_json::json;

use super::{Notice, RoundText, evidence, newest, notice, telling_round, texts, waiting_for};
use crate::access::rows::record;
use crate::app::App;
use crate::clock::{Timestamp, micros};
use crate::db::{Db, Write};
use crate::delivery;
use crate::delivery::limit::{Name, Plan};
use crate::delivery::rows::lines::{books, in_lines, next_by_domain};
use crate::id::NoticeId;
use crate::notice::clock::{Outlook, Sample, measured};
use crate::notice::evidence::{Kind, body};
use crate::notice::{RoundState, State};
use crate::policy;
use crate::recipient::rows::{Accounts, Span, accounts_by_domain, count_accounts};

/// How far apart two looks at what was handed over are.
const APART: Duration = Duration::from_secs(10);
/// For how long a worker that was not heard of counts as alive.
const ALIVE: Duration = Duration::from_secs(60);
/// How many messages of each text are looked at for the domains that they go to, beside those in a domain's line.
const LOOKED_AT: u64 = 10_000;

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
/// looked a moment ago. `sending` says whether anybody sends, which whoever looks knows best: a worker does, whether or not it
/// has shown itself yet.
///
/// # Errors
/// The database's own.
pub async fn keep_pace(app: &App, sending: bool) -> Result<Option<Vec<Beat>>, DbErr> {
    let db = &app.db;
    let now = db.read_clock(db.reads()).await?;
    let before = kept(db.reads()).await?;
    if before.as_ref().is_some_and(|before| now.0 - before.sampled_at < micros(APART)) {
        return Ok(None);
    }
    let txn = db.begin().await?;
    sample(&txn, db, now, sending).await?;
    let mut beats = Vec::new();
    let running = notice::Entity::find()
        .filter(notice::Column::State.eq(State::Running))
        .filter(notice::Column::ClosedAt.is_null())
        .order_by_asc(notice::Column::Id)
        .all(&*txn)
        .await?;
    for notice in running {
        beats.extend(judge(&txn, app, notice, (now, sending)).await?);
    }
    txn.commit().await?;
    Ok(Some(beats))
}

async fn judge(
    txn: &Write,
    app: &App,
    notice: Notice,
    (now, sending): (Timestamp, bool),
) -> Result<Option<Beat>, DbErr> {
    let waiting = waiting_for(&**txn, &notice).await?;
    let outlook = Outlook { sending, ..outlook(&**txn, app, &notice, waiting).await? };
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
    let action = if late { "notice.late" } else { "notice.on_time" };
    let detail = json!({ "projected_end": projected_end, "complete_by": beat.complete_by });
    record(&**txn, &app.db, "worker", action, &beat.notice.to_string(), detail).await?;
    Ok(Some(beat))
}

async fn is_alive(on: &impl ConnectionTrait, app: &App) -> Result<bool, DbErr> {
    Ok(delivery::rows::last_beat(&app.db, on).await?.is_some_and(|ago| ago < ALIVE))
}

/// Whether a worker has shown itself lately.
///
/// # Errors
/// The database's own.
pub async fn somebody_sends(app: &App) -> Result<bool, DbErr> {
    is_alive(app.db.reads(), app).await
}

async fn kept(on: &impl ConnectionTrait) -> Result<Option<Kept>, DbErr> {
    let sql = "SELECT sampled_at, sent, waited, per_thousand_seconds FROM pace WHERE id = 1";
    Kept::find_by_statement(Statement::from_string(on.get_database_backend(), sql)).one(on).await
}

async fn sample(txn: &Write, db: &Db, now: Timestamp, sending: bool) -> Result<(), DbErr> {
    let sent = delivery::rows::handed_over(&**txn).await?;
    let waited = sending && delivery::rows::anything_waits(db, &**txn).await?;
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

/// How many are yet to be told, and how many of them at which domain as far as that is known and any domain is limited.
pub(super) struct Ahead {
    people: u64,
    at: HashMap<String, u64>,
}

impl Ahead {
    /// These people.
    ///
    /// # Errors
    /// The database's own.
    pub(super) async fn of(
        on: &impl ConnectionTrait,
        app: &App,
        accounts: &Accounts<'_>,
    ) -> Result<Self, DbErr> {
        let at = match Plan::new(&app.settings.limits).times_domains() {
            true => accounts_by_domain(on, accounts).await?,
            false => HashMap::new(),
        };
        Ok(Self { people: count_accounts(on, accounts).await?, at })
    }

    /// How many they are.
    pub(super) fn people(&self) -> u64 {
        self.people
    }
}

/// Until when the relay's limit keeps one of `through` messages, or a domain's limit one of those at it and in its line.
async fn limited_until(
    on: &impl ConnectionTrait,
    app: &App,
    through: u64,
    at: &HashMap<String, u64>,
) -> Result<Option<Timestamp>, DbErr> {
    let plan = Plan::new(&app.settings.limits);
    let mut waiting: HashMap<Name, u64> = HashMap::from([(Name::Relay, through)]);
    if plan.times_domains() {
        for (domain, people) in at.iter().chain(&in_lines(on).await?) {
            *waiting.entry(Name::Domain(plan.name_of(domain).to_owned())).or_default() += people;
        }
    }
    waiting.retain(|name, _| plan.limit(name).is_some_and(|limit| limit.tells_when()));
    if waiting.is_empty() {
        return Ok(None);
    }
    let (now, books) = (app.db.read_clock(on).await?, books(on, waiting.keys()).await?);
    let ends = waiting.iter().filter_map(|(name, people)| {
        let book = books.get(name).cloned().unwrap_or_default();
        plan.limit(name).map(|limit| limit.lets_through(&book, *people, now))
    });
    Ok(ends.max())
}

/// What the queue and the relay look like without any notice: for people who would be told now. What campaigns use of the
/// relay's warm-up and of a domain's limit is not foreseen, nor how long a domain that takes only so many at once will take.
///
/// # Errors
/// The database's own.
pub(super) async fn outlook_for(
    on: &impl ConnectionTrait,
    app: &App,
    ahead: &Ahead,
) -> Result<Outlook, DbErr> {
    let mut outlook = rates(on, app, ahead.people).await?;
    outlook.limited_until = limited_until(on, app, ahead.people + outlook.beside, &ahead.at).await?;
    Ok(outlook)
}

async fn rates(on: &impl ConnectionTrait, app: &App, pending: u64) -> Result<Outlook, DbErr> {
    let rate = kept(on).await?.and_then(|kept| kept.per_thousand_seconds).map(|rate| rate as f64 / 1000.0);
    let depths = delivery::rows::depths(&app.db, on).await?;
    let service = depths.iter().filter(|depth| !depth.class.can_be_refused());
    let waiting: i64 = service.map(|depth| depth.queued + depth.sending).sum();
    let alive = is_alive(on, app).await?;
    let plan = Plan::new(&app.settings.limits);
    let rate_of_relay = plan.relay().and_then(|limit| limit.rate);
    let allowed = rate_of_relay.map(|rate| f64::from(rate.messages) / rate.window.as_secs_f64());
    Ok(Outlook {
        pending,
        beside: u64::try_from(waiting).unwrap_or(0),
        measured_per_second: rate,
        allowed_per_second: allowed,
        last_due: None,
        limited_until: None,
        sending: alive,
    })
}

/// What the queue and the relay look like for this notice, of which so many messages wait. Those whom the first walk has not come
/// to yet wait as well. To which domains messages go that wait in no domain's line is looked at for the next ones alone: of a
/// very long notice a domain's limit is seen in full once the workers have come to its people.
///
/// # Errors
/// The database's own.
pub async fn outlook(
    on: &impl ConnectionTrait,
    app: &App,
    notice: &Notice,
    waiting: u64,
) -> Result<Outlook, DbErr> {
    let Some(round) = telling_round(on, notice.id).await? else { return Ok(Outlook::default()) };
    let mut ahead = Ahead { people: 0, at: HashMap::new() };
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
        ahead = Ahead::of(on, app, &accounts).await?;
    }
    let times_domains = Plan::new(&app.settings.limits).times_domains();
    let mut last_due = None;
    for content in texts(on, round.id).await?.iter().flat_map(RoundText::contents) {
        if times_domains {
            for (domain, people) in next_by_domain(on, content, LOOKED_AT).await? {
                *ahead.at.entry(domain).or_default() += people;
            }
        }
        // Whom a limit keeps comes due long after it lets them through, unless nobody calls them up.
        let sql = "SELECT MAX(due_at) AS due FROM queue WHERE content_id = $1 AND aside IS NULL";
        let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, [content.0.into()]);
        let row = on.query_one_raw(statement).await?;
        let due: Option<i64> = row.map_or(Ok(None), |row| row.try_get("", "due"))?;
        last_due = last_due.max(due.map(Timestamp));
    }
    let pending = ahead.people + waiting;
    let outlook = rates(on, app, pending).await?;
    // Its own messages are among those that wait on the service side.
    let beside = outlook.beside.saturating_sub(waiting);
    let limited_until = match pending {
        0 => None,
        _ => limited_until(on, app, pending + beside, &ahead.at).await?,
    };
    Ok(Outlook { beside, last_due, limited_until, ..outlook })
}
