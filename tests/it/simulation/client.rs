//! Those who refuse: they ask, wait and are answered; when they are not they ask again.

use std::collections::HashSet;

use tidings::decision::{Class, Standing};
use tidings::fence::{self, Next, Wait};
use tidings::id::DeliveryId;
use tidings::opt_out::{Channel, OptIn, OptOut, Scope};

use super::promises::{Guard, Kind};
use super::{REFUSABLE, Sim};

/// What is asked for.
enum Wish {
    OptOut(OptOut),
    Standing(Standing),
}

enum Stage {
    Asks,
    Waits(Wait),
    Answered,
}

/// One client.
pub(super) struct Client {
    person: usize,
    wish: Wish,
    stage: Stage,
    /// What it covers.
    classes: Vec<Class>,
    /// What was taken back since it was recorded.
    lifted: Vec<Class>,
    recorded: u32,
}

impl Client {
    fn kind(&self) -> Kind {
        match &self.wish {
            Wish::OptOut(asked) => Kind::OptOut { by_link: asked.delivery.is_some() },
            Wish::Standing(_) => Kind::Standing,
        }
    }

    pub(super) fn is_answered(&self) -> bool {
        matches!(self.stage, Stage::Answered)
    }

    /// Asks for the same again.
    pub(super) fn repeat(&mut self) {
        self.stage = Stage::Asks;
    }

    /// Whom it is about, what it covers and what it is about to ask for; none when it has asked or is about a standing.
    pub(super) fn asks(&self) -> Option<(usize, &[Class], &OptOut)> {
        match (&self.stage, &self.wish) {
            (Stage::Asks, Wish::OptOut(asked)) => Some((self.person, &self.classes, asked)),
            _ => None,
        }
    }

    /// It was recorded in this step.
    pub(super) fn waits(&mut self, wait: Wait, step: u32) {
        self.recorded = step;
        self.lifted.clear();
        self.stage = Stage::Waits(wait);
    }
}

/// What a standing stops, said once more: the program's own table is what is looked at.
fn stopped_by(standing: Standing) -> &'static [Class] {
    use Class::{Marketing, Notice, Relationship, Reminder, Service};
    match standing {
        Standing::Active => &[],
        Standing::Restricted => &REFUSABLE,
        Standing::ContactBan => &[Marketing, Reminder, Relationship, Service],
        Standing::Deactivated => &[Marketing, Reminder, Relationship, Service, Notice],
        Standing::Erased => &Class::ALL,
    }
}

impl Sim<'_> {
    fn scope(&mut self) -> (Scope, Vec<Class>) {
        let brand = self.world.brand;
        match self.below(4) {
            0 => (Scope::All, REFUSABLE.to_vec()),
            1 => (Scope::Brand(brand), REFUSABLE.to_vec()),
            _ => {
                let n = self.below(REFUSABLE.len() + 2);
                let class = REFUSABLE.get(n).copied().unwrap_or(Class::Marketing);
                (Scope::Topic(brand, self.world.topic(class).0), vec![class])
            }
        }
    }

    /// Somebody refuses.
    pub(super) fn refuses(&mut self) {
        let person = self.below(self.people.len());
        let (wish, classes) = if self.one_in(if self.odds.service_side { 2 } else { 6 }) {
            use Standing::{Active, ContactBan, Deactivated, Restricted};
            let all = [Restricted, ContactBan, Deactivated, Deactivated, Active];
            let standing = all[self.below(all.len())];
            (Wish::Standing(standing), stopped_by(standing).to_vec())
        } else {
            let (scope, mut classes) = self.scope();
            let mut scopes = vec![scope];
            let delivery = self.one_in(2).then(|| self.some_delivery());
            if let Some(id) = delivery
                && self.ledger.class(id).can_be_refused()
            {
                let class = self.ledger.class(id);
                scopes.push(Scope::Topic(self.world.brand, self.world.topic(class).0));
                classes.push(class);
                classes.sort_unstable_by_key(|class| class.as_str());
                classes.dedup();
            }
            let asked = OptOut {
                address_hash: self.people[person].hash.clone(),
                scopes,
                channel: Channel::Page,
                complaint: false,
                note: None,
                requested_at: None,
                delivery,
                actor: "recipient".into(),
            };
            (Wish::OptOut(asked), classes)
        };
        self.tell(format!("client {}: person {person} refuses {classes:?}", self.clients.len()));
        let stage = Stage::Asks;
        self.clients.push(Client { person, wish, stage, classes, lifted: Vec::new(), recorded: 0 });
    }

    /// Says that what stood for a person does so no more, as far as `lifts` says.
    fn lift(&mut self, person: usize, classes: &[Class], lifts: impl Fn(Kind) -> bool) {
        self.ledger.lift(person, classes, &lifts);
        for client in self.clients.iter_mut().filter(|one| one.person == person && lifts(one.kind())) {
            client.lifted.extend(classes);
        }
    }

    /// Somebody wants mail again, or takes back what they said through a link.
    pub(super) async fn opts_in(&mut self) {
        let person = self.below(self.people.len());
        let hash = self.people[person].hash.clone();
        if self.one_in(3) {
            let delivery = self.some_delivery();
            self.tell(format!("person {person} undoes what {delivery} said"));
            self.lift(person, &REFUSABLE, |kind| kind == Kind::OptOut { by_link: true });
            fence::undo(&self.world.app, &hash, delivery, &[], Channel::Page, "recipient").await.unwrap();
            return;
        }
        let (scope, classes) = self.scope();
        self.tell(format!("person {person} opts in to {classes:?}"));
        self.lift(person, &classes, |kind| kind != Kind::Standing);
        let asked = OptIn {
            address_hash: hash,
            scope,
            channel: Channel::Phone,
            evidence: "signed".into(),
            actor: "operator".into(),
        };
        fence::opt_in(&self.world.app, &asked).await.unwrap();
    }

    /// The next step of a client. Says no when it has nothing to do.
    pub(super) async fn ask(&mut self, n: usize) -> bool {
        let app = &self.world.app;
        match std::mem::replace(&mut self.clients[n].stage, Stage::Asks) {
            Stage::Answered => {
                self.clients[n].stage = Stage::Answered;
                return false;
            }
            Stage::Asks => {
                let recorded = match &self.clients[n].wish {
                    Wish::OptOut(asked) => {
                        let asked = asked.clone();
                        self.call(async { fence::record(app, &asked).await.map(|done| done.1) }).await
                    }
                    Wish::Standing(standing) => {
                        let (standing, id) = (*standing, self.people[self.clients[n].person].id);
                        let recorded = fence::record_standing(app, id, standing);
                        self.call(async { recorded.await.map(Option::unwrap) }).await
                    }
                };
                if !matches!(recorded, Err(None))
                    && let Wish::Standing(_) = self.clients[n].wish
                {
                    // The last standing counts, and none before.
                    let (person, stopped) = (self.clients[n].person, self.clients[n].classes.clone());
                    let free: Vec<Class> =
                        Class::ALL.into_iter().filter(|class| !stopped.contains(class)).collect();
                    self.lift(person, &free, |kind| kind == Kind::Standing);
                }
                self.tell(format!("client {n} is recorded: {}", recorded.is_ok()));
                if let Ok(wait) = recorded {
                    self.clients[n].waits(wait, self.step);
                }
            }
            Stage::Waits(mut wait) => {
                if self.odds.web_crash && self.one_in(20) {
                    self.tell(format!("client {n} loses its web process"));
                    return true;
                }
                let mut next = match self.call(wait.step(&app.db)).await {
                    Ok(next) => next,
                    Err(_) => {
                        self.tell(format!("client {n}: 503"));
                        return true;
                    }
                };
                if next == Next::Pause && !self.drains && self.one_in(6) {
                    self.tell(format!("client {n}: the bound is over"));
                    next = wait.cut_off();
                }
                if next == Next::Over {
                    self.answer(n, wait)
                } else {
                    self.clients[n].stage = Stage::Waits(wait)
                }
            }
        }
        true
    }

    fn answer(&mut self, n: usize, wait: Wait) {
        let rest = wait.into_rest();
        let named: HashSet<DeliveryId> = rest.deliveries().into_iter().map(|one| one.0).collect();
        assert_eq!(rest.settled(), named.is_empty());
        self.tell(format!("client {n} is answered; named: {named:?}"));
        let client = &mut self.clients[n];
        client.stage = Stage::Answered;
        let (person, kind, recorded) = (client.person, client.kind(), client.recorded);
        for class in client.classes.iter().filter(|class| !client.lifted.contains(class)) {
            let named = named.clone();
            self.ledger.answered(Guard { person, class: *class, kind, named, recorded });
        }
    }
}
