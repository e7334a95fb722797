//! `/logo/{name}`: the brands' logos, for their pages and mail.
//!
//! What a name stands for never changes, so an answer may be kept for ever. An image can run nothing and be nothing else
//! than an image, wherever it is opened.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{Logo, rows};
use crate::app::App;
use crate::web::has_it;

/// `/logo/{name}`.
pub fn router() -> Router<App> {
    Router::new().route("/logo/{name}", get(logo))
}

async fn logo(State(app): State<App>, Path(name): Path<String>, asked: HeaderMap) -> Response {
    let Some(logo) = Logo::named(&name) else { return nothing() };
    let octets = match rows::logo(app.db.opt_out_reads(), &logo).await {
        Ok(Some(octets)) => octets,
        Ok(None) => return nothing(),
        Err(error) => {
            tracing::error!(%error, "a logo could not be read");
            return (StatusCode::SERVICE_UNAVAILABLE, "Try again in a moment.\n").into_response();
        }
    };
    let tag = format!("\"{name}\"");
    let headers = [
        (header::CONTENT_TYPE, logo.media_type()),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (header::ETAG, &tag),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
        // Mail read on the web shows it from a page of somebody else's.
        (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
    ];
    if has_it(&asked, &tag) {
        return (StatusCode::NOT_MODIFIED, headers, Body::empty()).into_response();
    }
    (headers, octets).into_response()
}

fn nothing() -> Response {
    (StatusCode::NOT_FOUND, "There is no such logo.\n").into_response()
}
