//! A window on a stream of bytes: what is read and not yet used, bounded by what its user leaves in it.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is read at a time, in octets.
const READ: usize = 64 * 1024;

/// The bytes read and not yet used.
pub(super) struct Window<R> {
    source: R,
    bytes: Vec<u8>,
    start: usize,
    ended: bool,
    skipped: usize,
}

impl<R: AsyncRead + Unpin> Window<R> {
    /// Opens it and steps over a byte order mark.
    pub(super) async fn open(source: R) -> io::Result<Self> {
        let mut window = Self { source, bytes: Vec::new(), start: 0, ended: false, skipped: 0 };
        while window.bytes().len() < 3 && !window.ended {
            window.fill().await?;
        }
        if window.bytes().starts_with(b"\xef\xbb\xbf") {
            window.skip(3);
        }
        Ok(window)
    }

    /// What is read and not yet used.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Whether nothing more comes.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Steps over the next `n` bytes.
    pub(super) fn skip(&mut self, n: usize) {
        self.start += n;
        self.skipped += n;
    }

    /// How many bytes were stepped over so far.
    pub(super) fn skipped(&self) -> usize {
        self.skipped
    }

    /// Reads some more.
    pub(super) async fn fill(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.reserve(READ);
        let mut some = (&mut self.source).take(READ as u64);
        self.ended = some.read_buf(&mut self.bytes).await? == 0;
        Ok(())
    }

    /// The next byte; none at the end.
    pub(super) async fn peek(&mut self) -> io::Result<Option<u8>> {
        while self.bytes().is_empty() && !self.ended {
            self.fill().await?;
        }
        Ok(self.bytes().first().copied())
    }

    /// Steps over everything up to and with the next line feed, or to the end.
    pub(super) async fn skip_line(&mut self) -> io::Result<()> {
        while self.peek().await?.is_some() {
            match self.bytes().iter().position(|&b| b == b'\n') {
                Some(at) => {
                    self.skip(at + 1);
                    return Ok(());
                }
                None => self.skip(self.bytes().len()),
            }
        }
        Ok(())
    }
}
