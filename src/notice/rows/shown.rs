//! A notice as callers see it, over HTTP and on the command line.

use sea_orm::{ConnectionTrait, DbErr};
use serde::Serialize;
use serde_json::Value;

use super::{Answers, Notice, Round, Told, Waiting, answers, find};
use crate::app::App;
use crate::clock::Timestamp;
use crate::delivery::Counts;
use crate::id::NoticeId;
use crate::notice::{Request, RoundKind, RoundState, State};
use crate::policy;
use crate::policy::Change;

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
    /// The day that people read, by the offset that was given with it: `2027-01-31`.
    #[schema(format = Date)]
    pub effective_date: String,
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
    /// What one key asked to be changed and another one has to release; null while nothing waits.
    pub waiting: Option<WaitingView>,
    /// Each time that people were told, the first one first.
    pub rounds: Vec<RoundView>,
    /// Who published it.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
    /// When nothing was left to do.
    pub closed_at: Option<Timestamp>,
}

/// A change of a notice that waits for a second key: `POST /notices/{id}/release`.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = NoticeWaiting)]
pub struct WaitingView {
    /// What is to be done.
    pub change: Request,
    /// What was asked, as it was asked.
    #[schema(value_type = Object)]
    pub request: Value,
    /// Who asked for it.
    pub asked_by: String,
    /// When.
    pub asked_at: Timestamp,
}

impl From<Waiting> for WaitingView {
    fn from(waits: Waiting) -> Self {
        let Waiting { change, request, asked_by, asked_at, .. } = waits;
        Self { change, request, asked_by, asked_at }
    }
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

/// The notice as callers see it, all its figures those of one moment; none where there is none.
///
/// # Errors
/// The database's own.
pub async fn look(app: &App, id: NoticeId) -> Result<Option<View>, DbErr> {
    let on = app.db.snapshot().await?;
    let Some(notice) = find(&on, id).await? else { return Ok(None) };
    view(&on, app, &notice).await.map(Some)
}

/// The same, as this transaction sees it. Read outside of one, its figures would be those of several moments.
///
/// # Errors
/// The database's own.
pub async fn view(on: &impl ConnectionTrait, app: &App, notice: &Notice) -> Result<View, DbErr> {
    let gone = |what: &str| DbErr::RecordNotFound(format!("the {what} of notice {}", notice.id));
    let policy = policy::rows::by_id(on, notice.policy_id).await?.ok_or_else(|| gone("policy"))?;
    let version = policy::rows::version_by_id(on, notice.version_id).await?.ok_or_else(|| gone("version"))?;
    let now = app.db.read_clock(on).await?;
    let counts = super::counts(on, notice).await?;
    let mut rounds = Vec::new();
    let (mut completed, mut tells) = (None, false);
    for round in super::rounds(on, notice.id).await? {
        if round.kind.tells_of_the_change() {
            (completed, tells) = (round.completed_at, true);
        }
        rounds.push(round_view(on, round).await?);
    }
    let outlook = super::outlook(on, app, notice, counts.pending).await?;
    let counts = Told {
        total: counts.told + outlook.pending + counts.unreachable,
        pending: outlook.pending,
        ..counts
    };
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
        effective_date: version.there(notice.effective_at).date().to_string(),
        complete_by: notice.complete_by,
        projected_end,
        on_time: on_time || !tells || notice.state == State::Withdrawn,
        counts,
        approvals: answers(on, notice, &version, counts).await?,
        waiting: super::requested(on, notice).await?.map(Into::into),
        rounds,
        created_by: notice.created_by.clone(),
        created_at: notice.created_at,
        closed_at: notice.closed_at,
    })
}

async fn round_view(on: &impl ConnectionTrait, round: Round) -> Result<RoundView, DbErr> {
    let counts = super::counts_of_round(on, &round).await?;
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
