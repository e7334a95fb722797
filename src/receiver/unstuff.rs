//! Where a message ends, and its dots unstuffed (RFC 5321 §4.5.2). Pure.
//!
//! Only CRLF dot CRLF ends a message: not LF dot LF, not CR dot CR, not CRLF dot CR CRLF. Whatever else looks like it
//! is text.

/// What was read last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// CRLF, or nothing yet: the line's end of `DATA` counts as one.
    LineEnd,
    /// CR in a line.
    Cr,
    /// The dot that a line began with; it is not part of the text.
    Dot,
    /// That dot and a CR, which is kept back.
    DotCr,
    /// Anything else.
    Text,
}

/// Reads one message.
pub(super) struct Unstuff(Seen);

impl Unstuff {
    pub(super) fn new() -> Self {
        Self(Seen::LineEnd)
    }

    /// Passes on the octets of the text; true when the message has ended, with what follows it left in `bytes`.
    pub(super) fn read(&mut self, bytes: &mut &[u8], mut text: impl FnMut(&[u8])) -> bool {
        while let Some((&octet, rest)) = bytes.split_first() {
            if self.0 == Seen::Text {
                // Up to the next CR nothing can happen.
                let run = bytes.iter().position(|&octet| octet == b'\r').unwrap_or(bytes.len());
                if run > 0 {
                    text(&bytes[..run]);
                    *bytes = &bytes[run..];
                    continue;
                }
            }
            *bytes = rest;
            self.0 = match (self.0, octet) {
                (Seen::LineEnd, b'.') => {
                    self.0 = Seen::Dot;
                    continue;
                }
                (Seen::Dot, b'\r') => {
                    self.0 = Seen::DotCr;
                    continue;
                }
                (Seen::DotCr, b'\n') => return true,
                (Seen::DotCr, _) => {
                    text(b"\r");
                    if octet == b'\r' { Seen::Cr } else { Seen::Text }
                }
                (Seen::Cr, b'\n') => Seen::LineEnd,
                (_, b'\r') => Seen::Cr,
                _ => Seen::Text,
            };
            text(&[octet]);
        }
        false
    }
}
