//! `Idempotency-Key`: a POST that is sent again makes nothing again.
//!
//! A call is claimed before it runs: per API key, path and key. Whoever repeats it gets the first answer; while it runs,
//! 409; with another body, 422. The claim is committed with the id of what is to be made ([`NewId`]), so that a repeat
//! after a crash makes the same thing and no second one. Answers of 5xx are never kept. It counts only after
//! authentication, and streamed uploads take no part: they repeat safely by address.

mod rows;

use std::convert::Infallible;

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;
use tracing::Instrument as _;
use uuid::Uuid;

use self::rows::{Answer, Call, Claim};
use super::{Caller, MAX_BODY, Problem, json};
use crate::app::App;

/// The request header.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header of an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Longest key in characters.
const MAX_KEY: usize = 255;

/// The id that what this request makes must bear. It is the same again when a call with an `Idempotency-Key` is repeated
/// after a crash: a handler that finds it taken has made it before and gives that one back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewId(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for NewId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or_else(|| Self(Uuid::now_v7())))
    }
}

/// The middleware.
pub(super) async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    let asked = request.method() == Method::POST && request.headers().contains_key(KEY);
    if !asked || is_streamed(request.headers()) {
        return next.run(request).await;
    }
    run(app, request, next).await.unwrap_or_else(IntoResponse::into_response)
}

async fn run(app: App, request: Request, next: Next) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &app).await?;
    let key = key(&parts.headers)?;
    let body = json::body(Request::from_parts(parts.clone(), body), &app).await?;
    let call = Call { api_key: caller.actor, path: parts.uri.path().to_owned(), key };
    let (owner, resource_id) = match rows::claim(&app.db, &call, &Sha256::digest(&body)).await? {
        Claim::Ours { owner, resource_id } => (owner, resource_id),
        Claim::Answered(answer) => return Ok(replayed(answer)),
        Claim::OtherBody => {
            return Err(Problem::field(
                KEY.as_str(),
                "was used with another body; repeat the same body or take another key",
            ));
        }
        Claim::Running => {
            return Err(Problem::conflict("The first call with this Idempotency-Key is still running."));
        }
    };
    parts.extensions.insert(NewId(resource_id));
    let request = Request::from_parts(parts, Body::from(body));
    // Tasks of their own: a caller who hangs up does not leave the work half done, nor its answer unkept.
    let work = tokio::spawn(next.run(request).in_current_span());
    let kept = tokio::spawn(finish(app, call, owner, work).in_current_span());
    Ok(kept.await.unwrap_or_else(|_| Problem::internal().into_response()))
}

/// Waits for the answer, renewing the claim, and keeps it.
async fn finish(app: App, call: Call, owner: Uuid, mut work: JoinHandle<Response>) -> Response {
    let mut renewal = tokio::time::interval(rows::LEASE / 3);
    renewal.tick().await;
    let response = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = renewal.tick() => {
                if let Err(error) = rows::renew(&app.db, &call, owner).await {
                    tracing::warn!(%error, "the claim of an Idempotency-Key could not be renewed");
                }
            }
        }
    };
    let response = response.unwrap_or_else(|_| {
        tracing::error!("a handler panicked");
        Problem::internal().into_response()
    });
    let answer = if response.status().is_server_error() { Err(response) } else { as_answer(response).await };
    let (kept, response) = match answer {
        Ok(answer) => (rows::keep(&app.db, &call, owner, &answer).await, given(answer)),
        Err(response) => (rows::give_up(&app.db, &call, owner).await, response),
    };
    if let Err(error) = kept {
        // The work is done. A repeat waits for the lease to end and then makes the same thing again, under the same id.
        tracing::warn!(%error, "the answer to an Idempotency-Key could not be kept");
    }
    response
}

/// The key, when it is one.
fn key(headers: &HeaderMap) -> Result<String, Problem> {
    let mut all = headers.get_all(KEY).iter();
    let key = all.next().and_then(|value| value.to_str().ok()).unwrap_or("");
    let usable = (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    if usable && all.next().is_none() {
        return Ok(key.to_owned());
    }
    Err(Problem::field(KEY.as_str(), format!("must be one value of 1 to {MAX_KEY} visible ASCII characters")))
}

fn is_streamed(headers: &HeaderMap) -> bool {
    matches!(json::media_type(headers).as_str(), "text/csv" | "text/plain" | "application/x-ndjson")
}

/// The answer as it is kept; the response back when it is a stream or too long to keep.
async fn as_answer(response: Response) -> Result<Answer, Response> {
    let fits = response.body().size_hint().exact().is_some_and(|length| length <= MAX_BODY as u64);
    if !fits {
        return Err(response);
    }
    let status = response.status().as_u16();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
    match to_bytes(response.into_body(), MAX_BODY).await {
        Ok(body) => Ok(Answer { status, content_type, body: body.to_vec() }),
        Err(_) => Err(Problem::internal().into_response()),
    }
}

fn given(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, answer.body).into_response();
    response.headers_mut().remove(header::CONTENT_TYPE);
    if let Some(value) = answer.content_type.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

fn replayed(answer: Answer) -> Response {
    let mut response = given(answer);
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

#[cfg(test)]
mod tests;
