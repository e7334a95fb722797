//! `/recipients/{id}/policies`: which version of each policy stands for a person.

use std::collections::HashMap;

use axum::extract::State as Shared;
use sea_orm::{ConnectionTrait, DbErr};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::brand;
use crate::clock::Timestamp;
use crate::id::{RecipientId, VersionId};
use crate::notice::rows::approvals::{self, Concern};
use crate::notice::rows::site;
use crate::notice::standing::{Because, Offered, Person, Rules, pending, stands};
use crate::notice::{AnsweredBy, Decision, State, text};
use crate::opt_out::rows::explain;
use crate::opt_out::words::Verdict;
use crate::policy;
use crate::policy::rows::{Policy, Version};
use crate::recipient::rows::{Recipient, belongs, by_id, joined};
use crate::web::{Caller, Json, List, Paging, Path, Problem, Role};

/// The route.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_recipient_policies))
}

/// Which version of a policy stands for a person.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct StandingPolicy {
    /// The slug of the policy.
    policy: String,
    /// The slug of its brand.
    brand: String,
    /// What it is called.
    title: String,
    /// The number of the version that stands; null before the first one takes effect.
    version: Option<i64>,
    /// Since when it stands for this person.
    since: Option<Timestamp>,
    /// Why it stands, or why no later one does.
    because: Because,
    /// Whether the account is to be seen to, since the person was asked to approve and did not answer.
    flagged: bool,
    /// SHA-256 of its text in the policy's own language, hexadecimal.
    sha256: Option<String>,
    /// Whether the person's data may be put to the uses that versions of the policy brought, in the order of these.
    uses: Vec<StandingUse>,
    /// The versions that are published and do not hold yet, by number.
    pending: Vec<PendingVersion>,
    /// What the person answered to versions of the policy, by number.
    answers: Vec<StandingAnswer>,
}

/// What a person answered to a version, as it stands.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct StandingAnswer {
    /// The number of the version.
    version: i64,
    /// What they answered.
    decision: Decision,
    /// When.
    answered_at: Timestamp,
    /// How it came.
    by: AnsweredBy,
}

/// What stands for a use of data that a version brought.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct StandingUse {
    /// The version that brought it.
    version: i64,
    /// The slug of the topic that stands for it.
    topic: String,
    /// Whether it is allowed: the version, or a later one, is in effect and stands for the person, and nothing refuses the use,
    /// neither by name nor by a wider refusal, nor does the person's standing.
    allowed: bool,
}

/// A version that does not hold yet.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct PendingVersion {
    /// Its number.
    version: i64,
    /// From when it holds.
    effective_at: Timestamp,
    /// What the person answered so far; null: nothing.
    answer: Option<Decision>,
}

/// Which version of each policy stands for a person, since when and why
///
/// Of the policies of the brands that the person belongs to and the key sees, by slug. Silence is never consent: a version
/// that needs approval stands for who approved it, accepted it at sign-up or joined under it, and no later version brings
/// it in. Whether a version stands for who could not be told of it is what the
/// policy's `on_untold` was when it was published.
#[utoipa::path(get, path = "/recipients/{id}/policies", tag = "notices",
    params(("id" = RecipientId, Path, description = "The recipient"), Paging),
    responses(
        (status = 200, description = "A page of policies", body = List<StandingPolicy>),
        (status = 404, description = "There is no such recipient", body = Problem),
    ))]
async fn list_recipient_policies(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<RecipientId>,
    paging: Paging,
) -> Result<Json<List<StandingPolicy>>, Problem> {
    caller.must_be(&[Role::Accounts, Role::Operator, Role::Auditor])?;
    let on = app.db.reads();
    let person = by_id(on, id).await?.ok_or_else(|| Problem::not_found("recipient"))?;
    if let Some(own) = caller.brand
        && !belongs(on, &person, own).await?
    {
        return Err(Problem::not_found("recipient"));
    }
    let after: Option<String> = paging.after_key()?;
    let found = site::policies_for(on, &person, caller.brand, after.as_deref(), paging.fetch()).await?;
    let key = |(policy, _): &(Policy, String)| policy.slug.clone();
    let List { items, next } = List::page(found, &paging, key, |found| found);
    let now = app.db.read_clock(on).await?;
    let mut standing = Vec::with_capacity(items.len());
    for (policy, brand) in items {
        standing.push(of_policy(on, policy, brand, &person, now).await?);
    }
    Ok(Json(List { items: standing, next }))
}

async fn of_policy(
    on: &impl ConnectionTrait,
    policy: Policy,
    brand: String,
    recipient: &Recipient,
    now: Timestamp,
) -> Result<StandingPolicy, DbErr> {
    let concerns = approvals::concerns(on, policy.id, recipient.id).await?;
    let versions = policy::rows::versions(on, policy.id).await?;
    let rules = Rules { on_silence: policy.on_silence, on_untold: policy.on_untold };
    let published = versions.iter().filter(|version| version.state == policy::State::Published);
    let offered: Vec<Offered> = published
        .filter_map(|version| {
            let concern = concerns.get(&version.id);
            if concern.is_some_and(|concern| concern.state == State::Withdrawn) {
                return None;
            }
            let told = |concern: &Concern| concern.mailed_at.into_iter().chain(concern.told_at).min();
            Some(Offered {
                number: version.number,
                change: version.change,
                rules: concern.map_or(rules, |concern| Rules {
                    on_silence: concern.on_silence,
                    on_untold: concern.on_untold,
                }),
                approval: version.approval,
                effective_at: concern.map(|concern| concern.effective_at).or(version.holds_from())?,
                told_at: concern.and_then(told),
                answer: concern.and_then(|concern| concern.in_time),
            })
        })
        .collect();
    let accepted = recipient.policies.get(&policy.slug).and_then(serde_json::Value::as_i64);
    // A version that nobody has seen cannot have been accepted.
    let accepted = accepted.filter(|accepted| offered.iter().any(|version| version.number >= *accepted));
    let joined_at = joined(on, recipient, policy.brand_id).await?.unwrap_or(recipient.created_at);
    let person = Person { joined_at, accepted };
    let standing = stands(person, &offered, now);
    let version = versions.iter().find(|version| Some(version.number) == standing.version);
    let sha256 = match version {
        Some(version) => {
            let texts = site::texts(on, &[version.id]).await?;
            text::pick(&texts, |text| &text.language, "", &policy.language)
                .map(|text| hex::encode(&text.sha256))
        }
        None => None,
    };
    Ok(StandingPolicy {
        policy: policy.slug,
        brand,
        title: policy.title,
        version: standing.version,
        since: standing.since,
        because: standing.because,
        flagged: standing.flagged,
        sha256,
        uses: uses(on, recipient, &versions, standing.version).await?,
        answers: answers(&versions, &concerns),
        pending: pending(&offered, now)
            .map(|next| PendingVersion {
                version: next.number,
                effective_at: next.effective_at,
                answer: next.answer,
            })
            .collect(),
    })
}

/// What stands of what a person answered to these versions.
fn answers(versions: &[Version], concerns: &HashMap<VersionId, Concern>) -> Vec<StandingAnswer> {
    let answer = |version: &Version| {
        let Concern { decision, decided_at, given_by, .. } = concerns.get(&version.id)?;
        let (decision, answered_at) = ((*decision)?, (*decided_at)?);
        Some(StandingAnswer { version: version.number, decision, answered_at, by: (*given_by).into() })
    };
    versions.iter().filter_map(answer).collect()
}

/// What stands for the uses that these versions brought, for whom the version of this number stands.
async fn uses(
    on: &impl ConnectionTrait,
    recipient: &Recipient,
    versions: &[Version],
    stands: Option<i64>,
) -> Result<Vec<StandingUse>, DbErr> {
    let mut uses = Vec::new();
    for version in versions.iter().filter(|version| version.state == policy::State::Published) {
        let Some(topic) = version.use_topic_id else { continue };
        if let Some(topic) = brand::rows::topic_by_id(on, topic).await? {
            let covered = stands >= Some(version.number);
            let allowed =
                covered && explain(on, &recipient.address_hash, &topic).await?.decision == Verdict::Send;
            uses.push(StandingUse { version: version.number, topic: topic.slug, allowed });
        }
    }
    Ok(uses)
}
