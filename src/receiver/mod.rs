//! A small SMTP and LMTP server (RFC 5321, RFC 2033): takes mail in for whoever gives it a [`Taker`], and passes none on.
//!
//! It promises: an answer to every command, in order, however the octets come; an end of a message at CRLF dot CRLF and
//! at nothing that only looks like it, so that nothing inside a message is taken for a command; a bound on every line,
//! message, transaction, wait and connection. A message is answered with success only when its taker says so. It knows
//! no idea, writes no address to the log and never sends anything but answers.
//!
//! One port speaks both protocols: `EHLO` or `HELO` begins SMTP, `LHLO` LMTP, where a message gets an answer for each of
//! its recipients. There is no TLS, no login and no CHUNKING; none is offered.

mod dialogue;
mod lines;
#[cfg(test)]
mod tests;
mod unstuff;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use dialogue::Dialogue;

/// One line of an answer: a code, an enhanced code and words, without the line's end.
pub type Reply = Cow<'static, str>;

/// A message with its envelope.
#[derive(Clone, PartialEq, Eq)]
pub struct Mail {
    /// The envelope sender; empty for the null sender.
    pub from: String,
    /// The recipients that were accepted, at least one.
    pub to: Vec<String>,
    /// Header and body, dots unstuffed; no more than the first [`Limits::kept`] octets.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mail({} recipients, {} octets)", self.to.len(), self.bytes.len())
    }
}

/// Who takes the mail.
pub trait Taker: Send + Sync + 'static {
    /// Whether this recipient's mail is taken; else the answer that refuses it, of code 450 or more.
    fn recipient(&self, address: &str) -> Result<(), Reply>;

    /// Takes a message; the answer goes to its sender, and 250 hands over the duty.
    fn take(&self, mail: Mail) -> impl Future<Output = Reply> + Send;
}

/// How the server speaks of itself.
#[derive(Clone, Debug)]
pub struct Manners {
    /// What it is called.
    pub name: String,
    /// What it says it does, in a few ASCII words.
    pub words: &'static str,
    /// Its bounds.
    pub limits: Limits,
}

/// What is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest message, in octets.
    pub message: usize,
    /// Most octets of a message that its taker gets.
    pub kept: usize,
    /// Most recipients of a message (RFC 5321 §4.5.3.1.8: at least 100).
    pub recipients: usize,
    /// Most connections at a time.
    pub connections: usize,
    /// Longest wait for a whole command, counted from the answer before it (RFC 5321 §4.5.3.2.7: at least 5 minutes).
    pub command_within: Duration,
    /// Longest wait for a whole message.
    pub message_within: Duration,
    /// Longest wait for a command once few connections are free, so that silent callers keep nobody out for long; for a
    /// message three times as long.
    pub in_a_crowd: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: 10 * 1024 * 1024,
            kept: 10 * 1024 * 1024,
            recipients: 100,
            connections: 256,
            command_within: Duration::from_secs(300),
            message_within: Duration::from_secs(600),
            in_a_crowd: Duration::from_secs(10),
        }
    }
}

/// Longest wait for answers to be taken.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// How often a wait is looked at again.
const GLANCE: Duration = Duration::from_secs(2);
/// How much, and how long, is read from somebody who was told to go, so that the words arrive before the end does.
const LINGER: (usize, Duration) = (256 * 1024, Duration::from_secs(2));

/// Takes connections until asked to stop; then a message that is being taken is still answered, and everyone else told
/// to come again.
pub async fn serve<T: Taker>(mut listener: TcpListener, taker: T, manners: Manners, stop: CancellationToken) {
    let host = Arc::new(Host {
        room: Arc::new(Semaphore::new(manners.limits.connections)),
        taker,
        manners,
        stop: stop.clone(),
    });
    let mut sessions = JoinSet::new();
    while let Some((mut tcp, _)) = stop.run_until_cancelled(Listener::accept(&mut listener)).await {
        while sessions.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&host.room).try_acquire_owned() else {
            // Few octets into an empty buffer: this does not wait.
            let _ = tcp.try_write(b"421 4.3.2 too many connections, come again\r\n");
            let _ = tcp.shutdown().await;
            continue;
        };
        let host = Arc::clone(&host);
        sessions.spawn(async move {
            let _place = place;
            let _ = tcp.set_nodelay(true);
            host.converse(tcp).await;
        });
    }
    drop(listener);
    while sessions.join_next().await.is_some() {}
}

struct Host<T> {
    room: Arc<Semaphore>,
    taker: T,
    manners: Manners,
    stop: CancellationToken,
}

/// Why nothing more is read.
enum End {
    /// The caller went.
    Gone,
    TooSlow,
    Stopping,
}

impl<T: Taker> Host<T> {
    async fn converse(&self, mut tcp: TcpStream) {
        let mut dialogue = Dialogue::new(&self.manners);
        let mut buffer = vec![0_u8; 16 * 1024];
        let mut since = Instant::now();
        loop {
            // Answers to commands that came together leave together.
            let replies = dialogue.replies();
            if !replies.is_empty() {
                since = Instant::now();
            }
            tokio::select! {
                said = timeout(TAKEN_WITHIN, tcp.write_all(&replies)) => if !matches!(said, Ok(Ok(()))) {
                    return;
                },
                // Whoever takes no answer does not keep the process from ending.
                () = self.long_stopped() => return,
            }
            if dialogue.is_over() {
                return linger(tcp, &mut buffer).await;
            }
            let read = match self.read(&mut tcp, &mut buffer, since, dialogue.in_message()).await {
                Ok(read) => read,
                Err(End::Gone) => return,
                Err(End::TooSlow) => {
                    dialogue.end("421 4.4.2 that took too long");
                    continue;
                }
                Err(End::Stopping) => {
                    dialogue.end("421 4.3.2 going down, come again");
                    continue;
                }
            };
            let mut bytes = &buffer[..read];
            while let Some(mail) = dialogue.hear(&mut bytes, |address| self.taker.recipient(address)) {
                let reply = self.taker.take(mail).await;
                dialogue.taken(&reply);
            }
        }
    }

    /// Returns a while after everyone was asked to stop.
    async fn long_stopped(&self) {
        self.stop.cancelled().await;
        tokio::time::sleep(LINGER.1).await;
    }

    /// Octets of the caller, as soon as there are any.
    async fn read(
        &self,
        tcp: &mut TcpStream,
        buffer: &mut [u8],
        since: Instant,
        in_message: bool,
    ) -> Result<usize, End> {
        let limits = &self.manners.limits;
        loop {
            let crowded = self.room.available_permits() < limits.connections / 8;
            let patience = match (in_message, crowded) {
                (true, true) => limits.message_within.min(3 * limits.in_a_crowd),
                (true, false) => limits.message_within,
                (false, true) => limits.command_within.min(limits.in_a_crowd),
                (false, false) => limits.command_within,
            };
            let left = patience.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Err(End::TooSlow);
            }
            let reading = timeout(left.min(GLANCE), tcp.read(buffer));
            match self.stop.run_until_cancelled(reading).await {
                None => return Err(End::Stopping),
                Some(Ok(Ok(read))) if read > 0 => return Ok(read),
                Some(Ok(_)) => return Err(End::Gone),
                Some(Err(_)) => {}
            }
        }
    }
}

/// Lets the last answer arrive: an end with octets unread would overtake it.
async fn linger(mut tcp: TcpStream, buffer: &mut [u8]) {
    let (mut most, long) = LINGER;
    let _ = timeout(long, async {
        tcp.shutdown().await?;
        while most > 0 {
            match tcp.read(buffer).await? {
                0 => break,
                read => most = most.saturating_sub(read),
            }
        }
        Ok::<(), std::io::Error>(())
    })
    .await;
}
