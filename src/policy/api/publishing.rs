//! Publishing: before it the preview, then one key or two.

use axum::extract::State as Shared;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::changeable;
use super::versions::{VersionView, view};
use crate::access;
use crate::app::App;
use crate::brand::Brand;
use crate::db::Write;
use crate::notice;
use crate::policy::rows::{self, Policy, Published};
use crate::web::{Caller, Json, OptionalJson, Path, Problem};

/// Why a version may do what the policy's rules forbid.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Publish {
    /// Why people get less time than the policy's lead time; kept. At most 2,000 characters.
    #[serde(default)]
    override_reason: Option<String>,
}

/// A version that was published, and what tells people of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PublishedVersion)]
pub(super) struct PublishedView {
    /// The version.
    version: VersionView,
    /// What tells people of it; null for a first version, for a minor change, and as long as it waits to be released.
    notice: Option<notice::rows::View>,
}

/// Publish a version.
///
/// From then on it is there for everyone to read and never changes. A first version and a minor change are told to
/// nobody; every other one opens a notice. When the policy wants two people, it waits to be released with another key.
/// Publishing again changes nothing and gives the same answer.
#[utoipa::path(post, path = "/policies/{policy}/versions/{n}/publish", tag = "policies",
    params(("policy" = String, Path, description = "Slug of the policy"), ("n" = i64, Path, description = "Its number")),
    request_body = Option<Publish>,
    responses(
        (status = 200, description = "The version and its notice", body = PublishedView),
        (status = 422, description = "Its date breaks a rule by now, or a field is wrong", body = Problem),
    ))]
pub(super) async fn publish_version(
    Shared(app): Shared<App>,
    caller: Caller,
    Path((slug, number)): Path<(String, i64)>,
    OptionalJson(body): OptionalJson<Publish>,
) -> Result<Json<PublishedView>, Problem> {
    let (policy, brand) = changeable(&app, &caller, &slug).await?;
    let txn = app.db.begin().await?;
    let published =
        rows::publish(&txn, &app.db, policy.id, number, body.override_reason, &caller.actor).await?;
    finish(txn, &app, &caller, "version.publish", &policy, &brand, published).await
}

/// Release a version that somebody else published.
///
/// For policies that want two people: with another key than the one it was published with. Releasing again changes
/// nothing and gives the same answer.
#[utoipa::path(post, path = "/policies/{policy}/versions/{n}/release", tag = "policies",
    params(("policy" = String, Path, description = "Slug of the policy"), ("n" = i64, Path, description = "Its number")),
    request_body = Option<Publish>,
    responses(
        (status = 200, description = "The version and its notice", body = PublishedView),
        (status = 403, description = "It was published with this key, or the key's role may not do this", body = Problem),
        (status = 409, description = "Nothing waits to be released", body = Problem),
        (status = 422, description = "Its date breaks a rule by now, or a field is wrong", body = Problem),
    ))]
pub(super) async fn release_version(
    Shared(app): Shared<App>,
    caller: Caller,
    Path((slug, number)): Path<(String, i64)>,
    OptionalJson(body): OptionalJson<Publish>,
) -> Result<Json<PublishedView>, Problem> {
    let (policy, brand) = changeable(&app, &caller, &slug).await?;
    let txn = app.db.begin().await?;
    let published =
        rows::release(&txn, &app.db, policy.id, number, body.override_reason, &caller.actor).await?;
    finish(txn, &app, &caller, "version.release", &policy, &brand, published).await
}

/// Opens the notice in the transaction that makes the version public, and answers.
async fn finish(
    txn: Write,
    app: &App,
    caller: &Caller,
    action: &str,
    policy: &Policy,
    brand: &Brand,
    published: Published,
) -> Result<Json<PublishedView>, Problem> {
    let Published { version, opens } = published;
    let notice = match opens {
        true => Some(notice::rows::open(&txn, app, policy, &version, &caller.actor).await?),
        false => notice::rows::of_version(&*txn, version.id).await?,
    };
    let notice = match notice {
        Some(notice) => Some(notice::rows::view(&*txn, app, &notice).await?),
        None => None,
    };
    let subject = format!("policy:{}/{}", policy.slug, version.number);
    let (version, _) = view(&*txn, app, brand, policy, version).await?;
    let detail = json!({ "version": version, "notice": notice.as_ref().map(|notice| notice.id) });
    access::rows::record(&*txn, &app.db, &caller.actor, action, &subject, detail).await?;
    txn.commit().await?;
    Ok(Json(PublishedView { version, notice }))
}
