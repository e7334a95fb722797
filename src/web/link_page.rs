//! What every page behind a link has in common: how its token and body are read, what is answered to whatever cannot be
//! served, and the headers.
//!
//! It promises: one fixed page for every cause for which a token does not verify; nothing but `POST` is taken for an act;
//! no body is read beyond its bounds; never a redirect, never a cookie. It looks at no row: what a link is about is its
//! own page's matter.

use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::Problem;
use super::client::client_of;
use super::page::{self, Look, Page};
use crate::app::App;
use crate::language::Choice;
use crate::link::{Link, Purpose};

/// Largest body read, in octets.
const MAX_BODY: usize = 64 * 1024;
/// How long a body may take to arrive; what came until then counts.
const BODY_TIME: Duration = Duration::from_secs(10);
const METHODS: &str = "GET, HEAD, OPTIONS, POST";

/// The path of a handler, as far as it can be read.
pub type Token = Result<Path<Vec<(String, String)>>, PathRejection>;

/// `/{letter}/{token}`, and what becomes of it on its way: never a redirect, and for whatever cannot be mended a page that
/// helps.
pub fn routes(letter: char, handler: &MethodRouter<App>) -> Router<App> {
    let upper = letter.to_ascii_uppercase();
    let paths = [
        format!("/{letter}/{{token}}"),
        format!("/{letter}/{{token}}/"),
        format!("/{letter}/{{token}}/{{*rest}}"),
        format!("/{letter}"),
        format!("/{letter}/"),
        format!("/{letter}//{{token}}"),
        format!("//{letter}/{{token}}"),
        format!("/{upper}/{{token}}"),
    ];
    paths.iter().fold(Router::new(), |router, path| router.route(path, handler.clone()))
}

/// A request for the page behind a link that verifies.
pub struct Asked {
    /// The link.
    pub link: Link,
    /// What was posted; none where the page is only looked at.
    pub body: Option<Body>,
    /// Whether JSON is asked for rather than a page.
    pub json: bool,
    /// Every `Accept-Language` field as one.
    pub accept_language: String,
    /// Whether the program is reached by https, as far as the settings tell.
    pub https: bool,
}

/// The body of a `POST`, read as far as it came.
pub struct Body {
    /// Its `Content-Type`; empty when it names none.
    pub content_type: String,
    /// What it holds.
    pub octets: Vec<u8>,
}

impl Asked {
    /// Reads a request for a link of this purpose.
    ///
    /// # Errors
    /// What to answer where there is nothing more to do: to a method that is not for such pages, to a token that does
    /// not verify, to a body that is too large.
    pub async fn read(
        app: &App,
        token: Token,
        request: Request,
        purpose: Purpose,
    ) -> Result<Self, Box<Response>> {
        let https = app.settings.base_url.scheme() == "https";
        let accept_language = accept_language(request.headers());
        let choice = Choice::new(None, &accept_language);
        let method = request.method().clone();
        if method == Method::OPTIONS {
            return Err(Box::new(allowed(StatusCode::NO_CONTENT.into_response(), https)));
        }
        if ![Method::GET, Method::HEAD, Method::POST].contains(&method) {
            let data = json!({ "heading": "method.title", "text": "method.text" });
            let refused = message(StatusCode::METHOD_NOT_ALLOWED, "method.title", data, choice, https);
            return Err(Box::new(allowed(refused, https)));
        }
        let token = token.ok().and_then(|Path(parts)| parts.into_iter().next()).map(|(_, token)| token);
        let link = token.and_then(|token| Link::from_token(&token, purpose, &app.link_keys).ok());
        let json = wants_json(request.headers());
        let Some(link) = link else {
            let client = client_of(request.extensions(), request.headers(), &app.settings);
            return Err(Box::new(match app.guesses.wrong(client, "link") {
                Ok(()) => page::unknown_link(choice, words(purpose, "unknown.text"), https),
                Err(wait) => slow_down(wait, json, choice, words(purpose, "limited.text"), https),
            }));
        };
        let body = if method == Method::POST {
            let Some(body) = read_body(request).await else {
                let data = json!({ "heading": "large.heading", "text": "large.text" });
                let large = message(StatusCode::PAYLOAD_TOO_LARGE, "large.title", data, choice, https);
                return Err(Box::new(large));
            };
            Some(body)
        } else {
            None
        };
        Ok(Self { link, body, json, accept_language, https })
    }
}

/// What helps somebody whose link does not work depends on what it was for.
fn words(purpose: Purpose, key: &'static str) -> &'static str {
    match (purpose, key) {
        (Purpose::Approve, "unknown.text") => "approve.unknown",
        (Purpose::Approve, "limited.text") => "approve.limited",
        _ => key,
    }
}

/// An answer in JSON, with the headers of such a page.
pub fn as_json(answer: &impl serde::Serialize, https: bool) -> Response {
    let mut response = super::Json(answer).into_response();
    page::secure(&mut response, None, false, https);
    response
}

/// 503: nothing was confirmed. `again` holds the fields of the form that is to be sent once more, `{name, value}` each.
pub fn unavailable(again: Option<Vec<Value>>, json: bool, choice: Choice, https: bool) -> Response {
    if json {
        return problem(Problem::unavailable(), https);
    }
    let data = json!({ "heading": "unavailable.heading", "text": "unavailable.text", "again": again });
    let mut response = message(StatusCode::SERVICE_UNAVAILABLE, "unavailable.title", data, choice, https);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

/// A problem, with the headers of such a page.
pub fn problem(problem: Problem, https: bool) -> Response {
    let mut response = problem.into_response();
    page::secure(&mut response, None, false, https);
    response
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.contains("application/json") && !accept.contains("text/html")
}

/// The body; none when it is too large. What breaks off or takes too long is read as far as it came.
async fn read_body(request: Request) -> Option<Body> {
    let headers = request.headers();
    let text =
        |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let content_type = text(header::CONTENT_TYPE).to_owned();
    if text(header::CONTENT_LENGTH).parse::<usize>().is_ok_and(|length| length > MAX_BODY) {
        return None;
    }
    let mut chunks = request.into_body().into_data_stream();
    let deadline = tokio::time::Instant::now() + BODY_TIME;
    let mut octets = Vec::new();
    while let Ok(Some(Ok(chunk))) = tokio::time::timeout_at(deadline, chunks.next()).await {
        octets.extend_from_slice(&chunk);
        if octets.len() > MAX_BODY {
            return None;
        }
    }
    Some(Body { content_type, octets })
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
fn slow_down(wait: Duration, json: bool, choice: Choice, text: &str, https: bool) -> Response {
    if json {
        return problem(Problem::too_many(wait), https);
    }
    let data = json!({ "heading": "limited.heading", "text": text });
    let mut response = message(StatusCode::TOO_MANY_REQUESTS, "limited.title", data, choice, https);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    response
}

fn allowed(mut response: Response, https: bool) -> Response {
    if !response.headers().contains_key(header::CONTENT_SECURITY_POLICY) {
        page::secure(&mut response, None, false, https);
    }
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(METHODS));
    response
}
