//! The stream to the relay, under lettre's dialogue: what was written, when, and whether it still may be.
//!
//! Lettre parses replies and speaks the commands; this stream sees every octet of both. It keeps what lettre cannot
//! tell: whether the write that holds the final dot was begun, when the last octet went out, what EHLO offered. It
//! stops a write whose clearance has lapsed. It hands lettre one reply line at a time, made regular, so that a
//! sloppy relay does not turn an acceptance into a doubt, and an answer to what was not asked is noticed.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use crate::clock::Deadline;

/// Longest reply line handed on, in octets; lettre takes 1,000.
const MAX_LINE: usize = 900;
/// Most octets of an EHLO reply kept.
const MAX_HEARD: usize = 16 * 1024;
const FINAL_DOT: &[u8] = b"\r\n.\r\n";

/// A connected socket, in clear or under TLS.
#[derive(Debug)]
pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(tcp) => tcp.peer_addr(),
            Self::Tls(tls) => tls.get_ref().0.peer_addr(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// What the dialogue knows of its stream; shared by both.
#[derive(Clone)]
pub(super) struct Watch(Arc<Mutex<Seen>>);

struct Seen {
    /// No octet may go out from then on.
    until: Option<Deadline>,
    lapsed: bool,
    /// Whether a message's body is being written.
    in_body: bool,
    /// The last octets of the body that the socket took, at most four.
    tail: Vec<u8>,
    final_dot: Option<Instant>,
    last_write: Instant,
    /// What was read, while somebody wants to know.
    heard: Option<Vec<u8>>,
}

impl Watch {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Seen {
            until: None,
            lapsed: false,
            in_body: false,
            tail: Vec::new(),
            final_dot: None,
            last_write: Instant::now(),
            heard: None,
        })))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From `until` on nothing more is written, until [`Watch::release`].
    pub(super) fn guard(&self, until: Deadline) {
        let mut seen = self.seen();
        seen.until = Some(until);
        seen.lapsed = false;
        seen.final_dot = None;
    }

    /// Lifts the guard: what follows belongs to no message.
    pub(super) fn release(&self) {
        let mut seen = self.seen();
        seen.until = None;
        seen.in_body = false;
    }

    /// Whether a write was stopped by the guard.
    pub(super) fn lapsed(&self) -> bool {
        self.seen().lapsed
    }

    /// What is written from now on is a message's body.
    pub(super) fn body_begins(&self) {
        let mut seen = self.seen();
        seen.in_body = true;
        seen.tail.clear();
        seen.last_write = Instant::now();
    }

    /// When the write that holds the final dot was begun; from then on the relay may have the message.
    pub(super) fn final_dot(&self) -> Option<Instant> {
        self.seen().final_dot
    }

    /// When the socket last took an octet of the body.
    pub(super) fn last_write(&self) -> Instant {
        self.seen().last_write
    }

    /// Keeps what is read, from now on.
    pub(super) fn listen(&self) {
        self.seen().heard = Some(Vec::new());
    }

    /// What was read since [`Watch::listen`].
    pub(super) fn heard(&self) -> Vec<u8> {
        self.seen().heard.take().unwrap_or_default()
    }
}

/// The stream under lettre.
pub(super) struct Stream {
    socket: Socket,
    watch: Watch,
    /// Reply lines made regular, not yet handed on.
    pending: Vec<u8>,
    /// Octets of the line being read that stand in `pending`.
    column: usize,
}

impl Stream {
    /// Wraps a socket whose greeting was read already; lettre, which expects one, reads `greeting`.
    pub(super) fn new(socket: Socket, greeting: &[u8]) -> (Self, Watch) {
        let watch = Watch::new();
        (Self { socket, watch: watch.clone(), pending: greeting.to_vec(), column: 0 }, watch)
    }

    /// Makes lines regular: CRLF at the end, `250` alone gets its space, no control characters, nothing but ASCII,
    /// no white space before the text, and no line longer than lettre takes.
    fn take_in(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' => {
                    if self.column == 3 {
                        self.pending.push(b' ');
                    }
                    self.pending.extend_from_slice(b"\r\n");
                    self.column = 0;
                }
                b' ' | b'\t' if self.column == 4 => {}
                0..=31 | 127 => {}
                _ if self.column >= MAX_LINE => {}
                _ => {
                    self.pending.push(if byte.is_ascii() { byte } else { b'?' });
                    self.column += 1;
                }
            }
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

impl AsyncTokioStream for Stream {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.peer_addr()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let end = loop {
            if let Some(at) = this.pending.iter().position(|&byte| byte == b'\n') {
                break at + 1;
            }
            let mut raw = [0_u8; 2048];
            let mut raw = ReadBuf::new(&mut raw);
            ready!(Pin::new(&mut this.socket).poll_read(cx, &mut raw))?;
            if raw.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            if let Some(heard) = &mut this.watch.seen().heard
                && heard.len() < MAX_HEARD
            {
                heard.extend_from_slice(raw.filled());
            }
            this.take_in(raw.filled());
        };
        let end = end.min(buf.remaining());
        buf.put_slice(&this.pending[..end]);
        this.pending.drain(..end);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.pending.is_empty() {
            // A reply to nothing would be taken for the reply to what is written now.
            return Poll::Ready(Err(io::Error::other("the relay said more than it was asked")));
        }
        let in_body = {
            let mut seen = this.watch.seen();
            // Right at the write: a timer would let a reply that is ready go first.
            if seen.until.as_ref().is_some_and(Deadline::has_passed) {
                seen.lapsed = true;
                return Poll::Ready(Err(io::Error::other("the clearance lapsed")));
            }
            if seen.in_body && seen.final_dot.is_none() && ends_with_final_dot(&seen.tail, buf) {
                seen.final_dot = Some(Instant::now());
            }
            seen.in_body
        };
        let taken = ready!(Pin::new(&mut this.socket).poll_write(cx, buf))?;
        if in_body && taken > 0 {
            let mut seen = this.watch.seen();
            seen.last_write = Instant::now();
            let kept = seen.tail.len();
            seen.tail.extend_from_slice(&buf[taken.saturating_sub(4)..taken]);
            let extra = (kept + taken.min(4)).saturating_sub(4);
            seen.tail.drain(..extra);
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

/// Whether this write ends with the line that ends a message. Within the body, dots are stuffed.
fn ends_with_final_dot(tail: &[u8], buf: &[u8]) -> bool {
    let from_buf = buf.len().min(FINAL_DOT.len());
    let from_tail = FINAL_DOT.len() - from_buf;
    from_tail <= tail.len()
        && buf.ends_with(&FINAL_DOT[from_tail..])
        && tail.ends_with(&FINAL_DOT[..from_tail])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_final_dot_is_seen_however_the_writes_fall() {
        assert!(ends_with_final_dot(b"", b"text\r\n.\r\n"));
        assert!(ends_with_final_dot(b"text", b"\r\n.\r\n"));
        assert!(ends_with_final_dot(b"xt\r\n", b".\r\n"));
        assert!(ends_with_final_dot(b"\r\n.\r", b"\n"));
        assert!(!ends_with_final_dot(b"t\r\n.", b".\r\n"));
        assert!(!ends_with_final_dot(b"", b".\r\n"));
        assert!(!ends_with_final_dot(b"text", b"\r\n"));
    }
}
