//! What the page of an approval link says.

use serde_json::{Value, json};

use super::subject::Subject;
use crate::decision::Reason;
use crate::notice::Decision;
use crate::notice::question::{Closed, Question};
use crate::policy::rows::Version;

/// What the template sees. `saved`: an answer was just taken; `alert`: the key of why none was; `flights`: how many messages
/// of a use that was refused may still arrive.
pub(super) fn data(subject: &Subject, saved: bool, alert: Option<&str>, flights: usize) -> Value {
    let locale = subject.choice.locale;
    let asked = &subject.asked;
    let passed = asked.effective_at <= subject.now;
    let date = locale.day(subject.effective());
    let (heading, lead) = match (subject.closed, saved) {
        (None, true) => (saved_heading(subject), when(passed)),
        (None, false) if asked.question == Question::Use => ("approve.ask.use", when(passed)),
        (None, false) => ("approve.ask", when(passed)),
        (Some(Closed::NotAsked), _) => ("approve.told", when(passed)),
        (Some(Closed::Withdrawn), _) => ("approve.withdrawn", "approve.withdrawn.text"),
        (Some(Closed::Superseded), _) => ("approve.superseded", "approve.superseded.text"),
        (Some(Closed::InEffect), _) => ("approve.in_effect", "approve.in_effect.text"),
        (Some(Closed::Gone), _) => ("approve.gone", "approve.gone.text"),
    };
    let newer_from = subject.newer.as_ref().and_then(Version::holds_from_there);
    let lead_date = match (subject.closed, newer_from) {
        (Some(Closed::Superseded), Some(at)) => locale.day(at),
        _ => date.clone(),
    };
    let open = subject.closed.is_none();
    let agreeing = asked.closed_to(Decision::Approve, subject.now).is_none();
    let approval = agreeing && asked.needs_approval;
    let buttons: Vec<Value> = if open { buttons(subject) } else { Vec::new() };
    let summary: Vec<&str> = subject.summary.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    json!({
        "address": subject.address,
        "brand": subject.brand.name,
        "policy": subject.text.title,
        "topic": subject.use_topic.as_ref().map(|topic| topic.name.as_str()).filter(|_| open),
        "date": date,
        "heading": heading,
        "lead": lead,
        "lead_date": lead_date,
        "saved": saved && open,
        "alert": alert,
        "shown": subject.shown(),
        "standing": standing(subject),
        "refused": refused(subject),
        "approval": approval,
        "nothing": subject.closed == Some(Closed::NotAsked),
        "needs": subject.needs.filter(|_| tells(subject)).map(|number| number.to_string()),
        "summary": if tells(subject) { summary } else { Vec::new() },
        "language": subject.text.language,
        "buttons": buttons,
        "links": links(subject),
        "in_flight": flights,
    })
}

/// Whether the page tells what this change is.
pub(super) fn tells(subject: &Subject) -> bool {
    matches!(subject.closed, None | Some(Closed::NotAsked | Closed::InEffect))
}

fn when(passed: bool) -> &'static str {
    if passed { "approve.since" } else { "approve.when" }
}

fn saved_heading(subject: &Subject) -> &'static str {
    match subject.answer.map(|(decision, _)| subject.asked.question.word(decision)) {
        Some("agree") => "approve.saved.agree",
        Some("allow") => "approve.saved.allow",
        Some("refuse") => "approve.saved.refuse",
        _ => "approve.saved.decline",
    }
}

/// What stands now; nothing where nothing was asked.
fn standing(subject: &Subject) -> Option<Value> {
    let locale = subject.choice.locale;
    let text = match subject.answer.map(|(decision, _)| subject.asked.question.word(decision)) {
        Some("agree") => "approve.stands.agree",
        Some("allow") => "approve.stands.allow",
        Some("refuse") => "approve.stands.refuse",
        Some(_) => "approve.stands.decline",
        None if subject.asked.question == Question::Nothing => return None,
        None if subject.closed.is_some() => "approve.none",
        None => "approve.open",
    };
    let date = subject.answer.map(|(_, at)| locale.day(subject.version.happened(at))).unwrap_or_default();
    Some(json!({ "text": text, "date": date }))
}

/// What else was refused that covers the use, the widest first; nothing where the answer is all there is.
fn refused(subject: &Subject) -> Option<&'static str> {
    subject.allowed().filter(|_| subject.closed.is_none())?;
    let has = |reason: Reason| subject.refused.contains(&reason);
    if has(Reason::OptedOutOfAll) {
        Some("approve.still.all")
    } else if has(Reason::OptedOutOfBrand) {
        Some("approve.still.brand")
    } else {
        (!subject.refused.is_empty()).then_some("approve.still.other")
    }
}

/// Two buttons, which look alike until one of them was pressed; where nobody can agree any more, the other one alone.
fn buttons(subject: &Subject) -> Vec<Value> {
    let (yes, no) = match subject.asked.question {
        Question::Use => ("approve.button.allow", "approve.button.refuse"),
        Question::Approval | Question::Nothing => ("approve.button.agree", "approve.button.decline"),
    };
    let answer = subject.answer.map(|(decision, _)| decision);
    let button = |decision: Decision, text: &str| {
        let stands = answer == Some(decision);
        json!({ "decision": decision, "text": text, "answered": answer.is_some(), "stands": stands })
    };
    [(Decision::Approve, yes), (Decision::Decline, no)]
        .into_iter()
        .filter(|(decision, _)| subject.asked.closed_to(*decision, subject.now).is_none())
        .map(|(decision, text)| button(decision, text))
        .collect()
}

/// Where to read.
fn links(subject: &Subject) -> Vec<Value> {
    let link = |href: String, text: &str| json!({ "href": href, "text": text });
    let version = |number: i64, below: &str| subject.path(&format!("/{number}{below}"));
    let mut links = Vec::new();
    if let Some(newer) = &subject.newer {
        links.push(link(version(newer.number, ""), "approve.newer"));
        links.push(link(version(newer.number, "/changes"), "notice.compare"));
    }
    match subject.closed {
        Some(Closed::Withdrawn | Closed::Superseded | Closed::Gone) => {
            links.push(link(subject.path(""), "notice.current"));
        }
        Some(Closed::InEffect) => {
            links.push(link(version(subject.version.number, ""), "notice.new"));
            links.push(link(subject.path(""), "notice.current"));
        }
        None | Some(Closed::NotAsked) => {
            if subject.newer.is_none() && subject.before.is_some() {
                links.push(link(version(subject.version.number, "/changes"), "notice.compare"));
            }
            links.push(link(version(subject.version.number, ""), "notice.new"));
            if let Some(before) = &subject.before {
                links.push(link(version(before.number, ""), "notice.old"));
            }
        }
    }
    links
}
