//! The loop of notices: looks for whom to tell, keeps their clocks, asks again, closes, each in bounded steps.
//!
//! It never sends and never waits while it holds a transaction. Any number of processes may take steps at once.

use std::time::{Duration, Instant};

use sea_orm::DbErr;
use serde_json::json;

use super::NoticeError;
use super::evidence::Verifier;
use super::rows::{self, Beat, Work};
use crate::access::rows::record;
use crate::app::App;
use crate::id::{MailingId, NoticeId};

/// Seals the evidence that an earlier version of the program left without seals, once for good: call it when a server starts.
///
/// # Errors
/// The database's own; then it is tried again at the next start.
pub async fn begin(app: &App) -> Result<(), DbErr> {
    let Some(notices) = rows::not_sealed_yet(&app.db).await? else { return Ok(()) };
    for notice in notices {
        let mut verifier = Verifier::default();
        rows::read_through(app.db.reads(), notice, &mut verifier).await?;
        let txn = app.db.begin().await?;
        match rows::seal_now(&txn, &app.db, notice, verifier).await? {
            Ok(None) => txn.rollback().await?,
            Ok(Some(head)) => {
                let detail = json!({ "entries": head.seq, "head": hex::encode(&head.hash) });
                record(&*txn, &app.db, "worker", "notice.sealed", &notice.to_string(), detail).await?;
                txn.commit().await?;
                tracing::warn!(%notice, entries = head.seq, "sealed evidence that was made before there were seals");
            }
            Err(broken) => {
                txn.rollback().await?;
                tracing::error!(%notice, %broken, "evidence cannot be sealed; try `tidings evidence verify`");
            }
        }
    }
    rows::all_sealed(&app.db).await
}

/// Takes at most one bounded step of every unfinished notice, each in a transaction of its own. Says whether there was
/// anything to do; then call again at once.
///
/// # Errors
/// The database's own, when no step could be taken and one failed. One that fails keeps no other from its step.
pub async fn step(app: &App) -> Result<bool, DbErr> {
    let (mut done, mut failed) = (false, None);
    for id in rows::waiting(&app.db, app.db.reads()).await? {
        match step_of(app, id).await {
            Ok(took_one) => done |= took_one,
            Err(NoticeError::Db(error)) => {
                tracing::warn!(notice = %id, %error, "a step of a notice failed; the others go on");
                failed = Some(error);
            }
            Err(error) => {
                tracing::error!(notice = %id, %error, "a notice cannot go on; mend its template, or correct or withdraw it");
            }
        }
    }
    done |= record_ended(app).await?;
    match failed {
        Some(error) if !done => Err(error),
        _ => Ok(done),
    }
}

/// Puts some of what was sent, or was not, into evidence: a bounded step of every round of which something is due,
/// closed or not. Says whether there may be more to do at once; what ends one by one is recorded by and by.
async fn record_ended(app: &App) -> Result<bool, DbErr> {
    let (mut done, mut last) = (false, None);
    while let Some(round) = rows::due(app.db.reads(), last).await? {
        last = Some(round);
        match record_some(app, round).await {
            Ok(recorded) => done |= recorded == rows::RECORDED_AT_ONCE,
            Err(error) => {
                tracing::error!(%round, %error, "evidence cannot be added; try `tidings evidence verify`");
            }
        }
    }
    Ok(done)
}

async fn record_some(app: &App, round: MailingId) -> Result<u64, DbErr> {
    let txn = app.db.begin().await?;
    let round = rows::round_of(&*txn, round).await?;
    let round = round.ok_or_else(|| DbErr::RecordNotFound("the round of what is due".into()))?;
    let recorded = rows::record_deliveries(&txn, &app.db, &round).await?;
    txn.commit().await?;
    Ok(recorded)
}

async fn step_of(app: &App, id: NoticeId) -> Result<bool, NoticeError> {
    let txn = app.db.begin().await?;
    let work = rows::act(&txn, app, id).await?;
    if work == Work::None {
        txn.rollback().await?;
        return Ok(false);
    }
    txn.commit().await?;
    if work == Work::Quiet {
        return Ok(false);
    }
    tracing::debug!(notice = %id, "took a step");
    Ok(true)
}

/// Looks at the clocks of all notices that run, and raises an alarm for each that will not be done in time; reminds people of
/// what is in force. A worker calls it.
///
/// # Errors
/// The database's own.
pub async fn watch(app: &App) -> Result<(), DbErr> {
    if !look_at_clocks(app, true).await? {
        return Ok(());
    }
    match rows::remind(app).await {
        Ok(_) => {}
        Err(NoticeError::Db(error)) => return Err(error),
        Err(error) => tracing::error!(%error, "people cannot be reminded of what is in force"),
    }
    Ok(())
}

/// Does what a process without a worker can do about the clocks: it shows how many notices will be late, and looks at their
/// clocks where no worker does, once it has seen none for as long as `quiet` has patience.
///
/// # Errors
/// The database's own.
pub async fn watch_for_workers(app: &App, quiet: &mut Quiet) -> Result<(), DbErr> {
    let alive = rows::somebody_sends(app).await?;
    if quiet.is_over(alive, Instant::now()) {
        look_at_clocks(app, false).await?;
    } else {
        show(app).await?;
    }
    Ok(())
}

/// For how long no worker has shown itself, by the process's own clock: after a start or a leap of the database's clock a worker
/// may just not have done so yet.
#[derive(Clone, Copy, Debug)]
pub struct Quiet {
    patience: Duration,
    since: Option<Instant>,
}

impl Quiet {
    /// Nothing was seen yet, neither a worker nor that there is none.
    pub fn new(patience: Duration) -> Self {
        Self { patience, since: None }
    }

    fn is_over(&mut self, alive: bool, now: Instant) -> bool {
        if alive {
            self.since = None;
            return false;
        }
        now.saturating_duration_since(*self.since.get_or_insert(now)) >= self.patience
    }
}

async fn show(app: &App) -> Result<(), DbErr> {
    metrics::gauge!("tidings_notices_late").set(rows::late(app.db.reads()).await? as f64);
    Ok(())
}

/// Says whether it was time to look, and nobody else just did.
async fn look_at_clocks(app: &App, sending: bool) -> Result<bool, DbErr> {
    let beats = rows::keep_pace(app, sending).await?;
    // Whoever found it, every process shows it.
    show(app).await?;
    let Some(beats) = beats else { return Ok(false) };
    for beat in beats {
        let Beat { notice, late, projected_end, complete_by } = beat;
        let end = projected_end.map_or_else(|| "never, as nobody sends".to_owned(), |end| end.to_string());
        if late {
            tracing::error!(%notice, %complete_by, projected_end = end, "a notice will be late; speed up the relay or postpone it");
        } else {
            tracing::info!(%notice, %complete_by, projected_end = end, "a notice will be in time after all");
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_sends_once_no_worker_was_seen_for_as_long_as_there_is_patience() {
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let mut quiet = Quiet::new(minute);
        // A worker that starts together with this process has not shown itself yet.
        assert!(!quiet.is_over(false, start));
        assert!(!quiet.is_over(false, start + minute / 2));
        assert!(!quiet.is_over(true, start + minute));
        assert!(!quiet.is_over(false, start + minute * 2));
        assert!(!quiet.is_over(false, start + minute * 5 / 2));
        assert!(quiet.is_over(false, start + minute * 3));
        assert!(!quiet.is_over(true, start + minute * 4));
    }
}
