//! The simulation: the program's own claim, turn, take-back, look, record and decision, under a scheduler that a seed
//! drives and whose step is one transaction, one write to a socket, one reading of it or one tick of the clock.
//!
//! Workers crash, sleep between a check and the write that it allows, lose their leases and are told to stop; the database
//! fails, and commits without saying so; the relay refuses, defers, hangs up and takes messages whose senders are dead;
//! people refuse, repeat it, take it back; deliveries are fanned out and come due again meanwhile. After each step the
//! promises are asserted (`promises.rs`), at the end of each schedule that everything came to its end and is counted.
//!
//! Nothing of the program is modelled but what surrounds it: [`worker`] takes the steps of `delivery/worker` in its order,
//! [`relay`] is a relay. Time stands still but for the ticks, and ids come from the seed, so a schedule runs alike each
//! time. `TIDINGS_SIMULATION_SEED` runs one schedule and tells it step by step; `TIDINGS_SIMULATION_SCHEDULES` runs more of
//! them. `tests/mutate` shows which broken programs it finds: see `tests/mutations/README.md`.

mod client;
mod promises;
mod relay;
mod windows;
mod worker;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sea_orm::DbErr;
use tidings::decision::Class;
use tidings::id::DeliveryId;

use crate::harness::Database;
use client::Client;
use promises::Ledger;
use relay::{Answer, LineNo, Mood, Piece, Relay};
use worker::Worker;
use world::{CLASSES, Person, SERVICE_SIDE, World};

/// Schedules of a test run, on SQLite and on PostgreSQL.
const ON_SQLITE: u64 = 1_000;
const ON_POSTGRES: u64 = 200;
/// What can be refused.
const REFUSABLE: [Class; 3] = [Class::Marketing, Class::Reminder, Class::Relationship];
/// Ticks, in seconds: within a lease, about a lease, beyond a first retry, beyond every doubt.
const TICKS: [u64; 6] = [5, 25, 45, 61, 130, 400];
/// Rounds after which everything must have come to its end when nothing is in its way.
const ROUNDS: u32 = 60;

/// Which faults a schedule has: a few at a time find more than all at once.
struct Odds {
    crashes: bool,
    sleeps: bool,
    stops: bool,
    db_fails: bool,
    commits_lost: bool,
    relay_refuses: bool,
    relay_defers: bool,
    relay_closes: bool,
    /// It leaves what was written unread for long.
    relay_is_slow: bool,
    replies_lost: bool,
    timeouts: bool,
    web_crash: bool,
    renews: bool,
    /// Most of what is sent cannot be refused, and most refusals are changes of standing.
    service_side: bool,
    pipelines: bool,
    /// One choice in so many is a tick.
    ticks: usize,
    /// How many steps a worker takes at most before others get a turn.
    haste: usize,
}

/// A schedule under way.
struct Sim<'w> {
    world: &'w World,
    rng: StdRng,
    seed: u64,
    odds: Odds,
    /// Seconds since the beginning.
    now: u64,
    step: u32,
    tokens: u32,
    drains: bool,
    /// Whether the database was touched since its rows were looked at.
    touched: bool,
    /// Whether a claim found nothing and nothing has changed since.
    dry: bool,
    people: Vec<Person>,
    deliveries: Vec<DeliveryId>,
    workers: Vec<Worker>,
    clients: Vec<Client>,
    relay: Relay,
    ledger: Ledger,
    story: Story,
}

/// What happened; told when the schedule fails, or when it is the only one.
struct Story {
    seed: u64,
    backend: sea_orm::DbBackend,
    lines: Vec<String>,
    aloud: bool,
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() || self.aloud {
            let from = if self.aloud { 0 } else { self.lines.len().saturating_sub(80) };
            eprintln!("{}", self.lines[from..].join("\n"));
        }
        if std::thread::panicking() {
            eprintln!("the promises broke on {:?}: TIDINGS_SIMULATION_SEED={}", self.backend, self.seed);
        }
    }
}

impl<'w> Sim<'w> {
    async fn new(world: &'w World, seed: u64, aloud: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut has = |one_in: u32| rng.random_range(0..one_in) == 0;
        let odds = Odds {
            crashes: has(2),
            sleeps: has(2),
            stops: has(4),
            db_fails: has(3),
            commits_lost: has(3),
            relay_refuses: has(3),
            relay_defers: has(2),
            relay_closes: has(3),
            relay_is_slow: has(2),
            replies_lost: has(3),
            timeouts: has(3),
            web_crash: has(4),
            renews: has(2),
            service_side: has(3),
            pipelines: !has(3),
            ticks: if has(2) { 25 } else { 90 },
            haste: if has(2) { 12 } else { 2 },
        };
        let people = rng.random_range(1..=3);
        let people = world.begin(seed, people).await;
        let workers = (0..rng.random_range(2..=3)).map(|_| Worker::new()).collect();
        let story = Story { seed, backend: world.app.db.backend(), lines: Vec::new(), aloud };
        Self {
            world,
            rng,
            seed,
            odds,
            now: 0,
            step: 0,
            tokens: 0,
            drains: false,
            touched: true,
            dry: false,
            people,
            deliveries: Vec::new(),
            workers,
            clients: Vec::new(),
            relay: Relay::default(),
            ledger: Ledger::default(),
            story,
        }
    }

    fn below(&mut self, n: usize) -> usize {
        self.rng.random_range(0..n)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn some_delivery(&mut self) -> DeliveryId {
        let n = self.below(self.deliveries.len());
        self.deliveries[n]
    }

    fn tell(&mut self, line: String) {
        self.story.lines.push(format!("{:>4} {:>6}s {line}", self.step, self.now));
    }

    /// Calls the database, which may fail before it begins (nothing comes back), or commit and not say so (what it did
    /// comes back as an error that nobody but the ledger looks into).
    async fn call<T>(&mut self, work: impl Future<Output = Result<T, DbErr>>) -> Result<T, Option<T>> {
        if !self.drains && self.odds.db_fails && self.one_in(12) {
            return Err(None);
        }
        self.touched = true;
        let done = work.await.unwrap();
        if !self.drains && self.odds.commits_lost && self.one_in(12) { Err(Some(done)) } else { Ok(done) }
    }

    /// Everything that happens before the end.
    async fn run(&mut self) {
        for _ in 0..1 + self.below(4) {
            self.fan_out().await;
        }
        let steps = 50 + self.below(150);
        while (self.step as usize) < steps {
            if self.one().await {
                self.step += 1;
                self.look_at_rows().await;
            }
        }
    }

    /// One step of somebody; says no when they have none to take.
    async fn one(&mut self) -> bool {
        if self.one_in(self.odds.ticks) {
            self.tick();
            return false;
        }
        match self.below(25) {
            0..=7 | 21..=24 => {
                let w = self.below(self.workers.len());
                for _ in 0..self.below(self.odds.haste) {
                    if !self.takes_a_step(w).await {
                        return false;
                    }
                    self.step += 1;
                    self.look_at_rows().await;
                }
                self.takes_a_step(w).await
            }
            8..=11 => (!self.odds.relay_is_slow || self.one_in(6)) && self.relay_reads(),
            12..=15 if !self.clients.is_empty() => {
                let n = self.below(self.clients.len());
                if self.clients[n].is_answered() && self.one_in(15) {
                    self.clients[n].repeat();
                }
                self.ask(n).await
            }
            16 if self.clients.len() < 6 && self.one_in(3) => {
                self.refuses();
                false
            }
            17 if self.clients.iter().any(Client::is_answered) => {
                self.opts_in().await;
                true
            }
            18 if self.deliveries.len() < 12 && self.one_in(3) => {
                self.fan_out().await;
                true
            }
            18 => self.take_up_again().await,
            19 if self.windows_open() => {
                if self.one_in(2) {
                    self.claim_is_stopped().await
                } else {
                    self.refusal_is_stopped().await
                }
            }
            19 | 20 => {
                let w = self.below(self.workers.len());
                self.befalls(w).await
            }
            _ => false,
        }
    }

    async fn takes_a_step(&mut self, w: usize) -> bool {
        if self.workers[w].asleep > 0 {
            self.workers[w].asleep -= 1;
            return false;
        }
        if self.odds.renews && self.one_in(10) {
            return self.keep(w).await;
        }
        self.work(w).await
    }

    /// What befalls a worker.
    async fn befalls(&mut self, w: usize) -> bool {
        match self.below(4) {
            0 if self.odds.crashes && self.one_in(2) => {
                self.tell(format!("worker {w} is killed"));
                let reset = self.one_in(3);
                self.crash(w, reset);
            }
            1 if self.odds.sleeps => {
                self.workers[w].asleep = 1 + u32::try_from(self.below(12)).unwrap();
                self.tell(format!("worker {w} sleeps"));
            }
            2 if self.odds.stops => {
                self.tell(format!("worker {w} is told to stop"));
                self.workers[w].stop();
            }
            3 => return self.keep(w).await,
            _ => {}
        }
        false
    }

    /// A worker is gone, and another one takes its place.
    fn crash(&mut self, w: usize, reset: bool) {
        let line = self.workers[w].line();
        self.left(line, reset);
        self.workers[w] = Worker::new();
    }

    fn left(&mut self, line: Option<LineNo>, reset: bool) {
        if let Some(line) = line {
            let lost = self.relay.leave(line, reset);
            self.ledger.lost(&lost);
        }
    }

    async fn fan_out(&mut self) {
        let classes = if self.odds.service_side { SERVICE_SIDE } else { CLASSES };
        let class = classes[self.below(classes.len())];
        let person = self.below(self.people.len());
        self.fan_out_to(person, class).await;
    }

    async fn fan_out_to(&mut self, person: usize, class: Class) {
        let id = World::delivery(self.seed, self.deliveries.len());
        self.tell(format!("{id} is fanned out: {class} to person {person}"));
        self.touched = true;
        self.dry = false;
        self.world.enqueue(id, class, &self.people[person]).await;
        self.deliveries.push(id);
        self.ledger.made(id, class, person);
    }

    async fn take_up_again(&mut self) -> bool {
        let Some(id) = self.ledger.failed().first().copied() else { return false };
        self.tell(format!("{id} is taken up again"));
        self.touched = true;
        self.dry = false;
        assert!(self.world.retry_failed(id, self.ledger.class(id)).await);
        self.ledger.taken_up_again(id);
        true
    }

    fn tick(&mut self) {
        // Short ones more often than long ones.
        let n = self.below(TICKS.len()).min(self.below(TICKS.len()));
        let by = TICKS[n];
        self.pass(by);
    }

    fn pass(&mut self, seconds: u64) {
        self.now += seconds;
        self.dry = false;
        self.world.tick(Duration::from_secs(seconds));
        let lost = self.relay.tick(self.now);
        self.ledger.lost(&lost);
        self.tell(format!("{seconds} seconds pass"));
    }

    fn mood(&mut self, piece: &Piece) -> Mood {
        let o = &self.odds;
        let (refuses, defers, closes, lost) =
            (o.relay_refuses, o.relay_defers, o.relay_closes, o.replies_lost);
        let body = matches!(piece, Piece::Body(..));
        let what = self.below(12);
        match what {
            // A refusal keeps nothing from its end.
            0 if refuses => Mood::Answers(if self.one_in(4) { Answer::MailboxGone } else { Answer::Never }),
            _ if self.drains => Mood::Answers(Answer::Fine),
            1 | 2 if defers => Mood::Answers(Answer::Later),
            3 if closes => Mood::Closes,
            4 | 5 if lost && body => Mood::TakesAndCloses,
            _ => Mood::Answers(Answer::Fine),
        }
    }

    /// The relay reads one piece of one connection.
    fn relay_reads(&mut self) -> bool {
        let lines = self.relay.waiting();
        if lines.is_empty() {
            return false;
        }
        let line = lines[self.below(lines.len())];
        let piece = self.relay.next(line);
        let mood = self.mood(&piece);
        let lost = self.relay.read(line, mood);
        self.tell(format!("the relay reads {piece:?}: {mood:?}"));
        if let Piece::Body(id, n) = piece {
            match mood {
                Mood::Answers(Answer::Fine) | Mood::TakesAndCloses => self.ledger.accepted(id, n),
                Mood::Answers(_) => self.ledger.refused(id, n),
                Mood::Closes => self.ledger.lost(&[piece]),
            }
        }
        self.ledger.lost(&lost);
        true
    }

    async fn look_at_rows(&mut self) {
        if !std::mem::take(&mut self.touched) {
            return;
        }
        let rows = self.world.standings().await;
        self.ledger.compare(&rows);
    }

    /// Lets everything run to its end with nothing in its way: everybody is answered, every delivery ends, and the counts
    /// are true.
    async fn drain(&mut self) {
        self.tell("from here on nothing goes wrong".to_owned());
        self.drains = true;
        if self.one_in(2) {
            // Before the relay reads what is left: once more those who refused.
            for n in 0..self.clients.len() {
                self.clients[n].repeat();
                for _ in 0..6 {
                    self.step += 1;
                    self.ask(n).await;
                    self.look_at_rows().await;
                }
            }
        }
        for _ in 0..ROUNDS {
            for w in 0..self.workers.len() {
                self.workers[w].asleep = 0;
                for _ in 0..60 {
                    self.step += 1;
                    while self.relay_reads() {}
                    let idle = self.workers[w].is_idle();
                    // Idle before and after: there is nothing to claim.
                    let worked = self.work(w).await;
                    self.look_at_rows().await;
                    if !worked || (idle && self.workers[w].is_idle()) {
                        break;
                    }
                }
            }
            for n in 0..self.clients.len() {
                for _ in 0..4 {
                    self.step += 1;
                    self.ask(n).await;
                    self.look_at_rows().await;
                }
            }
            self.touched = true;
            self.look_at_rows().await;
            if self.ledger.all_final() && self.clients.iter().all(Client::is_answered) {
                self.world.counts_are_true().await;
                return;
            }
            self.pass(3_601);
        }
        let waiting = self.clients.iter().filter(|client| !client.is_answered()).count();
        panic!("not everything came to its end; {waiting} clients wait");
    }
}

fn from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a whole number")))
}

/// Runs one schedule.
async fn schedule(world: &World, seed: u64, aloud: bool) {
    let mut sim = Sim::new(world, seed, aloud).await;
    sim.run().await;
    sim.drain().await;
}

/// Runs schedules on two threads, each with a database of its own.
fn schedules(usually: u64, database: impl AsyncFn() -> Database + Clone + Send + 'static) {
    let one = from_env("TIDINGS_SIMULATION_SEED");
    let (first, last) = match one {
        Some(seed) => (seed, seed),
        None => (1, from_env("TIDINGS_SIMULATION_SCHEDULES").unwrap_or(usually)),
    };
    let next = Arc::new(AtomicU64::new(first));
    let broken = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..if one.is_some() { 1 } else { 2 })
        .map(|_| {
            let (next, broken, database) = (next.clone(), broken.clone(), database.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    runtime.block_on(async {
                        let world = World::set_up(database().await).await;
                        loop {
                            let seed = next.fetch_add(1, Ordering::Relaxed);
                            if seed > last || broken.load(Ordering::Relaxed) {
                                return;
                            }
                            schedule(&world, seed, one.is_some()).await;
                        }
                    });
                }));
                broken.fetch_or(ran.is_err(), Ordering::Relaxed);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(!broken.load(Ordering::Relaxed), "a promise broke in a schedule; its seed stands above");
}

#[test]
fn the_promises_hold_in_every_schedule_on_sqlite() {
    // In memory where the system offers it: what a schedule needs of a disk is only that it forgets nothing.
    schedules(ON_SQLITE, async || {
        let folder = std::path::Path::new("/dev/shm");
        let made = if folder.is_dir() { tempfile::tempdir_in(folder) } else { tempfile::tempdir() };
        Database::Sqlite(made.unwrap())
    });
}

#[test]
fn the_promises_hold_in_every_schedule_on_postgres() {
    schedules(ON_POSTGRES, async || Database::postgres().await);
}
