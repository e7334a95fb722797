//! What becomes of a hand-over, told by how far it came.
//!
//! Pure.

use std::fmt;

/// Longest text kept of a reply, in characters.
const MAX_TEXT: usize = 500;

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
    /// The text, its lines joined, cut at 500 characters. It may hold an address: for the record, never for a log.
    pub text: String,
}

impl Reply {
    /// Takes a reply apart; `text` is what follows the three digits, its lines joined by a space.
    pub(super) fn new(code: u16, text: &str) -> Self {
        let enhanced = text.split_whitespace().next().filter(|word| is_enhanced(code, word));
        Self {
            code,
            enhanced: enhanced.map(str::to_owned),
            text: text.trim().chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect(),
        }
    }

    /// Whether the relay refused for good (5yz).
    pub(super) fn is_permanent(&self) -> bool {
        self.code >= 500
    }
}

/// RFC 2034 §4: class, subject and detail, the class that of the reply.
fn is_enhanced(code: u16, word: &str) -> bool {
    let mut parts = word.split('.');
    let class = parts.next().is_some_and(|class| class == (code / 100).to_string());
    let rest: Vec<&str> = parts.collect();
    class
        && rest.len() == 2
        && rest.iter().all(|part| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit()))
}

/// What became of a hand-over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The relay took the message over.
    Sent(Reply),
    /// The relay refused it for good (5yz), or this program knows that it would.
    Refused(Phase, Reply),
    /// The relay refused it for now (4yz).
    Deferred(Phase, Reply),
    /// The dialogue broke, or the clearance lapsed, before the final dot was written: surely not sent.
    NotSent(Phase, String),
    /// The dialogue broke after the final dot may have been written: nobody knows.
    Unknown(Phase, String),
}

impl Outcome {
    /// What a 4yz or 5yz in this phase means for the message.
    ///
    /// "Too many recipients" as 552 is meant for now (RFC 5321 §4.5.3.1.10), and 421 is so by definition.
    pub(super) fn of_refusal(phase: Phase, reply: Reply) -> Self {
        let too_many = phase == Phase::RcptTo
            && reply.code == 552
            && (reply.enhanced.as_deref().is_none_or(|code| code == "5.5.3")
                || reply.text.to_ascii_lowercase().contains("too many recipients"));
        if reply.is_permanent() && !too_many {
            Self::Refused(phase, reply)
        } else {
            Self::Deferred(phase, reply)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enhanced_status_is_taken_only_when_it_agrees_with_the_reply() {
        assert_eq!(Reply::new(550, "5.1.1 no such user").enhanced.as_deref(), Some("5.1.1"));
        assert_eq!(Reply::new(451, "5.1.1 no such user").enhanced, None);
        assert_eq!(Reply::new(250, "2.0 ok").enhanced, None);
        assert_eq!(Reply::new(250, "").enhanced, None);
        assert_eq!(Reply::new(550, &"x".repeat(2_000)).text.len(), 500);
    }

    #[test]
    fn too_many_recipients_is_meant_for_now() {
        let of = |phase, code, text: &str| Outcome::of_refusal(phase, Reply::new(code, text));
        assert!(matches!(of(Phase::RcptTo, 552, "too many recipients"), Outcome::Deferred(..)));
        assert!(matches!(of(Phase::RcptTo, 552, "5.5.3 slow down"), Outcome::Deferred(..)));
        assert!(matches!(of(Phase::RcptTo, 552, "5.2.2 mailbox full"), Outcome::Refused(..)));
        assert!(matches!(of(Phase::FinalDot, 552, "too big"), Outcome::Refused(..)));
        assert!(matches!(of(Phase::MailFrom, 421, "closing"), Outcome::Deferred(..)));
    }
}
