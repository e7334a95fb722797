//! One delivery: connection, fresh facts, decision, message, begin, hand-over, settle.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sea_orm::DbErr;
use tracing::Instrument;

use super::breaker::Breaker;
use super::{DATABASE_PAUSE, Job};
use crate::address::EmailAddress;
use crate::app::App;
use crate::brand;
use crate::clock::{Instant, Timestamp};
use crate::decision::{Clearance, Facts, Lease, Reason, Standing, decide};
use crate::delivery::aside;
use crate::delivery::fate::{self, Past};
use crate::delivery::rows::{self, Attempt, Fate};
use crate::id::ContentId;
use crate::message::{Addressee, Compiled, Message, Sender, compose};
use crate::opt_out::rows::{Wanted, facts_of};
use crate::recipient;
use crate::relay::{Connection, Outcome, Parcel, Phase, Relay};

/// Compiled contents kept at most; the next one after that starts afresh.
const CONTENTS_KEPT: usize = 256;
/// How long a settling is repeated while the database fails.
const SETTLE_FOR: Duration = Duration::from_secs(120);

/// What the connections of a worker share.
pub(super) struct Desk {
    app: App,
    relay: Relay,
    contents: Mutex<HashMap<ContentId, Arc<Compiled>>>,
}

/// What the facts and the content amount to.
enum Verdict {
    /// It may be handed over.
    Cleared(Box<Cleared>),
    /// It ends here.
    Ends(Fate),
}

/// What is needed to hand a delivery over.
struct Cleared {
    clearance: Clearance,
    message: Message,
    date: Timestamp,
}

impl Cleared {
    fn parcel(&self) -> Parcel<'_> {
        Parcel { message: &self.message, clearance: &self.clearance }
    }
}

impl Desk {
    pub(super) fn new(app: App, relay: Relay) -> Self {
        Self { app, relay, contents: Mutex::default() }
    }

    /// Queues a job again that was not begun.
    pub(super) async fn give_back(&self, job: &Job) {
        if let Err(error) = rows::give_back(&self.app.db, &[job.held.id], job.token).await {
            tracing::warn!(delivery = %job.held.id, %error, "could not give back; its lease will end");
        }
    }

    /// Brings one claimed delivery to its end under this claim, renewing the lease meanwhile.
    pub(super) async fn deliver(&self, connection: &mut Option<Connection>, breaker: &Breaker, job: Job) {
        let span = tracing::info_span!("delivery", id = %job.held.id, class = %job.held.class);
        let work = self.attempt(connection, breaker, &job);
        let renewals = self.keep_renewed(&job);
        async {
            tokio::select! {
                () = work => {}
                () = renewals => {}
            }
        }
        .instrument(span)
        .await;
    }

    /// Renews the lease again and again; never ends by itself.
    async fn keep_renewed(&self, job: &Job) {
        loop {
            tokio::time::sleep(self.app.settings.lease / 3).await;
            let asked = Instant::now();
            match rows::renew(&self.app.db, job.held.id, job.token, self.app.settings.lease).await {
                Ok(true) => job.until.move_to(asked.plus(self.app.settings.lease_trusted())),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "could not renew a lease"),
            }
        }
    }

    async fn attempt(&self, connection: &mut Option<Connection>, breaker: &Breaker, job: &Job) {
        if job.until.has_passed() {
            tracing::warn!("the lease ended before its turn came");
            self.give_back(job).await;
            return;
        }
        let Some(mut cleared) = self.cleared(job).await else { return };
        let kept = connection.take().filter(Connection::is_open);
        let open = match kept {
            Some(kept) => kept,
            None => {
                let Some(open) = self.connect(breaker, job).await else { return };
                // Opening a connection may have taken long: what counts is what is known now.
                let Some(again) = self.cleared(job).await else {
                    *connection = Some(open);
                    return;
                };
                cleared = again;
                open
            }
        };
        *connection = self.hand_over(open, &cleared, job).await;
    }

    /// Judges the job and ends it here unless it may go.
    async fn cleared(&self, job: &Job) -> Option<Cleared> {
        match self.judge(job).await {
            Ok(Verdict::Cleared(cleared)) => Some(*cleared),
            Ok(Verdict::Ends(fate)) => {
                self.settle(job, &fate, None).await;
                None
            }
            Err(error) => {
                tracing::error!(%error, "could not read the facts");
                tokio::time::sleep(DATABASE_PAUSE).await;
                self.give_back(job).await;
                None
            }
        }
    }

    /// Opens a connection, or has the job tried later.
    async fn connect(&self, breaker: &Breaker, job: &Job) -> Option<Connection> {
        match self.relay.connect().await {
            Ok(open) => {
                breaker.succeeded();
                Some(open)
            }
            Err(outcome) => {
                breaker.failed();
                tracing::warn!(outcome = name(&outcome), "the relay cannot be reached");
                let (fate, attempt) = fate::of(&outcome, self.past(job));
                self.settle(job, &fate, Some(&attempt)).await;
                None
            }
        }
    }

    /// Begins, hands over and settles. Returns the connection when it can be used again.
    async fn hand_over(&self, mut open: Connection, cleared: &Cleared, job: &Job) -> Option<Connection> {
        match self.begin(job, cleared.date).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::info!("taken back before it began");
                // When it was not, its campaign was held or its time is over: then nobody keeps it here.
                self.give_back(job).await;
                return Some(open);
            }
            Err(error) => {
                // Whether it was begun is not known, but no byte was written: nobody needs to doubt that.
                tracing::error!(%error, "could not begin");
                let outcome = Outcome::NotSent(Phase::MailFrom, "the database failed".to_owned());
                let (fate, attempt) = fate::of(&outcome, self.past(job));
                self.settle(job, &fate, Some(&attempt)).await;
                return Some(open);
            }
        }
        let mut outcome = open.hand_over(cleared.parcel(), None).await;
        if open.is_stale()
            && let Ok(fresh) = self.relay.connect().await
        {
            open = fresh;
            // As above: it may have taken long, and not an octet of this message was taken.
            match self.judge(job).await {
                Ok(Verdict::Cleared(again)) => {
                    outcome = open.hand_over(again.parcel(), None).await;
                }
                Ok(Verdict::Ends(fate)) => {
                    let (_, attempt) = fate::of(&outcome, self.past(job));
                    self.settle(job, &fate, Some(&attempt)).await;
                    return Some(open);
                }
                Err(error) => tracing::error!(%error, "could not read the facts again"),
            }
        }
        tracing::info!(outcome = name(&outcome), code = code(&outcome), "handed over");
        metrics::counter!(
            "tidings_hand_overs_total", "outcome" => name(&outcome), "class" => job.held.class.as_str()
        )
        .increment(1);
        let (fate, attempt) = fate::of(&outcome, self.past(job));
        self.settle(job, &fate, Some(&attempt)).await;
        open.is_open().then_some(open)
    }

    /// Reads the facts fresh, decides, and renders.
    async fn judge(&self, job: &Job) -> Result<Verdict, DbErr> {
        let held = &job.held;
        let on = self.app.db.reads();
        let ends = |why: &str| Ok(Verdict::Ends(Fate::Failed(why.to_owned())));
        let Some(topic) = brand::rows::topic_by_id(on, held.topic_id).await? else { return ends("no_topic") };
        let Some(brand) = brand::rows::by_id(on, held.brand_id).await? else { return ends("no_brand") };
        let person = recipient::rows::by_id(on, held.recipient_id).await?;
        let hashes = [held.address_hash.clone()];
        let facts = facts_of(on, Wanted { people: &hashes, topic: &topic }).await?;
        let Some(person) = person else { return ends("no_recipient") };
        let unknown = Facts { standing: Standing::Erased, ..Facts::default() };
        let facts = facts.get(&held.address_hash).unwrap_or(&unknown);
        let lease = Lease { delivery: held.id, token: job.token, until: job.until.clone() };
        let clearance = match decide(held.class, facts, lease) {
            Ok(clearance) => clearance,
            Err(reason) => return Ok(Verdict::Ends(Fate::Suppressed(reason))),
        };
        let Some(address) = person.address.as_deref().and_then(|text| EmailAddress::parse(text).ok()) else {
            return Ok(Verdict::Ends(Fate::Suppressed(Reason::Erased)));
        };
        if self.app.address_key.hash(&address) != held.address_hash {
            return ends("another_address");
        }
        let content = match self.content(held.content_id).await? {
            Ok(content) => content,
            Err(why) => return ends(&why),
        };
        let sender = Sender {
            brand: &brand,
            topic: &topic,
            base_url: &self.app.settings.base_url,
            link_keys: &self.app.link_keys,
            default_bounce_domain: self.app.settings.bounce_domain.as_deref(),
            inbound_domain: self.app.settings.inbound_domain.as_deref(),
            dkim: &self.app.dkim_keys,
        };
        let addressee = Addressee {
            recipient: held.recipient_id,
            address: &address,
            address_hash: &held.address_hash,
            name: person.name.as_deref(),
            locale: person.locale.as_deref(),
            external_id: person.external_id.as_deref(),
            customer: facts.customer,
            attributes: &person.attributes,
            data: held.data.as_ref(),
        };
        let date = held.first_begun_at.unwrap_or_else(|| self.app.db.clock().now());
        match aside(content.frozen(), || compose(&content, &sender, &addressee, held.id, date)) {
            Ok(message) => Ok(Verdict::Cleared(Box::new(Cleared { clearance, message, date }))),
            Err(error) => ends(&error.to_string()),
        }
    }

    /// The compiled content; why it cannot be used, when it cannot.
    async fn content(&self, id: ContentId) -> Result<Result<Arc<Compiled>, String>, DbErr> {
        if let Some(kept) = self.contents().get(&id) {
            return Ok(Ok(kept.clone()));
        }
        let Some(frozen) = crate::message::rows::load(self.app.db.reads(), id).await? else {
            return Ok(Err("no_content".to_owned()));
        };
        let compiled = match aside(&frozen, || Compiled::new(&frozen)) {
            Ok(compiled) => Arc::new(compiled),
            Err(error) => return Ok(Err(error.to_string())),
        };
        let mut kept = self.contents();
        if kept.len() >= CONTENTS_KEPT {
            kept.clear();
        }
        kept.insert(id, compiled.clone());
        Ok(Ok(compiled))
    }

    fn contents(&self) -> std::sync::MutexGuard<'_, HashMap<ContentId, Arc<Compiled>>> {
        // A panic while holding it leaves at worst a content less.
        self.contents.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Begins, and again while the COMMIT is not confirmed and the lease lasts: it counts once.
    async fn begin(&self, job: &Job, date: Timestamp) -> Result<bool, DbErr> {
        let mut pause = Duration::from_millis(50);
        loop {
            let asked = Instant::now();
            match rows::begin(&self.app.db, job.held.id, job.token, date, self.app.settings.lease).await {
                Ok(begun) => {
                    if begun {
                        job.until.move_to(asked.plus(self.app.settings.lease_trusted()));
                    }
                    return Ok(begun);
                }
                Err(error) if job.until.has_passed() => return Err(error),
                Err(error) => tracing::warn!(%error, "a begin was not confirmed"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(DATABASE_PAUSE);
        }
    }

    fn past(&self, job: &Job) -> Past {
        let now = self.app.db.clock().now();
        Past {
            class: job.held.class,
            attempts: u32::try_from(job.held.attempts).unwrap_or(u32::MAX).saturating_add(1),
            elapsed: job.held.first_begun_at.map_or(Duration::ZERO, |first| now.since(first)),
            jitter: rand::random(),
        }
    }

    /// Settles, again and again while the database fails; what stays unsettled is decided when its lease ends.
    async fn settle(&self, job: &Job, fate: &Fate, attempt: Option<&Attempt>) {
        let silence = self.app.settings.relay_silence;
        let give_up = Instant::now().plus(SETTLE_FOR);
        let mut pause = Duration::from_millis(50);
        loop {
            match rows::settle(&self.app.db, &job.held, job.token, fate, attempt, silence).await {
                Ok(true) => return,
                Ok(false) => return tracing::warn!("its claim was gone before it was settled"),
                Err(error) if give_up.has_passed() => {
                    return tracing::error!(%error, "could not settle; its lease will end");
                }
                Err(error) => {
                    tracing::warn!(%error, "could not settle; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
            }
        }
    }
}

/// The outcome's word, for logs and metrics; the relay's own words may hold an address.
fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Sent(_) => "sent",
        Outcome::Refused(..) => "refused",
        Outcome::Deferred(..) => "deferred",
        Outcome::NotSent(..) => "not_sent",
        Outcome::Unknown(..) => "unknown",
    }
}

fn code(outcome: &Outcome) -> Option<u16> {
    match outcome {
        Outcome::Sent(reply) | Outcome::Refused(_, reply) | Outcome::Deferred(_, reply) => Some(reply.code),
        Outcome::NotSent(..) | Outcome::Unknown(..) => None,
    }
}
