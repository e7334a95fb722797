//! What an upsert says of a person, and what that changes about what is stored.
//!
//! Pure. What is not said stays as it is. An upsert says nothing of opt-outs and of the standing; those have ways of
//! their own.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::rows::{Recipient, RecipientBrand};
use crate::address::EmailAddress;
use crate::clock::Timestamp;
use crate::id::{BrandId, RecipientId};

/// What is said of a person; whatever is `None`, empty or `Unsaid` leaves what is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Upsert {
    /// The address; an address that is known already keeps its first spelling.
    pub address: EmailAddress,
    /// The name; `Some(None)` takes it away.
    pub name: Option<Option<String>>,
    /// The id in the company's own system; `Some(None)` takes it away.
    pub external_id: Option<Option<String>>,
    /// The language tag; `Some(None)` takes it away.
    pub locale: Option<Option<String>>,
    /// All tags.
    pub tags: Option<Vec<String>>,
    /// Attributes, laid over those stored key by key; null takes a key away.
    pub attributes: Map<String, Value>,
    /// Versions of policies accepted at sign-up, laid over those stored; null takes a key away.
    pub policies: Map<String, Value>,
    /// Which brands the person belongs to.
    pub membership: Membership,
    /// Of which brands the person is a customer.
    pub customer_of: CustomerOf,
}

impl Upsert {
    /// Says nothing but the address.
    pub fn new(address: EmailAddress) -> Self {
        Self {
            address,
            name: None,
            external_id: None,
            locale: None,
            tags: None,
            attributes: Map::new(),
            policies: Map::new(),
            membership: Membership::Unsaid,
            customer_of: CustomerOf::Unsaid,
        }
    }
}

/// Which brands a person belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Membership {
    /// As stored; somebody new belongs to every brand.
    #[default]
    Unsaid,
    /// Every brand, those to come included.
    Every,
    /// These and no others.
    Only(Vec<BrandId>),
    /// This one and those stored; somebody new belongs to it alone. What a key bound to one brand says.
    Join(BrandId),
}

/// Of which brands a person is a customer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CustomerOf {
    /// As stored; somebody new is nobody's customer.
    #[default]
    Unsaid,
    /// Of these and no others.
    Only(Vec<BrandId>),
    /// Of this one or not; the others as stored. What a key bound to one brand says.
    One(BrandId, bool),
}

/// What an upsert did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The person is new.
    Created,
    /// Something about the person changed.
    Updated,
    /// All of it was stored already.
    Unchanged,
    /// The person was erased: nothing was stored, so that an import does not bring back what erasure took away.
    Erased,
}

/// The answer to an upsert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upserted {
    /// The person.
    pub id: RecipientId,
    /// What was done.
    pub outcome: Outcome,
}

/// Why nothing is stored of what is said of a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// They cannot have accepted a version that nobody can read, or that was called off.
    #[error(
        "names version {number} of {policy:?}, which is not published; name one that people could accept"
    )]
    NotPublished {
        /// The slug of the policy.
        policy: String,
        /// The number.
        number: i64,
    },
    /// What they accepted is not for this key to change.
    #[error(
        "says that somebody who is stored accepted another version of {0:?}; only keys of role admin or accounts say that"
    )]
    NotTheirs(String),
}

/// The versions that are published and not withdrawn: the slug of the policy and the number.
pub(super) type Published = BTreeSet<(String, i64)>;

/// The first version said to be accepted that is not published, of those that are not stored already.
pub(super) fn not_published(said: &Upsert, stored: &Value, published: &Published) -> Option<Refused> {
    let mut accepted = said.policies.iter().filter(|(_, version)| !version.is_null());
    accepted.find_map(|(policy, version)| {
        let number = version.as_i64().unwrap_or(i64::MAX);
        let known = stored.get(policy) == Some(version) || published.contains(&(policy.clone(), number));
        (!known).then(|| Refused::NotPublished { policy: policy.clone(), number })
    })
}

/// The first policy of which what is said differs from what is stored.
pub(super) fn changes_what_was_accepted(said: &Upsert, stored: &Value) -> Option<Refused> {
    let differs = |(policy, version): &(&String, &Value)| {
        stored.get(policy.as_str()).unwrap_or(&Value::Null) != *version
    };
    said.policies.iter().find(differs).map(|(policy, _)| Refused::NotTheirs(policy.clone()))
}

impl Upsert {
    /// Whether it says anything of brands.
    pub(super) fn speaks_of_brands(&self) -> bool {
        self.membership != Membership::Unsaid || self.customer_of != CustomerOf::Unsaid
    }
}

/// Lays what is said over the person and tells whether anything differs.
pub(super) fn lay_over(person: &mut Recipient, said: &Upsert) -> bool {
    let mut differs = false;
    let mut set = |stored: &mut Option<String>, said: &Option<Option<String>>| {
        if let Some(said) = said
            && stored != said
        {
            stored.clone_from(said);
            differs = true;
        }
    };
    set(&mut person.name, &said.name);
    set(&mut person.external_id, &said.external_id);
    set(&mut person.locale, &said.locale);
    if let Some(tags) = &said.tags {
        let tags = Value::from(tags.clone());
        if person.tags != tags {
            person.tags = tags;
            differs = true;
        }
    }
    differs |= merge(&mut person.attributes, &said.attributes);
    differs |= merge(&mut person.policies, &said.policies);
    differs
}

/// What is said of brands at this moment: sets `every_brand` and gives the ties that differ from those stored.
pub(super) fn lay_ties(
    person: &mut Recipient,
    stored: &[RecipientBrand],
    said: &Upsert,
    now: Timestamp,
) -> Vec<RecipientBrand> {
    let mut ties: BTreeMap<BrandId, RecipientBrand> =
        stored.iter().map(|tie| (tie.brand_id, tie.clone())).collect();
    let id = person.id;
    let blank = |brand_id| RecipientBrand {
        recipient_id: id,
        brand_id,
        belongs: false,
        joined_at: None,
        customer: false,
    };
    // Who belongs to a brand already has belonged to it since then, whichever way it is said now.
    let later = |moment: Timestamp| (moment > person.created_at).then_some(moment);
    let before = person.clone();
    let since = |tie: Option<&RecipientBrand>| later(before.belongs_since(tie).unwrap_or(now));
    match &said.membership {
        Membership::Unsaid => {}
        Membership::Every if person.every_brand => {}
        Membership::Every => {
            person.every_brand = true;
            person.every_brand_since = later(now);
        }
        Membership::Only(brands) => {
            person.every_brand = false;
            person.every_brand_since = None;
            for tie in ties.values_mut() {
                tie.belongs = false;
            }
            for &brand in brands {
                let joined_at = since(stored.iter().find(|tie| tie.brand_id == brand));
                let tie = ties.entry(brand).or_insert_with(|| blank(brand));
                (tie.belongs, tie.joined_at) = (true, joined_at);
            }
        }
        &Membership::Join(brand) => {
            if !person.every_brand {
                let tie = ties.entry(brand).or_insert_with(|| blank(brand));
                (tie.joined_at, tie.belongs) = (since(Some(tie)), true);
            }
        }
    }
    match &said.customer_of {
        CustomerOf::Unsaid => {}
        CustomerOf::Only(brands) => {
            for tie in ties.values_mut() {
                tie.customer = false;
            }
            for &brand in brands {
                ties.entry(brand).or_insert_with(|| blank(brand)).customer = true;
            }
        }
        &CustomerOf::One(brand, customer) => {
            if customer || ties.contains_key(&brand) {
                ties.entry(brand).or_insert_with(|| blank(brand)).customer = customer;
            }
        }
    }
    ties.into_values().filter(|tie| !stored.contains(tie)).collect()
}

/// Lays `said` over the object `stored`, key by key; null takes a key away.
fn merge(stored: &mut Value, said: &Map<String, Value>) -> bool {
    if !stored.is_object() {
        *stored = Value::Object(Map::new());
    }
    let Some(object) = stored.as_object_mut() else { return false };
    let mut differs = false;
    for (key, value) in said {
        differs |= if value.is_null() {
            object.remove(key).is_some()
        } else {
            object.insert(key.clone(), value.clone()).as_ref() != Some(value)
        };
    }
    differs
}
