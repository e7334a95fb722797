//! A worker with one connection: it takes the steps of `delivery/worker`, each a step of the schedule.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tidings::brand;
use tidings::clock::{Deadline, Instant};
use tidings::decision::{Clearance, Facts, Lease, decide, objections};
use tidings::delivery::fate::{self, Past};
use tidings::delivery::retry;
use tidings::delivery::rows::{self, Ask, Beginning, Claimed, Fate, Lane, Settling, Trail};
use tidings::id::{DeliveryId, LeaseToken};
use tidings::opt_out::rows::{Wanted, facts_of};
use tidings::relay::{Outcome, Phase, Reply};
use uuid::Uuid;

use super::Sim;
use super::relay::{Answer, LineNo, Piece};

/// Repeats of a turn that the database does not confirm, before a worker may give up.
const REPEATS: u32 = 4;
/// Deliveries of a connection that are begun and not settled at most.
const MOST_BEGUN: usize = 5;

/// What was claimed, and by the worker's own clock until when.
struct Claim {
    token: LeaseToken,
    until: u64,
}

/// A claimed delivery.
#[derive(Clone)]
struct Job {
    held: Claimed,
    token: LeaseToken,
    /// The step that claimed it.
    claimed: u32,
    date: tidings::clock::Timestamp,
    /// Whether it was begun before and is asked about again.
    begun: bool,
}

/// What was begun and may be handed over.
struct Begun {
    job: Job,
    clearance: Clearance,
    /// Its envelope rode on the body before.
    announced: bool,
}

enum Stage {
    Rests,
    /// The claim's COMMIT stayed unanswered.
    AsksByToken {
        token: LeaseToken,
        until: u64,
        claimed: u32,
    },
    Loads {
        token: LeaseToken,
        ids: Vec<DeliveryId>,
        claimed: u32,
    },
}

/// How far the first of the begun has come.
#[derive(Clone, Copy)]
enum At {
    Start,
    /// The lease was checked for the envelope; whoever sleeps here wakes to write.
    MayWriteEnvelope,
    EnvelopeOut,
    EnvelopeTaken,
    /// The lease was checked for the body, and for the next envelope.
    MayWriteBody {
        with_next: bool,
    },
    BodyOut(usize),
}

/// A worker.
pub(super) struct Worker {
    stage: Stage,
    trail: Trail,
    claims: Vec<Claim>,
    jobs: VecDeque<Job>,
    parcels: Vec<Job>,
    ends: Vec<Settling>,
    returns: Vec<Job>,
    begun: VecDeque<Begun>,
    facts: HashMap<DeliveryId, Facts>,
    line: Option<LineNo>,
    handed: u32,
    at: At,
    repeats: u32,
    /// Requests of the last turn that are still to be tried one by one.
    singly: usize,
    stops: bool,
    /// Steps that it sleeps.
    pub(super) asleep: u32,
}

impl Worker {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Rests,
            trail: Trail::default(),
            claims: Vec::new(),
            jobs: VecDeque::new(),
            parcels: Vec::new(),
            ends: Vec::new(),
            returns: Vec::new(),
            begun: VecDeque::new(),
            facts: HashMap::new(),
            line: None,
            handed: 0,
            at: At::Start,
            repeats: 0,
            singly: 0,
            stops: false,
            asleep: 0,
        }
    }

    /// SIGTERM.
    pub(super) fn stop(&mut self) {
        self.stops = true;
        self.returns.extend(self.jobs.drain(..));
    }

    /// The connection that it leaves behind when it is killed.
    pub(super) fn line(&self) -> Option<LineNo> {
        self.line
    }

    /// Whether it would claim next.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Rests)
            && !self.stops
            && self.jobs.is_empty()
            && self.parcels.is_empty()
            && self.ends.is_empty()
            && self.returns.is_empty()
            && self.begun.is_empty()
    }

    fn until(&self, token: LeaseToken) -> u64 {
        self.claims.iter().find(|claim| claim.token == token).map_or(0, |claim| claim.until)
    }

    fn holds(&self, token: LeaseToken) -> bool {
        // What waits to be settled holds no claim: `release` itself has to see that it is there.
        self.jobs.iter().chain(&self.parcels).any(|job| job.token == token)
            || self.begun.iter().any(|one| one.job.token == token)
            || matches!(&self.stage, Stage::Loads { token: other, .. } if *other == token)
    }
}

fn reply(code: u16, enhanced: Option<&str>) -> Reply {
    Reply { code, enhanced: enhanced.map(str::to_owned), text: "words".to_owned() }
}

/// What a relay's answer means in this phase, unless all is well.
fn refusal(answer: Answer, phase: Phase) -> Option<Outcome> {
    match answer {
        Answer::Fine => None,
        Answer::Later => Some(Outcome::Deferred(phase, reply(451, Some("4.2.1")))),
        Answer::Never => Some(Outcome::Refused(phase, reply(554, Some("5.7.1")))),
        Answer::MailboxGone => Some(Outcome::Refused(phase, reply(550, Some("5.1.1")))),
    }
}

impl Sim<'_> {
    fn worker(&mut self, w: usize) -> &mut Worker {
        &mut self.workers[w]
    }

    /// The next step of a worker. Says no when it waits for the relay.
    pub(super) async fn work(&mut self, w: usize) -> bool {
        if !self.worker(w).returns.is_empty() {
            self.give_back(w).await;
            return true;
        }
        match std::mem::replace(&mut self.worker(w).stage, Stage::Rests) {
            Stage::AsksByToken { token, until, claimed } => {
                let asked = self.call(rows::claimed_by(&self.world.app.db, token)).await;
                if let Ok(ids) = asked {
                    self.claimed(w, token, ids, until, claimed);
                }
                return true;
            }
            Stage::Loads { token, ids, claimed } => {
                self.load(w, token, ids, claimed).await;
                return true;
            }
            Stage::Rests => {}
        }
        let worker = self.worker(w);
        if !worker.ends.is_empty() || !worker.parcels.is_empty() {
            // While a turn is under way the connection goes on with what was begun before.
            let goes_on = worker.line.is_some() && !worker.begun.is_empty();
            if !(goes_on && self.one_in(2) && self.hand_over(w)) {
                self.turn(w).await;
            }
        } else if !worker.begun.is_empty() {
            if worker.line.is_some() {
                return self.hand_over(w);
            }
            self.connect(w);
        } else if !worker.jobs.is_empty() {
            self.take_up(w, 1);
        } else if worker.stops {
            self.tell(format!("worker {w} has stopped"));
            self.crash(w, false);
        } else if self.dry && (self.drains || !self.one_in(10)) {
            return false;
        } else {
            self.claim(w).await;
        }
        true
    }

    /// What a worker does beside its work: it renews its leases, and ends those of which nothing is left.
    pub(super) async fn keep(&mut self, w: usize) -> bool {
        let db = &self.world.app.db;
        let idle: Vec<LeaseToken> = self.workers[w]
            .claims
            .iter()
            .map(|claim| claim.token)
            .filter(|token| !self.workers[w].holds(*token))
            .collect();
        if let Some(token) = idle.first().copied() {
            let done = self.call(rows::release(db, token)).await;
            self.tell(format!("worker {w} ends {token}: {}", done.is_ok()));
            self.worker(w).claims.retain(|claim| claim.token != token);
            return true;
        }
        if self.workers[w].claims.is_empty() {
            return false;
        }
        let n = self.below(self.workers[w].claims.len());
        let token = self.workers[w].claims[n].token;
        let lease = self.world.app.settings.lease;
        let until = self.now + self.world.app.settings.lease_trusted().as_secs();
        let renewed = self.call(rows::renew(db, token, lease)).await;
        self.tell(format!("worker {w} renews {token}: {renewed:?}"));
        if renewed == Ok(true) {
            self.worker(w).claims[n].until = until;
        }
        true
    }

    async fn claim(&mut self, w: usize) {
        let settings = &self.world.app.settings;
        self.tokens += 1;
        let token = LeaseToken(Uuid::from_u128((u128::from(self.seed) << 32) | u128::from(self.tokens)));
        let lanes = match self.below(4) {
            0 => Lane::ServiceSide.alone(),
            1 => Lane::CanBeRefused.alone(),
            _ => &Lane::ALL,
        };
        let limit = 1 + self.below(4);
        let ask = Ask { token, lease: settings.lease, silence: settings.relay_silence, lanes, limit };
        let until = self.now + settings.lease_trusted().as_secs();
        let mut trail = std::mem::take(&mut self.worker(w).trail);
        let claimed = self.call(rows::claim(&self.world.app.db, ask, &mut trail)).await;
        self.worker(w).trail = trail;
        self.tell(format!("worker {w} claims under {token}: {claimed:?}"));
        let step = self.step;
        self.dry = matches!(&claimed, Ok(ids) if ids.is_empty()) && lanes.len() == Lane::ALL.len();
        match claimed {
            Ok(ids) => self.claimed(w, token, ids, until, step),
            Err(_) => self.worker(w).stage = Stage::AsksByToken { token, until, claimed: step },
        }
    }

    pub(super) fn claimed(
        &mut self,
        w: usize,
        token: LeaseToken,
        ids: Vec<DeliveryId>,
        until: u64,
        claimed: u32,
    ) {
        if !ids.is_empty() {
            let worker = self.worker(w);
            worker.claims.push(Claim { token, until });
            worker.stage = Stage::Loads { token, ids, claimed };
        }
    }

    async fn load(&mut self, w: usize, token: LeaseToken, ids: Vec<DeliveryId>, claimed: u32) {
        let db = &self.world.app.db;
        let Ok(mut loaded) = self.call(rows::load(db, &ids)).await else {
            self.tell(format!("worker {w} could not load"));
            // It gives back; when that fails too, the lease's end does it.
            let _ = self.call(rows::give_back(db, &ids, token)).await;
            return;
        };
        loaded.sort_unstable_by_key(|held| ids.iter().position(|id| *id == held.id));
        let looks = self.one_in(2);
        for held in loaded {
            let stopped = if looks { self.stopped(&held).await } else { None };
            let date = held.dated_at.unwrap_or_else(|| db.clock().now());
            let worker = &mut self.workers[w];
            match stopped {
                Some(reason) => {
                    worker.ends.push(Settling { held, token, fate: Fate::Suppressed(reason), attempt: None });
                }
                None => worker.jobs.push_back(Job { held, token, claimed, date, begun: false }),
            }
        }
        let worker = self.worker(w);
        if worker.stops {
            worker.stop();
        }
    }

    /// Whoever is known to refuse needs no connection.
    async fn stopped(&self, held: &Claimed) -> Option<tidings::decision::Reason> {
        let on = self.world.app.db.reads();
        let topic = brand::rows::topic_by_id(on, held.topic_id).await.unwrap().unwrap();
        let people = [held.address_hash.clone()];
        let facts = facts_of(on, Wanted { people: &people, topic: &topic }).await.unwrap();
        objections(held.class, &facts[&held.address_hash]).first().copied()
    }

    async fn give_back(&mut self, w: usize) {
        let token = self.workers[w].returns[0].token;
        self.dry = false;
        let back: Vec<Job> = self.worker(w).returns.extract_if(.., |job| job.token == token).collect();
        let ids: Vec<DeliveryId> = back.iter().map(|job| job.held.id).collect();
        let done = self.call(rows::give_back(&self.world.app.db, &ids, token)).await;
        self.tell(format!("worker {w} gives back {ids:?}: {}", done.is_ok()));
    }

    /// Takes up to `room` jobs of which the lease is there, to be begun.
    fn take_up(&mut self, w: usize, room: usize) {
        let now = self.now;
        let worker = self.worker(w);
        for _ in 0..room {
            let Some(job) = worker.jobs.pop_front() else { break };
            if now < worker.until(job.token) { worker.parcels.push(job) } else { worker.returns.push(job) }
        }
    }

    /// Settles and begins in one transaction; after an error again, and one by one.
    async fn turn(&mut self, w: usize) {
        self.dry = false;
        let (db, silence) = (&self.world.app.db, self.world.app.settings.relay_silence);
        let worker = self.worker(w);
        if worker.stops {
            worker.returns.extend(worker.parcels.extract_if(.., |job| !job.begun));
            if worker.ends.is_empty() && worker.parcels.is_empty() {
                return;
            }
        }
        let beginning = |job: &Job| Beginning { held: job.held.clone(), token: job.token, date: job.date };
        let open: Vec<Job> =
            worker.parcels.iter().filter(|job| !worker.facts.contains_key(&job.held.id)).cloned().collect();
        let ends = worker.ends.clone();
        if worker.singly > 0 {
            worker.singly -= 1;
            if let Some(one) = ends.first() {
                let done = self.call(rows::settle(db, one, silence)).await;
                self.tell(format!("worker {w} settles alone {}: {done:?}", one.held.id));
                let worker = self.worker(w);
                let one = worker.ends.remove(0);
                if done.is_err() {
                    worker.ends.push(one);
                }
            } else if let Some(job) = open.first() {
                let done = self.call(rows::begin(db, &beginning(job))).await;
                self.tell(format!("worker {w} begins alone {}: {}", job.held.id, done.is_ok()));
                if let Ok(Some(_)) | Err(Some(Some(_))) = &done {
                    self.ledger.begun(job.held.id);
                }
                match done {
                    Ok(Some(facts)) => drop(self.worker(w).facts.insert(job.held.id, facts)),
                    Ok(None) => self.judge(w, |other| other.held.id == job.held.id),
                    Err(_) => {}
                }
            }
        } else {
            let beginnings: Vec<Beginning> = open.iter().map(beginning).collect();
            let done = self.call(rows::turn(db, &ends, &beginnings, silence)).await;
            let shown: Vec<_> = ends.iter().map(|one| (one.held.id, &one.fate)).collect();
            let told: Vec<_> = open.iter().map(|one| one.held.id).collect();
            self.tell(format!("worker {w} settles {shown:?} and begins {told:?}: {done:?}"));
            if let Ok(turn) | Err(Some(turn)) = &done {
                turn.begun.keys().for_each(|id| self.ledger.begun(*id));
            }
            let worker = self.worker(w);
            match done {
                Ok(turn) => {
                    worker.ends.clear();
                    worker.facts.extend(turn.begun);
                    worker.repeats = 0;
                    self.judge(w, |_| true);
                    return;
                }
                Err(_) => {
                    worker.repeats += 1;
                    let requests = ends.len() + open.len();
                    worker.singly = if requests > 1 { requests } else { 0 };
                }
            }
        }
        let gives_up = self.worker(w).repeats > REPEATS && self.one_in(3);
        let worker = self.worker(w);
        let done = worker.ends.is_empty()
            && worker.parcels.iter().all(|job| worker.facts.contains_key(&job.held.id));
        if gives_up || done {
            // What was not settled is decided when its lease ends.
            worker.ends.clear();
            (worker.repeats, worker.singly) = (0, 0);
            self.judge(w, |_| true);
        }
    }

    /// Decides about these parcels with the facts as they were when each was begun.
    fn judge(&mut self, w: usize, which: impl Fn(&Job) -> bool) {
        let worker = self.worker(w);
        for job in worker.parcels.extract_if(.., |job| which(job)).collect::<Vec<_>>() {
            let Some(facts) = worker.facts.remove(&job.held.id) else {
                worker.returns.push(job);
                continue;
            };
            let until = Deadline::at(Instant::now().plus(Duration::from_secs(24 * 3600)));
            let lease = Lease { delivery: job.held.id, token: job.token, until, asked: Instant::now() };
            match decide(job.held.class, &facts, lease) {
                Ok(clearance) => worker.begun.push_back(Begun { job, clearance, announced: false }),
                Err(reason) => worker.ends.push(Settling {
                    held: job.held,
                    token: job.token,
                    fate: Fate::Suppressed(reason),
                    attempt: None,
                }),
            }
        }
        assert!(worker.begun.len() <= MOST_BEGUN, "a connection has more begun and unsettled than it may");
    }

    fn connect(&mut self, w: usize) {
        let fails = self.odds.relay_closes && self.one_in(5);
        let line = (!fails).then(|| self.relay.connect(self.now));
        let worker = self.worker(w);
        let begun: Vec<Begun> = worker.begun.drain(..).collect();
        if line.is_some() {
            worker.line = line;
            worker.handed = 0;
            worker.at = At::Start;
            // It may have taken long: what counts is what is known now.
            worker.parcels.extend(begun.into_iter().map(|one| Job { begun: true, ..one.job }));
        } else {
            let again = |one: Begun| Settling {
                token: one.clearance.token(),
                held: one.job.held,
                fate: Fate::Again(Duration::ZERO),
                attempt: None,
            };
            worker.ends.extend(begun.into_iter().map(again));
            worker.returns.extend(worker.jobs.drain(..));
        }
        self.tell(format!("worker {w} connects: {}", !fails));
    }

    /// One check, one write or one reading of the dialogue. Says no when the relay has not answered.
    fn hand_over(&mut self, w: usize) -> bool {
        let now = self.now;
        let line = self.workers[w].line.unwrap();
        let worker = &mut self.workers[w];
        let this = &worker.begun[0];
        let (id, claimed) = (this.clearance.delivery(), this.job.claimed);
        let valid = now < worker.until(this.job.token);
        match worker.at {
            At::Start if this.announced => worker.at = At::EnvelopeOut,
            At::Start if valid => worker.at = At::MayWriteEnvelope,
            At::Start => self.ended(w, &Outcome::NotSent(Phase::MailFrom, "lapsed".into())),
            At::MayWriteEnvelope => {
                worker.at = At::EnvelopeOut;
                if self.relay.write(line, &[Piece::Envelope(id)], now) {
                    self.tell(format!("worker {w} writes the envelope of {id}"));
                    self.ledger.envelope(id, claimed);
                } else {
                    self.broken(w, Phase::MailFrom);
                }
            }
            At::EnvelopeOut => match self.relay.hear(line) {
                Ok(Some(answer)) => match refusal(answer, Phase::RcptTo) {
                    None => worker.at = At::EnvelopeTaken,
                    Some(outcome) => self.ended(w, &outcome),
                },
                Ok(None) => return self.waits_too_long(w, Phase::Data),
                Err(()) => self.broken(w, Phase::Data),
            },
            At::EnvelopeTaken if valid => {
                let next = worker.begun.get(1).filter(|next| now < worker.until(next.job.token)).is_some();
                worker.at = At::MayWriteBody { with_next: next && self.odds.pipelines };
            }
            // After 354 the only way not to send is to hang up.
            At::EnvelopeTaken => self.broken(w, Phase::Body),
            At::MayWriteBody { with_next } => self.write_body(w, line, with_next),
            At::BodyOut(n) => match self.relay.hear(line) {
                Ok(Some(answer)) => {
                    let outcome =
                        refusal(answer, Phase::FinalDot).unwrap_or_else(|| Outcome::Sent(reply(250, None)));
                    self.tell(format!("worker {w} hears of body {n} of {id}: {answer:?}"));
                    self.ended(w, &outcome);
                }
                Ok(None) => return self.waits_too_long(w, Phase::FinalDot),
                Err(()) => self.broken(w, Phase::FinalDot),
            },
        }
        true
    }

    fn write_body(&mut self, w: usize, line: LineNo, with_next: bool) {
        let worker = &self.workers[w];
        let job = &worker.begun[0].job;
        let (id, claimed, date) = (job.held.id, job.claimed, job.date);
        let next = worker.begun.get(1).filter(|_| with_next).map(|next| (next.job.held.id, next.job.claimed));
        if !self.relay.write(line, &[], self.now) {
            // Nothing arrived, but a write into a closed connection looks like one that did.
            let phase = if self.one_in(2) { Phase::Body } else { Phase::FinalDot };
            self.broken(w, phase);
            return;
        }
        let n = self.ledger.body(id, claimed, date);
        let mut pieces = vec![Piece::Body(id, n)];
        if let Some((next, claimed)) = next {
            self.ledger.envelope(next, claimed);
            pieces.push(Piece::Envelope(next));
            self.worker(w).begun[1].announced = true;
        }
        self.tell(format!("worker {w} writes {pieces:?}"));
        self.relay.write(line, &pieces, self.now);
        self.worker(w).at = At::BodyOut(n);
    }

    /// The worker's own time limit.
    fn waits_too_long(&mut self, w: usize, phase: Phase) -> bool {
        if self.odds.timeouts && self.one_in(8) {
            self.broken(w, phase);
            return true;
        }
        false
    }

    /// The dialogue broke in this phase, and the connection is left.
    fn broken(&mut self, w: usize, phase: Phase) {
        self.tell(format!("worker {w}'s dialogue breaks: {phase}"));
        let reset = self.one_in(2);
        let line = self.worker(w).line.take();
        self.left(line, reset);
        let lapsed = self.now >= self.workers[w].until(self.workers[w].begun[0].job.token);
        if phase < Phase::FinalDot && self.workers[w].handed > 0 && !lapsed {
            // A used connection that was closed counts as no attempt: the same goes over a new one.
            let worker = self.worker(w);
            worker.begun.iter_mut().for_each(|one| one.announced = false);
            worker.at = At::Start;
            return;
        }
        let words = "broken".to_owned();
        let outcome = if phase == Phase::FinalDot {
            Outcome::Unknown(phase, words)
        } else {
            Outcome::NotSent(phase, words)
        };
        self.ended(w, &outcome);
    }

    /// The hand-over of the first has come to its end: it is settled, and the next ones are begun with it.
    fn ended(&mut self, w: usize, outcome: &Outcome) {
        self.tell(format!("worker {w}'s hand-over ends: {outcome:?}"));
        let now = self.world.app.db.clock().now();
        let worker = &mut self.workers[w];
        let job = worker.begun.pop_front().unwrap().job;
        let past = Past {
            window: retry::window(job.held.class, None),
            attempts: u32::try_from(job.held.attempts).unwrap() + 1,
            elapsed: job.held.dated_at.map_or(Duration::ZERO, |first| now.since(first)),
            jitter: 0.5,
        };
        let (fate, attempt) = fate::of(outcome, past);
        worker.ends.push(Settling { held: job.held, token: job.token, fate, attempt: Some(attempt) });
        worker.handed += 1;
        worker.at = At::Start;
        if worker.line.is_none() {
            worker.begun.iter_mut().for_each(|one| one.announced = false);
        }
        // More than three only where the relay was quicker than the commits: here by chance.
        let quick = if self.one_in(2) { MOST_BEGUN } else { 3 };
        let bound = if self.odds.pipelines { quick } else { 2 };
        let worker = self.worker(w);
        let under_way = worker.begun.len() + worker.parcels.len();
        let room = if worker.stops { 0 } else { bound.saturating_sub(under_way) };
        self.take_up(w, room);
    }
}
