//! The deliveries of a campaign over HTTP.

use axum::extract::State as Shared;
use serde::{Deserialize, Serialize};

use super::seen;
use crate::app::App;
use crate::clock::Timestamp;
use crate::delivery;
use crate::delivery::rows::{AttemptView, BounceView, DeliveryFilter};
use crate::id::{CampaignId, DeliveryId, RecipientId};
use crate::recipient;
use crate::web::{Caller, Json, List, Paging, Path, Problem, Query};

/// Which deliveries.
#[derive(Clone, Copy, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// In this state alone.
    state: Option<delivery::State>,
}

/// A delivery of a campaign.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(super) struct CampaignDelivery {
    /// Its id.
    id: DeliveryId,
    /// To whom.
    recipient: RecipientId,
    /// The address; null once the person was erased.
    email: Option<String>,
    /// Where it is.
    state: delivery::State,
    /// Why it is there, as far as there is more to say: a word of the decision when suppressed, a sentence when failed.
    reason: Option<String>,
    /// When it was made.
    created_at: Timestamp,
    /// When it is tried next, while it is queued.
    due_at: Option<Timestamp>,
    /// When it came to its final state.
    settled_at: Option<Timestamp>,
    /// Its attempts, the oldest first, with the relay's words.
    attempts: Vec<AttemptView>,
    /// How it came back after the relay had taken it over; absent when it did not. The state stays as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    bounced: Option<BounceView>,
}

/// The deliveries of a campaign: who, state, reason, and every attempt with the relay's words.
#[utoipa::path(get, path = "/campaigns/{id}/deliveries", tag = "campaigns",
    params(("id" = CampaignId, Path, description = "The campaign"), Which, Paging),
    responses(
        (status = 200, description = "A page of deliveries", body = List<CampaignDelivery>),
        (status = 404, description = "There is no such campaign", body = Problem),
    ))]
pub(super) async fn list_campaign_deliveries(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<CampaignId>,
    Query(which): Query<Which>,
    paging: Paging,
) -> Result<Json<List<CampaignDelivery>>, Problem> {
    let (campaign, ..) = seen(&app, &caller, id).await?;
    let on = app.db.reads();
    let filter =
        DeliveryFilter { mailing: Some(campaign.mailing()), state: which.state, ..Default::default() };
    let rows = delivery::rows::list(on, filter, paging.after_key()?, paging.fetch()).await?;
    let ids: Vec<RecipientId> = rows.iter().map(|row| row.recipient).collect();
    let mut people = recipient::rows::people(on, &ids, campaign.brand_id).await?;
    let list = List::page(
        rows,
        &paging,
        |row| row.id.to_string(),
        |row| CampaignDelivery {
            email: people.remove(&row.recipient).and_then(|member| member.recipient.address),
            due_at: row.due_at.filter(|_| row.state == delivery::State::Queued),
            id: row.id,
            recipient: row.recipient,
            state: row.state,
            reason: row.reason,
            created_at: row.created_at,
            settled_at: row.settled_at,
            attempts: row.attempts,
            bounced: row.bounced,
        },
    );
    Ok(Json(list))
}
