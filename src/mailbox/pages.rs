//! The mailbox for people: the list, and one message as HTML, text, headers or source.
//!
//! No page has a script. A message's HTML is served apart, under a policy that runs nothing, and shown in a sandboxed
//! frame; its links open in a new tab, so that a person can follow the one that unsubscribes.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use handlebars::Handlebars;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Mailbox;
use super::store::{MAX_MESSAGES, Received, search};
use super::view::{self, View};
use crate::clock::Timestamp;

const PAGE: usize = 50;
const STYLE: &str = include_str!("../../templates/pages/mailbox.css");
/// What a message's HTML may do: show itself and pictures, and open links.
const PART_POLICY: &str = "default-src 'none'; img-src https: data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox";

static PAGES: LazyLock<Handlebars<'static>> = LazyLock::new(|| {
    let mut pages = Handlebars::new();
    pages.set_strict_mode(true);
    for (name, text) in [
        ("layout", include_str!("../../templates/pages/mailbox_layout.html")),
        ("list", include_str!("../../templates/pages/mailbox_list.html")),
        ("message", include_str!("../../templates/pages/mailbox_message.html")),
        ("gone", include_str!("../../templates/pages/mailbox_gone.html")),
    ] {
        #[expect(clippy::expect_used, reason = "the templates are part of the program; a test renders them")]
        pages.register_template_string(name, text).expect("the page's template parses");
    }
    pages
});

static STYLE_HASH: LazyLock<String> = LazyLock::new(|| STANDARD.encode(Sha256::digest(STYLE.as_bytes())));

pub(super) fn router() -> Router<Mailbox> {
    Router::new()
        // Whoever tries Tidings out begins at the front door.
        .route("/", get(|| async { Redirect::temporary("/mailbox") }))
        .route("/mailbox", get(list))
        .route("/mailbox/{id}", get(first_tab))
        .route("/mailbox/{id}/html", get(html))
        .route("/mailbox/{id}/part", get(part))
        .route("/mailbox/{id}/text", get(text))
        .route("/mailbox/{id}/headers", get(headers))
        .route("/mailbox/{id}/source", get(source))
}

#[derive(Deserialize)]
struct Wanted {
    #[serde(default)]
    q: String,
    before: Option<u64>,
}

async fn list(State(mailbox): State<Mailbox>, Query(wanted): Query<Wanted>) -> Response {
    let query: String = wanted.q.chars().take(200).collect();
    let found = search(mailbox.messages(), &query, wanted.before, PAGE);
    let received = *mailbox.count().borrow();
    let older = found.next.map(|next| {
        let mut query_string = url::form_urlencoded::Serializer::new(String::new());
        query_string.append_pair("before", &next.to_string());
        if !query.is_empty() {
            query_string.append_pair("q", &query);
        }
        format!("/mailbox?{}", query_string.finish())
    });
    let messages: Vec<Value> = found.messages.iter().map(|message| row(message)).collect();
    let data = json!({
        "title": "Mailbox",
        "query": query,
        "searched": !query.is_empty(),
        "first": wanted.before.is_none(),
        "none": messages.is_empty(),
        "empty": received == 0,
        "messages": messages,
        "older": older,
        "received": grouped(received),
        "one": received == 1,
        "dropped": received > MAX_MESSAGES as u64,
        "kept": grouped(MAX_MESSAGES as u64),
        "smtp": mailbox.smtp_addr().to_string(),
    });
    page(StatusCode::OK, "list", data, None)
}

fn row(message: &Received) -> Value {
    let name = message.sender.split('<').next().map(str::trim).filter(|name| !name.is_empty());
    json!({
        "id": message.id,
        "subject": message.subject,
        "to": message.to.join(", "),
        "sender": name.unwrap_or(&message.sender),
        "time": clock(message.at),
        "day": day(message.at),
        "at": machine_time(message.at),
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Tab {
    Html,
    Text,
    Headers,
    Source,
}

async fn first_tab(mailbox: State<Mailbox>, id: Path<String>) -> Response {
    show(&mailbox, &id, None)
}

async fn html(mailbox: State<Mailbox>, id: Path<String>) -> Response {
    show(&mailbox, &id, Some(Tab::Html))
}

async fn text(mailbox: State<Mailbox>, id: Path<String>) -> Response {
    show(&mailbox, &id, Some(Tab::Text))
}

async fn headers(mailbox: State<Mailbox>, id: Path<String>) -> Response {
    show(&mailbox, &id, Some(Tab::Headers))
}

async fn source(mailbox: State<Mailbox>, id: Path<String>) -> Response {
    show(&mailbox, &id, Some(Tab::Source))
}

/// The HTML part alone, for the frame.
async fn part(mailbox: State<Mailbox>, id: Path<String>) -> Response {
    let html = find(&mailbox, &id).and_then(|message| View::of(&message.bytes).html);
    let Some(html) = html else { return gone() };
    let mut response = Html(view::document(&html)).into_response();
    protect(&mut response, PART_POLICY);
    response
}

fn find(mailbox: &Mailbox, id: &str) -> Option<std::sync::Arc<Received>> {
    mailbox.find(id.parse().ok()?)
}

fn gone() -> Response {
    let data = json!({ "title": "Not here any more", "kept": grouped(MAX_MESSAGES as u64) });
    page(StatusCode::NOT_FOUND, "gone", data, None)
}

fn show(mailbox: &Mailbox, id: &str, tab: Option<Tab>) -> Response {
    let Some(message) = find(mailbox, id) else { return gone() };
    let view = View::of(&message.bytes);
    let first = match (&view.html, &view.text) {
        (Some(_), _) => Tab::Html,
        (None, Some(_)) => Tab::Text,
        (None, None) => Tab::Source,
    };
    let tab = tab.unwrap_or(first);
    let tabs: Vec<Value> = [
        (Tab::Html, "html", "HTML", view.html.is_some()),
        (Tab::Text, "text", "Text", view.text.is_some()),
        (Tab::Headers, "headers", "Headers", true),
        (Tab::Source, "source", "Source", true),
    ]
    .into_iter()
    .map(|(each, path, name, there)| json!({ "path": path, "name": name, "there": there, "chosen": each == tab }))
    .collect();
    let headers: Vec<Value> =
        view.headers.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let data = json!({
        "title": message.subject,
        "id": message.id,
        "subject": message.subject,
        "sender": message.sender,
        "to": if view.to.is_empty() { message.to.join(", ") } else { view.to.clone() },
        "envelope_from": message.from,
        "envelope_to": message.to.join(", "),
        "at": machine_time(message.at),
        "when": format!("{}, {} UTC", day(message.at), clock(message.at)),
        "size": size(message.bytes.len()),
        "one_click": view.one_click.as_ref().map(url::Url::as_str),
        "too_deep": view.too_deep,
        "newer": mailbox.find(message.id.saturating_add(1)).map(|newer| newer.id),
        "older": message.id.checked_sub(1).and_then(|id| mailbox.find(id)).map(|older| older.id),
        "tabs": tabs,
        "is_html": tab == Tab::Html && view.html.is_some(),
        "is_text": tab == Tab::Text && view.text.is_some(),
        "is_headers": tab == Tab::Headers,
        "is_source": tab == Tab::Source,
        "is_missing": (tab == Tab::Html && view.html.is_none()) || (tab == Tab::Text && view.text.is_none()),
        "text": if tab == Tab::Text { view.text } else { None },
        "headers": if tab == Tab::Headers { headers } else { Vec::new() },
        "source": (tab == Tab::Source).then(|| view::source(&message.bytes)),
    });
    page(StatusCode::OK, "message", data, view.one_click.as_ref())
}

/// Renders a page; `form` is where its one-click button posts to.
fn page(status: StatusCode, template: &str, mut data: Value, form: Option<&url::Url>) -> Response {
    data["style"] = STYLE.into();
    let html = match PAGES.render(template, &data) {
        Ok(html) => html,
        Err(error) => {
            tracing::error!(template, %error, "a page of the mailbox could not be rendered");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let mut response = (status, Html(html)).into_response();
    let form = form.map(|url| url.origin().ascii_serialization()).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; frame-src 'self'; form-action 'self' {form}; frame-ancestors 'none'; base-uri 'none'",
        *STYLE_HASH
    );
    protect(&mut response, &policy);
    response
}

fn protect(response: &mut Response, policy: &str) {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // Without its policy a page of somebody else's making must not be shown at all.
    match HeaderValue::try_from(policy) {
        Ok(policy) => {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        Err(_) => *response = StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A time as HTML reads it: at most three digits of a second.
fn machine_time(at: Timestamp) -> String {
    at.to_datetime().format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn clock(at: Timestamp) -> String {
    at.to_datetime().format("%H:%M:%S").to_string()
}

fn day(at: Timestamp) -> String {
    at.to_datetime().format("%-d %b %Y").to_string()
}

fn size(octets: usize) -> String {
    match octets {
        0..1_000 => format!("{octets} octets"),
        1_000..1_000_000 => format!("{}.{} kB", octets / 1_000, octets % 1_000 / 100),
        _ => format!("{}.{} MB", octets / 1_000_000, octets % 1_000_000 / 100_000),
    }
}

/// A number with its thousands set apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
