//! The public pages of policies: the text in force, every version, and what changed between two.
//!
//! They promise: what was published can be read for ever, by everyone, in its languages, with the hash by which it is
//! known; what was not published cannot be told from what is not there. They name no person, so anybody may keep them for
//! a while; they change nothing, set no cookie, and hold nothing that runs or is loaded but the brand's logo.

use std::cmp::Reverse;

use axum::Router;
use axum::extract::{Path, Query, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use sea_orm::DbErr;
use serde::Deserialize;
use serde_json::{Value, json};

use super::rows::{self, Correction, Policy, Text, Version};
use super::{State, changes, markdown, path, reader, version_path};
use crate::app::App;
use crate::brand;
use crate::clock::{Local, Timestamp};
use crate::id::VersionId;
use crate::language::Choice;
use crate::web::page::{self, Look, Page};

/// The pages.
pub fn router() -> Router<App> {
    Router::new()
        .route("/policies/{policy}", get(current))
        .route("/policies/{policy}/{n}", get(version))
        .route("/policies/{policy}/{n}/changes", get(changed))
}

/// In which language and compared with which version, where the address says so.
#[derive(Deserialize)]
struct Asked {
    lang: Option<String>,
    from: Option<String>,
}

/// Which page of a policy.
#[derive(Clone, Copy)]
enum Which {
    Current,
    Version(i64),
    /// What changed with a version: against this one, or against the one before it.
    Changes(i64, Option<i64>),
}

impl Which {
    /// The page of what changed between two versions, the later one first, or with the later one.
    fn changes(number: &str, from: Option<&str>) -> Option<Self> {
        let number: i64 = number.parse().ok()?;
        let Some(from) = from.filter(|from| !from.is_empty()) else {
            return Some(Self::Changes(number, None));
        };
        let from: i64 = from.parse().ok()?;
        (from != number).then_some(Self::Changes(number.max(from), Some(number.min(from))))
    }
}

async fn current(
    Shared(app): Shared<App>,
    Path(slug): Path<String>,
    asked: Query<Asked>,
    headers: HeaderMap,
) -> Response {
    serve(&app, &slug, Some(Which::Current), asked.0.lang, &headers).await
}

async fn version(
    Shared(app): Shared<App>,
    Path((slug, number)): Path<(String, String)>,
    asked: Query<Asked>,
    headers: HeaderMap,
) -> Response {
    serve(&app, &slug, number.parse().ok().map(Which::Version), asked.0.lang, &headers).await
}

async fn changed(
    Shared(app): Shared<App>,
    Path((slug, number)): Path<(String, String)>,
    asked: Query<Asked>,
    headers: HeaderMap,
) -> Response {
    let which = Which::changes(&number, asked.0.from.as_deref());
    serve(&app, &slug, which, asked.0.lang, &headers).await
}

async fn serve(
    app: &App,
    slug: &str,
    which: Option<Which>,
    lang: Option<String>,
    headers: &HeaderMap,
) -> Response {
    let https = app.settings.base_url.scheme() == "https";
    let fields = headers.get_all(header::ACCEPT_LANGUAGE).iter().filter_map(|value| value.to_str().ok());
    let accept_language = fields.collect::<Vec<_>>().join(",");
    let choice = Choice::new(lang.as_deref(), &accept_language);
    let message = |status, (title, text): (&str, &str)| {
        let data = json!({ "heading": title, "text": text, "again": null });
        let page = Page { template: "message", title, look: &Look::default(), choice, data };
        page::respond(status, page, https)
    };
    let found = match which {
        Some(which) => Shown::load(app, slug, which, lang, accept_language).await,
        None => Ok(None),
    };
    match found {
        Ok(Some(shown)) => {
            let data = shown.data().await;
            let Shown { look, choice, text, .. } = &shown;
            let template = if matches!(shown.which, Which::Changes(..)) { "changes" } else { "policy" };
            let page = Page { template, title: "", look, choice: *choice, data };
            page::respond_public(page, &text.title, headers, https)
        }
        Ok(None) => message(StatusCode::NOT_FOUND, ("policy.unknown.title", "policy.unknown.text")),
        Err(error) => {
            tracing::error!(%error, "the page of a policy could not be served");
            message(StatusCode::SERVICE_UNAVAILABLE, ("policy.unavailable.title", "policy.unavailable.text"))
        }
    }
}

/// What a page shows.
struct Shown {
    which: Which,
    policy: Policy,
    look: Look,
    /// Below which path the brand's pages stand.
    base: String,
    version: Version,
    text: Text,
    languages: Vec<String>,
    /// What the address said of the language, for the links.
    lang: Option<String>,
    choice: Choice,
    /// The version that it is compared with.
    before: Option<Version>,
    /// What the two say, for what changed.
    compared: Option<(Text, Text)>,
    /// Every version that was published, with its text in the language, the newest first.
    all: Vec<(Version, Text)>,
    /// What people are told of them where their own words were wrong.
    corrections: Vec<Correction>,
    in_force: Option<i64>,
    /// The earlier version without whose approval this one holds for nobody who had to give it.
    needs: Option<i64>,
    now: Timestamp,
}

impl Shown {
    async fn load(
        app: &App,
        slug: &str,
        which: Which,
        lang: Option<String>,
        accept_language: String,
    ) -> Result<Option<Self>, DbErr> {
        let on = app.db.reads();
        let now = app.db.clock().now();
        let Some(policy) = rows::find(on, slug).await? else { return Ok(None) };
        let Some(brand) = brand::rows::by_id(on, policy.brand_id).await? else { return Ok(None) };
        let public = rows::public(on, policy.id).await?;
        let in_force = rows::in_force(on, policy.id, now).await?.map(|version| version.number);
        let number = match which {
            Which::Current => in_force.or(public.first().map(|version| version.number)),
            Which::Version(number) | Which::Changes(number, _) => Some(number),
        };
        let Some(version) = public.iter().find(|version| Some(version.number) == number).cloned() else {
            return Ok(None);
        };
        let languages: Vec<String> =
            rows::texts(on, version.id).await?.into_iter().map(|text| text.language).collect();
        let offered: Vec<&str> = languages.iter().map(String::as_str).collect();
        let language =
            reader::choose(&offered, lang.as_deref(), &accept_language, &policy.language).to_owned();
        let mut all = Vec::new();
        for version in public.into_iter().rev() {
            if let Some(text) = rows::text_for(on, &version, &language, &policy.language).await? {
                all.push((version, text));
            }
        }
        let text = all.iter().find(|(other, _)| other.id == version.id).map(|(_, text)| text.clone());
        let Some(text) = text else { return Ok(None) };
        let shown: Vec<VersionId> = all.iter().map(|(version, _)| version.id).collect();
        let corrections = rows::corrections(on, &shown).await?;
        let before = match which {
            Which::Changes(_, Some(from)) => {
                let found = all.iter().find(|(other, _)| other.number == from);
                let Some((found, _)) = found else { return Ok(None) };
                Some(found.clone())
            }
            _ => rows::before(on, &version).await?,
        };
        let compared = match (which, &before) {
            (Which::Changes(..), Some(before)) => {
                rows::texts_alike(on, before, &version, &text.language, &policy.language).await?
            }
            _ => None,
        };
        let base = url::Url::parse(brand.base(&app.settings.base_url));
        let base = base.map_or(String::new(), |base| base.path().trim_end_matches('/').to_owned());
        Ok(Some(Self {
            needs: rows::owed_before(on, &version).await?,
            which,
            look: Look::of(&brand, &app.settings.base_url),
            choice: reader::around(&text.language, &accept_language),
            policy,
            base,
            version,
            text,
            languages,
            lang,
            before,
            compared,
            all,
            corrections,
            in_force,
            now,
        }))
    }

    /// What the template names.
    async fn data(&self) -> Value {
        let ahead = self.all.iter().filter(|(version, _)| {
            version.number > self.version.number
                && version.state == State::Published
                && version.holds_from().is_some_and(|from| from > self.now)
        });
        // Of two that begin at once the later one is what holds then.
        let next = ahead.min_by_key(|(version, _)| (version.holds_from(), Reverse(version.number)));
        let changes = match &self.compared {
            Some((old, new)) => Some(changes::compare(&old.body_markdown, &new.body_markdown).await),
            None => None,
        };
        let (in_language, in_other) = match &self.compared {
            Some((_, new)) => (&new.language, new.language != self.text.language),
            None => (&self.text.language, false),
        };
        let html = match self.which {
            Which::Changes(..) => String::new(),
            Which::Current | Which::Version(_) => markdown::to_html(&self.text.body_markdown),
        };
        let number = self.version.number;
        json!({
            "policy": self.text.title,
            "language": self.text.language,
            "direction": reader::direction(&self.text.language),
            "html": html,
            "version": number.to_string(),
            "status": self.status(&self.version),
            "mark": self.version.state == State::Withdrawn || self.in_force != Some(number),
            "facts": self.facts(),
            "sha256": self.text.hash(),
            "paragraphs": paragraphs(self.told(&self.text)),
            "corrected": self.corrected(&self.text),
            "url": self.link(&version_path(&self.policy.slug, number)),
            "current_url": (self.in_force != Some(number) && self.in_force.is_some())
                .then(|| self.link(&path(&self.policy.slug))),
            "changes_url": self.before.as_ref().map(|_| self.changes_link(number)),
            "old": self.before.as_ref().map(|old| old.number.to_string()),
            "old_url": self.before.as_ref().map(|old| self.link(&version_path(&self.policy.slug, old.number))),
            "changes": changes.as_ref().map(|parts| changes::for_page(parts, 3)),
            "changes_language": in_language,
            "changes_direction": reader::direction(in_language),
            "changes_in": in_other.then(|| reader::name(in_language)),
            "same": changes.as_ref().is_some_and(|parts| parts.is_empty()),
            "needs": self.needs.map(|number| number.to_string()),
            "others": self.others(),
            "asked_language": self.lang.as_ref().map(|_| &self.text.language),
            "steps": self.steps(),
            "next": next.filter(|_| self.version.state == State::Published).map(|(version, text)| json!({
                "date": version.holds_from_there().map(|from| self.day(from)),
                "paragraphs": paragraphs(self.told(text)),
                "corrected": self.corrected(text),
                "language": text.language,
                "direction": reader::direction(&text.language),
                "url": self.link(&version_path(&self.policy.slug, version.number)),
                "changes_url": self.changes_link(version.number),
            })),
            "versions": self.versions(),
            "languages": self.other_languages(),
        })
    }

    /// What was corrected of a text.
    fn correction(&self, text: &Text) -> Option<&Correction> {
        let is_it = |one: &&Correction| one.version_id == text.version_id && one.language == text.language;
        self.corrections.iter().find(is_it)
    }

    /// What changes with the version of a text, as people are told now.
    fn told<'t>(&'t self, text: &'t Text) -> &'t str {
        self.correction(text).map_or(&text.summary, |one| &one.summary)
    }

    /// The day on which that was corrected.
    fn corrected(&self, text: &Text) -> Option<String> {
        let of = |id: VersionId| self.all.iter().find(|(version, _)| version.id == id);
        let corrected = self.correction(text)?;
        let (version, _) = of(text.version_id)?;
        Some(self.day(version.happened(corrected.corrected_at)))
    }

    /// Where things stand with a version, as the key of its words.
    fn status(&self, version: &Version) -> &'static str {
        if version.state == State::Withdrawn {
            "policy.status.withdrawn"
        } else if self.in_force == Some(version.number) {
            "policy.status.in_force"
        } else if version.holds_from().is_some_and(|from| from > self.now) {
            "policy.status.ahead"
        } else {
            "policy.status.past"
        }
    }

    /// What is known of the version, each with the key of its name.
    fn facts(&self) -> Vec<Value> {
        let version = &self.version;
        let fact = |name: &str, at: Option<Local>| {
            at.map(|at| json!({ "name": name, "date": self.day(at), "time": iso(at) }))
        };
        let happened = |at: Option<Timestamp>| at.map(|at| version.happened(at));
        let from = match self.status(version) {
            "policy.status.in_force" => "policy.since",
            "policy.status.ahead" => "policy.from",
            "policy.status.past" => "policy.was_from",
            _ => "policy.would_from",
        };
        [
            fact("policy.updated", happened(version.published_at)),
            fact(from, version.holds_from_there()),
            fact("policy.called_off", happened(version.withdrawn_at)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn versions(&self) -> Vec<Value> {
        let first = self.all.last().map(|(version, _)| version.number);
        let entry = |(version, text): &(Version, Text)| {
            json!({
                "version": version.number.to_string(),
                "status": self.status(version),
                "here": version.number == self.version.number,
                "from": version.holds_from_there().map(|from| self.day(from)),
                "time": version.holds_from_there().map(iso),
                "language": text.language,
                "direction": reader::direction(&text.language),
                "paragraphs": paragraphs(self.told(text)),
                "corrected": self.corrected(text),
                "url": self.link(&version_path(&self.policy.slug, version.number)),
                "changes_url": (Some(version.number) != first).then(|| self.changes_link(version.number)),
            })
        };
        self.all.iter().map(entry).collect()
    }

    /// The versions that this one can be compared with, when there is a choice.
    fn others(&self) -> Vec<Value> {
        let earlier = self.all.iter().filter(|(other, _)| other.number < self.version.number);
        let chosen = |version: &Version| self.before.as_ref().is_some_and(|before| before.id == version.id);
        let others: Vec<Value> = earlier
            .map(|(other, _)| {
                let number = other.number.to_string();
                // An option holds nothing but text.
                let label =
                    self.choice.locale.fill("policy.version.n", &[("version", number.as_str().into())]);
                json!({ "version": number, "label": label, "chosen": chosen(other) })
            })
            .collect();
        if others.len() > 1 { others } else { Vec::new() }
    }

    /// What every version since the one it is compared with says of itself, where that is more than one.
    fn steps(&self) -> Vec<Value> {
        let Which::Changes(number, Some(from)) = self.which else { return Vec::new() };
        let since = |version: &Version| {
            version.number > from
                && (version.number == number || version.number < number && version.state == State::Published)
        };
        let step = |(version, text): &(Version, Text)| {
            json!({
                "version": version.number.to_string(),
                "language": text.language,
                "direction": reader::direction(&text.language),
                "paragraphs": paragraphs(self.told(text)),
                "corrected": self.corrected(text),
            })
        };
        let steps: Vec<Value> = self.all.iter().filter(|(version, _)| since(version)).map(step).collect();
        if steps.len() > 1 { steps } else { Vec::new() }
    }

    fn other_languages(&self) -> Vec<Value> {
        let own = match self.which {
            Which::Current => path(&self.policy.slug),
            Which::Version(number) => version_path(&self.policy.slug, number),
            Which::Changes(number, _) => format!("{}/changes", version_path(&self.policy.slug, number)),
        };
        let from = match self.which {
            Which::Changes(_, Some(from)) => format!("&from={from}"),
            _ => String::new(),
        };
        let others = self.languages.iter().filter(|tag| **tag != self.text.language);
        let entry = |tag: &String| {
            json!({
                "language": tag, "name": reader::name(tag), "direction": reader::direction(tag),
                "url": format!("{}{own}?lang={tag}{from}", self.base),
            })
        };
        others.map(entry).collect()
    }

    /// A page of ours, in the language that was asked for.
    fn link(&self, path: &str) -> String {
        match &self.lang {
            Some(_) => format!("{}{path}?lang={}", self.base, self.text.language),
            None => format!("{}{path}", self.base),
        }
    }

    fn changes_link(&self, number: i64) -> String {
        self.link(&format!("{}/changes", version_path(&self.policy.slug, number)))
    }

    fn day(&self, at: Local) -> String {
        self.choice.locale.day(at)
    }
}

/// A moment as the `datetime` of HTML takes it.
fn iso(at: Local) -> String {
    let whole = Timestamp(at.at.0.div_euclid(1_000_000) * 1_000_000);
    Local { at: whole, ..at }.to_string()
}

fn paragraphs(summary: &str) -> Vec<&str> {
    summary.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}
