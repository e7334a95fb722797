//! Chaos: real processes, a real PostgreSQL and a relay in moods, while workers are killed, put to sleep beyond their
//! leases and replaced, web processes die, PostgreSQL crashes and comes back, and people refuse mail all along.
//!
//! It counts at the relay. Nothing is begun after an answer that covers it, nothing at all is accepted after
//! `settled: true`, nothing that can be refused is accepted twice, nothing is lost, and what Tidings counts is what the
//! relay saw. A run that hit too little shows nothing and fails.
//!
//! `TIDINGS_CHAOS_SECONDS` makes it longer, `TIDINGS_CHAOS_SEED` makes the same choices again; what the machine makes of
//! them differs from run to run.

mod crowd;
mod fleet;
mod ledger;
mod load;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio_util::sync::CancellationToken;

use crowd::Crowd;
use fleet::Fleet;
use load::Load;

/// How long it goes on, unless told otherwise.
const LASTS: Duration = Duration::from_secs(40);
/// How many people there are.
const PEOPLE: usize = 240;
/// SMTP connections of each worker.
const CONNECTIONS: usize = 4;
/// How long a claim lasts: short, so that many run out.
const LEASE: Duration = Duration::from_secs(4);
/// After this the relay has hung up on a silent client; it does so after less than half of it.
const RELAY_SILENCE: Duration = Duration::from_secs(9);
/// How long an opt-out waits at most.
const OPT_OUT_WAIT: Duration = Duration::from_secs(5);
/// How often each thing must have happened for the run to show anything.
const AT_LEAST: usize = 3;

/// The topics of brand `acme`, each with its class.
const TOPICS: [(&str, &str); 5] = [
    ("offers", "marketing"),
    ("nudges", "reminder"),
    ("news", "relationship"),
    ("alerts", "service"),
    ("receipts", "requested"),
];
/// Those that can be refused.
const REFUSABLE: [&str; 3] = ["offers", "nudges", "news"];

/// The address of a person, by number.
fn address(person: usize) -> String {
    format!("p{person}@people.example.com")
}

fn from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a whole number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_late_doubled_or_lost_while_workers_die_and_sleep_and_the_database_restarts() {
    let seed = from_env("TIDINGS_CHAOS_SEED").unwrap_or_else(|| rand::rng().random::<u32>().into());
    let lasts = from_env("TIDINGS_CHAOS_SECONDS").map_or(LASTS, Duration::from_secs);
    eprintln!("chaos: {} s from TIDINGS_CHAOS_SEED={seed}", lasts.as_secs());
    let rng = |n: u64| StdRng::seed_from_u64(seed.wrapping_add(n));

    let mut fleet = Fleet::start(rng(0)).await;
    let load = Load::set_up(fleet.door.clone()).await;
    let crowd = Crowd::new(fleet.door.clone(), fleet.relay.clone(), load.ids.clone());
    let over = CancellationToken::new();
    let refusing = (0..crowd::PARTS).map(|part| crowd.refuse(part, rng(10 + part as u64), &over));
    tokio::join!(
        load.campaigns(rng(1), &over),
        load.messages(rng(2), &over),
        futures_util::future::join_all(refusing),
        async {
            fleet.torment(&mut rng(3), lasts).await;
            over.cancel();
        },
    );
    fleet.relay.behave();
    load.drain(&fleet).await;

    let ledger = ledger::Ledger::read(&fleet, &load, &crowd).await;
    let (told, faults) = ledger.check(&fleet.toll);
    eprintln!("chaos: {told}");
    assert!(faults.is_empty(), "seed {seed}: {} faults:\n  {}\n{told}", faults.len(), faults.join("\n  "));
    fleet.end().await;
}
