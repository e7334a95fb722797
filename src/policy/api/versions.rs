//! `/policies/{policy}/versions`.

use std::collections::BTreeMap;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use sea_orm::{ConnectionTrait, DbErr};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{changeable, seen, seen_version};
use crate::access;
use crate::app::App;
use crate::brand::{self, Brand};
use crate::clock::{Local, Timestamp};
use crate::id::VersionId;
use crate::policy::rows::{self, Policy, Text, Version};
use crate::policy::{Approval, Change, Draft, State, Translation, version_path};
use crate::web::{Caller, Json, List, NewId, Paging, Path, Problem};

/// A version to be written.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = VersionFields)]
pub(super) struct NewVersion {
    /// The text in the policy's language: Markdown of at most 256 kB, with tables.
    body_markdown: String,
    /// How it changes the policy.
    change: Change,
    /// What changes and what it means for people, in plain words; at most 5,000 characters.
    summary: String,
    /// From when it holds. The first version of a policy may leave it out, which means from its publication, and may name
    /// a time that has passed; every other one names one that leaves the policy's lead time, or gives `override_reason`.
    /// People read the day on which it is by the clock of its offset: of `2027-01-31T00:00:00+01:00` 31 January.
    #[serde(default)]
    effective_at: Option<Local>,
    /// Whether people are asked to approve it: `required` for adverse changes and `none` otherwise when absent; `none`
    /// for an adverse one needs `override_reason`.
    #[serde(default)]
    approval: Option<Approval>,
    /// Why people get less time or are not asked; kept.
    #[serde(default)]
    override_reason: Option<String>,
    /// What it says in other languages, by language tag (RFC 5646); at most 30, and the whole body at most 1 MiB.
    #[serde(default)]
    translations: Option<BTreeMap<String, Translation>>,
    /// For a new use: the slug of the topic that stands for it, which people can refuse.
    #[serde(default)]
    topic: Option<String>,
}

/// A version of a policy.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PolicyVersion)]
pub(super) struct VersionView {
    /// The slug of its policy.
    policy: String,
    /// Its number, from 1.
    number: i64,
    /// How far it has come.
    state: State,
    /// How it changes the policy.
    change: Change,
    /// Whether people are asked to approve it.
    approval: Approval,
    /// The slug of the topic that stands for a new use.
    topic: Option<String>,
    /// From when it holds; null before the publication of a first version that names no time.
    effective_at: Option<Timestamp>,
    /// The day that people read, by the offset that was given with it: `2027-01-31`.
    #[schema(format = Date)]
    effective_date: Option<String>,
    /// Why people get less time or are not asked.
    override_reason: Option<String>,
    /// What the policy is called in it.
    title: String,
    /// What changes, in the policy's language.
    summary: String,
    /// SHA-256 of the text in the policy's language, as octets of UTF-8; hexadecimal.
    sha256: String,
    /// The language tags of its texts, the policy's own included.
    languages: Vec<String>,
    /// Where everyone may read it once it is published.
    url: String,
    /// Where everyone may see what changed.
    changes_url: String,
    /// Who wrote it.
    created_by: String,
    /// When it was written.
    created_at: Timestamp,
    /// Who published it.
    published_by: Option<String>,
    /// When everyone could read it.
    published_at: Option<Timestamp>,
    /// Who released it.
    released_by: Option<String>,
    /// When it was called off.
    withdrawn_at: Option<Timestamp>,
}

/// A version with its texts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PolicyVersionWithTexts)]
pub(super) struct WholeView {
    /// The version.
    #[serde(flatten)]
    version: VersionView,
    /// What it says, by language tag.
    texts: BTreeMap<String, TextView>,
}

/// What a version says in one language.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PolicyText)]
pub(super) struct TextView {
    /// What the policy is called in it.
    title: String,
    /// What changes, in plain words.
    summary: String,
    /// The text, Markdown.
    body_markdown: String,
    /// SHA-256 of the text, as octets of UTF-8; hexadecimal.
    sha256: String,
}

impl From<Text> for TextView {
    fn from(text: Text) -> Self {
        let sha256 = text.hash();
        Self { title: text.title, summary: text.summary, body_markdown: text.body_markdown, sha256 }
    }
}

/// This path below the base URL of the brand.
pub(super) fn below(app: &App, brand: &Brand, path: &str) -> String {
    format!("{}{path}", brand.base(&app.settings.base_url).trim_end_matches('/'))
}

/// A version as it is shown, and its texts.
pub(super) async fn view(
    on: &impl ConnectionTrait,
    app: &App,
    brand: &Brand,
    policy: &Policy,
    version: Version,
) -> Result<(VersionView, Vec<Text>), DbErr> {
    let texts = rows::texts(on, version.id).await?;
    let own = texts.iter().find(|text| text.language == policy.language);
    let own = own.ok_or_else(|| DbErr::RecordNotFound(format!("the text of version {}", version.id)))?;
    let topic = match version.use_topic_id {
        Some(topic) => brand::rows::topic_by_id(on, topic).await?.map(|topic| topic.slug),
        None => None,
    };
    let path = version_path(&policy.slug, version.number);
    let view = VersionView {
        policy: policy.slug.clone(),
        number: version.number,
        state: version.state,
        change: version.change,
        approval: version.approval,
        topic,
        effective_at: version.holds_from(),
        effective_date: version.holds_from_there().map(|from| from.date().to_string()),
        title: own.title.clone(),
        summary: own.summary.clone(),
        sha256: own.hash(),
        languages: texts.iter().map(|text| text.language.clone()).collect(),
        url: below(app, brand, &path),
        changes_url: below(app, brand, &format!("{path}/changes")),
        override_reason: version.override_reason,
        created_by: version.created_by,
        created_at: version.created_at,
        published_by: version.published_by,
        published_at: version.published_at,
        released_by: version.released_by,
        withdrawn_at: version.withdrawn_at,
    };
    Ok((view, texts))
}

/// List the versions of a policy.
///
/// By number, drafts and withdrawn ones included, without their texts.
#[utoipa::path(get, path = "/policies/{policy}/versions", tag = "policies",
    params(("policy" = String, Path, description = "Slug of the policy"), Paging),
    responses((status = 200, description = "A page of versions", body = List<VersionView>)))]
pub(super) async fn list_versions(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(slug): Path<String>,
    paging: Paging,
) -> Result<Json<List<VersionView>>, Problem> {
    let (policy, brand) = seen(&app, &caller, &slug).await?;
    let on = app.db.reads();
    let found = rows::versions_after(on, policy.id, paging.after_key()?, paging.fetch()).await?;
    let List { items, next } =
        List::page(found, &paging, |version| version.number.to_string(), |version| version);
    let mut views = Vec::with_capacity(items.len());
    for version in items {
        views.push(view(on, &app, &brand, &policy, version).await?.0);
    }
    Ok(Json(List { items: views, next }))
}

/// Write the next version of a policy, as a draft.
///
/// Nobody sees it until it is published, and until then it may be deleted; a policy has one such version at a time.
#[utoipa::path(post, path = "/policies/{policy}/versions", tag = "policies", request_body = NewVersion,
    params(("policy" = String, Path, description = "Slug of the policy")),
    responses(
        (status = 201, description = "The draft", body = VersionView),
        (status = 409, description = "Another version waits to be published, or the brand is archived", body = Problem),
        (status = 422, description = "A field is wrong: among others a date in the past, before that of the version \
            before, without a time zone or nearer than the lead time, which then names the earliest one", body = Problem),
    ))]
pub(super) async fn create_version(
    Shared(app): Shared<App>,
    caller: Caller,
    NewId(id): NewId,
    Path(slug): Path<String>,
    Json(body): Json<NewVersion>,
) -> Result<(StatusCode, Json<VersionView>), Problem> {
    let (policy, brand) = changeable(&app, &caller, &slug).await?;
    let draft = Draft {
        body_markdown: body.body_markdown,
        change: body.change,
        summary: body.summary,
        effective_at: body.effective_at,
        approval: body.approval,
        override_reason: body.override_reason,
        translations: body.translations.unwrap_or_default(),
        topic: body.topic,
    };
    let txn = app.db.begin().await?;
    let version = rows::create(&txn, &app.db, policy.id, VersionId(id), &draft, &caller.actor).await?;
    let (view, _) = view(&*txn, &app, &brand, &policy, version).await?;
    let subject = format!("policy:{}/{}", policy.slug, view.number);
    let detail = json!({ "version": view });
    access::rows::record(&*txn, &app.db, &caller.actor, "version.create", &subject, detail).await?;
    txn.commit().await?;
    Ok((StatusCode::CREATED, Json(view)))
}

/// One version with its texts.
#[utoipa::path(get, path = "/policies/{policy}/versions/{n}", tag = "policies",
    params(("policy" = String, Path, description = "Slug of the policy"), ("n" = i64, Path, description = "Its number")),
    responses((status = 200, description = "The version", body = WholeView)))]
pub(super) async fn get_version(
    Shared(app): Shared<App>,
    caller: Caller,
    Path((slug, number)): Path<(String, i64)>,
) -> Result<Json<WholeView>, Problem> {
    let (policy, brand, version) = seen_version(&app, &caller, &slug, number).await?;
    let (version, texts) = view(app.db.reads(), &app, &brand, &policy, version).await?;
    let texts = texts.into_iter().map(|text| (text.language.clone(), text.into())).collect();
    Ok(Json(WholeView { version, texts }))
}

/// Delete a version that was never published.
///
/// Its number is free again.
#[utoipa::path(delete, path = "/policies/{policy}/versions/{n}", tag = "policies",
    params(("policy" = String, Path, description = "Slug of the policy"), ("n" = i64, Path, description = "Its number")),
    responses(
        (status = 204, description = "Deleted"),
        (status = 409, description = "It was published, so it stays", body = Problem),
    ))]
pub(super) async fn delete_version(
    Shared(app): Shared<App>,
    caller: Caller,
    Path((slug, number)): Path<(String, i64)>,
) -> Result<StatusCode, Problem> {
    let (policy, _) = changeable(&app, &caller, &slug).await?;
    let txn = app.db.begin().await?;
    let gone = rows::discard(&txn, policy.id, number).await?;
    let subject = format!("policy:{}/{number}", policy.slug);
    let detail = json!({ "state": gone.state, "change": gone.change });
    access::rows::record(&*txn, &app.db, &caller.actor, "version.delete", &subject, detail).await?;
    txn.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
