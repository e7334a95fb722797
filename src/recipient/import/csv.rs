//! Comma-separated records (RFC 4180) with the line each begins at.
//!
//! A quote that is opened and never closed would make one record of all that follows. Here it spoils its own line:
//! the record is given up after 64 KB or at the end of the file, and reading goes on with the line after the quote.

use std::io;

use csv_core::{ReadRecordResult, Reader};
use tokio::io::AsyncRead;

use super::MAX_LINE;
use super::window::Window;

/// Most columns of a file.
const MAX_COLUMNS: usize = 256;
/// How often a record is given up and its other lines are read again. It bounds the work that a hostile file makes.
const MAX_RETURNS: u32 = 200;

const UNCLOSED: &str = "a quote is opened and not closed, or the record is longer than 64 KB";
const LONG: &str = "the line is longer than 64 KB";

/// Reads records.
pub(super) struct Records<R> {
    window: Window<R>,
    core: Reader,
    line: u64,
    returns_left: u32,
    out: Vec<u8>,
    ends: Vec<usize>,
    columns: usize,
}

/// How reading one record ended.
enum End {
    Record { octets: usize },
    TooLong,
    TooManyColumns,
    Unclosed,
}

impl<R: AsyncRead + Unpin> Records<R> {
    pub(super) fn new(window: Window<R>) -> Self {
        Self {
            window,
            core: Reader::new(),
            line: 1,
            returns_left: MAX_RETURNS,
            // One more than is let through, so that the parser never runs out of room.
            out: vec![0; MAX_LINE + 2],
            ends: vec![0; MAX_COLUMNS + 1],
            columns: 0,
        }
    }

    /// The next record's line, and why it cannot be read if so; none at the end. Empty lines are no records.
    pub(super) async fn next(&mut self) -> io::Result<Option<(u64, Result<(), &'static str>)>> {
        if !self.skip_empty_lines().await? {
            return Ok(None);
        }
        let line = self.line;
        let read = match self.parse().await? {
            End::Record { octets } => {
                self.line += line_ends(&self.window.bytes()[..octets]);
                self.window.skip(octets);
                Ok(())
            }
            End::TooManyColumns => {
                self.window.skip_line().await?;
                self.line += 1;
                Err("has more than 256 columns")
            }
            End::TooLong | End::Unclosed => Err(self.give_up().await?),
        };
        Ok(Some((line, read)))
    }

    /// The fields of the record just read.
    pub(super) fn fields(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.columns).map(|n| {
            let from = if n == 0 { 0 } else { self.ends[n - 1] };
            &self.out[from..self.ends[n]]
        })
    }

    /// How many octets of the file were stepped over so far.
    pub(super) fn skipped(&self) -> usize {
        self.window.skipped()
    }

    async fn skip_empty_lines(&mut self) -> io::Result<bool> {
        let mut after_cr = false;
        while let Some(byte) = self.window.peek().await? {
            match byte {
                b'\n' => self.line += u64::from(!after_cr),
                b'\r' => self.line += 1,
                _ => return Ok(true),
            }
            after_cr = byte == b'\r';
            self.window.skip(1);
        }
        Ok(false)
    }

    /// Parses one record without stepping over it.
    async fn parse(&mut self) -> io::Result<End> {
        self.core.reset();
        let (mut octets, mut written, mut columns) = (0, 0, 0);
        loop {
            while self.window.bytes().len() == octets && !self.window.has_ended() {
                self.window.fill().await?;
            }
            let rest = &self.window.bytes()[octets..];
            let at_end = rest.is_empty();
            // At the end a line feed takes the place of the one that is missing: inside quotes it ends nothing.
            let input = if at_end { b"\n" } else { &rest[..rest.len().min(MAX_LINE + 1 - octets)] };
            let (result, read, wrote, ended) =
                self.core.read_record(input, &mut self.out[written..], &mut self.ends[columns..]);
            if !at_end {
                octets += read;
            }
            written += wrote;
            columns += ended;
            match result {
                ReadRecordResult::Record if columns > MAX_COLUMNS => return Ok(End::TooManyColumns),
                ReadRecordResult::Record => {
                    self.columns = columns;
                    return self.with_line_feed(octets).await;
                }
                ReadRecordResult::OutputEndsFull => return Ok(End::TooManyColumns),
                ReadRecordResult::OutputFull => return Ok(End::TooLong),
                ReadRecordResult::InputEmpty | ReadRecordResult::End if at_end => return Ok(End::Unclosed),
                ReadRecordResult::InputEmpty | ReadRecordResult::End => {
                    if octets > MAX_LINE {
                        return Ok(End::TooLong);
                    }
                }
            }
        }
    }

    /// The parser ends a record at CR; the LF after it belongs to the same line.
    async fn with_line_feed(&mut self, octets: usize) -> io::Result<End> {
        if self.window.bytes()[..octets].last() != Some(&b'\r') {
            return Ok(End::Record { octets });
        }
        while self.window.bytes().len() == octets && !self.window.has_ended() {
            self.window.fill().await?;
        }
        let more = usize::from(self.window.bytes().get(octets) == Some(&b'\n'));
        Ok(End::Record { octets: octets + more })
    }

    /// Steps over the first line of a record that cannot be used, and tells why it cannot.
    async fn give_up(&mut self) -> io::Result<&'static str> {
        let seen = &self.window.bytes()[..self.window.bytes().len().min(MAX_LINE + 1)];
        let (several, short) = (seen.contains(&b'\n'), seen.len() <= MAX_LINE);
        if several && self.returns_left == 0 {
            self.line += line_ends(seen);
            self.window.skip(seen.len());
        }
        self.returns_left = self.returns_left.saturating_sub(u32::from(several));
        self.window.skip_line().await?;
        self.line += 1;
        Ok(if several || short { UNCLOSED } else { LONG })
    }
}

/// How many lines end in these bytes: at LF, CRLF or CR.
fn line_ends(bytes: &[u8]) -> u64 {
    let lf = bytes.iter().filter(|&&b| b == b'\n').count();
    let lone_cr = bytes.iter().enumerate().filter(|&(n, &b)| b == b'\r' && bytes.get(n + 1) != Some(&b'\n'));
    (lf + lone_cr.count()) as u64
}
