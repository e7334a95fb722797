//! Web and workers as tasks of one process, with one shutdown.
//!
//! [`start`] brings a process up and returns once it listens; [`Running::stop`] lets what is in flight finish, gives
//! the rest back, says again and again what it waits for, and returns. [`run`] does both, for a process that ends by a
//! signal; a second signal ends it at once.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{App, SetupError};
use crate::clock::Clock;
use crate::config::{ConfigError, Settings};
use crate::db::Observer;
use crate::mailbox::Mailbox;
use crate::message::alignment;
use crate::receiver::Limits;
use crate::relay::{Outcome, Relay, RelayUrlError};
use crate::{brand, campaign, delivery, intake, notice, web};

pub mod http;

/// How long the relay may take to greet at the start before it counts as out of reach.
const GREETING: Duration = Duration::from_secs(10);
/// How often a process that stops says what it waits for.
const SAID_AGAIN: Duration = Duration::from_secs(5);
/// How much longer than an opt-out may wait a request may take once the process is to stop.
const REQUESTS_WITHIN: Duration = Duration::from_secs(5);
/// How often campaigns are looked at when there was nothing to do.
const CAMPAIGN_POLL: Duration = Duration::from_millis(200);
/// How often notices are looked at when there was nothing to do.
const NOTICE_POLL: Duration = Duration::from_secs(1);
/// How often the clocks of notices are looked at where there is no worker, and for how long none may be seen before that counts.
const CLOCK_POLL: Duration = Duration::from_secs(10);
const WITHOUT_WORKER: Duration = Duration::from_secs(60);
/// The least time between two such looks.
const CAMPAIGN_PAUSE: Duration = Duration::from_millis(20);

/// Which parts run in this process, and how.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The web service.
    pub web: bool,
    /// The worker.
    pub worker: bool,
    /// Whether to bring the database up to date first.
    pub migrate: bool,
    /// The database's clock.
    pub clock: Clock,
    /// Who is told of every statement.
    pub observer: Option<Observer>,
    /// What is too much for those who send mail here.
    pub inbound_limits: Limits,
    /// What HTTP clients may ask of the server's patience.
    pub http: http::Limits,
    /// For how long a process without a worker may see none elsewhere before it counts as nobody's sending.
    pub without_worker: Duration,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            web: true,
            worker: true,
            migrate: true,
            clock: Clock::default(),
            observer: None,
            inbound_limits: intake::LIMITS,
            http: http::Limits::default(),
            without_worker: WITHOUT_WORKER,
        }
    }
}

/// Why a process does not start: one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting that cannot be used here.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database or the keys.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The relay's URL.
    #[error(transparent)]
    RelayUrl(#[from] RelayUrlError),
    /// The listen address cannot be had.
    #[error(
        "cannot listen on {0}: {1}; choose another address with TIDINGS_LISTEN, or stop what uses this one"
    )]
    Listen(SocketAddr, std::io::Error),
    /// The address that takes mail cannot be had.
    #[error(
        "cannot take mail on {0}: {1}; choose another address with TIDINGS_INBOUND_LISTEN, or stop what uses this one"
    )]
    Inbound(SocketAddr, std::io::Error),
    /// The embedded mailbox cannot listen.
    #[error(
        "the embedded mailbox cannot listen on a port of loopback: {0}; set TIDINGS_RELAY_URL to a relay"
    )]
    Mailbox(std::io::Error),
    /// The relay refuses us for good.
    #[error(
        "the relay refuses this program ({phase}: {code} {text}); check TIDINGS_RELAY_URL, its user and its password"
    )]
    RelayRefuses {
        /// How far the dialogue had come.
        phase: &'static str,
        /// The relay's code.
        code: u16,
        /// The relay's words.
        text: String,
    },
}

/// A process that serves.
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Where it takes mail that unsubscribes.
    pub inbound: Option<SocketAddr>,
    /// What its parts share.
    pub app: App,
    /// The embedded mailbox, where it takes the relay's place.
    pub mailbox: Option<Mailbox>,
    stop: CancellationToken,
    tasks: TaskTracker,
    close: CancellationToken,
    http: JoinHandle<()>,
}

impl Running {
    /// Stops taking requests and claiming deliveries, waits for what is in flight, and closes the database.
    ///
    /// A delivery takes as long as the relay may take over it; a request that takes much longer than an opt-out may wait is cut
    /// off. Until then `/readyz` says that the process is stopping.
    pub async fn stop(self) {
        let under_way = &self.app.under_way;
        under_way.stop();
        self.stop.cancel();
        let within = self.app.settings.opt_out_wait + REQUESTS_WITHIN;
        let requests = async {
            if tokio::time::timeout(within, under_way.without_requests()).await.is_err() {
                tracing::warn!(requests = under_way.requests(), "requests are cut off");
            }
        };
        let ended = async { tokio::join!(self.tasks.wait(), requests) };
        let mut ended = std::pin::pin!(ended);
        while tokio::time::timeout(SAID_AGAIN, &mut ended).await.is_err() {
            self.say_what_is_waited_for("stopping: still waiting");
        }
        self.close.cancel();
        // It panics for no reason that anybody could do anything about now.
        let _ = self.http.await;
        self.app.db.clone().close().await;
    }

    fn say_what_is_waited_for(&self, words: &str) {
        let under_way = &self.app.under_way;
        let (deliveries, requests) = (under_way.deliveries(), under_way.requests());
        tracing::info!(deliveries, requests, "{words}");
    }
}

/// Brings the process up: listens, opens the database, starts the parts.
///
/// # Errors
/// Why it cannot start. Nothing runs on then.
pub async fn start(mut settings: Settings, parts: Parts) -> Result<Running, StartError> {
    settings.check_mailbox(parts.web && parts.worker)?;
    let listen = settings.listen;
    let listener = http::listen(listen).map_err(|error| StartError::Listen(listen, error))?;
    let addr = listener.local_addr().map_err(|error| StartError::Listen(listen, error))?;
    settings.bound_to(addr);
    let inbound = if parts.web { bind_inbound(&settings).await? } else { None };
    let app = App::open_observed(settings, parts.migrate, parts.clock, parts.observer.as_ref()).await?;
    check_alignment(&app).await?;
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let mut router =
        if parts.web { web::router::full(app.clone()) } else { web::router::worker_only(app.clone()) };
    let mailbox = if app.settings.uses_mailbox() {
        let mailbox = Mailbox::start().await.map_err(StartError::Mailbox)?;
        router = router.merge(web::router::layered(mailbox.router()));
        Some(mailbox)
    } else {
        None
    };
    if parts.worker {
        let url = match &mailbox {
            Some(mailbox) => mailbox.relay_url(),
            None => app.settings.relay_url.expose_secret().to_owned(),
        };
        let relay = Relay::from_url(&url, &app.settings.helo_name, app.settings.relay_timeouts)?;
        // Where it may not, others are connected.
        let greeted = delivery::worker::visit(&app, greet(&relay)).await.map_err(SetupError::from)?;
        greeted.transpose()?;
        tasks.spawn(delivery::worker::run(app.clone(), relay, stop.clone()));
        tasks.spawn(run_campaigns(app.clone(), stop.clone()));
        tasks.spawn(run_notices(app.clone(), stop.clone()));
    } else {
        tasks.spawn(watch_for_workers(app.clone(), parts.without_worker, stop.clone()));
    }
    let mut inbound_addr = None;
    if let Some((listener, addr, domain)) = inbound {
        inbound_addr = Some(addr);
        let intake = intake::run(app.clone(), domain, listener, parts.inbound_limits, stop.clone());
        tasks.spawn(intake);
    }
    tasks.close();
    let close = CancellationToken::new();
    let serving = http::serve(listener, router, parts.http, app.under_way.clone(), close.clone());
    let http = tokio::spawn(serving);
    Ok(Running { addr, inbound: inbound_addr, app, mailbox, stop, tasks, close, http })
}

/// Where mail is taken, and for which domain; none when the settings name none.
async fn bind_inbound(settings: &Settings) -> Result<Option<(TcpListener, SocketAddr, String)>, StartError> {
    let (Some(listen), Some(domain)) = (settings.inbound_listen, settings.inbound_domain.clone()) else {
        return Ok(None);
    };
    let refused = |error| StartError::Inbound(listen, error);
    let listener = TcpListener::bind(listen).await.map_err(refused)?;
    let addr = listener.local_addr().map_err(refused)?;
    Ok(Some((listener, addr, domain)))
}

/// Looks at what brands would send: an envelope domain of the settings that every receiver would hold against their mail
/// is refused. One of a brand's own is only told of, since it is changed through the API, which has to run for that.
async fn check_alignment(app: &App) -> Result<(), StartError> {
    const PAGE: u64 = 500;
    let default = app.settings.bounce_domain.as_deref();
    let mut after: Option<String> = None;
    loop {
        let brands = brand::rows::list(app.db.reads(), None, after.as_deref(), PAGE).await;
        let brands = brands.map_err(SetupError::from)?;
        for brand in &brands {
            match alignment::check(brand, default, &app.dkim_keys) {
                Ok(()) => {}
                Err(misaligned) if misaligned.own => {
                    tracing::warn!(brand = brand.slug, "its bounce_domain {misaligned}");
                }
                Err(misaligned) => {
                    return Err(StartError::Config(ConfigError(format!(
                        "TIDINGS_BOUNCE_DOMAIN cannot be used for brand {}: {misaligned}",
                        brand.slug
                    ))));
                }
            }
        }
        match brands.into_iter().last() {
            Some(last) => after = Some(last.slug),
            None => return Ok(()),
        }
    }
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// Why it could not start.
pub async fn run(settings: Settings, parts: Parts) -> Result<(), StartError> {
    let mut signals = Signals::listen();
    // As long as nothing is in flight there is nothing to finish.
    let running = tokio::select! {
        running = start(settings, parts) => running?,
        () = signals.next() => return Ok(()),
    };
    let mailbox = running.mailbox.as_ref().map(|_| format!("http://{}/mailbox", running.addr));
    let inbound = running.inbound.map(tracing::field::display);
    tracing::info!(address = %running.addr, inbound, mailbox, "listening");
    signals.next().await;
    running.say_what_is_waited_for(
        "stopping: finishing what is in flight, giving back the rest; a second signal ends at once",
    );
    tokio::select! {
        () = running.stop() => tracing::info!("stopped"),
        () = signals.next() => {
            tracing::warn!("ended at once; what was in flight is decided when its lease ends");
        }
    }
    Ok(())
}

/// Returns when the process is asked to end: SIGTERM or SIGINT.
pub async fn until_signal() {
    Signals::listen().next().await;
}

/// What asks the process to end. None is missed from the moment on when it listens.
struct Signals(Option<(Signal, Signal)>);

impl Signals {
    fn listen() -> Self {
        // Without handlers a signal ends the process anyway.
        Self(
            signal(SignalKind::terminate())
                .and_then(|term| Ok((term, signal(SignalKind::interrupt())?)))
                .ok(),
        )
    }

    async fn next(&mut self) {
        match &mut self.0 {
            Some((terminate, interrupt)) => {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            }
            None => std::future::pending().await,
        }
    }
}

/// Tells at the start when the relay refuses this program for good. One that cannot be reached just now is no reason
/// to keep the web service, and with it people's opt-outs, from starting.
async fn greet(relay: &Relay) -> Result<(), StartError> {
    match tokio::time::timeout(GREETING, relay.connect()).await {
        Ok(Ok(connection)) => {
            delivery::worker::note_reachable(true);
            connection.quit().await;
        }
        Ok(Err(Outcome::Deferred(phase, reply))) if reply.code >= 500 => {
            return Err(StartError::RelayRefuses {
                phase: phase.as_str(),
                code: reply.code,
                text: reply.text,
            });
        }
        Ok(Err(outcome)) => cannot_reach(&why_not(&outcome)),
        Err(_) => cannot_reach(&format!("it was not ready within {} seconds", GREETING.as_secs())),
    }
    Ok(())
}

fn cannot_reach(why: &str) {
    delivery::worker::note_reachable(false);
    tracing::warn!(
        why,
        "the relay cannot be reached now; messages wait. Check TIDINGS_RELAY_URL if this goes on"
    );
}

/// Why there is no connection, without the relay's own words, which may hold a user's name.
fn why_not(outcome: &Outcome) -> String {
    match outcome {
        Outcome::NotSent(phase, why) | Outcome::Unknown(phase, why) => format!("{phase}: {why}"),
        Outcome::Sent(reply) => reply.code.to_string(),
        Outcome::Refused(phase, reply) | Outcome::Deferred(phase, reply) => {
            format!("{phase}: the relay answered {}", reply.code)
        }
    }
}

async fn run_campaigns(app: App, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let news = app.db.news().notified();
        let pause = match campaign::worker::step(&app).await {
            Ok(true) => continue,
            Ok(false) => {
                // A campaign that starts does so at once; single messages, of which there is news too, cost no look each.
                stop.run_until_cancelled(tokio::time::sleep(CAMPAIGN_PAUSE)).await;
                let _ = tokio::time::timeout(CAMPAIGN_POLL, stop.run_until_cancelled(news)).await;
                continue;
            }
            Err(error) => {
                tracing::error!(%error, "no campaign could be brought on");
                Duration::from_secs(1)
            }
        };
        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

/// Notices are looked at apart from campaigns: however many of those there are, nobody's notice waits for them.
async fn run_notices(app: App, stop: CancellationToken) {
    if let Err(error) = notice::worker::begin(&app).await {
        tracing::error!(%error, "older evidence could not be sealed; the next start tries again");
    }
    while !stop.is_cancelled() {
        let news = app.db.news().notified();
        let stepped = notice::worker::step(&app).await;
        // However much there is to do, the clocks are looked at.
        if let Err(error) = notice::worker::watch(&app).await {
            tracing::error!(%error, "the clocks of notices could not be looked at");
        }
        match stepped {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "no notice could be brought on"),
        }
        stop.run_until_cancelled(tokio::time::sleep(CAMPAIGN_PAUSE)).await;
        let _ = tokio::time::timeout(NOTICE_POLL, stop.run_until_cancelled(news)).await;
    }
}

/// Where no worker is alive, nobody but the web service can say what will be late.
async fn watch_for_workers(app: App, patience: Duration, stop: CancellationToken) {
    let mut quiet = notice::worker::Quiet::new(patience);
    while !stop.is_cancelled() {
        if let Err(error) = notice::worker::watch_for_workers(&app, &mut quiet).await {
            tracing::error!(%error, "the clocks of notices could not be looked at");
        }
        stop.run_until_cancelled(tokio::time::sleep(CLOCK_POLL)).await;
    }
}
