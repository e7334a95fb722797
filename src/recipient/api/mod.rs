//! `/recipients`: people over HTTP.
//!
//! A key bound to one brand sees that brand's people alone: everybody else is not there for it, and of brands it reads
//! and writes its own. What it says of a person it shares with other brands holds for them too, since a person is one
//! address. Nothing here lifts an opt-out; a standing is changed through the fence.

mod body;
mod upload;

use std::collections::HashMap;

use axum::extract::State;
use axum::http::StatusCode;
use sea_orm::{ConnectionTrait, DbErr};
use serde::Deserialize;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::body::{Body, Patched, View};
use super::rows::{self, Recipient};
use super::{CustomerOf, Membership, Outcome, Refused};
use crate::access::rows::record;
use crate::address::{AddressError, EmailAddress};
use crate::app::App;
use crate::clock::Instant;
use crate::decision::Standing;
use crate::id::{BrandId, RecipientId};
use crate::opt_out::rows::flights_in_words;
use crate::web::{Caller, FieldError, Json, List, Paging, Path, Problem, Query, Role, check};
use crate::{brand, fence, policy};

/// The calls about people.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(upsert, list)).routes(routes!(read, change)).merge(upload::router())
}

/// Stores a person, known by the folded form of the address. Absent fields leave what is stored. It never lifts an
/// opt-out and never changes a standing.
#[utoipa::path(
    post, path = "/recipients", tag = "recipients", request_body = Body,
    responses(
        (status = 201, description = "The person is new", body = View),
        (status = 200, description = "The person was known", body = View),
        (status = 403, description = "`customer_of`, and `policies` of somebody stored, are for admin and accounts", body = Problem),
        (status = 409, description = "The person was erased", body = Problem),
        (status = 422, description = "A field cannot be used", body = Problem),
    )
)]
async fn upsert(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<Body>,
) -> Result<(StatusCode, Json<View>), Problem> {
    caller.must_be(&[Role::Accounts, Role::Marketer])?;
    must_leave_alone(&caller, &body)?;
    let mut errors = Vec::new();
    if body.standing.is_some() {
        check::wrong("/standing", "is changed by PATCH /recipients/{id}", &mut errors);
    }
    let address = match body.email.as_deref().map(EmailAddress::parse) {
        Some(Ok(address)) => address,
        Some(Err(error)) => return Err(Problem::field("/email", error.to_string())),
        None => return Err(Problem::field("/email", "is missing")),
    };
    let mut said = body.said(address, &mut errors);
    check::done(errors)?;
    let db = &app.db;
    must_be_own_policies(db.reads(), &caller, &body).await?;
    let txn = db.begin().await?;
    said.membership = membership(&*txn, &caller, &body).await?;
    said.customer_of = customer_of(&*txn, &caller, &body).await?;
    if let (Some(own), Membership::Unsaid) = (caller.brand, &said.membership) {
        said.membership = Membership::Join(own);
    }
    let done = rows::upsert(&txn, db, &app.address_key, &said, by(&caller)).await??;
    let action = match done.outcome {
        Outcome::Created => "recipient.create",
        Outcome::Updated => "recipient.update",
        Outcome::Unchanged => "recipient.confirm",
        Outcome::Erased => return Err(erased()),
    };
    let detail = json!({ "fields": named(&body) });
    record(&*txn, db, &caller.actor, action, &format!("recipient:{}", done.id), detail).await?;
    let view = view_of(&*txn, &caller, done.id).await?;
    txn.commit().await?;
    let status = if done.outcome == Outcome::Created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(view)))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// The address of one person; its `+` is written `%2B`.
    email: Option<String>,
}

/// People by id, or the one of an address: a list of one, or of none when nobody is known by it.
#[utoipa::path(
    get, path = "/recipients", tag = "recipients", params(Asked, Paging),
    responses((status = 200, body = List<View>), (status = 422, body = Problem))
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(asked): Query<Asked>,
    paging: Paging,
) -> Result<Json<List<View>>, Problem> {
    let on = app.db.reads();
    if let Some(email) = asked.email {
        caller.must_be(&[Role::Accounts, Role::Marketer, Role::Operator, Role::Auditor])?;
        let address = EmailAddress::parse(&email).map_err(|error| {
            let hint = if error == AddressError::Space { "; write + as %2B" } else { "" };
            Problem::field("email", format!("{error}{hint}"))
        })?;
        let found = rows::find(on, &app.address_key.hash(&address)).await?;
        let seen = match found {
            Some(person) if sees(on, &caller, &person).await? => vec![person],
            _ => Vec::new(),
        };
        return Ok(Json(List { items: views(on, &caller, seen).await?, next: None }));
    }
    caller.must_be(&[Role::Accounts, Role::Marketer, Role::Auditor])?;
    let people = rows::list(on, caller.brand, paging.after_key()?, paging.fetch()).await?;
    let List { items, next } = List::page(people, &paging, |person| person.id.to_string(), |person| person);
    Ok(Json(List { items: views(on, &caller, items).await?, next }))
}

/// One person.
#[utoipa::path(
    get, path = "/recipients/{id}", tag = "recipients", params(("id" = String, Path)),
    responses((status = 200, body = View), (status = 404, body = Problem))
)]
async fn read(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<RecipientId>,
) -> Result<Json<View>, Problem> {
    caller.must_be(&[Role::Accounts, Role::Marketer, Role::Operator, Role::Auditor])?;
    seen(app.db.reads(), &caller, id).await?;
    Ok(Json(view_of(app.db.reads(), &caller, id).await?))
}

/// Changes what is given. A new `standing` waits, as an opt-out does, for messages under way that it stops.
#[utoipa::path(
    patch, path = "/recipients/{id}", tag = "recipients", params(("id" = String, Path)), request_body = Body,
    responses(
        (status = 200, body = Patched),
        (status = 403, description = "`standing`, `customer_of` and other `policies` are for admin and accounts", body = Problem),
        (status = 404, body = Problem),
        (status = 409, description = "The person was erased", body = Problem),
        (status = 422, description = "A field cannot be used", body = Problem),
    )
)]
async fn change(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<RecipientId>,
    Json(body): Json<Body>,
) -> Result<Json<Patched>, Problem> {
    let arrived = Instant::now();
    caller.must_be(&[Role::Accounts, Role::Marketer])?;
    must_leave_alone(&caller, &body)?;
    let db = &app.db;
    let person = seen(db.reads(), &caller, id).await?;
    let address = person.address.as_deref().and_then(|address| EmailAddress::parse(address).ok());
    let Some(address) = address.filter(|_| person.standing != Standing::Erased) else {
        return Err(erased());
    };
    let mut errors = Vec::new();
    if body.email.is_some() {
        check::wrong("/email", "cannot be changed; store the new address with POST /recipients", &mut errors);
    }
    if body.standing == Some(Standing::Erased) {
        check::wrong("/standing", "must be active, restricted, deactivated or contact_ban", &mut errors);
    }
    let mut said = body.said(address, &mut errors);
    check::done(errors)?;

    must_be_own_policies(db.reads(), &caller, &body).await?;
    let txn = db.begin().await?;
    said.membership = membership(&*txn, &caller, &body).await?;
    said.customer_of = customer_of(&*txn, &caller, &body).await?;
    if rows::upsert(&txn, db, &app.address_key, &said, by(&caller)).await??.outcome == Outcome::Erased {
        return Err(erased());
    }
    let detail = json!({ "fields": named(&body), "standing": body.standing });
    record(&*txn, db, &caller.actor, "recipient.update", &format!("recipient:{id}"), detail).await?;
    txn.commit().await?;

    let rest = match body.standing {
        Some(standing) => fence::change_standing(&app, id, standing, arrived).await?,
        None => None,
    };
    let on = db.reads();
    let person = view_of(on, &caller, id).await?;
    let Some(rest) = rest else { return Ok(Json(Patched { person, settled: None, in_flight: None })) };
    let in_flight = flights_in_words(on, rest.deliveries()).await?;
    Ok(Json(Patched { person, settled: Some(rest.settled()), in_flight: Some(in_flight) }))
}

/// What a key may say of people that is bound to a brand.
async fn bound(on: &impl ConnectionTrait, caller: &Caller) -> Result<Option<rows::Bound>, DbErr> {
    let Some(brand) = caller.brand else { return Ok(None) };
    let policies = policy::rows::of_brand(on, brand).await?.into_iter().map(|policy| policy.slug).collect();
    Ok(Some(rows::Bound { brand, policies }))
}

/// 422 where a key bound to a brand says what people accepted of another's.
async fn must_be_own_policies(
    on: &impl ConnectionTrait,
    caller: &Caller,
    body: &Body,
) -> Result<(), Problem> {
    let Some(accepted) = body.policies.as_ref() else { return Ok(()) };
    let Some(bound) = bound(on, caller).await? else { return Ok(()) };
    bound.strange(accepted.keys()).map_or(Ok(()), |slug| {
        Err(Problem::field("/policies", format!("names {slug:?}, which is no policy of the key's own brand")))
    })
}

/// 403 that names the field, when the key may not say such things of people.
fn must_leave_alone(caller: &Caller, body: &Body) -> Result<(), Problem> {
    let field = match body {
        Body { standing: Some(_), .. } => "standing",
        Body { customer_of: Some(_), .. } => "customer_of",
        _ => return Ok(()),
    };
    caller.must_be(&[Role::Accounts]).map_err(|_| {
        let mut problem = Problem::forbidden(format!("Only keys of role admin or accounts set `{field}`."));
        let reason = "is for keys of role admin or accounts".to_owned();
        problem.errors = vec![FieldError { pointer: format!("/{field}"), reason }];
        problem
    })
}

/// Who says it, as far as it matters for what people accepted.
fn by(caller: &Caller) -> rows::By {
    caller.must_be(&[Role::Accounts]).map_or(rows::By::Marketer, |()| rows::By::Keeper)
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotPublished { .. } => Self::field("/policies", refused.to_string()),
            Refused::NotTheirs(_) => {
                let detail =
                    "Only keys of role admin or accounts change what somebody accepted (`policies`).";
                let mut problem = Self::forbidden(detail);
                problem.errors =
                    vec![FieldError { pointer: "/policies".to_owned(), reason: refused.to_string() }];
                problem
            }
        }
    }
}

fn erased() -> Problem {
    Problem::conflict("The person behind this address was erased; nothing is stored of them.")
}

/// The names of the fields given, for the audit log; never what they hold.
fn named(body: &Body) -> Vec<&'static str> {
    [
        ("name", body.name.is_some()),
        ("external_id", body.external_id.is_some()),
        ("locale", body.locale.is_some()),
        ("brands", body.brands.is_some()),
        ("customer_of", body.customer_of.is_some()),
        ("tags", body.tags.is_some()),
        ("attributes", body.attributes.is_some()),
        ("policies", body.policies.is_some()),
        ("standing", body.standing.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, given)| given.then_some(name))
    .collect()
}

/// What the body says of brands; for a key bound to one, of that one.
async fn membership(on: &impl ConnectionTrait, caller: &Caller, body: &Body) -> Result<Membership, Problem> {
    let Some(brands) = &body.brands else { return Ok(Membership::Unsaid) };
    let named = match brands {
        Some(slugs) => Some(brand_ids(on, caller, "/brands", slugs).await?),
        None => None,
    };
    match (caller.brand, named) {
        (None, None) => Ok(Membership::Every),
        (None, Some(brands)) => Ok(Membership::Only(brands)),
        (Some(own), Some(brands)) if brands == [own] => Ok(Membership::Join(own)),
        (Some(_), _) => Err(Problem::field(
            "/brands",
            "must name the key's own brand; this key cannot take people out of it",
        )),
    }
}

async fn customer_of(on: &impl ConnectionTrait, caller: &Caller, body: &Body) -> Result<CustomerOf, Problem> {
    let Some(slugs) = &body.customer_of else { return Ok(CustomerOf::Unsaid) };
    let brands = brand_ids(on, caller, "/customer_of", slugs).await?;
    Ok(match caller.brand {
        Some(own) => CustomerOf::One(own, brands.contains(&own)),
        None => CustomerOf::Only(brands),
    })
}

/// The brands of these slugs, each once.
async fn brand_ids(
    on: &impl ConnectionTrait,
    caller: &Caller,
    pointer: &str,
    slugs: &[String],
) -> Result<Vec<BrandId>, Problem> {
    let mut ids = Vec::new();
    let mut errors = Vec::new();
    for (n, slug) in slugs.iter().enumerate() {
        match brand::rows::find(on, slug).await? {
            Some(brand) if caller.sees(brand.id) && brand.archived_at.is_none() => {
                if !ids.contains(&brand.id) {
                    ids.push(brand.id);
                }
            }
            _ => check::wrong(&format!("{pointer}/{n}"), "there is no such brand", &mut errors),
        }
    }
    check::done(errors)?;
    Ok(ids)
}

async fn sees(on: &impl ConnectionTrait, caller: &Caller, person: &Recipient) -> Result<bool, Problem> {
    match caller.brand {
        Some(brand) => Ok(rows::belongs(on, person, brand).await?),
        None => Ok(true),
    }
}

/// The person of this id; 404 when there is none for this key.
async fn seen(on: &impl ConnectionTrait, caller: &Caller, id: RecipientId) -> Result<Recipient, Problem> {
    match rows::by_id(on, id).await? {
        Some(person) if sees(on, caller, &person).await? => Ok(person),
        _ => Err(Problem::not_found("recipient")),
    }
}

async fn view_of(on: &impl ConnectionTrait, caller: &Caller, id: RecipientId) -> Result<View, Problem> {
    let person = rows::by_id(on, id).await?.ok_or_else(|| Problem::not_found("recipient"))?;
    views(on, caller, vec![person]).await?.pop().ok_or_else(Problem::internal)
}

async fn views(
    on: &impl ConnectionTrait,
    caller: &Caller,
    people: Vec<Recipient>,
) -> Result<Vec<View>, Problem> {
    let ids: Vec<RecipientId> = people.iter().map(|person| person.id).collect();
    let mut ties = rows::ties(on, &ids).await?;
    ties.values_mut().for_each(|ties| ties.retain(|tie| caller.sees(tie.brand_id)));
    let mut slugs: HashMap<BrandId, String> = HashMap::new();
    let named = ties.values().flatten().map(|tie| tie.brand_id).chain(caller.brand);
    for id in named.collect::<std::collections::BTreeSet<_>>() {
        if let Some(brand) = brand::rows::by_id(on, id).await? {
            slugs.insert(id, brand.slug);
        }
    }
    let views = people.into_iter().map(|person| {
        let ties = ties.remove(&person.id).unwrap_or_default();
        let of = |id: BrandId| slugs.get(&id).cloned();
        let brands = match caller.brand {
            Some(own) => Some(of(own).into_iter().collect()),
            None if person.every_brand => None,
            None => Some(sorted(ties.iter().filter(|tie| tie.belongs).filter_map(|tie| of(tie.brand_id)))),
        };
        View {
            id: person.id,
            email: person.address,
            name: person.name,
            external_id: person.external_id,
            locale: person.locale,
            standing: person.standing,
            brands,
            customer_of: sorted(ties.iter().filter(|tie| tie.customer).filter_map(|tie| of(tie.brand_id))),
            tags: person.tags,
            attributes: person.attributes,
            policies: person.policies,
            created_at: person.created_at,
            updated_at: person.updated_at,
        }
    });
    Ok(views.collect())
}

fn sorted(slugs: impl Iterator<Item = String>) -> Vec<String> {
    let mut slugs: Vec<String> = slugs.collect();
    slugs.sort();
    slugs
}
