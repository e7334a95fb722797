//! The gate: what of the claimed deliveries may go on, by the limits and by what destinations said.
//!
//! It remembers what is needed to tell, without asking the database, that nothing limits a delivery: then it costs
//! nothing. The database alone grants; what is remembered here is at most a second old and only ever says "ask".

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sea_orm::DbErr;

use super::Worker;
use super::claims::{Claim, Job};
use super::desk::Parcel;
use crate::address::EmailAddress;
use crate::clock::{Instant, Timestamp};
use crate::db::Db;
use crate::delivery::limit::{BackOff, Book, Heard, Limit, Name, Plan, room, said};
use crate::delivery::rows::Lane;
use crate::delivery::rows::limits::{self, Wanted};
use crate::id::{ContentId, DeliveryId, LeaseToken};
use crate::relay::Outcome;

/// How old what is remembered may become.
const FRESH: Duration = Duration::from_secs(1);
/// How often limits that nobody uses are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(600);
/// Contents remembered at most.
const CONTENTS: usize = 1_000;
/// How long nothing is claimed after the relay's limit was found to be used up.
const RELAY_FULL: Duration = Duration::from_millis(250);
/// What a claim may hold when the relay sets no limit.
const UNLIMITED: usize = usize::MAX;

/// A claimed delivery, as far as limits are concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passenger<'a> {
    /// The delivery.
    pub(super) delivery: DeliveryId,
    /// The domain that it goes to: an A-label in lower case.
    pub(super) domain: &'a str,
    /// What is sent.
    pub(super) content: ContentId,
    /// Its lane.
    pub(super) lane: Lane,
}

impl<'a> Passenger<'a> {
    fn of(job: &Job, domain: &'a str) -> Self {
        let held = &job.held;
        Self { delivery: held.id, domain, content: held.content_id, lane: Lane::of(held.class) }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gate {
    plan: Plan,
    /// Whether somebody asked to be left alone; looked at for every message.
    shut: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The database's time and ours when it was read.
    read: Option<(Timestamp, Instant)>,
    look_at: Option<Timestamp>,
    forgot: Option<Instant>,
    backing_off: HashMap<Name, BackOff>,
    relay: Option<Book>,
    /// Since when the relay's limit is known to be used up, for each lane.
    relay_full: [Option<Instant>; 2],
    contents: HashMap<ContentId, Option<Limit>>,
    /// What was heard and could not be kept yet.
    unreported: Vec<(Name, Heard)>,
}

impl Known {
    /// The database's time by our clock.
    fn now(&self) -> Timestamp {
        self.read.map_or(Timestamp(0), |(then, read)| then.plus(read.elapsed()))
    }

    fn rests(&self, name: &Name) -> bool {
        let until = self.backing_off.get(name).and_then(BackOff::paused_until);
        until.is_some_and(|until| until > self.now())
    }
}

impl Gate {
    /// A gate by these settings.
    pub(super) fn new(plan: Plan) -> Self {
        Self { plan, shut: AtomicBool::new(false), known: Mutex::default() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // A panic while holding it leaves what is read again within a second.
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Reports what could not be kept before, reads what other workers found, and calls up whom a limit has room for. Call it
    /// before each claim; mostly it does nothing.
    ///
    /// # Errors
    /// The database's own.
    pub(super) async fn keep_up(&self, db: &Db) -> Result<(), DbErr> {
        let unreported = std::mem::take(&mut self.known().unreported);
        self.keep(db, unreported).await?;
        let (first, contents, forget) = {
            let known = self.known();
            let fresh = known.read.is_some_and(|(_, read)| read.elapsed() < FRESH);
            if fresh && known.look_at.is_none_or(|at| at > known.now()) {
                return Ok(());
            }
            let contents: Vec<ContentId> = known.contents.keys().copied().collect();
            let forget = known.forgot.is_none_or(|at| at.elapsed() > FORGET_EVERY);
            (known.read.is_none(), contents, forget)
        };
        if first {
            // The settings may have changed since the lines were looked at.
            limits::look_anew(db, None).await?;
        }
        if forget {
            limits::forget(db).await?;
        }
        let asked = Instant::now();
        let mut watched = limits::watch(db).await?;
        if watched.feed_at.is_some_and(|at| at <= watched.now) {
            limits::feed(db, &self.plan).await?;
            watched = limits::watch(db).await?;
        }
        let found = self.look_up(db, &contents).await?;
        let paused = |name: &Name, back_off: &BackOff| {
            *name != Name::Relay && back_off.paused_until().is_some_and(|until| until > watched.now)
        };
        let destinations =
            watched.backing_off.iter().filter(|(name, back_off)| paused(name, back_off)).count();
        metrics::gauge!("tidings_destinations_paused").set(destinations as f64);
        let mut known = self.known();
        known.read = Some((watched.now, asked));
        known.look_at = watched.feed_at;
        // What was heard here just now may not have been kept when it was read.
        let before = std::mem::replace(&mut known.backing_off, watched.backing_off);
        for (name, back_off) in before {
            let now = known.backing_off.get(&name).and_then(BackOff::paused_until);
            if back_off.paused_until() > now.max(Some(watched.now)) {
                known.backing_off.insert(name, back_off);
            }
        }
        self.note_open(&known);
        known.relay = watched.relay;
        if forget {
            known.forgot = Some(asked);
        }
        for (content, limit) in found {
            known.contents.insert(content, limit);
        }
        Ok(())
    }

    async fn look_up(
        &self,
        db: &Db,
        contents: &[ContentId],
    ) -> Result<HashMap<ContentId, Option<Limit>>, DbErr> {
        if contents.is_empty() {
            return Ok(HashMap::new());
        }
        let mut limited = limits::limits_of(db.reads(), contents).await?;
        Ok(contents.iter().map(|content| (*content, limited.remove(content))).collect())
    }

    /// When to call [`Gate::keep_up`] again at the latest.
    pub(super) fn next_look(&self) -> Duration {
        let known = self.known();
        known.look_at.map_or(FRESH, |at| at.since(known.now()).clamp(Duration::from_millis(10), FRESH))
    }

    /// How many deliveries of this lane are worth claiming by what the relay's own limit leaves; zero while the relay is left
    /// alone, and while only this process knows who else is.
    pub(super) fn worth_claiming(&self, lane: Lane) -> usize {
        let known = self.known();
        if !known.unreported.is_empty() {
            return 0;
        }
        if known.relay_full[lane as usize].is_some_and(|since| since.elapsed() < RELAY_FULL) {
            return 0;
        }
        let Some(book) = &known.relay else { return UNLIMITED };
        let limit = self.plan.relay().map(|limit| limit.part_of(&Name::Relay, lane)).unwrap_or_default();
        match room(&limit, book, known.now()).free {
            u32::MAX => UNLIMITED,
            free => free as usize,
        }
    }

    /// Whether nobody asked to be left alone, so that nothing is shut and no success needs to be remembered.
    pub(super) fn is_open(&self) -> bool {
        !self.shut.load(Ordering::Acquire)
    }

    fn note_open(&self, known: &Known) {
        self.shut.store(!known.backing_off.is_empty(), Ordering::Release);
    }

    /// Whether anything may limit deliveries of these contents.
    fn asks(&self, contents: impl IntoIterator<Item = ContentId>) -> bool {
        let known = self.known();
        !self.plan.is_empty()
            || !known.backing_off.is_empty()
            || contents.into_iter().any(|content| !matches!(known.contents.get(&content), Some(None)))
    }

    /// Whether what goes to this domain has to ask again before it begins: the domain, or the relay, asked to be left
    /// alone since it was let through. Costs no question to the database.
    pub(super) fn is_shut(&self, domain: &str) -> bool {
        if self.is_open() {
            return false;
        }
        let known = self.known();
        known.rests(&Name::Relay) || known.rests(&Name::Domain(self.plan.name_of(domain).to_owned()))
    }

    /// Lets those through that may go, in their order; the others are back in the queue when this returns, without an
    /// attempt counted. Returns for each whether it was let through. Call it after the claim, before anything else is
    /// done for them, and again for those that meanwhile find the gate shut.
    ///
    /// # Errors
    /// The database's own: then nobody was let through, and everybody is still held.
    pub(super) async fn let_through(
        &self,
        db: &Db,
        token: LeaseToken,
        passengers: &[Passenger<'_>],
    ) -> Result<Vec<bool>, DbErr> {
        let unknown: Vec<ContentId> = {
            let known = self.known();
            let mut unknown: Vec<ContentId> = passengers.iter().map(|one| one.content).collect();
            unknown.sort_unstable();
            unknown.dedup();
            unknown.retain(|content| !known.contents.contains_key(content));
            unknown
        };
        if !unknown.is_empty() {
            let found = self.look_up(db, &unknown).await?;
            let mut known = self.known();
            if known.contents.len() + found.len() > CONTENTS {
                known.contents.clear();
            }
            known.contents.extend(found);
        }
        let mut limits = BTreeMap::new();
        let mut wanted = Vec::new();
        let mut places = Vec::new();
        {
            let known = self.known();
            for (place, one) in passengers.iter().enumerate() {
                let names = self.limits_on(&known, one, &mut limits);
                if !names.is_empty() {
                    wanted.push(Wanted { delivery: one.delivery, lane: one.lane, limits: names });
                    places.push(place);
                }
            }
        }
        let mut through = vec![true; passengers.len()];
        if wanted.is_empty() {
            return Ok(through);
        }
        let answers = limits::ask(db, token, &wanted, &limits).await?;
        for ((place, one), answer) in places.into_iter().zip(&wanted).zip(answers) {
            through[place] = answer.is_none();
            if let Some(full) = answer {
                if full == Name::Relay {
                    self.known().relay_full[one.lane as usize] = Some(Instant::now());
                }
                metrics::counter!("tidings_limited_total", "limit" => self.plan.label(&full)).increment(1);
            }
        }
        Ok(through)
    }

    fn limits_on(&self, known: &Known, one: &Passenger<'_>, limits: &mut BTreeMap<Name, Limit>) -> Vec<Name> {
        let mut names = Vec::new();
        let mut also = |name: Name, limit: Option<&Limit>| {
            if limit.is_some() || known.backing_off.contains_key(&name) {
                if !limits.contains_key(&name) {
                    limits.insert(name.clone(), limit.cloned().unwrap_or_default());
                }
                names.push(name);
            }
        };
        if self.plan.relay().is_some() || !known.backing_off.is_empty() {
            also(Name::Relay, self.plan.relay());
        }
        let of_domain = self.plan.domain(one.domain);
        if of_domain.is_some() || !known.backing_off.is_empty() {
            also(Name::Domain(self.plan.name_of(one.domain).to_owned()), of_domain);
        }
        if let Some(Some(limit)) = known.contents.get(&one.content) {
            also(Name::Content(one.content), Some(limit));
        }
        names
    }

    /// Takes in what became of a hand-over to this domain; mostly there is nothing to remember, and it costs nothing. What
    /// says to stay away counts in this process at once, and for all once it is reported.
    pub(super) fn listen(&self, domain: &str, outcome: &Outcome) -> Vec<(Name, Heard)> {
        if matches!(outcome, Outcome::Sent(_)) && self.is_open() {
            return Vec::new();
        }
        let words = said(outcome);
        let mut known = self.known();
        let now = known.now();
        let of_relay = words.relay.map(|word| (Name::Relay, word));
        let of_domain = words.domain.map(|word| (Name::Domain(self.plan.name_of(domain).to_owned()), word));
        // Every word against our pace, and successes where there was such a word before.
        let remembered = |(name, word): &(Name, Heard)| {
            !matches!(word, Heard::Welcome(_)) || known.backing_off.contains_key(name)
        };
        let heard: Vec<(Name, Heard)> = of_relay.into_iter().chain(of_domain).filter(remembered).collect();
        for (name, word) in heard.iter().filter(|(_, word)| *word == Heard::Stop) {
            known.backing_off.entry(name.clone()).or_default().hear(name, *word, now);
        }
        self.note_open(&known);
        heard
    }

    /// Lets all workers know what was heard. When the database does not answer, [`Gate::keep_up`] does.
    pub(super) async fn report(&self, db: &Db, heard: Vec<(Name, Heard)>) {
        if let Err(error) = self.keep(db, heard).await {
            tracing::warn!(%error, "could not keep what a destination said about our pace yet");
        }
    }

    async fn keep(&self, db: &Db, heard: Vec<(Name, Heard)>) -> Result<(), DbErr> {
        if heard.is_empty() {
            return Ok(());
        }
        match limits::hear(db, &heard, &self.plan).await {
            Ok(back_offs) => {
                let mut known = self.known();
                for (name, back_off) in back_offs {
                    if back_off.is_over() {
                        known.backing_off.remove(&name);
                    } else {
                        known.backing_off.insert(name, back_off);
                    }
                }
                self.note_open(&known);
                Ok(())
            }
            Err(error) => {
                self.known().unreported.extend(heard);
                Err(error)
            }
        }
    }
}

impl Worker {
    /// The jobs that may go on; the others are back in the queue.
    ///
    /// # Errors
    /// The database's own: then every job is still held.
    pub(super) async fn admit(&self, claim: &Claim, jobs: Vec<Job>) -> Result<Vec<Job>, DbErr> {
        if !self.gate.asks(jobs.iter().map(|job| job.held.content_id)) {
            return Ok(jobs);
        }
        let domains: Vec<String> = jobs.iter().map(domain_of).collect();
        let passengers: Vec<Passenger<'_>> =
            jobs.iter().zip(&domains).map(|(job, domain)| Passenger::of(job, domain)).collect();
        let through = self.gate.let_through(&self.app.db, claim.token, &passengers).await?;
        Ok(jobs.into_iter().zip(through).filter(|(_, through)| *through).map(|(job, _)| job).collect())
    }

    /// Of these the ones that still may begin; the others are back in the queue.
    pub(super) async fn still_admitted(&self, parcels: Vec<Parcel>) -> Vec<Parcel> {
        if self.gate.is_open() {
            return parcels;
        }
        let mut admitted = Vec::with_capacity(parcels.len());
        for parcel in parcels {
            if self.gate.is_shut(parcel.domain()) {
                let one = Passenger::of(&parcel.job, parcel.domain());
                match self.gate.let_through(&self.app.db, parcel.job.claim.token, &[one]).await {
                    Ok(through) if through != [true] => continue,
                    Ok(_) if self.gate.is_shut(parcel.domain()) => {
                        // Heard here and not kept yet: it is on its way, so whoever claims this next is told.
                        self.give_back(vec![parcel.job]).await;
                        continue;
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%error, "could not ask for a permit");
                        self.give_back(vec![parcel.job]).await;
                        continue;
                    }
                }
            }
            admitted.push(parcel);
        }
        admitted
    }
}

/// The domain that a delivery goes to; empty when it goes nowhere, which ends it later.
fn domain_of(job: &Job) -> String {
    let address = job.person.as_ref().and_then(|member| member.recipient.address.as_deref());
    let address = address.and_then(|text| EmailAddress::parse(text).ok());
    address.map(|address| address.domain().to_owned()).unwrap_or_default()
}
