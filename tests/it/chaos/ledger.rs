//! The count: what the relay saw, what Tidings says, and what was promised to whom.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use serde_json::Value;
use uuid::Uuid;

use super::crowd::{Crowd, Refusal, person_of};
use super::fleet::{Fleet, Toll};
use super::load::{Load, number};
use super::{AT_LEAST, CONNECTIONS, OPT_OUT_WAIT, PEOPLE, REFUSABLE};
use crate::harness::Transaction;

const STATES: [&str; 8] =
    ["queued", "sending", "sent", "suppressed", "failed", "unknown", "expired", "cancelled"];

/// A delivery as Tidings tells of it.
struct Kept {
    person: usize,
    topic: String,
    mailing: Option<String>,
    state: String,
    /// Attempts of which nobody knows what became, and how many of them a lost worker left.
    unknown: usize,
    lost: usize,
    /// Attempts that the relay refused for good.
    refused: usize,
}

impl Kept {
    fn of(person: usize, shown: &Value) -> (Uuid, Self) {
        let text = |name: &str| shown[name].as_str().map(str::to_owned);
        let attempts = shown["attempts"].as_array().unwrap();
        let unknown = attempts.iter().filter(|attempt| attempt["outcome"] == "unknown");
        let kept = Self {
            person,
            topic: text("topic").unwrap(),
            mailing: text("mailing"),
            state: text("state").unwrap(),
            unknown: unknown.clone().count(),
            refused: attempts.iter().filter(|attempt| attempt["outcome"] == "refused").count(),
            lost: unknown.filter(|attempt| attempt["reply"] == "the worker was lost").count(),
        };
        (text("id").unwrap().parse().unwrap(), kept)
    }
}

/// A transaction at the relay.
struct Seen {
    delivery: Option<Uuid>,
    person: Option<usize>,
    mail_at: Instant,
    /// When it was accepted.
    accepted_at: Option<Instant>,
    ended_at: Option<Instant>,
    /// Its message went in whole and was not answered.
    unanswered: bool,
    message_id: Option<String>,
}

pub(super) struct Ledger {
    kept: HashMap<Uuid, Kept>,
    seen: Vec<Seen>,
    campaigns: Vec<Value>,
    taken_on: Vec<Uuid>,
    refusals: Vec<Refusal>,
    unavailable: usize,
}

/// The delivery that a transaction's envelope sender names.
pub(super) fn delivery_of(transaction: &Transaction) -> Option<Uuid> {
    let id = transaction.from.strip_prefix("b+")?.split('.').next()?;
    Uuid::try_parse(id).ok()
}

impl Ledger {
    pub(super) async fn read(fleet: &Fleet, load: &Load, crowd: &Crowd) -> Self {
        let mut kept = HashMap::new();
        for person in 0..PEOPLE {
            kept.extend(load.deliveries(person).await.iter().map(|shown| Kept::of(person, shown)));
        }
        let ids = load.started.lock().unwrap().clone();
        let mut campaigns = Vec::new();
        for id in ids {
            campaigns.push(load.campaign(&id).await);
        }
        let transactions = fleet.relay.transactions();
        let seen = transactions.iter().map(|t| Seen {
            delivery: delivery_of(t),
            person: t.to.first().and_then(|to| person_of(to)),
            mail_at: t.mail_at,
            accepted_at: t.ended_at.filter(|_| t.answer == Some(250)),
            ended_at: t.ended_at,
            unanswered: t.dot_at.is_some() && t.answer.is_none(),
            message_id: t.header("Message-ID"),
        });
        Self {
            kept,
            seen: seen.collect(),
            campaigns,
            taken_on: load.taken_on.lock().unwrap().iter().copied().collect(),
            refusals: crowd.refusals.lock().unwrap().clone(),
            unavailable: load.door.unavailable.load(std::sync::atomic::Ordering::Relaxed),
        }
    }

    /// What happened, in a line, and everything that must not have.
    pub(super) fn check(&self, toll: &Toll) -> (String, Vec<String>) {
        let mut faults = Vec::new();
        self.check_refusals(&mut faults);
        self.check_deliveries(&mut faults);
        self.check_counts(&mut faults);
        let told = self.check_enough(toll, &mut faults);
        (told, faults)
    }

    fn of_delivery(&self) -> HashMap<Uuid, Vec<&Seen>> {
        let mut seen: HashMap<Uuid, Vec<&Seen>> = HashMap::new();
        for one in &self.seen {
            if let Some(delivery) = one.delivery {
                seen.entry(delivery).or_default().push(one);
            }
        }
        seen
    }

    /// Whether a transaction falls under a refusal.
    fn covered(&self, seen: &Seen, refusal: &Refusal) -> bool {
        let kept = seen.delivery.and_then(|id| self.kept.get(&id));
        kept.is_some_and(|kept| {
            kept.person == refusal.person && refusal.topics.contains(&kept.topic.as_str())
        })
    }

    fn check_refusals(&self, faults: &mut Vec<String>) {
        for refusal in &self.refusals {
            let in_force =
                |at: Instant| at > refusal.answered && refusal.lifted.is_none_or(|lifted| at < lifted);
            // What a mail's answer left open cannot be told in it.
            let told = refusal.settled.is_some() || refusal.answered - refusal.asked < OPT_OUT_WAIT;
            for seen in self.seen.iter().filter(|seen| self.covered(seen, refusal)) {
                let after = |at: Instant| (at - refusal.answered).as_millis();
                if in_force(seen.mail_at) && told {
                    faults.push(format!(
                        "{:?}: begun {} ms after the answer: {refusal:?}",
                        seen.delivery,
                        after(seen.mail_at)
                    ));
                }
                if let Some(at) = seen.accepted_at
                    && in_force(at)
                    && refusal.settled == Some(true)
                {
                    faults.push(format!(
                        "{:?}: accepted {} ms after a settled answer: {refusal:?}",
                        seen.delivery,
                        after(at)
                    ));
                }
            }
        }
    }

    fn check_deliveries(&self, faults: &mut Vec<String>) {
        let seen = self.of_delivery();
        for one in &self.seen {
            match one.delivery {
                Some(id) if !self.kept.contains_key(&id) => faults.push(format!("{id}: nobody knows of it")),
                None => faults.push("an envelope sender that names no delivery".to_owned()),
                Some(_) => {}
            }
        }
        for id in self.taken_on.iter().filter(|id| !self.kept.contains_key(id)) {
            faults.push(format!("{id}: taken on and gone"));
        }
        for (id, kept) in &self.kept {
            let seen = seen.get(id).map(Vec::as_slice).unwrap_or_default();
            let taken: Vec<&&Seen> = seen.iter().filter(|one| one.accepted_at.is_some()).collect();
            let can_be_refused = REFUSABLE.contains(&kept.topic.as_str());
            let mut fault = |what: String| {
                faults.push(format!("{id} on {} is {}: {what}", kept.topic, kept.state));
            };
            let (least, most) = match kept.state.as_str() {
                "sent" => (1, if can_be_refused { 1 } else { 1 + kept.unknown }),
                "unknown" => (0, if can_be_refused { 1 } else { kept.unknown }),
                "suppressed" | "failed" | "expired" | "cancelled" => (0, 0),
                _ => {
                    fault("not final".to_owned());
                    (0, usize::MAX)
                }
            };
            if taken.len() < least || taken.len() > most {
                fault(format!("accepted {} times instead of {least} to {most}", taken.len()));
            }
            if kept.state == "unknown" && kept.unknown == 0 {
                fault("no attempt left it so".to_owned());
            }
            if kept.state == "failed" && kept.refused == 0 {
                fault("the relay never refused it".to_owned());
            }
            if can_be_refused && kept.unknown > 1 {
                fault("tried again after it was unknown".to_owned());
            }
            if kept.state == "suppressed"
                && !self.refusals.iter().any(|refusal| {
                    refusal.person == kept.person && refusal.topics.contains(&kept.topic.as_str())
                })
            {
                fault("nobody refused it".to_owned());
            }
            if taken.windows(2).any(|two| two[0].message_id != two[1].message_id) {
                fault("accepted under several Message-IDs".to_owned());
            }
            if seen.iter().any(|one| one.person.is_some_and(|person| person != kept.person)) {
                fault("went to somebody else".to_owned());
            }
        }
    }

    /// The counts of campaigns, and the deliveries that they count.
    fn check_counts(&self, faults: &mut Vec<String>) {
        for campaign in &self.campaigns {
            let counts = &campaign["counts"];
            let sum: u64 = STATES.iter().map(|state| number(&counts[*state])).sum();
            if sum != number(&counts["total"]) || sum != PEOPLE as u64 || campaign["state"] != "finished" {
                faults.push(format!("a campaign to {PEOPLE} people counts {campaign}"));
            }
            let mut listed: BTreeMap<&str, u64> = BTreeMap::new();
            let own = |kept: &&Kept| kept.mailing.as_deref() == campaign["id"].as_str();
            for kept in self.kept.values().filter(own) {
                *listed.entry(&kept.state).or_default() += 1;
            }
            for state in STATES {
                let there = listed.get(state).copied().unwrap_or_default();
                if number(&counts[state]) != there {
                    faults.push(format!("a campaign counts {} {state} of {there}", counts[state]));
                }
            }
        }
    }

    /// Whether the run shows anything; gives what happened in a line.
    fn check_enough(&self, toll: &Toll, faults: &mut Vec<String>) -> String {
        let accepted = self.seen.iter().filter(|one| one.accepted_at.is_some()).count();
        let unanswered = self.seen.iter().filter(|one| one.unanswered).count();
        let lost: usize = self.kept.values().map(|kept| kept.lost).sum();
        let unknown: usize = self.kept.values().map(|kept| kept.unknown).sum();
        let waited = self.refusals.iter().filter(|refusal| self.waited(refusal)).count();
        let cut_off = self.refusals.iter().filter(|refusal| !refusal.named.is_empty()).count();
        let mut ways: BTreeMap<&str, usize> = BTreeMap::new();
        for refusal in &self.refusals {
            *ways.entry(refusal.way).or_default() += 1;
        }
        // A worker that is killed, sleeps too long or cannot reach its database in time leaves at most five messages of
        // each connection unknown; for the others the relay gave no answer.
        let workers_lost = toll.kills + toll.sleeps + 3 * toll.restarts;
        let explained = 5 * CONNECTIONS * workers_lost + unanswered;
        if unknown > explained {
            faults.push(format!("{unknown} unknown, of which {explained} are explained"));
        }
        for (what, count) in [
            ("kills that hit an open message", toll.kills_hit),
            ("sleeps that hit an open message", toll.sleeps_hit),
            ("opt-outs that waited", waited),
            ("leases lost", lost),
            ("restarts of the database", toll.restarts),
        ] {
            if count < AT_LEAST {
                faults.push(format!("only {count} {what}: this run shows too little"));
            }
        }
        format!(
            "{} deliveries of {} campaigns, {accepted} accepted; {} kills, {} of them on {} open messages; {} sleeps, {} on \
             open messages; {lost} leases lost; {} database restarts, {} stops, {} web processes killed; {} refusals {ways:?}, \
             {waited} waited, {cut_off} named what was left, {} answers of 503; {unknown} attempts unknown of {explained} that \
             may be, {unanswered} of them without the relay's answer",
            self.kept.len(),
            self.campaigns.len(),
            toll.kills,
            toll.kills_hit,
            toll.open_at_kills,
            toll.sleeps,
            toll.sleeps_hit,
            toll.restarts,
            toll.stops,
            toll.webs_killed,
            self.refusals.len(),
            self.unavailable,
        )
    }

    /// Whether something covered was open when it was asked, and over or named when it was answered.
    fn waited(&self, refusal: &Refusal) -> bool {
        let open = self.seen.iter().filter(|seen| {
            seen.delivery.is_some_and(|id| refusal.open.contains(&id)) && self.covered(seen, refusal)
        });
        open.into_iter().any(|seen| {
            let over = |at: Instant| refusal.asked < at && at <= refusal.answered;
            seen.ended_at.is_some_and(over) || seen.delivery.is_some_and(|id| refusal.named.contains(&id))
        })
    }
}
