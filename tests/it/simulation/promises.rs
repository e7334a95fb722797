//! What is promised, asserted: a ledger of what was begun, written and accepted, and of what was answered.

use std::collections::{HashMap, HashSet};

use tidings::clock::Timestamp;
use tidings::decision::Class;
use tidings::id::DeliveryId;

use super::relay::Piece;
use super::world::Standing;

/// By what something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An opt-out that came by a link, or by another way.
    OptOut { by_link: bool },
    /// A standing.
    Standing,
}

/// What an answer forbids from then on.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) person: usize,
    pub(super) class: Class,
    pub(super) kind: Kind,
    /// What the answer named.
    pub(super) named: HashSet<DeliveryId>,
    /// The step that recorded it: no claim made after it is excused by having been named.
    pub(super) recorded: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Written and not read.
    Open,
    Accepted,
    Refused,
    /// It never was read.
    Lost,
}

#[derive(Debug)]
struct Body {
    fate: Fate,
    date: Timestamp,
    claimed: u32,
}

/// A delivery as the world outside the database saw it.
#[derive(Debug)]
struct Seen {
    class: Class,
    person: usize,
    begun: bool,
    /// Whether the database holds that some outcome is unknown.
    doubted: bool,
    bodies: Vec<Body>,
    state: String,
}

#[derive(Default)]
pub(super) struct Ledger {
    seen: HashMap<DeliveryId, Seen>,
    guards: Vec<Guard>,
}

impl Ledger {
    pub(super) fn made(&mut self, id: DeliveryId, class: Class, person: usize) {
        let state = "open".to_owned();
        self.seen.insert(id, Seen { class, person, begun: false, doubted: false, bodies: Vec::new(), state });
    }

    pub(super) fn class(&self, id: DeliveryId) -> Class {
        self.seen[&id].class
    }

    /// What failed, in the order of ids.
    pub(super) fn failed(&self) -> Vec<DeliveryId> {
        let mut ids: Vec<_> =
            self.seen.iter().filter(|(_, one)| one.state == "failed").map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn taken_up_again(&mut self, id: DeliveryId) {
        self.seen.get_mut(&id).unwrap().state = "open".to_owned();
    }

    /// An answer was given.
    pub(super) fn answered(&mut self, guard: Guard) {
        self.guards.push(guard);
    }

    /// What these classes' guards of a person said stands no more.
    pub(super) fn lift(&mut self, person: usize, classes: &[Class], lifts: impl Fn(Kind) -> bool) {
        self.guards.retain(|one| one.person != person || !classes.contains(&one.class) || !lifts(one.kind));
    }

    fn hold(&self, what: &str, id: DeliveryId, claimed: u32) {
        let seen = &self.seen[&id];
        for guard in self.guards.iter().filter(|one| one.person == seen.person && one.class == seen.class) {
            let named = guard.named.contains(&id);
            assert!(
                named && claimed < guard.recorded,
                "{what} after an answer that covers it: {id}, claimed in step {claimed}, {}; {guard:?}",
                if named { "named" } else { "not named" },
            );
        }
    }

    /// `begin` was committed.
    pub(super) fn begun(&mut self, id: DeliveryId) {
        self.seen.get_mut(&id).unwrap().begun = true;
    }

    /// An envelope goes out.
    pub(super) fn envelope(&mut self, id: DeliveryId, claimed: u32) {
        assert!(self.seen[&id].begun, "an envelope of {id}, which was never begun");
        self.hold("an envelope goes out", id, claimed);
    }

    /// A body goes out. Returns its number.
    pub(super) fn body(&mut self, id: DeliveryId, claimed: u32, date: Timestamp) -> usize {
        let seen = self.seen.get_mut(&id).unwrap();
        for before in seen.bodies.iter().filter(|body| body.fate != Fate::Refused) {
            assert!(
                !seen.class.can_be_refused(),
                "a second body of {id}, which can be refused, after one that is {:?}",
                before.fate
            );
            assert!(seen.doubted, "a second body of {id} and no outcome was unknown");
            assert_eq!(before.date, date, "another body of {id} has another date");
        }
        seen.bodies.push(Body { fate: Fate::Open, date, claimed });
        seen.bodies.len() - 1
    }

    pub(super) fn accepted(&mut self, id: DeliveryId, n: usize) {
        self.hold("a body is accepted", id, self.seen[&id].bodies[n].claimed);
        self.end(id, n, Fate::Accepted);
        let state = &self.seen[&id].state;
        assert!(
            !["suppressed", "failed", "cancelled", "expired"].contains(&state.as_str()),
            "a body of {id} is accepted, and it stands as {state}"
        );
    }

    pub(super) fn refused(&mut self, id: DeliveryId, n: usize) {
        self.end(id, n, Fate::Refused);
    }

    pub(super) fn lost(&mut self, pieces: &[Piece]) {
        for piece in pieces {
            if let Piece::Body(id, n) = piece {
                self.end(*id, *n, Fate::Lost);
            }
        }
    }

    fn end(&mut self, id: DeliveryId, n: usize, fate: Fate) {
        let body = &mut self.seen.get_mut(&id).unwrap().bodies[n];
        assert_eq!(body.fate, Fate::Open);
        body.fate = fate;
    }

    /// Compares with what the database says.
    pub(super) fn compare(&mut self, rows: &[Standing]) {
        assert_eq!(rows.len(), self.seen.len(), "a delivery is gone");
        for row in rows {
            let seen = self.seen.get_mut(&row.id).unwrap();
            let any = |fate: Fate| seen.bodies.iter().any(|body| body.fate == fate);
            assert!(!row.doubted || seen.begun, "{} is in doubt and was never begun", row.id);
            seen.doubted = row.doubted;
            match row.state.as_str() {
                "sent" => assert!(any(Fate::Accepted), "{} stands as sent and was not accepted", row.id),
                "unknown" => assert!(row.doubted, "{} stands as unknown without a doubt", row.id),
                "open" => {}
                state => assert!(
                    !any(Fate::Accepted) && !any(Fate::Open),
                    "{} stands as {state}, and: {:?}",
                    row.id,
                    seen.bodies
                ),
            }
            assert!(
                seen.state == "open" || seen.state == row.state,
                "{} was {} and is {}",
                row.id,
                seen.state,
                row.state
            );
            seen.state.clone_from(&row.state);
        }
    }

    /// Whether every delivery came to its end.
    pub(super) fn all_final(&self) -> bool {
        self.seen.values().all(|one| one.state != "open")
    }
}
