//! The intake: mail that comes in, by SMTP or LMTP: refusals of those who unsubscribe by mail, and reports
//! of what became of messages.
//!
//! It promises: mail is taken for the unsubscribe addresses of one domain, and for the envelope senders of deliveries,
//! which this program signed, whatever their domain; nothing is relayed. A mail is answered with success only once what
//! it asks for or tells is committed, and otherwise its sender is told to come again; one with a forged token is answered
//! like any other. It never sends a mail, and so answers no bounce and bounces nothing.

mod bounce;
mod unsubscribe;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::address::unquoted;
use crate::app::App;
use crate::clock::Instant;
use crate::id::DeliveryId;
use crate::link::delivery_of_envelope;
use crate::opt_out::mailto;
use crate::receiver::{self, Limits, Mail, Manners, Reply, Taker};

/// The intake's bounds. Of a mail only what stands at its beginning is looked at; somebody's picture below it is no reason to
/// refuse it.
pub const LIMITS: Limits = Limits {
    message: 10 * 1024 * 1024,
    kept: 256 * 1024,
    recipients: 100,
    connections: 128,
    command_within: Duration::from_secs(300),
    message_within: Duration::from_secs(600),
    in_a_crowd: Duration::from_secs(10),
};

/// Takes mail for this domain, an A-label, and for envelope senders, until asked to stop.
pub async fn run(app: App, domain: String, listener: TcpListener, limits: Limits, stop: CancellationToken) {
    let manners = Manners { name: domain.clone(), words: "takes unsubscribe requests and bounces", limits };
    receiver::serve(listener, Intake { app, domain: domain.into() }, manners, stop).await;
}

struct Intake {
    app: App,
    domain: Arc<str>,
}

impl Intake {
    /// The delivery whose envelope sender this is; none when it looks like none. A forged one is an address that nobody has.
    fn delivery_of(&self, address: &str) -> Result<Option<DeliveryId>, Reply> {
        let Some((local, _)) = address.rsplit_once('@') else { return Ok(None) };
        let local = unquoted(local);
        if !local.get(..2).is_some_and(|begins| begins.eq_ignore_ascii_case("b+")) {
            return Ok(None);
        }
        let delivery = delivery_of_envelope(local, &self.app.link_keys);
        delivery.map(Some).ok_or_else(|| mailto::NO_SUCH.into())
    }
}

impl Taker for Intake {
    fn recipient(&self, address: &str) -> Result<(), Reply> {
        match self.delivery_of(address)? {
            Some(_) => Ok(()),
            None => mailto::token_of(address, &self.domain).map(|_| ()),
        }
    }

    async fn take(&self, mail: Mail) -> Reply {
        let arrived = Instant::now();
        let mut deliveries: Vec<DeliveryId> =
            mail.to.iter().filter_map(|to| self.delivery_of(to).ok().flatten()).collect();
        let refuses = deliveries.len() < mail.to.len();
        deliveries.sort_unstable();
        deliveries.dedup();
        let mut taken = true;
        if refuses {
            taken &= unsubscribe::take(&self.app, &self.domain, &mail, arrived).await;
        }
        if !deliveries.is_empty() {
            taken &= bounce::take(&self.app, &deliveries, &mail.bytes).await;
        }
        if taken { "250 2.0.0 ok" } else { "451 4.3.0 not now, come again" }.into()
    }
}
