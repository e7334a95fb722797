//! Publishing: before it the preview, then one key or two.

use std::collections::BTreeMap;

use axum::extract::State as Shared;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::versions::{TextView, VersionView, view};
use super::{changeable, seen_version};
use crate::access;
use crate::app::App;
use crate::brand::Brand;
use crate::db::Write;
use crate::notice;
use crate::policy::changes::{self, Part};
use crate::policy::markdown;
use crate::policy::rows::{self, Policy, Published, Text};
use crate::web::{Caller, Json, OptionalJson, Path, Problem, Query};

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

/// In which language a version is looked at.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Language {
    /// The language tag of one of its texts; the policy's own when absent.
    language: Option<String>,
}

/// A version as people will read it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VersionPreview)]
pub(super) struct Preview {
    /// The version.
    version: VersionView,
    /// The language tag of what follows.
    language: String,
    /// The text as HTML that can do nothing but be read, to stand below a heading of the first level.
    html: String,
    /// What changed since the version before, in the order of the text; empty where nothing but the form did, null for a
    /// first version.
    changes: Option<Vec<Part>>,
    /// What it says, by language tag.
    texts: BTreeMap<String, TextView>,
    /// Whom its notice would be for and when the last one would be told; null where it makes none, or has made it.
    notice: Option<notice::rows::Forecast>,
}

/// Preview a version.
///
/// Drafts too: the text as people will read it, what changes, whom its notice would be for, and when the last one would be
/// told.
#[utoipa::path(get, path = "/policies/{policy}/versions/{n}/preview", tag = "policies",
    params(("policy" = String, Path, description = "Slug of the policy"), ("n" = i64, Path, description = "Its number"),
        Language),
    responses((status = 200, description = "The version as people will read it", body = Preview)))]
pub(super) async fn preview_version(
    Shared(app): Shared<App>,
    caller: Caller,
    Path((slug, number)): Path<(String, i64)>,
    Query(asked): Query<Language>,
) -> Result<Json<Preview>, Problem> {
    let (policy, brand, version) = seen_version(&app, &caller, &slug, number).await?;
    let on = app.db.reads();
    let before = rows::before(on, &version).await?;
    let notice = match version.state.is_public() {
        true => None,
        false => notice::rows::forecast(on, &app, &policy, &version).await?,
    };
    let (version, texts) = view(on, &app, &brand, &policy, version).await?;
    let language = asked.language.unwrap_or_else(|| policy.language.clone());
    let text = texts.iter().find(|text| text.language.eq_ignore_ascii_case(&language));
    let none = || Problem::field("language", format!("the version has no text in {language:?}"));
    let Text { language, body_markdown, .. } = text.ok_or_else(none)?.clone();
    let changes = match before {
        Some(before) => {
            let old = rows::text_for(on, &before, &language, &policy.language).await?;
            let old = old.map_or(String::new(), |old| old.body_markdown);
            Some(changes::compare(&old, &body_markdown).await.to_vec())
        }
        None => None,
    };
    let texts = texts.into_iter().map(|text| (text.language.clone(), text.into())).collect();
    Ok(Json(Preview { version, language, html: markdown::to_html(&body_markdown), changes, texts, notice }))
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
