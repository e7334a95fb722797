//! Notices as callers see them: who was told, who waits, who answered.

use sea_orm::entity::prelude::*;
use sea_orm::{ConnectionTrait, DbErr, PaginatorTrait};
use serde::Serialize;

use super::pace::{Ahead, outlook_for};
use super::people::count_unreached;
use super::{Notice, Round, RoundText, newest, number, telling_round, texts, told};
use crate::app::App;
use crate::clock::Timestamp;
use crate::delivery;
use crate::delivery::Counts;
use crate::id::NoticeId;
use crate::notice::RoundState;
use crate::notice::clock::complete_by;
use crate::policy::rows::{Policy, Version};
use crate::policy::{self, Approval, Change};
use crate::recipient::rows::{Accounts, Span};

/// How many people are where. `total` is the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = NoticeCounts)]
pub struct Told {
    /// All who are to be told, as far as they were looked at.
    pub total: u64,
    /// Those whose message the relay took over and did not come back, and those who were told another way.
    pub told: u64,
    /// Those whose message waits or is being sent.
    pub pending: u64,
    /// Those who could not be told, and were not told another way.
    pub unreachable: u64,
}

/// What people answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = NoticeApprovals)]
pub struct Answers {
    /// They agree.
    pub approved: u64,
    /// They do not.
    pub declined: u64,
    /// They were told and have not answered.
    pub open: u64,
}

/// What was answered to a version that asks, of whom so many were told; nothing where it does not.
///
/// # Errors
/// The database's own.
pub async fn answers(
    on: &impl ConnectionTrait,
    notice: &Notice,
    version: &Version,
    told: Told,
) -> Result<Answers, DbErr> {
    if version.approval == Approval::None && version.change != Change::NewUse {
        return Ok(Answers::default());
    }
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    let (approved, declined) = (count(notice.approved), count(notice.declined));
    let heard = if approved + declined == 0 { 0 } else { told_and_answered(on, notice).await? };
    Ok(Answers { approved, declined, open: told.told.saturating_sub(heard) })
}

/// How many of those who answered count as told of the change as it stands: one may answer by letter whom nothing told yet.
async fn told_and_answered(on: &impl ConnectionTrait, notice: &Notice) -> Result<u64, DbErr> {
    let Some(round) = telling_round(on, notice.id).await? else { return Ok(0) };
    let sql = "SELECT COUNT(*) AS n FROM approvals_standing a \
        LEFT JOIN deliveries d ON d.mailing_id = $2 AND d.recipient_id = a.recipient_id AND d.state = 'sent' \
        LEFT JOIN bounces b ON b.delivery_id = d.id \
        LEFT JOIN notice_told t ON t.notice_id = $3 AND t.round_id = $2 AND t.recipient_id = a.recipient_id \
        WHERE a.version_id = $1 AND (t.recipient_id IS NOT NULL OR (d.id IS NOT NULL AND b.delivery_id IS NULL))";
    let values: [Value; 3] = [notice.version_id.0.into(), round.id.0.into(), notice.id.0.into()];
    number(on, sql, values).await
}

/// How many deliveries of a round are in which state, all languages together.
///
/// # Errors
/// The database's own.
pub async fn counts_of_round(on: &impl ConnectionTrait, round: &Round) -> Result<Counts, DbErr> {
    let mut all = Counts::default();
    for content in texts(on, round.id).await?.iter().flat_map(RoundText::contents) {
        all = all.plus(delivery::rows::counts(on, content).await?);
    }
    Ok(all)
}

/// How many people were told of the change as it stands, wait, or could not be reached.
///
/// # Errors
/// The database's own.
pub async fn counts(on: &impl ConnectionTrait, notice: &Notice) -> Result<Told, DbErr> {
    let Some(round) = telling_round(on, notice.id).await? else { return Ok(Told::default()) };
    let all = counts_of_round(on, &round).await?;
    let back = came_back(on, &round).await?.min(all.sent);
    let pending = all.queued + all.sending;
    // Most rounds miss nobody, and most looks need read nothing more.
    let missed = all.suppressed + all.failed + all.unknown + all.expired + back;
    let unreachable = if missed == 0 { 0 } else { count_unreached(on, &round).await? };
    let told = all.sent - back + told_otherwise(on, &round).await?.min(missed);
    Ok(Told { total: told + pending + unreachable, told, pending, unreachable })
}

/// How many messages that tell of the change as it stands wait or are being sent.
///
/// # Errors
/// The database's own.
pub async fn waiting_for(on: &impl ConnectionTrait, notice: &Notice) -> Result<u64, DbErr> {
    let Some(round) = telling_round(on, notice.id).await? else { return Ok(0) };
    let all = counts_of_round(on, &round).await?;
    Ok(all.queued + all.sending)
}

/// How many messages of a round were taken over by the relay and came back.
async fn came_back(on: &impl ConnectionTrait, round: &Round) -> Result<u64, DbErr> {
    let sql = "SELECT COUNT(*) AS n FROM bounces b JOIN deliveries d ON d.id = b.delivery_id \
        WHERE b.mailing_id = $1 AND d.state = 'sent'";
    number(on, sql, [round.id.0.into()]).await
}

async fn told_otherwise(on: &impl ConnectionTrait, round: &Round) -> Result<u64, DbErr> {
    let of_notice = told::Entity::find().filter(told::Column::NoticeId.eq(round.notice_id));
    of_notice.filter(told::Column::RoundId.eq(round.id)).count(on).await
}

/// Whether somebody is yet to be tried for the first time in the newest round that tells of the change.
///
/// # Errors
/// The database's own.
pub async fn anybody_untried(on: &impl ConnectionTrait, notice: NoticeId) -> Result<bool, DbErr> {
    let Some(round) = telling_round(on, notice).await? else { return Ok(false) };
    if round.state == RoundState::Walking {
        return Ok(true);
    }
    for content in texts(on, round.id).await?.iter().flat_map(RoundText::contents) {
        if delivery::rows::any_untried(on, content).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whom the notice of a version would be for, and when the last one would be told were it published now.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = NoticeForecast)]
pub struct Forecast {
    /// How many people.
    pub people: u64,
    /// How many messages a second that counts on: as was measured lately, or as the relay's own limit allows. A
    /// warm-up or the limit of a domain may keep some for longer than that rate.
    pub messages_per_second: f64,
    /// When the last one would be told; null while nobody sends.
    pub projected_end: Option<Timestamp>,
    /// By when everyone would have to be told.
    pub complete_by: Timestamp,
    /// Whether they would.
    pub on_time: bool,
    /// The versions ahead that ask for approval and take no answer any more once this one is published, which asks too.
    pub supersedes: Vec<i64>,
}

/// Looks ahead, for a version that is about to be published; none for one of which nobody is told.
///
/// # Errors
/// The database's own.
pub async fn forecast(
    on: &impl ConnectionTrait,
    app: &App,
    policy: &Policy,
    version: &Version,
) -> Result<Option<Forecast>, DbErr> {
    let makes_one = version.change.makes_a_notice() && policy::rows::before(on, version).await?.is_some();
    let Some(effective_at) = version.effective_at.filter(|_| makes_one) else { return Ok(None) };
    let accounts = Accounts {
        brand: policy.brand_id,
        accepted: (&policy.slug, version.number, newest(on, policy).await?),
        span: Span::Ids(None, None),
        joined_before: None,
        bound_by: None,
    };
    let ahead = Ahead::of(on, app, &accounts).await?;
    let outlook = outlook_for(on, app, &ahead).await?;
    let now = app.db.read_clock(on).await?;
    let (projected_end, complete_by) =
        (outlook.projected_end(now), complete_by(effective_at, policy.lead_time_days, now));
    let supersedes = match version.approval {
        Approval::Required => policy::rows::asking(on, policy.id, now).await?,
        Approval::None => Vec::new(),
    };
    Ok(Some(Forecast {
        people: ahead.people(),
        messages_per_second: outlook.per_second(),
        projected_end,
        complete_by,
        on_time: projected_end.is_some_and(|end| end <= complete_by),
        supersedes: supersedes.into_iter().filter(|asking| *asking < version.number).collect(),
    }))
}
