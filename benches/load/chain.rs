//! The chain without a database: render, build, sign, hand over, on 16 connections, by the library's own parts.
//!
//! It runs as a process of its own, so that its CPU time is nobody else's. Nothing is recorded and nobody is asked: it is
//! what the messages themselves cost, against which a worker's whole cost is held.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tidings::clock::{Deadline, Instant as Moment};
use tidings::decision::{Class, Clearance, Facts, Lease, decide};
use tidings::id::{DeliveryId, LeaseToken};
use tidings::message::Message;
use tidings::relay::{Outcome as HandOver, Parcel, Relay, Timeouts};

use super::Outcome;
use super::letter::{Keys, Press};
use super::machine::output;

/// Connections, as Tidings has by default.
pub(crate) const CONNECTIONS: u64 = 16;

/// What the process is told.
pub(crate) struct ChainOptions {
    relay: String,
    messages: u64,
    signed: bool,
    /// Where to write the first message, and be done.
    sample: Option<PathBuf>,
}

impl ChainOptions {
    /// `RELAY MESSAGES signed|unsigned`, or `sample FILE`.
    pub(crate) fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut next = || arguments.next().ok_or("chain: RELAY MESSAGES signed|unsigned, or sample FILE");
        let relay = next()?;
        if relay == "sample" {
            return Ok(Self { relay, messages: 1, signed: false, sample: Some(next()?.into()) });
        }
        Ok(Self { relay, messages: next()?.parse()?, signed: next()? == "signed", sample: None })
    }
}

/// What it measured.
pub(crate) struct Chained {
    /// Messages a second.
    pub(crate) rate: f64,
    /// Microseconds of CPU a message, of this process alone.
    pub(crate) cpu_us: f64,
    /// Octets of a message, on average.
    pub(crate) octets: f64,
}

/// Runs the chain as a process of its own.
pub(crate) fn measured(relay: &str, messages: u64, signed: bool) -> Outcome<Chained> {
    let signed = if signed { "signed" } else { "unsigned" };
    let mut command = Command::new(std::env::current_exe()?);
    let said = output(command.args(["chain", relay, &messages.to_string(), signed]))?;
    let said: Value = serde_json::from_str(&said)?;
    let number = |name: &str| said[name].as_f64().ok_or_else(|| format!("the chain said {said}"));
    Ok(Chained { rate: number("rate")?, cpu_us: number("cpu_us")?, octets: number("octets")? })
}

/// Is that process.
pub(crate) async fn run(options: &ChainOptions) -> Outcome<()> {
    if let Some(file) = &options.sample {
        // Line ends as `smtp-source -F` wants them.
        let message = Press::new(None)?.message(0, DeliveryId::new())?;
        std::fs::write(file, String::from_utf8(message.bytes)?.replace("\r\n", "\n"))?;
        return Ok(());
    }
    let keys = options.signed.then(Keys::new).transpose()?;
    let press = Arc::new(Press::new(keys.as_ref())?);
    let relay = Relay::from_url(&options.relay, "load.example.com", Timeouts::default())?;
    let next = Arc::new(AtomicU64::new(0));
    let (begun, used) = (Instant::now(), cpu());
    let mut connections = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        connections.spawn(send(relay.clone(), Arc::clone(&press), Arc::clone(&next), options.messages));
    }
    let mut octets = 0;
    while let Some(done) = connections.join_next().await {
        octets += done??;
    }
    let (took, used) = (begun.elapsed(), cpu().saturating_sub(used));
    let each = options.messages as f64;
    let measured = json!({
        "rate": each / took.as_secs_f64(),
        "cpu_us": used.as_secs_f64() * 1e6 / each,
        "octets": octets as f64 / each,
    });
    println!("{measured}");
    Ok(())
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec.try_into().unwrap_or(0), used.tv_nsec.try_into().unwrap_or(0))
}

/// One connection: message after message until there are enough, the next one's envelope with this one's body; returns the
/// octets sent.
async fn send(relay: Relay, press: Arc<Press>, next: Arc<AtomicU64>, messages: u64) -> Outcome<usize> {
    let mut connection = relay.connect().await.map_err(|outcome| format!("{outcome:?}"))?;
    let until = Deadline::at(Moment::now().plus(Duration::from_hours(1)));
    let mut octets = 0;
    let mut this = cleared(&press, &next, messages, &until)?;
    while let Some((message, clearance)) = &this {
        let coming = cleared(&press, &next, messages, &until)?;
        octets += message.bytes.len();
        let parcel = coming.as_ref().map(|(message, clearance)| Parcel { message, clearance });
        match connection.hand_over(Parcel { message, clearance }, parcel).await {
            HandOver::Sent(_) => {}
            other => return Err(format!("the chain's hand-over ended with {other:?}").into()),
        }
        this = coming;
    }
    connection.quit().await;
    Ok(octets)
}

/// The next message and the right to hand it over, until there were enough.
fn cleared(
    press: &Press,
    next: &AtomicU64,
    messages: u64,
    until: &Deadline,
) -> Outcome<Option<(Message, Clearance)>> {
    let n = next.fetch_add(1, Ordering::Relaxed);
    if n >= messages {
        return Ok(None);
    }
    let delivery = DeliveryId::new();
    let message = press.message(n, delivery)?;
    let lease = Lease { delivery, token: LeaseToken::new(), until: until.clone(), asked: Moment::now() };
    let clearance =
        decide(Class::Marketing, &Facts::default(), lease).map_err(|reason| format!("{reason:?}"))?;
    Ok(Some((message, clearance)))
}
