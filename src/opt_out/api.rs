//! `/opt-outs`, `/opt-ins`, `/explain` and `/addresses/revive`.
//!
//! An opt-out needs no recipient: it is kept under the keyed hash of the address, known here or not. Success is said
//! once it is committed and the fence has answered. Only an opt-in with evidence takes an opt-out back.

mod files;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::rows::{self, UnknownName, event};
use super::words::{Explained, OptOutAnswer, ScopeWords};
use super::{Channel, OptIn, OptOut, Scope};
use crate::address::{AddressHash, EmailAddress};
use crate::app::App;
use crate::clock::{Instant, Timestamp};
use crate::id::OptEventId;
use crate::web::{Caller, Json, List, Paging, Problem, Query, Role, check};
use crate::{access, brand, fence, recipient};

/// Longest note and evidence, in characters.
const MAX_TEXT: usize = 4000;
/// How far a caller's clock may run ahead.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// The calls about opt-outs.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(opt_out, said))
        .routes(routes!(opt_in))
        .routes(routes!(explain))
        .routes(routes!(revive))
        .merge(files::router())
}

/// How an opt-out reached the caller.
#[derive(Clone, Copy, Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum AskedChannel {
    Phone,
    Letter,
    Email,
    InPerson,
    Api,
}

impl From<AskedChannel> for Channel {
    fn from(asked: AskedChannel) -> Self {
        match asked {
            AskedChannel::Phone => Self::Phone,
            AskedChannel::Letter => Self::Letter,
            AskedChannel::Email => Self::Email,
            AskedChannel::InPerson => Self::InPerson,
            AskedChannel::Api => Self::Api,
        }
    }
}

/// An opt-out to record.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewOptOut {
    /// Whose; it need not be known.
    email: String,
    scope: ScopeWords,
    channel: AskedChannel,
    /// What the person said, at most 4,000 characters.
    note: Option<String>,
    /// When the person said it, if that was earlier than now.
    requested_at: Option<Timestamp>,
}

/// Records an opt-out. The answer is a fence: no message within the scope is begun after it; those already begun were
/// waited for, and `in_flight` names what is left.
#[utoipa::path(post, path = "/opt-outs", tag = "opt-outs", request_body = NewOptOut, responses(
    (status = 201, description = "Recorded.", body = OptOutAnswer),
    (status = 200, description = "It stood already; the first time counts.", body = OptOutAnswer),
    (status = 422, description = "A field is wrong.", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "Nothing was confirmed; try again.", body = Problem, content_type = "application/problem+json"),
))]
async fn opt_out(
    State(app): State<App>,
    caller: Caller,
    Json(asked): Json<NewOptOut>,
) -> Result<(StatusCode, Json<OptOutAnswer>), Problem> {
    let arrived = Instant::now();
    caller.must_be(&[Role::Operator, Role::Accounts])?;
    let mut errors = Vec::new();
    let address = address("/email", &asked.email, &mut errors);
    if let Some(note) = &asked.note {
        check::lines("/note", note, MAX_TEXT, &mut errors);
    }
    if asked.requested_at.is_some_and(|at| at > app.db.clock().now().plus(CLOCK_SKEW)) {
        check::wrong("/requested_at", "lies in the future; leave it out for now", &mut errors);
    }
    check::done(errors)?;
    let Some(address) = address else { return Err(Problem::internal()) };
    let scope = scope_for(&app, &caller, &asked.scope).await?;
    let opt_out = OptOut {
        address_hash: app.address_key.hash(&address),
        scopes: vec![scope],
        channel: asked.channel.into(),
        complaint: false,
        note: asked.note.filter(|note| !note.trim().is_empty()),
        requested_at: asked.requested_at,
        delivery: None,
        actor: caller.actor.clone(),
    };
    let answer = fence::opt_out(&app, &opt_out, arrived).await?;
    let on = app.db.opt_out_reads();
    let words = OptOutAnswer {
        id: answer.id,
        scope: asked.scope,
        channel: opt_out.channel,
        recorded_at: answer.recorded_at,
        settled: answer.rest.settled(),
        in_flight: rows::flights_in_words(on, answer.rest.deliveries()).await?,
    };
    let detail = json!({ "scope": words.scope, "channel": words.channel, "new": answer.new });
    note_down(&app, &caller, "opt_out.record", &answer.id.to_string(), detail).await;
    Ok((if answer.new { StatusCode::CREATED } else { StatusCode::OK }, Json(words)))
}

/// Whose.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Whose {
    /// The address.
    email: String,
    #[serde(default)]
    #[param(ignore)]
    #[serde(rename = "limit")]
    _limit: Option<u64>,
    #[serde(default)]
    #[param(ignore)]
    #[serde(rename = "after")]
    _after: Option<String>,
}

/// What a person said, the newest first, and what of it stands.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Said {
    /// The events, the newest first.
    items: Vec<SaidEvent>,
    /// The next page of them.
    next: Option<String>,
    /// What stands now, one entry a scope; where two scopes cover a message, the later one counts.
    stands: Vec<Stands>,
}

/// One thing that was said.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct SaidEvent {
    id: OptEventId,
    /// `opt_out`, `opt_in`, or `undo` of an opt-out.
    said: String,
    scope: ScopeWords,
    /// How it was said: `one_click`, `page`, `phone`, `letter`, `email`, `in_person`, `api`, `import`.
    channel: String,
    complaint: bool,
    note: Option<String>,
    evidence: Option<String>,
    /// The event that an undo takes back.
    undoes: Option<OptEventId>,
    /// The delivery through whose link it was said.
    delivery: Option<crate::id::DeliveryId>,
    requested_at: Option<Timestamp>,
    recorded_at: Timestamp,
    recorded_by: String,
}

/// What stands about one scope.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Stands {
    scope: ScopeWords,
    /// `opt_out` or `opt_in`.
    said: String,
    /// The event that said so.
    event: OptEventId,
}

/// What a person said about mail and what of it stands. A key bound to a brand sees what was said to that brand, and what
/// the brand's own people said to all of them.
#[utoipa::path(get, path = "/opt-outs", tag = "opt-outs", params(Whose, Paging), responses(
    (status = 200, description = "Events and what stands; both empty for an address never seen.", body = Said),
))]
async fn said(
    State(app): State<App>,
    caller: Caller,
    Query(whose): Query<Whose>,
    paging: Paging,
) -> Result<Json<Said>, Problem> {
    caller.must_be(&[Role::Operator, Role::Accounts, Role::Auditor])?;
    let hash = hash_of(&app, &whose.email)?;
    let on = app.db.reads();
    let after: Option<i64> = paging.after_key()?;
    let one_of_ours = sees_person(&app, &caller, &hash).await?;
    let seen = |brand: Option<crate::id::BrandId>| brand.map_or(one_of_ours, |brand| caller.sees(brand));
    let mut events = rows::history(on, &hash).await?;
    events.reverse();
    events.retain(|event| seen(event.brand_id) && after.is_none_or(|seq| event.seq < seq));
    events.truncate(usize::try_from(paging.fetch()).unwrap_or(usize::MAX));
    let page = List::page(events, &paging, |event| event.seq.to_string(), |event| event);
    let mut items = Vec::with_capacity(page.items.len());
    for event in page.items {
        items.push(said_event(&app, event).await?);
    }
    let mut stands = Vec::new();
    for stood in rows::standing_words(on, &hash).await? {
        if seen(stood.scope.brand()) {
            let said = if stood.said == crate::decision::Said::OptOut { "opt_out" } else { "opt_in" };
            let scope = rows::words_of(on, stood.scope).await?;
            stands.push(Stands { scope, said: said.to_owned(), event: stood.event });
        }
    }
    Ok(Json(Said { items, next: page.next, stands }))
}

async fn said_event(app: &App, event: event::Model) -> Result<SaidEvent, Problem> {
    let scope = rows::to_scope(&event.scope_kind, event.brand_id, event.topic_id)?;
    Ok(SaidEvent {
        id: event.id,
        said: event.said,
        scope: rows::words_of(app.db.reads(), scope).await?,
        channel: event.channel,
        complaint: event.complaint,
        note: event.note,
        evidence: event.evidence,
        undoes: event.undoes,
        delivery: event.delivery_id,
        requested_at: event.requested_at,
        recorded_at: event.recorded_at,
        recorded_by: event.recorded_by,
    })
}

/// An opt-in to record.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewOptIn {
    /// Whose.
    email: String,
    scope: ScopeWords,
    /// What proves that the person asked for it: when, where, in which words. At most 4,000 characters.
    #[schema(min_length = 1, max_length = 4000)]
    evidence: String,
}

/// An opt-in as recorded.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct OptInAnswer {
    id: OptEventId,
    scope: ScopeWords,
    recorded_at: Timestamp,
}

/// Records that a person asked for mail. With the pages, it is the only way back from an opt-out.
#[utoipa::path(post, path = "/opt-ins", tag = "opt-outs", request_body = NewOptIn, responses(
    (status = 201, description = "Recorded.", body = OptInAnswer),
    (status = 422, description = "A field is wrong.", body = Problem, content_type = "application/problem+json"),
))]
async fn opt_in(
    State(app): State<App>,
    caller: Caller,
    Json(asked): Json<NewOptIn>,
) -> Result<(StatusCode, Json<OptInAnswer>), Problem> {
    caller.must_be(&[Role::Operator])?;
    let mut errors = Vec::new();
    let address = address("/email", &asked.email, &mut errors);
    if asked.evidence.trim().is_empty() {
        check::wrong("/evidence", "must say what proves that the person asked for it", &mut errors);
    }
    check::lines("/evidence", &asked.evidence, MAX_TEXT, &mut errors);
    check::done(errors)?;
    let Some(address) = address else { return Err(Problem::internal()) };
    let scope = scope_for(&app, &caller, &asked.scope).await?;
    let opt_in = OptIn {
        address_hash: app.address_key.hash(&address),
        scope,
        channel: Channel::Api,
        evidence: asked.evidence,
        actor: caller.actor.clone(),
    };
    let recorded = fence::opt_in(&app, &opt_in).await?;
    let detail = json!({ "scope": asked.scope });
    note_down(&app, &caller, "opt_in.record", &recorded.id.to_string(), detail).await;
    let answer = OptInAnswer { id: recorded.id, scope: asked.scope, recorded_at: recorded.recorded_at };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Which message to whom.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// The address.
    email: String,
    /// The brand's name in paths.
    brand: String,
    /// The topic's name in paths.
    topic: String,
}

/// Would a message of this topic be sent to this address now, and why? By the very function that the worker calls. A key
/// bound to a brand asks about that brand's people alone.
///
/// `because` holds one ground to send, or every reason not to, the weightiest first:
///
/// | word | means |
/// |---|---|
/// | `cannot_be_refused` | sent: messages of this class cannot be refused |
/// | `no_objection` | sent: the person said nothing against it |
/// | `opted_in` | sent: the person's newest word that covers it is an opt-in |
/// | `customer_keeps` | sent: a wider opt-out stands, but a customer keeps getting this topic |
/// | `erased` | not sent: the person was erased |
/// | `deactivated` | not sent: the account is deactivated |
/// | `contact_ban` | not sent: the person must not be contacted |
/// | `restricted` | not sent: processing of the person's data is restricted |
/// | `address_dead` | not sent: the mailbox does not exist any more |
/// | `complaint` | not sent: the person complained about the brand |
/// | `opted_out_of_topic`, `opted_out_of_brand`, `opted_out_of_all` | not sent: the person opted out of it |
/// | `no_consent` | not sent: the topic asks for confirmed consent and there is none |
#[utoipa::path(get, path = "/explain", tag = "opt-outs", params(Asked), responses(
    (status = 200, description = "The decision.", body = Explained),
    (status = 404, description = "The key is bound to a brand, and the address is none of its people's.", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "An unusable address, or no such brand or topic.", body = Problem, content_type = "application/problem+json"),
))]
async fn explain(
    State(app): State<App>,
    caller: Caller,
    Query(asked): Query<Asked>,
) -> Result<Json<Explained>, Problem> {
    caller.must_be(&[Role::Operator, Role::Accounts, Role::Auditor])?;
    let hash = hash_of(&app, &asked.email)?;
    let on = app.db.reads();
    let brand = brand::rows::find(on, &asked.brand).await?.filter(|brand| caller.sees(brand.id));
    let Some(brand) = brand else { return Err(Problem::field("brand", "there is no such brand")) };
    let topic = brand::rows::find_topic(on, brand.id, &asked.topic).await?;
    let Some(topic) = topic else { return Err(Problem::field("topic", "the brand has no such topic")) };
    if !sees_person(&app, &caller, &hash).await? {
        return Err(Problem::not_found("recipient of the brand"));
    }
    Ok(Json(rows::explain(on, &hash, &topic).await?))
}

/// Whose address to take for alive again: one, or all whose last failure lies in a window.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Revive {
    /// One address.
    email: Option<String>,
    /// The window's beginning.
    since: Option<Timestamp>,
    /// The window's end.
    until: Option<Timestamp>,
}

/// How many addresses were taken for alive again.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Revived {
    revived: u64,
}

/// Takes dead addresses for alive again: `{"email"}`, or `{"since", "until"}` after a relay's bad hour, which only admin
/// may do.
#[utoipa::path(post, path = "/addresses/revive", tag = "opt-outs", request_body = Revive, responses(
    (status = 200, description = "How many had failures on record that are forgotten now.", body = Revived),
    (status = 422, description = "Neither an address nor a window, or both.", body = Problem, content_type = "application/problem+json"),
))]
async fn revive(
    State(app): State<App>,
    caller: Caller,
    Json(asked): Json<Revive>,
) -> Result<Json<Revived>, Problem> {
    caller.must_be(&[Role::Operator])?;
    if !caller.sees_every_brand() {
        return Err(Problem::forbidden(
            "An address is dead for every brand; a key bound to one may not lift that.",
        ));
    }
    let txn = app.db.begin().await?;
    let (revived, detail) = match (asked.email, asked.since, asked.until) {
        (Some(email), None, None) => {
            let revived = rows::revive(&txn, &hash_of(&app, &email)?).await?;
            (revived, json!({ "one": true, "revived": revived }))
        }
        (None, Some(since), Some(until)) => {
            caller.must_be(&[])?;
            if since > until {
                return Err(Problem::field("/until", "lies before since"));
            }
            let revived = rows::revive_window(&txn, since, until).await?;
            (revived, json!({ "since": since, "until": until, "revived": revived }))
        }
        _ => return Err(Problem::field("", "give email alone, or since and until")),
    };
    access::rows::record(&*txn, &app.db, &caller.actor, "address.revive", "addresses", detail).await?;
    txn.commit().await?;
    Ok(Json(Revived { revived }))
}

/// The address at `pointer`; none, and the reason noted, when it cannot be used.
fn address(pointer: &str, text: &str, errors: &mut Vec<crate::web::FieldError>) -> Option<EmailAddress> {
    EmailAddress::parse(text).map_err(|error| check::wrong(pointer, error.to_string(), errors)).ok()
}

fn hash_of(app: &App, email: &str) -> Result<AddressHash, Problem> {
    let address = EmailAddress::parse(email).map_err(|error| Problem::field("email", error.to_string()))?;
    Ok(app.address_key.hash(&address))
}

/// Whether this key sees the person behind the address: one bound to a brand sees that brand's people alone.
async fn sees_person(app: &App, caller: &Caller, hash: &AddressHash) -> Result<bool, Problem> {
    let Some(brand) = caller.brand else { return Ok(true) };
    let ours = recipient::rows::members_among(app.db.reads(), std::slice::from_ref(hash), brand).await?;
    Ok(ours.contains_key(hash))
}

/// The scope that these words name, if this caller may speak for it.
async fn scope_for(app: &App, caller: &Caller, words: &ScopeWords) -> Result<Scope, Problem> {
    let unknown = |name: UnknownName| {
        let pointer = if matches!(name, UnknownName::Brand(_)) { "/scope/brand" } else { "/scope/topic" };
        Problem::field(pointer, name.to_string())
    };
    let scope = rows::scope_of(app.db.reads(), words).await?.map_err(unknown)?;
    match scope.brand() {
        None if !caller.sees_every_brand() => {
            Err(Problem::forbidden("A key bound to one brand may not speak for all of them."))
        }
        Some(brand) if !caller.sees(brand) => {
            let name = match words {
                ScopeWords::All => String::new(),
                ScopeWords::Brand(brand) | ScopeWords::Topic(brand, _) => brand.clone(),
            };
            Err(unknown(UnknownName::Brand(name)))
        }
        _ => Ok(scope),
    }
}

/// Adds to the record of who did what, after the fact: what was recorded holds, and its event names the actor too.
async fn note_down(app: &App, caller: &Caller, action: &str, subject: &str, detail: Value) {
    let noted = async {
        let txn = app.db.begin().await?;
        access::rows::record(&*txn, &app.db, &caller.actor, action, subject, detail).await?;
        txn.commit().await
    };
    if let Err(error) = noted.await {
        tracing::error!(%error, action, subject, "could not be added to the record of who did what");
    }
}
