//! The fence: an opt-out's answer is one.
//!
//! **What it promises.** Answered with success, an opt-out is committed, and no worker on any machine begins (writes
//! MAIL for) a message within its scope afterwards, through crash and restart. Messages already begun are waited for,
//! up to a bound. `settled` true means that none of them reaches the relay after the answer; `settled` false names
//! those still open or in doubt. The guarantee ends at the relay.
//!
//! **How.** What is unfinished has a row in `queue`. A worker does, in this order, each step committed before the next
//! one starts:
//!
//! 1. *claim*: rows get a fresh token, and one row of `leases` says how long it is valid and of what;
//! 2. *begin*: by id and token, rows are marked as begun, and in the same transaction, by the same statement or a later
//!    one, the facts are read; nothing is begun whose token is gone;
//! 3. *decide* by those facts; after a no, not an octet is written, and the row is settled as suppressed;
//! 4. *hand over*, looking at the lease before the envelope and again before the body; before the envelope also at how old
//!    the facts are: when it is too late for them, *begin* and *decide* are done again;
//! 5. *settle*, by id and token: the row leaves `queue`, or waits there without a token to be tried again.
//!
//! An opt-out does, in this order:
//!
//! 1. *record*: the event and what it amounts to, in a transaction that touches no delivery, together with those of
//!    other people who come at the same time;
//! 2. *take back* what is queued or not begun (for speed; whatever it skips meets step 2 of a worker);
//! 3. *look*, in a statement whose snapshot is taken after that commit, for rows of its scope in `queue` that have a
//!    token, begun or not, whatever their lease, and wait until each (id, token) found is gone or named in `doubts`;
//!    of several people who were recorded together, first whether `queue` or `doubts` holds anything of theirs at all;
//! 4. *answer*, naming what the bound cut off and what is in doubt.
//!
//! **Why it holds.** Take a message within the scope of which an octet is written after the answer. Its worker decided
//! by facts without the opt-out, so the snapshot *S* in which they were read is older than the commit *R* of *record*.
//! The claim was committed before *begin* started, so before *S*; and the snapshot *L* of *look* was taken after *R*:
//! claim < *S* < *R* < *L*. So *L* holds that row under that token, unless it was settled, lost or taken back before:
//!
//! * *L* holds it: the opt-out waited until the token was gone from the row, or named the delivery.
//! * It was settled before *L*: a worker settles only after its last octet.
//! * It was taken back before *L*: that needs a row that is not marked as begun, so *begin* was not committed; when it
//!   gets the row's lock it finds the token gone and begins nothing. Had *begin* held the lock first, taking back would
//!   have passed over the row, and *L* would hold it.
//! * Its claim was lost before *L*: see the next paragraph.
//! * It was given back or set aside before *L*: likewise not begun, and its token gone.
//!
//! Either way nothing unnamed is written. It does not matter when facts were read before *begin*, nor how many rows a
//! claim takes, nor how many are begun at once: each (id, token) is waited for by itself.
//!
//! **What time does not decide.** A lease that ran out proves nothing about its holder: it may sleep, its octets may
//! lie in a buffer. Therefore the look passes over no row for its lease, and a claim that finds an ended lease first
//! decides its rows: not begun, they are queued again, and the sleeper's *begin* will find its token gone; begun, the
//! outcome is unknown, and the row stands in `doubts` until the relay must have hung up on a silent peer. Every opt-out
//! until then names it, from the very statement that found nothing left to wait for. The row of a lease goes only when
//! nothing is found under its token. Otherwise a row would keep a token that nobody ever ends.
//!
//! **What time does decide.** What an answer names may still be written. That its envelope has begun by then rests on
//! clocks alone: a worker begins it within [`ENVELOPE_WITHIN`] after it asked for the facts, and the answer that names it
//! comes no sooner after *R*. Only a worker that is suspended between that look at its clock and the write is later.
//!
//! **Order.** Opt-outs and opt-ins of one person take effect in the order in which they are committed under the lock
//! of the person's address row. Whether an opt-out stands already is read in a statement of its own, once that lock is
//! held: no other transaction's word about the person can come between. The locks of several people are taken in the
//! order of their hashes, by one statement, so that two such transactions never wait for one another. A repeated opt-out
//! records nothing new and does all the rest again.
//!
//! **Together, and yet each alone.** Opt-outs that come while others are being recorded share one transaction and its
//! COMMIT: success is said to none before it. Where the database refuses that transaction, for a lock that somebody
//! else keeps or for anything wrong with one of them, nothing of it happened, and each is recorded by itself. Where the
//! COMMIT is not answered, nothing was confirmed to anyone of them.
//!
//! Every way of opting out, and every change of standing that stops messages, goes through this module. [`opt_out`] is
//! made of [`record`] and the steps of a [`Wait`], which the simulation takes one by one, in every order.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use sea_orm::{DbErr, RuntimeErr};

use crate::address::AddressHash;
use crate::app::App;
use crate::clock::{Instant, Timestamp};
use crate::db::Db;
use crate::decision::{Class, ENVELOPE_WITHIN, Standing};
use crate::delivery::rows::{Covered, InFlight, Look, look, take_back, unfinished_among};
use crate::id::{DeliveryId, OptEventId, RecipientId};
use crate::opt_out::rows::{Recorded, Refused, Undone, record_opt_in, record_opt_outs};
use crate::opt_out::{Channel, OptIn, OptOut, Scope, Stood};

/// How long to wait between two looks at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How much longer than the bound an opt-out may take to be recorded before its caller is told to try again.
const PATIENCE: Duration = Duration::from_secs(3);

/// What an opt-out is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The event that records it.
    pub id: OptEventId,
    /// When it was recorded; the first time, when it was said before.
    pub recorded_at: Timestamp,
    /// Whether it is new.
    pub new: bool,
    /// When the opt-ins were recorded that it overruled.
    pub overruled: Vec<Timestamp>,
    /// What stands for the person now, one entry a scope.
    pub standing: Vec<Stood>,
    /// What is still under way.
    pub rest: Rest,
}

/// What a refusal left under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// Still with a worker when the bound was over.
    pub open: Vec<InFlight>,
    /// Its outcome is unknown; it may still reach the relay.
    pub in_doubt: Vec<InFlight>,
}

impl Rest {
    /// Whether nothing within the scope reaches the relay after this answer.
    pub fn settled(&self) -> bool {
        self.open.is_empty() && self.in_doubt.is_empty()
    }

    /// The deliveries still open or in doubt, each once.
    pub fn deliveries(&self) -> Vec<(DeliveryId, crate::id::TopicId, &'static str)> {
        let open = self.open.iter().map(|one| (one.delivery, one.topic, "sending"));
        let doubt = self
            .in_doubt
            .iter()
            .filter(|one| !self.open.iter().any(|open| open.delivery == one.delivery))
            .map(|one| (one.delivery, one.topic, "in_doubt"));
        open.chain(doubt).collect()
    }
}

/// Records an opt-out and waits for what it found under way, until `arrived` plus the bound.
///
/// # Errors
/// The database's own. The caller must be told to try again: it may have been recorded, but nothing was confirmed.
pub async fn opt_out(app: &App, asked: &OptOut, arrived: Instant) -> Result<Answer, DbErr> {
    let answer = answer(app, asked, arrived).await;
    let channel = asked.channel.as_str();
    match &answer {
        Ok(answer) => {
            metrics::counter!("tidings_opt_outs_total", "channel" => channel).increment(1);
            let waited = arrived.elapsed().as_secs_f64();
            metrics::histogram!("tidings_opt_out_wait_seconds", "channel" => channel).record(waited);
            if !answer.rest.open.is_empty() {
                metrics::counter!("tidings_opt_out_waits_cut_off_total").increment(1);
            }
        }
        Err(_) => {
            metrics::counter!("tidings_opt_outs_unconfirmed_total", "channel" => channel).increment(1);
        }
    }
    answer
}

async fn answer(app: &App, asked: &OptOut, arrived: Instant) -> Result<Answer, DbErr> {
    let most = app.settings.opt_out_wait;
    let late = || DbErr::Custom("an opt-out was not confirmed in time".into());
    let recorded = tokio::time::timeout(arrived.plus(most).remaining() + PATIENCE, record(app, asked)).await;
    let (Refused { recorded, standing, .. }, mut wait) = recorded.unwrap_or_else(|_| Err(late()))?;
    wait.run(&app.db, arrived, most).await?;
    let rest = wait.into_rest();
    let Recorded { id, recorded_at, new, overruled } = recorded;
    Ok(Answer { id, recorded_at, new, overruled, standing, rest })
}

/// The first step of [`opt_out`]: records it. Nothing is confirmed before the wait is over, which it is at once for whoever
/// was seen to have nothing under way.
///
/// # Errors
/// As [`opt_out`].
pub async fn record(app: &App, asked: &OptOut) -> Result<(Refused, Wait), DbErr> {
    let refused = record_with_others(app, asked).await?;
    let covered = if refused.quiet { Vec::new() } else { widest(asked) };
    Ok((refused, Wait::of(covered)))
}

/// Records an opt-out together with those that come at the same time, or by itself where that is refused. It goes on when
/// nobody waits for it any more.
async fn record_with_others(app: &App, asked: &OptOut) -> Result<Refused, DbErr> {
    let db = app.db.clone();
    let together = move |many| record_together(db.clone(), many);
    let unconfirmed = || DbErr::Custom("an opt-out was not confirmed".into());
    match app.opt_outs.ask(asked.clone(), together).await {
        Some(Some(answer)) => answer,
        Some(None) => {
            let (db, asked) = (app.db.clone(), asked.clone());
            let alone = tokio::spawn(async move {
                let txn = db.begin_opt_out().await?;
                let refused = record_opt_outs(&txn, &db, std::slice::from_ref(&asked)).await?;
                txn.commit().await?;
                refused.into_iter().next().ok_or_else(unconfirmed)
            });
            alone.await.unwrap_or_else(|_| Err(unconfirmed()))
        }
        None => Err(unconfirmed()),
    }
}

/// Records all of these, of each person one after the other. None for what has to be recorded by itself.
async fn record_together(db: Db, asked: Vec<OptOut>) -> Vec<Option<Result<Refused, DbErr>>> {
    let mut answers: Vec<Option<Result<Refused, DbErr>>> = asked.iter().map(|_| None).collect();
    let mut left: Vec<(usize, OptOut)> = asked.into_iter().enumerate().collect();
    while !left.is_empty() {
        let mut people = HashSet::new();
        let different = |(_, one): &(usize, OptOut)| people.insert(one.address_hash.clone());
        let (round, later): (Vec<_>, Vec<_>) = left.into_iter().partition(different);
        left = later;
        let (places, round): (Vec<usize>, Vec<OptOut>) = round.into_iter().unzip();
        match record_round(&db, &round).await {
            Ok(refused) => {
                for (place, one) in places.into_iter().zip(refused) {
                    answers[place] = Some(Ok(one));
                }
            }
            // Nothing of it happened, and something about one of them is the cause.
            Err(error) if is_refusal(&error) => {
                tracing::debug!(%error, count = round.len(), "opt-outs are recorded one by one");
            }
            Err(error) => {
                for place in places {
                    answers[place] = Some(Err(DbErr::Custom(error.to_string())));
                }
            }
        }
    }
    answers
}

/// Records opt-outs of different people in one transaction.
async fn record_round(db: &Db, round: &[OptOut]) -> Result<Vec<Refused>, DbErr> {
    let txn = db.begin_opt_outs().await?;
    let mut refused = record_opt_outs(&txn, db, round).await?;
    // What fails from here on may have happened.
    txn.commit().await.map_err(|error| DbErr::Custom(format!("a COMMIT was not answered: {error}")))?;
    // One look for all of them. Whoever has nothing under way, as most people, is answered by it; each of the others takes
    // back and looks for itself.
    let people: Vec<AddressHash> = round.iter().map(|one| one.address_hash.clone()).collect();
    match unfinished_among(db, &people).await {
        Ok(busy) => {
            for (one, person) in refused.iter_mut().zip(&people) {
                one.quiet = !busy.contains(person);
            }
        }
        Err(error) => tracing::debug!(%error, "those who opted out together are looked for one by one"),
    }
    Ok(refused)
}

/// Whether the database itself said no to a statement.
fn is_refusal(error: &DbErr) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(inner)) | DbErr::Query(RuntimeErr::SqlxError(inner))) = error
    else {
        return false;
    };
    inner.as_database_error().is_some()
}

/// Records an opt-in. It takes effect in the order of commits; nothing has to be waited for.
///
/// # Errors
/// The database's own; nothing was recorded then, or nothing was confirmed.
pub async fn opt_in(app: &App, asked: &OptIn) -> Result<Recorded, DbErr> {
    let txn = app.db.begin_opt_out().await?;
    let recorded = record_opt_in(&txn, &app.db, asked).await?;
    txn.commit().await?;
    metrics::counter!("tidings_opt_ins_total", "channel" => asked.channel.as_str()).increment(1);
    Ok(recorded)
}

/// Takes back the opt-outs made through this message, but for those of the scopes to `keep`. What was said before or by
/// another way stands again. To narrow an opt-out, record the narrower one first and keep it: then nothing begins in
/// between that both refuse.
///
/// # Errors
/// As [`opt_in`].
pub async fn undo(
    app: &App,
    hash: &AddressHash,
    delivery: DeliveryId,
    keep: &[Scope],
    channel: Channel,
    actor: &str,
) -> Result<Undone, DbErr> {
    let txn = app.db.begin_opt_out().await?;
    let undone = crate::opt_out::rows::undo(&txn, &app.db, hash, delivery, keep, channel, actor).await?;
    txn.commit().await?;
    Ok(undone)
}

/// Takes back the opt-out of exactly this scope that was said through no message, for somebody who says so. Wider ones stay.
///
/// # Errors
/// As [`opt_in`].
pub async fn undo_said(
    app: &App,
    hash: &AddressHash,
    scope: Scope,
    channel: Channel,
    actor: &str,
) -> Result<Undone, DbErr> {
    let txn = app.db.begin_opt_out().await?;
    let undone = crate::opt_out::rows::undo_said(&txn, &app.db, hash, scope, channel, actor).await?;
    txn.commit().await?;
    Ok(undone)
}

/// Changes a person's standing and waits for what it stops, as an opt-out does. Returns none for an unknown recipient.
///
/// # Errors
/// As [`opt_out`].
pub async fn change_standing(
    app: &App,
    recipient: RecipientId,
    standing: Standing,
    arrived: Instant,
) -> Result<Option<Rest>, DbErr> {
    let Some(mut wait) = record_standing(app, recipient, standing).await? else { return Ok(None) };
    wait.run(&app.db, arrived, app.settings.opt_out_wait).await?;
    Ok(Some(wait.into_rest()))
}

/// The first step of [`change_standing`]: records it.
///
/// # Errors
/// As [`opt_out`].
pub async fn record_standing(
    app: &App,
    recipient: RecipientId,
    standing: Standing,
) -> Result<Option<Wait>, DbErr> {
    let txn = app.db.begin_opt_out().await?;
    let Some(address_hash) = crate::opt_out::rows::set_standing(&txn, &app.db, recipient, standing).await?
    else {
        return Ok(None);
    };
    txn.commit().await?;
    let classes = stopped_by(standing);
    let covered = Covered { address_hash, classes, brand: None, topic: None };
    Ok(Some(Wait::of(if covered.classes.is_empty() { Vec::new() } else { vec![covered] })))
}

/// The classes that a standing stops: asked of the decision itself.
fn stopped_by(standing: Standing) -> Vec<Class> {
    let facts = crate::decision::Facts { standing, ..Default::default() };
    Class::ALL.into_iter().filter(|class| !crate::decision::objections(*class, &facts).is_empty()).collect()
}

/// What an opt-out covers; a scope inside another one of the same opt-out is not looked for twice.
fn widest(asked: &OptOut) -> Vec<Covered> {
    let classes: Vec<Class> = Class::ALL.into_iter().filter(|class| class.can_be_refused()).collect();
    let inside = |scope: Scope, n: usize| {
        asked
            .scopes
            .iter()
            .enumerate()
            .any(|(m, other)| m != n && other.covers(scope) && (!scope.covers(*other) || m < n))
    };
    asked
        .scopes
        .iter()
        .enumerate()
        .filter(|(n, scope)| !inside(**scope, *n))
        .map(|(_, scope)| Covered {
            address_hash: asked.address_hash.clone(),
            classes: classes.clone(),
            brand: scope.brand(),
            topic: scope.topic(),
        })
        .collect()
}

/// A refusal that is committed, and what is seen to before it is answered. It holds no connection between its steps.
#[derive(Debug)]
pub struct Wait {
    /// When it was known to be committed.
    recorded: Instant,
    /// What it covers and was not seen to yet; the first is at hand.
    covered: VecDeque<Covered>,
    taken_back: bool,
    /// What the first look found sending: only this is waited for.
    awaited: Option<Vec<InFlight>>,
    /// What the last look found.
    found: Look,
    rest: Rest,
}

/// What a [`Wait`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next step.
    Step,
    /// A pause before the next step, or [`Wait::cut_off`] when the bound is over.
    Pause,
    /// The answer: [`Wait::into_rest`].
    Over,
}

impl Wait {
    fn of(covered: Vec<Covered>) -> Self {
        Self {
            recorded: Instant::now(),
            covered: covered.into(),
            taken_back: false,
            awaited: None,
            found: Look::default(),
            rest: Rest::default(),
        }
    }

    /// One step, a transaction or a statement of its own: takes back what has not begun, or looks whether something is
    /// still sending.
    ///
    /// # Errors
    /// As [`opt_out`].
    pub async fn step(&mut self, db: &Db) -> Result<Next, DbErr> {
        let Some(covered) = self.covered.front() else { return Ok(Next::Over) };
        if !self.taken_back {
            self.taken_back = true;
            if let Err(error) = take_back(db, covered).await {
                // Taking back is for speed only; the decision stops what it left.
                tracing::warn!(%error, "could not take back what was queued");
            }
            return Ok(Next::Step);
        }
        self.found = look(db, covered).await?;
        self.awaited.get_or_insert_with(|| self.found.sending.clone());
        if self.open().is_empty() { Ok(self.go_on()) } else { Ok(Next::Pause) }
    }

    /// Waits no longer for what is at hand, and names it.
    pub fn cut_off(&mut self) -> Next {
        self.go_on()
    }

    /// What is left under way.
    pub fn into_rest(self) -> Rest {
        self.rest
    }

    /// Which of the awaited claims are still sending. A later claim of the same row read the facts after the refusal.
    fn open(&self) -> Vec<InFlight> {
        let awaited = self.awaited.iter().flatten();
        awaited.filter(|one| self.found.sending.contains(one)).cloned().collect()
    }

    /// Names what the last look found, and turns to what is covered besides.
    fn go_on(&mut self) -> Next {
        self.rest.open.extend(self.open());
        self.rest.in_doubt.append(&mut self.found.in_doubt);
        self.covered.pop_front();
        self.taken_back = false;
        self.awaited = None;
        if self.covered.is_empty() { Next::Over } else { Next::Step }
    }

    /// Waits for `most` since the request arrived, and after a slow COMMIT for long enough that no envelope begins any more
    /// by facts from before it.
    async fn run(&mut self, db: &Db, arrived: Instant, most: Duration) -> Result<(), DbErr> {
        let bound = arrived.plus(most).max(self.recorded.plus(most.min(ENVELOPE_WITHIN)));
        let mut pause = FIRST_PAUSE;
        loop {
            let mut next = self.step(db).await?;
            if next == Next::Pause && bound.has_passed() {
                next = self.cut_off();
            }
            match next {
                Next::Over => return Ok(()),
                Next::Step => pause = FIRST_PAUSE,
                Next::Pause => {
                    tokio::time::sleep(pause.min(bound.remaining())).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{BrandId, TopicId};

    #[test]
    fn a_scope_inside_another_is_looked_for_once() {
        let (brand, topic) = (BrandId::new(), TopicId::new());
        let asked = |scopes: Vec<Scope>| OptOut {
            address_hash: AddressHash(vec![0; 32]),
            scopes,
            channel: Channel::Page,
            complaint: false,
            note: None,
            requested_at: None,
            delivery: None,
            actor: "test".into(),
        };
        let all = widest(&asked(vec![Scope::All, Scope::Topic(brand, topic)]));
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].brand, all[0].topic), (None, None));
        assert_eq!(widest(&asked(vec![Scope::Topic(brand, topic), Scope::Topic(brand, topic)])).len(), 1);
        assert_eq!(widest(&asked(vec![Scope::Brand(brand), Scope::Topic(BrandId::new(), topic)])).len(), 2);
    }

    #[test]
    fn a_standing_stops_what_the_decision_says() {
        assert!(stopped_by(Standing::Active).is_empty());
        assert_eq!(
            stopped_by(Standing::Restricted),
            [Class::Relationship, Class::Reminder, Class::Marketing]
        );
        assert_eq!(stopped_by(Standing::Erased).len(), Class::ALL.len());
    }
}
