//! Who could not be told, and who was told another way, over HTTP.

use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use sea_orm::DbErr;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::seen;
use crate::access::rows::record;
use crate::app::App;
use crate::clock::Timestamp;
use crate::id::{DeliveryId, NoticeId, RecipientId};
use crate::notice::ToldBy;
use crate::notice::rows::{self, Notice, ToldFailure, Unreached};
use crate::web::{Caller, Json, List, Paging, Path, Problem, Role, check};

/// Rows read for one piece of the list as CSV.
const PIECE: u64 = 1_000;
/// Longest note in characters.
const MAX_NOTE: usize = 2_000;

/// Somebody who could not be told by mail.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Unreachable {
    /// Who.
    recipient: RecipientId,
    /// Their address; null once the person was erased.
    email: Option<String>,
    /// Their name.
    name: Option<String>,
    /// The company's own id of them.
    external_id: Option<String>,
    /// What else the company keeps of them.
    #[schema(value_type = Object)]
    attributes: Value,
    /// Why they could not be told: `address_dead` where there is no such mailbox any more, `refused` where the relay refuses
    /// for any other reason, `bounced`, `outcome_unknown` and the like.
    reason: String,
    /// The enhanced status (RFC 3463) with which it was refused or came back, where one was given.
    status: Option<String>,
    /// The relay's words, where it said any; of a message that came back after that, those of the mail server that refused it.
    reply: Option<String>,
    /// How they were told after all; null as long as they were not.
    told_by: Option<ToldBy>,
    /// When that was recorded.
    told_at: Option<Timestamp>,
}

impl Unreachable {
    fn of(one: Unreached) -> Self {
        Self {
            recipient: one.recipient,
            email: one.email,
            name: one.name,
            external_id: one.external_id,
            attributes: one.attributes,
            reason: one.reason,
            status: one.status,
            reply: one.reply,
            told_by: one.told_by,
            told_at: one.told_at,
        }
    }
}

/// Who could not be told, and why; those who were told another way since are marked.
///
/// Among them those whose message the relay took over and which came back. As JSON in pages, or, with `Accept: text/csv`,
/// all of them as CSV for a letter. For admins, operators and auditors.
#[utoipa::path(get, path = "/notices/{id}/unreachable", tag = "notices",
    params(("id" = NoticeId, Path, description = "The notice"), Paging),
    responses(
        (status = 200, description = "A page of them; CSV: `recipient,email,name,external_id,reason,told_by,told_at,reply,attributes`, the last as JSON", content(
            (List<Unreachable> = "application/json"), (String = "text/csv"),
        )),
        (status = 404, description = "There is no such notice", body = Problem),
    ))]
pub(super) async fn list_unreachable(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<NoticeId>,
    paging: Paging,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let notice = seen(&app, &caller, id, &[Role::Operator, Role::Auditor]).await?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("text/csv") && !accept.contains("application/json") {
        return as_csv(app, notice).await;
    }
    let after: Option<DeliveryId> = paging.after_key()?;
    let found = rows::unreached(app.db.reads(), &notice, after, paging.fetch()).await?;
    Ok(Json(List::page(found, &paging, |one| one.delivery.to_string(), Unreachable::of)).into_response())
}

async fn as_csv(app: App, notice: Notice) -> Result<Response, Problem> {
    // The first piece is read before anything is answered, so that a database that is away is a 503.
    let (first, next) = piece(&app, &notice, None).await?;
    let first = format!("{}\r\n{first}", rows::UNREACHED_HEADER);
    let rest = stream::try_unfold((app, notice, next), |(app, notice, next)| async move {
        let Some(after) = next else { return Ok::<_, DbErr>(None) };
        let (text, next) = piece(&app, &notice, Some(after)).await?;
        Ok(Some((Bytes::from(text), (app, notice, next))))
    });
    let pieces = stream::once(async { Ok(Bytes::from(first)) }).chain(rest);
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"unreachable.csv\""),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

async fn piece(
    app: &App,
    notice: &Notice,
    after: Option<DeliveryId>,
) -> Result<(String, Option<DeliveryId>), DbErr> {
    let found = rows::unreached(app.db.reads(), notice, after, PIECE).await?;
    let next = found.last().filter(|_| found.len() as u64 == PIECE).map(|one| one.delivery);
    Ok((rows::unreached_as_csv(found)?, next))
}

/// Somebody who was told another way.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ToldOtherwise {
    /// Who; one of the unreachable.
    #[schema(value_type = String, format = Uuid)]
    recipient: RecipientId,
    /// How.
    by: ToldBy,
    /// What there is to say about it, such as the day of the letter; at most 2,000 characters.
    #[serde(default)]
    note: Option<String>,
}

/// What was recorded.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ToldAnswer {
    /// Who was told.
    recipient: RecipientId,
    /// Whether it is new; what was recorded first stays.
    recorded: bool,
}

/// Note that somebody whom the mail could not reach was told by letter or telephone.
///
/// For operators and admins. Repeated, it changes nothing.
#[utoipa::path(post, path = "/notices/{id}/told", tag = "notices", request_body = ToldOtherwise,
    params(("id" = NoticeId, Path, description = "The notice")),
    responses(
        (status = 200, description = "It is recorded", body = ToldAnswer),
        (status = 404, description = "There is no such notice", body = Problem),
        (status = 422, description = "The person is not among the unreachable, or a field is wrong", body = Problem),
    ))]
pub(super) async fn told_otherwise(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<NoticeId>,
    Json(body): Json<ToldOtherwise>,
) -> Result<Json<ToldAnswer>, Problem> {
    seen(&app, &caller, id, &[Role::Operator]).await?;
    let mut errors = Vec::new();
    check::lines("/note", body.note.as_deref().unwrap_or_default(), MAX_NOTE, &mut errors);
    check::done(errors)?;
    let txn = app.db.begin().await?;
    let note = body.note.as_deref();
    let told = rows::tell_otherwise(&txn, &app, id, body.recipient, body.by, note, &caller.actor).await;
    let recorded = told.map_err(|error| match error {
        ToldFailure::NotAddressed => Problem::field("/recipient", error.to_string()),
        ToldFailure::Db(error) => error.into(),
    })?;
    let detail = json!({ "recipient": body.recipient, "by": body.by, "new": recorded });
    record(&*txn, &app.db, &caller.actor, "notice.told", &id.to_string(), detail).await?;
    txn.commit().await?;
    Ok(Json(ToldAnswer { recipient: body.recipient, recorded }))
}
