//! `/healthz`, `/readyz`, `/metrics`: for those who run the program. No key is needed and nothing in them is about a person.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use super::Json;
use crate::app::App;
use crate::delivery;
use crate::telemetry;

/// The three routes.
pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

/// The process answers.
async fn healthz() -> Response {
    uncached(Json(json!({ "status": "ok" })))
}

/// The database answers and is migrated, and the process was not asked to stop. That a relay or a worker is away makes nothing unready: opt-outs must be taken
/// all the same.
async fn readyz(State(app): State<App>) -> Response {
    let database = app.db.ping().await;
    let migrations = app.db.check_migrated().await;
    let word = |ok: bool, otherwise: &'static str| if ok { "ok" } else { otherwise };
    if let Err(error) = &database {
        tracing::warn!(%error, "not ready: the database does not answer");
    } else if let Err(error) = &migrations {
        tracing::warn!(%error, "not ready: the schema is not current");
    }
    let worker = delivery::rows::last_beat(&app.db, app.db.reads()).await.ok().flatten();
    let stopping = app.under_way.is_stopping();
    let ready = database.is_ok() && migrations.is_ok() && !stopping;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = Json(json!({
        "ready": ready,
        "stopping": stopping,
        "database": word(database.is_ok(), "unavailable"),
        "migrations": word(migrations.is_ok(), "not current"),
        "relay": relay(),
        "worker_seen_seconds_ago": worker.map(|ago| ago.as_secs()),
    }));
    uncached((status, body))
}

/// What this process's worker last saw of the relay; a web process without a worker does not know.
fn relay() -> &'static str {
    let counted = telemetry::metrics_handle().render();
    match counted.lines().find_map(|line| line.strip_prefix("tidings_relay_reachable ")) {
        Some("1") => "reachable",
        Some(_) => "unreachable",
        None => "unknown",
    }
}

/// What is counted, for Prometheus.
async fn metrics() -> Response {
    let handle = telemetry::metrics_handle();
    handle.run_upkeep();
    uncached(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], handle.render()))
}

fn uncached(answer: impl IntoResponse) -> Response {
    let headers = [(header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, answer).into_response()
}
