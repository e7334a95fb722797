//! `/notices`: how far they have come, and what an administrator changes about them.

mod change;
mod evidence;
mod people;
mod standing;

use axum::extract::State as Shared;
use sea_orm::{ConnectionTrait, DbErr};
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::rows::{self, Answers, Notice, Round, Told};
use super::{NoticeError, RoundKind, RoundState, State};
use crate::app::App;
use crate::clock::Timestamp;
use crate::delivery::Counts;
use crate::id::NoticeId;
use crate::policy;
use crate::policy::Change;
use crate::web::{Caller, Json, List, Paging, Path, Problem, Query, Role};

/// The routes of notices.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_notices))
        .routes(routes!(get_notice))
        .routes(routes!(change::postpone_notice))
        .routes(routes!(change::correct_notice))
        .routes(routes!(change::withdraw_notice))
        .routes(routes!(people::list_unreachable))
        .routes(routes!(people::told_otherwise))
        .merge(standing::router())
        .merge(evidence::router())
}

/// A notice: who was told of a change, and by when the others will be.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Notice)]
pub struct View {
    /// Its id.
    pub id: NoticeId,
    /// The slug of the policy.
    pub policy: String,
    /// The number of the version.
    pub version: i64,
    /// How it changes the policy.
    pub change: Change,
    /// How far it has come.
    pub state: State,
    /// From when the change holds.
    pub effective_at: Timestamp,
    /// By when everyone is to be told. Who joins later is told at once.
    pub complete_by: Timestamp,
    /// When the last one will be told, from the rates and the queue as they are; null while nobody sends.
    pub projected_end: Option<Timestamp>,
    /// Whether everyone was or will be told by `complete_by`, as things stand.
    pub on_time: bool,
    /// How many people were told of the change as it stands.
    pub counts: Told,
    /// What people answered, where they were asked.
    pub approvals: Answers,
    /// Each time that people were told, the first one first.
    pub rounds: Vec<RoundView>,
    /// Who published it.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
    /// When nothing was left to do.
    pub closed_at: Option<Timestamp>,
}

/// One telling of a notice.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = NoticeRound)]
pub struct RoundView {
    /// Its number, from 1.
    pub number: i64,
    /// What is told.
    pub kind: RoundKind,
    /// Why, where it is not the first one.
    pub reason: Option<String>,
    /// How far it has come.
    pub state: RoundState,
    /// How many of its messages are in which state.
    pub counts: Counts,
    /// Who began it; `worker` for what comes by itself.
    pub created_by: String,
    /// When it began.
    pub created_at: Timestamp,
    /// When everyone whom it found was told or given up.
    pub completed_at: Option<Timestamp>,
}

/// The notice as callers see it.
///
/// # Errors
/// The database's own.
pub async fn view(on: &impl ConnectionTrait, app: &App, notice: &Notice) -> Result<View, DbErr> {
    let gone = |what: &str| DbErr::RecordNotFound(format!("the {what} of notice {}", notice.id));
    let policy = policy::rows::by_id(on, notice.policy_id).await?.ok_or_else(|| gone("policy"))?;
    let version = policy::rows::version_by_id(on, notice.version_id).await?.ok_or_else(|| gone("version"))?;
    let now = app.db.read_clock(on).await?;
    let counts = rows::counts(on, notice).await?;
    let mut rounds = Vec::new();
    let mut completed = None;
    for round in rows::rounds(on, notice.id).await? {
        if round.kind.tells_of_the_change() {
            completed = round.completed_at;
        }
        rounds.push(round_view(on, round).await?);
    }
    let outlook = rows::outlook(on, app, notice).await?;
    let projected_end = match completed {
        Some(completed) if outlook.pending == 0 => Some(completed),
        _ => outlook.projected_end(now),
    };
    let on_time = completed.or(projected_end).is_some_and(|end| end <= notice.complete_by);
    Ok(View {
        id: notice.id,
        policy: policy.slug,
        version: version.number,
        change: version.change,
        state: notice.state,
        effective_at: notice.effective_at,
        complete_by: notice.complete_by,
        projected_end,
        on_time: on_time || notice.state == State::Withdrawn,
        counts,
        approvals: Answers::of(notice, &version, counts),
        rounds,
        created_by: notice.created_by.clone(),
        created_at: notice.created_at,
        closed_at: notice.closed_at,
    })
}

async fn round_view(on: &impl ConnectionTrait, round: Round) -> Result<RoundView, DbErr> {
    let (counts, _) = rows::counts_of_round(on, &round).await?;
    Ok(RoundView {
        number: round.number,
        kind: round.kind,
        reason: round.reason,
        state: round.state,
        counts,
        created_by: round.created_by,
        created_at: round.created_at,
        completed_at: round.completed_at,
    })
}

impl From<NoticeError> for Problem {
    fn from(error: NoticeError) -> Self {
        match error {
            NoticeError::Gone => Self::not_found("notice"),
            NoticeError::WrongState { .. } => Self::conflict(error.to_string()),
            NoticeError::Flaw(pointer, reason) => Self::field(&pointer, reason),
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

/// Which notices.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Of the policy of this slug.
    policy: Option<String>,
}

/// Notices, the oldest first.
///
/// For admins and auditors.
#[utoipa::path(get, path = "/notices", tag = "notices", params(Which, Paging), responses(
    (status = 200, description = "A page of notices", body = List<View>),
    (status = 422, description = "There is no such policy", body = Problem),
))]
async fn list_notices(
    Shared(app): Shared<App>,
    caller: Caller,
    Query(which): Query<Which>,
    paging: Paging,
) -> Result<Json<List<View>>, Problem> {
    caller.must_be(&[Role::Auditor])?;
    let on = app.db.reads();
    let policy = match &which.policy {
        Some(slug) => {
            let found = policy::rows::find(on, slug).await?.filter(|policy| caller.sees(policy.brand_id));
            Some(found.ok_or_else(|| Problem::field("policy", "there is no such policy"))?.id)
        }
        None => None,
    };
    let found = rows::list(on, caller.brand, policy, paging.after_key()?, paging.fetch()).await?;
    let List { items, next } = List::page(found, &paging, |notice| notice.id.to_string(), |notice| notice);
    let mut views = Vec::with_capacity(items.len());
    for notice in items {
        views.push(view(on, &app, &notice).await?);
    }
    Ok(Json(List { items: views, next }))
}

/// How far a notice has come.
///
/// For admins and auditors.
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
    let notice = seen(&app, &caller, id, &[Role::Auditor]).await?;
    Ok(Json(view(app.db.reads(), &app, &notice).await?))
}
