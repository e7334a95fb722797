//! The SMTP server of the mailbox (RFC 5321), for this machine alone.
//!
//! It takes every message whole and well formed within its limits, and delivers none. Only CRLF dot CRLF ends a
//! message, so that nothing inside one is taken for a command.

use std::fmt::Write as _;
use std::slice::Iter;
use std::sync::Arc;
use std::time::Duration;

use smtp_proto::request::receiver::{DataReceiver, DummyDataReceiver, RequestReceiver};
use smtp_proto::{Error, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::store::Store;

/// Largest message, in octets.
pub(super) const MAX_MESSAGE: usize = 10 * 1024 * 1024;
const MAX_CONNECTIONS: usize = 256;
const MAX_RECIPIENTS: usize = 100;
/// So many commands may make no sense before the connection is closed.
const MAX_ERRORS: usize = 20;
const IDLE: Duration = Duration::from_secs(300);

/// Takes connections until it is aborted.
pub(super) async fn serve(listener: TcpListener, store: Arc<Store>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut sessions = JoinSet::new();
    loop {
        // A failed accept concerns one caller; the next may fare better.
        let Ok((mut tcp, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        while sessions.try_join_next().is_some() {}
        let (room, store) = (Arc::clone(&room), Arc::clone(&store));
        sessions.spawn(async move {
            let Ok(_place) = room.try_acquire_owned() else {
                let _ = tcp.write_all(b"421 4.3.2 too many connections\r\n").await;
                return;
            };
            let _ = tcp.set_nodelay(true);
            Session::new(store).run(tcp).await;
        });
    }
}

/// What the octets that come next are.
enum Reading {
    Commands,
    Message(DataReceiver, Vec<u8>),
    /// The rest of a message that is too large.
    Rest(DummyDataReceiver),
}

struct Session {
    store: Arc<Store>,
    reading: Reading,
    from: Option<String>,
    to: Vec<String>,
    errors: usize,
    replies: String,
    over: bool,
}

impl Session {
    fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            reading: Reading::Commands,
            from: None,
            to: Vec::new(),
            errors: 0,
            replies: "220 mailbox.tidings ESMTP, keeps everything and delivers nothing\r\n".to_owned(),
            over: false,
        }
    }

    async fn run(mut self, mut tcp: TcpStream) {
        let mut commands = RequestReceiver::default();
        let mut buffer = vec![0_u8; 16 * 1024];
        loop {
            // Replies to commands that came together leave together.
            let replies = std::mem::take(&mut self.replies);
            match timeout(IDLE, tcp.write_all(replies.as_bytes())).await {
                Ok(Ok(())) if !self.over => {}
                _ => return,
            }
            let read = match timeout(IDLE, tcp.read(&mut buffer)).await {
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(read)) => read,
                Err(_) => {
                    let _ = tcp.write_all(b"421 4.4.2 idle for too long\r\n").await;
                    return;
                }
            };
            let mut bytes = buffer[..read].iter();
            while !self.over && !bytes.as_slice().is_empty() {
                self.take(&mut commands, &mut bytes);
            }
        }
    }

    fn take(&mut self, commands: &mut RequestReceiver, bytes: &mut Iter<'_, u8>) {
        match &mut self.reading {
            Reading::Commands => match commands.ingest(bytes) {
                Ok(request) => self.answer(request),
                Err(Error::NeedsMoreData { .. }) => *bytes = [].iter(),
                Err(error) => self.complain(&error),
            },
            Reading::Message(receiver, message) => {
                let whole = receiver.ingest(bytes, message);
                if message.len() > MAX_MESSAGE {
                    let rest = DummyDataReceiver::new_data(receiver);
                    self.reading = Reading::Rest(rest);
                    if whole {
                        self.too_large();
                    }
                } else if whole {
                    let message = std::mem::take(message);
                    self.keep(message);
                }
            }
            Reading::Rest(rest) => {
                if rest.ingest(bytes) {
                    self.too_large();
                }
            }
        }
    }

    fn say(&mut self, reply: &str) {
        self.replies.push_str(reply);
        self.replies.push_str("\r\n");
    }

    fn reset(&mut self) {
        self.from = None;
        self.to.clear();
        self.reading = Reading::Commands;
    }

    fn keep(&mut self, message: Vec<u8>) {
        let from = self.from.take().unwrap_or_default();
        let to = std::mem::take(&mut self.to);
        let id = self.store.add(from, to, message);
        self.reset();
        self.say(&format!("250 2.0.0 kept as {id}"));
    }

    fn too_large(&mut self) {
        self.reset();
        self.say("552 5.3.4 the message is too large");
    }

    fn answer(&mut self, request: Request<std::borrow::Cow<'_, str>>) {
        match request {
            Request::Ehlo { .. } => {
                self.reset();
                let _ = write!(
                    self.replies,
                    "250-mailbox.tidings\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-SIZE {MAX_MESSAGE}\r\n250 ENHANCEDSTATUSCODES\r\n"
                );
            }
            Request::Helo { .. } => {
                self.reset();
                self.say("250 mailbox.tidings");
            }
            Request::Mail { from } => {
                if self.from.is_some() {
                    self.out_of_turn("MAIL was given already");
                } else if from.size > MAX_MESSAGE {
                    self.say("552 5.3.4 the message is too large");
                } else {
                    self.from = Some(from.address.into_owned());
                    self.say("250 2.1.0 ok");
                }
            }
            Request::Rcpt { to } => {
                if self.from.is_none() {
                    self.out_of_turn("MAIL comes first");
                } else if self.to.len() >= MAX_RECIPIENTS {
                    self.say("452 4.5.3 too many recipients");
                } else {
                    self.to.push(to.address.into_owned());
                    self.say("250 2.1.5 ok");
                }
            }
            Request::Data => {
                if self.to.is_empty() {
                    self.out_of_turn("RCPT comes first");
                } else {
                    let (mut receiver, mut message) = (DataReceiver::new(), Vec::new());
                    // The line's end of DATA counts as the one before a final dot that comes at once.
                    receiver.ingest(&mut b"\r\n".iter(), &mut message);
                    message.clear();
                    self.reading = Reading::Message(receiver, message);
                    self.say("354 go on, and end with a dot");
                }
            }
            Request::Rset => {
                self.reset();
                self.say("250 2.0.0 ok");
            }
            Request::Noop { .. } => self.say("250 2.0.0 ok"),
            Request::Vrfy { .. } => self.say("252 2.1.5 try it"),
            Request::Help { .. } => self.say("214 2.0.0 look at /mailbox"),
            Request::Quit => {
                self.say("221 2.0.0 bye");
                self.over = true;
            }
            // What follows would be read as commands.
            Request::Bdat { .. } | Request::Auth { .. } => {
                self.say("502 5.5.1 not here");
                self.over = true;
            }
            _ => self.wrong("502 5.5.1 not here"),
        }
    }

    fn out_of_turn(&mut self, what: &str) {
        self.wrong(&format!("503 5.5.1 {what}"));
    }

    fn complain(&mut self, error: &Error) {
        match error {
            Error::InvalidSenderAddress => self.wrong("501 5.1.7 the sender's address is not usable"),
            Error::InvalidRecipientAddress => self.wrong("501 5.1.3 the recipient's address is not usable"),
            Error::SyntaxError { .. } | Error::InvalidParameter { .. } => {
                self.wrong("501 5.5.4 not understood")
            }
            Error::UnsupportedParameter { .. } => self.wrong("555 5.5.4 a parameter is not known here"),
            Error::ResponseTooLong => {
                // The rest of the line would be read as commands.
                self.say("500 5.5.2 the line is too long");
                self.over = true;
            }
            _ => self.wrong("500 5.5.2 no such command"),
        }
    }

    fn wrong(&mut self, reply: &str) {
        self.errors += 1;
        if self.errors > MAX_ERRORS {
            self.say("421 4.7.0 too many mistakes");
            self.over = true;
        } else {
            self.say(reply);
        }
    }
}
