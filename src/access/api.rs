//! `/audit`: who did what.

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// The calls about the record of who did what.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
}
