//! `/templates`. Everyone with a key reads what it sees; marketers and admin change them, and admin alone those that
//! may serve what cannot be refused.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::rows::{self, Template, Wanted};
use super::{Part, Warning, content, warning};
use crate::app::App;
use crate::clock::Timestamp;
use crate::decision::Class;
use crate::id::BrandId;
use crate::web::{Caller, FieldError, Json, List, Paging, Path, Problem, Role, check};
use crate::{access, brand};

/// Longest subject template in characters.
const MAX_SUBJECT: usize = 500;
/// Longest part in characters; the bound in octets is kept where templates are read.
const MAX_PART: usize = 256 * 1024;

/// The calls about templates.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_templates)).routes(routes!(
        get_template,
        put_template,
        delete_template
    ))
}

/// A template as it is to be, in Handlebars.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateBody {
    /// The subject, one line.
    #[schema(example = "Hello {{name}}")]
    subject: String,
    /// The HTML part; without `<html>` it is put into the base layout, which makes a link of class `button` a button and
    /// shows `data.preheader` beside the subject in lists of messages. What `<style>` holds is written at the elements,
    /// too, when it is frozen.
    #[schema(example = "<p>Hello {{name}}, see {{data.offer}}.</p>")]
    html: String,
    /// The text part; made from the HTML when absent.
    text: Option<String>,
    /// Slug of the one brand that may use it; every brand when absent.
    brand: Option<String>,
    /// Which classes it may serve; those that can be refused when absent.
    classes: Option<Vec<Class>>,
}

/// A template.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Template)]
pub struct TemplateView {
    /// Its slug.
    template: String,
    /// The subject.
    subject: String,
    /// The HTML part.
    html: String,
    /// The text part; null when it is made from the HTML.
    text: Option<String>,
    /// Slug of the one brand that may use it.
    brand: Option<String>,
    /// Which classes it may serve.
    classes: Vec<Class>,
    /// What could be better about its HTML part; it is sent as it is.
    warnings: Vec<Warning>,
    /// When it was made.
    created_at: Timestamp,
    /// When it was last written.
    updated_at: Timestamp,
}

/// A template without its parts.
#[derive(Debug, Serialize, ToSchema)]
pub struct TemplateSummary {
    /// Its slug.
    template: String,
    /// The subject.
    subject: String,
    /// Which classes it may serve.
    classes: Vec<Class>,
    /// When it was made.
    created_at: Timestamp,
    /// When it was last written.
    updated_at: Timestamp,
}

/// List templates.
///
/// By slug, without their parts.
#[utoipa::path(
    get, path = "/templates", tag = "templates", params(Paging),
    responses((status = 200, body = List<TemplateSummary>))
)]
async fn list_templates(
    State(app): State<App>,
    caller: Caller,
    paging: Paging,
) -> Result<Json<List<TemplateSummary>>, Problem> {
    let after: Option<String> = paging.after_key()?;
    let templates = rows::list(app.db.reads(), caller.brand, after.as_deref(), paging.fetch()).await?;
    let show = |template: Template| TemplateSummary {
        classes: template.classes(),
        template: template.slug,
        subject: template.subject,
        created_at: template.created_at,
        updated_at: template.updated_at,
    };
    Ok(Json(List::page(templates, &paging, |template| template.slug.clone(), show)))
}

/// Show a template.
#[utoipa::path(
    get, path = "/templates/{template}", tag = "templates",
    params(("template" = String, Path, description = "Slug of the template")),
    responses((status = 200, body = TemplateView))
)]
async fn get_template(
    State(app): State<App>,
    caller: Caller,
    Path(slug): Path<String>,
) -> Result<Json<TemplateView>, Problem> {
    let template = rows::find(app.db.reads(), &slug).await?;
    let template =
        template.filter(|template| sees(&caller, template)).ok_or_else(|| Problem::not_found("template"))?;
    view(&app, template).await.map(Json)
}

/// Make or change a template.
///
/// What a running campaign froze stays as it was. One that does not parse is refused with line and column, and so is one
/// that would include itself, directly or through others.
#[utoipa::path(
    put, path = "/templates/{template}", tag = "templates",
    params(("template" = String, Path, description = "Slug of the template")), request_body = TemplateBody,
    responses((status = 200, body = TemplateView), (status = 201, description = "Made", body = TemplateView))
)]
async fn put_template(
    State(app): State<App>,
    caller: Caller,
    Path(slug): Path<String>,
    Json(body): Json<TemplateBody>,
) -> Result<Response, Problem> {
    caller.must_be(&[Role::Marketer])?;
    let brand = brand_of(&app, &caller, body.brand.as_deref()).await?;
    let wanted = parsed(slug, body, brand).await?;
    may_change(&caller, &wanted.classes)?;
    let txn = app.db.begin().await?;
    if let Some(stored) = rows::find(&*txn, &wanted.slug).await? {
        if !owns(&caller, stored.brand_id) {
            return Err(Problem::conflict("This name is taken by a template that the key may not change."));
        }
        may_change(&caller, &stored.classes())?;
    }
    if let Some((part, through)) = rows::includes_itself(&*txn, &wanted).await? {
        let part = if part == Part::Text && wanted.text.is_none() { Part::Html } else { part };
        let reason = format!("includes {through:?}, by which the template would include itself");
        return Err(Problem::field(&format!("/{part}"), reason));
    }
    let (template, made) = rows::put(&txn, &app.db, wanted).await?;
    let subject = format!("template:{}", template.slug);
    let detail = json!({ "made": made, "classes": template.classes, "brand": template.brand_id });
    access::rows::record(&*txn, &app.db, &caller.actor, "template.put", &subject, detail).await?;
    txn.commit().await?;
    let status = if made { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(view(&app, template).await?)).into_response())
}

/// Delete a template.
///
/// What was frozen of it stays.
#[utoipa::path(
    delete, path = "/templates/{template}", tag = "templates",
    params(("template" = String, Path, description = "Slug of the template")),
    responses((status = 204, description = "Deleted"))
)]
async fn delete_template(
    State(app): State<App>,
    caller: Caller,
    Path(slug): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.must_be(&[Role::Marketer])?;
    let txn = app.db.begin().await?;
    let stored = rows::find(&*txn, &slug).await?;
    let stored =
        stored.filter(|stored| sees(&caller, stored)).ok_or_else(|| Problem::not_found("template"))?;
    if !owns(&caller, stored.brand_id) {
        return Err(Problem::forbidden("This template belongs to every brand; the key is bound to one."));
    }
    may_change(&caller, &stored.classes())?;
    rows::delete(&txn, stored.id).await?;
    let subject = format!("template:{slug}");
    access::rows::record(&*txn, &app.db, &caller.actor, "template.delete", &subject, json!({})).await?;
    txn.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether the key may use it: its brand's own and those of every brand.
fn sees(caller: &Caller, template: &Template) -> bool {
    template.brand_id.is_none_or(|brand| caller.sees(brand))
}

/// Whether the key may change what belongs to this brand, or to every one.
fn owns(caller: &Caller, brand: Option<BrandId>) -> bool {
    brand.map_or_else(|| caller.sees_every_brand(), |brand| caller.sees(brand))
}

/// What cannot be refused is written by admin alone.
fn may_change(caller: &Caller, classes: &[Class]) -> Result<(), Problem> {
    let refusable = classes.iter().all(|class| class.can_be_refused());
    if refusable || caller.role == Role::Admin {
        return Ok(());
    }
    Err(Problem::forbidden("Only admin changes a template that may serve messages which cannot be refused."))
}

async fn brand_of(app: &App, caller: &Caller, slug: Option<&str>) -> Result<Option<BrandId>, Problem> {
    let Some(slug) = slug else {
        if caller.sees_every_brand() {
            return Ok(None);
        }
        return Err(Problem::field("/brand", "is missing; this key makes templates of its own brand only"));
    };
    let found = brand::rows::find(app.db.reads(), slug).await?;
    let found = found.filter(|brand| brand.archived_at.is_none() && caller.sees(brand.id));
    found.map(|brand| Some(brand.id)).ok_or_else(|| Problem::field("/brand", "there is no such brand"))
}

async fn parsed(slug: String, body: TemplateBody, brand: Option<BrandId>) -> Result<Wanted, Problem> {
    let mut errors = Vec::new();
    check::slug("template", &slug, &mut errors);
    check::one_line("/subject", &body.subject, MAX_SUBJECT, &mut errors);
    check::lines("/html", &body.html, MAX_PART, &mut errors);
    if body.html.trim().is_empty() {
        check::wrong("/html", "must not be empty", &mut errors);
    }
    check::lines("/text", body.text.as_deref().unwrap_or_default(), MAX_PART, &mut errors);
    let mut classes = body
        .classes
        .unwrap_or_else(|| Class::ALL.into_iter().filter(|class| class.can_be_refused()).collect());
    classes.sort_unstable();
    classes.dedup();
    if classes.is_empty() {
        check::wrong("/classes", "must name at least one class", &mut errors);
    }
    check::done(errors)?;
    let wanted = Wanted { slug, subject: body.subject, html: body.html, text: body.text, brand, classes };
    // A long template takes a while to parse.
    let work = move || {
        let errors = flaws(&wanted);
        (wanted, errors)
    };
    let (wanted, errors) = tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a template could not be read");
        Problem::unavailable()
    })?;
    check::done(errors)?;
    Ok(wanted)
}

fn flaws(wanted: &Wanted) -> Vec<FieldError> {
    let parts = [
        (Part::Subject, Some(&wanted.subject)),
        (Part::Html, Some(&wanted.html)),
        (Part::Text, wanted.text.as_ref()),
    ];
    let sources = parts.into_iter().filter_map(|(part, source)| Some((part, source?)));
    let flaw = |(part, source): (Part, &String)| {
        let error = content::check_part(&wanted.slug, part, source).err()?;
        let reason = format!("line {}, column {}: {}", error.line, error.column, error.reason);
        Some(FieldError { pointer: format!("/{part}"), reason })
    };
    sources.filter_map(flaw).collect()
}

async fn view(app: &App, template: Template) -> Result<TemplateView, Problem> {
    let brand = match template.brand_id {
        Some(id) => brand::rows::by_id(app.db.reads(), id).await?.map(|brand| brand.slug),
        None => None,
    };
    Ok(TemplateView {
        classes: template.classes(),
        warnings: warning::of_template(&template.html),
        template: template.slug,
        subject: template.subject,
        html: template.html,
        text: template.text,
        brand,
        created_at: template.created_at,
        updated_at: template.updated_at,
    })
}
