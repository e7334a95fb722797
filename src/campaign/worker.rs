//! The loop of campaigns: starts what is due, fans out, cancels and finishes, each in bounded steps.
//!
//! It never sends and never waits while it holds a transaction. Any number of processes may take steps at once.

use sea_orm::DbErr;

use super::rows::{self, Work};
use crate::app::App;
use crate::id::CampaignId;

/// Takes at most one bounded step of every unfinished campaign, each in a transaction of its own. Says whether there was
/// anything to do; then call again at once.
///
/// # Errors
/// The database's own, when no step could be taken and one failed. One that fails keeps no other from its step; every step
/// that was committed stays, and the next call goes on from there.
pub async fn step(app: &App) -> Result<bool, DbErr> {
    let (mut done, mut failed) = (false, None);
    for id in rows::waiting(&app.db, app.db.reads()).await? {
        match step_of(app, id).await {
            Ok(took_one) => done |= took_one,
            Err(error) => {
                tracing::warn!(campaign = %id, %error, "a step of a campaign failed; the others go on");
                failed = Some(error);
            }
        }
    }
    match failed {
        Some(error) if !done => Err(error),
        _ => Ok(done),
    }
}

async fn step_of(app: &App, id: CampaignId) -> Result<bool, DbErr> {
    let txn = app.db.begin().await?;
    if rows::act(&txn, &app.db, id).await? == Work::None {
        txn.rollback().await?;
        return Ok(false);
    }
    txn.commit().await?;
    tracing::debug!(campaign = %id, "took a step");
    Ok(true)
}
