//! `/brands/{brand}`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{Brand, MAX_LINE, MAX_NAME, put_status, rows, seen};
use crate::access;
use crate::app::App;
use crate::brand::{Image, Logo, Mailbox, lint};
use crate::clock::Timestamp;
use crate::id::BrandId;
use crate::message::alignment;
use crate::web::{Caller, FieldError, Json, List, Paging, Path, Problem, check};

/// Most origins of a brand.
const MAX_ORIGINS: usize = 20;

/// What one click on an unsubscribe link stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OneClickScope {
    /// Whatever can be refused, of every brand here.
    #[default]
    All,
    /// Whatever can be refused, of this brand.
    Brand,
    /// The topic of the message.
    Topic,
}

/// A brand as it is to be; what is absent is empty.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BrandBody {
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
    /// Domain of this brand's envelope senders; of the organization of `from` and `notice_from`, unless a DKIM key signs
    /// for these.
    bounce_domain: Option<String>,
    /// Colour of its pages and mail, `#rrggbb`.
    color: Option<String>,
    /// Its logo: a PNG, JPEG, GIF or WebP of at most 256 kB and 2000 by 2000 pixels, as a data URI; or the URL at which
    /// a GET shows it.
    #[schema(example = "data:image/png;base64,iVBORw0KGgo=")]
    logo: Option<String>,
    /// Origins of its own web pages, such as `https://acme.example`.
    origins: Option<Vec<String>>,
    /// What one click stops; `all` when absent.
    one_click_scope: Option<OneClickScope>,
}

/// A brand.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Brand)]
pub(super) struct BrandView {
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
    /// Where its logo is served.
    logo: Option<String>,
    /// Origins of its own web pages.
    #[schema(value_type = Vec<String>)]
    origins: serde_json::Value,
    /// What one click stops: `all`, `brand` or `topic`.
    #[schema(value_type = OneClickScope)]
    one_click_scope: String,
    /// What hinders nothing but is better mended, such as a sender whose name says that nobody reads answers.
    warnings: Vec<FieldError>,
    /// When it was made.
    created_at: Timestamp,
    /// When it was last written.
    updated_at: Timestamp,
}

impl BrandView {
    fn of(app: &App, brand: Brand) -> Self {
        let logo = brand.logo_url(&app.settings.base_url);
        Self {
            warnings: warnings(&brand),
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
            logo,
            origins: brand.origins,
            one_click_scope: brand.one_click_scope,
            created_at: brand.created_at,
            updated_at: brand.updated_at,
        }
    }
}

/// Answers go to Reply-To where there is one, else to who a message is from.
fn warnings(brand: &Brand) -> Vec<FieldError> {
    let answered = match &brand.reply_to {
        Some(reply_to) => vec![("/reply_to", reply_to)],
        None => [("/from", Some(&brand.from_mailbox)), ("/notice_from", brand.notice_from.as_ref())]
            .into_iter()
            .filter_map(|(pointer, text)| text.map(|text| (pointer, text)))
            .collect(),
    };
    answered
        .into_iter()
        .filter(|(_, text)| Mailbox::parse(text).is_ok_and(|mailbox| lint::unanswered(&mailbox.address)))
        .map(|(pointer, _)| FieldError {
            pointer: pointer.to_owned(),
            reason: "nobody seems to read what is sent there; people answer, and mailbox providers distrust who cannot be \
                     answered: use an address that somebody reads, or set reply_to"
                .to_owned(),
        })
        .collect()
}

/// List brands.
///
/// By slug, archived ones left out.
#[utoipa::path(get, path = "/brands", tag = "brands", params(Paging), responses((status = 200, body = List<BrandView>)))]
pub(super) async fn list_brands(
    State(app): State<App>,
    caller: Caller,
    paging: Paging,
) -> Result<Json<List<BrandView>>, Problem> {
    let after: Option<String> = paging.after_key()?;
    let brands = rows::list(app.db.reads(), caller.brand, after.as_deref(), paging.fetch()).await?;
    Ok(Json(List::page(brands, &paging, |brand| brand.slug.clone(), |brand| BrandView::of(&app, brand))))
}

/// Show a brand.
#[utoipa::path(
    get, path = "/brands/{brand}", tag = "brands", params(("brand" = String, Path, description = "Slug of the brand")),
    responses((status = 200, body = BrandView))
)]
pub(super) async fn get_brand(
    State(app): State<App>,
    caller: Caller,
    Path(slug): Path<String>,
) -> Result<Json<BrandView>, Problem> {
    seen(&app, &caller, &slug).await.map(|brand| Json(BrandView::of(&app, brand)))
}

/// Make or change a brand.
///
/// What is absent is empty afterwards. An archived brand is back.
#[utoipa::path(
    put, path = "/brands/{brand}", tag = "brands", params(("brand" = String, Path, description = "Slug of the brand")),
    request_body = BrandBody,
    responses((status = 200, body = BrandView), (status = 201, description = "Made", body = BrandView))
)]
pub(super) async fn put_brand(
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
    let kept = kept_logo(&app, &slug, body.logo.as_deref()).await?;
    let (wanted, image) = checked_brand(slug, body, kept)?;
    check_alignment(&app, &wanted)?;
    let txn = app.db.begin().await?;
    if let Some(image) = image {
        rows::keep_logo(&txn, &app.db, image).await?;
    }
    let (brand, made) = rows::put(&txn, &app.db, wanted).await?;
    let subject = format!("brand:{}", brand.slug);
    let view = BrandView::of(&app, brand);
    let detail = json!({ "made": made, "brand": view });
    access::rows::record(&*txn, &app.db, &caller.actor, "brand.put", &subject, detail).await?;
    txn.commit().await?;
    for warning in &view.warnings {
        tracing::warn!(
            brand = view.brand,
            field = warning.pointer,
            "nobody seems to read answers to this brand's mail"
        );
    }
    Ok((put_status(made), Json(view)).into_response())
}

/// Archive a brand.
///
/// It is not shown, and nothing new is sent with it; campaigns started before go on unless they are cancelled. Its
/// opt-outs stay.
#[utoipa::path(
    delete, path = "/brands/{brand}", tag = "brands",
    params(("brand" = String, Path, description = "Slug of the brand")), responses((status = 204, description = "Archived"))
)]
pub(super) async fn delete_brand(
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

/// The logo that this text names as [`BrandView`] shows it, so that what was read can be written again.
async fn kept_logo(app: &App, slug: &str, text: Option<&str>) -> Result<Option<Logo>, Problem> {
    let Some(text) = text.filter(|text| text.starts_with("http")) else { return Ok(None) };
    let on = app.db.reads();
    let program = &app.settings.base_url;
    let stored = rows::find(on, slug).await?;
    let bases = [program.as_str(), stored.as_ref().map_or(program.as_str(), |brand| brand.base(program))];
    let Some(logo) = Logo::at(text, &bases) else { return Ok(None) };
    Ok(rows::logo(on, &logo).await?.map(|_| logo))
}

/// Refuses what every receiver that checks DMARC would refuse.
fn check_alignment(app: &App, brand: &Brand) -> Result<(), Problem> {
    let default = app.settings.bounce_domain.as_deref();
    alignment::check(brand, default, &app.dkim_keys).map_err(|misaligned| {
        let which = if misaligned.own { "" } else { "is empty, so TIDINGS_BOUNCE_DOMAIN is used, and " };
        Problem::fields(vec![FieldError {
            pointer: "/bounce_domain".to_owned(),
            reason: format!("{which}{misaligned}"),
        }])
    })
}

fn checked_brand(
    slug: String,
    body: BrandBody,
    kept: Option<Logo>,
) -> Result<(Brand, Option<Image>), Problem> {
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
    let mut image = None;
    if let Some(text) = body.logo.filter(|_| kept.is_none()) {
        match Image::from_data_uri(&text) {
            Ok(read) => image = Some(read),
            Err(reason) => check::wrong("/logo", reason, &mut errors),
        }
    }
    let origins = body.origins.unwrap_or_default();
    if origins.len() > MAX_ORIGINS {
        check::wrong("/origins", format!("has more than {MAX_ORIGINS} entries"), &mut errors);
    }
    for (n, text) in origins.iter().enumerate().take(MAX_ORIGINS) {
        check::origin(&format!("/origins/{n}"), text, &mut errors);
    }
    check::done(errors)?;
    let logo = image.as_ref().map(|image| image.logo.clone()).or(kept);
    let brand = Brand {
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
        logo: logo.map(|logo| logo.name().to_owned()),
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
    };
    Ok((brand, image))
}
