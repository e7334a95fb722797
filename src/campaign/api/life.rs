//! Start, pause, resume, cancel, retry over HTTP.

use axum::extract::State as Shared;
use serde::Deserialize;
use serde_json::json;

use super::{View, changeable, view};
use crate::access::rows::record;
use crate::app::App;
use crate::campaign::CampaignError;
use crate::campaign::rows::{self, Campaign};
use crate::db::Write;
use crate::id::CampaignId;
use crate::web::{Caller, Json, OptionalJson, Path, Problem};

/// No fields.
#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// Start a campaign.
///
/// Freezes template, partials and data, so that later changes of the template change nothing. It runs at once, or is
/// `scheduled` when `send_at` lies ahead.
#[utoipa::path(post, path = "/campaigns/{id}/start", tag = "campaigns", request_body = Option<Nothing>,
    params(("id" = CampaignId, Path, description = "The campaign")),
    responses(
        (status = 200, description = "The campaign, running or scheduled", body = View),
        (status = 409, description = "It is no draft", body = Problem),
        (status = 422, description = "Something keeps it from being sent; the pointer names its field", body = Problem),
    ))]
pub(super) async fn start_campaign(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<CampaignId>,
    _no_fields: OptionalJson<Nothing>,
) -> Result<Json<View>, Problem> {
    change(&app, &caller, id, "campaign.start", async |txn| rows::start(txn, &app.db, id).await).await
}

/// Pause a running campaign. What a worker has in hand goes on; nothing else does.
#[utoipa::path(post, path = "/campaigns/{id}/pause", tag = "campaigns", request_body = Option<Nothing>,
    params(("id" = CampaignId, Path, description = "The campaign")),
    responses(
        (status = 200, description = "The campaign, paused", body = View),
        (status = 409, description = "It is not running", body = Problem),
    ))]
pub(super) async fn pause_campaign(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<CampaignId>,
    _no_fields: OptionalJson<Nothing>,
) -> Result<Json<View>, Problem> {
    change(&app, &caller, id, "campaign.pause", async |txn| rows::pause(txn, id).await).await
}

/// Go on after a pause.
#[utoipa::path(post, path = "/campaigns/{id}/resume", tag = "campaigns", request_body = Option<Nothing>,
    params(("id" = CampaignId, Path, description = "The campaign")),
    responses(
        (status = 200, description = "The campaign, running", body = View),
        (status = 409, description = "It is not paused", body = Problem),
    ))]
pub(super) async fn resume_campaign(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<CampaignId>,
    _no_fields: OptionalJson<Nothing>,
) -> Result<Json<View>, Problem> {
    change(&app, &caller, id, "campaign.resume", async |txn| rows::resume(txn, &app.db, id).await).await
}

/// Call a campaign off.
///
/// From this answer on no worker takes up any of its messages; what a worker has in hand finishes. The queued ones are
/// counted `cancelled` by and by.
#[utoipa::path(post, path = "/campaigns/{id}/cancel", tag = "campaigns", request_body = Option<Nothing>,
    params(("id" = CampaignId, Path, description = "The campaign")),
    responses(
        (status = 200, description = "The campaign, cancelled", body = View),
        (status = 409, description = "It is finished or cancelled", body = Problem),
    ))]
pub(super) async fn cancel_campaign(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<CampaignId>,
    _no_fields: OptionalJson<Nothing>,
) -> Result<Json<View>, Problem> {
    change(&app, &caller, id, "campaign.cancel", async |txn| rows::cancel(txn, id).await).await
}

/// Take up again what failed.
///
/// Never what is `unknown`: it may have arrived. A finished campaign runs again when anything had failed.
#[utoipa::path(post, path = "/campaigns/{id}/retry", tag = "campaigns", request_body = Option<Nothing>,
    params(("id" = CampaignId, Path, description = "The campaign")),
    responses(
        (status = 200, description = "The campaign", body = View),
        (status = 409, description = "It is draft, scheduled or cancelled", body = Problem),
    ))]
pub(super) async fn retry_campaign(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<CampaignId>,
    _no_fields: OptionalJson<Nothing>,
) -> Result<Json<View>, Problem> {
    let again = async |txn: &Write| Ok(rows::retry(txn, &app.db, id).await?.0);
    change(&app, &caller, id, "campaign.retry", again).await
}

/// Makes the change, notes it under `word` in the same transaction, and shows the campaign.
async fn change<F>(
    app: &App,
    caller: &Caller,
    id: CampaignId,
    word: &str,
    change: F,
) -> Result<Json<View>, Problem>
where
    F: AsyncFnOnce(&Write) -> Result<Campaign, CampaignError>,
{
    changeable(app, caller, id).await?;
    let txn = app.db.begin().await?;
    let campaign = change(&txn).await?;
    let detail = json!({ "state": campaign.state });
    record(&*txn, &app.db, &caller.actor, word, &id.to_string(), detail).await?;
    txn.commit().await?;
    Ok(Json(view(app.db.reads(), campaign).await?))
}
