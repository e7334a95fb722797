//! A connection to the relay and the hand-over of one message after another.

use std::error::Error as _;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use lettre::Address;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::{Extension, MailBodyParameter, MailParameter};
use lettre::transport::smtp::response::Response;
use secrecy::ExposeSecret as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::handshake::{broken, open, timed_out};
use super::outcome::{Outcome, Phase, Reply};
use super::stream::{Stream, Watch};
use super::{Relay, Timeouts};
use crate::decision::Clearance;
use crate::message::Message;

const LAPSED: &str = "the clearance lapsed";

impl Relay {
    /// Opens a connection: greeting, TLS, EHLO, AUTH.
    ///
    /// # Errors
    /// [`Outcome::Deferred`] or [`Outcome::NotSent`], never `Refused`: what a relay says before MAIL speaks of this
    /// program or its settings, and no message is to be given up for it.
    pub async fn connect(&self) -> Result<Connection, Outcome> {
        let socket = open(self).await?;
        let (stream, watch) = Stream::new(socket, b"220 ready\r\n");
        watch.listen();
        let limit = self.timeouts.hello;
        // A relay's malformed EHLO must not take the task down with it.
        let hello =
            AssertUnwindSafe(AsyncSmtpConnection::connect_with_transport(Box::new(stream), &self.helo))
                .catch_unwind();
        let mut smtp = match timeout(limit, hello).await {
            Ok(Ok(Ok(smtp))) => smtp,
            Ok(Ok(Err(error))) => return Err(before_mail(Phase::Hello, &error)),
            Ok(Err(_)) => return Err(broken(Phase::Hello, "the relay's answer to EHLO makes no sense")),
            Err(_) => return Err(timed_out(Phase::Hello, limit)),
        };
        let size = size_limit(&watch.heard());
        if let Some((user, password)) = &self.target.login {
            let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
            match timeout(limit, smtp.auth(DEFAULT_MECHANISMS, &credentials)).await {
                Ok(Ok(response)) if response.has_code(235) => {}
                Ok(Ok(response)) => {
                    return Err(broken(
                        Phase::Auth,
                        &format!("the relay answered {} to AUTH", response.code()),
                    ));
                }
                Ok(Err(error)) if error.is_client() => {
                    return Err(broken(Phase::Auth, "the relay offers neither AUTH PLAIN nor AUTH LOGIN"));
                }
                Ok(Err(error)) => return Err(before_mail(Phase::Auth, &error)),
                Err(_) => return Err(timed_out(Phase::Auth, limit)),
            }
        }
        Ok(Connection { smtp: Some(smtp), watch, timeouts: self.timeouts, size, begun: 0, stale: false })
    }
}

fn before_mail(phase: Phase, error: &SmtpError) -> Outcome {
    match refusal(error) {
        Some(reply) => Outcome::Deferred(phase, reply),
        None => broken(phase, why(error)),
    }
}

/// The largest message that EHLO's SIZE allows (RFC 1870), in octets.
fn size_limit(heard: &[u8]) -> Option<usize> {
    String::from_utf8_lossy(heard).lines().find_map(|line| {
        let mut words = line.get(4..)?.split_whitespace();
        words.next().filter(|word| word.eq_ignore_ascii_case("SIZE"))?;
        words.next()?.parse().ok().filter(|&size| size > 0)
    })
}

/// An open connection to the relay. Dropping it hangs up.
///
/// A refused message costs nothing but its RSET. After a 421, a time-out or a fault the connection is closed, and
/// [`Connection::is_open`] says so; so does a hand-over whose future was dropped.
pub struct Connection {
    smtp: Option<AsyncSmtpConnection>,
    watch: Watch,
    timeouts: Timeouts,
    size: Option<usize>,
    begun: u64,
    stale: bool,
}

/// How a step of a transaction ends it, and whether the connection survives.
enum End {
    /// The relay's answer ends the transaction; RSET and go on.
    Answered(Outcome),
    /// The connection is of no more use.
    Closed(Outcome),
}

impl Connection {
    /// Whether another message may go over it.
    pub fn is_open(&self) -> bool {
        self.smtp.is_some()
    }

    /// Whether a hand-over over it was begun before the last one.
    pub fn was_reused(&self) -> bool {
        self.begun > 1
    }

    /// Whether the last hand-over failed only because the relay had closed a connection that was used before, as
    /// relays do after some time or some messages. The outcome is then `NotSent` or `Deferred` (421) in phase
    /// `MailFrom`; it counts as no attempt, and the message may go over a new connection at once.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Hands one message over, if its clearance is valid right before the envelope and right before the body.
    ///
    /// A dropped future closes the connection; whether the message was taken over is then unknown.
    pub async fn hand_over(&mut self, message: &Message, clearance: &Clearance) -> Outcome {
        let Some(mut smtp) = self.smtp.take() else {
            return broken(Phase::MailFrom, "the connection is closed");
        };
        let (from, to, parameters) = match self.envelope(&smtp, message) {
            Ok(envelope) => envelope,
            Err(outcome) => {
                self.smtp = Some(smtp);
                return outcome;
            }
        };
        if !clearance.is_valid() {
            self.smtp = Some(smtp);
            return broken(Phase::MailFrom, LAPSED);
        }
        self.begun += 1;
        self.watch.guard(clearance.until());
        let done = self.transact(&mut smtp, from, to, parameters, message, clearance).await;
        self.watch.release();
        match done {
            Ok(reply) => {
                self.smtp = Some(smtp);
                Outcome::Sent(reply)
            }
            Err(End::Answered(outcome)) => {
                let phase = match &outcome {
                    Outcome::Refused(phase, _) | Outcome::Deferred(phase, _) => *phase,
                    _ => Phase::MailFrom,
                };
                // After the message itself was refused there is nothing to reset.
                if phase == Phase::FinalDot || self.reset(&mut smtp).await {
                    self.smtp = Some(smtp);
                }
                outcome
            }
            Err(End::Closed(outcome)) => {
                self.stale = self.begun > 1
                    && !self.watch.lapsed()
                    && matches!(
                        outcome,
                        Outcome::NotSent(Phase::MailFrom, _) | Outcome::Deferred(Phase::MailFrom, _)
                    );
                outcome
            }
        }
    }

    /// Takes leave. Whether the relay answers does not matter any more.
    pub async fn quit(mut self) {
        if let Some(mut smtp) = self.smtp.take() {
            let _ = timeout(self.timeouts.farewell, smtp.quit()).await;
        }
    }

    /// What can be told without asking the relay.
    fn envelope(
        &self,
        smtp: &AsyncSmtpConnection,
        message: &Message,
    ) -> Result<(Address, Address, Vec<MailParameter>), Outcome> {
        let refuse = |phase, code, text| Err(Outcome::Refused(phase, Reply::new(code, text)));
        let Some(from) = address(&message.envelope_from) else {
            return refuse(Phase::MailFrom, 553, "5.1.7 the envelope sender is not usable");
        };
        let Some(to) = address(&message.envelope_to) else {
            return refuse(Phase::RcptTo, 553, "5.1.3 the address is not usable");
        };
        let server = smtp.server_info();
        let mut parameters = Vec::new();
        if !(message.envelope_from.is_ascii() && message.envelope_to.is_ascii()) {
            if !server.supports_feature(Extension::SmtpUtfEight) {
                return refuse(
                    Phase::RcptTo,
                    553,
                    "5.6.7 the address needs SMTPUTF8, which the relay does not offer",
                );
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        if !message.bytes.is_ascii() {
            if !server.supports_feature(Extension::EightBitMime) {
                return refuse(
                    Phase::MailFrom,
                    554,
                    "5.6.3 the message needs 8BITMIME, which the relay does not offer",
                );
            }
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        if let Some(limit) = self.size {
            if message.bytes.len() > limit {
                return refuse(Phase::MailFrom, 552, "5.3.4 the message is larger than the relay takes");
            }
            parameters.push(MailParameter::Size(message.bytes.len()));
        }
        if !has_whole_lines(&message.bytes) {
            return refuse(
                Phase::Body,
                554,
                "5.6.0 the message has a CR or LF outside a line's end, or a NUL",
            );
        }
        Ok((from, to, parameters))
    }

    async fn transact(
        &self,
        smtp: &mut AsyncSmtpConnection,
        from: Address,
        to: Address,
        parameters: Vec<MailParameter>,
        message: &Message,
        clearance: &Clearance,
    ) -> Result<Reply, End> {
        let Timeouts { mail, rcpt, data, .. } = self.timeouts;
        let said = timeout(mail, smtp.command(Mail::new(Some(from), parameters))).await;
        self.step(Phase::MailFrom, 250..=250, mail, said)?;
        let said = timeout(rcpt, smtp.command(Rcpt::new(to, Vec::new()))).await;
        self.step(Phase::RcptTo, 250..=252, rcpt, said)?;
        let said = timeout(data, smtp.command(Data)).await;
        self.step(Phase::Data, 354..=354, data, said)?;
        // After 354 there is no RSET: too late means to hang up.
        if !clearance.is_valid() {
            return Err(End::Closed(broken(Phase::Body, LAPSED)));
        }
        let (said, limit) = self.write_body(smtp, &message.bytes).await;
        let phase = if self.watch.final_dot().is_some() { Phase::FinalDot } else { Phase::Body };
        self.step(phase, 250..=250, limit, said)
    }

    /// Writes body and final dot and waits for the answer, as long as octets go out.
    async fn write_body(
        &self,
        smtp: &mut AsyncSmtpConnection,
        bytes: &[u8],
    ) -> (Result<Result<Response, SmtpError>, tokio::time::error::Elapsed>, Duration) {
        // Lettre puts a line's end before the final dot.
        let bytes = bytes.strip_suffix(b"\r\n").unwrap_or(bytes);
        self.watch.body_begins();
        let deadline = |watch: &Watch| match watch.final_dot() {
            Some(at) => (at + self.timeouts.final_dot, self.timeouts.final_dot),
            None => (watch.last_write() + self.timeouts.block, self.timeouts.block),
        };
        let mut sending = std::pin::pin!(smtp.message(bytes));
        loop {
            let (end, limit) = deadline(&self.watch);
            let said = timeout_at(end, &mut sending).await;
            if said.is_err() && deadline(&self.watch).0 > Instant::now() {
                continue;
            }
            return (said, limit);
        }
    }

    /// What an answer means. Lettre takes every 2yz and 3yz for success; here only `wanted` is.
    fn step(
        &self,
        phase: Phase,
        wanted: std::ops::RangeInclusive<u16>,
        limit: Duration,
        said: Result<Result<Response, SmtpError>, tokio::time::error::Elapsed>,
    ) -> Result<Reply, End> {
        let lost = |why: &str| {
            if phase == Phase::FinalDot {
                Err(End::Closed(Outcome::Unknown(phase, why.to_owned())))
            } else {
                Err(End::Closed(broken(phase, if self.watch.lapsed() { LAPSED } else { why })))
            }
        };
        match said {
            Ok(Ok(response)) if wanted.contains(&u16::from(response.code())) => {
                let text: Vec<&str> = response.message().collect();
                Ok(Reply::new(response.code().into(), &text.join(" ")))
            }
            Ok(Ok(response)) => {
                lost(&format!("the relay answered {}, which makes no sense there", response.code()))
            }
            Ok(Err(error)) => match refusal(&error) {
                Some(reply) => {
                    let closing = reply.code == 421;
                    let outcome = Outcome::of_refusal(phase, reply);
                    Err(if closing || phase == Phase::Body {
                        End::Closed(outcome)
                    } else {
                        End::Answered(outcome)
                    })
                }
                None => lost(why(&error)),
            },
            Err(_) => lost(&format!("no answer from the relay within {limit:?}")),
        }
    }

    async fn reset(&self, smtp: &mut AsyncSmtpConnection) -> bool {
        let said = timeout(self.timeouts.farewell, smtp.command(Rset)).await;
        matches!(said, Ok(Ok(response)) if response.has_code(250))
    }
}

/// The reply in a lettre error, if a reply it is.
fn refusal(error: &SmtpError) -> Option<Reply> {
    let code = u16::from(error.status()?);
    let text = error.source().map(ToString::to_string).unwrap_or_default();
    Some(Reply::new(code, &text))
}

/// Why a dialogue broke. Lettre's own words may repeat what the relay said, and with it an address.
fn why(error: &SmtpError) -> &'static str {
    use std::io::ErrorKind;
    let kind =
        error.source().and_then(|source| source.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    match kind {
        Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof) => {
            "the relay hung up"
        }
        Some(ErrorKind::ConnectionAborted | ErrorKind::NotConnected) => "the connection was lost",
        Some(ErrorKind::Other) => "the relay said more than it was asked, or the connection failed",
        Some(_) => "the connection failed",
        None if error.is_response() => "the relay hung up or did not answer in SMTP",
        None => "the dialogue broke",
    }
}

/// An address as an SMTP argument: nothing that could end the argument or the line.
fn address(text: &str) -> Option<Address> {
    let (local, domain) = text.rsplit_once('@')?;
    let clean = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| !c.is_control() && !c.is_whitespace() && !matches!(c, '<' | '>'))
    };
    (clean(local) && clean(domain) && domain.is_ascii()).then(|| Address::new_dangerous(local, domain))
}

/// Whether every CR and LF is part of a CRLF and there is no NUL: anything else is read differently by different
/// servers, which is how one message becomes two.
fn has_whole_lines(bytes: &[u8]) -> bool {
    let mut before = 0;
    for &byte in bytes {
        if byte == 0 || (byte == b'\n') != (before == b'\r') {
            return false;
        }
        before = byte;
    }
    before != b'\r'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_are_handed_over() {
        assert!(has_whole_lines(b"a\r\n\r\n.b\r\n"));
        assert!(has_whole_lines(b"no line's end"));
        for bad in [&b"a\nb"[..], b"a\rb", b"a\r", b"\n.\r\n", b"a\r\r\n", b"a\0b"] {
            assert!(!has_whole_lines(bad), "{bad:?}");
        }
    }

    #[test]
    fn an_address_never_ends_its_command() {
        assert!(address("a@b.example").is_some());
        assert!(address("josé@b.example").is_some());
        for bad in ["a", "@b", "a@", "a>@b", "a b@c", "a\r\nDATA@b", "a@bücher.example"] {
            assert!(address(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn size_is_read_from_ehlo() {
        assert_eq!(size_limit(b"250-me\r\n250-size 2000\r\n250 HELP\r\n"), Some(2000));
        assert_eq!(size_limit(b"250-me\r\n250 SIZE\r\n"), None);
        assert_eq!(size_limit(b"250-me\r\n250 SIZE 0\r\n"), None);
    }
}
