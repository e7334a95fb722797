//! Recipients of a campaign, streamed.

use axum::extract::State as Shared;
use serde_json::json;

use super::changeable;
use crate::access::rows::record;
use crate::app::App;
use crate::campaign::rows::{self, LinesFailure, LinesReport};
use crate::campaign::{CampaignError, Change};
use crate::id::CampaignId;
use crate::web::{Caller, Json, Path, Problem, Upload};

/// Add recipients by lines.
///
/// CSV with a header (`email,name`; any other column is `data.<column>`), or NDJSON of `{email, name?, data?}`. Streamed,
/// at most 2 GiB. An address not known yet becomes a recipient of the brand; somebody known is not
/// changed, and no line lifts an opt-out. Sent again, lines that are in already count as `already_there`.
#[utoipa::path(post, path = "/campaigns/{id}/recipients", tag = "campaigns",
    params(("id" = CampaignId, Path, description = "The campaign")),
    request_body(content(
        (String = "text/csv", example = "email,name,coupon\nada@example.com,Ada,SPRING\n"),
        (String = "application/x-ndjson", example = "{\"email\":\"ada@example.com\",\"data\":{\"coupon\":\"SPRING\"}}\n"),
    )),
    responses(
        (status = 200, description = "What became of the lines", body = LinesReport),
        (status = 409, description = "The campaign is neither draft nor scheduled. What was added before stays", body = Problem),
    ))]
pub(super) async fn add_campaign_recipients(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<CampaignId>,
    upload: Upload,
) -> Result<Json<LinesReport>, Problem> {
    let (campaign, ..) = changeable(&app, &caller, id).await?;
    Change::AddLines.permit(campaign.state).map_err(CampaignError::from)?;
    let format = upload.format()?;
    let mut added = 0;
    let progress = |report: &LinesReport| added = report.added;
    let done = rows::add_all(&app.db, &app.address_key, id, upload.into_reader(), format, progress).await;
    let whole = done.is_ok();
    if whole || added > 0 {
        let txn = app.db.begin().await?;
        let detail = json!({ "added": added, "whole": whole });
        record(&*txn, &app.db, &caller.actor, "campaign.add_recipients", &id.to_string(), detail).await?;
        txn.commit().await?;
    }
    done.map(Json).map_err(|failure| match failure {
        LinesFailure::Campaign(error) => error.into(),
        LinesFailure::File(error) => error.into(),
    })
}
