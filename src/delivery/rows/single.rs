//! Single messages: tried out before they are accepted, so that whoever asks learns at once what is missing.

use sea_orm::{ConnectionTrait, DbErr, JsonValue, Statement};

use super::enqueue;
use crate::address::EmailAddress;
use crate::app::App;
use crate::brand::{Brand, Topic};
use crate::db::Write;
use crate::decision::{Reason, objections};
use crate::delivery::{NewDelivery, Stream, aside};
use crate::id::{BrandId, ContentId, DeliveryId, MailingId, RecipientId};
use crate::link::KeyRing;
use crate::message::{
    self, Addressee, Compiled, ComposeError, Frozen, Message, Sender, TemplateError, compose,
};
use crate::opt_out::rows::{Wanted, facts_of};
use crate::recipient;
use crate::recipient::rows::Newcomer;

/// A message to one person that belongs to no mailing.
#[derive(Clone, Debug)]
pub struct Single<'a> {
    /// The id that its delivery gets.
    pub id: DeliveryId,
    /// The sender.
    pub brand: &'a Brand,
    /// The stream of messages.
    pub topic: &'a Topic,
    /// Frozen content.
    pub content: ContentId,
    /// To whom; somebody not known yet becomes a recipient who belongs to no brand.
    pub address: &'a EmailAddress,
    /// The name, for somebody not known yet.
    pub name: Option<&'a str>,
    /// Laid over the content's data, key by key; an object.
    pub data: Option<&'a JsonValue>,
}

/// Why a message cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SingleError {
    /// The template cannot be used.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Something is missing or over a bound.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbErr),
}

/// Takes a message on: queued, unless it cannot be made. Repeated with the same id it changes nothing.
///
/// # Errors
/// Why it cannot be made; then nothing is stored once the transaction is dropped.
pub async fn accept(txn: &Write, app: &App, single: &Single<'_>) -> Result<(), SingleError> {
    let frozen = message::rows::load(&**txn, single.content)
        .await?
        .ok_or_else(|| DbErr::RecordNotFound("the frozen content".into()))?;
    rehearse(&**txn, app, &app.link_keys, &frozen, single, None).await?;
    let newcomer = Newcomer { address: single.address.clone(), name: single.name.map(str::to_owned) };
    let person = recipient::rows::ensure_stranger(txn, &app.db, &app.address_key, &newcomer).await?;
    let stream = Stream {
        content: single.content,
        mailing: None,
        brand: single.brand.id,
        topic: single.topic.id,
        class: single.topic.class,
        not_after: None,
    };
    let new = NewDelivery {
        id: single.id,
        recipient: person.id,
        address_hash: app.address_key.hash(single.address),
        data: single.data.cloned(),
    };
    enqueue(txn, &app.db, &stream, &[new]).await?;
    Ok(())
}

/// Makes the message as a worker would make it now, and stores nothing. `link_keys` sign its links: with keys of no ring
/// they look like links and lead nowhere. For somebody who sees one brand alone, anybody who is not of it is a stranger.
///
/// # Errors
/// Why it cannot be made.
pub async fn rehearse(
    on: &impl ConnectionTrait,
    app: &App,
    link_keys: &KeyRing,
    frozen: &Frozen,
    single: &Single<'_>,
    sees_only: Option<BrandId>,
) -> Result<Message, SingleError> {
    let hash = app.address_key.hash(single.address);
    let mut found = recipient::rows::find(on, &hash).await?;
    if let (Some(person), Some(brand)) = (&found, sees_only)
        && !recipient::rows::belongs(on, person, brand).await?
    {
        found = None;
    }
    let member = match found {
        Some(person) => recipient::rows::people(on, &[person.id], single.brand.id).await?.remove(&person.id),
        None => None,
    };
    let person = member.as_ref().map(|member| &member.recipient);
    let stored =
        person.and_then(|person| person.address.as_deref()).and_then(|a| EmailAddress::parse(a).ok());
    let nothing = JsonValue::Object(serde_json::Map::new());
    let addressee = Addressee {
        recipient: person.map_or_else(RecipientId::new, |person| person.id),
        address: stored.as_ref().unwrap_or(single.address),
        address_hash: &hash,
        name: person.map_or(single.name, |person| person.name.as_deref()),
        locale: person.and_then(|person| person.locale.as_deref()),
        external_id: person.and_then(|person| person.external_id.as_deref()),
        customer: member.as_ref().is_some_and(|member| member.customer),
        attributes: person.map_or(&nothing, |person| &person.attributes),
        data: single.data,
    };
    let sender = Sender {
        brand: single.brand,
        topic: single.topic,
        base_url: &app.settings.base_url,
        link_keys,
        default_bounce_domain: app.settings.bounce_domain.as_deref(),
        inbound_domain: app.settings.inbound_domain.as_deref(),
        dkim: &app.dkim_keys,
    };
    let now = app.db.clock().now();
    aside(frozen, || Ok(compose(&Compiled::new(frozen)?, &sender, &addressee, single.id, now)?))
}

/// Why a message of this topic to this address would not be sent now; empty when it would. The worker decides again,
/// right before the hand-over.
///
/// # Errors
/// The database's own.
pub async fn forecast(
    on: &impl ConnectionTrait,
    app: &App,
    topic: &Topic,
    address: &EmailAddress,
) -> Result<Vec<Reason>, DbErr> {
    let people = [app.address_key.hash(address)];
    let facts = facts_of(on, Wanted { people: &people, topic }).await?;
    Ok(facts.get(&people[0]).map(|facts| objections(topic.class, facts)).unwrap_or_default())
}

/// What a delivery of this mailing to this person lays over the content's data.
///
/// # Errors
/// The database's own.
pub async fn data_of(
    on: &impl ConnectionTrait,
    mailing: MailingId,
    recipient: RecipientId,
) -> Result<Option<JsonValue>, DbErr> {
    let sql = "SELECT data FROM deliveries WHERE mailing_id = $1 AND recipient_id = $2";
    let values = [mailing.0.into(), recipient.0.into()];
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, values);
    on.query_one_raw(statement).await?.map_or(Ok(None), |row| row.try_get("", "data"))
}
