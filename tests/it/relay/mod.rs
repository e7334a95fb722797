//! The relay's dialogue against a server that does everything wrong, a stage at a time.

mod phases;
mod pipelined;
mod scripts;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tidings::clock::{Deadline, Instant};
use tidings::decision::{Class, Clearance, Facts, Lease, decide};
use tidings::id::{DeliveryId, LeaseToken};
use tidings::message::Message;
use tidings::relay::{Connection, Outcome, Parcel, Relay, Timeouts};
use tokio_rustls::TlsAcceptor;

use crate::harness::{Options, SmtpServer};

pub(crate) const SHORT: Duration = Duration::from_millis(1_500);
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn cleared_until(until: &Deadline) -> Clearance {
    let lease = Lease {
        delivery: DeliveryId::new(),
        token: LeaseToken::new(),
        until: until.clone(),
        asked: Instant::now(),
    };
    decide(Class::Service, &Facts::default(), lease).unwrap()
}

pub(crate) fn cleared() -> Clearance {
    cleared_until(&Deadline::at(Instant::now().plus(Duration::from_secs(600))))
}

pub(crate) fn message(to: &str, body: &str) -> Message {
    Message {
        envelope_from: "b.1@bounces.example".into(),
        envelope_to: to.into(),
        message_id: "1@bounces.example".into(),
        bytes: format!("Subject: test\r\n\r\n{body}\r\n").into_bytes(),
    }
}

pub(crate) fn relay(server: &SmtpServer, step: Duration) -> Relay {
    Relay::from_url(&server.url(), "here.example", Timeouts::each(step)).unwrap()
}

pub(crate) async fn connect(server: &SmtpServer, step: Duration) -> Connection {
    relay(server, step).connect().await.unwrap_or_else(|outcome| panic!("{outcome:?}"))
}

pub(crate) async fn give(connection: &mut Connection, message: &Message, clearance: &Clearance) -> Outcome {
    connection.hand_over(Parcel { message, clearance }, None).await
}

/// A message and the clearance of its delivery.
pub(crate) struct Item {
    pub(crate) message: Message,
    pub(crate) clearance: Clearance,
    /// When the clearance lapses.
    pub(crate) until: Deadline,
}

impl Item {
    /// A message from an envelope sender of its own.
    pub(crate) fn new(to: &str) -> Self {
        Self::with(to, "hello")
    }

    pub(crate) fn with(to: &str, body: &str) -> Self {
        let until = Deadline::at(Instant::now().plus(Duration::from_secs(600)));
        let mut message = message(to, body);
        message.envelope_from = sender_to(to);
        Self { message, clearance: cleared_until(&until), until }
    }

    pub(crate) fn parcel(&self) -> Parcel<'_> {
        Parcel { message: &self.message, clearance: &self.clearance }
    }

    pub(crate) fn to(&self) -> &str {
        &self.message.envelope_to
    }

    /// Lets the clearance lapse now.
    pub(crate) fn lapse(&self) {
        self.until.move_to(Instant::now());
    }
}

/// The envelope sender of an [`Item`] to this address.
pub(crate) fn sender_to(to: &str) -> String {
    format!("b.{}", to.replace('@', "-at-").replace('.', "-")) + "@bounces.example"
}

/// A relay that offers this and no more.
pub(crate) async fn offering(extensions: &[&'static str]) -> SmtpServer {
    SmtpServer::with(Options { extensions: extensions.to_vec(), ..Options::default() }).await
}

/// A server's TLS for these names and the authority that vouches for it.
pub(crate) fn certificate(names: &[&str]) -> (TlsAcceptor, CertificateDer<'static>) {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), made.cert.der().clone())
}
