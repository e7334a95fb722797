//! Octets cut into command lines. Pure.

/// Longest command line with its end, in octets. RFC 5321 §4.5.3.1.4 asks for 512, and parameters add to it.
pub(super) const MAX_LINE: usize = 2048;
/// So many octets more and whoever sends them means no command.
const MAX_REST: usize = 64 * 1024;

/// A command line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Without its CRLF.
    Whole(Vec<u8>),
    /// It ended in LF without CR (RFC 5321 §2.3.8 forbids it).
    BareLf,
    /// It has more than [`MAX_LINE`] octets; its rest is passed over.
    TooLong,
    /// It does not end at all.
    Endless,
}

/// What came of the line under way.
#[derive(Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
    /// Octets passed over of a line that was too long.
    passed: Option<usize>,
}

impl Lines {
    /// The next line; none when the octets end before it does. An LF always ends a line, so that reader and writer never
    /// disagree for longer than one.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Option<Line> {
        loop {
            let ends = bytes.iter().position(|&octet| octet == b'\n');
            let (taken, rest) = bytes.split_at(ends.map_or(bytes.len(), |at| at + 1));
            if let Some(passed) = &mut self.passed {
                *passed += taken.len();
                let endless = *passed > MAX_REST;
                *bytes = rest;
                match ends {
                    Some(_) => self.passed = None,
                    None => return endless.then_some(Line::Endless),
                }
                continue;
            }
            if self.begun.len() + taken.len() > MAX_LINE {
                self.begun.clear();
                self.passed = Some(0);
                return Some(Line::TooLong);
            }
            self.begun.extend_from_slice(taken);
            *bytes = rest;
            ends?;
            let line = std::mem::take(&mut self.begun);
            return Some(match line.strip_suffix(b"\r\n") {
                Some(line) => Line::Whole(line.to_vec()),
                None => Line::BareLf,
            });
        }
    }
}
