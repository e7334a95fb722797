//! What campaigns do by themselves, in bounded steps. Many workers may take steps at once: each step takes the
//! campaign's lock, passes over a campaign that another holds, and looks again at the state under the lock.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Expr, ExprTrait, LockBehavior, LockType};
use sea_orm::{ActiveValue, Condition, ConnectionTrait, DbBackend, IntoActiveModel, QueryOrder, QuerySelect};

use super::{Campaign, campaign, life, stream_of};
use crate::campaign::State;
use crate::clock::Timestamp;
use crate::db::{Db, Write};
use crate::delivery::{self, Stream};
use crate::id::CampaignId;
use crate::recipient;
use crate::recipient::rows::Selection;

/// People looked at in the first transaction of a fan-out: few, so that the first message goes at once.
const FIRST_STEP: u64 = 500;
/// And in each one after it. The campaign stays locked meanwhile, some tenths of a second.
const STEP: u64 = 10_000;
/// The same on SQLite, where whoever opts out waits for it.
const STEP_ON_SQLITE: u64 = 2_000;
/// Deliveries cancelled in one transaction.
const CANCEL_STEP: u64 = 1000;
/// Campaigns looked at in one round.
const ROUND: u64 = 1000;

/// What a step found to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::campaign) enum Work {
    /// Nothing now.
    None,
    /// Something; there may be more.
    Done,
}

/// The campaigns for which there may be something to do now.
pub(in crate::campaign) async fn waiting(
    db: &Db,
    on: &impl ConnectionTrait,
) -> Result<Vec<CampaignId>, DbErr> {
    let state = campaign::Column::State;
    let due = Condition::any()
        .add(campaign::Column::SendAt.is_null())
        .add(Expr::col(campaign::Column::SendAt).lte(db.now()));
    let found = campaign::Entity::find()
        .filter(campaign::Column::FinishedAt.is_null())
        .filter(
            Condition::any()
                .add(state.is_in([State::Running, State::Cancelled]))
                .add(Condition::all().add(state.eq(State::Scheduled)).add(due)),
        )
        .order_by_asc(campaign::Column::Id)
        .limit(ROUND)
        .all(on)
        .await?;
    let mut waiting = Vec::new();
    for campaign in found {
        // Most of a campaign's time there is nothing to do but to look whether its last message has gone; that takes no
        // lock, which on SQLite would keep everybody else from writing.
        let only_looks_on = campaign.state == State::Running && campaign.fanned_out;
        if !only_looks_on || delivery::rows::is_settled(on, campaign.content_id).await? {
            waiting.push(campaign.id);
        }
    }
    Ok(waiting)
}

/// Takes one bounded step of this campaign, in the caller's transaction.
pub(in crate::campaign) async fn act(txn: &Write, db: &Db, id: CampaignId) -> Result<Work, DbErr> {
    let found = campaign::Entity::find_by_id(id)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .one(&**txn)
        .await?;
    let Some(campaign) = found.filter(|campaign| campaign.finished_at.is_none()) else {
        return Ok(Work::None);
    };
    let now = db.read_clock(&**txn).await?;
    match campaign.state {
        State::Scheduled => begin_when_due(txn, campaign, now).await,
        State::Running if !campaign.fanned_out => fan_out(txn, db, campaign).await,
        State::Running => finish_when_settled(txn, campaign, now).await,
        State::Cancelled => cancel(txn, db, campaign, now).await,
        State::Draft | State::Paused | State::Finished => Ok(Work::None),
    }
}

async fn begin_when_due(txn: &Write, campaign: Campaign, now: Timestamp) -> Result<Work, DbErr> {
    if campaign.send_at.is_some_and(|send_at| send_at > now) {
        return Ok(Work::None);
    }
    life::run(txn, campaign, now).await?;
    Ok(Work::Done)
}

async fn fan_out(txn: &Write, db: &Db, campaign: Campaign) -> Result<Work, DbErr> {
    let after = campaign.fan_out_after;
    let mut upto = None;
    if let Some(audience) = campaign.audience()? {
        let size = match (after, db.backend()) {
            (None, _) => FIRST_STEP,
            (_, DbBackend::Postgres) => STEP,
            _ => STEP_ON_SQLITE,
        };
        upto = recipient::rows::end_of_step(&**txn, after, size).await?;
        let Selection { sql, values } =
            recipient::rows::meant(db.backend(), &audience, campaign.brand_id, after, upto);
        let stream = stream(txn, &campaign).await?;
        delivery::rows::enqueue_selected(txn, db, &stream, &sql, values).await?;
    }
    let mut row = campaign.into_active_model();
    row.fan_out_after = ActiveValue::Set(upto.or(after));
    row.fanned_out = ActiveValue::Set(upto.is_none());
    campaign::Entity::update(row).exec(&**txn).await?;
    Ok(Work::Done)
}

/// Where the deliveries of this campaign belong.
pub(super) async fn stream(txn: &Write, campaign: &Campaign) -> Result<Stream, DbErr> {
    let (_, topic) = stream_of(&**txn, campaign).await?;
    Ok(Stream {
        content: campaign.content_id,
        mailing: Some(campaign.mailing()),
        brand: campaign.brand_id,
        topic: campaign.topic_id,
        class: topic.class,
        not_after: campaign.not_after,
    })
}

async fn finish_when_settled(txn: &Write, campaign: Campaign, now: Timestamp) -> Result<Work, DbErr> {
    if !delivery::rows::is_settled(&**txn, campaign.content_id).await? {
        return Ok(Work::None);
    }
    let mut row = campaign.into_active_model();
    row.state = ActiveValue::Set(State::Finished);
    row.finished_at = ActiveValue::Set(Some(now));
    campaign::Entity::update(row).exec(&**txn).await?;
    Ok(Work::Done)
}

async fn cancel(txn: &Write, db: &Db, campaign: Campaign, now: Timestamp) -> Result<Work, DbErr> {
    if delivery::rows::cancel_some(txn, db, campaign.content_id, CANCEL_STEP).await? > 0 {
        return Ok(Work::Done);
    }
    // What is being handed over may still be put off and queued again: not finished before it is settled.
    if !delivery::rows::is_settled(&**txn, campaign.content_id).await? {
        return Ok(Work::None);
    }
    let mut row = campaign.into_active_model();
    row.finished_at = ActiveValue::Set(Some(now));
    campaign::Entity::update(row).exec(&**txn).await?;
    Ok(Work::Done)
}
