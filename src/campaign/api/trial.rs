//! Trying a campaign out: a test send and a preview.

use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{changeable, seen};
use crate::access::rows::record;
use crate::address::EmailAddress;
use crate::app::App;
use crate::brand::{Brand, Topic};
use crate::campaign::CampaignError;
use crate::campaign::draft::check_stream;
use crate::campaign::rows::{self, Campaign};
use crate::db::Write;
use crate::decision::Reason;
use crate::delivery;
use crate::delivery::rows::{Single, SingleError, accept, data_of, forecast, rehearse};
use crate::id::{CampaignId, ContentId, DeliveryId};
use crate::link::KeyRing;
use crate::message::{self, Frozen, Message, Warning, warnings};
use crate::recipient;
use crate::web::{Caller, FieldError, Json, NewId, Path, Problem, Query, check};

/// Most addresses of one test send.
const MAX_TO: usize = 20;
/// Most octets of a test's data as JSON.
const MAX_DATA: usize = 16 * 1024;

/// A test send.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CampaignTest)]
pub(super) struct Test {
    /// 1 to 20 addresses. Somebody not known yet becomes a recipient who belongs to no brand, so is in nobody's audience.
    to: Vec<String>,
    /// What a line would bring, laid over the campaign's data.
    #[serde(default)]
    data: Option<Map<String, Value>>,
}

/// What became of a test send.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(super) struct TestSent {
    /// One for each address, in order.
    messages: Vec<TestMessage>,
}

/// A message of a test send. `GET /messages/{id}` follows it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(super) struct TestMessage {
    /// Its id.
    id: DeliveryId,
    /// The address.
    email: String,
    /// Where it is.
    state: delivery::State,
    /// Why it would not be sent, as things stand; absent when it would.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    because: Vec<Reason>,
}

/// Send a test.
///
/// An ordinary message of the campaign's topic to each address: decided like any other (who opted out gets none), with
/// real links, its subject as it is, and outside of the campaign's counts. A draft is tested as its template stands now,
/// a started campaign as it was frozen.
#[utoipa::path(post, path = "/campaigns/{id}/test", tag = "campaigns", request_body = Test,
    params(("id" = CampaignId, Path, description = "The campaign")),
    responses(
        (status = 202, description = "Taken on", body = TestSent),
        (status = 422, description = "An address cannot be used, something the template names is missing, or brand or topic is archived", body = Problem),
    ))]
pub(super) async fn test_campaign(
    Shared(app): Shared<App>,
    caller: Caller,
    NewId(id): NewId,
    Path(campaign): Path<CampaignId>,
    Json(body): Json<Test>,
) -> Result<(StatusCode, Json<TestSent>), Problem> {
    let (campaign, brand, topic) = changeable(&app, &caller, campaign).await?;
    let flaws = check_stream(&brand, &topic);
    if !flaws.is_empty() {
        return Err(CampaignError::Flaws(flaws).into());
    }
    let to = addresses(&app, &body)?;
    let data = body.data.map(Value::Object);
    // Ids that follow from the request's own: repeated under one Idempotency-Key, the test is the same test.
    let ids = (0u128..).map(|n| DeliveryId(uuid::Uuid::from_u128(id.as_u128().wrapping_add(n))));
    let messages: Vec<(DeliveryId, EmailAddress)> = ids.zip(to).collect();
    let made = delivery::rows::get(app.db.reads(), DeliveryId(id)).await?.is_some();
    if !made {
        let txn = app.db.begin().await?;
        let content = ContentId(id);
        if !freeze(&txn, &app, &campaign, content).await? {
            return Err(Problem::not_found("campaign"));
        }
        message::rows::release(&txn, content).await?;
        for (id, address) in &messages {
            let (id, data) = (*id, data.as_ref());
            let single = Single { id, brand: &brand, topic: &topic, content, address, name: None, data };
            accept(&txn, &app, &single).await.map_err(problem)?;
        }
        let detail = json!({ "messages": messages.len() });
        record(&*txn, &app.db, &caller.actor, "campaign.test", &campaign.id.to_string(), detail).await?;
        txn.commit().await?;
    }
    let mut sent = Vec::with_capacity(messages.len());
    for (id, address) in messages {
        let because = forecast(app.db.reads(), &app, &topic, &address).await?;
        let row = delivery::rows::get(app.db.reads(), id).await?;
        let state = row.map_or(delivery::State::Queued, |row| row.state);
        sent.push(TestMessage { id, email: address.as_str().to_owned(), state, because });
    }
    Ok((StatusCode::ACCEPTED, Json(TestSent { messages: sent })))
}

fn addresses(app: &App, body: &Test) -> Result<Vec<EmailAddress>, Problem> {
    let mut errors = Vec::new();
    if !(1..=MAX_TO).contains(&body.to.len()) {
        check::wrong("/to", format!("must be 1 to {MAX_TO} addresses"), &mut errors);
    }
    if let Some(data) = &body.data {
        check::json_size("/data", &Value::Object(data.clone()), MAX_DATA, &mut errors);
    }
    let mut seen = std::collections::HashSet::new();
    let mut to = Vec::new();
    for (place, text) in body.to.iter().take(MAX_TO).enumerate() {
        match EmailAddress::parse(text) {
            Ok(address) if seen.insert(app.address_key.hash(&address)) => to.push(address),
            Ok(_) => {}
            Err(error) => check::wrong(&format!("/to/{place}"), error.to_string(), &mut errors),
        }
    }
    check::done(errors)?;
    Ok(to)
}

/// Freezes under `content` what the campaign would send, or has been sending.
async fn freeze(txn: &Write, app: &App, campaign: &Campaign, content: ContentId) -> Result<bool, Problem> {
    if message::rows::copy(txn, &app.db, campaign.content_id, content).await? {
        return Ok(true);
    }
    Ok(rows::freeze_aside(txn, &app.db, campaign, content).await.map(|()| true)?)
}

fn problem(error: SingleError) -> Problem {
    let pointer = match &error {
        SingleError::Compose(message::ComposeError::Brand { .. }) => "/brand",
        SingleError::Compose(message::ComposeError::Variable { name }) if name.starts_with("data.") => {
            "/data"
        }
        _ => "/template",
    };
    match error {
        SingleError::Db(error) => error.into(),
        other => Problem::fields(vec![FieldError { pointer: pointer.to_owned(), reason: other.to_string() }]),
    }
}

/// For whom a preview is made.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct For {
    /// The address. Somebody known is addressed with what is known, a line's data included; anybody else as a stranger.
    email: String,
}

/// A rendered message.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = CampaignPreview)]
pub(super) struct Preview {
    /// The subject.
    subject: String,
    /// The HTML part.
    html: String,
    /// The text part.
    text: String,
    /// The headers in order, unfolded, as they go over the wire.
    headers: Vec<Header>,
    /// What could be better about it; it is sent as it is.
    warnings: Vec<Warning>,
}

/// A header field.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Header {
    /// Its name.
    name: String,
    /// Its value.
    value: String,
}

/// See the message that one person would get.
///
/// Nothing is stored or sent. The links look like those of the real message but are signed with a key made for this
/// preview alone, so following one does nothing to anybody.
#[utoipa::path(get, path = "/campaigns/{id}/preview", tag = "campaigns",
    params(("id" = CampaignId, Path, description = "The campaign"), For),
    responses(
        (status = 200, description = "The message", body = Preview),
        (status = 422, description = "The address cannot be used, or something the template names is missing", body = Problem),
    ))]
pub(super) async fn preview_campaign(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<CampaignId>,
    Query(whom): Query<For>,
) -> Result<Json<Preview>, Problem> {
    let (campaign, brand, topic) = seen(&app, &caller, id).await?;
    let address =
        EmailAddress::parse(&whom.email).map_err(|error| Problem::field("email", error.to_string()))?;
    let (frozen, message) = rendered(&app, &caller, &campaign, &brand, &topic, &address).await?;
    // A long message takes a while to look through.
    let looked = tokio::task::spawn_blocking(move || read(&frozen, &message)).await;
    looked.ok().flatten().map(Json).ok_or_else(Problem::internal)
}

async fn rendered(
    app: &App,
    caller: &Caller,
    campaign: &Campaign,
    brand: &Brand,
    topic: &Topic,
    address: &EmailAddress,
) -> Result<(Frozen, Message), Problem> {
    let on = app.db.reads();
    let person = recipient::rows::find(on, &app.address_key.hash(address)).await?;
    let data = match person {
        Some(person) => data_of(on, campaign.mailing(), person.id).await?,
        None => None,
    };
    let frozen = match message::rows::load(on, campaign.content_id).await? {
        Some(frozen) => frozen,
        None => {
            // Frozen to look at, and taken back.
            let txn = app.db.begin().await?;
            let content = ContentId::new();
            rows::freeze_aside(&txn, &app.db, campaign, content).await?;
            let frozen = message::rows::load(&*txn, content).await?.ok_or_else(Problem::internal)?;
            txn.rollback().await?;
            frozen
        }
    };
    let keys = KeyRing::parse(&KeyRing::new_key()).map_err(|_| Problem::internal())?;
    let id = DeliveryId::new();
    let content = frozen.id;
    let single = Single { id, brand, topic, content, address, name: None, data: data.as_ref() };
    let message = rehearse(on, app, &keys, &frozen, &single, caller.brand).await.map_err(problem)?;
    Ok((frozen, message))
}

fn read(frozen: &Frozen, message: &Message) -> Option<Preview> {
    let parsed = mail_parser::MessageParser::default().parse(&message.bytes)?;
    let unfolded = |value: &str| value.replace(['\r', '\n'], "").replace('\t', " ").trim().to_owned();
    Some(Preview {
        subject: parsed.subject().unwrap_or_default().to_owned(),
        html: parsed.body_html(0)?.into_owned(),
        text: parsed.body_text(0)?.into_owned(),
        headers: parsed
            .headers_raw()
            .map(|(name, value)| Header { name: name.to_owned(), value: unfolded(value) })
            .collect(),
        warnings: warnings(frozen, message),
    })
}
