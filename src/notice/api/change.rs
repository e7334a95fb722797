//! Postpone, correct, withdraw over HTTP.

use std::collections::BTreeMap;

use axum::extract::State as Shared;
use serde::Deserialize;
use serde_json::json;

use super::seen;
use crate::access::rows::record;
use crate::app::App;
use crate::clock::Timestamp;
use crate::id::NoticeId;
use crate::notice::rows::{self, View, view};
use crate::web::{Caller, FieldError, Json, Path, Problem, check};

/// Longest reason in characters.
const MAX_REASON: usize = 2_000;
/// Longest summary in characters.
const MAX_SUMMARY: usize = 5_000;

/// A later date.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Postponement {
    /// From when the change holds now; later than before.
    effective_at: Timestamp,
    /// Why, as people are told; at most 2,000 characters.
    reason: String,
}

/// What was wrong.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Correction {
    /// What changes, in plain words, in the policy's own language; what was said stays when absent.
    #[serde(default)]
    summary: Option<String>,
    /// The same in other languages of the version, by their tag.
    #[serde(default)]
    translations: Option<BTreeMap<String, CorrectedText>>,
    /// What was wrong, as people are told; at most 2,000 characters.
    reason: String,
}

/// What changes, in another language.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CorrectedText {
    /// In plain words; at most 5,000 characters.
    summary: String,
}

/// Why the change does not come.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Withdrawal {
    /// Why, as people are told; at most 2,000 characters.
    reason: String,
    /// Whether those who were told of the change are told that it does not come; true when absent.
    #[serde(default)]
    tell: Option<bool>,
}

fn reason(text: &str, errors: &mut Vec<FieldError>) {
    if text.trim().is_empty() {
        check::wrong("/reason", "must not be empty", errors);
    }
    check::lines("/reason", text, MAX_REASON, errors);
}

fn summary(pointer: &str, text: &str, errors: &mut Vec<FieldError>) {
    if text.trim().is_empty() {
        check::wrong(pointer, "must not be empty", errors);
    }
    check::lines(pointer, text, MAX_SUMMARY, errors);
}

/// Postpone a change that has not taken effect.
///
/// Everyone is told of the new date; what waits of the former message is not sent any more. For admins.
#[utoipa::path(post, path = "/notices/{id}/postpone", tag = "notices", request_body = Postponement,
    params(("id" = NoticeId, Path, description = "The notice")),
    responses(
        (status = 200, description = "The notice with its new date", body = View),
        (status = 404, description = "There is no such notice", body = Problem),
        (status = 409, description = "It has taken effect or was withdrawn", body = Problem),
        (status = 422, description = "The date is not later, or a field is wrong", body = Problem),
    ))]
pub(super) async fn postpone_notice(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<NoticeId>,
    Json(body): Json<Postponement>,
) -> Result<Json<View>, Problem> {
    seen(&app, &caller, id, &[]).await?;
    let mut errors = Vec::new();
    reason(&body.reason, &mut errors);
    check::done(errors)?;
    let txn = app.db.begin().await?;
    let notice = rows::postpone(&txn, &app, id, body.effective_at, &body.reason, &caller.actor).await?;
    let detail = json!({ "effective_at": body.effective_at, "reason": body.reason });
    record(&*txn, &app.db, &caller.actor, "notice.postpone", &id.to_string(), detail).await?;
    txn.commit().await?;
    Ok(Json(view(app.db.reads(), &app, &notice).await?))
}

/// Correct what people were told.
///
/// Everyone is told anew, also who was told already. The text of the version itself never changes: what is wrong there
/// takes a new version. For admins.
#[utoipa::path(post, path = "/notices/{id}/correct", tag = "notices", request_body = Correction,
    params(("id" = NoticeId, Path, description = "The notice")),
    responses(
        (status = 200, description = "The notice", body = View),
        (status = 404, description = "There is no such notice", body = Problem),
        (status = 409, description = "It has taken effect or was withdrawn", body = Problem),
        (status = 422, description = "Nothing is corrected, or a field is wrong", body = Problem),
    ))]
pub(super) async fn correct_notice(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<NoticeId>,
    Json(body): Json<Correction>,
) -> Result<Json<View>, Problem> {
    let notice = seen(&app, &caller, id, &[]).await?;
    let mut errors = Vec::new();
    reason(&body.reason, &mut errors);
    let mut summaries = BTreeMap::new();
    if let Some(text) = body.summary {
        summary("/summary", &text, &mut errors);
        let policy = crate::policy::rows::by_id(app.db.reads(), notice.policy_id).await?;
        let policy = policy.ok_or_else(|| Problem::not_found("policy"))?;
        summaries.insert(policy.language, text);
    }
    for (language, text) in body.translations.into_iter().flatten() {
        summary(&format!("/translations/{language}/summary"), &text.summary, &mut errors);
        summaries.insert(language, text.summary);
    }
    if summaries.is_empty() {
        check::wrong("/summary", "is missing: say what people are to be told instead", &mut errors);
    }
    check::done(errors)?;
    let languages: Vec<String> = summaries.keys().cloned().collect();
    let txn = app.db.begin().await?;
    let notice = rows::correct(&txn, &app, id, summaries, &body.reason, &caller.actor).await?;
    let detail = json!({ "languages": languages, "reason": body.reason });
    record(&*txn, &app.db, &caller.actor, "notice.correct", &id.to_string(), detail).await?;
    txn.commit().await?;
    Ok(Json(view(app.db.reads(), &app, &notice).await?))
}

/// Call a change off before it takes effect.
///
/// What waits is not sent any more, and those who were told are told that it does not come. For admins.
#[utoipa::path(post, path = "/notices/{id}/withdraw", tag = "notices", request_body = Withdrawal,
    params(("id" = NoticeId, Path, description = "The notice")),
    responses(
        (status = 200, description = "The notice, withdrawn", body = View),
        (status = 404, description = "There is no such notice", body = Problem),
        (status = 409, description = "It has taken effect, or was withdrawn before", body = Problem),
        (status = 422, description = "A field is wrong", body = Problem),
    ))]
pub(super) async fn withdraw_notice(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<NoticeId>,
    Json(body): Json<Withdrawal>,
) -> Result<Json<View>, Problem> {
    seen(&app, &caller, id, &[]).await?;
    let mut errors = Vec::new();
    reason(&body.reason, &mut errors);
    check::done(errors)?;
    let tell = body.tell.unwrap_or(true);
    let txn = app.db.begin().await?;
    let notice = rows::withdraw(&txn, &app, id, &body.reason, tell, &caller.actor).await?;
    let detail = json!({ "reason": body.reason, "tell": tell });
    record(&*txn, &app.db, &caller.actor, "notice.withdraw", &id.to_string(), detail).await?;
    txn.commit().await?;
    Ok(Json(view(app.db.reads(), &app, &notice).await?))
}
