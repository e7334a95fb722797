//! Coming in: the connection, its greeting and its protection, EHLO, AUTH.
//!
//! Whatever the relay says here speaks of us, not of a message: a refusal is never final.

use std::io;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;
use secrecy::ExposeSecret as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Relay;
use super::dialogue::Connection;
use super::offer::Offer;
use super::outcome::{Outcome, Phase};
use super::socket::Socket;
use super::url::Security;
use super::wire::{Fault, Leave, Wire};

impl Relay {
    /// Opens a connection: greeting, TLS, EHLO, AUTH.
    ///
    /// # Errors
    /// [`Outcome::Deferred`] or [`Outcome::NotSent`], never `Refused`: what a relay says before MAIL speaks of this
    /// program or its settings, and no message is to be given up for it.
    pub async fn connect(&self) -> Result<Connection, Outcome> {
        let limits = &self.timeouts;
        let began = Instant::now();
        let socket = within(limits.connect, Phase::Connect, async {
            let tcp = TcpStream::connect((self.target.host.as_str(), self.target.port)).await?;
            // A message's last octets go out at once, and not when the relay has acknowledged those before.
            tcp.set_nodelay(true)?;
            Ok(tcp)
        })
        .await?;
        let socket = match self.target.security {
            Security::Tls => self.protect(socket, Phase::Connect).await?,
            Security::Plain | Security::StartTls => Socket::Plain(socket),
        };
        note("connect", began);
        let began = Instant::now();
        let mut wire = Wire::new(socket);
        hear(&mut wire, 220, Phase::Greeting, limits.greeting).await?;
        note("greeting", began);
        let began = Instant::now();
        if self.target.security == Security::StartTls {
            wire = self.start_tls(wire).await?;
        }
        let offer = self.hello(&mut wire).await?;
        self.log_in(&mut wire, &offer).await?;
        note("hello", began);
        Ok(Connection::new(wire, offer, self.timeouts))
    }

    async fn hello(&self, wire: &mut Wire) -> Result<Offer, Outcome> {
        let command = format!("EHLO {}\r\n", self.helo);
        ask(wire, &command, 250, Phase::Hello, self.timeouts.hello).await?;
        Ok(Offer::of(wire.lines()))
    }

    async fn start_tls(&self, mut wire: Wire) -> Result<Wire, Outcome> {
        let offer = self.hello(&mut wire).await?;
        if !offer.starttls {
            return Err(broken(Phase::StartTls, "the relay does not offer STARTTLS"));
        }
        ask(&mut wire, "STARTTLS\r\n", 220, Phase::StartTls, self.timeouts.hello).await?;
        // Nobody may speak between the reply and the handshake. What somebody slipped in would otherwise be taken for
        // something the relay said under TLS (RFC 3207 §4.2).
        let slipped_in =
            || broken(Phase::StartTls, "something was said in clear text after the reply to STARTTLS");
        if wire.has_unread() {
            return Err(slipped_in());
        }
        let Socket::Plain(tcp) = wire.into_socket() else {
            return Err(broken(Phase::StartTls, "TLS was begun already"));
        };
        match tcp.try_read(&mut [0_u8; 1]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) => return Err(failed(Phase::StartTls, Fault::HungUp)),
            Ok(_) => return Err(slipped_in()),
            Err(error) => return Err(failed(Phase::StartTls, error.into())),
        }
        Ok(Wire::new(self.protect(tcp, Phase::StartTls).await?))
    }

    async fn protect(&self, tcp: TcpStream, phase: Phase) -> Result<Socket, Outcome> {
        let config = self.tls.clone().ok_or_else(|| broken(phase, "TLS is not set up"))?;
        let name = ServerName::try_from(self.target.host.clone())
            .map_err(|_| broken(phase, "the relay's name cannot be checked against a certificate"))?;
        let handshake = TlsConnector::from(config).connect(name, tcp);
        let tls = within(self.timeouts.connect, phase, handshake).await?;
        Ok(Socket::Tls(Box::new(tls)))
    }

    /// AUTH, where the URL names somebody: PLAIN (RFC 4616), or LOGIN where the relay knows nothing else.
    async fn log_in(&self, wire: &mut Wire, offer: &Offer) -> Result<(), Outcome> {
        let Some((user, password)) = &self.target.login else { return Ok(()) };
        let (limit, password) = (self.timeouts.hello, password.expose_secret());
        if offer.plain {
            let both = STANDARD.encode(format!("\0{user}\0{password}"));
            return ask(wire, &format!("AUTH PLAIN {both}\r\n"), 235, Phase::Auth, limit).await;
        }
        if offer.login {
            ask(wire, "AUTH LOGIN\r\n", 334, Phase::Auth, limit).await?;
            ask(wire, &format!("{}\r\n", STANDARD.encode(user)), 334, Phase::Auth, limit).await?;
            return ask(wire, &format!("{}\r\n", STANDARD.encode(password)), 235, Phase::Auth, limit).await;
        }
        Err(broken(Phase::Auth, "the relay offers neither AUTH PLAIN nor AUTH LOGIN"))
    }
}

async fn ask(
    wire: &mut Wire,
    command: &str,
    code: u16,
    phase: Phase,
    limit: Duration,
) -> Result<(), Outcome> {
    if wire.has_unread() {
        return Err(failed(phase, Fault::Unasked));
    }
    wire.out.extend_from_slice(command.as_bytes());
    wire.send(Leave::default(), limit).await.map_err(|fault| failed(phase, fault))?;
    hear(wire, code, phase, limit).await
}

/// Takes a reply with this code and no other.
async fn hear(wire: &mut Wire, wanted: u16, phase: Phase, limit: Duration) -> Result<(), Outcome> {
    match wire.reply(limit).await {
        Ok(code) if code == wanted => Ok(()),
        Ok(code) if code >= 400 => Err(Outcome::Deferred(phase, wire.said(code))),
        Ok(code) => Err(failed(phase, Fault::Odd(code))),
        Err(fault) => Err(failed(phase, fault)),
    }
}

/// A step that must end within `limit`.
async fn within<T>(
    limit: Duration,
    phase: Phase,
    step: impl Future<Output = io::Result<T>>,
) -> Result<T, Outcome> {
    match timeout(limit, step).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(broken(phase, &error.to_string())),
        Err(_) => Err(failed(phase, Fault::Silent(limit))),
    }
}

fn note(phase: &'static str, began: Instant) {
    metrics::histogram!(super::PHASE_SECONDS, "phase" => phase).record(began.elapsed().as_secs_f64());
}

fn failed(phase: Phase, fault: Fault) -> Outcome {
    Outcome::NotSent(phase, fault.words())
}

fn broken(phase: Phase, why: &str) -> Outcome {
    Outcome::NotSent(phase, why.to_owned())
}
