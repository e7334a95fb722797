//! Octets read from a relay, cut into replies.
//!
//! Pure. It forgives what costs no meaning: LF alone, `250` without a space, control characters, spaces around the
//! text. It forgives nothing that does: a line without a code, lines of one reply that disagree, a reply without end.

use super::outcome::Reply;

/// Room for what is read at once; a group of replies is shorter.
const ROOM: usize = 2 * 1024;
/// Most octets of one reply.
const MAX_REPLY: usize = 64 * 1024;

/// What was read and not yet understood, and the last reply.
pub(super) struct Replies {
    buffer: Vec<u8>,
    /// Octets of the buffer that were read.
    filled: usize,
    /// Where the reply being read begins, its line being read, and what was not yet searched for that line's end.
    start: usize,
    line: usize,
    searched: usize,
    /// The code of the reply being read, from its first line on.
    code: Option<u16>,
    last: std::ops::Range<usize>,
}

/// Why octets are no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Garbled {
    /// Not SMTP.
    NotSmtp,
    /// It does not end.
    Endless,
}

impl Replies {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; ROOM], filled: 0, start: 0, line: 0, searched: 0, code: None, last: 0..0 }
    }

    /// Whether something was read that no reply accounts for yet.
    pub(super) fn has_more(&self) -> bool {
        self.start < self.filled
    }

    /// Where to read to; never empty. Forgets the last reply.
    ///
    /// # Errors
    /// When the reply being read is too long already.
    pub(super) fn room(&mut self) -> Result<&mut [u8], Garbled> {
        if self.start == self.filled {
            (self.start, self.line, self.searched, self.filled) = (0, 0, 0, 0);
        } else if self.filled == self.buffer.len() {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.filled, 0);
                self.line -= self.start;
                self.searched -= self.start;
                self.filled -= self.start;
                self.start = 0;
            } else if self.buffer.len() < MAX_REPLY {
                self.buffer.resize(self.buffer.len() * 2, 0);
            } else {
                return Err(Garbled::Endless);
            }
        }
        self.last = 0..0;
        Ok(&mut self.buffer[self.filled..])
    }

    /// So many octets were read to [`Replies::room`].
    pub(super) fn took(&mut self, octets: usize) {
        self.filled += octets;
    }

    /// The code of the next reply, when it is there whole.
    ///
    /// # Errors
    /// When what was read is no reply; there is no going on after that.
    pub(super) fn next(&mut self) -> Result<Option<u16>, Garbled> {
        loop {
            let unread = &self.buffer[self.searched..self.filled];
            let Some(at) = unread.iter().position(|&byte| byte == b'\n') else {
                self.searched = self.filled;
                return Ok(None);
            };
            let end = self.searched + at + 1;
            let (code, is_last) = line(&self.buffer[self.line..end]).ok_or(Garbled::NotSmtp)?;
            if self.code.is_some_and(|first| first != code) {
                return Err(Garbled::NotSmtp);
            }
            (self.line, self.searched) = (end, end);
            if is_last {
                self.code = None;
                self.last = self.start..end;
                self.start = end;
                return Ok(Some(code));
            }
            self.code = Some(code);
        }
    }

    /// The text of each line of the last reply; empty once something was read after it.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.buffer[self.last.clone()].split_inclusive(|&byte| byte == b'\n').map(|line| {
            let text = String::from_utf8_lossy(line.get(4..).unwrap_or_default());
            text.trim_matches(|c: char| c.is_whitespace() || c.is_control()).to_owned()
        })
    }

    /// The last reply, its lines joined.
    pub(super) fn reply(&self, code: u16) -> Reply {
        let mut lines = self.lines();
        let mut text = lines.next().unwrap_or_default();
        for line in lines {
            text.push(' ');
            text.push_str(&line);
        }
        Reply::new(code, &text)
    }
}

/// A line's code, and whether it is a reply's last one.
fn line(line: &[u8]) -> Option<(u16, bool)> {
    let digits = line.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    let is_last = match line.get(3)? {
        b'-' => false,
        b' ' | b'\t' | b'\r' | b'\n' => true,
        _ => return None,
    };
    (200..600).contains(&code).then_some((code, is_last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads these pieces one after the other and returns the replies.
    fn read(pieces: &[&[u8]]) -> Result<Vec<Reply>, Garbled> {
        let mut replies = Replies::new();
        let mut found = Vec::new();
        for mut piece in pieces.iter().copied() {
            while !piece.is_empty() {
                let room = replies.room()?;
                let taken = piece.len().min(room.len());
                room[..taken].copy_from_slice(&piece[..taken]);
                replies.took(taken);
                piece = &piece[taken..];
                while let Some(code) = replies.next()? {
                    found.push(replies.reply(code));
                }
            }
        }
        Ok(found)
    }

    #[test]
    fn replies_are_found_however_they_are_cut() {
        let said = b"250-2.1.0 first\r\n250 second\r\n354\r\n550 5.1.1 \x01caf\xe9 \n421-\r\n421 \r\n";
        let whole = read(&[said]).unwrap();
        assert_eq!(whole.iter().map(|reply| reply.code).collect::<Vec<_>>(), [250, 354, 550, 421]);
        assert_eq!(whole[0].text, "2.1.0 first second");
        assert_eq!(whole[2].enhanced.as_deref(), Some("5.1.1"));
        let octets: Vec<&[u8]> = said.chunks(1).collect();
        assert_eq!(read(&octets).unwrap(), whole);
        for cut in 0..said.len() {
            assert_eq!(read(&[&said[..cut], &said[cut..]]).unwrap(), whole, "{cut}");
        }
    }

    #[test]
    fn what_is_no_reply_is_told() {
        for bad in ["nonsense\r\n", "999 x\r\n", "\0\r\n", "250-a\r\n550 b\r\n", "\r\n", "25\r\n", "250x\r\n"]
        {
            assert_eq!(read(&[bad.as_bytes()]), Err(Garbled::NotSmtp), "{bad:?}");
        }
        let endless = b"250-and so on\r\n".repeat(10_000);
        assert_eq!(read(&[&endless]), Err(Garbled::Endless));
        assert_eq!(read(&[&b"2".repeat(100_000)]), Err(Garbled::Endless));
    }

    #[test]
    fn a_long_reply_after_others_is_read_whole() {
        let mut said = b"250 ok\r\n".repeat(500);
        said.extend(b"250-and so on\r\n".repeat(3_000));
        said.extend(b"250 end\r\n354 go\r\n");
        let replies = read(&[&said]).unwrap();
        assert_eq!(replies.len(), 502);
        assert_eq!(replies[501].code, 354);
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let _ = read(&pieces);
        }
    }
}
