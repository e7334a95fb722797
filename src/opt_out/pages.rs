//! The page behind the unsubscribe link, `/u/{token}`.
//!
//! It promises: `GET`, `HEAD` and `OPTIONS` change nothing; any `POST` with a valid token opts out, whatever its body,
//! and says so only once that is committed; a link works for ever, through nothing but what its token carries and rows
//! that are never deleted. It never redirects, sets no cookie, needs none, and keeps no IP address.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::any;
use sea_orm::DbErr;
use serde_json::{Value, json};

use super::by_link::{self, ACTOR, scopes};
use super::events::stands_already;
use super::form::{AskedScope, Form};
use super::rows::{self, Undone};
use super::words::{OptOutAnswer, ScopeWords};
use super::{Channel, Scope, Stood};
use crate::address::mask;
use crate::app::App;
use crate::brand::{self, Brand, Topic};
use crate::clock::{Instant, Timestamp};
use crate::db::Db;
use crate::decision::Said;
use crate::fence::{self, Answer};
use crate::language::Choice;
use crate::link::{Link, Purpose};
use crate::web::link_page::{self, Asked, Token, as_json};
use crate::web::page::{self, Look, Page};

/// `/u/{token}`, and what becomes of it on its way.
pub fn router() -> Router<App> {
    link_page::routes('u', &any(unsubscribe))
}

async fn unsubscribe(State(app): State<App>, token: Token, request: Request) -> Response {
    let arrived = Instant::now();
    let asked = match Asked::read(&app, token, request, Purpose::Unsubscribe).await {
        Ok(asked) => asked,
        Err(answer) => return *answer,
    };
    let Asked { link, body, json, accept_language, https } = asked;
    let form = body.map(|body| Form::read(&body.content_type, &body.octets));
    let choice = Choice::new(None, &accept_language);
    let (choice, answer) = match Subject::load(&app, &link, &accept_language, https).await {
        Ok(subject) => {
            let answer = match form {
                Some(form) => act(&app, &link, &subject, form, json, arrived).await,
                None => ask(&app, &link, &subject).await,
            };
            (subject.choice, answer)
        }
        Err(error) => (choice, Err(error)),
    };
    answer.unwrap_or_else(|error| {
        tracing::error!(%error, delivery = %link.delivery, "an unsubscribe link could not be served");
        link_page::unavailable(form.map(again), json, choice, https)
    })
}

/// The fields of a form that is to be sent once more.
fn again(form: Form) -> Vec<Value> {
    let scope = form.scope.map(|scope| json!({ "name": "scope", "value": scope.as_str() }));
    let undo = form.undo.then(|| json!({ "name": "undo", "value": "1" }));
    let page = json!({ "name": "page", "value": "1" });
    [Some(page), scope, undo].into_iter().flatten().collect()
}

/// Whom and what a link is about, in words.
struct Subject {
    brand: Brand,
    topic: Topic,
    /// The masked address; none after erasure.
    address: Option<String>,
    /// Whether any topic stays with customers in spite of a wider opt-out.
    customers_keep: bool,
    look: Look,
    /// The person's language, or what their browser asks for.
    choice: Choice,
    https: bool,
}

impl Subject {
    async fn load(app: &App, link: &Link, accept_language: &str, https: bool) -> Result<Self, DbErr> {
        let db = app.db.clone();
        let together = move |links| subjects_of(db.clone(), links);
        let found = app.links.ask(link.clone(), together).await;
        let found = found.unwrap_or_else(|| Err(DbErr::Custom("a link was not looked up".into())))?;
        let rows::Subject { brand, topic, address, locale, customers_keep } = found;
        let choice = Choice::new(locale.as_deref(), accept_language);
        let address = address.map(|address| mask(&address));
        let look = Look::of(&brand, &app.settings.base_url);
        Ok(Self { brand, topic, address, customers_keep, look, choice, https })
    }

    /// The names of a scope that the link can have.
    fn words_of(&self, asked: AskedScope) -> ScopeWords {
        match asked {
            AskedScope::All => ScopeWords::All,
            AskedScope::Brand => ScopeWords::Brand(self.brand.slug.clone()),
            AskedScope::Topic => ScopeWords::Topic(self.brand.slug.clone(), self.topic.slug.clone()),
        }
    }

    fn default_scope(&self) -> AskedScope {
        by_link::one_click_scope(&self.brand)
    }

    /// Whether the message is of a topic that cannot be refused.
    fn stays(&self) -> bool {
        !self.topic.class.can_be_refused()
    }

    /// A page about it: what every text may name, and `more`.
    fn page(&self, template: &str, title: &str, more: Value) -> Response {
        let mut data = json!({
            "address": self.address,
            "brand": self.brand.name,
            "topic": self.topic.name,
        });
        if let (Value::Object(data), Value::Object(more)) = (&mut data, more) {
            data.extend(more);
        }
        let page = Page { template, title, look: &self.look, choice: self.choice, data };
        page::respond(StatusCode::OK, page, self.https)
    }
}

/// What links are about that are followed at the same time.
async fn subjects_of(db: Db, links: Vec<Link>) -> Vec<Result<rows::Subject, DbErr>> {
    match rows::subjects_of(db.opt_out_reads(), &links).await {
        Ok(subjects) => subjects,
        Err(error) => links.iter().map(|_| Err(DbErr::Custom(error.to_string()))).collect(),
    }
}

/// The page with the button.
async fn ask(app: &App, link: &Link, subject: &Subject) -> Result<Response, DbErr> {
    let on = app.db.opt_out_reads();
    let scopes = scopes(link, subject.default_scope());
    let standing = rows::standing_words(on, &link.address_hash).await?;
    if subject.stays() {
        return other(app, subject, &standing).await;
    }
    let stands = scopes.iter().all(|&scope| stands_already(&standing, scope).is_some());
    let opted_in: Vec<&Stood> = standing
        .iter()
        .filter(|stood| stood.said == Said::OptIn && scopes.iter().any(|scope| scope.meets(stood.scope)))
        .collect();
    let mut times = Vec::new();
    if !stands && !opted_in.is_empty() {
        let history = rows::history(on, &link.address_hash).await?;
        let ids: Vec<_> = opted_in.iter().map(|stood| stood.event).collect();
        times.extend(history.iter().filter(|event| ids.contains(&event.id)).map(|event| event.recorded_at));
    }
    let scope_text = match subject.default_scope() {
        AskedScope::Topic => "ask.scope.topic",
        AskedScope::Brand => "ask.scope.brand",
        AskedScope::All => "ask.scope.all",
    };
    let more = json!({ "stands": stands, "date": newer(&times, link, subject), "scope_text": scope_text });
    Ok(subject.page("ask", "ask.title", more))
}

/// Topics named at most on the page of what else can be stopped.
const NAMED: usize = 20;

/// The page of a message that cannot be refused: why not, and which other mail can be, the narrower choice first.
async fn other(app: &App, subject: &Subject, standing: &[Stood]) -> Result<Response, DbErr> {
    let topics = brand::rows::topics_after(app.db.opt_out_reads(), subject.brand.id, None, 200).await?;
    let names = topics.into_iter().filter(|topic| topic.class.can_be_refused()).map(|topic| topic.name);
    let all = stands_already(standing, Scope::All).is_some();
    let brand = all || stands_already(standing, Scope::Brand(subject.brand.id)).is_some();
    let stopped = match (all, brand) {
        (true, _) => vec!["ask.scope.all"],
        (false, true) => vec!["ask.scope.brand"],
        (false, false) => Vec::new(),
    };
    let choice = |scope: AskedScope, text: &str| json!({ "scope": scope.as_str(), "text": text, "first": scope == AskedScope::Brand });
    let mut choices = Vec::new();
    if !brand {
        choices.push(choice(AskedScope::Brand, "other.brand"));
    }
    if !all {
        choices.push(choice(AskedScope::All, "other.all"));
    }
    let names: Vec<String> = names.filter(|_| !brand).take(NAMED).collect();
    let more = json!({ "names": names, "stopped": stopped, "choices": choices });
    Ok(subject.page("other", "other.title", more))
}

/// Opts out, or takes back what the link did.
async fn act(
    app: &App,
    link: &Link,
    subject: &Subject,
    form: Form,
    json: bool,
    arrived: Instant,
) -> Result<Response, DbErr> {
    if form.undo && form.scope.is_none() {
        let undone = fence::undo(app, &link.address_hash, link.delivery, &[], Channel::Page, ACTOR).await?;
        tracing::info!(delivery = %link.delivery, scopes = undone.scopes.len(), "an opt-out was taken back");
        return taken_back(app, subject, &undone, json).await;
    }
    let asked = form.scope.unwrap_or_else(|| subject.default_scope());
    let scopes = scopes(link, asked);
    let channel = if form.page { Channel::Page } else { Channel::OneClick };
    let opt_out = by_link::opt_out(link, asked, channel);
    let mut answer = fence::opt_out(app, &opt_out, arrived).await?;
    if form.undo {
        // The narrower opt-out is recorded before the wider one goes, so that nothing begins in between.
        let undone =
            fence::undo(app, &link.address_hash, link.delivery, &scopes, Channel::Page, ACTOR).await?;
        answer.standing = undone.still;
    }
    tracing::info!(
        delivery = %link.delivery, brand = %link.brand, topic = %link.topic, scope = asked.as_str(), %channel,
        new = answer.new, settled = answer.rest.settled(), "opted out through a message"
    );
    if json {
        let on = app.db.opt_out_reads();
        let answer = OptOutAnswer {
            id: answer.id,
            scope: subject.words_of(asked),
            channel,
            recorded_at: answer.recorded_at,
            settled: answer.rest.settled(),
            in_flight: rows::flights_in_words(on, answer.rest.deliveries()).await?,
        };
        return Ok(as_json(&answer, subject.https));
    }
    done(app, link, subject, asked, &answer).await
}

/// The page after an opt-out.
async fn done(
    app: &App,
    link: &Link,
    subject: &Subject,
    asked: AskedScope,
    answer: &Answer,
) -> Result<Response, DbErr> {
    let on = app.db.opt_out_reads();
    let mut flights: Vec<(Option<String>, u64)> = Vec::new();
    for (_, topic, _) in answer.rest.deliveries() {
        let topic = brand::rows::topic_by_id(on, topic).await?.map(|topic| topic.name);
        match flights.iter_mut().find(|(named, _)| *named == topic) {
            Some((_, n)) => *n += 1,
            None => flights.push((topic, 1)),
        }
    }
    let flights: Vec<Value> =
        flights.into_iter().map(|(topic, n)| json!({ "topic": topic, "n": n })).collect();
    let stopped = match asked {
        AskedScope::Topic => "done.stopped.topic",
        AskedScope::Brand => "ask.scope.brand",
        AskedScope::All => "ask.scope.all",
    };
    let more = json!({
        "date": newer(&answer.overruled, link, subject),
        "flights": flights,
        "stopped": [stopped],
        "comes": still_coming(app, link, subject, &answer.standing).await?,
        "choices": choices(asked, subject.stays()),
    });
    Ok(subject.page("done", "done.title", more))
}

/// What still comes and why, by what stands now.
async fn still_coming(
    app: &App,
    link: &Link,
    subject: &Subject,
    standing: &[Stood],
) -> Result<Vec<Value>, DbErr> {
    let stopped_all = stands_already(standing, Scope::All).is_some();
    let stopped_brand = stopped_all || stands_already(standing, Scope::Brand(link.brand)).is_some();
    let mut comes = Vec::new();
    if subject.stays() {
        comes.push(json!({ "text": "done.comes.this" }));
    }
    comes.push(json!({ "text": "done.comes.service" }));
    if subject.customers_keep {
        for (brand, topic) in rows::kept_for_customer(app.db.opt_out_reads(), &link.address_hash).await? {
            comes.push(json!({ "text": "done.comes.kept", "topic": topic, "brand": brand }));
        }
    }
    if !stopped_brand {
        comes.push(json!({ "text": "done.comes.topics" }));
    }
    if !stopped_all {
        comes.push(json!({ "text": "done.comes.brands" }));
    }
    Ok(comes)
}

/// The buttons of the done page: the narrower scopes, the wider ones, the undo. A narrower one takes back what this
/// link did beyond it.
fn choices(asked: AskedScope, stays: bool) -> Value {
    let only = |scope: &str, text: &str| json!({ "undo": true, "scope": scope, "text": text });
    let also = |scope: &str, text: &str| json!({ "undo": false, "scope": scope, "text": text });
    let mut choices = match asked {
        AskedScope::Topic => vec![also("brand", "done.also.brand"), also("all", "done.also.all")],
        AskedScope::Brand => vec![only("topic", "done.only.topic"), also("all", "done.also.all")],
        AskedScope::All => vec![only("topic", "done.only.topic"), only("brand", "done.only.brand")],
    };
    // What cannot be refused cannot be all that is.
    choices.retain(|choice| !stays || choice["scope"] != "topic");
    choices.push(json!({ "undo": true, "scope": null, "text": "done.undo" }));
    Value::Array(choices)
}

/// The answer after an undo.
async fn taken_back(app: &App, subject: &Subject, undone: &Undone, json: bool) -> Result<Response, DbErr> {
    let still: Vec<Scope> =
        undone.still.iter().filter(|stood| stood.said == Said::OptOut).map(|stood| stood.scope).collect();
    if json {
        let on = app.db.opt_out_reads();
        let mut words = [Vec::new(), Vec::new()];
        for (words, scopes) in words.iter_mut().zip([&undone.scopes, &still]) {
            for &scope in scopes {
                words.push(rows::words_of(on, scope).await?);
            }
        }
        let [taken_back, still] = words;
        return Ok(as_json(&json!({ "taken_back": taken_back, "still_opted_out_of": still }), subject.https));
    }
    let concerned = Scope::Topic(subject.brand.id, subject.topic.id);
    let still = still.iter().any(|&scope| scope.meets(concerned));
    // A message that cannot be refused speaks of the others, and offers the narrower choice.
    let (again_scope, button) =
        if subject.stays() { (Some("brand"), "other.brand") } else { (None, "undone.button") };
    let nothing = undone.scopes.is_empty();
    let more = json!({ "nothing": nothing, "still": still, "again_scope": again_scope, "button": button });
    let title = if undone.scopes.is_empty() { "undone.heading.nothing" } else { "undone.title" };
    Ok(subject.page("undone", title, more))
}

/// The day of the newest of these times, when it lies after the link was made.
fn newer(times: &[Timestamp], link: &Link, subject: &Subject) -> Option<String> {
    times.iter().max().filter(|&&at| at > link.made_at).map(|&at| subject.choice.locale.day(at))
}
