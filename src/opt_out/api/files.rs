//! `/opt-outs/export` and `/opt-outs/import`: the list of refusals as CSV, streamed both ways in bounded memory.
//!
//! The list names people by the keyed hash of their address, so that it is no address list; a hash is prefixed by eight
//! characters that tell which address key made it. An import only ever adds opt-outs.

use std::collections::HashMap;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use sea_orm::DbErr;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::BufReader;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{CLOCK_SKEW, note_down};
use crate::app::App;
use crate::clock::Instant;
use crate::opt_out::list::{Entry, Layout, Line, Lines, Whose, write_hash};
use crate::opt_out::rows::{self, Cursor};
use crate::opt_out::words::ScopeWords;
use crate::opt_out::{Channel, OptOut, Scope};
use crate::recipient::import::{ImportError, Rejections};
use crate::web::{Caller, Json, Problem, Query, Role, Upload};
use crate::{fence, recipient};

/// Rows read for one piece of an export.
const PIECE: u64 = 1000;

/// The calls that carry the whole list.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(export)).routes(routes!(import))
}

/// How to name people.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct How {
    /// `true`: by their address where it is still known, which only admin may ask; by hash otherwise.
    #[serde(default)]
    addresses: bool,
}

/// The opt-outs that stand, as CSV: `address,scope,channel,time`, where `address` is a keyed hash unless addresses are
/// asked for. A key bound to a brand gets those of that brand, and what the brand's own people said to all of them.
#[utoipa::path(get, path = "/opt-outs/export", tag = "opt-outs", params(How), responses(
    (status = 200, description = "CSV with a header line.", body = String, content_type = "text/csv"),
))]
async fn export(State(app): State<App>, caller: Caller, Query(how): Query<How>) -> Result<Response, Problem> {
    caller.must_be(&[Role::Auditor])?;
    if how.addresses {
        caller.must_be(&[])?;
    }
    note_down(&app, &caller, "opt_out.export", "opt-outs", json!({ "addresses": how.addresses })).await;
    let mut writer = Writer { app, brand: caller.brand, addresses: how.addresses, scopes: HashMap::new() };
    // The first piece is read before anything is answered, so that a database that is away is a 503.
    let (mut first, next) = writer.piece(None).await?;
    first.insert_str(0, "address,scope,channel,time\r\n");
    let rest = stream::try_unfold((writer, next), |(mut writer, cursor)| async move {
        let Some(cursor) = cursor else { return Ok::<_, DbErr>(None) };
        let (piece, next) = writer.piece(Some(&cursor)).await?;
        Ok(Some((Bytes::from(piece), (writer, next))))
    });
    let pieces = stream::once(async { Ok(Bytes::from(first)) }).chain(rest);
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"opt-outs.csv\""),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

struct Writer {
    app: App,
    brand: Option<crate::id::BrandId>,
    addresses: bool,
    scopes: HashMap<Scope, String>,
}

impl Writer {
    async fn piece(&mut self, after: Option<&Cursor>) -> Result<(String, Option<Cursor>), DbErr> {
        let on = self.app.db.reads();
        let (standing, next) = rows::standing_after(on, after, self.brand, PIECE).await?;
        let hashes: Vec<_> = standing.iter().map(|one| one.address_hash.clone()).collect();
        let people = match self.brand {
            Some(brand) => recipient::rows::members_among(on, &hashes, brand).await?,
            None if self.addresses => recipient::rows::addresses_of(on, &hashes).await?,
            None => HashMap::new(),
        };
        let mut csv = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
        let failed = |error: csv::Error| DbErr::Custom(error.to_string());
        for one in standing {
            let theirs = people.get(&one.address_hash);
            if self.brand.is_some() && one.scope.brand().is_none() && theirs.is_none() {
                continue;
            }
            let whose = match theirs.filter(|address| self.addresses && !address.is_empty()) {
                Some(address) => address.clone(),
                None => write_hash(&self.app.address_key, &one.address_hash),
            };
            let scope = match self.scopes.get(&one.scope) {
                Some(scope) => scope.clone(),
                None => {
                    let scope = rows::words_of(on, one.scope).await?.to_string();
                    self.scopes.insert(one.scope, scope.clone());
                    scope
                }
            };
            csv.write_record([whose, scope, one.channel, one.at.to_string()]).map_err(failed)?;
        }
        let text = csv.into_inner().map_err(|error| DbErr::Custom(error.to_string()))?;
        Ok((String::from_utf8_lossy(&text).into_owned(), next))
    }
}

/// What the lines of a plain list are about.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Defaults {
    /// The scope of lines that name none: `all` (the default), `brand:<brand>` or `topic:<brand>/<topic>`.
    scope: Option<String>,
}

/// What became of a list.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
struct Report {
    /// Lines, without the header and empty ones.
    received: u64,
    /// Opt-outs that are new.
    added: u64,
    /// Opt-outs that were known already.
    already_there: u64,
    /// Lines that could not be used.
    #[serde(flatten)]
    rejections: Rejections,
}

/// Takes a list of opt-outs in: what an export gave, or plain addresses, one a line.
///
/// With a header, columns are `address` (or `email`; an address, or a hash from an export of the same installation),
/// `scope`, `channel`, `time`, in any order; without one, in this order, the last three may be left out. It only ever
/// adds: an opt-out that the store knows is left as it is, also when the person took it back later. Times are kept as
/// `requested_at`. Use it after restoring a backup, with the last export from before.
#[utoipa::path(post, path = "/opt-outs/import", tag = "opt-outs", params(Defaults),
    request_body(content = String, content_type = "text/csv"), responses(
    (status = 200, description = "Every line was dealt with.", body = Report),
    (status = 415, description = "Neither text/csv nor text/plain.", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The database failed on the way; send the same list again.", body = Problem, content_type = "application/problem+json"),
))]
async fn import(
    State(app): State<App>,
    caller: Caller,
    Query(defaults): Query<Defaults>,
    upload: Upload,
) -> Result<Json<Report>, Problem> {
    let arrived = Instant::now();
    caller.must_be(&[Role::Accounts])?;
    if !matches!(upload.media_type(), "text/csv" | "text/plain") {
        return Err(Problem::unsupported("text/csv or text/plain"));
    }
    let scope = defaults.scope.as_deref().unwrap_or("all").parse();
    let scope: ScopeWords = scope.map_err(|reason: String| Problem::field("scope", reason))?;
    let mut lines = Lines::new(BufReader::new(upload.into_reader()));
    let mut taker = Taker { app: &app, caller: &caller, scopes: HashMap::new(), arrived };
    let mut report = Report::default();
    let mut layout = None;
    while let Some(line) = lines.next().await.map_err(ImportError::from)? {
        let Line { number, fields } = line;
        let fields = match fields {
            Ok(fields) => fields,
            Err(reason) => {
                report.received += 1;
                report.rejections.add(number, reason);
                continue;
            }
        };
        if layout.is_none() {
            let (found, header) = Layout::of(&fields).map_err(|reason| Problem::field("", reason))?;
            layout = Some(found);
            if header {
                continue;
            }
        }
        report.received += 1;
        let entry = layout.as_ref().ok_or_else(String::new).and_then(|layout| layout.read(&fields));
        match taker.take(entry, &scope).await? {
            Ok(true) => report.added += 1,
            Ok(false) => report.already_there += 1,
            Err(reason) => report.rejections.add(number, reason),
        }
    }
    let detail =
        json!({ "received": report.received, "added": report.added, "rejected": report.rejections.rejected });
    note_down(&app, &caller, "opt_out.import", "opt-outs", detail).await;
    Ok(Json(report))
}

struct Taker<'a> {
    app: &'a App,
    caller: &'a Caller,
    scopes: HashMap<String, Result<Scope, String>>,
    arrived: Instant,
}

impl Taker<'_> {
    /// Records one line: whether it is new, or why it cannot be used.
    async fn take(
        &mut self,
        entry: Result<Entry, String>,
        default: &ScopeWords,
    ) -> Result<Result<bool, String>, Problem> {
        let entry = match entry {
            Ok(entry) => entry,
            Err(reason) => return Ok(Err(reason)),
        };
        let address_hash = match entry.whose {
            Whose::Address(address) => self.app.address_key.hash(&address),
            Whose::Hash(hash) => match hash.read(&self.app.address_key) {
                Ok(hash) => hash,
                Err(reason) => return Ok(Err(reason)),
            },
        };
        let scope = match self.scope(entry.scope.as_ref().unwrap_or(default)).await? {
            Ok(scope) => scope,
            Err(reason) => return Ok(Err(reason)),
        };
        if entry.time.is_some_and(|at| at > self.app.db.clock().now().plus(CLOCK_SKEW)) {
            return Ok(Err("the time lies in the future".to_owned()));
        }
        if let Some(at) = entry.time
            && rows::knows(self.app.db.reads(), &address_hash, scope, at).await?
        {
            return Ok(Ok(false));
        }
        let opt_out = OptOut {
            address_hash,
            scopes: vec![scope],
            channel: entry.channel.unwrap_or(Channel::Import),
            complaint: false,
            note: Some("taken in from a list".to_owned()),
            requested_at: entry.time,
            delivery: None,
            actor: self.caller.actor.clone(),
        };
        // The bound counts from the upload's arrival: a long list does not wait for each line's messages under way.
        Ok(Ok(fence::opt_out(self.app, &opt_out, self.arrived).await?.new))
    }

    async fn scope(&mut self, words: &ScopeWords) -> Result<Result<Scope, String>, Problem> {
        let key = words.to_string();
        if let Some(known) = self.scopes.get(&key) {
            return Ok(known.clone());
        }
        let named = rows::scope_of(self.app.db.reads(), words).await?.map_err(|name| name.to_string());
        let scope = named.and_then(|scope| match scope.brand() {
            None if !self.caller.sees_every_brand() => {
                Err("a key bound to one brand may not speak for all of them".to_owned())
            }
            Some(brand) if !self.caller.sees(brand) => Err("there is no such brand".to_owned()),
            _ => Ok(scope),
        });
        self.scopes.insert(key, scope.clone());
        Ok(scope)
    }
}
