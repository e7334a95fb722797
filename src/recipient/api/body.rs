//! What callers say of a person and what they are shown.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::address::EmailAddress;
use crate::clock::Timestamp;
use crate::decision::Standing;
use crate::id::RecipientId;
use crate::opt_out::words::InFlightWords;
use crate::recipient::{Upsert, check};
use crate::web::{FieldError, check as fields, given};

/// What is said of a person. Absent fields leave what is stored.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RecipientFields)]
pub(super) struct Body {
    /// The address: needed by `POST`, refused by `PATCH`. One that is known already keeps its first spelling.
    #[serde(default)]
    pub(super) email: Option<String>,
    /// The standing: only `PATCH` takes it, never `erased`. Admin and accounts only.
    #[serde(default)]
    pub(super) standing: Option<Standing>,
    /// The name, at most 200 characters; null takes it away.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub(super) name: Option<Option<String>>,
    /// The id in the company's own system, at most 200 characters; null takes it away.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub(super) external_id: Option<Option<String>>,
    /// The language tag, such as `de` or `pt-BR`; null takes it away.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub(super) locale: Option<Option<String>>,
    /// Slugs of the brands that the person belongs to, and no others; null: every brand. Absent for somebody new: every
    /// brand, or the key's own.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    pub(super) brands: Option<Option<Vec<String>>>,
    /// Slugs of the brands whose customer the person is, and no others. Admin and accounts only.
    #[serde(default)]
    pub(super) customer_of: Option<Vec<String>>,
    /// All tags: at most 50 of at most 64 characters.
    #[serde(default)]
    pub(super) tags: Option<Vec<String>>,
    /// Attributes, laid over those stored key by key; null takes a key away. At most 100 keys of at most 64 characters,
    /// values of at most 1,000.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub(super) attributes: Option<Map<String, Value>>,
    /// Which version of which policy was accepted at sign-up, such as `{"privacy": 3}`; laid over those stored. Each has to
    /// be published; of somebody stored they are changed by admin and accounts only.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub(super) policies: Option<Map<String, Value>>,
}

impl Body {
    /// Everything but address, brands and standing, checked.
    pub(super) fn said(&self, address: EmailAddress, errors: &mut Vec<FieldError>) -> Upsert {
        let mut said = Upsert::new(address);
        said.name = line("/name", self.name.as_ref(), check::line, errors);
        said.external_id = line("/external_id", self.external_id.as_ref(), check::line, errors);
        said.locale = line("/locale", self.locale.as_ref(), check::locale, errors);
        if let Some(tags) = &self.tags {
            note("/tags", check::tags(tags), errors);
            said.tags = Some(check::each_once(tags.clone()));
        }
        if let Some(attributes) = &self.attributes {
            note("/attributes", check::attributes(attributes), errors);
            said.attributes.clone_from(attributes);
        }
        if let Some(policies) = &self.policies {
            note("/policies", check::policies(policies), errors);
            said.policies.clone_from(policies);
        }
        for (pointer, named) in
            [("/brands", self.brands.clone().flatten()), ("/customer_of", self.customer_of.clone())]
        {
            if named.is_some_and(|slugs| slugs.len() > check::MAX_BRANDS) {
                fields::wrong(pointer, format!("names more than {} brands", check::MAX_BRANDS), errors);
            }
        }
        said
    }
}

fn note(pointer: &str, checked: Result<(), String>, errors: &mut Vec<FieldError>) {
    if let Err(reason) = checked {
        fields::wrong(pointer, reason, errors);
    }
}

/// Empty text takes away, as null does.
fn line(
    pointer: &str,
    said: Option<&Option<String>>,
    checked: impl Fn(&str) -> Result<(), String>,
    errors: &mut Vec<FieldError>,
) -> Option<Option<String>> {
    let said = said?.clone().filter(|text| !text.trim().is_empty());
    if let Some(text) = &said {
        note(pointer, checked(text), errors);
    }
    Some(said)
}

/// A person, as a key sees them.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Recipient)]
pub(super) struct View {
    /// The id.
    pub(super) id: RecipientId,
    /// The address as first spelt; null once erased.
    pub(super) email: Option<String>,
    /// The name.
    pub(super) name: Option<String>,
    /// The id in the company's own system.
    pub(super) external_id: Option<String>,
    /// The language tag.
    pub(super) locale: Option<String>,
    /// The standing.
    pub(super) standing: Standing,
    /// Slugs of the brands that the person belongs to; null: every brand. A key bound to a brand sees only its own.
    pub(super) brands: Option<Vec<String>>,
    /// Slugs of the brands whose customer the person is. A key bound to a brand sees only its own.
    pub(super) customer_of: Vec<String>,
    /// Tags.
    #[schema(value_type = Vec<String>)]
    pub(super) tags: Value,
    /// Attributes.
    #[schema(value_type = Object)]
    pub(super) attributes: Value,
    /// Which version of which policy was accepted at sign-up.
    #[schema(value_type = Object)]
    pub(super) policies: Value,
    /// When the person was first stored.
    pub(super) created_at: Timestamp,
    /// When anything about the person last changed.
    pub(super) updated_at: Timestamp,
}

/// The answer of `PATCH`: the person, and what a new standing left under way.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = RecipientPatched)]
pub(super) struct Patched {
    /// The person.
    #[serde(flatten)]
    pub(super) person: View,
    /// Whether nothing that the new standing stops reaches the relay after this answer; absent when the standing was not
    /// given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) settled: Option<bool>,
    /// What may still reach it; absent when the standing was not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) in_flight: Option<Vec<InFlightWords>>,
}
