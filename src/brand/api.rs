//! `/brands` and their topics. Everyone with a key reads what it sees; only admin changes it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Brand, Topic, rows};
use crate::access;
use crate::app::App;
use crate::clock::Timestamp;
use crate::decision::Class;
use crate::id::{BrandId, TopicId};
use crate::message;
use crate::web::{Caller, FieldError, Json, List, Paging, Path, Problem, check};

/// Longest name of a brand or topic in characters.
const MAX_NAME: usize = 200;
/// Longest other line in characters.
const MAX_LINE: usize = 500;
/// Most origins of a brand.
const MAX_ORIGINS: usize = 20;

/// The calls about brands and topics.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_brands))
        .routes(routes!(get_brand, put_brand, delete_brand))
        .routes(routes!(list_topics))
        .routes(routes!(get_topic, put_topic, delete_topic))
}

/// What one click on an unsubscribe link stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OneClickScope {
    /// Whatever can be refused, of every brand here.
    #[default]
    All,
    /// Whatever can be refused, of this brand.
    Brand,
    /// The topic of the message.
    Topic,
}

/// Who gets a topic of class marketing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consent {
    /// Whoever did not opt out.
    #[default]
    OptOut,
    /// Only who confirmed.
    OptIn,
}

/// A brand as it is to be; what is absent is empty.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BrandBody {
    /// Its name in mail, one line of at most 200 characters.
    name: String,
    /// `Name <address>`: sends what can be refused, and the rest unless `notice_from` is set.
    #[schema(example = "Acme <news@acme.example>")]
    from: String,
    /// `Name <address>`: sends requested, service and notice mail.
    notice_from: Option<String>,
    /// `Name <address>` of Reply-To.
    reply_to: Option<String>,
    /// Postal address in one line; while it is empty, no campaign starts.
    postal_address: String,
    /// Telephone.
    phone: Option<String>,
    /// Web site.
    website: Option<String>,
    /// What this brand's links begin with, https unless loopback.
    base_url: Option<String>,
    /// Domain of this brand's envelope senders.
    bounce_domain: Option<String>,
    /// Colour of its pages and mail, `#rrggbb`.
    color: Option<String>,
    /// Its logo, an https URL.
    logo: Option<String>,
    /// Origins of its own web pages, such as `https://acme.example`.
    origins: Option<Vec<String>>,
    /// What one click stops; `all` when absent.
    one_click_scope: Option<OneClickScope>,
}

/// A brand.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Brand)]
pub struct BrandView {
    /// Its slug.
    brand: String,
    /// Its name in mail.
    name: String,
    /// `Name <address>`: sends what can be refused.
    from: String,
    /// `Name <address>`: sends requested, service and notice mail; `from` when null.
    notice_from: Option<String>,
    /// `Name <address>` of Reply-To.
    reply_to: Option<String>,
    /// Postal address.
    postal_address: String,
    /// Telephone.
    phone: Option<String>,
    /// Web site.
    website: Option<String>,
    /// What this brand's links begin with.
    base_url: Option<String>,
    /// Domain of this brand's envelope senders.
    bounce_domain: Option<String>,
    /// Colour of its pages and mail.
    color: Option<String>,
    /// Its logo.
    logo: Option<String>,
    /// Origins of its own web pages.
    #[schema(value_type = Vec<String>)]
    origins: serde_json::Value,
    /// What one click stops: `all`, `brand` or `topic`.
    #[schema(value_type = OneClickScope)]
    one_click_scope: String,
    /// When it was made.
    created_at: Timestamp,
    /// When it was last written.
    updated_at: Timestamp,
}

/// A topic as it is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TopicBody {
    /// Its name in mail, one line of at most 200 characters.
    name: String,
    /// Its class, fixed once anything was sent.
    class: Class,
    /// What it is about, in one line.
    description: Option<String>,
    /// Who gets it, for marketing alone; `opt_out` when absent.
    consent: Option<Consent>,
    /// Whether customers keep getting it after a wider opt-out, for relationship alone.
    customers_keep: Option<bool>,
}

/// A topic.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Topic)]
pub struct TopicView {
    /// The slug of its brand.
    brand: String,
    /// Its slug.
    topic: String,
    /// Its name in mail.
    name: String,
    /// Its class.
    class: Class,
    /// What it is about.
    description: Option<String>,
    /// Who gets it: `opt_out` or `opt_in`.
    #[schema(value_type = Consent)]
    consent: String,
    /// Whether customers keep getting it after a wider opt-out.
    customers_keep: bool,
    /// When it was made.
    created_at: Timestamp,
    /// When it was last written.
    updated_at: Timestamp,
}

impl From<Brand> for BrandView {
    fn from(brand: Brand) -> Self {
        Self {
            brand: brand.slug,
            name: brand.name,
            from: brand.from_mailbox,
            notice_from: brand.notice_from,
            reply_to: brand.reply_to,
            postal_address: brand.postal_address,
            phone: brand.phone,
            website: brand.website,
            base_url: brand.base_url,
            bounce_domain: brand.bounce_domain,
            color: brand.color,
            logo: brand.logo,
            origins: brand.origins,
            one_click_scope: brand.one_click_scope,
            created_at: brand.created_at,
            updated_at: brand.updated_at,
        }
    }
}

impl TopicView {
    fn of(brand: &str, topic: Topic) -> Self {
        Self {
            brand: brand.to_owned(),
            topic: topic.slug,
            name: topic.name,
            class: topic.class,
            description: topic.description,
            consent: topic.consent,
            customers_keep: topic.customers_keep,
            created_at: topic.created_at,
            updated_at: topic.updated_at,
        }
    }
}

/// List brands.
///
/// By slug, archived ones left out.
#[utoipa::path(get, path = "/brands", tag = "brands", params(Paging), responses((status = 200, body = List<BrandView>)))]
async fn list_brands(
    State(app): State<App>,
    caller: Caller,
    paging: Paging,
) -> Result<Json<List<BrandView>>, Problem> {
    let after: Option<String> = paging.after_key()?;
    let brands = rows::list(app.db.reads(), caller.brand, after.as_deref(), paging.fetch()).await?;
    Ok(Json(List::page(brands, &paging, |brand| brand.slug.clone(), BrandView::from)))
}

/// Show a brand.
#[utoipa::path(
    get, path = "/brands/{brand}", tag = "brands", params(("brand" = String, Path, description = "Slug of the brand")),
    responses((status = 200, body = BrandView))
)]
async fn get_brand(
    State(app): State<App>,
    caller: Caller,
    Path(slug): Path<String>,
) -> Result<Json<BrandView>, Problem> {
    seen(&app, &caller, &slug).await.map(|brand| Json(brand.into()))
}

/// Make or change a brand.
///
/// What is absent is empty afterwards. An archived brand is back.
#[utoipa::path(
    put, path = "/brands/{brand}", tag = "brands", params(("brand" = String, Path, description = "Slug of the brand")),
    request_body = BrandBody,
    responses((status = 200, body = BrandView), (status = 201, description = "Made", body = BrandView))
)]
async fn put_brand(
    State(app): State<App>,
    caller: Caller,
    Path(slug): Path<String>,
    Json(body): Json<BrandBody>,
) -> Result<Response, Problem> {
    caller.must_be(&[])?;
    if !caller.sees_every_brand() {
        // A key bound to a brand may change that one and make no other.
        seen(&app, &caller, &slug).await?;
    }
    let wanted = checked_brand(slug, body)?;
    let txn = app.db.begin().await?;
    let (brand, made) = rows::put(&txn, &app.db, wanted).await?;
    let subject = format!("brand:{}", brand.slug);
    let view = BrandView::from(brand);
    let detail = json!({ "made": made, "brand": view });
    access::rows::record(&*txn, &app.db, &caller.actor, "brand.put", &subject, detail).await?;
    txn.commit().await?;
    Ok((put_status(made), Json(view)).into_response())
}

/// Archive a brand.
///
/// It is not shown and not used any more; its opt-outs stay.
#[utoipa::path(
    delete, path = "/brands/{brand}", tag = "brands",
    params(("brand" = String, Path, description = "Slug of the brand")), responses((status = 204, description = "Archived"))
)]
async fn delete_brand(
    State(app): State<App>,
    caller: Caller,
    Path(slug): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.must_be(&[])?;
    let brand = seen(&app, &caller, &slug).await?;
    let txn = app.db.begin().await?;
    rows::archive(&txn, &app.db, brand.id).await?;
    let subject = format!("brand:{slug}");
    access::rows::record(&*txn, &app.db, &caller.actor, "brand.archive", &subject, json!({})).await?;
    txn.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List the topics of a brand.
///
/// By slug, archived ones left out.
#[utoipa::path(
    get, path = "/brands/{brand}/topics", tag = "brands",
    params(("brand" = String, Path, description = "Slug of the brand"), Paging),
    responses((status = 200, body = List<TopicView>))
)]
async fn list_topics(
    State(app): State<App>,
    caller: Caller,
    Path(slug): Path<String>,
    paging: Paging,
) -> Result<Json<List<TopicView>>, Problem> {
    let brand = seen(&app, &caller, &slug).await?;
    let after: Option<String> = paging.after_key()?;
    let topics = rows::topics_after(app.db.reads(), brand.id, after.as_deref(), paging.fetch()).await?;
    let show = |topic| TopicView::of(&brand.slug, topic);
    Ok(Json(List::page(topics, &paging, |topic| topic.slug.clone(), show)))
}

/// Show a topic.
#[utoipa::path(
    get, path = "/brands/{brand}/topics/{topic}", tag = "brands",
    params(("brand" = String, Path, description = "Slug of the brand"), ("topic" = String, Path, description = "Slug of the topic")),
    responses((status = 200, body = TopicView))
)]
async fn get_topic(
    State(app): State<App>,
    caller: Caller,
    Path((slug, topic)): Path<(String, String)>,
) -> Result<Json<TopicView>, Problem> {
    let brand = seen(&app, &caller, &slug).await?;
    let topic = standing_topic(&app, &brand, &topic).await?;
    Ok(Json(TopicView::of(&brand.slug, topic)))
}

/// Make or change a topic.
///
/// Its class is fixed once anything was made ready for sending in it. An archived topic is back.
#[utoipa::path(
    put, path = "/brands/{brand}/topics/{topic}", tag = "brands",
    params(("brand" = String, Path, description = "Slug of the brand"), ("topic" = String, Path, description = "Slug of the topic")),
    request_body = TopicBody,
    responses(
        (status = 200, body = TopicView), (status = 201, description = "Made", body = TopicView),
        (status = 409, description = "The class is fixed")
    )
)]
async fn put_topic(
    State(app): State<App>,
    caller: Caller,
    Path((slug, topic)): Path<(String, String)>,
    Json(body): Json<TopicBody>,
) -> Result<Response, Problem> {
    caller.must_be(&[])?;
    let brand = seen(&app, &caller, &slug).await?;
    let wanted = checked_topic(brand.id, topic, body)?;
    let txn = app.db.begin().await?;
    let stored = rows::lock_topic(&txn, brand.id, &wanted.slug).await?;
    if let Some(stored) = stored.filter(|stored| stored.class != wanted.class)
        && message::rows::topic_has_content(&*txn, stored.id).await?
    {
        return Err(class_is_fixed(stored.class));
    }
    let (topic, made) = rows::put_topic(&txn, &app.db, wanted).await?;
    let subject = format!("topic:{}/{}", brand.slug, topic.slug);
    let view = TopicView::of(&brand.slug, topic);
    let detail = json!({ "made": made, "topic": view });
    access::rows::record(&*txn, &app.db, &caller.actor, "topic.put", &subject, detail).await?;
    txn.commit().await?;
    Ok((put_status(made), Json(view)).into_response())
}

/// Archive a topic.
///
/// It is not shown and not used any more; its opt-outs stay.
#[utoipa::path(
    delete, path = "/brands/{brand}/topics/{topic}", tag = "brands",
    params(("brand" = String, Path, description = "Slug of the brand"), ("topic" = String, Path, description = "Slug of the topic")),
    responses((status = 204, description = "Archived"))
)]
async fn delete_topic(
    State(app): State<App>,
    caller: Caller,
    Path((slug, topic)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    caller.must_be(&[])?;
    let brand = seen(&app, &caller, &slug).await?;
    let topic = standing_topic(&app, &brand, &topic).await?;
    let txn = app.db.begin().await?;
    rows::archive_topic(&txn, &app.db, topic.id).await?;
    let subject = format!("topic:{}/{}", brand.slug, topic.slug);
    access::rows::record(&*txn, &app.db, &caller.actor, "topic.archive", &subject, json!({})).await?;
    txn.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The brand of this slug, if it is not archived and the caller sees it.
async fn seen(app: &App, caller: &Caller, slug: &str) -> Result<Brand, Problem> {
    let brand = rows::find(app.db.reads(), slug).await?;
    brand
        .filter(|brand| brand.archived_at.is_none() && caller.sees(brand.id))
        .ok_or_else(|| Problem::not_found("brand"))
}

async fn standing_topic(app: &App, brand: &Brand, slug: &str) -> Result<Topic, Problem> {
    let topic = rows::find_topic(app.db.reads(), brand.id, slug).await?;
    topic.filter(|topic| topic.archived_at.is_none()).ok_or_else(|| Problem::not_found("topic"))
}

fn put_status(made: bool) -> StatusCode {
    if made { StatusCode::CREATED } else { StatusCode::OK }
}

fn class_is_fixed(class: Class) -> Problem {
    let reason = format!(
        "is fixed as {class}, because messages of this topic were made already; make another topic for another class"
    );
    let mut problem = Problem::conflict(format!("The class {reason}."));
    problem.errors = vec![FieldError { pointer: "/class".to_owned(), reason }];
    problem
}

fn checked_brand(slug: String, body: BrandBody) -> Result<Brand, Problem> {
    let mut errors = Vec::new();
    check::slug("brand", &slug, &mut errors);
    check::one_line("/name", &body.name, MAX_NAME, &mut errors);
    let mut mailbox = |pointer: &str, text: Option<&String>| {
        text.and_then(|text| check::mailbox(pointer, text, &mut errors)).map(|mailbox| mailbox.to_string())
    };
    let from_mailbox = mailbox("/from", Some(&body.from)).unwrap_or_default();
    let notice_from = mailbox("/notice_from", body.notice_from.as_ref());
    let reply_to = mailbox("/reply_to", body.reply_to.as_ref());
    if !body.postal_address.is_empty() {
        check::one_line("/postal_address", &body.postal_address, MAX_LINE, &mut errors);
    }
    check::optional_line("/phone", body.phone.as_deref(), 50, &mut errors);
    if let Some(text) = &body.website {
        check::web("/website", text, &mut errors);
    }
    let base_url = body.base_url.as_ref().and_then(|text| check::base_url("/base_url", text, &mut errors));
    if let Some(text) = &body.bounce_domain {
        check::domain("/bounce_domain", text, &mut errors);
    }
    if let Some(text) = &body.color {
        check::color("/color", text, &mut errors);
    }
    if let Some(text) = &body.logo {
        check::https("/logo", text, &mut errors);
    }
    let origins = body.origins.unwrap_or_default();
    if origins.len() > MAX_ORIGINS {
        check::wrong("/origins", format!("has more than {MAX_ORIGINS} entries"), &mut errors);
    }
    for (n, text) in origins.iter().enumerate().take(MAX_ORIGINS) {
        check::origin(&format!("/origins/{n}"), text, &mut errors);
    }
    check::done(errors)?;
    Ok(Brand {
        id: BrandId::new(),
        slug,
        name: body.name,
        from_mailbox,
        notice_from,
        reply_to,
        postal_address: body.postal_address,
        phone: body.phone,
        website: body.website,
        base_url,
        bounce_domain: body.bounce_domain.map(|domain| domain.to_ascii_lowercase()),
        color: body.color,
        logo: body.logo,
        origins: json!(origins),
        one_click_scope: match body.one_click_scope.unwrap_or_default() {
            OneClickScope::All => "all",
            OneClickScope::Brand => "brand",
            OneClickScope::Topic => "topic",
        }
        .to_owned(),
        // The database's clock says when.
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        archived_at: None,
    })
}

fn checked_topic(brand_id: BrandId, slug: String, body: TopicBody) -> Result<Topic, Problem> {
    let mut errors = Vec::new();
    check::slug("topic", &slug, &mut errors);
    check::one_line("/name", &body.name, MAX_NAME, &mut errors);
    check::optional_line("/description", body.description.as_deref(), MAX_LINE, &mut errors);
    let consent = body.consent.unwrap_or_default();
    if consent == Consent::OptIn && body.class != Class::Marketing {
        check::wrong("/consent", "opt_in is for topics of class marketing", &mut errors);
    }
    let customers_keep = body.customers_keep.unwrap_or(false);
    if customers_keep && body.class != Class::Relationship {
        check::wrong("/customers_keep", "is for topics of class relationship", &mut errors);
    }
    check::done(errors)?;
    Ok(Topic {
        id: TopicId::new(),
        brand_id,
        slug,
        name: body.name,
        class: body.class,
        description: body.description,
        consent: match consent {
            Consent::OptOut => "opt_out",
            Consent::OptIn => "opt_in",
        }
        .to_owned(),
        customers_keep,
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        archived_at: None,
    })
}
