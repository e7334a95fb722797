//! The mailbox for scripts: a listing in JSON, and each message's source.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::Mailbox;
use super::store::{Received, search};
use crate::clock::Timestamp;

/// Most messages of one answer.
const MAX_LIMIT: usize = 1_000;

pub(super) fn router() -> Router<Mailbox> {
    Router::new()
        .route("/mailbox/messages.json", get(list))
        .route("/mailbox/messages/{id}/source", get(source))
}

#[derive(Deserialize)]
struct Wanted {
    #[serde(default)]
    q: String,
    before: Option<u64>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Listing {
    received: u64,
    items: Vec<Item>,
    /// Give it as `before` for what follows.
    next: Option<u64>,
}

#[derive(Serialize)]
struct Item {
    id: u64,
    at: Timestamp,
    /// The envelope.
    from: String,
    to: Vec<String>,
    /// The From field.
    sender: String,
    subject: String,
    size: usize,
    page: String,
    source: String,
}

impl Item {
    fn of(message: &Arc<Received>) -> Self {
        Self {
            id: message.id,
            at: message.at,
            from: message.from.clone(),
            to: message.to.clone(),
            sender: message.sender.clone(),
            subject: message.subject.clone(),
            size: message.bytes.len(),
            page: format!("/mailbox/{}", message.id),
            source: format!("/mailbox/messages/{}/source", message.id),
        }
    }
}

async fn list(State(mailbox): State<Mailbox>, Query(wanted): Query<Wanted>) -> Response {
    let limit = wanted.limit.unwrap_or(100).clamp(1, MAX_LIMIT);
    let found = search(mailbox.messages(), &wanted.q, wanted.before, limit);
    let received = *mailbox.count().borrow();
    let items = found.messages.iter().map(Item::of).collect();
    ([(header::CACHE_CONTROL, "no-store")], Json(Listing { received, items, next: found.next }))
        .into_response()
}

/// The source as plain text: shown, never interpreted.
async fn source(State(mailbox): State<Mailbox>, Path(id): Path<u64>) -> Response {
    let Some(message) = mailbox.find(id) else { return StatusCode::NOT_FOUND.into_response() };
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, message.bytes.clone()).into_response()
}
