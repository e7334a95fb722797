//! The page behind the unsubscribe link, `/u/{token}`.
//!
//! It promises: `GET`, `HEAD` and `OPTIONS` change nothing; any `POST` with a valid token opts out, whatever its body,
//! and says so only once that is committed; a link works for ever, through nothing but what its token carries and rows
//! that are never deleted. It never redirects, sets no cookie, needs none, and keeps no IP address.

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::StreamExt;
use sea_orm::DbErr;
use serde_json::{Value, json};
use std::time::Duration;

use super::events::stands_already;
use super::form::{AskedScope, Form};
use super::words::{OptOutAnswer, ScopeWords};
use super::{Channel, OptOut, Scope, Stood, rows};
use crate::address::mask;
use crate::app::App;
use crate::brand::{self, Brand, Topic};
use crate::clock::{Instant, Timestamp};
use crate::decision::{self, Class, Said};
use crate::fence::{self, Answer};
use crate::link::{Link, Purpose};
use crate::recipient;
use crate::web::Problem;
use crate::web::page::{self, Look, Page};

/// Largest body read, in octets.
const MAX_BODY: usize = 64 * 1024;
/// How long a body may take to arrive; what came until then counts.
const BODY_TIME: Duration = Duration::from_secs(10);
const METHODS: &str = "GET, HEAD, OPTIONS, POST";
/// Who is recorded: whoever holds the link.
const ACTOR: &str = "link";

/// `/u/{token}`.
pub fn router() -> Router<App> {
    Router::new().route("/u/{token}", any(unsubscribe)).route("/u/{token}/", any(unsubscribe))
}

async fn unsubscribe(
    State(app): State<App>,
    token: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let arrived = Instant::now();
    let https = app.settings.base_url.scheme() == "https";
    let method = request.method().clone();
    if method == Method::OPTIONS {
        return allowed(StatusCode::NO_CONTENT.into_response(), https);
    }
    if ![Method::GET, Method::HEAD, Method::POST].contains(&method) {
        let data = json!({ "heading": "method.title", "text": "method.text" });
        return allowed(message(StatusCode::METHOD_NOT_ALLOWED, "method.title", data, https), https);
    }
    let link = token
        .ok()
        .and_then(|Path(token)| Link::from_token(&token, Purpose::Unsubscribe, &app.link_keys).ok());
    let Some(link) = link else { return page::unknown_link(https) };
    let json = wants_json(request.headers());
    let (form, answer) = if method == Method::POST {
        let Some(form) = read_form(request).await else {
            let data = json!({ "heading": "large.heading", "text": "large.text" });
            return message(StatusCode::PAYLOAD_TOO_LARGE, "large.title", data, https);
        };
        (Some(form), act(&app, &link, form, json, arrived, https).await)
    } else {
        (None, ask(&app, &link, https).await)
    };
    answer.unwrap_or_else(|error| {
        tracing::error!(%error, delivery = %link.delivery, "an unsubscribe link could not be served");
        unavailable(form, json, https)
    })
}

/// Whom and what a link is about, in words.
struct Subject {
    brand: Brand,
    topic: Topic,
    /// The masked address; none after erasure.
    address: Option<String>,
    look: Look,
    https: bool,
}

impl Subject {
    async fn load(app: &App, link: &Link, https: bool) -> Result<Self, DbErr> {
        let on = app.db.opt_out_reads();
        let missing = |what: &str| DbErr::RecordNotFound(format!("the {what} of an unsubscribe link"));
        let brand = brand::rows::by_id(on, link.brand).await?.ok_or_else(|| missing("brand"))?;
        let topic = brand::rows::topic_by_id(on, link.topic).await?.ok_or_else(|| missing("topic"))?;
        let recipient = recipient::rows::find(on, &link.address_hash).await?;
        let address = recipient.and_then(|recipient| recipient.address).map(|address| mask(&address));
        let look = Look { name: Some(brand.name.clone()), color: brand.color.clone() };
        Ok(Self { brand, topic, address, look, https })
    }

    fn default_scope(&self) -> AskedScope {
        AskedScope::from_word(&self.brand.one_click_scope).unwrap_or(AskedScope::All)
    }

    /// A page about it: what every text may name, and `more`.
    fn page(&self, template: &str, title: &str, more: Value) -> Response {
        let mut data = json!({
            "address": self.address,
            "brand": self.brand.name,
            "topic": self.topic.name,
        });
        if let (Value::Object(data), Value::Object(more)) = (&mut data, more) {
            data.extend(more);
        }
        page::respond(StatusCode::OK, Page { template, title, look: &self.look, data }, self.https)
    }
}

/// What an opt-out through this link covers: what is asked, and always the topic of the message.
fn scopes(link: &Link, asked: AskedScope) -> Vec<Scope> {
    let topic = Scope::Topic(link.brand, link.topic);
    match asked {
        AskedScope::All => vec![Scope::All, topic],
        AskedScope::Brand => vec![Scope::Brand(link.brand), topic],
        AskedScope::Topic => vec![topic],
    }
}

/// The page with the button.
async fn ask(app: &App, link: &Link, https: bool) -> Result<Response, DbErr> {
    let subject = Subject::load(app, link, https).await?;
    let on = app.db.opt_out_reads();
    let scopes = scopes(link, subject.default_scope());
    let standing = rows::standing_words(on, &link.address_hash).await?;
    let stands = scopes.iter().all(|&scope| stands_already(&standing, scope).is_some());
    let opted_in: Vec<&Stood> = standing
        .iter()
        .filter(|stood| stood.said == Said::OptIn && scopes.iter().any(|scope| scope.meets(stood.scope)))
        .collect();
    let mut times = Vec::new();
    if !stands && !opted_in.is_empty() {
        let history = rows::history(on, &link.address_hash).await?;
        let ids: Vec<_> = opted_in.iter().map(|stood| stood.event).collect();
        times.extend(history.iter().filter(|event| ids.contains(&event.id)).map(|event| event.recorded_at));
    }
    let scope_text = match subject.default_scope() {
        AskedScope::Topic => "ask.scope.topic",
        AskedScope::Brand => "ask.scope.brand",
        AskedScope::All => "ask.scope.all",
    };
    let more = json!({ "stands": stands, "date": newer(&times, link), "scope_text": scope_text });
    Ok(subject.page("ask", "ask.title", more))
}

/// Opts out, or takes back what the link did.
async fn act(
    app: &App,
    link: &Link,
    form: Form,
    json: bool,
    arrived: Instant,
    https: bool,
) -> Result<Response, Box<dyn std::error::Error + Send + Sync>> {
    todo!()
}

/// The day of the newest of these times, when it lies after the link was made.
fn newer(times: &[Timestamp], link: &Link) -> Option<String> {
    times.iter().max().filter(|&&at| at > link.made_at).map(|&at| page::day(at))
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.contains("application/json") && !accept.contains("text/html")
}

/// The form in the body; none when the body is too large. What breaks off or takes too long is read as far as it came.
async fn read_form(request: Request) -> Option<Form> {
    let headers = request.headers();
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let content_type = text(header::CONTENT_TYPE).to_owned();
    if text(header::CONTENT_LENGTH).parse::<usize>().is_ok_and(|length| length > MAX_BODY) {
        return None;
    }
    let mut chunks = request.into_body().into_data_stream();
    let deadline = tokio::time::Instant::now() + BODY_TIME;
    let mut body = Vec::new();
    while let Ok(Some(Ok(chunk))) = tokio::time::timeout_at(deadline, chunks.next()).await {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BODY {
            return None;
        }
    }
    Some(Form::read(&content_type, &body))
}

fn message(status: StatusCode, title: &str, data: Value, https: bool) -> Response {
    page::respond(status, Page { template: "message", title, look: &Look::default(), data }, https)
}

/// Nothing was confirmed: try again.
fn unavailable(form: Option<Form>, json: bool, https: bool) -> Response {
    if json {
        let mut response = Problem::unavailable().into_response();
        page::secure(&mut response, None, https);
        return response;
    }
    let again = form.map(|form| {
        let scope = form.scope.map(|scope| json!({ "name": "scope", "value": scope.as_str() }));
        let undo = form.undo.then(|| json!({ "name": "undo", "value": "1" }));
        let page = json!({ "name": "page", "value": "1" });
        [Some(page), scope, undo].into_iter().flatten().collect::<Vec<_>>()
    });
    let data = json!({ "heading": "unavailable.heading", "text": "unavailable.text", "again": again });
    let mut response = message(StatusCode::SERVICE_UNAVAILABLE, "unavailable.title", data, https);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

fn allowed(mut response: Response, https: bool) -> Response {
    if !response.headers().contains_key(header::CONTENT_SECURITY_POLICY) {
        page::secure(&mut response, None, https);
    }
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(METHODS));
    response
}
