//! `/messages`, and the deliveries of one person.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::rows::{self, AttemptView, BounceView, DeliveryFilter, DeliveryView, Single, SingleError};
use crate::access::rows::record;
use crate::address::EmailAddress;
use crate::app::App;
use crate::brand::{self, Brand, Topic};
use crate::clock::Timestamp;
use crate::decision::{Class, Reason};
use crate::delivery;
use crate::id::{DeliveryId, MailingId, RecipientId};
use crate::message::ComposeError;
use crate::message::rows::{FreezeError, shared};
use crate::recipient;
use crate::web::{Caller, FieldError, Json, List, NewId, Paging, Path, Problem, Query, Role, check};

/// Longest name of a recipient in characters.
const MAX_NAME: usize = 200;
/// Most octets of a message's data as JSON.
const MAX_DATA: usize = 64 * 1024;

/// The routes of single messages and of one person's deliveries.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(send_message))
        .routes(routes!(get_message))
        .routes(routes!(list_deliveries_of_recipient))
}

/// To whom a single message goes.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MessageTo)]
struct To {
    /// The address. Somebody not known yet becomes a recipient who belongs to no brand.
    email: String,
    /// The name, for somebody not known yet; at most 200 characters.
    #[serde(default)]
    name: Option<String>,
}

/// A single message.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MessageFields)]
struct MessageBody {
    /// The slug of the brand.
    brand: String,
    /// The slug of the topic: of class requested or service for a sender, one that can be refused for a marketer; never
    /// of class notice.
    topic: String,
    /// To whom.
    to: To,
    /// The slug of the template.
    template: String,
    /// What the template sees as `data`; at most 64 kB.
    #[serde(default)]
    data: Option<Map<String, Value>>,
}

/// What became of a message so far.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct Accepted {
    /// Its id.
    id: DeliveryId,
    /// Where it is.
    state: delivery::State,
    /// Why it would not be sent, as things stand; absent when it would. The worker decides again right before the
    /// hand-over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    because: Vec<Reason>,
}

/// A delivery: one message to one person.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Delivery)]
struct Shown {
    /// Its id.
    id: DeliveryId,
    /// Where it is.
    state: delivery::State,
    /// Why it is there, as far as there is more to say: a word of the decision when suppressed, a sentence when failed.
    reason: Option<String>,
    /// To whom.
    recipient: RecipientId,
    /// The slug of the brand.
    brand: String,
    /// The slug of the topic.
    topic: String,
    /// The class of the topic.
    class: Class,
    /// The campaign or notice that it belongs to; null for a single message.
    mailing: Option<MailingId>,
    /// When it was taken on.
    created_at: Timestamp,
    /// When it is tried next, while it is queued.
    due_at: Option<Timestamp>,
    /// When it came to its final state.
    settled_at: Option<Timestamp>,
    /// Its attempts, the oldest first, with the relay's words.
    attempts: Vec<AttemptView>,
    /// How it came back after the relay had taken it over; absent when it did not. The state stays as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    bounced: Option<BounceView>,
}

/// Send one message.
///
/// It is composed once before it is taken on: a variable that the template names and nobody gave is told at once. With
/// the same Idempotency-Key the same message is given back. For senders (topics of class requested and service),
/// marketers (topics that can be refused) and admins.
#[utoipa::path(post, path = "/messages", tag = "messages", request_body = MessageBody, responses(
    (status = 202, description = "Taken on; `because` says when it would not be sent", body = Accepted),
    (status = 403, description = "The key's role may not send on this topic", body = Problem),
    (status = 422, description = "A field is wrong or something the template names is missing", body = Problem),
))]
async fn send_message(
    State(app): State<App>,
    caller: Caller,
    NewId(id): NewId,
    Json(body): Json<MessageBody>,
) -> Result<(StatusCode, Json<Accepted>), Problem> {
    caller.must_be(&[Role::Sender, Role::Marketer])?;
    let id = DeliveryId(id);
    let (address, data) = checked(&body)?;
    let (brand, topic) = stream(&app, &caller, &body.brand, &body.topic).await?;
    may_send(&caller, &topic)?;
    if rows::get(app.db.reads(), id).await?.is_none() {
        let txn = app.db.begin().await?;
        let content = shared(&txn, &app.db, &brand, &topic, &body.template).await.map_err(freeze_problem)?;
        let single = Single {
            id,
            brand: &brand,
            topic: &topic,
            content,
            address: &address,
            name: body.to.name.as_deref(),
            data: data.as_ref(),
        };
        rows::accept(&txn, &app, &single).await.map_err(single_problem)?;
        let detail = json!({ "brand": brand.slug, "topic": topic.slug, "template": body.template });
        record(&*txn, &app.db, &caller.actor, "message.send", &id.to_string(), detail).await?;
        txn.commit().await?;
    }
    let because = rows::forecast(app.db.reads(), &app, &topic, &address).await?;
    let state = rows::get(app.db.reads(), id).await?.map_or(delivery::State::Queued, |row| row.state);
    Ok((StatusCode::ACCEPTED, Json(Accepted { id, state, because })))
}

fn checked(body: &MessageBody) -> Result<(EmailAddress, Option<Value>), Problem> {
    let mut errors = Vec::new();
    check::slug("/brand", &body.brand, &mut errors);
    check::slug("/topic", &body.topic, &mut errors);
    check::slug("/template", &body.template, &mut errors);
    check::optional_line("/to/name", body.to.name.as_deref(), MAX_NAME, &mut errors);
    let data = body.data.clone().map(Value::Object);
    if let Some(data) = &data {
        check::json_size("/data", data, MAX_DATA, &mut errors);
    }
    match EmailAddress::parse(&body.to.email) {
        Ok(address) if errors.is_empty() => return Ok((address, data)),
        Ok(_) => {}
        Err(error) => check::wrong("/to/email", error.to_string(), &mut errors),
    }
    Err(Problem::fields(errors))
}

async fn stream(app: &App, caller: &Caller, brand: &str, topic: &str) -> Result<(Brand, Topic), Problem> {
    let on = app.db.reads();
    let found = brand::rows::find(on, brand).await?;
    let Some(brand) = found.filter(|brand| caller.sees(brand.id) && brand.archived_at.is_none()) else {
        return Err(Problem::field("/brand", format!("there is no brand {brand:?}, or it is archived")));
    };
    let found = brand::rows::find_topic(on, brand.id, topic).await?;
    let Some(topic) = found.filter(|topic| topic.archived_at.is_none()) else {
        let reason = format!("brand {:?} has no topic {topic:?}, or it is archived", brand.slug);
        return Err(Problem::field("/topic", reason));
    };
    Ok((brand, topic))
}

fn may_send(caller: &Caller, topic: &Topic) -> Result<(), Problem> {
    let allowed = match (caller.role, topic.class) {
        (_, Class::Notice) => {
            return Err(Problem::field(
                "/topic",
                "a topic of class notice is used by published policies only; choose another topic",
            ));
        }
        (Role::Sender, class) => !class.can_be_refused(),
        (Role::Marketer, class) => class.can_be_refused(),
        _ => true,
    };
    if allowed {
        return Ok(());
    }
    Err(Problem::forbidden(format!(
        "A key of role {} may not send messages of class {}.",
        caller.role, topic.class
    )))
}

fn freeze_problem(error: FreezeError) -> Problem {
    match error {
        FreezeError::Db(error) => error.into(),
        other => Problem::field("/template", other.to_string()),
    }
}

fn single_problem(error: SingleError) -> Problem {
    let pointer = match &error {
        SingleError::Db(_) => String::new(),
        SingleError::Compose(ComposeError::Variable { name }) => match name.strip_prefix("data.") {
            Some(path) => format!("/data/{}", path.replace('.', "/")),
            None => "/template".to_owned(),
        },
        SingleError::Compose(ComposeError::Brand { .. }) => "/brand".to_owned(),
        SingleError::Compose(_) | SingleError::Template(_) => "/template".to_owned(),
    };
    match error {
        SingleError::Db(error) => error.into(),
        other => Problem::fields(vec![FieldError { pointer, reason: other.to_string() }]),
    }
}

/// One message and its attempts.
#[utoipa::path(get, path = "/messages/{id}", tag = "messages",
    params(("id" = DeliveryId, Path, description = "The message")),
    responses(
        (status = 200, description = "The message", body = Shown),
        (status = 404, description = "There is no such message", body = Problem),
    ))]
async fn get_message(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<DeliveryId>,
) -> Result<Json<Shown>, Problem> {
    let found = rows::get(app.db.reads(), id).await?;
    let Some(row) = found.filter(|row| caller.sees(row.brand)) else {
        return Err(Problem::not_found("message"));
    };
    let mut shown = show(&app, vec![row]).await?;
    shown.pop().map(Json).ok_or_else(|| Problem::not_found("message"))
}

/// Which of a person's deliveries.
#[derive(Clone, Copy, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// In this state alone.
    state: Option<delivery::State>,
}

/// The deliveries of one person, the oldest first.
#[utoipa::path(get, path = "/recipients/{id}/deliveries", tag = "recipients",
    params(("id" = RecipientId, Path, description = "The recipient"), Which, Paging),
    responses(
        (status = 200, description = "A page of deliveries", body = List<Shown>),
        (status = 404, description = "There is no such recipient", body = Problem),
    ))]
async fn list_deliveries_of_recipient(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<RecipientId>,
    Query(which): Query<Which>,
    paging: Paging,
) -> Result<Json<List<Shown>>, Problem> {
    caller.must_be(&[Role::Accounts, Role::Marketer, Role::Operator, Role::Auditor])?;
    let on = app.db.reads();
    let missing = || Problem::not_found("recipient");
    let person = recipient::rows::by_id(on, id).await?.ok_or_else(missing)?;
    if let Some(brand) = caller.brand
        && !recipient::rows::belongs(on, &person, brand).await?
    {
        return Err(missing());
    }
    let filter =
        DeliveryFilter { recipient: Some(id), brand: caller.brand, state: which.state, ..Default::default() };
    let rows = rows::list(on, filter, paging.after_key()?, paging.fetch()).await?;
    let List { items, next } = List::page(rows, &paging, |row| row.id.to_string(), |row| row);
    Ok(Json(List { items: show(&app, items).await?, next }))
}

async fn show(app: &App, rows: Vec<DeliveryView>) -> Result<Vec<Shown>, Problem> {
    let mut slugs = std::collections::HashMap::new();
    let mut shown = Vec::with_capacity(rows.len());
    for row in rows {
        let (brand, topic) = match slugs.get(&row.topic) {
            Some(found) => found,
            None => {
                let on = app.db.reads();
                let brand = brand::rows::by_id(on, row.brand).await?.ok_or_else(Problem::internal)?;
                let topic = brand::rows::topic_by_id(on, row.topic).await?.ok_or_else(Problem::internal)?;
                slugs.entry(row.topic).or_insert((brand.slug, topic.slug))
            }
        };
        shown.push(Shown {
            id: row.id,
            state: row.state,
            reason: row.reason,
            recipient: row.recipient,
            brand: brand.clone(),
            topic: topic.clone(),
            class: row.class,
            mailing: row.mailing,
            created_at: row.created_at,
            due_at: row.due_at.filter(|_| row.state == delivery::State::Queued),
            settled_at: row.settled_at,
            attempts: row.attempts,
            bounced: row.bounced,
        });
    }
    Ok(shown)
}
