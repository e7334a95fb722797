//! The decision: may this message go to this person now?
//!
//! Pure. One table, [`objections`], answers for the worker, right before hand-over and with fresh facts, and for
//! `explain`. Only [`decide`] makes a [`Clearance`], and nothing is handed over without one.
//!
//! | class | not sent when |
//! |---|---|
//! | requested | erased, address dead |
//! | service | deactivated, erased, contact ban, address dead |
//! | notice | deactivated, erased, address dead |
//! | relationship | as service; restricted; complaint; an opt-out of this very topic; a wider opt-out that covers it, unless the topic has `customers_keep` and the person is the brand's customer |
//! | reminder | as service; restricted; complaint; any opt-out that covers it |
//! | marketing | as reminder; no confirmed consent where the topic asks for it |
//!
//! The newest of the events whose scope covers the message decides between opt-out and opt-in.

mod class;
mod facts;
#[cfg(test)]
mod tests;

pub use class::Class;
pub use facts::{Facts, Health, Said, Stand, Standing};

use std::time::Duration;

use serde::Serialize;

use crate::clock::{Deadline, Instant};
use crate::id::{DeliveryId, LeaseToken};

/// Why a message is not sent. The words are part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The person was erased.
    Erased,
    /// The person's account is deactivated.
    Deactivated,
    /// The person must not be contacted.
    ContactBan,
    /// Processing of the person's data is restricted.
    Restricted,
    /// The mailbox does not exist any more.
    AddressDead,
    /// The person complained to their mailbox provider about this brand.
    Complaint,
    /// Opted out of this topic.
    OptedOutOfTopic,
    /// Opted out of this brand.
    OptedOutOfBrand,
    /// Opted out of everything that can be refused.
    OptedOutOfAll,
    /// The topic asks for confirmed consent and there is none.
    NoConsent,
}

impl Reason {
    /// The word used in the API and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Erased => "erased",
            Self::Deactivated => "deactivated",
            Self::ContactBan => "contact_ban",
            Self::Restricted => "restricted",
            Self::AddressDead => "address_dead",
            Self::Complaint => "complaint",
            Self::OptedOutOfTopic => "opted_out_of_topic",
            Self::OptedOutOfBrand => "opted_out_of_brand",
            Self::OptedOutOfAll => "opted_out_of_all",
            Self::NoConsent => "no_consent",
        }
    }
}

/// Why a message is sent. The words are part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ground {
    /// Messages of this class cannot be refused.
    CannotBeRefused,
    /// Nobody said no.
    NoObjection,
    /// The newest word of the person is an opt-in.
    OptedIn,
    /// A wider opt-out stands, but a customer keeps getting this topic.
    CustomerKeeps,
}

/// How long facts allow an envelope to begin, counted from before they were asked for. Whoever records a refusal and finds
/// something under way answers no sooner than this after its commit: so nothing begins after the answer that was decided
/// before it.
pub const ENVELOPE_WITHIN: Duration = Duration::from_secs(2);

/// The right to hand one delivery over. It names the claim under which it was given and lapses with its lease.
#[derive(Debug)]
pub struct Clearance {
    delivery: DeliveryId,
    token: LeaseToken,
    until: Deadline,
    also_until: Option<Deadline>,
    envelope_by: Instant,
}

impl Clearance {
    /// The delivery that may be handed over.
    pub fn delivery(&self) -> DeliveryId {
        self.delivery
    }

    /// The claim under which it may.
    pub fn token(&self) -> LeaseToken {
        self.token
    }

    /// Whether it still counts. Ask right before each write that cannot be taken back.
    pub fn is_valid(&self) -> bool {
        !self.until.has_passed() && !self.also_until.as_ref().is_some_and(Deadline::has_passed)
    }

    /// Whether the facts are too old to begin by them. What was begun in time may go on.
    pub fn is_outdated(&self) -> bool {
        self.envelope_by.has_passed()
    }

    /// Whether the envelope may begin. Ask right before its write.
    pub fn may_begin(&self) -> bool {
        self.is_valid() && !self.is_outdated()
    }

    /// The same clearance, which lapses by this deadline too: that of the connection over which it is handed over.
    #[must_use]
    pub fn and_until(mut self, deadline: Deadline) -> Self {
        self.also_until = Some(deadline);
        self
    }

    /// When it lapses, for whoever watches over the writes themselves.
    pub fn until(&self) -> Deadline {
        self.until.clone()
    }
}

/// What a worker holds when it asks: a claimed delivery and the end of its lease by the worker's own clock.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The claimed delivery.
    pub delivery: DeliveryId,
    /// The claim.
    pub token: LeaseToken,
    /// The lease's end less a margin, counted from before the claim was asked for; moves when the lease is renewed.
    pub until: Deadline,
    /// A moment before the facts were asked for.
    pub asked: Instant,
}

/// Decides whether the leased delivery may be handed over.
///
/// # Errors
/// The first reason why not.
pub fn decide(class: Class, facts: &Facts, lease: Lease) -> Result<Clearance, Reason> {
    match objections(class, facts).first() {
        Some(&reason) => Err(reason),
        None => Ok(Clearance {
            delivery: lease.delivery,
            token: lease.token,
            until: lease.until,
            also_until: None,
            envelope_by: lease.asked.plus(ENVELOPE_WITHIN),
        }),
    }
}

/// Every reason why a message of this class must not go to this person, the weightiest first; none means send.
pub fn objections(class: Class, facts: &Facts) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut object = |holds: bool, reason: Reason| {
        if holds {
            reasons.push(reason);
        }
    };
    let refusable = class.can_be_refused();
    let standing = facts.standing;
    object(standing == Standing::Erased, Reason::Erased);
    object(standing == Standing::Deactivated && class != Class::Requested, Reason::Deactivated);
    object(
        standing == Standing::ContactBan && !matches!(class, Class::Requested | Class::Notice),
        Reason::ContactBan,
    );
    object(standing == Standing::Restricted && refusable, Reason::Restricted);
    object(
        match facts.health {
            Health::Alive => false,
            Health::DeadForRefusable => refusable,
            Health::Dead => true,
        },
        Reason::AddressDead,
    );
    if refusable {
        object(facts.complained(), Reason::Complaint);
        let kept = class == Class::Relationship && facts.customers_keep && facts.customer;
        object(facts.stands_out(facts.topic), Reason::OptedOutOfTopic);
        object(!kept && facts.stands_out(facts.brand), Reason::OptedOutOfBrand);
        object(!kept && facts.stands_out(facts.all), Reason::OptedOutOfAll);
    }
    object(
        class == Class::Marketing && facts.consent_required && facts.newest() != Some(Said::OptIn),
        Reason::NoConsent,
    );
    reasons
}

/// Why a message against which nothing is said may go.
pub fn ground(class: Class, facts: &Facts) -> Ground {
    if !class.can_be_refused() {
        return Ground::CannotBeRefused;
    }
    match facts.newest() {
        None => Ground::NoObjection,
        Some(Said::OptIn) => Ground::OptedIn,
        Some(Said::OptOut) => Ground::CustomerKeeps,
    }
}
