//! `/policies/{policy}`.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::seen;
use crate::access;
use crate::app::App;
use crate::brand::{self, Brand};
use crate::clock::Timestamp;
use crate::db::Write;
use crate::decision::Class;
use crate::message::rows::{FreezeError, as_it_stands};
use crate::notice::lint;
use crate::policy::draft::MAX_TITLE;
use crate::policy::rows::{self, Policy, Wanted};
use crate::policy::{OnSilence, OnUntold, language_tag};
use crate::web::{
    Caller, FieldError, Json, List, Paging, Path, Problem, Query, Role, check, whole_or_none, wholes_or_none,
};

/// Longest lead time, and longest time for which a banner is shown, in days.
const MAX_DAYS: u32 = 365;
/// Longest time between two reminders, in months.
const MAX_MONTHS: u32 = 120;
/// Most days on which people are asked again, and most placements.
const MAX_ENTRIES: usize = 10;

/// A policy as it is to be; what is absent is as its default says.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyBody {
    /// The slug of the brand, for ever.
    brand: String,
    /// What it is called, one line of at most 200 characters.
    title: String,
    /// The language tag (RFC 5646) of its texts, `en` when absent; fixed once it has a version.
    language: Option<String>,
    /// The slug of the template of its notices; absent, a built-in one that says all that a notice must. It has to serve
    /// class notice and to say, for all to see, in the HTML and in the text part, what a notice must: what changes, from when
    /// (`data.effective_date` and `data.effective_utc`), where the new and the old text stand (`data.url`, `data.old_url`), what
    /// rights people have and whom to ask; `approve_url`; in the subject the policy's name. It may link to nothing but what the
    /// notice itself leads to, load nothing and hide nothing.
    template: Option<String>,
    /// Days, 0 to 365, between the day on which everyone has been told and the one from which a version holds; 30 when
    /// absent.
    #[serde(default, deserialize_with = "whole_or_none")]
    #[schema(minimum = 0, maximum = 365)]
    lead_time_days: Option<u32>,
    /// Whether what one key publishes, or asks to be changed about a notice, another one must release; absent, as it was, at
    /// first not. It is not switched off while a version waits to be published, and by two keys alone: with the first PUT it
    /// is asked for, with the same PUT by another key it is done.
    two_person: Option<bool>,
    /// What holds for who does not answer; `earlier_version_stands` when absent.
    on_silence: Option<OnSilence>,
    /// What holds for who could not be told; `takes_effect` when absent. A version that needs approval holds for nobody who
    /// was not told of it, whatever is said here.
    on_untold: Option<OnUntold>,
    /// Days before a version holds on which those who have not answered are asked again; none when absent.
    #[serde(default, deserialize_with = "wholes_or_none")]
    #[schema(max_items = 10, value_type = Option<Vec<i32>>)]
    remind_days_before: Option<Vec<u32>>,
    /// Months, 1 to 120, between two reminders of what is in force; no reminders when absent.
    #[serde(default, deserialize_with = "whole_or_none")]
    #[schema(minimum = 1, maximum = 120)]
    reminder_months: Option<u32>,
    /// Days, 0 to 365, for which the banner is shown after a version began to hold; 14 when absent.
    #[serde(default, deserialize_with = "whole_or_none")]
    #[schema(minimum = 0, maximum = 365)]
    banner_days_after: Option<u32>,
    /// Where on the brand's pages the banner is shown: words of your own; `policy` and `homepage` when absent.
    #[schema(max_items = 10)]
    placements: Option<Vec<String>>,
}

/// A first key's wish that one person be enough.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TwoPersonOffAsked)]
pub(super) struct OffAsked {
    /// Who asked.
    asked_by: String,
    /// When.
    asked_at: Timestamp,
}

/// A policy.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Policy)]
pub(super) struct PolicyView {
    /// Its slug.
    policy: String,
    /// The slug of its brand.
    brand: String,
    /// What it is called.
    title: String,
    /// The language tag of its texts.
    language: String,
    /// The slug of the template of its notices; the built-in one when null.
    template: Option<String>,
    /// Days between the day on which everyone has been told and the one from which a version holds.
    lead_time_days: i64,
    /// Whether what one key publishes, or asks to be changed about a notice, another one must release.
    two_person: bool,
    /// Who asked for `two_person` to be switched off, which takes another key to ask for it too; null while nobody has.
    two_person_off_asked: Option<OffAsked>,
    /// What holds for who does not answer.
    on_silence: OnSilence,
    /// What holds for who could not be told.
    on_untold: OnUntold,
    /// Days before a version holds on which those who have not answered are asked again.
    #[schema(value_type = Vec<i64>)]
    remind_days_before: Value,
    /// Months between two reminders of what is in force.
    reminder_months: Option<i64>,
    /// Days for which the banner is shown after a version began to hold.
    banner_days_after: i64,
    /// Where on the brand's pages the banner is shown.
    #[schema(value_type = Vec<String>)]
    placements: Value,
    /// The number of the version that holds now.
    in_force: Option<i64>,
    /// Where everyone may read it.
    url: String,
    /// What hinders nothing but is better mended, such as a template that tells people to look for themselves.
    warnings: Vec<FieldError>,
    /// When it was made.
    created_at: Timestamp,
    /// When it was last written.
    updated_at: Timestamp,
}

impl PolicyView {
    fn of(
        app: &App,
        brand: &Brand,
        policy: Policy,
        in_force: Option<i64>,
        warnings: Vec<FieldError>,
    ) -> Self {
        Self {
            url: super::versions::below(app, brand, &crate::policy::path(&policy.slug)),
            policy: policy.slug,
            brand: brand.slug.clone(),
            title: policy.title,
            language: policy.language,
            template: policy.template,
            lead_time_days: policy.lead_time_days,
            two_person: policy.two_person,
            two_person_off_asked: policy
                .one_person_asked_by
                .zip(policy.one_person_asked_at)
                .map(|(asked_by, asked_at)| OffAsked { asked_by, asked_at }),
            on_silence: policy.on_silence,
            on_untold: policy.on_untold,
            remind_days_before: policy.remind_days_before,
            reminder_months: policy.reminder_months,
            banner_days_after: policy.banner_days_after,
            placements: policy.placements,
            in_force,
            warnings,
            created_at: policy.created_at,
            updated_at: policy.updated_at,
        }
    }
}

/// Which policies.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Of the brand of this slug.
    brand: Option<String>,
}

/// List policies.
///
/// By slug.
#[utoipa::path(get, path = "/policies", tag = "policies", params(Which, Paging),
    responses((status = 200, description = "A page of policies", body = List<PolicyView>)))]
pub(super) async fn list_policies(
    State(app): State<App>,
    caller: Caller,
    Query(which): Query<Which>,
    paging: Paging,
) -> Result<Json<List<PolicyView>>, Problem> {
    caller.must_be(&[Role::Auditor])?;
    let on = app.db.reads();
    let mut only = caller.brand;
    if let Some(slug) = &which.brand {
        let found = brand::rows::find(on, slug).await?.filter(|found| caller.sees(found.id));
        let none = || Problem::field("brand", format!("there is no brand {slug:?}"));
        only = Some(found.ok_or_else(none)?.id);
    }
    let after: Option<String> = paging.after_key()?;
    let found = rows::list(on, only, after.as_deref(), paging.fetch()).await?;
    let List { items, next } = List::page(found, &paging, |policy| policy.slug.clone(), |policy| policy);
    let mut views = Vec::with_capacity(items.len());
    for policy in items {
        let brand = brand::rows::by_id(on, policy.brand_id).await?;
        let brand = brand.ok_or_else(|| Problem::not_found("brand"))?;
        views.push(view(&app, &brand, policy).await?);
    }
    Ok(Json(List { items: views, next }))
}

/// Show a policy.
#[utoipa::path(get, path = "/policies/{policy}", tag = "policies",
    params(("policy" = String, Path, description = "Slug of the policy")),
    responses((status = 200, description = "The policy", body = PolicyView)))]
pub(super) async fn get_policy(
    State(app): State<App>,
    caller: Caller,
    Path(slug): Path<String>,
) -> Result<Json<PolicyView>, Problem> {
    let (policy, brand) = seen(&app, &caller, &slug).await?;
    Ok(Json(view(&app, &brand, policy).await?))
}

async fn view(app: &App, brand: &Brand, policy: Policy) -> Result<PolicyView, Problem> {
    let now = app.db.clock().now();
    let in_force = rows::in_force(app.db.reads(), policy.id, now).await?.map(|version| version.number);
    Ok(PolicyView::of(app, brand, policy, in_force, Vec::new()))
}

/// Make or change a policy.
///
/// What is absent takes its default. The brand gets a topic `policy-notices` of class notice in which the notices go out,
/// and with `reminder_months` a topic `policy-reminders` of class reminder. Of `on_silence` and `on_untold` a change holds for
/// versions that are published from then on; everything else holds at once for notices that are open too: the days on which
/// people are asked again, where and how long the notice on the site shows, the lead time that a postponement leaves, the
/// template of what is told from then on, and that two people are wanted.
#[utoipa::path(put, path = "/policies/{policy}", tag = "policies",
    params(("policy" = String, Path, description = "Slug of the policy")),
    request_body = PolicyBody,
    responses(
        (status = 200, description = "Changed", body = PolicyView),
        (status = 201, description = "Made", body = PolicyView),
        (status = 409, description = "It is of another brand, its language is fixed, or a topic of the name that it needs \
            is of another class", body = Problem),
        (status = 422, description = "A field is wrong: among others a template that lacks what a notice must say or \
            holds what it must not; each finding is named", body = Problem),
    ))]
pub(super) async fn put_policy(
    State(app): State<App>,
    caller: Caller,
    Path(slug): Path<String>,
    Json(body): Json<PolicyBody>,
) -> Result<Response, Problem> {
    caller.must_be(&[])?;
    let on = app.db.reads();
    if let Some(stored) = rows::find(on, &slug).await?
        && !caller.sees(stored.brand_id)
    {
        return Err(Problem::not_found("policy"));
    }
    let brand_slug = body.brand.clone();
    let wanted = checked(slug, body)?;
    let brand = brand::rows::find(on, &brand_slug).await?;
    let brand = brand
        .filter(|brand| brand.archived_at.is_none() && caller.sees(brand.id))
        .ok_or_else(|| Problem::field("/brand", format!("there is no brand {brand_slug:?}")))?;
    let txn = app.db.begin().await?;
    let warnings = match &wanted.template {
        Some(template) => checked_template(&txn, &app, &brand, template).await?,
        None => Vec::new(),
    };
    let (policy, made) = rows::put(&txn, &app.db, &brand, wanted, &caller.actor).await?;
    let in_force = rows::in_force(&*txn, policy.id, app.db.clock().now()).await?;
    let view = PolicyView::of(&app, &brand, policy, in_force.map(|version| version.number), warnings);
    let subject = format!("policy:{}", view.policy);
    let detail = json!({ "made": made, "policy": view });
    access::rows::record(&*txn, &app.db, &caller.actor, "policy.put", &subject, detail).await?;
    txn.commit().await?;
    let status = if made { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(view)).into_response())
}

/// Refuses a template that may not serve notices; gives what it may be warned of.
async fn checked_template(
    txn: &Write,
    app: &App,
    brand: &Brand,
    template: &str,
) -> Result<Vec<FieldError>, Problem> {
    let stands = as_it_stands(txn, template, brand.id, Class::Notice).await;
    let stands = stands.map_err(|error| match error {
        FreezeError::Db(error) => error.into(),
        other => Problem::field("/template", other.to_string()),
    })?;
    let (brand, base) = (brand.clone(), app.settings.base_url.clone());
    let look = move || lint::check(&stands, &brand, &base, true);
    let findings = tokio::task::spawn_blocking(look).await.map_err(|_| Problem::internal())?;
    let field = |reason| FieldError { pointer: "/template".to_owned(), reason };
    check::done(findings.refused.into_iter().map(field).collect())?;
    Ok(findings.warnings.into_iter().map(field).collect())
}

fn checked(slug: String, body: PolicyBody) -> Result<Wanted, Problem> {
    let mut errors = Vec::new();
    check::slug("policy", &slug, &mut errors);
    check::slug("/brand", &body.brand, &mut errors);
    check::one_line("/title", &body.title, MAX_TITLE, &mut errors);
    let given = body.language.as_deref().unwrap_or("en");
    let language = language_tag(given).unwrap_or_else(|| {
        check::wrong("/language", "must be a language tag (RFC 5646) such as en or pt-BR", &mut errors);
        String::new()
    });
    if let Some(template) = &body.template {
        check::slug("/template", template, &mut errors);
    }
    let mut within = |pointer: &str, given: Option<u32>, least: u32, most: u32| {
        if given.is_some_and(|number| !(least..=most).contains(&number)) {
            check::wrong(pointer, format!("must be {least} to {most}"), &mut errors);
        }
    };
    within("/lead_time_days", body.lead_time_days, 0, MAX_DAYS);
    within("/reminder_months", body.reminder_months, 1, MAX_MONTHS);
    within("/banner_days_after", body.banner_days_after, 0, MAX_DAYS);
    let days = body.remind_days_before.unwrap_or_default();
    for (n, &day) in days.iter().enumerate().take(MAX_ENTRIES) {
        within(&format!("/remind_days_before/{n}"), Some(day), 1, MAX_DAYS);
    }
    let placements = body.placements.unwrap_or_else(|| ["policy", "homepage"].map(str::to_owned).to_vec());
    for (n, word) in placements.iter().enumerate().take(MAX_ENTRIES) {
        check::slug(&format!("/placements/{n}"), word, &mut errors);
    }
    let day_count = (days.len(), days.iter().collect::<BTreeSet<_>>().len());
    let placement_count = (placements.len(), placements.iter().collect::<BTreeSet<_>>().len());
    for (pointer, (all, each)) in [("/remind_days_before", day_count), ("/placements", placement_count)] {
        if all > MAX_ENTRIES {
            check::wrong(pointer, format!("has more than {MAX_ENTRIES} entries"), &mut errors);
        } else if all > each {
            check::wrong(pointer, "names one twice", &mut errors);
        }
    }
    check::done(errors)?;
    Ok(Wanted {
        slug,
        title: body.title,
        language,
        template: body.template,
        lead_time_days: body.lead_time_days.unwrap_or(30),
        two_person: body.two_person,
        on_silence: body.on_silence.unwrap_or_default(),
        on_untold: body.on_untold.unwrap_or_default(),
        remind_days_before: days,
        reminder_months: body.reminder_months,
        banner_days_after: body.banner_days_after.unwrap_or(14),
        placements,
    })
}
