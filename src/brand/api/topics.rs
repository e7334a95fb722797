//! `/brands/{brand}/topics/{topic}`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{Brand, MAX_LINE, MAX_NAME, put_status, rows, seen};
use crate::access;
use crate::app::App;
use crate::brand::Topic;
use crate::clock::Timestamp;
use crate::decision::Class;
use crate::id::{BrandId, TopicId};
use crate::message;
use crate::web::{Caller, FieldError, Json, List, Paging, Path, Problem, check};

/// Who gets a topic of class marketing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Consent {
    /// Whoever did not opt out.
    #[default]
    OptOut,
    /// Only who confirmed.
    OptIn,
}

/// A topic as it is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TopicBody {
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
pub(super) struct TopicView {
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

/// List the topics of a brand.
///
/// By slug, archived ones left out.
#[utoipa::path(
    get, path = "/brands/{brand}/topics", tag = "brands",
    params(("brand" = String, Path, description = "Slug of the brand"), Paging),
    responses((status = 200, body = List<TopicView>))
)]
pub(super) async fn list_topics(
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
pub(super) async fn get_topic(
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
pub(super) async fn put_topic(
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
/// It is not shown, and nothing new is sent with it; campaigns started before go on unless they are cancelled. Its
/// opt-outs stay.
#[utoipa::path(
    delete, path = "/brands/{brand}/topics/{topic}", tag = "brands",
    params(("brand" = String, Path, description = "Slug of the brand"), ("topic" = String, Path, description = "Slug of the topic")),
    responses((status = 204, description = "Archived"))
)]
pub(super) async fn delete_topic(
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

async fn standing_topic(app: &App, brand: &Brand, slug: &str) -> Result<Topic, Problem> {
    let topic = rows::find_topic(app.db.reads(), brand.id, slug).await?;
    topic.filter(|topic| topic.archived_at.is_none()).ok_or_else(|| Problem::not_found("topic"))
}

fn class_is_fixed(class: Class) -> Problem {
    let reason = format!(
        "is fixed as {class}, because messages of this topic were made already; make another topic for another class"
    );
    let mut problem = Problem::conflict(format!("The class {reason}."));
    problem.errors = vec![FieldError { pointer: "/class".to_owned(), reason }];
    problem
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
