//! Mail that unsubscribes: whoever holds a message's token is heeded, and nobody else.

use sea_orm::DbErr;

use crate::app::App;
use crate::clock::Instant;
use crate::link::Link;
use crate::opt_out::{Channel, by_link, mailto};
use crate::receiver::Mail;
use crate::{brand, fence};

/// Heeds a mail; false when that could not be committed.
pub(super) async fn take(app: &App, domain: &str, mail: &Mail, arrived: Instant) -> bool {
    let outcome = match mailto::read(mail, domain, &app.link_keys) {
        Ok(links) => follow(app, &links, arrived).await,
        Err(idle) => {
            tracing::debug!(why = idle.as_str(), "a mail to the unsubscribe address asks for nothing");
            Ok(idle.as_str())
        }
    };
    let taken = outcome.is_ok();
    let outcome = outcome.unwrap_or_else(|error| {
        tracing::error!(%error, "a mail that unsubscribes could not be heeded");
        "unavailable"
    });
    metrics::counter!("tidings_inbound_mails_total", "outcome" => outcome).increment(1);
    taken
}

async fn follow(app: &App, links: &[Link], arrived: Instant) -> Result<&'static str, DbErr> {
    for link in links {
        let brand = brand::rows::by_id(app.db.opt_out_reads(), link.brand).await?;
        let brand = brand.ok_or_else(|| DbErr::RecordNotFound("the brand of an unsubscribe link".into()))?;
        let asked = by_link::one_click_scope(&brand);
        let opt_out = by_link::opt_out(link, asked, Channel::Mailto);
        let answer = fence::opt_out(app, &opt_out, arrived).await?;
        tracing::info!(
            delivery = %link.delivery, brand = %link.brand, topic = %link.topic, scope = asked.as_str(),
            channel = %opt_out.channel, new = answer.new, settled = answer.rest.settled(),
            "opted out through a message"
        );
    }
    Ok("opted_out")
}
