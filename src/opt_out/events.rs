//! What can be said about mail, and which of it stands. Pure.

use serde::{Deserialize, Serialize};

use crate::address::AddressHash;
use crate::clock::Timestamp;
use crate::decision::Said;
use crate::id::{BrandId, DeliveryId, OptEventId, TopicId};
use crate::word::words;

/// What an opt-out or opt-in is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything that can be refused, of every brand here.
    All,
    /// Everything that can be refused of one brand.
    Brand(BrandId),
    /// One topic of a brand.
    Topic(BrandId, TopicId),
}

impl Scope {
    /// The word for its kind: `all`, `brand` or `topic`.
    pub fn kind(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Brand(_) => "brand",
            Self::Topic(..) => "topic",
        }
    }

    /// The brand it names.
    pub fn brand(self) -> Option<BrandId> {
        match self {
            Self::All => None,
            Self::Brand(brand) | Self::Topic(brand, _) => Some(brand),
        }
    }

    /// The topic it names.
    pub fn topic(self) -> Option<TopicId> {
        match self {
            Self::Topic(_, topic) => Some(topic),
            _ => None,
        }
    }

    /// What tells its row from those of other scopes.
    pub fn key(self) -> String {
        match self {
            Self::All => "all".to_owned(),
            Self::Brand(brand) => format!("brand:{brand}"),
            Self::Topic(_, topic) => format!("topic:{topic}"),
        }
    }

    /// Whether everything in `other` lies in this scope.
    pub fn covers(self, other: Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Brand(a), Self::Brand(b) | Self::Topic(b, _)) => a == b,
            (Self::Topic(_, a), Self::Topic(_, b)) => a == b,
            _ => false,
        }
    }

    /// Whether some message lies in both.
    pub fn meets(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }
}

/// How somebody said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// A mail program's unsubscribe button (RFC 8058).
    OneClick,
    /// The page behind a link.
    Page,
    /// A mail to the address that messages offer besides the link.
    Mailto,
    /// A telephone call.
    Phone,
    /// A letter.
    Letter,
    /// A mail to the company.
    Email,
    /// Face to face.
    InPerson,
    /// Another system, over the API.
    Api,
    /// A list taken over from another system or a backup.
    Import,
}

words! {
    Channel, "channel; use phone, letter, email, in_person or api",
    OneClick = "one_click",
    Page = "page",
    Mailto = "mailto",
    Phone = "phone",
    Letter = "letter",
    Email = "email",
    InPerson = "in_person",
    Api = "api",
    Import = "import",
}

/// A refusal to be recorded.
#[derive(Clone, Debug)]
pub struct OptOut {
    /// Whose.
    pub address_hash: AddressHash,
    /// Of what; the first is the one that is answered for. A refusal made through a message names that message's
    /// topic besides any wider scope.
    pub scopes: Vec<Scope>,
    /// How it was said.
    pub channel: Channel,
    /// Whether it came as a complaint from a mailbox provider.
    pub complaint: bool,
    /// What the person at the telephone wrote down.
    pub note: Option<String>,
    /// When the person said it, where that was before it was recorded. It never decides anything.
    pub requested_at: Option<Timestamp>,
    /// The message through which it was made.
    pub delivery: Option<DeliveryId>,
    /// Who recorded it.
    pub actor: String,
}

/// A consent to be recorded.
#[derive(Clone, Debug)]
pub struct OptIn {
    /// Whose.
    pub address_hash: AddressHash,
    /// To what.
    pub scope: Scope,
    /// How it was said.
    pub channel: Channel,
    /// What proves it.
    pub evidence: String,
    /// Who recorded it.
    pub actor: String,
}

/// What stands about one scope of one person: the newest event that was not undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stood {
    /// The scope.
    pub scope: Scope,
    /// What was said.
    pub said: Said,
    /// Its place among the person's events.
    pub seq: i64,
    /// Whether it was a complaint.
    pub complaint: bool,
    /// The event that said it.
    pub event: OptEventId,
}

/// The opt-out of exactly this scope that stands already, so that saying it again adds nothing: there is one, and no
/// later opt-in of any scope that meets it.
pub fn stands_already(all: &[Stood], scope: Scope) -> Option<&Stood> {
    let own = all.iter().find(|stood| stood.scope == scope && stood.said == Said::OptOut)?;
    let lifted =
        all.iter().any(|other| other.said == Said::OptIn && other.seq > own.seq && other.scope.meets(scope));
    (!lifted).then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stood(scope: Scope, said: Said, seq: i64) -> Stood {
        Stood { scope, said, seq, complaint: false, event: OptEventId::new() }
    }

    #[test]
    fn scopes_cover_what_lies_in_them() {
        let (a, b, t) = (BrandId::new(), BrandId::new(), TopicId::new());
        assert!(Scope::All.covers(Scope::Brand(a)));
        assert!(Scope::Brand(a).covers(Scope::Topic(a, t)));
        assert!(!Scope::Brand(b).covers(Scope::Topic(a, t)));
        assert!(!Scope::Topic(a, t).covers(Scope::Brand(a)));
        assert!(Scope::Topic(a, t).meets(Scope::Brand(a)));
        assert!(!Scope::Brand(a).meets(Scope::Brand(b)));
    }

    #[test]
    fn an_opt_out_is_said_again_once_an_opt_in_within_or_around_it_came_later() {
        let (a, t) = (BrandId::new(), TopicId::new());
        let brand = Scope::Brand(a);
        let topic = Scope::Topic(a, t);
        let out = stood(brand, Said::OptOut, 1);
        assert!(stands_already(std::slice::from_ref(&out), brand).is_some());
        assert!(stands_already(std::slice::from_ref(&out), topic).is_none());
        assert!(stands_already(&[out.clone(), stood(topic, Said::OptIn, 2)], brand).is_none());
        assert!(stands_already(&[out.clone(), stood(Scope::All, Said::OptIn, 2)], brand).is_none());
        let elsewhere = stood(Scope::Brand(BrandId::new()), Said::OptIn, 2);
        assert!(stands_already(&[out, elsewhere], brand).is_some());
    }
}
