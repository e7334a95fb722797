//! What one key asks about a notice and another one releases, over HTTP; at once where the policy is content with one.

use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::change::{Correction, Postponement, Withdrawal};
use super::{seen, shown};
use crate::access::rows::record;
use crate::app::App;
use crate::clock::Timestamp;
use crate::db::Write;
use crate::id::NoticeId;
use crate::notice::Request;
use crate::notice::rows::{self, By, Notice, View};
use crate::web::{Caller, Json, OptionalJson, Path, Problem};

/// What is asked about a notice.
pub(super) enum Asked {
    Correct(Correction),
    Postpone(Postponement),
    Withdraw(Withdrawal),
}

impl Asked {
    fn change(&self) -> Request {
        match self {
            Self::Correct(_) => Request::Correct,
            Self::Postpone(_) => Request::Postpone,
            Self::Withdraw(_) => Request::Withdraw,
        }
    }

    fn to_json(&self) -> Result<Value, Problem> {
        fn value(body: &impl Serialize) -> Result<Value, Problem> {
            serde_json::to_value(body).map_err(|_| Problem::internal())
        }
        match self {
            Self::Correct(body) => value(body),
            Self::Postpone(body) => value(body),
            Self::Withdraw(body) => value(body),
        }
    }

    fn from_json(change: Request, stored: Value) -> Result<Self, Problem> {
        fn body<T: DeserializeOwned>(stored: Value) -> Result<T, Problem> {
            serde_json::from_value(stored).map_err(|error| {
                tracing::error!(%error, "what was asked about a notice cannot be read any more");
                Problem::conflict(
                    "What waits was asked for in a form that is not known any more: ask for it anew.",
                )
            })
        }
        Ok(match change {
            Request::Correct => Self::Correct(body(stored)?),
            Request::Postpone => Self::Postpone(body(stored)?),
            Request::Withdraw => Self::Withdraw(body(stored)?),
        })
    }

    /// Carries it out in this transaction, once everything about it was checked; gives what there is to keep of it besides.
    async fn carry_out(
        self,
        txn: &Write,
        app: &App,
        notice: &Notice,
        by: By<'_>,
    ) -> Result<(Notice, Value), Problem> {
        match self {
            Self::Correct(body) => body.carry_out(txn, app, notice, by).await,
            Self::Postpone(body) => body.carry_out(txn, app, notice, by).await,
            Self::Withdraw(body) => body.carry_out(txn, app, notice, by).await,
        }
    }

    /// Carries it out, or, where that takes two people, makes sure that it could be and lets it wait: then with 202.
    pub(super) async fn take(
        self,
        app: &App,
        caller: &Caller,
        id: NoticeId,
    ) -> Result<(StatusCode, Json<View>), Problem> {
        let notice = seen(app, caller, id, &[]).await?;
        let (change, asked) = (self.change(), self.to_json()?);
        let txn = app.db.begin().await?;
        let by = By { actor: &caller.actor, asked_by: None };
        let (notice, detail) = self.carry_out(&txn, app, &notice, by).await?;
        // Under the policy's lock, which carrying it out took: nobody changes how many people it takes meanwhile.
        let two = rows::takes_two(&*txn, &notice).await?;
        let subject = id.to_string();
        if !two {
            // What was asked for before it has been overtaken.
            if let Some(waits) = rows::take_back(&txn, id).await? {
                let detail = json!({ "change": waits.change, "asked_by": waits.asked_by });
                record(&*txn, &app.db, &caller.actor, "notice.take_back", &subject, detail).await?;
            }
            let action = format!("notice.{change}");
            record(&*txn, &app.db, &caller.actor, &action, &subject, detail).await?;
            txn.commit().await?;
            return Ok((StatusCode::OK, shown(app, id).await?));
        }
        // So it could be done. It is not.
        txn.rollback().await?;
        let txn = app.db.begin().await?;
        let new = rows::ask(&txn, &app.db, id, change, asked, &caller.actor).await?;
        let detail = json!({ "change": change, "asked": detail, "new": new });
        record(&*txn, &app.db, &caller.actor, "notice.ask", &subject, detail).await?;
        txn.commit().await?;
        Ok((StatusCode::ACCEPTED, shown(app, id).await?))
    }
}

/// Which of the requests.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Release {
    /// The `asked_at` of what you looked at: nothing else is carried out then, should it have been asked anew meanwhile.
    #[serde(default)]
    asked_at: Option<Timestamp>,
}

/// Release what somebody else asked to be changed.
///
/// For policies that want two people: with another key than the one that asked. What waits is carried out as if it were
/// asked for now, with all its checks; what they refuse goes on waiting. Releasing again changes nothing. For admins.
#[utoipa::path(post, path = "/notices/{id}/release", tag = "notices", request_body = Option<Release>,
    params(("id" = NoticeId, Path, description = "The notice")),
    responses(
        (status = 200, description = "It is done: the notice", body = View),
        (status = 403, description = "It was asked for with this key, or the key's role may not do this", body = Problem),
        (status = 404, description = "There is no such notice", body = Problem),
        (status = 409, description = "Nothing waits, or something else, or the notice has taken effect or was withdrawn", body = Problem),
        (status = 422, description = "What waits cannot be done any more as it was asked for", body = Problem),
    ))]
pub(super) async fn release_change(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<NoticeId>,
    OptionalJson(body): OptionalJson<Release>,
) -> Result<Json<View>, Problem> {
    seen(&app, &caller, id, &[]).await?;
    let txn = app.db.begin().await?;
    if let Some(waits) = rows::take_up(&txn, &app.db, id, body.asked_at, &caller.actor).await? {
        let notice = rows::find(&*txn, id).await?.ok_or_else(|| Problem::not_found("notice"))?;
        let asked = Asked::from_json(waits.change, waits.request)?;
        let by = By { actor: &caller.actor, asked_by: Some(&waits.asked_by) };
        let (_, done) = asked.carry_out(&txn, &app, &notice, by).await?;
        let detail = json!({ "change": waits.change, "asked_by": waits.asked_by, "done": done });
        record(&*txn, &app.db, &caller.actor, "notice.release", &id.to_string(), detail).await?;
    }
    txn.commit().await?;
    shown(&app, id).await
}

/// Take back what waits to be released.
///
/// Whoever asked for it, or anybody else, before it is carried out. Repeated, it changes nothing. For admins.
#[utoipa::path(delete, path = "/notices/{id}/waiting", tag = "notices",
    params(("id" = NoticeId, Path, description = "The notice")),
    responses(
        (status = 204, description = "Nothing waits any more"),
        (status = 404, description = "There is no such notice", body = Problem),
    ))]
pub(super) async fn take_back_change(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<NoticeId>,
) -> Result<StatusCode, Problem> {
    seen(&app, &caller, id, &[]).await?;
    let txn = app.db.begin().await?;
    if let Some(waits) = rows::take_back(&txn, id).await? {
        let detail = json!({ "change": waits.change, "asked_by": waits.asked_by });
        record(&*txn, &app.db, &caller.actor, "notice.take_back", &id.to_string(), detail).await?;
    }
    txn.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
