//! The intake: mail that unsubscribes, by SMTP or LMTP.
//!
//! It promises: mail is taken for the unsubscribe addresses of one domain and nothing is relayed; a mail is answered with
//! success only once what it asks for is committed, and otherwise its sender is told to come again; one with a forged
//! token is answered like any other. It never sends a mail, and so answers no bounce and bounces nothing.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::DbErr;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Channel, by_link, mailto};
use crate::app::App;
use crate::clock::Instant;
use crate::link::Link;
use crate::receiver::{self, Limits, Mail, Manners, Reply, Taker};
use crate::{brand, fence};

/// The intake's bounds. Of a mail only the header is looked at; somebody's picture below it is no reason to refuse it.
pub const LIMITS: Limits = Limits {
    message: 10 * 1024 * 1024,
    kept: 256 * 1024,
    recipients: 100,
    connections: 128,
    command_within: Duration::from_secs(300),
    message_within: Duration::from_secs(600),
    in_a_crowd: Duration::from_secs(10),
};

/// Takes mail for this domain, an A-label, until asked to stop.
pub async fn run(app: App, domain: String, listener: TcpListener, limits: Limits, stop: CancellationToken) {
    let manners = Manners { name: domain.clone(), words: "takes unsubscribe requests", limits };
    receiver::serve(listener, Intake { app, domain: domain.into() }, manners, stop).await;
}

struct Intake {
    app: App,
    domain: Arc<str>,
}

impl Taker for Intake {
    fn recipient(&self, address: &str) -> Result<(), Reply> {
        mailto::token_of(address, &self.domain).map(|_| ())
    }

    async fn take(&self, mail: Mail) -> Reply {
        let arrived = Instant::now();
        let outcome = match mailto::read(&mail, &self.domain, &self.app.link_keys) {
            Ok(links) => self.follow(&links, arrived).await,
            Err(idle) => {
                tracing::debug!(why = idle.as_str(), "a mail to the unsubscribe address asks for nothing");
                Ok(idle.as_str())
            }
        };
        let (outcome, reply) = match outcome {
            Ok(outcome) => (outcome, "250 2.0.0 ok"),
            Err(error) => {
                tracing::error!(%error, "a mail that unsubscribes could not be heeded");
                ("unavailable", "451 4.3.0 not now, come again")
            }
        };
        metrics::counter!("tidings_inbound_mails_total", "outcome" => outcome).increment(1);
        reply.into()
    }
}

impl Intake {
    async fn follow(&self, links: &[Link], arrived: Instant) -> Result<&'static str, DbErr> {
        for link in links {
            let brand = brand::rows::by_id(self.app.db.opt_out_reads(), link.brand).await?;
            let brand =
                brand.ok_or_else(|| DbErr::RecordNotFound("the brand of an unsubscribe link".into()))?;
            let asked = by_link::one_click_scope(&brand);
            let opt_out = by_link::opt_out(link, asked, Channel::Mailto);
            let answer = fence::opt_out(&self.app, &opt_out, arrived).await?;
            tracing::info!(
                delivery = %link.delivery, brand = %link.brand, topic = %link.topic, scope = asked.as_str(),
                channel = %opt_out.channel, new = answer.new, settled = answer.rest.settled(),
                "opted out through a message"
            );
        }
        Ok("opted_out")
    }
}
