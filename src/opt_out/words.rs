//! Opt-outs in the words of the API, the command line and the exports: brands and topics by their names in paths.
//!
//! Pure.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::events::Channel;
use crate::clock::Timestamp;
use crate::decision::{Ground, Reason};
use crate::id::{DeliveryId, OptEventId};

/// A scope by names: `"all"`, `{"brand": "acme"}` or `{"brand": "acme", "topic": "offers"}`; in CSV `all`,
/// `brand:acme` or `topic:acme/offers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScopeWords {
    /// Everything that can be refused, of every brand here.
    All,
    /// Everything that can be refused of this brand.
    Brand(String),
    /// One topic: brand, topic.
    Topic(String, String),
}

impl ScopeWords {
    /// Of an optional brand and an optional topic, as a command line gives them.
    ///
    /// # Errors
    /// For a topic without its brand.
    pub fn from_parts(brand: Option<String>, topic: Option<String>) -> Result<Self, String> {
        match (brand, topic) {
            (None, None) => Ok(Self::All),
            (Some(brand), None) => Ok(Self::Brand(brand)),
            (Some(brand), Some(topic)) => Ok(Self::Topic(brand, topic)),
            (None, Some(_)) => Err("a topic needs its brand".to_owned()),
        }
    }
}

impl fmt::Display for ScopeWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Brand(brand) => write!(f, "brand:{brand}"),
            Self::Topic(brand, topic) => write!(f, "topic:{brand}/{topic}"),
        }
    }
}

impl FromStr for ScopeWords {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let slug = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let named = |name: &str| (1..=63).contains(&name.len()) && name.bytes().all(slug);
        if text == "all" {
            return Ok(Self::All);
        }
        if let Some(brand) = text.strip_prefix("brand:").filter(|brand| named(brand)) {
            return Ok(Self::Brand(brand.to_owned()));
        }
        match text.strip_prefix("topic:").and_then(|pair| pair.split_once('/')) {
            Some((brand, topic)) if named(brand) && named(topic) => {
                Ok(Self::Topic(brand.to_owned(), topic.to_owned()))
            }
            _ => Err("the scope must be all, brand:<brand> or topic:<brand>/<topic>".to_owned()),
        }
    }
}

impl Serialize for ScopeWords {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Brand(brand) => serializer.collect_map([("brand", brand)]),
            Self::Topic(brand, topic) => serializer.collect_map([("brand", brand), ("topic", topic)]),
        }
    }
}

impl<'de> Deserialize<'de> for ScopeWords {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = || D::Error::custom(r#"use "all", {"brand": "b"} or {"brand": "b", "topic": "t"}"#);
        match Value::deserialize(deserializer)? {
            Value::String(word) if word == "all" => Ok(Self::All),
            Value::Object(map) => from_object(map).ok_or_else(form),
            _ => Err(form()),
        }
    }
}

fn from_object(mut map: Map<String, Value>) -> Option<ScopeWords> {
    let mut name = |key: &str| match map.remove(key) {
        None => Some(None),
        Some(Value::String(name)) if !name.is_empty() => Some(Some(name)),
        Some(_) => None,
    };
    let (brand, topic) = (name("brand")??, name("topic")?);
    map.is_empty().then_some(match topic {
        None => ScopeWords::Brand(brand),
        Some(topic) => ScopeWords::Topic(brand, topic),
    })
}

impl utoipa::PartialSchema for ScopeWords {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, OneOfBuilder, Type};
        let word = || ObjectBuilder::new().schema_type(Type::String);
        OneOfBuilder::new()
            .description(Some("`\"all\"`, a brand, or a topic of a brand."))
            .item(word().enum_values(Some(["all"])))
            .item(
                ObjectBuilder::new()
                    .property("brand", word())
                    .required("brand")
                    .property("topic", word())
                    .additional_properties(Some(AdditionalProperties::FreeForm(false))),
            )
            .into()
    }
}

impl utoipa::ToSchema for ScopeWords {}

/// The answer to an opt-out, by whichever way it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct OptOutAnswer {
    /// The event that records it.
    pub id: OptEventId,
    /// What was refused.
    pub scope: ScopeWords,
    /// How it was said.
    pub channel: Channel,
    /// When it was recorded; that of the first time when it stood already.
    pub recorded_at: Timestamp,
    /// Whether no message within the scope can reach the relay any more.
    pub settled: bool,
    /// The messages that may still reach it.
    pub in_flight: Vec<InFlightWords>,
}

/// A message that was begun before the opt-out and whose end was not seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct InFlightWords {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Its topic.
    pub topic: String,
    /// `sending`: a worker still has it; `in_doubt`: handed over or not, the relay did not say.
    pub state: String,
}

/// Whether a message would be sent now, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Explained {
    /// `send` or `suppress`.
    pub decision: Verdict,
    /// The reasons, the weightiest first.
    pub because: Vec<Because>,
}

/// What is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It would be sent.
    Send,
    /// It would not.
    Suppress,
}

/// A word of `because`: a reason to suppress or a ground to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Because {
    /// Why not.
    Reason(Reason),
    /// Why.
    Ground(Ground),
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_scope_is_read_and_written_in_both_forms() {
        let topic = ScopeWords::Topic("acme".into(), "offers".into());
        for (scope, json, text) in [
            (ScopeWords::All, json!("all"), "all"),
            (ScopeWords::Brand("acme".into()), json!({"brand": "acme"}), "brand:acme"),
            (topic, json!({"brand": "acme", "topic": "offers"}), "topic:acme/offers"),
        ] {
            assert_eq!(serde_json::to_value(&scope).unwrap(), json);
            assert_eq!(serde_json::from_value::<ScopeWords>(json).unwrap(), scope);
            assert_eq!(scope.to_string(), text);
            assert_eq!(text.parse::<ScopeWords>().unwrap(), scope);
        }
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        for wrong in [
            json!("everything"),
            json!(null),
            json!({}),
            json!({"topic": "offers"}),
            json!({"brand": 1}),
            json!({"brand": ""}),
            json!({"brand": "acme", "topic": null}),
            json!({"brand": "acme", "more": 1}),
        ] {
            assert!(serde_json::from_value::<ScopeWords>(wrong.clone()).is_err(), "{wrong}");
        }
        for wrong in ["", "brand", "brand:", "topic:acme", "topic:/x", "topic:acme/", "acme", "topic:a/b/c"] {
            assert!(wrong.parse::<ScopeWords>().is_err(), "{wrong}");
        }
    }
}
