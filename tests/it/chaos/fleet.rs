//! The processes, the database and the relay, and what befalls them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::{AT_LEAST, CONNECTIONS, LEASE, OPT_OUT_WAIT, RELAY_SILENCE};
use crate::harness::{
    Act, Answer, Api, Mood, Options, PostgresServer, Process, SmtpServer, Stage, eventually_within,
    free_address,
};

const DATABASE: &str = "chaos";
/// The domain whose mail to `unsubscribe@` comes to Tidings.
pub(super) const INBOUND_DOMAIN: &str = "lists.example.com";
const WORKERS: usize = 3;
const WEBS: usize = 2;
/// How long anything may take to be answered while everything breaks.
pub(super) const PATIENCE: Duration = Duration::from_secs(100);

/// What befell them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Toll {
    pub(super) kills: usize,
    /// Kills that hit a worker with a message open at the relay, and how many messages.
    pub(super) kills_hit: usize,
    pub(super) open_at_kills: usize,
    pub(super) sleeps: usize,
    /// Workers put to sleep with a message open at the relay.
    pub(super) sleeps_hit: usize,
    pub(super) restarts: usize,
    pub(super) stops: usize,
    pub(super) webs_killed: usize,
}

/// Where a web process is to be asked.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) api: Api,
    pub(super) inbound: SocketAddr,
}

/// The web processes as their callers see them: some of the time one of them is away.
#[derive(Clone, Default)]
pub(super) struct Door {
    webs: Arc<Mutex<Vec<Way>>>,
    turn: Arc<AtomicUsize>,
    /// Answers of 503.
    pub(super) unavailable: Arc<AtomicUsize>,
}

impl Door {
    /// One of them after the other.
    pub(super) fn next(&self) -> Way {
        let webs = self.webs.lock().unwrap();
        webs[self.turn.fetch_add(1, Ordering::Relaxed) % webs.len()].clone()
    }

    /// Asks once; none when there was no answer, or one that says to come again.
    pub(super) async fn ask(&self, request: reqwest::RequestBuilder) -> Option<Answer> {
        let answer = Answer::attempt(request.timeout(Duration::from_secs(20))).await?;
        if answer.status.as_u16() == 503 {
            self.unavailable.fetch_add(1, Ordering::Relaxed);
        }
        (!answer.status.is_server_error()).then_some(answer)
    }

    /// Asks one web process after the other until one answers.
    pub(super) async fn insist(
        &self,
        what: &str,
        request: impl Fn(&Way) -> reqwest::RequestBuilder,
    ) -> Answer {
        eventually_within(PATIENCE, what, async || self.ask(request(&self.next())).await).await
    }
}

/// Everything that runs.
pub(super) struct Fleet {
    pub(super) door: Door,
    pub(super) relay: Arc<SmtpServer>,
    pub(super) toll: Toll,
    workers: Vec<(String, Process)>,
    webs: Vec<Process>,
    /// Which worker sleeps, and until when.
    asleep: Option<(usize, Instant)>,
    started: usize,
    postgres: PostgresServer,
}

impl Fleet {
    /// All of them at once on an empty database, so that they migrate it side by side.
    pub(super) async fn start(rng: StdRng) -> Self {
        let postgres = PostgresServer::start().await;
        postgres.empty_database(DATABASE).await;
        let options = Options {
            extensions: vec!["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"],
            mood: Some(mood(rng)),
            patience: Some(RELAY_SILENCE / 3),
            ..Options::default()
        };
        let relay = Arc::new(SmtpServer::with(options).await);
        let mut fleet = Self {
            door: Door::default(),
            relay,
            toll: Toll::default(),
            workers: Vec::new(),
            webs: Vec::new(),
            asleep: None,
            started: 0,
            postgres,
        };
        let webs = futures_util::future::join_all((0..WEBS).map(|_| fleet.web()));
        let names: Vec<String> = (0..WORKERS).map(|n| format!("w{n}.test")).collect();
        let workers = futures_util::future::join_all(names.iter().map(|name| fleet.worker(name)));
        let (webs, workers) = futures_util::future::join(webs, workers).await;
        for (web, way) in webs {
            fleet.door.webs.lock().unwrap().push(way);
            fleet.webs.push(web);
        }
        fleet.workers = names.into_iter().zip(workers).collect();
        fleet.started = WORKERS;
        fleet
    }

    async fn process(&self, only: &str, more: &[(&str, &str)]) -> Process {
        let (relay, url) = (self.relay.url(), self.postgres.url(DATABASE));
        let seconds = |duration: Duration| duration.as_secs().to_string();
        let (lease, silence, wait) = (seconds(LEASE), seconds(RELAY_SILENCE), seconds(OPT_OUT_WAIT));
        let connections = CONNECTIONS.to_string();
        let mut env = vec![
            ("TIDINGS_RELAY_URL", relay.as_str()),
            ("TIDINGS_WORKER_CONNECTIONS", connections.as_str()),
            ("TIDINGS_LEASE_SECONDS", lease.as_str()),
            ("TIDINGS_RELAY_SILENCE", silence.as_str()),
            ("TIDINGS_OPT_OUT_WAIT", wait.as_str()),
            ("TIDINGS_INBOUND_DOMAIN", INBOUND_DOMAIN),
        ];
        env.extend_from_slice(more);
        Process::serve_on(&url, &["--only", only], &env).await
    }

    async fn worker(&self, name: &str) -> Process {
        self.process("worker", &[("TIDINGS_HELO_NAME", name)]).await
    }

    async fn web(&self) -> (Process, Way) {
        let inbound = free_address();
        let process = self.process("web", &[("TIDINGS_INBOUND_LISTEN", &inbound)]).await;
        let way = Way { api: process.api.clone(), inbound: inbound.parse().unwrap() };
        (process, way)
    }

    /// Lets one thing after the other befall them for so long.
    pub(super) async fn torment(&mut self, rng: &mut StdRng, lasts: Duration) {
        let begun = Instant::now();
        let mut next_restart = lasts / 5;
        // A slow machine gets twice the time before the run counts as one that shows nothing.
        let too_little = |toll: &Toll| toll.kills_hit.min(toll.sleeps_hit).min(toll.restarts) < AT_LEAST;
        while begun.elapsed() < lasts || (too_little(&self.toll) && begun.elapsed() < 2 * lasts) {
            if self.asleep.is_some_and(|(_, until)| Instant::now() >= until) {
                self.wake();
            }
            if begun.elapsed() >= next_restart {
                next_restart += lasts / 4;
                self.restart_postgres(rng).await;
            }
            match rng.random_range(0..100) {
                0..50 if self.asleep.is_none() => self.put_to_sleep(rng).await,
                0..75 => self.kill_worker(rng).await,
                75..87 => self.stop_worker(rng).await,
                _ => self.end_web(rng).await,
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(100..700))).await;
        }
        self.wake();
    }

    fn wake(&mut self) {
        if let Some((worker, _)) = self.asleep.take() {
            self.workers[worker].1.signal("CONT");
        }
    }

    /// An awake worker, mostly one with messages open at the relay; and how many those are.
    async fn victim(&self, rng: &mut StdRng) -> (usize, usize) {
        let awake = |n: usize| self.asleep.is_none_or(|(asleep, _)| asleep != n);
        let first = rng.random_range(0..WORKERS);
        let chosen = async || {
            let open = self.relay.open_transactions();
            let of = |n: usize| open.iter().filter(|(name, _)| *name == self.workers[n].0).count();
            let mut all = (0..WORKERS).map(|n| (first + n) % WORKERS).filter(|n| awake(*n));
            all.find(|n| of(*n) > 0).map(|n| (n, of(n)))
        };
        // After a restart of the database it takes a moment until messages flow again.
        for _ in 0..50 {
            if let Some(chosen) = chosen().await {
                return chosen;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        ((0..WORKERS).find(|n| awake(*n)).unwrap(), 0)
    }

    async fn kill_worker(&mut self, rng: &mut StdRng) {
        let (n, open) = self.victim(rng).await;
        self.workers[n].1.kill();
        self.toll.kills += 1;
        self.toll.kills_hit += usize::from(open > 0);
        self.toll.open_at_kills += open;
        self.replace_worker(n).await;
    }

    async fn stop_worker(&mut self, rng: &mut StdRng) {
        let (n, _) = self.victim(rng).await;
        let ended = self.workers[n].1.terminate().await;
        assert!(ended.success(), "{ended}");
        self.toll.stops += 1;
        self.replace_worker(n).await;
    }

    async fn replace_worker(&mut self, n: usize) {
        let name = format!("w{}.test", self.started);
        self.started += 1;
        let process = self.worker(&name).await;
        self.workers[n] = (name, process);
    }

    async fn put_to_sleep(&mut self, rng: &mut StdRng) {
        let (n, open) = self.victim(rng).await;
        self.workers[n].1.signal("STOP");
        self.toll.sleeps += 1;
        self.toll.sleeps_hit += usize::from(open > 0);
        let beyond = LEASE + Duration::from_millis(rng.random_range(500..3_000));
        self.asleep = Some((n, Instant::now() + beyond));
    }

    async fn end_web(&mut self, rng: &mut StdRng) {
        let n = rng.random_range(0..WEBS);
        if rng.random_bool(0.5) {
            self.webs[n].kill();
            self.toll.webs_killed += 1;
        } else {
            let ended = self.webs[n].terminate().await;
            assert!(ended.success(), "{ended}");
            self.toll.stops += 1;
        }
        let (process, way) = self.web().await;
        self.webs[n] = process;
        self.door.webs.lock().unwrap()[n] = way;
    }

    async fn restart_postgres(&mut self, rng: &mut StdRng) {
        if rng.random_bool(0.5) {
            self.postgres.crash().await;
        } else {
            self.postgres.stop().await;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..1_500))).await;
        self.postgres.start_again().await;
        self.toll.restarts += 1;
    }

    /// Makes due what waits to be tried again: nobody has an hour.
    pub(super) async fn hurry(&self) {
        self.postgres.hurry(DATABASE).await;
    }

    /// Asks all of them to stop; each must end well.
    pub(super) async fn end(mut self) {
        let processes = self.workers.iter_mut().map(|(_, process)| process).chain(&mut self.webs);
        for ended in futures_util::future::join_all(processes.map(Process::terminate)).await {
            assert!(ended.success(), "{ended}");
        }
        assert_eq!(self.relay.open_connections(), 0, "a stopped worker hangs up");
    }
}

/// A relay that mostly answers, often late and at times badly.
fn mood(rng: StdRng) -> Mood {
    let rng = Mutex::new(rng);
    Arc::new(move |stage, _| {
        let mut rng = rng.lock().unwrap();
        let mut late = |most: u64| Some(Act::Late(Duration::from_millis(rng.random_range(5..most))));
        let slow = late(150);
        let slower = late(900);
        match (stage, rng.random_range(0..1000)) {
            (Stage::Mail, 0..5) => Some(Act::reply_and_hang_up(421, "4.3.2 come again")),
            (Stage::Rcpt, 0..8) => Some(Act::reply(451, "4.2.1 come again")),
            (Stage::Rcpt, 8..14) => Some(Act::reply(550, "5.7.1 not here")),
            (Stage::Data, 0..4) => Some(Act::reply(451, "4.3.0 come again")),
            (Stage::Body, 0..4) => Some(Act::HangUp),
            (Stage::FinalDot, 0..8) => Some(Act::HangUp),
            (Stage::FinalDot, 8..14) => Some(Act::reply(451, "4.3.0 come again")),
            (Stage::FinalDot, 14..20) => Some(Act::reply(554, "5.7.1 not this")),
            (Stage::Mail | Stage::Rcpt | Stage::Data | Stage::FinalDot, 20..60) => slower,
            (Stage::Mail | Stage::Rcpt | Stage::Data, 60..250) => slow,
            (Stage::FinalDot, 60..800) => slow,
            _ => None,
        }
    })
}
