//! `/policies` and their versions. Admins change them, auditors read them.

mod policies;
mod publishing;
mod versions;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::rows::{self, Policy, Version};
use super::{Flaw, PolicyError};
use crate::app::App;
use crate::brand::{self, Brand};
use crate::web::{Caller, FieldError, Problem, Role};

/// The calls about policies and versions.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(policies::list_policies))
        .routes(routes!(policies::get_policy, policies::put_policy))
        .routes(routes!(versions::list_versions, versions::create_version))
        .routes(routes!(versions::get_version, versions::delete_version))
        .routes(routes!(publishing::publish_version))
        .routes(routes!(publishing::release_version))
        .routes(routes!(publishing::preview_version))
}

impl From<PolicyError> for Problem {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::Flaws(flaws) => {
                let field = |Flaw { pointer, reason }| FieldError { pointer, reason };
                Self::fields(flaws.into_iter().map(field).collect())
            }
            PolicyError::Conflict(detail) => Self::conflict(detail),
            PolicyError::SomebodyElse(detail) => Self::forbidden(detail),
            PolicyError::Gone => Self::not_found("version"),
            PolicyError::Db(error) => error.into(),
        }
    }
}

/// The policy and its brand, when the caller may read them.
async fn seen(app: &App, caller: &Caller, slug: &str) -> Result<(Policy, Brand), Problem> {
    caller.must_be(&[Role::Auditor])?;
    let none = || Problem::not_found("policy");
    let on = app.db.reads();
    let policy =
        rows::find(on, slug).await?.filter(|policy| caller.sees(policy.brand_id)).ok_or_else(none)?;
    let brand = brand::rows::by_id(on, policy.brand_id).await?.ok_or_else(none)?;
    Ok((policy, brand))
}

/// The same, when the caller may change them.
async fn changeable(app: &App, caller: &Caller, slug: &str) -> Result<(Policy, Brand), Problem> {
    caller.must_be(&[])?;
    let (policy, brand) = seen(app, caller, slug).await?;
    if brand.archived_at.is_some() {
        return Err(Problem::conflict(format!(
            "Brand {:?} is archived, so its policies stay as they are; PUT the brand to bring it back.",
            brand.slug
        )));
    }
    Ok((policy, brand))
}

/// The policy, its brand and the version of this number, when the caller may read them.
async fn seen_version(
    app: &App,
    caller: &Caller,
    slug: &str,
    number: i64,
) -> Result<(Policy, Brand, Version), Problem> {
    let (policy, brand) = seen(app, caller, slug).await?;
    let version = rows::version(app.db.reads(), policy.id, number).await?;
    Ok((policy, brand, version.ok_or_else(|| Problem::not_found("version"))?))
}
