//! The relay: the SMTP dialogue with the server that takes messages over.
//!
//! It knows messages, never the database. It promises to say truly what became of a message:
//!
//! | what happened | [`Outcome`] |
//! |---|---|
//! | 25z after the final dot | `Sent` |
//! | 5yz to MAIL, RCPT, DATA or the message; the relay's SIZE or SMTPUTF8 rule it out | `Refused` |
//! | 4yz, 421, "too many recipients"; whatever is refused before MAIL, since it speaks of us and not of the message | `Deferred` |
//! | connection lost, time-out or lapsed clearance before the final dot was written | `NotSent` |
//! | connection lost or time-out from the write of the final dot on | `Unknown` |
//!
//! Where the relay offers PIPELINING an envelope is one write, or rides with the body before it: one round trip and one
//! write a message. Replies are counted: each is taken for that command alone whose turn it is, and one too many or one
//! that makes no sense ends the connection.
//!
//! Nothing is written without a [`Clearance`](crate::decision::Clearance) that is valid right at the write. A message
//! goes to one recipient. Nothing is sent over a stream that is not protected as the URL asks: STARTTLS is required
//! where it is named, the certificate is checked, and what was said in clear before the handshake is not believed.
//! Addresses, credentials and bodies are never logged.

mod body;
mod dialogue;
mod handshake;
mod offer;
mod outcome;
mod replies;
mod socket;
mod url;
mod wire;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

pub use crate::config::Timeouts;
pub use dialogue::{Connection, Parcel};
pub use outcome::{Outcome, Phase, Reply};
pub use url::RelayUrlError;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use url::{Security, Target};

/// Metric: how long the phases of a dialogue took. `connect`, `greeting` (TLS with the former), `hello` (EHLO, STARTTLS,
/// AUTH) for a connection; `envelope` (MAIL, RCPT, DATA) and `body` (up to the answer to the message) for a message.
const PHASE_SECONDS: &str = "tidings_smtp_phase_seconds";

/// A relay: where it is, how to come in, how long to wait.
#[derive(Clone)]
pub struct Relay {
    target: Arc<Target>,
    /// What EHLO says.
    helo: Arc<str>,
    timeouts: Timeouts,
    /// The authorities trusted; empty over clear text.
    roots: Arc<RootCertStore>,
    tls: Option<Arc<ClientConfig>>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relay({:?})", self.target)
    }
}

impl Relay {
    /// Reads a relay URL: `smtp://`, `smtps://` or `smtp+starttls://`, user and password percent-encoded. `helo_name`
    /// is what EHLO says: a host name, or an IP address. Trusts the authorities of the machine and those of Mozilla.
    ///
    /// # Errors
    /// What is wrong with the URL in one sentence, without repeating it; or that TLS cannot be set up.
    pub fn from_url(url: &str, helo_name: &str, timeouts: Timeouts) -> Result<Self, RelayUrlError> {
        let target = Target::parse(url)?;
        let roots = if target.security == Security::Plain { RootCertStore::empty() } else { trusted_roots() };
        let mut relay = Self {
            target: Arc::new(target),
            helo: helo(helo_name).into(),
            timeouts,
            roots: Arc::new(roots),
            tls: None,
        };
        relay.set_up_tls()?;
        Ok(relay)
    }

    /// Trusts one more authority, such as that of a private network.
    ///
    /// # Errors
    /// When the certificate cannot be read.
    pub fn trusting(mut self, authority: CertificateDer<'static>) -> Result<Self, RelayUrlError> {
        let mut roots = (*self.roots).clone();
        roots.add(authority).map_err(|error| RelayUrlError::Tls(error.to_string()))?;
        self.roots = Arc::new(roots);
        self.set_up_tls()?;
        Ok(self)
    }

    fn set_up_tls(&mut self) -> Result<(), RelayUrlError> {
        if self.target.security == Security::Plain {
            return Ok(());
        }
        let config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| RelayUrlError::Tls(error.to_string()))?
                .with_root_certificates(Arc::clone(&self.roots))
                .with_no_client_auth();
        self.tls = Some(Arc::new(config));
        Ok(())
    }
}

/// The machine's authorities, so that a private one works, and Mozilla's, so that a bare container works. What the
/// machine holds and cannot be read is left out: a certificate that nothing vouches for is refused later, by name.
fn trusted_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// A name as EHLO's argument: an address in brackets, or a name that keeps its command one line.
fn helo(name: &str) -> String {
    match name.parse() {
        Ok(IpAddr::V4(ip)) => format!("[{ip}]"),
        Ok(IpAddr::V6(ip)) => format!("[IPv6:{ip}]"),
        Err(_) => {
            let name: String = name.chars().filter(|c| c.is_ascii_graphic()).take(255).collect();
            if name.is_empty() { "localhost".to_owned() } else { name }
        }
    }
}
