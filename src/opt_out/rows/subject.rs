//! Whom and what unsubscribe links are about.

use std::collections::HashMap;

use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, QueryFilter, Statement,
};

use crate::address::AddressHash;
use crate::brand::rows::{brand, topic};
use crate::brand::{Brand, Topic};
use crate::db::{Kind, List};
use crate::decision::Class;
use crate::id::{BrandId, TopicId};
use crate::link::Link;

/// Whom and what a link is about, as it is now.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The sender.
    pub brand: Brand,
    /// The stream of messages.
    pub topic: Topic,
    /// The recipient's address; none after erasure, or when nobody has this hash.
    pub address: Option<String>,
    /// The recipient's language.
    pub locale: Option<String>,
    /// Whether any topic here stays with customers in spite of a wider opt-out.
    pub customers_keep: bool,
}

#[derive(FromQueryResult)]
struct Person {
    address_hash: AddressHash,
    address: Option<String>,
    locale: Option<String>,
}

/// What these links are about, in their order; at most some hundreds at a time.
///
/// # Errors
/// The database's own; inside, a brand or topic that is not there though they are never deleted.
pub async fn subjects_of(
    on: &impl ConnectionTrait,
    links: &[Link],
) -> Result<Vec<Result<Subject, DbErr>>, DbErr> {
    let brands = brand::Entity::find().filter(brand::Column::Id.is_in(each(links, |link| link.brand)));
    let brands: HashMap<BrandId, Brand> =
        brands.all(on).await?.into_iter().map(|brand| (brand.id, brand)).collect();
    let kept = Condition::all()
        .add(topic::Column::CustomersKeep.eq(true))
        .add(topic::Column::Class.eq(Class::Relationship))
        .add(topic::Column::ArchivedAt.is_null());
    let wanted = topic::Column::Id.is_in(each(links, |link| link.topic));
    let topics = topic::Entity::find().filter(Condition::any().add(wanted).add(kept)).all(on).await?;
    let customers_keep = topics.iter().any(|topic| {
        topic.customers_keep && topic.class == Class::Relationship && topic.archived_at.is_none()
    });
    let topics: HashMap<TopicId, Topic> = topics.into_iter().map(|topic| (topic.id, topic)).collect();
    let people = people_of(on, links).await?;
    let missing = |what: &str| DbErr::RecordNotFound(format!("the {what} of an unsubscribe link"));
    let subject = |link: &Link| {
        let person = people.get(&link.address_hash);
        Ok(Subject {
            brand: brands.get(&link.brand).cloned().ok_or_else(|| missing("brand"))?,
            topic: topics.get(&link.topic).cloned().ok_or_else(|| missing("topic"))?,
            address: person.and_then(|person| person.address.clone()),
            locale: person.and_then(|person| person.locale.clone()),
            customers_keep,
        })
    };
    Ok(links.iter().map(subject).collect())
}

/// What each of the links names, once.
fn each<T: Ord>(links: &[Link], of: impl Fn(&Link) -> T) -> Vec<T> {
    let mut named: Vec<T> = links.iter().map(of).collect();
    named.sort_unstable();
    named.dedup();
    named
}

async fn people_of(on: &impl ConnectionTrait, links: &[Link]) -> Result<HashMap<AddressHash, Person>, DbErr> {
    let list = List::of("address_hash", Kind::Bytes, links.iter().map(|link| link.address_hash.0.clone()));
    let backend = on.get_database_backend();
    let mut values = Vec::new();
    let list = list.relation(backend, "l", &mut values);
    let sql = format!(
        "SELECT r.address_hash, r.address, r.locale FROM {list} JOIN recipients r ON r.address_hash = l.address_hash"
    );
    let statement = Statement::from_sql_and_values(backend, sql, values);
    let people = Person::find_by_statement(statement).all(on).await?;
    Ok(people.into_iter().map(|person| (person.address_hash.clone(), person)).collect())
}
