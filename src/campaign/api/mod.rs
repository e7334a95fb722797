//! `/campaigns`.

mod deliveries;
mod life;
mod limit;
mod lines;
mod trial;

use std::collections::BTreeMap;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use sea_orm::{ConnectionTrait, DbErr};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::limit::CampaignLimit;
use super::rows::{self, Campaign};
use super::{CampaignError, Draft, State};
use crate::access::rows::record;
use crate::app::App;
use crate::brand::{self, Brand, Topic};
use crate::clock::Timestamp;
use crate::delivery;
use crate::delivery::Counts;
use crate::id::CampaignId;
use crate::recipient::Audience;
use crate::web::{Caller, FieldError, Json, List, NewId, Paging, Path, Problem, Query, Role, check, given};

/// The routes of campaigns.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_campaign, list_campaigns))
        .routes(routes!(get_campaign, change_campaign, delete_campaign))
        .routes(routes!(lines::add_campaign_recipients))
        .routes(routes!(life::start_campaign))
        .routes(routes!(life::pause_campaign))
        .routes(routes!(life::resume_campaign))
        .routes(routes!(life::cancel_campaign))
        .routes(routes!(life::retry_campaign))
        .routes(routes!(deliveries::list_campaign_deliveries))
        .routes(routes!(trial::test_campaign))
        .routes(routes!(trial::preview_campaign))
}

/// A campaign to be made.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CampaignFields)]
struct NewCampaign {
    /// What those who run it call it; at most 200 characters.
    #[serde(default)]
    name: Option<String>,
    /// The slug of the brand.
    brand: String,
    /// The slug of the topic; never one of class notice, which only a published policy uses.
    topic: String,
    /// The slug of the template. It is copied at the start: until then it may change.
    template: String,
    /// What the template sees as `data`; at most 64 kB.
    #[serde(default)]
    data: Option<Map<String, Value>>,
    /// Whom of the brand's people it is for; absent adds nobody but those added by lines.
    #[serde(default)]
    audience: Option<Audience>,
    /// Not before this moment; absent: at once when started.
    #[serde(default)]
    send_at: Option<Timestamp>,
    /// What is not sent by then expires.
    #[serde(default)]
    not_after: Option<Timestamp>,
    /// `Name <address>` of Reply-To, before the brand's.
    #[serde(default)]
    reply_to: Option<String>,
    /// How fast it may go at most.
    #[serde(default)]
    limit: Option<CampaignLimit>,
}

/// Changes to a campaign. What is absent stays; null takes away what may be absent. Brand and topic are fixed.
#[derive(Clone, Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct CampaignChanges {
    /// What those who run it call it.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    name: Option<Option<String>>,
    /// The slug of the template.
    #[serde(default)]
    #[schema(nullable = false)]
    template: Option<String>,
    /// What the template sees as `data`, as a whole.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Map<String, Value>>)]
    data: Option<Option<Map<String, Value>>>,
    /// Whom of the brand's people it is for.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Audience>)]
    audience: Option<Option<Audience>>,
    /// Not before this moment.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Timestamp>)]
    send_at: Option<Option<Timestamp>>,
    /// What is not sent by then expires.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Timestamp>)]
    not_after: Option<Option<Timestamp>>,
    /// `Name <address>` of Reply-To.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    reply_to: Option<Option<String>>,
    /// How fast it may go at most. It may change while the campaign runs or is paused, when nothing else does.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<CampaignLimit>)]
    limit: Option<Option<CampaignLimit>>,
}

impl CampaignChanges {
    /// Whether nothing but the limit changes.
    fn is_limit_alone(&self) -> bool {
        matches!(
            self,
            Self {
                name: None,
                template: None,
                data: None,
                audience: None,
                send_at: None,
                not_after: None,
                reply_to: None,
                limit: Some(_),
            }
        )
    }
}

/// A campaign and how far it has come.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Campaign)]
struct View {
    /// Its id.
    id: CampaignId,
    /// How far it has come.
    state: State,
    /// What those who run it call it.
    name: Option<String>,
    /// The slug of the brand.
    brand: String,
    /// The slug of the topic.
    topic: String,
    /// The slug of the template.
    template: String,
    /// What the template sees as `data`.
    data: Value,
    /// Whom of the brand's people it is for.
    audience: Option<Audience>,
    /// Not before.
    send_at: Option<Timestamp>,
    /// Not after.
    not_after: Option<Timestamp>,
    /// Reply-To.
    reply_to: Option<String>,
    /// How fast it may go at most.
    limit: Option<CampaignLimit>,
    /// Whether everybody of the audience has been found; until then `total` still grows.
    fanned_out: bool,
    /// How many deliveries are in which state; they add up to `total`.
    counts: Counts,
    /// How many were suppressed for which reason; they add up to `counts.suppressed`.
    suppressed_by: BTreeMap<String, u64>,
    /// Who made it.
    created_by: String,
    /// When it was made.
    created_at: Timestamp,
    /// When its first message could go.
    started_at: Option<Timestamp>,
    /// When nothing was left to do.
    finished_at: Option<Timestamp>,
}

async fn view(on: &impl ConnectionTrait, campaign: Campaign) -> Result<View, DbErr> {
    let (brand, topic) = rows::stream_of(on, &campaign).await?;
    show(on, campaign, brand.slug, topic.slug).await
}

async fn show(
    on: &impl ConnectionTrait,
    campaign: Campaign,
    brand: String,
    topic: String,
) -> Result<View, DbErr> {
    Ok(View {
        counts: delivery::rows::counts(on, campaign.content_id).await?,
        suppressed_by: delivery::rows::suppressed_by(on, campaign.content_id).await?,
        audience: campaign.audience()?,
        limit: delivery::rows::limits::limits_of(on, &[campaign.content_id])
            .await?
            .get(&campaign.content_id)
            .and_then(CampaignLimit::of),
        id: campaign.id,
        state: campaign.state,
        name: campaign.name,
        brand,
        topic,
        template: campaign.template,
        data: campaign.data,
        send_at: campaign.send_at,
        not_after: campaign.not_after,
        reply_to: campaign.reply_to,
        fanned_out: campaign.fanned_out,
        created_by: campaign.created_by,
        created_at: campaign.created_at,
        started_at: campaign.started_at,
        finished_at: campaign.finished_at,
    })
}

impl From<CampaignError> for Problem {
    fn from(error: CampaignError) -> Self {
        match error {
            CampaignError::Flaws(flaws) => Self::fields(
                flaws
                    .into_iter()
                    .map(|flaw| FieldError { pointer: flaw.pointer.to_owned(), reason: flaw.reason })
                    .collect(),
            ),
            CampaignError::State(wrong) => Self::conflict(wrong.to_string()),
            CampaignError::HasRun => Self::conflict(
                "The campaign has run, and what it sent is evidence. It stays; its deliveries show what was sent.",
            ),
            CampaignError::Gone => Self::not_found("campaign"),
            CampaignError::Db(error) => error.into(),
        }
    }
}

/// The campaign, when the caller may see it.
async fn seen(app: &App, caller: &Caller, id: CampaignId) -> Result<(Campaign, Brand, Topic), Problem> {
    caller.must_be(&[Role::Marketer, Role::Auditor])?;
    let found = rows::find(app.db.reads(), id).await?;
    let campaign = found
        .filter(|campaign| caller.sees(campaign.brand_id))
        .ok_or_else(|| Problem::not_found("campaign"))?;
    let (brand, topic) = rows::stream_of(app.db.reads(), &campaign).await?;
    Ok((campaign, brand, topic))
}

/// The campaign, when the caller may change it.
async fn changeable(app: &App, caller: &Caller, id: CampaignId) -> Result<(Campaign, Brand, Topic), Problem> {
    caller.must_be(&[Role::Marketer])?;
    let found = seen(app, caller, id).await?;
    may_change(caller, &found.2)?;
    Ok(found)
}

fn may_change(caller: &Caller, topic: &Topic) -> Result<(), Problem> {
    if caller.role == Role::Marketer && !topic.class.can_be_refused() {
        return Err(Problem::forbidden(format!(
            "A key of role marketer may run campaigns on topics that can be refused only; {:?} is of class {}.",
            topic.slug, topic.class
        )));
    }
    Ok(())
}

/// Make a campaign, as a draft.
///
/// For marketers (topics that can be refused only) and admins.
#[utoipa::path(post, path = "/campaigns", tag = "campaigns", request_body = NewCampaign, responses(
    (status = 201, description = "The draft", body = View),
    (status = 422, description = "A field is wrong: among others a brand without postal address, a topic of class \
        notice, a template that is not there or may not serve the topic's class", body = Problem),
))]
async fn create_campaign(
    Shared(app): Shared<App>,
    caller: Caller,
    NewId(id): NewId,
    Json(body): Json<NewCampaign>,
) -> Result<(StatusCode, Json<View>), Problem> {
    caller.must_be(&[Role::Marketer])?;
    let mut errors = Vec::new();
    check::slug("/brand", &body.brand, &mut errors);
    check::slug("/topic", &body.topic, &mut errors);
    check::slug("/template", &body.template, &mut errors);
    let limit = body.limit.map(|limit| limit.checked(&mut errors));
    check::done(errors)?;
    let draft = Draft {
        name: body.name,
        brand: body.brand,
        topic: body.topic,
        template: body.template,
        data: body.data.unwrap_or_default(),
        audience: body.audience,
        send_at: body.send_at,
        not_after: body.not_after,
        reply_to: body.reply_to,
    };
    allowed(&app, &caller, &draft).await?;
    let txn = app.db.begin().await?;
    let repeated = rows::find(&*txn, CampaignId(id)).await?.is_some();
    let campaign = rows::create(&txn, &app.db, CampaignId(id), &draft, &caller.actor).await?;
    if limit.is_some() && !repeated {
        rows::limit(&txn, &app.db, campaign.id, limit.as_ref()).await?;
    }
    let detail = json!({ "brand": draft.brand, "topic": draft.topic, "template": draft.template });
    record(&*txn, &app.db, &caller.actor, "campaign.create", &campaign.id.to_string(), detail).await?;
    let view = view(&*txn, campaign).await?;
    txn.commit().await?;
    Ok((StatusCode::CREATED, Json(view)))
}

/// What the key may not do is refused before anything else is said about the fields.
async fn allowed(app: &App, caller: &Caller, draft: &Draft) -> Result<(), Problem> {
    let Some(brand) = brand::rows::find(app.db.reads(), &draft.brand).await? else { return Ok(()) };
    if !caller.sees(brand.id) {
        return Err(Problem::field("/brand", format!("there is no brand {:?}", draft.brand)));
    }
    match brand::rows::find_topic(app.db.reads(), brand.id, &draft.topic).await? {
        Some(topic) if topic.class != crate::decision::Class::Notice => may_change(caller, &topic),
        _ => Ok(()),
    }
}

/// Which campaigns.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Of the brand of this slug.
    brand: Option<String>,
    /// In this state.
    state: Option<State>,
}

/// Campaigns, the newest first.
#[utoipa::path(get, path = "/campaigns", tag = "campaigns", params(Which, Paging), responses(
    (status = 200, description = "A page of campaigns", body = List<View>),
))]
async fn list_campaigns(
    Shared(app): Shared<App>,
    caller: Caller,
    Query(which): Query<Which>,
    paging: Paging,
) -> Result<Json<List<View>>, Problem> {
    caller.must_be(&[Role::Marketer, Role::Auditor])?;
    let on = app.db.reads();
    let mut brand = caller.brand;
    if let Some(slug) = &which.brand {
        let found = brand::rows::find(on, slug).await?.filter(|found| caller.sees(found.id));
        let none = || Problem::field("brand", format!("there is no brand {slug:?}"));
        brand = Some(found.ok_or_else(none)?.id);
    }
    let rows = rows::list(on, brand, which.state, paging.after_key()?, paging.fetch()).await?;
    let List { items, next } = List::page(rows, &paging, |row| row.id.to_string(), |row| row);
    let mut views = Vec::with_capacity(items.len());
    for campaign in items {
        views.push(view(on, campaign).await?);
    }
    Ok(Json(List { items: views, next }))
}

/// One campaign with its counts.
#[utoipa::path(get, path = "/campaigns/{id}", tag = "campaigns",
    params(("id" = CampaignId, Path, description = "The campaign")),
    responses(
        (status = 200, description = "The campaign", body = View),
        (status = 404, description = "There is no such campaign", body = Problem),
    ))]
async fn get_campaign(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<CampaignId>,
) -> Result<Json<View>, Problem> {
    let (campaign, brand, topic) = seen(&app, &caller, id).await?;
    Ok(Json(show(app.db.reads(), campaign, brand.slug, topic.slug).await?))
}

/// Change a draft or a scheduled campaign, or the limit of one that runs or is paused.
///
/// A scheduled campaign was frozen when it was started; a change of template, data or reply_to freezes it anew.
#[utoipa::path(patch, path = "/campaigns/{id}", tag = "campaigns", request_body = CampaignChanges,
    params(("id" = CampaignId, Path, description = "The campaign")),
    responses(
        (status = 200, description = "The campaign", body = View),
        (status = 409, description = "It is neither draft nor scheduled, and more than its limit would change; or it is \
            finished or cancelled", body = Problem),
    ))]
async fn change_campaign(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<CampaignId>,
    Json(body): Json<CampaignChanges>,
) -> Result<Json<View>, Problem> {
    changeable(&app, &caller, id).await?;
    let mut errors = Vec::new();
    if let Some(template) = &body.template {
        check::slug("/template", template, &mut errors);
    }
    let limit = body.limit.map(|limit| limit.map(|limit| limit.checked(&mut errors)));
    check::done(errors)?;
    let new_deadline = body.not_after.is_some();
    let limit_alone = body.is_limit_alone();
    let txn = app.db.begin().await?;
    if let Some(limit) = &limit {
        rows::limit(&txn, &app.db, id, limit.as_ref()).await?;
    }
    if !limit_alone {
        rows::edit(&txn, &app.db, id, |draft| lay_over(draft, body)).await?;
    }
    let campaign = rows::find(&*txn, id).await?.ok_or(CampaignError::Gone)?;
    record(&*txn, &app.db, &caller.actor, "campaign.change", &id.to_string(), json!({})).await?;
    txn.commit().await?;
    if new_deadline {
        rows::move_deadline(&app.db, campaign.id).await?;
    }
    Ok(Json(view(app.db.reads(), campaign).await?))
}

fn lay_over(draft: &mut Draft, changes: CampaignChanges) {
    if let Some(name) = changes.name {
        draft.name = name;
    }
    if let Some(template) = changes.template {
        draft.template = template;
    }
    if let Some(data) = changes.data {
        draft.data = data.unwrap_or_default();
    }
    if let Some(audience) = changes.audience {
        draft.audience = audience;
    }
    if let Some(send_at) = changes.send_at {
        draft.send_at = send_at;
    }
    if let Some(not_after) = changes.not_after {
        draft.not_after = not_after;
    }
    if let Some(reply_to) = changes.reply_to {
        draft.reply_to = reply_to;
    }
}

/// Delete a campaign that never ran: a draft, or one that was cancelled before its time.
#[utoipa::path(delete, path = "/campaigns/{id}", tag = "campaigns",
    params(("id" = CampaignId, Path, description = "The campaign")),
    responses(
        (status = 204, description = "It is gone, with its lines"),
        (status = 409, description = "It has run, or is about to: cancel it instead", body = Problem),
    ))]
async fn delete_campaign(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<CampaignId>,
) -> Result<StatusCode, Problem> {
    changeable(&app, &caller, id).await?;
    rows::delete(&app.db, id, async |txn| {
        record(&**txn, &app.db, &caller.actor, "campaign.delete", &id.to_string(), json!({})).await
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
