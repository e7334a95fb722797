//! `/a/{token}`: what changes, and the two buttons by which a person answers.
//!
//! It promises: `GET`, `HEAD` and `OPTIONS` change nothing; only a `POST` that names a decision records one, as often as
//! it is sent the same one once, bound to the version and to the hash of the text in the language of the message. A change
//! that takes no answer any more is shown as it stands now, and nothing is recorded. It never redirects and sets no
//! cookie.

mod subject;
mod words;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::any;
use sea_orm::DbErr;
use serde_json::{Value, json};

use self::subject::Subject;
use crate::app::App;
use crate::clock::Instant;
use crate::fence;
use crate::language::Choice;
use crate::link::{Link, Purpose};
use crate::notice::Decision;
use crate::notice::question::Question;
use crate::notice::rows::approvals::{Given, Recorded, messages, record};
use crate::opt_out::form::fields;
use crate::opt_out::{Channel, OptOut, Scope};
use crate::policy::{changes, direction, language_name};
use crate::web::link_page::{self, Asked, Body, Token};
use crate::web::{Problem, page};

/// Who is recorded: whoever holds the link.
const ACTOR: &str = "link";

/// `/a/{token}`, and what becomes of it on its way.
pub(super) fn router() -> Router<App> {
    link_page::routes('a', &any(answer))
}

/// What a request comes to.
enum Came {
    /// The page is looked at.
    Shown,
    /// What was posted is not taken any more.
    Late,
    /// Something was posted that names no decision.
    Unclear,
    /// The answer stands; whether it is new, and what may still arrive of a use that was refused.
    Answered { new: bool, rest: fence::Rest },
}

async fn answer(State(app): State<App>, token: Token, request: Request) -> Response {
    let arrived = Instant::now();
    let asked = match Asked::read(&app, token, request, Purpose::Approve).await {
        Ok(asked) => asked,
        Err(answer) => return *answer,
    };
    let Asked { link, body, json, accept_language, https } = asked;
    let posted = body.map(|body| decision(&body));
    let choice = Choice::new(None, &accept_language);
    let answered = match Subject::load(&app, &link, &accept_language, https).await {
        Ok(Some(subject)) => serve(&app, &link, subject, posted, json, arrived).await,
        // A message of which nothing is kept, or that was never sent.
        Ok(None) => Ok(page::unknown_link(choice, "approve.unknown", https)),
        Err(error) => Err(error),
    };
    answered.unwrap_or_else(|error| {
        tracing::error!(%error, delivery = %link.delivery, "an approval link could not be served");
        let again =
            posted.flatten().map(|decision| vec![json!({ "name": "decision", "value": decision.as_str() })]);
        link_page::unavailable(again, json, choice, https)
    })
}

/// The decision that a form names; none when it names none, or both.
fn decision(body: &Body) -> Option<Decision> {
    let named = fields(&body.content_type, &body.octets);
    let mut named = named.iter().filter(|(name, _)| name.trim().eq_ignore_ascii_case("decision"));
    let read = |(_, value): &(String, String)| value.trim().to_ascii_lowercase().parse::<Decision>().ok();
    let first = named.next().and_then(read)?;
    named.all(|again| read(again) == Some(first)).then_some(first)
}

async fn serve(
    app: &App,
    link: &Link,
    mut subject: Subject,
    posted: Option<Option<Decision>>,
    json: bool,
    arrived: Instant,
) -> Result<Response, DbErr> {
    let came = match posted {
        None => Came::Shown,
        Some(_) if subject.closed.is_some() => Came::Late,
        Some(None) => Came::Unclear,
        Some(Some(decision)) => act(app, link, &mut subject, decision, arrived).await?,
    };
    subject.look_what_is_refused(app, link).await?;
    if json {
        return Ok(as_json(&subject, &came));
    }
    let status = match came {
        Came::Unclear => StatusCode::UNPROCESSABLE_ENTITY,
        Came::Shown | Came::Late | Came::Answered { .. } => StatusCode::OK,
    };
    let flights = match &came {
        Came::Answered { rest, .. } => rest.deliveries().len(),
        Came::Shown | Came::Late | Came::Unclear => 0,
    };
    let saved = matches!(came, Came::Answered { .. });
    let mut data = words::data(&subject, saved, matches!(came, Came::Unclear), flights);
    if let Value::Object(data) = &mut data {
        data.extend(changed(&subject).await);
    }
    let page = page::Page {
        template: "approve",
        title: "approve.title",
        look: &subject.look,
        choice: subject.choice,
        data,
    };
    Ok(page::respond(status, page, subject.https))
}

/// Records an answer. What it says of a use takes effect first: it may be said again, and is never said to hold before it
/// does.
async fn act(
    app: &App,
    link: &Link,
    subject: &mut Subject,
    decision: Decision,
    arrived: Instant,
) -> Result<Came, DbErr> {
    let mut rest = fence::Rest::default();
    if let (Question::Use, Some(topic)) = (subject.asked.question, &subject.use_topic) {
        match decision {
            Decision::Decline => {
                let refused = OptOut {
                    address_hash: link.address_hash.clone(),
                    scopes: vec![Scope::Topic(topic.brand_id, topic.id)],
                    channel: Channel::Page,
                    complaint: false,
                    note: None,
                    requested_at: None,
                    delivery: Some(link.delivery),
                    actor: ACTOR.to_owned(),
                };
                rest = fence::opt_out(app, &refused, arrived).await?.rest;
            }
            Decision::Approve => {
                // Whichever message of the notice they refused it by; what else they refused by its footer stays refused.
                let brand = topic.brand_id;
                let keep = [Scope::All, Scope::Brand(brand), Scope::Topic(brand, link.topic)];
                for message in messages(app.db.reads(), subject.notice, link.recipient).await? {
                    fence::undo(app, &link.address_hash, message, &keep, ACTOR).await?;
                }
            }
        }
    }
    let given = Given {
        notice: subject.notice,
        asked: subject.asked,
        recipient: link.recipient,
        address_hash: &link.address_hash,
        decision,
        language: &subject.text.language,
        sha256: &subject.text.sha256,
        delivery: link.delivery,
    };
    let txn = app.db.begin().await?;
    let recorded = record(&txn, &app.db, &given).await?;
    txn.commit().await?;
    let new = matches!(recorded, Recorded::New(_));
    tracing::info!(delivery = %link.delivery, decision = decision.as_str(), new, "a change was answered");
    Ok(match recorded {
        Recorded::New(answer) => {
            subject.answer = Some((answer.decision, answer.decided_at));
            Came::Answered { new, rest }
        }
        Recorded::Stood(answer) => {
            subject.answer = Some((answer.decision, answer.decided_at));
            Came::Answered { new, rest }
        }
        Recorded::Closed(closed) => {
            subject.closed = Some(closed);
            Came::Late
        }
    })
}

/// What changes, against the version before, in the names of the template.
async fn changed(subject: &Subject) -> serde_json::Map<String, Value> {
    let (parts, language) = match &subject.compared {
        Some((old, new)) if words::tells(subject) => {
            (Some(changes::compare(&old.body_markdown, &new.body_markdown).await), &new.language)
        }
        _ => (None, &subject.text.language),
    };
    let parts = parts.as_ref().map(|parts| parts.as_slice());
    let data = json!({
        "changes": parts.map(|parts| changes::for_page(parts, 3)),
        "changes_language": language,
        "changes_direction": direction(language),
        "changes_in": (*language != subject.text.language).then(|| language_name(language)),
        "same": parts.is_some_and(<[_]>::is_empty),
        "short": parts.is_some_and(changes::are_short),
    });
    match data {
        Value::Object(data) => data,
        _ => serde_json::Map::new(),
    }
}

fn as_json(subject: &Subject, came: &Came) -> Response {
    if matches!(came, Came::Unclear) {
        let problem = Problem::field("/decision", "must be approve or decline");
        return link_page::problem(problem, subject.https);
    }
    let answer = subject.answer.map(|(decision, at)| json!({ "decision": decision, "decided_at": at }));
    let mut answered = json!({
        "policy": subject.policy.slug,
        "version": subject.version.number,
        "title": subject.text.title,
        "change": subject.version.change,
        "language": subject.text.language,
        "sha256": subject.sha256(),
        "effective_at": subject.asked.effective_at,
        "asks": subject.asked.question.as_str(),
        "closed": subject.closed.map(|closed| closed.as_str()),
        "newer": subject.newer.as_ref().map(|newer| newer.number),
        "answer": answer,
    });
    if subject.allowed().is_some() {
        answered["still_refused"] = json!(subject.refused);
    }
    match came {
        Came::Answered { new, rest } => {
            answered["recorded"] = Value::Bool(*new);
            answered["settled"] = Value::Bool(rest.settled());
        }
        Came::Late => answered["recorded"] = Value::Bool(false),
        Came::Shown | Came::Unclear => {}
    }
    link_page::as_json(&answered, subject.https)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_names_one_decision_or_none() {
        let read = |kind: &str, octets: &str| {
            decision(&Body { content_type: kind.to_owned(), octets: octets.as_bytes().to_vec() })
        };
        let urlencoded = "application/x-www-form-urlencoded";
        let multipart =
            "--b\r\nContent-Disposition: form-data; name=\"decision\"\r\n\r\ndecline\r\n--b--\r\n";
        assert_eq!(read(urlencoded, "decision=approve"), Some(Decision::Approve));
        assert_eq!(read("", "x=1&Decision=DECLINE+"), Some(Decision::Decline));
        assert_eq!(read("multipart/form-data; boundary=b", multipart), Some(Decision::Decline));
        for unclear in
            ["", "decision=", "decision=yes", "approve", "decision=approve&decision=decline", "scope=all"]
        {
            assert_eq!(read(urlencoded, unclear), None, "{unclear}");
        }
    }
}
