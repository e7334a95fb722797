//! `/audit`: who did what.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::rows::{self, Entry};
use crate::app::App;
use crate::clock::Timestamp;
use crate::id::AuditId;
use crate::web::{Caller, Json, List, Paging, Problem, Role};

/// The calls about the record of who did what.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_audit))
}

/// An entry of the audit log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct EntryView {
    /// Its id.
    id: AuditId,
    /// When.
    at: Timestamp,
    /// Who: `key:NAME/PREFIX`, `cli` or `link`.
    actor: String,
    /// What was done, such as `brand.put`.
    action: String,
    /// To what, such as `brand:acme`.
    subject: String,
    /// What else there is to know.
    #[schema(value_type = Object)]
    detail: serde_json::Value,
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.id,
            at: entry.at,
            actor: entry.actor,
            action: entry.action,
            subject: entry.subject,
            detail: entry.detail,
        }
    }
}

/// Show who did what, newest first.
///
/// For admin and auditor, with a key that is bound to no brand.
#[utoipa::path(get, path = "/audit", tag = "audit", params(Paging), responses((status = 200, body = List<EntryView>)))]
async fn list_audit(
    State(app): State<App>,
    caller: Caller,
    paging: Paging,
) -> Result<Json<List<EntryView>>, Problem> {
    caller.must_be(&[Role::Auditor])?;
    if !caller.sees_every_brand() {
        return Err(Problem::forbidden("A key that is bound to a brand may not read the audit log."));
    }
    let entries = rows::entries_before(app.db.reads(), paging.after_key()?, paging.fetch()).await?;
    Ok(Json(List::page(entries, &paging, |entry| entry.id.to_string(), EntryView::from)))
}
