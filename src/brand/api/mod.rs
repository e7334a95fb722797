//! `/brands` and their topics. Everyone with a key reads what it sees; only admin changes it.

mod brands;
mod topics;

use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Brand, rows};
use crate::app::App;
use crate::web::{Caller, Problem};

/// Longest name of a brand or topic in characters.
const MAX_NAME: usize = 200;
/// Longest other line in characters.
const MAX_LINE: usize = 500;

/// The calls about brands and topics.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(brands::list_brands))
        .routes(routes!(brands::get_brand, brands::put_brand, brands::delete_brand))
        .routes(routes!(topics::list_topics))
        .routes(routes!(topics::get_topic, topics::put_topic, topics::delete_topic))
}

/// The brand of this slug, if it is not archived and the caller sees it.
async fn seen(app: &App, caller: &Caller, slug: &str) -> Result<Brand, Problem> {
    let brand = rows::find(app.db.reads(), slug).await?;
    brand
        .filter(|brand| brand.archived_at.is_none() && caller.sees(brand.id))
        .ok_or_else(|| Problem::not_found("brand"))
}

fn put_status(made: bool) -> StatusCode {
    if made { StatusCode::CREATED } else { StatusCode::OK }
}
