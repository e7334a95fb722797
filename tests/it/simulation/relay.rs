//! The relay of a simulation: connections, what was written to each and not read yet, and what it answers. It reads what
//! a dead worker left, and hangs up on whoever is silent for long.

use std::collections::VecDeque;

use tidings::id::DeliveryId;

/// After so many seconds without a word it hangs up; `relay_silence_seconds` stands above it.
const PATIENCE: u64 = 300;

/// What a worker wrote in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// MAIL, RCPT and DATA.
    Envelope(DeliveryId),
    /// A message and its final dot; the number of the body.
    Body(DeliveryId, usize),
}

/// What the relay answers to an envelope or a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Fine,
    Later,
    Never,
    MailboxGone,
}

/// What the relay does next with the piece it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Answers(Answer),
    /// Takes the message (or the envelope) and hangs up before the answer is out.
    TakesAndCloses,
    Closes,
}

#[derive(Default)]
struct Line {
    /// Written and not read.
    pieces: VecDeque<Piece>,
    /// Answered and not heard.
    answers: VecDeque<Answer>,
    /// The relay hung up. What the worker wrote before it did so itself may still be read.
    closed: bool,
    heard_at: u64,
}

/// The number of a connection.
pub(super) type LineNo = usize;

/// The relay.
#[derive(Default)]
pub(super) struct Relay {
    lines: Vec<Line>,
}

impl Relay {
    pub(super) fn connect(&mut self, now: u64) -> LineNo {
        self.lines.push(Line { heard_at: now, ..Line::default() });
        self.lines.len() - 1
    }

    /// Writes in one write. Says no when the relay has hung up: then nothing arrived.
    pub(super) fn write(&mut self, line: LineNo, pieces: &[Piece], now: u64) -> bool {
        let line = &mut self.lines[line];
        if line.closed {
            return false;
        }
        line.pieces.extend(pieces);
        line.heard_at = now;
        true
    }

    /// The next answer; an error once none can come.
    pub(super) fn hear(&mut self, line: LineNo) -> Result<Option<Answer>, ()> {
        let line = &mut self.lines[line];
        match line.answers.pop_front() {
            Some(answer) => Ok(Some(answer)),
            None if line.closed => Err(()),
            None => Ok(None),
        }
    }

    /// The worker hangs up or dies. `reset`: what was not read is gone with it.
    pub(super) fn leave(&mut self, line: LineNo, reset: bool) -> Vec<Piece> {
        if reset { self.lines[line].pieces.drain(..).collect() } else { Vec::new() }
    }

    /// Lines on which something waits to be read.
    pub(super) fn waiting(&self) -> Vec<LineNo> {
        let lines = self.lines.iter().enumerate();
        lines.filter(|(_, line)| !line.closed && !line.pieces.is_empty()).map(|(n, _)| n).collect()
    }

    /// What it reads next.
    pub(super) fn next(&self, line: LineNo) -> Piece {
        self.lines[line].pieces[0]
    }

    /// Reads the next piece in this mood. Returns what is lost when it hangs up.
    pub(super) fn read(&mut self, line: LineNo, mood: Mood) -> Vec<Piece> {
        let line = &mut self.lines[line];
        line.pieces.pop_front();
        match mood {
            Mood::Answers(answer) => line.answers.push_back(answer),
            Mood::TakesAndCloses | Mood::Closes => line.closed = true,
        }
        if line.closed { line.pieces.drain(..).collect() } else { Vec::new() }
    }

    /// Hangs up on whoever was silent too long. Returns what is lost with it.
    pub(super) fn tick(&mut self, now: u64) -> Vec<Piece> {
        let mut lost = Vec::new();
        for line in self.lines.iter_mut().filter(|line| !line.closed && now > line.heard_at + PATIENCE) {
            line.closed = true;
            lost.extend(line.pieces.drain(..));
        }
        lost
    }
}
