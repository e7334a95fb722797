//! What is said on one connection. Pure: octets in, answers out.

use std::borrow::Cow;

use smtp_proto::{Error, MAIL_BODY_7BIT, MAIL_BODY_8BITMIME, MAIL_SMTPUTF8, MailFrom, Request};

use super::lines::{Line, Lines};
use super::unstuff::Unstuff;
use super::{Limits, Mail, Manners, Reply};

/// So many commands that make no sense, without a message between them, and the connection is closed.
const MAX_MISTAKES: usize = 20;
/// So many commands that bring no message closer, without a message between them, and it is closed too.
const MAX_IDLE: usize = 200;
/// The parameters of MAIL that are offered, as the parser tells them.
const OFFERED: u64 = MAIL_BODY_7BIT | MAIL_BODY_8BITMIME | MAIL_SMTPUTF8;

/// Who speaks first says which it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Smtp,
    Lmtp,
}

/// What the octets that come next are.
enum Reading {
    Commands,
    Message(Body),
}

/// A message under way.
struct Body {
    unstuff: Unstuff,
    /// Its first octets, up to the limit.
    kept: Vec<u8>,
    /// How many there were so far.
    size: usize,
}

/// One connection's talk.
pub(super) struct Dialogue {
    name: String,
    words: &'static str,
    limits: Limits,
    lines: Lines,
    reading: Reading,
    protocol: Option<Protocol>,
    from: Option<String>,
    to: Vec<String>,
    mistakes: usize,
    idle: usize,
    replies: Vec<u8>,
    over: bool,
}

impl Dialogue {
    pub(super) fn new(manners: &Manners) -> Self {
        let mut dialogue = Self {
            name: manners.name.clone(),
            words: manners.words,
            limits: manners.limits,
            lines: Lines::default(),
            reading: Reading::Commands,
            protocol: None,
            from: None,
            to: Vec::new(),
            mistakes: 0,
            idle: 0,
            replies: Vec::new(),
            over: false,
        };
        dialogue.say(&format!("220 {} ESMTP and LMTP, {}", manners.name, manners.words));
        dialogue
    }

    /// The answers that were not fetched yet.
    pub(super) fn replies(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.replies)
    }

    /// Whether nothing more is said or heard.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Whether a message is under way.
    pub(super) fn in_message(&self) -> bool {
        matches!(self.reading, Reading::Message(_))
    }

    /// Says this and no more.
    pub(super) fn end(&mut self, reply: &str) {
        self.say(reply);
        self.over = true;
    }

    /// Hears octets, up to the end of a message; then [`Dialogue::taken`] is due.
    pub(super) fn hear(
        &mut self,
        bytes: &mut &[u8],
        takes: impl Fn(&str) -> Result<(), Reply>,
    ) -> Option<Mail> {
        while !self.over && !bytes.is_empty() {
            match &mut self.reading {
                Reading::Commands => {
                    if let Some(line) = self.lines.next(bytes) {
                        self.command(line, &takes);
                    }
                }
                Reading::Message(body) => {
                    let (kept, size, most) = (&mut body.kept, &mut body.size, self.limits.kept);
                    let whole = body.unstuff.read(bytes, |text| {
                        *size = size.saturating_add(text.len());
                        kept.extend_from_slice(&text[..text.len().min(most - kept.len())]);
                    });
                    if whole && let Some(mail) = self.received() {
                        return Some(mail);
                    }
                }
            }
        }
        None
    }

    /// Passes on how the message that was heard last was taken.
    pub(super) fn taken(&mut self, reply: &str) {
        let times = if self.protocol == Some(Protocol::Lmtp) { self.to.len() } else { 1 };
        for _ in 0..times {
            self.say(reply);
        }
        if reply.starts_with('2') {
            (self.mistakes, self.idle) = (0, 0);
        }
        self.reset();
    }

    /// The message whose end was just read, unless it was too large.
    fn received(&mut self) -> Option<Mail> {
        let Reading::Message(body) = std::mem::replace(&mut self.reading, Reading::Commands) else {
            return None;
        };
        if body.size > self.limits.message {
            self.taken("552 5.3.4 the message is too large");
            return None;
        }
        Some(Mail { from: self.from.clone().unwrap_or_default(), to: self.to.clone(), bytes: body.kept })
    }

    fn say(&mut self, reply: &str) {
        self.replies.extend_from_slice(reply.as_bytes());
        self.replies.extend_from_slice(b"\r\n");
    }

    fn reset(&mut self) {
        self.from = None;
        self.to.clear();
    }

    fn command(&mut self, line: Line, takes: &impl Fn(&str) -> Result<(), Reply>) {
        self.idle += 1;
        match line {
            _ if self.idle > MAX_IDLE => self.end("421 4.7.0 too many commands without a message"),
            Line::Whole(line) => self.parse(line, takes),
            Line::BareLf => self.wrong("500 5.5.2 a line ends in CR LF"),
            Line::TooLong => self.wrong("500 5.5.2 the line is too long"),
            Line::Endless => self.end("421 4.7.0 the line does not end"),
        }
    }

    fn parse(&mut self, mut line: Vec<u8>, takes: &impl Fn(&str) -> Result<(), Reply>) {
        let is_text = std::str::from_utf8(&line).is_ok_and(|text| !text.chars().any(char::is_control));
        if !is_text {
            return self.wrong("500 5.5.2 no such command");
        }
        line.extend_from_slice(b"\r\n");
        match Request::parse(&mut line.iter()) {
            Ok(request) => self.answer(request, takes),
            Err(error) => self.complain(&error),
        }
    }

    fn answer(&mut self, request: Request<Cow<'_, str>>, takes: &impl Fn(&str) -> Result<(), Reply>) {
        match request {
            Request::Ehlo { .. } => self.greet(Protocol::Smtp, true),
            Request::Helo { .. } => self.greet(Protocol::Smtp, false),
            Request::Lhlo { .. } => self.greet(Protocol::Lmtp, true),
            Request::Mail { from } => self.mail(from),
            Request::Rcpt { to } => {
                // The parser gives nothing for `<postmaster>` (RFC 5321 §4.5.1).
                let address = if to.address.is_empty() { "postmaster".into() } else { to.address };
                if self.from.is_none() {
                    self.wrong("503 5.5.1 MAIL comes first");
                } else if self.to.len() >= self.limits.recipients {
                    self.say("452 4.5.3 too many recipients");
                } else if let Err(refusal) = takes(&address) {
                    self.say(&refusal);
                } else {
                    self.idle -= 1;
                    self.to.push(address.into_owned());
                    self.say("250 2.1.5 ok");
                }
            }
            Request::Data if self.to.is_empty() => self.wrong("503 5.5.1 RCPT comes first"),
            Request::Data => {
                let body = Body { unstuff: Unstuff::new(), kept: Vec::new(), size: 0 };
                self.reading = Reading::Message(body);
                self.say("354 go on, and end with a dot");
            }
            Request::Rset => {
                self.reset();
                self.say("250 2.0.0 ok");
            }
            Request::Noop { .. } => self.say("250 2.0.0 ok"),
            Request::Vrfy { .. } => self.say("252 2.5.0 not told; send and see"),
            Request::Help { .. } => self.say(&format!("214 2.0.0 {}", self.words)),
            Request::Quit => self.end("221 2.0.0 bye"),
            // What follows would be read as commands.
            Request::Bdat { .. } | Request::Burl { .. } => self.end("502 5.5.1 not here"),
            _ => self.wrong("502 5.5.1 not here"),
        }
    }

    fn greet(&mut self, protocol: Protocol, extended: bool) {
        self.reset();
        self.protocol = Some(protocol);
        if extended {
            self.say(&format!("250-{}", self.name));
            for offer in ["PIPELINING", "8BITMIME", "SMTPUTF8"] {
                self.say(&format!("250-{offer}"));
            }
            self.say(&format!("250-SIZE {}", self.limits.message));
            self.say("250 ENHANCEDSTATUSCODES");
        } else {
            self.say(&format!("250 {}", self.name));
        }
    }

    fn mail(&mut self, from: MailFrom<Cow<'_, str>>) {
        if self.protocol.is_none() {
            self.wrong("503 5.5.1 EHLO or LHLO comes first");
        } else if self.from.is_some() {
            self.wrong("503 5.5.1 MAIL was given already");
        } else if from.flags & !OFFERED != 0 {
            self.wrong("555 5.5.4 a parameter is not known here");
        } else if from.size > self.limits.message {
            self.say("552 5.3.4 the message is too large");
        } else {
            self.from = Some(from.address.into_owned());
            self.say("250 2.1.0 ok");
        }
    }

    fn complain(&mut self, error: &Error) {
        self.wrong(match error {
            Error::InvalidSenderAddress => "501 5.1.7 the sender's address is not usable",
            Error::InvalidRecipientAddress => "501 5.1.3 the recipient's address is not usable",
            Error::SyntaxError { .. } | Error::InvalidParameter { .. } => "501 5.5.4 not understood",
            Error::UnsupportedParameter { .. } => "555 5.5.4 a parameter is not known here",
            _ => "500 5.5.2 no such command",
        });
    }

    fn wrong(&mut self, reply: &str) {
        self.mistakes += 1;
        if self.mistakes > MAX_MISTAKES {
            self.end("421 4.7.0 too many mistakes");
        } else {
            self.say(reply);
        }
    }
}
