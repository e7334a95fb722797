//! `/notices`: how far they have come, and what an administrator changes about them.

mod answers;
mod change;
mod evidence;
mod people;
mod second;
mod standing;

use axum::extract::State as Shared;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::NoticeError;
use super::rows::{self, Notice, View, view};
use crate::app::App;
use crate::id::NoticeId;
use crate::policy;
use crate::web::{Caller, Json, List, Paging, Path, Problem, Query, Role};

/// The routes of notices.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_notices))
        .routes(routes!(get_notice))
        .routes(routes!(change::postpone_notice))
        .routes(routes!(change::correct_notice))
        .routes(routes!(change::withdraw_notice))
        .routes(routes!(second::release_change))
        .routes(routes!(second::take_back_change))
        .routes(routes!(people::list_unreachable))
        .routes(routes!(people::told_otherwise))
        .routes(routes!(answers::answer_otherwise))
        .merge(standing::router())
        .merge(evidence::router())
}

impl From<NoticeError> for Problem {
    fn from(error: NoticeError) -> Self {
        match error {
            NoticeError::Gone => Self::not_found("notice"),
            NoticeError::WrongState { .. } => Self::conflict(error.to_string()),
            NoticeError::Flaw(pointer, reason) => Self::field(&pointer, reason),
            NoticeError::Conflict(detail) => Self::conflict(detail),
            NoticeError::SomebodyElse(detail) => Self::forbidden(detail),
            NoticeError::Template(_) => Self::conflict(format!("{error}; mend the template and try again.")),
            NoticeError::Db(error) => error.into(),
        }
    }
}

/// The notice, when the caller may see it and is one of these.
async fn seen(app: &App, caller: &Caller, id: NoticeId, roles: &[Role]) -> Result<Notice, Problem> {
    caller.must_be(roles)?;
    let found = rows::find(app.db.reads(), id).await?.filter(|notice| caller.sees(notice.brand_id));
    found.ok_or_else(|| Problem::not_found("notice"))
}

/// The notice, after whatever was done to it.
async fn shown(app: &App, id: NoticeId) -> Result<Json<View>, Problem> {
    rows::look(app, id).await?.map(Json).ok_or_else(|| Problem::not_found("notice"))
}

/// Which notices.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Of the policy of this slug.
    policy: Option<String>,
}

/// Notices, the oldest first.
///
/// For admins, operators and auditors.
#[utoipa::path(get, path = "/notices", tag = "notices", params(Which, Paging), responses(
    (status = 200, description = "A page of notices", body = List<View>),
))]
async fn list_notices(
    Shared(app): Shared<App>,
    caller: Caller,
    Query(which): Query<Which>,
    paging: Paging,
) -> Result<Json<List<View>>, Problem> {
    caller.must_be(&[Role::Operator, Role::Auditor])?;
    let after = paging.after_key()?;
    let on = app.db.snapshot().await?;
    let policy = match &which.policy {
        Some(slug) => {
            let found = policy::rows::find(&on, slug).await?.filter(|policy| caller.sees(policy.brand_id));
            match found {
                Some(policy) => Some(policy.id),
                None => return Ok(Json(List { items: Vec::new(), next: None })),
            }
        }
        None => None,
    };
    let found = rows::list(&on, caller.brand, policy, after, paging.fetch()).await?;
    let List { items, next } = List::page(found, &paging, |notice| notice.id.to_string(), |notice| notice);
    let mut views = Vec::with_capacity(items.len());
    for notice in items {
        views.push(view(&on, &app, &notice).await?);
    }
    Ok(Json(List { items: views, next }))
}

/// How far a notice has come.
///
/// For admins, operators and auditors.
#[utoipa::path(get, path = "/notices/{id}", tag = "notices",
    params(("id" = NoticeId, Path, description = "The notice")),
    responses(
        (status = 200, description = "The notice", body = View),
        (status = 404, description = "There is no such notice", body = Problem),
    ))]
async fn get_notice(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<NoticeId>,
) -> Result<Json<View>, Problem> {
    seen(&app, &caller, id, &[Role::Operator, Role::Auditor]).await?;
    shown(&app, id).await
}
