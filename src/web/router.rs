//! Every route of the program. This file alone knows every `api.rs` and `pages.rs`.

use axum::Router;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::{access, brand, opt_out};

/// Everything that a web process serves: the API under `/api/v1`, the pages, health, metrics, the OpenAPI document.
pub fn full(app: App) -> Router {
    let (api, _openapi) = OpenApiRouter::new().nest("/api/v1", api()).split_for_parts();
    Router::new().merge(api).merge(opt_out::pages::router()).with_state(app)
}

/// What a lone worker serves: `/healthz`, `/readyz` and `/metrics`.
pub fn worker_only(app: App) -> Router {
    Router::new().with_state(app)
}

/// The management API, one line an idea.
fn api() -> OpenApiRouter<App> {
    OpenApiRouter::new().merge(brand::api::router()).merge(access::api::router())
}
