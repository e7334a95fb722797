//! The relay: the SMTP dialogue with the server that takes messages over.
//!
//! It knows messages, never the database.

use std::fmt;

/// How far a dialogue had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Opening the connection, the TLS handshake included.
    Connect,
    /// The relay's 220.
    Greeting,
    /// EHLO.
    Hello,
    /// STARTTLS.
    StartTls,
    /// AUTH.
    Auth,
    /// MAIL.
    MailFrom,
    /// RCPT.
    RcptTo,
    /// DATA, up to 354.
    Data,
    /// The body, before its final dot.
    Body,
    /// From the final dot to the relay's answer.
    FinalDot,
}

impl Phase {
    /// The word kept with an attempt.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Greeting => "greeting",
            Self::Hello => "ehlo",
            Self::StartTls => "starttls",
            Self::Auth => "auth",
            Self::MailFrom => "mail",
            Self::RcptTo => "rcpt",
            Self::Data => "data",
            Self::Body => "body",
            Self::FinalDot => "final_dot",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the relay said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The three digits.
    pub code: u16,
    /// The enhanced status (RFC 3463), such as `5.1.1`.
    pub enhanced: Option<String>,
    /// The text, its lines joined, cut at 500 characters.
    pub text: String,
}

/// What became of a hand-over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The relay took the message over.
    Sent(Reply),
    /// The relay refused it for good (5yz).
    Refused(Phase, Reply),
    /// The relay refused it for now (4yz).
    Deferred(Phase, Reply),
    /// The dialogue broke, or the clearance lapsed, before the final dot was written: surely not sent.
    NotSent(Phase, String),
    /// The dialogue broke after the final dot may have been written: nobody knows.
    Unknown(Phase, String),
}
