//! A connection to the relay and the hand-over of one message after another.

use std::time::{Duration, Instant};

use metrics::Histogram;

use super::Timeouts;
use super::body::Body;
use super::offer::Offer;
use super::outcome::{Outcome, Phase, Reply};
use super::wire::{CHUNK, Fault, Leave, Tail, Wire};
use crate::decision::Clearance;
use crate::id::DeliveryId;
use crate::message::Message;

/// A message and the right to hand it over.
#[derive(Clone, Copy)]
pub struct Parcel<'a> {
    /// The message.
    pub message: &'a Message,
    /// The clearance of its delivery.
    pub clearance: &'a Clearance,
}

/// An open connection to the relay. Dropping it hangs up.
///
/// A refused message costs nothing but a RSET. After a 421, a time-out or a fault the connection is closed, and
/// [`Connection::is_open`] says so; so does a hand-over whose future was dropped.
pub struct Connection {
    wire: Option<Wire>,
    offer: Offer,
    timeouts: Timeouts,
    /// Whose envelope is out, its replies unread.
    announced: Option<DeliveryId>,
    /// The envelope at hand, or the one that is out.
    envelope: String,
    /// The envelope after it.
    coming: String,
    /// Whether the next transaction begins with RSET.
    unfinished: bool,
    /// Whether nothing may follow although the message at hand came to its end.
    torn: bool,
    begun: u64,
    stale: bool,
    envelope_seconds: Histogram,
    body_seconds: Histogram,
}

/// How a transaction ends without success.
enum End {
    /// The relay's answer; and whether the connection is of use after it.
    Answered(Outcome, bool),
    /// The dialogue broke in this phase.
    Broken(Phase, Fault),
}

impl Connection {
    /// A connection that has said EHLO, and what was offered then.
    pub(super) fn new(wire: Wire, offer: Offer, timeouts: Timeouts) -> Self {
        Self {
            wire: Some(wire),
            offer,
            timeouts,
            announced: None,
            envelope: String::new(),
            coming: String::new(),
            unfinished: false,
            torn: false,
            begun: 0,
            stale: false,
            envelope_seconds: metrics::histogram!(super::PHASE_SECONDS, "phase" => "envelope"),
            body_seconds: metrics::histogram!(super::PHASE_SECONDS, "phase" => "body"),
        }
    }

    /// Whether another message may go over it.
    pub fn is_open(&self) -> bool {
        self.wire.is_some()
    }

    /// Whether the relay offers PIPELINING, so that the next envelope can ride on a body.
    pub fn pipelines(&self) -> bool {
        self.offer.pipelining
    }

    /// The delivery whose envelope is out and whose body is not. The next hand-over must be its own: the only other way
    /// to be rid of it is to drop the connection, since DATA has no RSET. When the connection closes there is none.
    pub fn announced(&self) -> Option<DeliveryId> {
        self.announced
    }

    /// Whether a hand-over over it was begun before the last one.
    pub fn was_reused(&self) -> bool {
        self.begun > 1
    }

    /// Whether the last hand-over failed only because a connection that was used before was closed, as relays do after
    /// some time or some messages. The outcome is then `NotSent`, or `Deferred` (421) in phase `MailFrom`; it counts as
    /// no attempt, and the message may go over a new connection at once.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Hands `this` over, if its clearance lets it begin right before the envelope and is valid right before the body.
    ///
    /// The envelope of `next` rides in the same write as the body and the final dot of `this`, if the relay offers
    /// PIPELINING (RFC 2920 §3.1), its clearance lets it begin right then, and nothing speaks against it beforehand;
    /// [`Connection::announced`] tells. A following call whose `this` is that delivery, with the same message, reads the
    /// replies to that envelope first and goes on with the body. If the connection is closed before, that delivery
    /// surely was not sent.
    ///
    /// A dropped future closes the connection; whether the message was taken over is then unknown.
    pub async fn hand_over(&mut self, this: Parcel<'_>, next: Option<Parcel<'_>>) -> Outcome {
        self.stale = false;
        let announced = self.announced.take();
        let Some(mut wire) = self.wire.take() else {
            self.stale = true;
            return Outcome::NotSent(Phase::MailFrom, "the connection is closed".to_owned());
        };
        let delivery = this.clearance.delivery();
        if let Some(announced) = announced {
            let laid = self.offer.lay(this.message, delivery, &mut self.coming);
            if announced != delivery || laid.is_err() || self.coming != self.envelope {
                self.stale = true;
                return Outcome::NotSent(
                    Phase::MailFrom,
                    "the envelope of another message is out".to_owned(),
                );
            }
        } else {
            let laid = self.offer.lay(this.message, delivery, &mut self.envelope);
            if let Err(outcome) = laid {
                self.wire = Some(wire);
                return outcome;
            }
            if !this.clearance.may_begin() {
                self.wire = Some(wire);
                return Outcome::NotSent(Phase::MailFrom, Fault::Lapsed.words());
            }
        }
        self.begun += 1;
        self.torn = false;
        let (outcome, open) = match self.transact(&mut wire, this, next, announced.is_some()).await {
            Ok(reply) => (Outcome::Sent(reply), true),
            Err(End::Answered(outcome, open)) => {
                let closing =
                    matches!(&outcome, Outcome::Deferred(Phase::MailFrom, reply) if reply.code == 421);
                self.stale = closing && self.begun > 1;
                (outcome, open)
            }
            Err(End::Broken(phase, fault)) => {
                self.stale = self.begun > 1 && phase < Phase::FinalDot && fault != Fault::Lapsed;
                let became = if phase == Phase::FinalDot { Outcome::Unknown } else { Outcome::NotSent };
                (became(phase, fault.words()), false)
            }
        };
        if open && !self.torn {
            self.wire = Some(wire);
        } else {
            self.announced = None;
        }
        outcome
    }

    /// Takes leave. Whether the relay answers does not matter any more.
    pub async fn quit(mut self) {
        let Some(mut wire) = self.wire.take() else { return };
        // Between DATA and its body a QUIT would be a line of the body.
        if self.announced.is_some() {
            return;
        }
        wire.out.extend_from_slice(b"QUIT\r\n");
        if wire.send(Leave::default(), self.timeouts.farewell).await.is_ok() {
            let _ = wire.reply(self.timeouts.farewell).await;
        }
    }

    async fn transact(
        &mut self,
        wire: &mut Wire,
        this: Parcel<'_>,
        next: Option<Parcel<'_>>,
        announced: bool,
    ) -> Result<Reply, End> {
        let began = Instant::now();
        if announced {
            self.hear_envelope(wire, this).await?;
        } else if self.offer.pipelining {
            self.say_envelope(wire, this).await?;
            self.hear_envelope(wire, this).await?;
        } else {
            self.ask_envelope(wire, this).await?;
        }
        let told = Instant::now();
        self.envelope_seconds.record(told.duration_since(began).as_secs_f64());
        let done = self.hand_body(wire, this, next).await;
        self.body_seconds.record(told.elapsed().as_secs_f64());
        done
    }

    /// Writes the whole envelope, and before it the RSET that is due.
    async fn say_envelope(&mut self, wire: &mut Wire, this: Parcel<'_>) -> Result<(), End> {
        let reset = std::mem::take(&mut self.unfinished);
        if reset {
            wire.out.extend_from_slice(b"RSET\r\n");
        }
        wire.out.extend_from_slice(self.envelope.as_bytes());
        self.send(wire, this, Phase::MailFrom).await?;
        if reset { self.hear_reset(wire).await } else { Ok(()) }
    }

    /// Reads the replies to MAIL, RCPT and DATA that went out together: all three, whatever the first ones say.
    async fn hear_envelope(&mut self, wire: &mut Wire, this: Parcel<'_>) -> Result<(), End> {
        let steps = self.steps();
        let mut refused: Option<Outcome> = None;
        let mut accepted = [false; 3];
        for ((phase, wanted, limit), accepted) in steps.into_iter().zip(&mut accepted) {
            match hear(wire, phase, wanted, limit).await {
                Ok(_) => *accepted = true,
                Err(End::Answered(outcome, true)) => {
                    refused.get_or_insert(outcome);
                }
                // What was said of this message before stands, whatever came over the connection then.
                Err(end) => return Err(refused.map_or(end, |outcome| End::Answered(outcome, false))),
            }
        }
        match (refused, accepted) {
            (None, _) => Ok(()),
            (Some(outcome), [_, _, false]) => {
                // Even where no transaction was begun: the reply to RSET shows that none was one too many.
                self.unfinished = true;
                Err(End::Answered(outcome, true))
            }
            // The relay waits for a message that is for nobody: an empty one (RFC 2920 §3.1).
            (Some(outcome), [_, false, true]) => {
                let open = self.hand_nothing(wire, this).await;
                self.unfinished = true;
                Err(End::Answered(outcome, open))
            }
            // A recipient without a sender: whatever is said now might go there.
            (Some(outcome), [_, true, true]) => Err(End::Answered(outcome, false)),
        }
    }

    /// One command, one reply, as a relay wants it that offers no PIPELINING.
    async fn ask_envelope(&mut self, wire: &mut Wire, this: Parcel<'_>) -> Result<(), End> {
        if std::mem::take(&mut self.unfinished) {
            wire.out.extend_from_slice(b"RSET\r\n");
            self.send(wire, this, Phase::MailFrom).await?;
            self.hear_reset(wire).await?;
        }
        let envelope = std::mem::take(&mut self.envelope);
        for (command, (phase, wanted, limit)) in envelope.split_inclusive('\n').zip(self.steps()) {
            wire.out.extend_from_slice(command.as_bytes());
            self.send(wire, this, phase).await?;
            let heard = hear(wire, phase, wanted, limit).await;
            self.unfinished = phase != Phase::MailFrom && matches!(heard, Err(End::Answered(_, true)));
            heard?;
        }
        self.envelope = envelope;
        Ok(())
    }

    fn steps(&self) -> [(Phase, Wanted, Duration); 3] {
        let Timeouts { mail, rcpt, data, .. } = self.timeouts;
        [
            (Phase::MailFrom, Wanted::Done, mail),
            (Phase::RcptTo, Wanted::Done, rcpt),
            (Phase::Data, Wanted::GoOn, data),
        ]
    }

    async fn hear_reset(&self, wire: &mut Wire) -> Result<(), End> {
        match wire.reply(self.timeouts.farewell).await {
            Ok(250) => Ok(()),
            Ok(code) => Err(End::Broken(Phase::MailFrom, Fault::Odd(code))),
            Err(fault) => Err(End::Broken(Phase::MailFrom, fault)),
        }
    }

    /// Writes what was laid ready before the body.
    async fn send(&self, wire: &mut Wire, this: Parcel<'_>, phase: Phase) -> Result<(), End> {
        let sent = if wire.has_unread() {
            Err(Fault::Unasked)
        } else {
            let leave = Leave { own: Some(this.clearance), begins: phase == Phase::MailFrom, next: None };
            wire.send(leave, self.timeouts.block).await
        };
        sent.map(drop).map_err(|fault| End::Broken(phase, fault))
    }

    /// Ends a message that has no recipient; whether the connection is of use after it.
    async fn hand_nothing(&self, wire: &mut Wire, this: Parcel<'_>) -> bool {
        wire.out.extend_from_slice(b".\r\n");
        if self.send(wire, this, Phase::Body).await.is_err() {
            return false;
        }
        let code = wire.reply(self.timeouts.final_dot).await;
        matches!(code, Ok(code) if code != 421 && !(300..400).contains(&code))
    }

    /// Writes the body, its final dot and the next envelope, and reads what the relay says to the message.
    async fn hand_body(
        &mut self,
        wire: &mut Wire,
        this: Parcel<'_>,
        next: Option<Parcel<'_>>,
    ) -> Result<Reply, End> {
        let mut body = Body::new(&this.message.bytes);
        while !body.lay(CHUNK, &mut wire.out) {
            self.send(wire, this, Phase::Body).await?;
        }
        if wire.has_unread() {
            // A reply to nothing would be taken for the reply to the message.
            return Err(End::Broken(Phase::Body, Fault::Unasked));
        }
        let mut leave = Leave { own: Some(this.clearance), begins: false, next: None };
        if let Some(next) = next
            && self.offer.pipelining
            && self.offer.lay(next.message, next.clearance.delivery(), &mut self.coming).is_ok()
        {
            leave.next = Some((next.clearance, wire.out.len()));
            wire.out.extend_from_slice(self.coming.as_bytes());
        }
        let sent = wire.send(leave, self.timeouts.block).await;
        // From the first write that holds the final dot on the relay may have the message.
        let phase = if wire.began() { Phase::FinalDot } else { Phase::Body };
        match sent {
            Ok(Tail::Written) => {
                self.announced = next.map(|next| next.clearance.delivery());
                std::mem::swap(&mut self.envelope, &mut self.coming);
            }
            Ok(Tail::Withheld) => {}
            Ok(Tail::Torn) => self.torn = true,
            Err(fault) => return Err(End::Broken(phase, fault)),
        }
        let code = hear(wire, Phase::FinalDot, Wanted::Done, self.timeouts.final_dot).await?;
        Ok(wire.said(code))
    }
}

/// What a command asks for. Any other 2yz or 3yz is a reply to something else.
#[derive(Clone, Copy)]
enum Wanted {
    /// 25z.
    Done,
    /// 354.
    GoOn,
}

/// Reads a reply and tells what it means in this phase.
async fn hear(wire: &mut Wire, phase: Phase, wanted: Wanted, limit: Duration) -> Result<u16, End> {
    let code = wire.reply(limit).await.map_err(|fault| End::Broken(phase, fault))?;
    match (wanted, code) {
        (Wanted::Done, 250..=259) | (Wanted::GoOn, 354) => Ok(code),
        (_, 400..) => Err(End::Answered(Outcome::of_refusal(phase, wire.said(code)), code != 421)),
        _ => Err(End::Broken(phase, Fault::Odd(code))),
    }
}
