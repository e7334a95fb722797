//! What is too large for one transaction: a new deadline for every line, and deleting a campaign that never ran.

use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue, IntoActiveModel};

use super::{campaign, locked, mailing_of};
use crate::campaign::{CampaignError, Change, State};
use crate::db::Db;
use crate::delivery;
use crate::id::CampaignId;
use crate::message;

/// Deliveries of one transaction.
const STEP: u64 = 2000;

/// Gives the lines of an edited campaign its deadline; what expired by the former one waits again. Repeated, it goes on
/// where it was.
///
/// # Errors
/// The database's own.
pub async fn move_deadline(db: &Db, campaign: CampaignId) -> Result<(), CampaignError> {
    loop {
        let txn = db.begin().await?;
        let campaign = locked(&txn, campaign).await?;
        // Whoever called it off or saw it finish meanwhile counts on nothing being queued any more.
        if matches!(campaign.state, State::Cancelled | State::Finished) {
            return Ok(());
        }
        let mailing = mailing_of(&txn, &campaign).await?;
        let moved = delivery::rows::move_deadline(&txn, db, mailing, campaign.not_after, STEP).await?;
        txn.commit().await?;
        if moved < STEP {
            return Ok(());
        }
    }
}

/// Deletes a campaign that never ran, with its lines. What was interrupted is called off, and deleting it again goes on.
/// `last` is done in the transaction that removes the campaign itself.
///
/// # Errors
/// The state that forbids it.
pub async fn delete<F>(db: &Db, id: CampaignId, last: F) -> Result<(), CampaignError>
where
    F: AsyncFnOnce(&crate::db::Write) -> Result<(), DbErr>,
{
    let txn = db.begin().await?;
    let campaign = locked(&txn, id).await?;
    Change::Delete.permit(campaign.state)?;
    if campaign.started_at.is_some() {
        return Err(CampaignError::HasRun);
    }
    let (mailing, content) = (mailing_of(&txn, &campaign).await?, campaign.content_id);
    // From here on nobody starts it or adds to it, so it never runs with half of its lines.
    let mut row = campaign.into_active_model();
    row.state = ActiveValue::Set(State::Cancelled);
    campaign::Entity::update(row).exec(&*txn).await?;
    txn.commit().await?;
    loop {
        let txn = db.begin().await?;
        if delivery::rows::delete_some(&txn, mailing, STEP).await? == STEP {
            txn.commit().await?;
            continue;
        }
        campaign::Entity::delete_by_id(id).exec(&*txn).await?;
        message::rows::remove(&txn, content).await?;
        last(&txn).await?;
        txn.commit().await?;
        return Ok(());
    }
}
