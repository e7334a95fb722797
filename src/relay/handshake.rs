//! Coming in: the connection, its greeting and its protection, on a socket without a buffer.
//!
//! Whatever the relay says here speaks of us, not of a message: a refusal is never final.

use std::io;
use std::time::Duration;

use lettre::transport::smtp::extension::ClientId;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::outcome::{Outcome, Phase, Reply};
use super::stream::Socket;
use super::url::Security;
use super::{Relay, Timeouts};

/// Most octets of one reply.
const MAX_REPLY: usize = 64 * 1024;

/// A connection whose greeting was read and which is protected as the URL asks.
///
/// # Errors
/// `Deferred` or `NotSent`, with the phase.
pub(super) async fn open(relay: &Relay) -> Result<Socket, Outcome> {
    let Timeouts { connect, greeting, hello, .. } = relay.timeouts;
    let target = &relay.target;
    let tcp = within(connect, Phase::Connect, async {
        let tcp = TcpStream::connect((target.host.as_str(), target.port)).await?;
        // Lettre writes the body and the final dot apart; without this each message waits for a delayed ACK.
        tcp.set_nodelay(true)?;
        Ok(tcp)
    })
    .await?;
    match target.security {
        Security::Plain => {
            let mut tcp = tcp;
            let reply = within(greeting, Phase::Greeting, read_reply(&mut tcp)).await?;
            expect(220, Phase::Greeting, reply)?;
            Ok(Socket::Plain(tcp))
        }
        Security::Tls => {
            let mut tls = wrap(relay, tcp, connect, Phase::Connect).await?;
            let reply = within(greeting, Phase::Greeting, read_reply(&mut tls)).await?;
            expect(220, Phase::Greeting, reply)?;
            Ok(tls)
        }
        Security::StartTls => {
            let mut tcp = tcp;
            let reply = within(greeting, Phase::Greeting, read_reply(&mut tcp)).await?;
            expect(220, Phase::Greeting, reply)?;
            ask_for_tls(&mut tcp, &relay.helo, hello).await?;
            wrap(relay, tcp, connect, Phase::StartTls).await
        }
    }
}

async fn ask_for_tls(tcp: &mut TcpStream, helo: &ClientId, limit: Duration) -> Result<(), Outcome> {
    let reply = within(limit, Phase::Hello, ask(tcp, format!("EHLO {helo}\r\n"))).await?;
    let offered = reply.lines.iter().skip(1).any(|line| line.eq_ignore_ascii_case("STARTTLS"));
    expect(250, Phase::Hello, reply)?;
    if !offered {
        return Err(broken(Phase::StartTls, "the relay does not offer STARTTLS"));
    }
    let reply = within(limit, Phase::StartTls, ask(tcp, "STARTTLS\r\n".to_owned())).await?;
    expect(220, Phase::StartTls, reply)?;
    // Nobody may speak between the reply and the handshake. What somebody slipped in would otherwise be taken for
    // something the relay said under TLS (RFC 3207 §4.2).
    match tcp.try_read(&mut [0_u8; 1]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Ok(0) => Err(broken(Phase::StartTls, "the relay hung up")),
        Ok(_) => Err(broken(Phase::StartTls, "something was said in clear text after the reply to STARTTLS")),
        Err(error) => Err(broken(Phase::StartTls, &error.to_string())),
    }
}

async fn wrap(relay: &Relay, tcp: TcpStream, limit: Duration, phase: Phase) -> Result<Socket, Outcome> {
    let config = relay.tls.clone().ok_or_else(|| broken(phase, "TLS is not set up"))?;
    let name = ServerName::try_from(relay.target.host.clone())
        .map_err(|_| broken(phase, "the relay's name cannot be checked against a certificate"))?;
    let tls = within(limit, phase, TlsConnector::from(config).connect(name, tcp)).await?;
    Ok(Socket::Tls(Box::new(tls)))
}

/// A reply before lettre takes over.
struct RawReply {
    code: u16,
    lines: Vec<String>,
}

async fn ask(tcp: &mut TcpStream, command: String) -> io::Result<RawReply> {
    tcp.write_all(command.as_bytes()).await?;
    read_reply(tcp).await
}

/// Reads one reply and not an octet more.
async fn read_reply(socket: &mut (impl AsyncRead + Unpin)) -> io::Result<RawReply> {
    let mut lines = Vec::new();
    let mut line = Vec::new();
    let mut read = 0;
    loop {
        match socket.read_u8().await {
            Ok(b'\n') => {}
            Ok(byte) => {
                line.push(byte);
                read += 1;
                if read > MAX_REPLY {
                    return Err(io::Error::other("the relay's reply does not end"));
                }
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(io::Error::other("the relay hung up"));
            }
            Err(error) => return Err(error),
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches('\r');
        let code = text.get(..3).and_then(|code| code.parse::<u16>().ok());
        let code = code.filter(|code| (200..600).contains(code)).ok_or_else(not_smtp)?;
        lines.push(text.get(4..).unwrap_or_default().trim().to_owned());
        match text.as_bytes().get(3) {
            None | Some(b' ') => return Ok(RawReply { code, lines }),
            Some(b'-') => line.clear(),
            Some(_) => return Err(not_smtp()),
        }
    }
}

fn not_smtp() -> io::Error {
    io::Error::other("what answers there does not speak SMTP")
}

fn expect(code: u16, phase: Phase, reply: RawReply) -> Result<(), Outcome> {
    if reply.code == code {
        return Ok(());
    }
    let said = Reply::new(reply.code, &reply.lines.join(" "));
    if said.code >= 400 {
        Err(Outcome::Deferred(phase, said))
    } else {
        Err(broken(phase, &format!("the relay answered {}, which makes no sense there", said.code)))
    }
}

/// A step that must end within `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    phase: Phase,
    step: impl Future<Output = io::Result<T>>,
) -> Result<T, Outcome> {
    match timeout(limit, step).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(broken(phase, &error.to_string())),
        Err(_) => Err(timed_out(phase, limit)),
    }
}

pub(super) fn timed_out(phase: Phase, limit: Duration) -> Outcome {
    broken(phase, &format!("no answer from the relay within {limit:?}"))
}

pub(super) fn broken(phase: Phase, why: &str) -> Outcome {
    Outcome::NotSent(phase, why.to_owned())
}
