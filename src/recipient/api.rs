//! People over HTTP.

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// The routes of this idea.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
}
