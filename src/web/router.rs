//! Every route of the program. This file alone knows every `api.rs` and `pages.rs`.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;

use super::{MAX_BODY, Problem, health, idempotency, layers, openapi};
use crate::app::App;
use crate::telemetry;
use crate::{access, brand, campaign, delivery, message, notice, opt_out, policy, recipient};

/// Everything that a web process serves: the API under `/api/v1`, the pages, health, metrics, the OpenAPI document.
pub fn full(app: App) -> Router {
    let (api, document) =
        OpenApiRouter::with_openapi(openapi::frame()).nest("/api/v1", api()).split_for_parts();
    let api = api.route_layer(middleware::from_fn_with_state(app.clone(), idempotency::layer));
    let server = app.settings.base_url.as_str().trim_end_matches('/').to_owned();
    let document: Arc<str> = openapi::finished(&document, &server).to_string().into();
    let document = get(move || {
        let document = document.to_string();
        async move { ([(header::CONTENT_TYPE, "application/json")], document) }
    });
    let router =
        Router::new().merge(api).merge(pages()).merge(health::router()).route("/api/openapi.json", document);
    layered(router.fallback(nowhere)).with_state(app)
}

/// What a lone worker serves: `/healthz`, `/readyz` and `/metrics`.
pub fn worker_only(app: App) -> Router {
    layered(health::router().fallback(nowhere)).with_state(app)
}

/// The management API, one line an idea.
fn api() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(brand::api::router())
        .merge(access::api::router())
        .merge(recipient::api::router())
        .merge(opt_out::api::router())
        .merge(message::api::router())
        .merge(delivery::api::router())
        .merge(campaign::api::router())
        .merge(policy::api::router())
        .merge(notice::api::router())
}

/// The public pages, one line an idea.
fn pages() -> Router<App> {
    Router::new()
        .merge(brand::pages::router())
        .merge(opt_out::pages::router())
        .merge(policy::pages::router())
        .merge(notice::pages::router())
}

/// The layers around everything; the last one is the outermost.
pub fn layered<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    // From here on requests are counted.
    telemetry::metrics_handle();
    router
        .layer(CatchPanicLayer::custom(layers::panicked))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(layers::api))
        .layer(middleware::from_fn(layers::guarded))
        .layer(middleware::from_fn(layers::trace))
}

/// What no route takes.
async fn nowhere(request: Request) -> Response {
    if request.uri().path().starts_with("/api/") {
        return Problem::not_found("path").into_response();
    }
    (StatusCode::NOT_FOUND, "There is nothing here.\n").into_response()
}
