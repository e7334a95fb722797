//! Whom an audience means.
//!
//! Pure. An audience is everybody of the brand, or conditions that must all hold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rows::Member;

/// Most tags and most attributes that an audience may name.
const MAX_NAMED: usize = 100;

/// Whom a campaign addresses: `{"all": true}`, or conditions that must all hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Spelt", into = "Spelt")]
pub enum Audience {
    /// Everybody of the brand.
    All,
    /// Those for whom every condition given holds; at least one is given.
    Those(Conditions),
}

/// Conditions on a person.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    /// Has any of these tags.
    pub tags: Option<Vec<String>>,
    /// Has this language or a narrower one: `de` means `de-AT` too (RFC 4647 §3.3.1).
    pub locale: Option<String>,
    /// Is, or is not, the brand's customer.
    pub customer: Option<bool>,
    /// Has each of these attributes with just this value.
    pub attributes: Option<BTreeMap<String, Value>>,
}

impl Audience {
    /// Whether this person is meant.
    pub fn matches(&self, member: &Member) -> bool {
        match self {
            Self::All => true,
            Self::Those(conditions) => conditions.hold(member),
        }
    }
}

impl Conditions {
    fn hold(&self, member: &Member) -> bool {
        let person = &member.recipient;
        let tagged = |wanted: &Vec<String>| {
            person.tags.as_array().is_some_and(|tags| {
                tags.iter().filter_map(Value::as_str).any(|tag| wanted.iter().any(|want| want == tag))
            })
        };
        let attributed = |wanted: &BTreeMap<String, Value>| {
            wanted.iter().all(|(key, want)| person.attributes.get(key).is_some_and(|is| same(is, want)))
        };
        self.tags.as_ref().is_none_or(tagged)
            && self
                .locale
                .as_ref()
                .is_none_or(|want| person.locale.as_deref().is_some_and(|is| speaks(is, want)))
            && self.customer.is_none_or(|want| member.customer == want)
            && self.attributes.as_ref().is_none_or(attributed)
    }
}

/// RFC 4647 §3.3.1, with `_` read as `-`.
fn speaks(tag: &str, range: &str) -> bool {
    let plain = |text: &str| text.replace('_', "-").to_ascii_lowercase();
    let (tag, range) = (plain(tag), plain(range));
    tag.strip_prefix(&range).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Databases may write 1.0 as 1; otherwise values must be the same, and "1" is not 1.
fn same(is: &Value, want: &Value) -> bool {
    is == want || matches!((is.as_f64(), want.as_f64()), (Some(is), Some(want)) if is == want)
}

impl utoipa::PartialSchema for Audience {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        Spelt::schema()
    }
}

impl utoipa::ToSchema for Audience {}

/// An audience as it is spelt in JSON: `{"all": true}`, or conditions that must all hold.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Spelt {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    all: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    locale: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    customer: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attributes: Option<BTreeMap<String, Value>>,
}

impl TryFrom<Spelt> for Audience {
    type Error = &'static str;

    fn try_from(spelt: Spelt) -> Result<Self, &'static str> {
        let Spelt { all, tags, locale, customer, attributes } = spelt;
        let conditions = Conditions { tags, locale, customer, attributes };
        let none = conditions == Conditions::default();
        match all {
            Some(true) if none => return Ok(Self::All),
            Some(true) => return Err("an audience has either \"all\": true or conditions, not both"),
            Some(false) => return Err("\"all\" can only be true; leave it out and give conditions"),
            None => {}
        }
        if none {
            return Err(
                "an audience needs \"all\": true or at least one of tags, locale, customer, attributes; \
                 leave the audience out to add nobody",
            );
        }
        if conditions.tags.as_ref().is_some_and(Vec::is_empty) {
            return Err("\"tags\" names no tag, so nobody would match; leave it out or name some");
        }
        if conditions.attributes.as_ref().is_some_and(BTreeMap::is_empty) {
            return Err("\"attributes\" names no attribute; leave it out or name some");
        }
        if conditions.locale.as_ref().is_some_and(String::is_empty) {
            return Err("\"locale\" is empty; leave it out or name a language such as de");
        }
        if conditions.tags.as_ref().is_some_and(|tags| tags.len() > MAX_NAMED)
            || conditions.attributes.as_ref().is_some_and(|named| named.len() > MAX_NAMED)
        {
            return Err("an audience names at most 100 tags and 100 attributes");
        }
        Ok(Self::Those(conditions))
    }
}

impl From<Audience> for Spelt {
    fn from(audience: Audience) -> Self {
        match audience {
            Audience::All => {
                Self { all: Some(true), tags: None, locale: None, customer: None, attributes: None }
            }
            Audience::Those(Conditions { tags, locale, customer, attributes }) => {
                Self { all: None, tags, locale, customer, attributes }
            }
        }
    }
}
