//! The public pages of notices: where people answer, `/a/{token}`, and what a brand's own pages show,
//! `/notices/current.json` and `/notices/banner.js`.

mod answer;
mod site;

use axum::Router;

use crate::app::App;

/// The routes.
pub fn router() -> Router<App> {
    Router::new().merge(answer::router()).merge(site::router())
}
