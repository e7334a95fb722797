//! What notices do by themselves, in bounded steps. Many workers may take steps at once: each step takes the notice's lock,
//! passes over a notice that another holds, and looks again under the lock.

use std::collections::{BTreeMap, HashMap};

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{LockBehavior, LockType};
use sea_orm::{
    ActiveValue, ConnectionTrait, DbBackend, FromQueryResult, IntoActiveModel, QueryOrder, QuerySelect,
    Statement,
};

use super::open::{Words, begin_round};
use super::walk::{Telling, anybody_changed};
use super::{Notice, Round, RoundText, evidence, notice, round, rounds, said, texts};
use crate::app::App;
use crate::clock::Timestamp;
use crate::db::{Db, Write};
use crate::delivery;
use crate::id::{MailingId, NoticeId};
use crate::notice::evidence::{Kind, body};
use crate::notice::{NoticeError, RoundKind, RoundState, State};
use crate::policy::rows::{Policy, Version};
use crate::policy::{self, Approval, OnUntold};
use crate::recipient::rows::{Span, end_of_changes, end_of_step, settled_until};

/// People looked at in the first transaction of a walk: few, so that the first message goes at once.
const FIRST_STEP: u64 = 500;
/// And in each one after it. The notice stays locked meanwhile, some tenths of a second.
const STEP: u64 = 10_000;
/// The same on SQLite, where whoever opts out waits for it.
const STEP_ON_SQLITE: u64 = 2_000;
/// Deliveries cancelled in one transaction.
const CANCEL_STEP: u64 = 1_000;
/// Notices looked at in one round.
const ROUND: u64 = 1_000;
/// A day in microseconds.
const DAY: i64 = 24 * 3600 * 1_000_000;

/// What a step found to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::notice) enum Work {
    /// Nothing now.
    None,
    /// Something to keep, after which nothing is in a hurry.
    Quiet,
    /// Something; there may be more.
    Done,
}

/// The notices for which there may be something to do now. It takes no lock, which on SQLite would keep everybody else from
/// writing.
pub(in crate::notice) async fn waiting(db: &Db, on: &impl ConnectionTrait) -> Result<Vec<NoticeId>, DbErr> {
    let found = notice::Entity::find()
        .filter(notice::Column::ClosedAt.is_null())
        .order_by_asc(notice::Column::Id)
        .limit(ROUND)
        .all(on)
        .await?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let now = db.read_clock(on).await?;
    let asking = Asking::all(on).await?;
    let mut waiting = Vec::new();
    for notice in found {
        if has_work(on, &notice, asking.get(&notice.id), now).await? {
            waiting.push(notice.id);
        }
    }
    Ok(waiting)
}

async fn has_work(
    on: &impl ConnectionTrait,
    notice: &Notice,
    asking: Option<&Asking>,
    now: Timestamp,
) -> Result<bool, DbErr> {
    if notice.state == State::Running && notice.effective_at <= now {
        return Ok(true);
    }
    let all = rounds(on, notice.id).await?;
    if all.iter().all(|round| round.state == RoundState::Closed) && notice.state != State::Running {
        return Ok(true);
    }
    for round in &all {
        let work = match round.state {
            RoundState::Walking | RoundState::Stopping => true,
            RoundState::Open => {
                anybody_changed(on, round.swept_to).await?
                    || (round.completed_at.is_none() && is_settled(on, round).await?)
            }
            RoundState::Closing => is_settled(on, round).await?,
            RoundState::Closed => false,
        };
        if work {
            return Ok(true);
        }
    }
    reminder_due(on, notice, asking, &all, now).await.map(|due| due.is_some())
}

/// What a notice asks whose version needs approval.
#[derive(Clone, Debug, FromQueryResult)]
struct Asking {
    notice_id: NoticeId,
    /// The number of the version.
    number: i64,
    /// Days before the change on which those who have not answered are asked again: an array of numbers.
    remind_days_before: Json,
}

impl Asking {
    /// Of every running notice that asks.
    async fn all(on: &impl ConnectionTrait) -> Result<HashMap<NoticeId, Self>, DbErr> {
        let sql = "SELECT n.id AS notice_id, v.number, p.remind_days_before FROM notices n \
            JOIN policies p ON p.id = n.policy_id JOIN policy_versions v ON v.id = n.version_id \
            WHERE n.closed_at IS NULL AND n.state = 'running' AND v.approval = 'required'";
        let found = Self::find_by_statement(Statement::from_string(on.get_database_backend(), sql));
        Ok(found.all(on).await?.into_iter().map(|one| (one.notice_id, one)).collect())
    }

    /// Of this one, if it asks.
    fn of(notice: &Notice, policy: &Policy, version: &Version) -> Option<Self> {
        (notice.state == State::Running && version.approval == Approval::Required).then(|| Self {
            notice_id: notice.id,
            number: version.number,
            remind_days_before: policy.remind_days_before.clone(),
        })
    }
}

/// Whether nothing of a round is queued or being sent.
async fn is_settled(on: &impl ConnectionTrait, round: &Round) -> Result<bool, DbErr> {
    for content in texts(on, round.id).await?.iter().flat_map(RoundText::contents) {
        if !delivery::rows::is_settled(on, content).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes one bounded step of this notice, in the caller's transaction.
pub(in crate::notice) async fn act(txn: &Write, app: &App, id: NoticeId) -> Result<Work, NoticeError> {
    let found = notice::Entity::find_by_id(id)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .one(&**txn)
        .await?;
    let Some(notice) = found.filter(|notice| notice.closed_at.is_none()) else { return Ok(Work::None) };
    let gone = |what: &str| DbErr::RecordNotFound(format!("the {what} of notice {id}"));
    let policy = policy::rows::by_id(&**txn, notice.policy_id).await?.ok_or_else(|| gone("policy"))?;
    let version =
        policy::rows::version_by_id(&**txn, notice.version_id).await?.ok_or_else(|| gone("version"))?;
    let now = app.db.read_clock(&**txn).await?;
    let all = rounds(&**txn, id).await?;
    if notice.state == State::Running && notice.effective_at <= now {
        take_effect(txn, app, notice, &all).await?;
        return Ok(Work::Done);
    }
    if notice.state != State::Running && all.iter().all(|round| round.state == RoundState::Closed) {
        return close(txn, notice, &all, now).await;
    }
    let mut work = Work::None;
    for round in &all {
        match step_round(txn, app, (&notice, &policy, &version), round, &all, now).await? {
            Work::Done => work = Work::Done,
            Work::Quiet if work == Work::None => work = Work::Quiet,
            Work::Quiet | Work::None => {}
        }
    }
    if work == Work::Done {
        return Ok(work);
    }
    // By itself and last: should its messages not be made, nobody else waits for them.
    let asking = Asking::of(&notice, &policy, &version);
    if let Some(reminder) = reminder_due(&**txn, &notice, asking.as_ref(), &all, now).await? {
        tracing::info!(notice = %id, days_before = reminder, "asking those who have not answered");
        let words = Words {
            kind: RoundKind::ApprovalReminder,
            reason: None,
            reasons: BTreeMap::new(),
            summaries: said(&**txn, id).await?,
            actor: "worker",
        };
        begin_round(txn, app, &notice, &policy, &version, words).await?;
        return Ok(Work::Done);
    }
    Ok(work)
}

async fn step_round(
    txn: &Write,
    app: &App,
    (notice, policy, version): (&Notice, &Policy, &Version),
    round: &Round,
    all: &[Round],
    now: Timestamp,
) -> Result<Work, DbErr> {
    match round.state {
        RoundState::Closed => return Ok(Work::None),
        RoundState::Stopping => return stop(txn, app, round, now).await,
        RoundState::Closing => return close_when_settled(txn, round, now).await,
        RoundState::Walking | RoundState::Open => {}
    }
    let earlier = |other: &&Round| other.number < round.number && other.kind.tells_of_the_change();
    let told_all = all.iter().filter(earlier).all(|other| other.state == RoundState::Closed);
    let asks_who_heard =
        matches!(round.kind, RoundKind::Withdrawal | RoundKind::Correction | RoundKind::Postponement);
    if asks_who_heard && !told_all {
        // Who was told is known once nobody is being told any more.
        return Ok(Work::None);
    }
    let telling = Telling {
        notice: notice.clone(),
        policy: policy.clone(),
        version: version.clone(),
        round: round.clone(),
        rounds: all.to_vec(),
        texts: texts(&**txn, round.id).await?,
        newest: super::newest(&**txn, policy).await?,
        agreed: match round.kind {
            RoundKind::Reminder => agreed(&**txn, policy, version, now).await?,
            _ => None,
        },
        heard: match round.kind {
            RoundKind::Reminder => must_be_heard(&**txn, policy, version).await?,
            _ => None,
        },
    };
    if round.state == RoundState::Walking {
        return walk(txn, app, &telling, now).await;
    }
    let mut work = sweep(txn, app, &telling, now).await?;
    if round.completed_at.is_none() && is_settled(&**txn, round).await? {
        let done = ActiveValue::Set(Some(now));
        let row =
            round::ActiveModel { id: ActiveValue::Set(round.id), completed_at: done, ..Default::default() };
        round::Entity::update(row).exec(&**txn).await?;
        work = Work::Done;
    }
    Ok(work)
}

/// The newest version up to this one that holds for nobody who neither agreed to it nor joined under it; no later one
/// brings it in.
async fn agreed(
    on: &impl ConnectionTrait,
    policy: &Policy,
    version: &Version,
    now: Timestamp,
) -> Result<Option<Version>, DbErr> {
    let holds = |one: &Version| one.holds_from().is_some_and(|from| from <= now);
    let published = |one: &Version| one.state == policy::State::Published && one.number <= version.number;
    let all = policy::rows::versions(on, policy.id).await?.into_iter();
    // Nobody was asked about the first one.
    let later = all.filter(|one| published(one) && holds(one)).skip(1);
    Ok(later.filter(|one| one.approval == Approval::Required).last())
}

/// The notice that told last of what led to this version, and its rounds, where a change holds for nobody whom it missed.
async fn must_be_heard(
    on: &impl ConnectionTrait,
    policy: &Policy,
    version: &Version,
) -> Result<Option<(NoticeId, Vec<MailingId>)>, DbErr> {
    let told = |one: &Version| {
        one.state == policy::State::Published && one.number <= version.number && one.change.makes_a_notice()
    };
    let Some(last) = policy::rows::versions(on, policy.id).await?.into_iter().rfind(told) else {
        return Ok(None);
    };
    let Some(notice) = super::of_version(on, last.id).await? else { return Ok(None) };
    if last.approval == Approval::Required || notice.on_untold != OnUntold::EarlierVersionStands {
        return Ok(None);
    }
    let telling = rounds(on, notice.id).await?.into_iter().filter(|round| round.kind.tells_of_the_change());
    let telling: Vec<MailingId> = telling.map(|round| round.id).collect();
    // Nobody was told of the first one.
    Ok((!telling.is_empty()).then_some((notice.id, telling)))
}

/// Looks at the next people by id.
async fn walk(txn: &Write, app: &App, telling: &Telling, now: Timestamp) -> Result<Work, DbErr> {
    let round = &telling.round;
    let after = round.walk_after;
    let size = match (after, app.db.backend()) {
        (None, _) => FIRST_STEP,
        (_, DbBackend::Postgres) => STEP,
        _ => STEP_ON_SQLITE,
    };
    let upto = end_of_step(&**txn, after, size).await?;
    telling.address(txn, app, Span::Ids(after, upto)).await?;
    // Whoever joins is told of a change that lies ahead; nobody is added to what is told once.
    let joins = round.kind.tells_of_the_change() && telling.notice.state == State::Running;
    let last = telling.notice.state == State::InEffect && round.kind.tells_of_the_change();
    if upto.is_none() && last {
        telling.take_up_again(txn, app, round.swept_to, telling.notice.effective_at).await?;
        if settled_until(&**txn, &app.db, now).await? < telling.notice.effective_at {
            // Somebody who joined in time may not be committed yet: everyone is looked at again.
            let mut row = round.clone().into_active_model();
            row.walk_after = ActiveValue::Set(None);
            round::Entity::update(row).exec(&**txn).await?;
            return Ok(Work::Quiet);
        }
    }
    let next = match upto {
        Some(_) => RoundState::Walking,
        None if joins => RoundState::Open,
        None => RoundState::Closing,
    };
    let mut row = round.clone().into_active_model();
    row.walk_after = ActiveValue::Set(upto.or(after));
    row.state = ActiveValue::Set(next);
    round::Entity::update(row).exec(&**txn).await?;
    Ok(Work::Done)
}

/// Looks at those who were changed since the last look.
async fn sweep(txn: &Write, app: &App, telling: &Telling, now: Timestamp) -> Result<Work, DbErr> {
    let round = &telling.round;
    if !anybody_changed(&**txn, round.swept_to).await? {
        return Ok(Work::None);
    }
    let size = if app.db.backend() == DbBackend::Postgres { STEP } else { STEP_ON_SQLITE };
    let settled = settled_until(&**txn, &app.db, now).await?;
    let end = end_of_changes(&**txn, round.swept_to, size).await?;
    // What was committed counts, however much else is under way; what may yet be committed is looked at again.
    let upto = end.unwrap_or(now);
    let made = telling.address(txn, app, Span::Changed(round.swept_to, upto)).await?
        + telling.take_up_again(txn, app, round.swept_to, upto).await?;
    let swept_to = upto.min(settled).max(round.swept_to);
    let moved = swept_to > round.swept_to;
    if moved {
        let mut row = round.clone().into_active_model();
        row.swept_to = ActiveValue::Set(swept_to);
        round::Entity::update(row).exec(&**txn).await?;
    }
    // Where somebody's long transaction holds the mark back, the same people are looked at again, but not at once.
    Ok(match (made > 0 || (end == Some(swept_to)), moved) {
        (true, _) => Work::Done,
        (false, true) => Work::Quiet,
        (false, false) => Work::None,
    })
}

/// The change takes effect: everyone is looked at once more, whoever joined before it.
async fn take_effect(txn: &Write, app: &App, notice: Notice, all: &[Round]) -> Result<(), DbErr> {
    walk_again(txn, all.iter()).await?;
    let (id, body) = (notice.id, body::InEffect { effective_at: notice.effective_at });
    let mut row = notice.into_active_model();
    row.state = ActiveValue::Set(State::InEffect);
    notice::Entity::update(row).exec(&**txn).await?;
    evidence::append(txn, &app.db, id, Kind::InEffect, None, &body).await
}

/// Lets those of these rounds that still look for people look at everyone once more. Nobody is told twice.
pub(super) async fn walk_again(txn: &Write, rounds: impl Iterator<Item = &Round>) -> Result<(), DbErr> {
    for round in rounds.filter(|round| matches!(round.state, RoundState::Open | RoundState::Walking)) {
        let mut row = round.clone().into_active_model();
        row.state = ActiveValue::Set(RoundState::Walking);
        row.walk_after = ActiveValue::Set(None);
        round::Entity::update(row).exec(&**txn).await?;
    }
    Ok(())
}

/// Cancels what waits, and closes once nothing is under way any more.
async fn stop(txn: &Write, app: &App, round: &Round, now: Timestamp) -> Result<Work, DbErr> {
    let mut cancelled = 0;
    for content in texts(&**txn, round.id).await?.iter().flat_map(RoundText::contents) {
        cancelled += delivery::rows::cancel_some(txn, &app.db, content, CANCEL_STEP).await?;
    }
    if cancelled > 0 {
        return Ok(Work::Done);
    }
    close_when_settled(txn, round, now).await
}

async fn close_when_settled(txn: &Write, round: &Round, now: Timestamp) -> Result<Work, DbErr> {
    if !is_settled(&**txn, round).await? {
        return Ok(Work::None);
    }
    let completed_at = round.completed_at.or(Some(now).filter(|_| round.state == RoundState::Closing));
    let mut row = round.clone().into_active_model();
    row.state = ActiveValue::Set(RoundState::Closed);
    row.completed_at = ActiveValue::Set(completed_at);
    row.closed_at = ActiveValue::Set(Some(now));
    round::Entity::update(row).exec(&**txn).await?;
    Ok(Work::Done)
}

/// Nothing is left to do once everything is in evidence.
async fn close(txn: &Write, notice: Notice, all: &[Round], now: Timestamp) -> Result<Work, NoticeError> {
    for round in all {
        if evidence::is_due(&**txn, round.id).await? {
            return Ok(Work::None);
        }
    }
    let mut row = notice.into_active_model();
    row.closed_at = ActiveValue::Set(Some(now));
    notice::Entity::update(row).exec(&**txn).await?;
    Ok(Work::Done)
}

/// How many days before the change those who have not answered are to be asked now; none when they are not, or were.
async fn reminder_due(
    on: &impl ConnectionTrait,
    notice: &Notice,
    asking: Option<&Asking>,
    all: &[Round],
    now: Timestamp,
) -> Result<Option<i64>, DbErr> {
    let Some(asking) = asking else { return Ok(None) };
    let days: Vec<i64> = serde_json::from_value(asking.remind_days_before.clone()).unwrap_or_default();
    // The latest of the days that have come.
    let Some(days) = days.into_iter().filter(|days| notice.effective_at.0 - days * DAY <= now.0).min() else {
        return Ok(None);
    };
    // Once a newer version asks too, nobody can answer this one any more.
    if policy::rows::asking(on, notice.policy_id, now).await?.into_iter().max() > Some(asking.number) {
        return Ok(None);
    }
    let since = Timestamp(notice.effective_at.0 - days * DAY);
    // Whoever was told after that day needs no reminder yet, nor does who was reminded since.
    let asked = |round: &Round| {
        let asks = round.kind == RoundKind::ApprovalReminder || round.kind.tells_of_the_change();
        asks && round.created_at >= since
    };
    let still_telling = |round: &Round| round.state == RoundState::Walking;
    Ok((!all.iter().any(|round| asked(round) || still_telling(round))).then_some(days))
}
