//! A message's body as it goes over the wire: dots at the beginning of lines doubled, the final dot last.
//!
//! Pure. It copies a long message piece by piece, so that no second one lies in memory.

/// A body on its way (RFC 5321 §4.5.2).
pub(super) struct Body<'a> {
    rest: &'a [u8],
    at_line_start: bool,
}

impl<'a> Body<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, at_line_start: true }
    }

    /// Appends about `octets` more of it, or the end with the final dot; whether that was the end.
    pub(super) fn lay(&mut self, octets: usize, laid: &mut Vec<u8>) -> bool {
        let (piece, rest) = self.rest.split_at(octets.min(self.rest.len()));
        self.rest = rest;
        if self.at_line_start && piece.first() == Some(&b'.') {
            laid.push(b'.');
        }
        let mut from = 0;
        for at in memchr::memmem::find_iter(piece, b"\n.") {
            laid.extend_from_slice(&piece[from..=at]);
            laid.push(b'.');
            from = at + 1;
        }
        laid.extend_from_slice(&piece[from..]);
        if let Some(last) = piece.last() {
            self.at_line_start = *last == b'\n';
        }
        if !self.rest.is_empty() {
            return false;
        }
        laid.extend_from_slice(if self.at_line_start { b".\r\n" } else { b"\r\n.\r\n" });
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn laid(bytes: &[u8], octets: usize) -> Vec<u8> {
        let mut laid = Vec::new();
        let mut body = Body::new(bytes);
        while !body.lay(octets, &mut laid) {}
        laid
    }

    #[test]
    fn dots_are_doubled_and_the_last_line_is_ended() {
        assert_eq!(laid(b"a\r\n.\r\n..b\r\nc.\r\n", 100), b"a\r\n..\r\n...b\r\nc.\r\n.\r\n");
        assert_eq!(laid(b".", 100), b"..\r\n.\r\n");
        assert_eq!(laid(b"", 100), b".\r\n");
        assert_eq!(laid(b"a\r\n", 3), b"a\r\n.\r\n");
    }

    proptest! {
        #[test]
        fn the_message_ends_where_it_ends_however_it_is_cut(
            lines in prop::collection::vec("[.a]{0,4}", 0..8),
            octets in 1_usize..9,
        ) {
            let bytes: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let on_the_wire = laid(bytes.as_bytes(), octets);
            prop_assert_eq!(&on_the_wire, &laid(bytes.as_bytes(), 1_000));
            let text = String::from_utf8(on_the_wire).unwrap();
            let (content, end) = text.split_at(text.len() - 3);
            prop_assert_eq!(end, ".\r\n");
            let read: Vec<&str> = content.split_terminator("\r\n").collect();
            prop_assert!(read.iter().all(|line| *line != "."));
            let unstuffed: Vec<&str> = read.iter().map(|line| line.strip_prefix('.').unwrap_or(line)).collect();
            prop_assert_eq!(unstuffed, lines);
        }
    }
}
