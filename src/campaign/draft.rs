//! What a campaign is made of before anybody checks it, and the checks that need no database.
//!
//! Pure.

use serde_json::{Map, Value};

use super::WrongState;
use crate::brand::{Brand, Mailbox, Topic, lint};
use crate::clock::Timestamp;
use crate::decision::Class;
use crate::message::rows::Template;
use crate::recipient::filter::Conditions;
use crate::recipient::{Audience, check as people};

/// Most characters of a campaign's name.
const MAX_NAME: usize = 200;
/// Most octets of a campaign's data, written as JSON.
const MAX_DATA: usize = 64 * 1024;

/// A campaign as somebody wants it.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// What those who run it call it.
    pub name: Option<String>,
    /// The slug of the brand.
    pub brand: String,
    /// The slug of the topic.
    pub topic: String,
    /// The slug of the template.
    pub template: String,
    /// What templates see as `data`.
    pub data: Map<String, Value>,
    /// Whom of the brand's people it is for; nobody but those added by lines when absent.
    pub audience: Option<Audience>,
    /// Not before; at once when absent.
    pub send_at: Option<Timestamp>,
    /// Not after: what is still queued then expires.
    pub not_after: Option<Timestamp>,
    /// `Name <address>` of Reply-To, before the brand's.
    pub reply_to: Option<String>,
}

/// A field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// JSON pointer to the field.
    pub pointer: &'static str,
    /// What is wrong and what to do.
    pub reason: String,
}

/// Why something cannot be done with a campaign.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// These fields are wrong.
    #[error("{}", sentence(.0))]
    Flaws(Vec<Flaw>),
    /// Not in this state.
    #[error(transparent)]
    State(#[from] WrongState),
    /// It was deleted meanwhile, or never was.
    #[error("there is no such campaign")]
    Gone,
    /// It has run, so it stays.
    #[error("the campaign has run, and what it sent is evidence; it stays")]
    HasRun,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] sea_orm::DbErr),
}

fn sentence(flaws: &[Flaw]) -> String {
    flaws.iter().map(|flaw| format!("{}: {}", flaw.pointer, flaw.reason)).collect::<Vec<_>>().join("; ")
}

impl CampaignError {
    /// One field is wrong.
    pub fn flaw(pointer: &'static str, reason: impl Into<String>) -> Self {
        Self::Flaws(vec![Flaw { pointer, reason: reason.into() }])
    }
}

/// Checks what can be checked without looking anything up; `now` is the database's time.
pub(super) fn check(draft: &Draft, now: Timestamp) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    if let Some(name) = &draft.name {
        if name.chars().any(char::is_control) {
            flaw(&mut flaws, "/name", "must be one line without control characters");
        } else if name.chars().count() > MAX_NAME {
            flaw(&mut flaws, "/name", format!("must not be longer than {MAX_NAME} characters"));
        }
    }
    let data = serde_json::to_vec(&draft.data).map_or(usize::MAX, |json| json.len());
    if data > MAX_DATA {
        flaw(&mut flaws, "/data", format!("must not be larger than {} kB", MAX_DATA / 1024));
    }
    if let Some(Audience::Those(conditions)) = &draft.audience {
        check_conditions(conditions, &mut flaws);
    }
    if let Some(not_after) = draft.not_after {
        if not_after <= now {
            flaw(&mut flaws, "/not_after", "must lie ahead");
        } else if draft.send_at.is_some_and(|send_at| send_at >= not_after) {
            flaw(&mut flaws, "/not_after", "must come after send_at");
        }
    }
    if let Some(reply_to) = &draft.reply_to {
        match Mailbox::parse(reply_to) {
            Err(error) => flaw(&mut flaws, "/reply_to", error.to_string()),
            Ok(mailbox) => {
                if let Some(reason) = lint::distrusted(&mailbox) {
                    flaw(&mut flaws, "/reply_to", reason);
                }
            }
        }
    }
    flaws
}

/// An audience asks for what a person can have, or it would find nobody and nobody would know why.
fn check_conditions(conditions: &Conditions, flaws: &mut Vec<Flaw>) {
    let tags = conditions.tags.iter().flatten().map(|tag| ("/audience/tags", people::line(tag)));
    let locale = conditions.locale.iter().map(|tag| ("/audience/locale", people::locale(tag)));
    let attributes = conditions.attributes.iter().flatten().map(|(key, value)| {
        ("/audience/attributes", people::attribute_key(key).and_then(|()| people::attribute(value)))
    });
    for (pointer, checked) in tags.chain(locale).chain(attributes) {
        if let Err(reason) = checked {
            flaw(flaws, pointer, reason);
        }
    }
}

/// Checks that this brand may send it in this topic.
pub(super) fn check_stream(brand: &Brand, topic: &Topic) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    if brand.archived_at.is_some() {
        flaw(&mut flaws, "/brand", format!("brand {:?} is archived", brand.slug));
    }
    if topic.archived_at.is_some() {
        flaw(&mut flaws, "/topic", format!("topic {:?} is archived", topic.slug));
    }
    if brand.postal_address.trim().is_empty() {
        let reason = format!(
            "brand {:?} has no postal address, which every campaign's mail must show; PUT one on the brand first",
            brand.slug
        );
        flaw(&mut flaws, "/brand", reason);
    }
    if topic.class == Class::Notice {
        let reason = "a topic of class notice is used by published policies only; choose another topic";
        flaw(&mut flaws, "/topic", reason);
    }
    flaws
}

/// Checks that this template may be used for it.
pub(super) fn check_template(
    slug: &str,
    template: Option<&Template>,
    brand: &Brand,
    topic: &Topic,
) -> Option<Flaw> {
    let reason = match template {
        None => format!("there is no template {slug:?}; PUT it first"),
        Some(template) if template.brand_id.is_some_and(|own| own != brand.id) => {
            format!("template {slug:?} belongs to another brand")
        }
        Some(template) if !may_serve(template, topic.class) => {
            format!("template {slug:?} may not serve messages of class {}; see its classes", topic.class)
        }
        Some(_) => return None,
    };
    Some(Flaw { pointer: "/template", reason })
}

fn may_serve(template: &Template, class: Class) -> bool {
    template
        .classes
        .as_array()
        .is_some_and(|classes| classes.iter().any(|word| word.as_str() == Some(class.as_str())))
}

fn flaw(flaws: &mut Vec<Flaw>, pointer: &'static str, reason: impl Into<String>) {
    flaws.push(Flaw { pointer, reason: reason.into() });
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn pointers(draft: &Draft) -> Vec<&'static str> {
        check(draft, NOW).into_iter().map(|flaw| flaw.pointer).collect()
    }

    #[test]
    fn a_name_with_a_line_break_is_refused() {
        for name in ["a\r\nBcc: b", "a\nb", "a\0b"] {
            assert_eq!(pointers(&Draft { name: Some(name.into()), ..Draft::default() }), ["/name"]);
        }
        assert!(pointers(&Draft { name: Some("Spring".into()), ..Draft::default() }).is_empty());
    }

    #[test]
    fn a_deadline_must_lie_ahead_and_after_the_start() {
        let draft = |send_at: Option<i64>, not_after: i64| Draft {
            send_at: send_at.map(Timestamp),
            not_after: Some(Timestamp(not_after)),
            ..Draft::default()
        };
        assert_eq!(pointers(&draft(None, NOW.0)), ["/not_after"]);
        assert_eq!(pointers(&draft(Some(NOW.0 + 20), NOW.0 + 10)), ["/not_after"]);
        assert!(pointers(&draft(Some(NOW.0 + 5), NOW.0 + 10)).is_empty());
    }

    #[test]
    fn an_audience_asks_for_what_people_can_have() {
        for (audience, pointer) in [
            (serde_json::json!({ "tags": ["a\r\nb"] }), "/audience/tags"),
            (serde_json::json!({ "locale": "d\ne" }), "/audience/locale"),
            (serde_json::json!({ "attributes": { "a\nb": 1 } }), "/audience/attributes"),
            (serde_json::json!({ "attributes": { "a": "x".repeat(1001) } }), "/audience/attributes"),
        ] {
            let audience = Some(serde_json::from_value(audience).unwrap());
            assert_eq!(pointers(&Draft { audience, ..Draft::default() }), [pointer]);
        }
    }

    #[test]
    fn data_over_the_limit_is_refused() {
        let mut data = Map::new();
        data.insert("long".into(), "x".repeat(MAX_DATA).into());
        assert_eq!(pointers(&Draft { data, ..Draft::default() }), ["/data"]);
    }
}
