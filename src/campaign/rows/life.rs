//! Start, pause, resume, cancel, retry: what somebody does to a campaign that is there.
//!
//! Each takes the campaign's lock first, so of two that come at once the second meets the state that the first left.

use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue, IntoActiveModel};

use super::{Campaign, campaign, locked, mailing_of, stream_of};
use crate::campaign::draft::{check_stream, check_template};
use crate::campaign::{CampaignError, Change, State};
use crate::clock::Timestamp;
use crate::db::{Db, Write};
use crate::delivery;
use crate::id::{CampaignId, ContentId};
use crate::message;
use crate::message::rows::FreezeError;

/// Freezes template, partials and data, and lets it run: at once, or when `send_at` comes.
///
/// # Errors
/// What keeps it from being sent, or the state that forbids it.
pub async fn start(txn: &Write, db: &Db, id: CampaignId) -> Result<Campaign, CampaignError> {
    let campaign = locked(txn, id).await?;
    Change::Start.permit(campaign.state)?;
    let now = db.read_clock(&**txn).await?;
    let (brand, topic) = stream_of(&**txn, &campaign).await?;
    let mut flaws = check_stream(&brand, &topic);
    let template = message::rows::find(&**txn, &campaign.template).await?;
    flaws.extend(check_template(&campaign.template, template.as_ref(), &brand, &topic));
    if campaign.not_after.is_some_and(|not_after| not_after <= now) {
        let reason = "has passed; PATCH it or remove it".to_owned();
        flaws.push(crate::campaign::Flaw { pointer: "/not_after", reason });
    }
    if !flaws.is_empty() {
        return Err(CampaignError::Flaws(flaws));
    }
    freeze(txn, db, &campaign).await?;
    if campaign.send_at.is_some_and(|send_at| send_at > now) {
        return set_state(txn, campaign, State::Scheduled).await;
    }
    Ok(run(txn, campaign, now).await?)
}

/// Freezes what a start would freeze now under another id, which is not the campaign's: for a look or a test.
///
/// # Errors
/// What keeps it from being frozen.
pub async fn freeze_aside(
    txn: &Write,
    db: &Db,
    campaign: &Campaign,
    content: ContentId,
) -> Result<(), CampaignError> {
    message::rows::place(txn, db, content, campaign.brand_id, campaign.topic_id, &campaign.template).await?;
    freeze_as(txn, db, campaign, content).await
}

/// Freezes what the campaign says now.
pub(super) async fn freeze(txn: &Write, db: &Db, campaign: &Campaign) -> Result<(), CampaignError> {
    freeze_as(txn, db, campaign, campaign.content_id).await
}

async fn freeze_as(
    txn: &Write,
    db: &Db,
    campaign: &Campaign,
    content: ContentId,
) -> Result<(), CampaignError> {
    let reply_to = campaign.reply_to.as_deref();
    let frozen = message::rows::freeze(txn, db, content, &campaign.template, &campaign.data, reply_to).await;
    frozen.map_err(|error| match error {
        FreezeError::Db(error) => CampaignError::Db(error),
        FreezeError::NoContent => CampaignError::Gone,
        FreezeError::Data(_) => CampaignError::flaw("/data", error.to_string()),
        _ => CampaignError::flaw("/template", error.to_string()),
    })
}

/// Lets a frozen campaign run.
pub(super) async fn run(txn: &Write, campaign: Campaign, now: Timestamp) -> Result<Campaign, DbErr> {
    message::rows::release(txn, campaign.content_id).await?;
    let started_at = campaign.started_at.or(Some(now));
    let mut row = campaign.into_active_model();
    row.state = ActiveValue::Set(State::Running);
    row.started_at = ActiveValue::Set(started_at);
    campaign::Entity::update(row).exec(&**txn).await
}

/// Holds what is not yet under way.
///
/// # Errors
/// The state that forbids it.
pub async fn pause(txn: &Write, id: CampaignId) -> Result<Campaign, CampaignError> {
    let campaign = locked(txn, id).await?;
    Change::Pause.permit(campaign.state)?;
    message::rows::hold(txn, campaign.content_id).await?;
    set_state(txn, campaign, State::Paused).await
}

/// Goes on after a pause.
///
/// # Errors
/// The state that forbids it.
pub async fn resume(txn: &Write, db: &Db, id: CampaignId) -> Result<Campaign, CampaignError> {
    let campaign = locked(txn, id).await?;
    Change::Resume.permit(campaign.state)?;
    let now = db.read_clock(&**txn).await?;
    Ok(run(txn, campaign, now).await?)
}

/// Calls it off. What is queued is held from this moment and turned into `cancelled` by the worker's steps; what is
/// being handed over finishes by itself.
///
/// # Errors
/// The state that forbids it.
pub async fn cancel(txn: &Write, id: CampaignId) -> Result<Campaign, CampaignError> {
    let campaign = locked(txn, id).await?;
    Change::Cancel.permit(campaign.state)?;
    message::rows::hold(txn, campaign.content_id).await?;
    set_state(txn, campaign, State::Cancelled).await
}

/// Takes up again what failed, and says how many that are. What is unknown stays: nobody can tell whether it arrived.
///
/// # Errors
/// The state that forbids it.
pub async fn retry(txn: &Write, db: &Db, id: CampaignId) -> Result<(Campaign, u64), CampaignError> {
    let campaign = locked(txn, id).await?;
    Change::Retry.permit(campaign.state)?;
    let mailing = mailing_of(txn, &campaign).await?;
    let again = delivery::rows::retry_failed(txn, db, mailing).await?;
    if again == 0 || campaign.state != State::Finished {
        return Ok((campaign, again));
    }
    let mut row = campaign.into_active_model();
    row.state = ActiveValue::Set(State::Running);
    row.finished_at = ActiveValue::Set(None);
    Ok((campaign::Entity::update(row).exec(&**txn).await?, again))
}

async fn set_state(txn: &Write, campaign: Campaign, state: State) -> Result<Campaign, CampaignError> {
    let mut row = campaign.into_active_model();
    row.state = ActiveValue::Set(state);
    Ok(campaign::Entity::update(row).exec(&**txn).await?)
}
