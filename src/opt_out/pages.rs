//! The page behind the unsubscribe link, `/u/{token}`.
//!
//! It promises: `GET`, `HEAD` and `OPTIONS` change nothing; any `POST` with a valid token opts out, whatever its body,
//! and says so only once that is committed; a link works for ever, through nothing but what its token carries and rows
//! that are never deleted. It never redirects, sets no cookie, needs none, and keeps no IP address.

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::StreamExt;
use sea_orm::DbErr;
use serde_json::{Value, json};
use std::time::Duration;

use super::by_link::{self, ACTOR, scopes};
use super::events::stands_already;
use super::form::{AskedScope, Form};
use super::rows::{self, Undone};
use super::words::{OptOutAnswer, ScopeWords};
use super::{Channel, Scope, Stood};
use crate::address::mask;
use crate::app::App;
use crate::brand::{self, Brand, Topic};
use crate::clock::{Instant, Timestamp};
use crate::db::Db;
use crate::decision::Said;
use crate::fence::{self, Answer};
use crate::language::Choice;
use crate::link::{Link, Purpose};
use crate::web::Problem;
use crate::web::client::client_of;
use crate::web::page::{self, Look, Page};

/// Largest body read, in octets.
const MAX_BODY: usize = 64 * 1024;
/// How long a body may take to arrive; what came until then counts.
const BODY_TIME: Duration = Duration::from_secs(10);
const METHODS: &str = "GET, HEAD, OPTIONS, POST";

/// `/u/{token}`, and what becomes of it on its way: never a redirect, and for whatever cannot be mended a page that
/// helps.
pub fn router() -> Router<App> {
    let paths = [
        "/u/{token}",
        "/u/{token}/",
        "/u/{token}/{*rest}",
        "/u",
        "/u/",
        "/u//{token}",
        "//u/{token}",
        "/U/{token}",
    ];
    paths.into_iter().fold(Router::new(), |router, path| router.route(path, any(unsubscribe)))
}

async fn unsubscribe(
    State(app): State<App>,
    path: Result<Path<Vec<(String, String)>>, PathRejection>,
    request: Request,
) -> Response {
    let arrived = Instant::now();
    let https = app.settings.base_url.scheme() == "https";
    let asked = accept_language(request.headers());
    let choice = Choice::new(None, &asked);
    let method = request.method().clone();
    if method == Method::OPTIONS {
        return allowed(StatusCode::NO_CONTENT.into_response(), https);
    }
    if ![Method::GET, Method::HEAD, Method::POST].contains(&method) {
        let data = json!({ "heading": "method.title", "text": "method.text" });
        return allowed(message(StatusCode::METHOD_NOT_ALLOWED, "method.title", data, choice, https), https);
    }
    let token = path.ok().and_then(|Path(parts)| parts.into_iter().next()).map(|(_, token)| token);
    let link = token.and_then(|token| Link::from_token(&token, Purpose::Unsubscribe, &app.link_keys).ok());
    let json = wants_json(request.headers());
    let Some(link) = link else {
        let client = client_of(request.extensions(), request.headers(), &app.settings);
        return match app.guesses.wrong(client, "link") {
            Ok(()) => page::unknown_link(choice, https),
            Err(wait) => slow_down(wait, json, choice, https),
        };
    };
    let form = if method == Method::POST {
        let Some(form) = read_form(request).await else {
            let data = json!({ "heading": "large.heading", "text": "large.text" });
            return message(StatusCode::PAYLOAD_TOO_LARGE, "large.title", data, choice, https);
        };
        Some(form)
    } else {
        None
    };
    let (choice, answer) = match Subject::load(&app, &link, &asked, https).await {
        Ok(subject) => {
            let answer = match form {
                Some(form) => act(&app, &link, &subject, form, json, arrived).await,
                None => ask(&app, &link, &subject).await,
            };
            (subject.choice, answer)
        }
        Err(error) => (choice, Err(error)),
    };
    answer.unwrap_or_else(|error| {
        tracing::error!(%error, delivery = %link.delivery, "an unsubscribe link could not be served");
        unavailable(form, json, choice, https)
    })
}

/// Whom and what a link is about, in words.
struct Subject {
    brand: Brand,
    topic: Topic,
    /// The masked address; none after erasure.
    address: Option<String>,
    /// Whether any topic stays with customers in spite of a wider opt-out.
    customers_keep: bool,
    look: Look,
    /// The person's language, or what their browser asks for.
    choice: Choice,
    https: bool,
}

impl Subject {
    async fn load(app: &App, link: &Link, accept_language: &str, https: bool) -> Result<Self, DbErr> {
        let db = app.db.clone();
        let together = move |links| subjects_of(db.clone(), links);
        let found = app.links.ask(link.clone(), together).await;
        let found = found.unwrap_or_else(|| Err(DbErr::Custom("a link was not looked up".into())))?;
        let rows::Subject { brand, topic, address, locale, customers_keep } = found;
        let choice = Choice::new(locale.as_deref(), accept_language);
        let address = address.map(|address| mask(&address));
        let look = Look::of(&brand, &app.settings.base_url);
        Ok(Self { brand, topic, address, customers_keep, look, choice, https })
    }

    /// The names of a scope that the link can have.
    fn words_of(&self, asked: AskedScope) -> ScopeWords {
        match asked {
            AskedScope::All => ScopeWords::All,
            AskedScope::Brand => ScopeWords::Brand(self.brand.slug.clone()),
            AskedScope::Topic => ScopeWords::Topic(self.brand.slug.clone(), self.topic.slug.clone()),
        }
    }

    fn default_scope(&self) -> AskedScope {
        by_link::one_click_scope(&self.brand)
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
        let page = Page { template, title, look: &self.look, choice: self.choice, data };
        page::respond(StatusCode::OK, page, self.https)
    }
}

/// What links are about that are followed at the same time.
async fn subjects_of(db: Db, links: Vec<Link>) -> Vec<Result<rows::Subject, DbErr>> {
    match rows::subjects_of(db.opt_out_reads(), &links).await {
        Ok(subjects) => subjects,
        Err(error) => links.iter().map(|_| Err(DbErr::Custom(error.to_string()))).collect(),
    }
}

/// The page with the button.
async fn ask(app: &App, link: &Link, subject: &Subject) -> Result<Response, DbErr> {
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
    let stays = !subject.topic.class.can_be_refused();
    let more = json!({ "stands": stands, "date": newer(&times, link, subject), "scope_text": scope_text, "stays": stays });
    Ok(subject.page("ask", "ask.title", more))
}

/// Opts out, or takes back what the link did.
async fn act(
    app: &App,
    link: &Link,
    subject: &Subject,
    form: Form,
    json: bool,
    arrived: Instant,
) -> Result<Response, DbErr> {
    if form.undo && form.scope.is_none() {
        let undone = fence::undo(app, &link.address_hash, link.delivery, &[], ACTOR).await?;
        tracing::info!(delivery = %link.delivery, scopes = undone.scopes.len(), "an opt-out was taken back");
        return taken_back(app, subject, &undone, json).await;
    }
    let asked = form.scope.unwrap_or_else(|| subject.default_scope());
    let scopes = scopes(link, asked);
    let channel = if form.page { Channel::Page } else { Channel::OneClick };
    let opt_out = by_link::opt_out(link, asked, channel);
    let mut answer = fence::opt_out(app, &opt_out, arrived).await?;
    if form.undo {
        // The narrower opt-out is recorded before the wider one goes, so that nothing begins in between.
        let undone = fence::undo(app, &link.address_hash, link.delivery, &scopes, ACTOR).await?;
        answer.standing = undone.still;
    }
    tracing::info!(
        delivery = %link.delivery, brand = %link.brand, topic = %link.topic, scope = asked.as_str(), %channel,
        new = answer.new, settled = answer.rest.settled(), "opted out through a message"
    );
    if json {
        let on = app.db.opt_out_reads();
        let answer = OptOutAnswer {
            id: answer.id,
            scope: subject.words_of(asked),
            channel,
            recorded_at: answer.recorded_at,
            settled: answer.rest.settled(),
            in_flight: rows::flights_in_words(on, answer.rest.deliveries()).await?,
        };
        return Ok(as_json(&answer, subject.https));
    }
    done(app, link, subject, asked, &answer).await
}

/// The page after an opt-out.
async fn done(
    app: &App,
    link: &Link,
    subject: &Subject,
    asked: AskedScope,
    answer: &Answer,
) -> Result<Response, DbErr> {
    let on = app.db.opt_out_reads();
    let mut flights: Vec<(Option<String>, u64)> = Vec::new();
    for (_, topic, _) in answer.rest.deliveries() {
        let topic = brand::rows::topic_by_id(on, topic).await?.map(|topic| topic.name);
        match flights.iter_mut().find(|(named, _)| *named == topic) {
            Some((_, n)) => *n += 1,
            None => flights.push((topic, 1)),
        }
    }
    let flights: Vec<Value> =
        flights.into_iter().map(|(topic, n)| json!({ "topic": topic, "n": n })).collect();
    let stopped = match asked {
        AskedScope::Topic => "done.stopped.topic",
        AskedScope::Brand => "ask.scope.brand",
        AskedScope::All => "ask.scope.all",
    };
    let more = json!({
        "date": newer(&answer.overruled, link, subject),
        "flights": flights,
        "stopped": [stopped],
        "comes": still_coming(app, link, subject, &answer.standing).await?,
        "choices": choices(asked),
    });
    Ok(subject.page("done", "done.title", more))
}

/// What still comes and why, by what stands now.
async fn still_coming(
    app: &App,
    link: &Link,
    subject: &Subject,
    standing: &[Stood],
) -> Result<Vec<Value>, DbErr> {
    let stopped_all = stands_already(standing, Scope::All).is_some();
    let stopped_brand = stopped_all || stands_already(standing, Scope::Brand(link.brand)).is_some();
    let mut comes = Vec::new();
    if !subject.topic.class.can_be_refused() {
        comes.push(json!({ "text": "done.comes.this" }));
    }
    comes.push(json!({ "text": "done.comes.service" }));
    if subject.customers_keep {
        for (brand, topic) in rows::kept_for_customer(app.db.opt_out_reads(), &link.address_hash).await? {
            comes.push(json!({ "text": "done.comes.kept", "topic": topic, "brand": brand }));
        }
    }
    if !stopped_brand {
        comes.push(json!({ "text": "done.comes.topics" }));
    }
    if !stopped_all {
        comes.push(json!({ "text": "done.comes.brands" }));
    }
    Ok(comes)
}

/// The buttons of the done page: the narrower scopes, the wider ones, the undo. A narrower one takes back what this
/// link did beyond it.
fn choices(asked: AskedScope) -> Value {
    let only = |scope: &str, text: &str| json!({ "undo": true, "scope": scope, "text": text });
    let also = |scope: &str, text: &str| json!({ "undo": false, "scope": scope, "text": text });
    let mut choices = match asked {
        AskedScope::Topic => vec![also("brand", "done.also.brand"), also("all", "done.also.all")],
        AskedScope::Brand => vec![only("topic", "done.only.topic"), also("all", "done.also.all")],
        AskedScope::All => vec![only("topic", "done.only.topic"), only("brand", "done.only.brand")],
    };
    choices.push(json!({ "undo": true, "scope": null, "text": "done.undo" }));
    Value::Array(choices)
}

/// The answer after an undo.
async fn taken_back(app: &App, subject: &Subject, undone: &Undone, json: bool) -> Result<Response, DbErr> {
    let still: Vec<Scope> =
        undone.still.iter().filter(|stood| stood.said == Said::OptOut).map(|stood| stood.scope).collect();
    if json {
        let on = app.db.opt_out_reads();
        let mut words = [Vec::new(), Vec::new()];
        for (words, scopes) in words.iter_mut().zip([&undone.scopes, &still]) {
            for &scope in scopes {
                words.push(rows::words_of(on, scope).await?);
            }
        }
        let [taken_back, still] = words;
        return Ok(as_json(&json!({ "taken_back": taken_back, "still_opted_out_of": still }), subject.https));
    }
    let concerned = Scope::Topic(subject.brand.id, subject.topic.id);
    let still = still.iter().any(|&scope| scope.meets(concerned));
    let more = json!({ "nothing": undone.scopes.is_empty(), "still": still });
    let title = if undone.scopes.is_empty() { "undone.heading.nothing" } else { "undone.title" };
    Ok(subject.page("undone", title, more))
}

fn as_json(answer: &impl serde::Serialize, https: bool) -> Response {
    let mut response = crate::web::Json(answer).into_response();
    page::secure(&mut response, None, false, https);
    response
}

/// The day of the newest of these times, when it lies after the link was made.
fn newer(times: &[Timestamp], link: &Link, subject: &Subject) -> Option<String> {
    times.iter().max().filter(|&&at| at > link.made_at).map(|&at| subject.choice.locale.day(at))
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.contains("application/json") && !accept.contains("text/html")
}

/// The form in the body; none when the body is too large. What breaks off or takes too long is read as far as it came.
async fn read_form(request: Request) -> Option<Form> {
    let headers = request.headers();
    let text =
        |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
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

/// Every `Accept-Language` field of the request as one (RFC 9110 section 5.3).
fn accept_language(headers: &HeaderMap) -> String {
    let fields: Vec<&str> =
        headers.get_all(header::ACCEPT_LANGUAGE).iter().filter_map(|value| value.to_str().ok()).collect();
    fields.join(",")
}

fn message(status: StatusCode, title: &str, data: Value, choice: Choice, https: bool) -> Response {
    page::respond(status, Page { template: "message", title, look: &Look::default(), choice, data }, https)
}

/// Too many links that do not verify came from this client. Nothing is said about the link.
fn slow_down(wait: Duration, json: bool, choice: Choice, https: bool) -> Response {
    if json {
        let mut response = Problem::too_many(wait).into_response();
        page::secure(&mut response, None, false, https);
        return response;
    }
    let data = json!({ "heading": "limited.heading", "text": "limited.text" });
    let mut response = message(StatusCode::TOO_MANY_REQUESTS, "limited.title", data, choice, https);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    response
}

/// Nothing was confirmed: try again.
fn unavailable(form: Option<Form>, json: bool, choice: Choice, https: bool) -> Response {
    if json {
        let mut response = Problem::unavailable().into_response();
        page::secure(&mut response, None, false, https);
        return response;
    }
    let again = form.map(|form| {
        let scope = form.scope.map(|scope| json!({ "name": "scope", "value": scope.as_str() }));
        let undo = form.undo.then(|| json!({ "name": "undo", "value": "1" }));
        let page = json!({ "name": "page", "value": "1" });
        [Some(page), scope, undo].into_iter().flatten().collect::<Vec<_>>()
    });
    let data = json!({ "heading": "unavailable.heading", "text": "unavailable.text", "again": again });
    let mut response = message(StatusCode::SERVICE_UNAVAILABLE, "unavailable.title", data, choice, https);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

fn allowed(mut response: Response, https: bool) -> Response {
    if !response.headers().contains_key(header::CONTENT_SECURITY_POLICY) {
        page::secure(&mut response, None, false, https);
    }
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(METHODS));
    response
}
