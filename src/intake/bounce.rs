//! Mail to envelope senders: what it reports of a delivery is recorded; whatever else it says counts for nothing.

use std::time::Duration;

use sea_orm::DbErr;

use crate::app::App;
use crate::delivery::bounce::{Failures, Said, read};
use crate::delivery::rows::{Bounced, record_bounce};
use crate::id::DeliveryId;

/// How long one report may take the database. Should it be committed after that, it is found when it comes again.
const WITHIN: Duration = Duration::from_secs(10);

/// Takes a mail to these deliveries' envelope senders; false when what it reports could not be committed.
pub(super) async fn take(app: &App, deliveries: &[DeliveryId], mail: &[u8]) -> bool {
    let failures = match read(mail) {
        Said::Failed(failures) => failures,
        Said::NoFailure(action) => {
            count(action.as_str());
            return true;
        }
        Said::NoReport => {
            count("no_report");
            return true;
        }
    };
    for delivery in deliveries {
        let recorded = tokio::time::timeout(WITHIN, record(app, *delivery, failures.clone())).await;
        let recorded = recorded.unwrap_or_else(|_| Err(DbErr::Custom("the database takes too long".into())));
        match recorded {
            Ok(outcome) => count(outcome),
            Err(error) => {
                tracing::error!(%delivery, %error, "a bounce could not be recorded");
                count("unavailable");
                // The others would fare no better, and somebody waits for the answer.
                return false;
            }
        }
    }
    true
}

/// What is recorded once is recorded for good: a mail of which a part could not be may come again.
async fn record(app: &App, delivery: DeliveryId, failures: Failures) -> Result<&'static str, DbErr> {
    let txn = app.db.begin().await?;
    let bounced = record_bounce(&txn, &app.db, &app.address_key, delivery, failures).await?;
    let Bounced::New(failure) = bounced else {
        txn.rollback().await?;
        return Ok(if bounced == Bounced::Repeated { "repeated" } else { "not_sent" });
    };
    txn.commit().await?;
    tracing::info!(%delivery, status = failure.status, mailbox_gone = failure.mailbox_gone, "a message came back");
    Ok(match (failure.mailbox_gone, failure.permanent) {
        (true, _) => "mailbox_gone",
        (false, true) => "refused",
        (false, false) => "gave_up",
    })
}

fn count(outcome: &'static str) {
    metrics::counter!("tidings_bounces_total", "outcome" => outcome).increment(1);
}
