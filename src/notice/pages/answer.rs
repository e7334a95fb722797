//! `/a/{token}`: what changes, and the two buttons by which a person answers.
//!
//! It promises: `GET`, `HEAD` and `OPTIONS` change nothing; only a `POST` that names a decision records one, as often as
//! it is sent the same one once, bound to the version and to the hash of the text in the language of the message. A change
//! that takes no answer any more is shown as it stands now, and nothing is recorded; nor is agreement to words that
//! were corrected meanwhile: those that stand now are shown, and asked about anew. Whoever declines is always heard. It
//! never redirects and sets no cookie.

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
use crate::notice::question::{Closed, Question};
use crate::notice::rows::approvals::{Given, Recorded, is_as_shown, record};
use crate::notice::rows::{OfUse, heed};
use crate::opt_out::Channel;
use crate::opt_out::form::fields;
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
    Late(Closed),
    /// Something was posted that names no decision.
    Unclear,
    /// What was posted answers words that were corrected meanwhile.
    Corrected,
    /// The answer stands; whether it is new, and what may still arrive of a use that was refused.
    Answered { new: bool, rest: fence::Rest },
}

impl Came {
    /// Why what was posted is not taken.
    fn closed(&self) -> Option<Closed> {
        match self {
            Self::Late(closed) => Some(*closed),
            _ => None,
        }
    }
}

async fn answer(State(app): State<App>, token: Token, request: Request) -> Response {
    let arrived = Instant::now();
    let asked = match Asked::read(&app, token, request, Purpose::Approve).await {
        Ok(asked) => asked,
        Err(answer) => return *answer,
    };
    let Asked { link, body, json, accept_language, https } = asked;
    let posted = body.map(|body| Posted::read(&body));
    let choice = Choice::new(None, &accept_language);
    let answered = match Subject::load(&app, &link, &accept_language, https).await {
        Ok(Some(subject)) => {
            let asking = Asking { link: &link, posted: posted.as_ref(), accept_language: &accept_language };
            serve(&app, asking, subject, json, arrived).await
        }
        // A message of which nothing is kept, or that was never sent.
        Ok(None) => Ok(page::unknown_link(choice, "approve.unknown", https)),
        Err(error) => Err(error),
    };
    answered.unwrap_or_else(|error| {
        tracing::error!(%error, delivery = %link.delivery, "an approval link could not be served");
        link_page::unavailable(posted.and_then(|posted| posted.again()), json, choice, https)
    })
}

/// What a form says.
#[derive(Debug, PartialEq, Eq)]
struct Posted {
    /// The decision; none when it names none, or both.
    decision: Option<Decision>,
    /// By what it is known which words were shown above the button.
    shown: Option<String>,
}

impl Posted {
    fn read(body: &Body) -> Self {
        let all = fields(&body.content_type, &body.octets);
        let named = |wanted: &'static str| {
            all.iter()
                .filter(move |(name, _)| name.trim().eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value.trim())
        };
        let read = |value: &str| value.to_ascii_lowercase().parse::<Decision>().ok();
        let first = named("decision").next().and_then(read);
        Self {
            decision: first.filter(|_| named("decision").all(|again| read(again) == first)),
            shown: named("shown").next().map(str::to_ascii_lowercase),
        }
    }

    /// The fields of the form, to be sent once more; none when it names no decision.
    fn again(self) -> Option<Vec<Value>> {
        let decision = json!({ "name": "decision", "value": self.decision?.as_str() });
        let shown = self.shown.map(|shown| json!({ "name": "shown", "value": shown }));
        Some(std::iter::once(decision).chain(shown).collect())
    }
}

/// What is asked of the page, apart from what it is about.
#[derive(Clone, Copy)]
struct Asking<'a> {
    link: &'a Link,
    posted: Option<&'a Posted>,
    accept_language: &'a str,
}

async fn serve(
    app: &App,
    asking: Asking<'_>,
    mut subject: Subject,
    json: bool,
    arrived: Instant,
) -> Result<Response, DbErr> {
    let Asking { link, posted, accept_language } = asking;
    let came = match posted {
        None => Came::Shown,
        Some(Posted { decision, shown }) => match (subject.closed, decision) {
            (Some(closed), _) => Came::Late(closed),
            (None, None) => Came::Unclear,
            (None, Some(decision)) => {
                act(app, link, &mut subject, (*decision, shown.as_deref()), arrived).await?
            }
        },
    };
    if matches!(came, Came::Corrected)
        && let Some(now) = Subject::load(app, link, accept_language, subject.https).await?
    {
        // The correction may be newer than what was read before.
        subject = now;
    }
    subject.look_what_is_refused(app, link).await?;
    if json {
        return Ok(as_json(&subject, &came));
    }
    let status = match came {
        Came::Unclear => StatusCode::UNPROCESSABLE_ENTITY,
        Came::Corrected => StatusCode::CONFLICT,
        Came::Shown | Came::Late(_) | Came::Answered { .. } => StatusCode::OK,
    };
    let flights = match &came {
        Came::Answered { rest, .. } => rest.deliveries().len(),
        Came::Shown | Came::Late(_) | Came::Unclear | Came::Corrected => 0,
    };
    let saved = matches!(came, Came::Answered { .. });
    let alert = match came {
        Came::Unclear => Some("approve.press"),
        Came::Corrected => Some("approve.corrected"),
        // What can be refused still is agreed to no more.
        Came::Late(Closed::InEffect) if subject.closed.is_none() => Some("approve.in_effect"),
        Came::Late(Closed::Superseded) if subject.closed.is_none() => Some("approve.superseded"),
        Came::Shown | Came::Late(_) | Came::Answered { .. } => None,
    };
    let mut data = words::data(&subject, saved, alert, flights);
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
    (decision, shown): (Decision, Option<&str>),
    arrived: Instant,
) -> Result<Came, DbErr> {
    if let Some(closed) = subject.asked.closed_to(decision, subject.now) {
        return Ok(Came::Late(closed));
    }
    let given = Given {
        notice: subject.notice.id,
        gone: subject.asked.gone,
        recipient: link.recipient,
        address_hash: &link.address_hash,
        decision,
        language: &subject.text.language,
        sha256: &subject.text.sha256,
        summary: &subject.text.summary,
        shown,
        delivery: Some(link.delivery),
        otherwise: None,
    };
    if !is_as_shown(app.db.reads(), &subject.notice, &given).await? {
        return Ok(Came::Corrected);
    }
    let mut rest = fence::Rest::default();
    if let (Question::Use, Some(topic)) = (subject.asked.question, &subject.use_topic) {
        let said = OfUse {
            notice: subject.notice.id,
            told_in: link.topic,
            recipient: link.recipient,
            address_hash: &link.address_hash,
            decision,
            delivery: Some(link.delivery),
            channel: Channel::Page,
            note: None,
            actor: ACTOR,
        };
        rest = heed(app, topic, &said, arrived).await?;
    }
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
            if decision == Decision::Decline {
                subject.closed = Some(closed);
            }
            Came::Late(closed)
        }
        Recorded::Corrected => Came::Corrected,
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
    if matches!(came, Came::Corrected) {
        let problem = Problem::conflict(
            "What people are told of this change was corrected meanwhile, so nothing was recorded. GET this link again, and \
             send with the decision the `shown` that stands there now.",
        );
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
        "shown": subject.shown(),
        "effective_at": subject.asked.effective_at,
        "effective_date": subject.effective().date(),
        "asks": subject.asked.question.as_str(),
        "closed": came.closed().or(subject.closed).map(Closed::as_str),
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
        Came::Late(_) => answered["recorded"] = Value::Bool(false),
        Came::Shown | Came::Unclear | Came::Corrected => {}
    }
    link_page::as_json(&answered, subject.https)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_names_one_decision_or_none() {
        let posted = |kind: &str, octets: &str| {
            Posted::read(&Body { content_type: kind.to_owned(), octets: octets.as_bytes().to_vec() })
        };
        let read = |kind: &str, octets: &str| posted(kind, octets).decision;
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
        let whole = posted(urlencoded, "decision=approve&shown=AB12");
        assert_eq!(whole.shown.as_deref(), Some("ab12"));
        let again =
            [json!({ "name": "decision", "value": "approve" }), json!({ "name": "shown", "value": "ab12" })];
        assert_eq!(
            (whole.again().as_deref(), posted(urlencoded, "shown=ab12").again()),
            (Some(&again[..]), None)
        );
    }
}
