//! What a relay offers in its reply to EHLO, and the envelope it can be told in those words.
//!
//! Pure. One message, one recipient. Nothing that a message holds can end a command's argument or its line.

use std::fmt::Write as _;

use super::outcome::{Outcome, Phase, Reply};
use crate::id::DeliveryId;
use crate::message::Message;

/// Longest `ORCPT` (RFC 3461 §4.2).
const MAX_ORCPT: usize = 500;

/// What EHLO offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    /// The largest message in octets (RFC 1870); none says that there is no limit or none is known.
    pub(super) size: Option<usize>,
    /// Bodies beyond ASCII (RFC 6152).
    pub(super) eight_bit: bool,
    /// Addresses beyond ASCII (RFC 6531).
    pub(super) utf8: bool,
    /// Several commands in one write (RFC 2920).
    pub(super) pipelining: bool,
    /// Delivery status notifications (RFC 3461).
    pub(super) dsn: bool,
    /// TLS on this connection (RFC 3207).
    pub(super) starttls: bool,
    /// AUTH PLAIN (RFC 4616) and AUTH LOGIN.
    pub(super) plain: bool,
    pub(super) login: bool,
}

impl Offer {
    /// Reads the lines of the reply to EHLO, the first of which is a greeting.
    pub(super) fn of(lines: impl Iterator<Item = String>) -> Self {
        let mut offer = Self::default();
        for line in lines.skip(1) {
            let mut words = line.split_whitespace();
            match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "SIZE" => {
                    offer.size = words.next().and_then(|size| size.parse().ok()).filter(|&size| size > 0);
                }
                "8BITMIME" => offer.eight_bit = true,
                "SMTPUTF8" => offer.utf8 = true,
                "PIPELINING" => offer.pipelining = true,
                "DSN" => offer.dsn = true,
                "STARTTLS" => offer.starttls = true,
                "AUTH" => {
                    for mechanism in words {
                        offer.plain |= mechanism.eq_ignore_ascii_case("PLAIN");
                        offer.login |= mechanism.eq_ignore_ascii_case("LOGIN");
                    }
                }
                _ => {}
            }
        }
        offer
    }

    /// Lays MAIL, RCPT and DATA, a line each, into `laid` instead of what it held.
    ///
    /// # Errors
    /// What the relay would say, or what no relay could be told: such a message is refused without asking.
    pub(super) fn lay(
        &self,
        message: &Message,
        delivery: DeliveryId,
        laid: &mut String,
    ) -> Result<(), Outcome> {
        let refuse = |phase, code, text| Err(Outcome::Refused(phase, Reply::new(code, text)));
        laid.clear();
        let (from, to) = (message.envelope_from.as_str(), message.envelope_to.as_str());
        if !is_argument(from) {
            return refuse(Phase::MailFrom, 553, "5.1.7 the envelope sender is not usable");
        }
        if !is_argument(to) {
            return refuse(Phase::RcptTo, 553, "5.1.3 the address is not usable");
        }
        laid.push_str("MAIL FROM:<");
        laid.push_str(from);
        laid.push('>');
        if !(from.is_ascii() && to.is_ascii()) {
            if !self.utf8 {
                let text = "5.6.7 the address needs SMTPUTF8, which the relay does not offer";
                return refuse(Phase::RcptTo, 553, text);
            }
            laid.push_str(" SMTPUTF8");
        }
        if !message.bytes.is_ascii() {
            if !self.eight_bit {
                let text = "5.6.3 the message needs 8BITMIME, which the relay does not offer";
                return refuse(Phase::MailFrom, 554, text);
            }
            laid.push_str(" BODY=8BITMIME");
        }
        if let Some(limit) = self.size {
            if message.bytes.len() > limit {
                return refuse(Phase::MailFrom, 552, "5.3.4 the message is larger than the relay takes");
            }
            // Writing to a String never fails; neither does any below.
            let _ = write!(laid, " SIZE={}", message.bytes.len());
        }
        if self.dsn {
            let _ = write!(laid, " RET=HDRS ENVID={delivery}");
        }
        laid.push_str("\r\nRCPT TO:<");
        laid.push_str(to);
        laid.push('>');
        if self.dsn {
            laid.push_str(" NOTIFY=FAILURE,DELAY");
            let before = laid.len();
            lay_original(to, laid);
            if laid.len() - before > " ORCPT=".len() + MAX_ORCPT {
                laid.truncate(before);
            }
        }
        laid.push_str("\r\nDATA\r\n");
        if !has_whole_lines(&message.bytes) {
            let text = "5.6.0 the message has a CR or LF outside a line's end, or a NUL";
            return refuse(Phase::Body, 554, text);
        }
        Ok(())
    }
}

/// Lays the original recipient: as xtext (RFC 3461 §4), or beyond ASCII as RFC 6533 §3 spells it.
fn lay_original(address: &str, laid: &mut String) {
    let ascii = address.is_ascii();
    laid.push_str(if ascii { " ORCPT=rfc822;" } else { " ORCPT=utf-8;" });
    for c in address.chars() {
        let _ = match c {
            '+' | '=' if ascii => write!(laid, "+{:02X}", u32::from(c)),
            '+' | '=' | '\\' if !ascii => write!(laid, "\\x{{{:X}}}", u32::from(c)),
            _ if c.is_ascii() => laid.write_char(c),
            _ => write!(laid, "\\x{{{:X}}}", u32::from(c)),
        };
    }
}

/// Whether an address can stand as an argument: nothing in it ends the argument or the line, and its domain is ASCII.
fn is_argument(address: &str) -> bool {
    let clean = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| !c.is_control() && !c.is_whitespace() && !matches!(c, '<' | '>'))
    };
    address.rsplit_once('@').is_some_and(|(local, domain)| clean(local) && clean(domain) && domain.is_ascii())
}

/// Whether every CR and LF is part of a CRLF and there is no NUL: anything else is read differently by different
/// servers, which is how one message becomes two.
fn has_whole_lines(bytes: &[u8]) -> bool {
    let mut ends = 0;
    for at in memchr::memchr_iter(b'\n', bytes) {
        if at == 0 || bytes[at - 1] != b'\r' {
            return false;
        }
        ends += 1;
    }
    memchr::memchr_iter(b'\r', bytes).count() == ends && memchr::memchr(0, bytes).is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offer(reply: &str) -> Offer {
        Offer::of(reply.lines().map(str::to_owned))
    }

    fn laid(offer: &Offer, from: &str, to: &str, bytes: &[u8]) -> Result<String, Outcome> {
        let message = Message {
            envelope_from: from.into(),
            envelope_to: to.into(),
            message_id: String::new(),
            bytes: bytes.to_vec(),
        };
        let mut laid = "left over".to_owned();
        offer.lay(&message, "01890000-0000-7000-8000-000000000001".parse().unwrap(), &mut laid).map(|()| laid)
    }

    #[test]
    fn an_offer_is_read_in_any_case_and_without_the_greeting() {
        let all =
            offer("PIPELINING is my name\nsize 2000\n8bitmime\nSmtpUtf8\nPIPELINING\nDSN\nAUTH GSSAPI login");
        assert!(all.eight_bit && all.utf8 && all.pipelining && all.dsn && all.login && !all.plain);
        assert_eq!((all.size, all.starttls), (Some(2000), false));
        assert_eq!(offer("PIPELINING"), Offer::default());
        assert_eq!(offer("me\nSIZE").size, None);
        assert_eq!(offer("me\nSIZE 0").size, None);
    }

    #[test]
    fn an_envelope_says_what_was_offered_and_nothing_else() {
        let plain = laid(&Offer::default(), "b@x.example", "a@y.example", b"Hi\r\n").unwrap();
        assert_eq!(plain, "MAIL FROM:<b@x.example>\r\nRCPT TO:<a@y.example>\r\nDATA\r\n");
        let all = offer("me\nSIZE 100\n8BITMIME\nSMTPUTF8\nDSN");
        assert_eq!(
            laid(&all, "b@x.example", "josé+a@y.example", "é\r\n".as_bytes()).unwrap(),
            "MAIL FROM:<b@x.example> SMTPUTF8 BODY=8BITMIME SIZE=4 RET=HDRS \
             ENVID=01890000-0000-7000-8000-000000000001\r\n\
             RCPT TO:<josé+a@y.example> NOTIFY=FAILURE,DELAY ORCPT=utf-8;jos\\x{E9}\\x{2B}a@y.example\r\nDATA\r\n"
        );
        assert!(
            laid(&all, "b@x.example", "a+b=c@y.example", b"")
                .unwrap()
                .contains("ORCPT=rfc822;a+2Bb+3Dc@y.example\r\n")
        );
        let long = format!("{}@y.example", "+".repeat(200));
        let envelope = laid(&all, "b@x.example", &long, b"").unwrap();
        assert!(envelope.contains("NOTIFY=FAILURE,DELAY\r\n"), "{envelope}");
    }

    #[test]
    fn only_whole_lines_are_handed_over() {
        assert!(has_whole_lines(b"a\r\n\r\n.b\r\n"));
        assert!(has_whole_lines(b"no line's end"));
        for bad in [&b"a\nb"[..], b"a\rb", b"a\r", b"\n.\r\n", b"a\r\r\n", b"a\0b", b"\r\n\n\r"] {
            assert!(!has_whole_lines(bad), "{bad:?}");
        }
    }

    #[test]
    fn an_address_never_ends_its_command() {
        assert!(is_argument("a@b.example"));
        assert!(is_argument("josé@b.example"));
        for bad in ["a", "@b", "a@", "a>@b", "a b@c", "a\r\nDATA@b", "a@bücher.example"] {
            assert!(!is_argument(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_envelope_has_three_lines_whatever_the_addresses(
            from in ".{0,40}|[a-z@+=<>\r\n ]{0,20}",
            to in ".{0,40}|[a-zé@+=<>\r\n ]{0,20}",
        ) {
            if let Ok(laid) = laid(&offer("me\n8BITMIME\nSMTPUTF8\nDSN"), &from, &to, b"x\r\n") {
                prop_assert_eq!(laid.matches(['\r', '\n']).count(), 6);
                prop_assert_eq!(laid.matches('<').count(), 2);
            }
        }

        #[test]
        fn whole_lines_are_those_that_another_reading_finds(text in "[\r\n.a\0]{0,12}") {
            let mut rest = text.replace("\r\n", "");
            rest.retain(|c| matches!(c, '\r' | '\n' | '\0'));
            prop_assert_eq!(has_whole_lines(text.as_bytes()), rest.is_empty());
        }
    }
}
