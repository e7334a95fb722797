//! Scopes by name, and what the decision says of one address now.

use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::facts::{Wanted, facts_of};
use crate::address::AddressHash;
use crate::brand::rows::topic;
use crate::brand::{self, Topic};
use crate::decision::{Class, Ground, ground, objections};
use crate::id::{DeliveryId, TopicId};
use crate::opt_out::events::Scope;
use crate::opt_out::words::{Because, Explained, InFlightWords, ScopeWords, Verdict};

/// A name that is nobody's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownName {
    /// Of a brand.
    #[error("there is no brand {0:?}")]
    Brand(String),
    /// Of a topic.
    #[error("the brand {0:?} has no topic {1:?}")]
    Topic(String, String),
}

/// The scope of these names; archived brands and topics count, since their mail may still lie in mailboxes.
///
/// # Errors
/// The database's own; inside, a name that is nobody's.
pub async fn scope_of(
    on: &impl ConnectionTrait,
    words: &ScopeWords,
) -> Result<Result<Scope, UnknownName>, DbErr> {
    let (brand, topic) = match words {
        ScopeWords::All => return Ok(Ok(Scope::All)),
        ScopeWords::Brand(brand) => (brand, None),
        ScopeWords::Topic(brand, topic) => (brand, Some(topic)),
    };
    let Some(found) = brand::rows::find(on, brand).await? else {
        return Ok(Err(UnknownName::Brand(brand.clone())));
    };
    let Some(topic) = topic else { return Ok(Ok(Scope::Brand(found.id))) };
    Ok(match brand::rows::find_topic(on, found.id, topic).await? {
        Some(topic) => Ok(Scope::Topic(found.id, topic.id)),
        None => Err(UnknownName::Topic(brand.clone(), topic.clone())),
    })
}

/// The names of this scope.
///
/// # Errors
/// The database's own, also when a row is missing that is never deleted.
pub async fn words_of(on: &impl ConnectionTrait, scope: Scope) -> Result<ScopeWords, DbErr> {
    let Some(brand) = scope.brand() else { return Ok(ScopeWords::All) };
    let found = brand::rows::by_id(on, brand).await?;
    let slug = found.ok_or_else(|| DbErr::RecordNotFound(format!("brand {brand}")))?.slug;
    Ok(match scope.topic() {
        None => ScopeWords::Brand(slug),
        Some(topic) => ScopeWords::Topic(slug, topic_of(on, topic).await?.slug),
    })
}

/// The topic of this id, which is there.
///
/// # Errors
/// The database's own, also when the row is missing, which is never deleted.
pub async fn topic_of(on: &impl ConnectionTrait, topic: TopicId) -> Result<Topic, DbErr> {
    let found = brand::rows::topic_by_id(on, topic).await?;
    found.ok_or_else(|| DbErr::RecordNotFound(format!("topic {topic}")))
}

/// Whether a message of this topic would be sent to this address now, and why: by the decision that the worker asks.
///
/// # Errors
/// The database's own.
pub async fn explain(
    on: &impl ConnectionTrait,
    hash: &AddressHash,
    topic: &Topic,
) -> Result<Explained, DbErr> {
    let people = std::slice::from_ref(hash);
    let facts = facts_of(on, Wanted { people, topic }).await?.remove(hash).unwrap_or_default();
    let reasons = objections(topic.class, &facts);
    if reasons.is_empty() {
        let because = vec![Because::Ground(ground(topic.class, &facts))];
        return Ok(Explained { decision: Verdict::Send, because });
    }
    let because = reasons.into_iter().map(Because::Reason).collect();
    Ok(Explained { decision: Verdict::Suppress, because })
}

/// Messages under way in the words of the API: delivery, topic, state.
///
/// # Errors
/// As [`topic_of`].
pub async fn flights_in_words(
    on: &impl ConnectionTrait,
    deliveries: Vec<(DeliveryId, TopicId, &'static str)>,
) -> Result<Vec<InFlightWords>, DbErr> {
    let mut words = Vec::with_capacity(deliveries.len());
    for (delivery, topic, state) in deliveries {
        let topic = topic_of(on, topic).await?.slug;
        words.push(InFlightWords { delivery, topic, state: state.to_owned() });
    }
    Ok(words)
}

/// What still comes to this address in spite of a wider opt-out, because the person is a customer: names of brand and
/// topic, at most 20.
///
/// # Errors
/// The database's own.
pub async fn kept_for_customer(
    on: &impl ConnectionTrait,
    hash: &AddressHash,
) -> Result<Vec<(String, String)>, DbErr> {
    let topics = topic::Entity::find()
        .filter(topic::Column::CustomersKeep.eq(true))
        .filter(topic::Column::Class.eq(Class::Relationship))
        .filter(topic::Column::ArchivedAt.is_null())
        .order_by_asc(topic::Column::Id)
        .limit(200)
        .all(on)
        .await?;
    let mut kept = Vec::new();
    for topic in topics {
        let explained = explain(on, hash, &topic).await?;
        if kept.len() < 20 && explained.because == [Because::Ground(Ground::CustomerKeeps)] {
            let brand = brand::rows::by_id(on, topic.brand_id).await?;
            kept.extend(brand.map(|brand| (brand.name, topic.name)));
        }
    }
    Ok(kept)
}
