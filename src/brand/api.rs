//! `/brands` and their topics.

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// The calls about brands and topics.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
}
