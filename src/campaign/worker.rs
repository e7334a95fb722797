//! The loop of campaigns: starts what is due, fans out, cancels and finishes, each in bounded steps.
//!
//! It never sends and never waits while it holds a transaction. Any number of processes may take steps at once.

use sea_orm::DbErr;

use super::rows::{self, Work};
use crate::app::App;

/// Takes at most one bounded step of every unfinished campaign, each in a transaction of its own. Says whether there was
/// anything to do; then call again at once.
///
/// # Errors
/// The database's own. Every step that was committed stays, and the next call goes on from there.
pub async fn step(app: &App) -> Result<bool, DbErr> {
    let mut done = false;
    for id in rows::waiting(&app.db, app.db.reads()).await? {
        let txn = app.db.begin().await?;
        let work = rows::act(&txn, &app.db, id).await?;
        if work == Work::None {
            txn.rollback().await?;
            continue;
        }
        txn.commit().await?;
        done = true;
        tracing::debug!(campaign = %id, "took a step");
    }
    Ok(done)
}
