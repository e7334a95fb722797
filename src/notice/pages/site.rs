//! `/notices/current.json` and `/notices/banner.js`: what a brand's own pages show of changes.
//!
//! A change is named from its publication until as many days after it took effect as the policy says. Minor ones are named
//! too, without placements, since no banner is for them. Anybody may read it; a browser lets a page of another origin do
//! so only when the brand names that origin as its own. No cookie is set and none is read, nobody is counted.

use std::collections::HashMap;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sea_orm::{ConnectionTrait, DbErr};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::app::App;
use crate::brand::{self, Brand};
use crate::clock::{Local, Timestamp};
use crate::id::VersionId;
use crate::notice::banner::SCRIPT;
use crate::notice::question::{self, Question};
use crate::notice::rows::of_version;
use crate::notice::rows::site::{Shown, shown, tellings, texts};
use crate::notice::text::pick;
use crate::policy::{self, Change};
use crate::web::{Problem, Query};

/// For how long what stands there now may be kept: a change that is called off is gone from every page a minute later.
const FEED_CACHE: &str = "public, max-age=60";
const SCRIPT_CACHE: &str = "public, max-age=86400";
/// For how long a browser may remember what it was allowed.
const PREFLIGHT_SECONDS: &str = "600";

/// The routes.
pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/notices/current.json", get(current).options(preflight))
        .route("/notices/banner.js", get(banner))
}

#[derive(Deserialize)]
struct Asked {
    brand: String,
    lang: Option<String>,
}

/// A change as a page shows it.
#[derive(Serialize)]
struct Item {
    policy: String,
    version: i64,
    title: String,
    change: Change,
    /// What people are asked now by the link in the message that tells them: `nothing`, `approval` or `use`.
    asks: &'static str,
    summary: String,
    published_at: Timestamp,
    effective_at: Timestamp,
    /// The day that people read, by the offset that was given with it.
    effective_date: String,
    url: String,
    changes_url: String,
    placements: Value,
}

async fn current(
    State(app): State<App>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let brand = known(&app, &asked.brand).await?;
    let notices = changes(&app, &brand, asked.lang.as_deref().unwrap_or_default()).await?;
    let body = json!({ "notices": notices }).to_string();
    let mut response = cached(&headers, body, "application/json", FEED_CACHE);
    share(&mut response, &brand, &headers);
    Ok(response)
}

async fn preflight(
    State(app): State<App>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let brand = known(&app, &asked.brand).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    if share(&mut response, &brand, &headers) {
        let allowed = response.headers_mut();
        let methods = HeaderValue::from_static("GET, HEAD");
        allowed.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        let fields = HeaderValue::from_static("if-none-match");
        allowed.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, fields);
        allowed.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECONDS));
    }
    Ok(response)
}

async fn banner(headers: HeaderMap) -> Response {
    let mut response = cached(&headers, SCRIPT.clone(), "text/javascript; charset=utf-8", SCRIPT_CACHE);
    // Whose page it is on is for the feed to judge.
    let policy = HeaderName::from_static("cross-origin-resource-policy");
    response.headers_mut().insert(policy, HeaderValue::from_static("cross-origin"));
    response
}

async fn known(app: &App, slug: &str) -> Result<Brand, Problem> {
    let brand = brand::rows::find(app.db.reads(), slug).await?;
    brand.filter(|brand| brand.archived_at.is_none()).ok_or_else(|| Problem::not_found("brand"))
}

/// What is shown of a brand's changes, in this language as far as they are told in it.
async fn changes(app: &App, brand: &Brand, language: &str) -> Result<Vec<Item>, DbErr> {
    let on = app.db.reads();
    let shown = shown(on, &app.db, brand.id).await?;
    let versions: Vec<VersionId> = shown.iter().map(|shown| shown.version_id).collect();
    let (texts, tellings) = (texts(on, &versions).await?, tellings(on, &versions).await?);
    let base = brand.base(&app.settings.base_url);
    let now = app.db.read_clock(on).await?;
    let mut asks = HashMap::new();
    for shown in &shown {
        asks.insert(shown.version_id, asked(on, shown, now).await?);
    }
    let item = |shown: Shown| {
        let own: Vec<_> = texts.iter().filter(|text| text.version_id == shown.version_id).collect();
        let text = pick(&own, |text| &text.language, language, &shown.language)?;
        let told = tellings
            .iter()
            .find(|telling| telling.version_id == shown.version_id && telling.language == text.language);
        let url = format!("{base}/policies/{}/{}", shown.slug, shown.number);
        let in_language = match language {
            "" => String::new(),
            _ => format!("?lang={}", text.language),
        };
        Some(Item {
            version: shown.number,
            title: text.title.clone(),
            change: shown.change,
            asks: asks.get(&shown.version_id).map_or(Question::Nothing, |asks| *asks).as_str(),
            summary: told.map_or(&text.summary, |told| &told.summary).clone(),
            published_at: shown.published_at,
            effective_at: shown.effective_at,
            effective_date: Local { at: shown.effective_at, east: shown.effective_offset }.date().to_string(),
            changes_url: format!("{url}/changes{in_language}"),
            url: format!("{url}{in_language}"),
            placements: if shown.change.makes_a_notice() { shown.placements } else { json!([]) },
            policy: shown.slug,
        })
    };
    Ok(shown.into_iter().filter_map(item).collect())
}

/// What people are asked about a change as long as the page takes an answer.
async fn asked(on: &impl ConnectionTrait, shown: &Shown, now: Timestamp) -> Result<Question, DbErr> {
    let asks = Question::about(shown.new_use, shown.approval);
    if asks == Question::Nothing {
        return Ok(asks);
    }
    let Some(notice) = of_version(on, shown.version_id).await? else { return Ok(Question::Nothing) };
    let versions = policy::rows::versions(on, notice.policy_id).await?;
    let version = versions.iter().find(|version| version.id == shown.version_id);
    let asked = version.map(|version| question::Asked::of(&notice, version, &versions, false));
    Ok(asked.filter(|asked| asked.closed(now).is_none()).map_or(Question::Nothing, |asked| asked.question))
}

/// Lets the pages of the brand's own origins read the answer; whether the asking one is among them.
fn share(response: &mut Response, brand: &Brand, asked: &HeaderMap) -> bool {
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = asked.get(header::ORIGIN) else { return false };
    let own = brand.origins.as_array().into_iter().flatten().filter_map(Value::as_str);
    let own = own.map(|own| own.trim_end_matches('/').as_bytes()).any(|own| own == origin.as_bytes());
    if own {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    own
}

/// An answer known by what it holds: whoever has it already is told so (RFC 9110 §13.1.2).
fn cached(asked: &HeaderMap, body: String, kind: &'static str, cache: &'static str) -> Response {
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&Sha256::digest(body.as_bytes())[..16]));
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, cache),
        (header::ETAG, &tag),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if crate::web::has_it(asked, &tag) {
        return (StatusCode::NOT_MODIFIED, headers, Body::empty()).into_response();
    }
    (headers, body).into_response()
}
