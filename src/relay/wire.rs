//! The stream to the relay with its buffers: whole replies in, laid-out octets out, each within its time.
//!
//! It stops a write whose clearance has lapsed, right at the write: a timer would let a reply that is ready go first.
//! What a relay does in its usual way costs one system call to write, one to read, and no timer of its own.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::outcome::Reply;
use super::replies::{Garbled, Replies};
use super::socket::Socket;
use crate::decision::Clearance;

/// Octets written at once at most, unless something short belongs to them.
pub(super) const CHUNK: usize = 64 * 1024;

/// Why a dialogue cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A clearance lapsed.
    Lapsed,
    /// The relay did nothing for so long.
    Silent(Duration),
    /// The relay hung up.
    HungUp,
    /// The connection failed in another way.
    Failed,
    /// What answers does not speak SMTP.
    NotSmtp,
    /// A reply does not end.
    Endless,
    /// A code that means nothing there.
    Odd(u16),
    /// A reply to nothing.
    Unasked,
}

impl Fault {
    /// One sentence without the relay's words, which may hold an address.
    pub(super) fn words(self) -> String {
        match self {
            Self::Lapsed => "the clearance lapsed".to_owned(),
            Self::Silent(limit) => format!("no answer from the relay within {limit:?}"),
            Self::HungUp => "the relay hung up".to_owned(),
            Self::Failed => "the connection failed".to_owned(),
            Self::NotSmtp => "what answers there does not speak SMTP".to_owned(),
            Self::Endless => "the relay's reply does not end".to_owned(),
            Self::Odd(code) => format!("the relay answered {code}, which makes no sense there"),
            Self::Unasked => "the relay said more than it was asked".to_owned(),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
        match error.kind() {
            BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof => Self::HungUp,
            _ => Self::Failed,
        }
    }
}

impl From<Garbled> for Fault {
    fn from(garbled: Garbled) -> Self {
        match garbled {
            Garbled::NotSmtp => Self::NotSmtp,
            Garbled::Endless => Self::Endless,
        }
    }
}

/// By what right octets go out.
#[derive(Clone, Copy, Default)]
pub(super) struct Leave<'a> {
    /// Whose octets come first; none for what belongs to no message.
    pub(super) own: Option<&'a Clearance>,
    /// Whether they begin its envelope.
    pub(super) begins: bool,
    /// Whose octets follow, and from where on.
    pub(super) next: Option<(&'a Clearance, usize)>,
}

/// What became of the octets that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// All of them went out.
    Written,
    /// None of them did, or there were none.
    Withheld,
    /// Their clearance lapsed in the middle of them: nothing may follow.
    Torn,
}

/// The connection.
pub(super) struct Wire {
    socket: Socket,
    replies: Replies,
    /// What [`Wire::send`] writes; empty between two calls.
    pub(super) out: Vec<u8>,
    /// Whether the last call wrote or tried to.
    began: bool,
    patience: Patience,
}

impl Wire {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            socket,
            replies: Replies::new(),
            out: Vec::new(),
            began: false,
            patience: Patience { alarm: Box::pin(sleep_until(Instant::now() + Duration::from_secs(60))) },
        }
    }

    /// The socket, for a handshake. Whatever was read of it must have been understood.
    pub(super) fn into_socket(self) -> Socket {
        self.socket
    }

    /// Whether something was read that nobody asked for.
    pub(super) fn has_unread(&self) -> bool {
        self.replies.has_more()
    }

    /// Whether the last [`Wire::send`] handed the socket anything. Once it did, nobody can tell what left the machine.
    pub(super) fn began(&self) -> bool {
        self.began
    }

    /// Writes out what was laid ready, as long as the socket takes something within each `block`.
    ///
    /// # Errors
    /// The first fault. Nothing is laid ready any more.
    pub(super) async fn send(&mut self, leave: Leave<'_>, block: Duration) -> Result<Tail, Fault> {
        let mut work =
            Sending { leave, sent: 0, end: self.out.len(), deadline: None, block, flushing: false };
        self.began = false;
        let done = poll_fn(|cx| work.poll(cx, self)).await;
        self.out.clear();
        // One long message is no reason to hold its room for ever.
        self.out.shrink_to(2 * CHUNK);
        done
    }

    /// Reads the next reply and returns its code.
    ///
    /// # Errors
    /// The first fault.
    pub(super) async fn reply(&mut self, limit: Duration) -> Result<u16, Fault> {
        let mut deadline = None;
        poll_fn(|cx| {
            loop {
                if let Some(code) = self.replies.next()? {
                    return Poll::Ready(Ok(code));
                }
                let mut room = ReadBuf::new(self.replies.room()?);
                match Pin::new(&mut self.socket).poll_read(cx, &mut room) {
                    Poll::Ready(Ok(())) if room.filled().is_empty() => {
                        return Poll::Ready(Err(Fault::HungUp));
                    }
                    Poll::Ready(Ok(())) => {
                        let octets = room.filled().len();
                        self.replies.took(octets);
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => {
                        let until = *deadline.get_or_insert_with(|| Instant::now() + limit);
                        ready!(self.patience.poll_until(cx, until));
                        return Poll::Ready(Err(Fault::Silent(limit)));
                    }
                }
            }
        })
        .await
    }

    /// The last reply in words.
    pub(super) fn said(&self, code: u16) -> Reply {
        self.replies.reply(code)
    }

    /// The lines of the last reply.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.replies.lines()
    }
}

/// A write under way.
struct Sending<'a> {
    leave: Leave<'a>,
    sent: usize,
    end: usize,
    /// When the socket has taken nothing for too long; known once it had to be waited for.
    deadline: Option<Instant>,
    block: Duration,
    flushing: bool,
}

impl Sending<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, wire: &mut Wire) -> Poll<Result<Tail, Fault>> {
        loop {
            let own_end = self.leave.next.map_or(self.end, |(_, from)| from.min(self.end));
            let begins = self.leave.begins && (self.sent == 0 || self.flushing);
            let may_go = |own: &Clearance| if begins { own.may_begin() } else { own.is_valid() };
            let own_lapsed = self.leave.own.is_some_and(|own| !may_go(own));
            let next_lapsed =
                self.end > own_end && self.leave.next.is_some_and(|(next, _)| !next.may_begin());
            if self.sent < self.end {
                if own_lapsed && self.sent < own_end {
                    return Poll::Ready(Err(Fault::Lapsed));
                }
                if next_lapsed && self.sent > own_end {
                    return Poll::Ready(Ok(Tail::Torn));
                }
                if next_lapsed {
                    self.end = own_end;
                    continue;
                }
                wire.began = true;
                let octets = &wire.out[self.sent..self.end];
                match Pin::new(&mut wire.socket).poll_write(cx, octets) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(Fault::HungUp)),
                    Poll::Ready(Ok(taken)) => {
                        self.sent += taken;
                        self.deadline = None;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => return self.wait(cx, wire),
                }
                continue;
            }
            // Under TLS what was taken may still lie in this process.
            if self.flushing && (own_lapsed || next_lapsed) {
                return Poll::Ready(Err(Fault::Lapsed));
            }
            self.flushing = true;
            return match Pin::new(&mut wire.socket).poll_flush(cx) {
                Poll::Ready(Ok(())) if self.end > own_end => Poll::Ready(Ok(Tail::Written)),
                Poll::Ready(Ok(())) => Poll::Ready(Ok(Tail::Withheld)),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
                Poll::Pending => self.wait(cx, wire),
            };
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>, wire: &mut Wire) -> Poll<Result<Tail, Fault>> {
        let until = *self.deadline.get_or_insert_with(|| Instant::now() + self.block);
        ready!(wire.patience.poll_until(cx, until));
        Poll::Ready(Err(Fault::Silent(self.block)))
    }
}

/// One timer for all the waits of a connection. It may go off early and is set anew then, so that a wait that ends in
/// time touches no timer at all.
struct Patience {
    alarm: Pin<Box<Sleep>>,
}

impl Patience {
    fn poll_until(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        loop {
            if self.alarm.deadline() > until {
                self.alarm.as_mut().reset(until);
            }
            ready!(self.alarm.as_mut().poll(cx));
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            self.alarm.as_mut().reset(until);
        }
    }
}
