//! From the fields of a line to a person.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Extra, Record};
use crate::address::EmailAddress;
use crate::recipient::check;

/// What each column of a CSV file holds.
pub(super) struct Columns {
    columns: Vec<Column>,
    extra: Extra,
}

enum Column {
    Email,
    Name,
    ExternalId,
    Locale,
    Tags,
    Brands,
    Policies,
    Extra(String),
}

impl Column {
    fn known(title: &str, extra: Extra) -> Option<Self> {
        let known = [
            ("email", Self::Email),
            ("name", Self::Name),
            ("external_id", Self::ExternalId),
            ("locale", Self::Locale),
            ("tags", Self::Tags),
            ("brands", Self::Brands),
            ("policies", Self::Policies),
        ];
        let found = known.into_iter().find(|(known, _)| title.eq_ignore_ascii_case(known));
        let of_import = |column: &Self| matches!(column, Self::Brands | Self::Policies);
        found.map(|(_, column)| column).filter(|column| extra == Extra::Attributes || !of_import(column))
    }

    fn title(&self) -> &str {
        match self {
            Self::Email => "email",
            Self::Name => "name",
            Self::ExternalId => "external_id",
            Self::Locale => "locale",
            Self::Tags => "tags",
            Self::Brands => "brands",
            Self::Policies => "policies",
            Self::Extra(key) => key,
        }
    }
}

impl Columns {
    /// Reads the header. The known names count in upper case too; the others as they are.
    pub(super) fn read<'a>(
        fields: impl ExactSizeIterator<Item = &'a [u8]>,
        extra: Extra,
    ) -> Result<Self, String> {
        let mut columns = Vec::with_capacity(fields.len());
        let mut seen = BTreeSet::new();
        for (n, field) in fields.enumerate() {
            let n = n + 1;
            let title = std::str::from_utf8(field)
                .map_err(|_| format!("the title of column {n} is not UTF-8; save the file as UTF-8"))?
                .trim();
            let column = match Column::known(title, extra) {
                Some(column) => column,
                None => {
                    check::attribute_key(title)
                        .map_err(|reason| format!("the title of column {n} {reason}"))?;
                    Column::Extra(title.to_owned())
                }
            };
            if !seen.insert(column.title().to_owned()) {
                return Err(format!(
                    "the column {} stands twice in the header; leave one out",
                    check::shown(column.title())
                ));
            }
            columns.push(column);
        }
        if !seen.contains("email") {
            return Err(
                "the header has no column `email`; the first line must be a header, parted by commas, \
                 such as email,name,external_id,locale,tags"
                    .to_owned(),
            );
        }
        let extras = columns.iter().filter(|column| matches!(column, Column::Extra(_))).count();
        if extras > check::MAX_ATTRIBUTES {
            return Err(format!(
                "the header has {extras} columns beyond the known ones; at most {} are taken",
                check::MAX_ATTRIBUTES
            ));
        }
        Ok(Self { columns, extra })
    }

    /// Makes a person of the fields of a line.
    pub(super) fn record<'a>(
        &self,
        fields: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Result<Record, String> {
        if fields.len() != self.columns.len() {
            return Err(format!("has {} columns where the header has {}", fields.len(), self.columns.len()));
        }
        let mut raw = Raw::default();
        for (column, field) in self.columns.iter().zip(fields) {
            let text = std::str::from_utf8(field)
                .map_err(|_| format!("the column {} is not UTF-8", check::shown(column.title())))?;
            let said = || (!text.trim().is_empty()).then(|| text.trim().to_owned());
            match column {
                Column::Email => raw.email = Some(text.to_owned()),
                Column::Name => raw.name = said(),
                Column::ExternalId => raw.external_id = said(),
                Column::Locale => raw.locale = said(),
                Column::Tags => raw.tags = said().map(|tags| parted(&tags)),
                Column::Brands => raw.brands = said().map(|named| brands(&named)).transpose()?,
                Column::Policies => {
                    for accepted in parted(&said().unwrap_or_default()) {
                        let (policy, version) = accepted.split_once('=').ok_or_else(no_version)?;
                        let version: u32 = version.trim().parse().map_err(|_| no_version())?;
                        raw.policies.insert(policy.trim().to_owned(), Value::from(version));
                    }
                }
                Column::Extra(key) => {
                    if self.extra == Extra::Data || !text.is_empty() {
                        raw.extra.insert(key.clone(), Value::from(text));
                    }
                }
            }
        }
        raw.check(self.extra)
    }
}

/// What stands between the semicolons.
fn parted(text: &str) -> Vec<String> {
    text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// The brands of a cell. One of nothing but semicolons would take the person out of every brand, which nobody means by it.
fn brands(text: &str) -> Result<Vec<String>, String> {
    let named = parted(text);
    if named.is_empty() {
        return Err("`brands` names no brand; leave it empty for the brands to stay as they are".to_owned());
    }
    Ok(named)
}

fn no_version() -> String {
    "`policies` must name policies with the version that was accepted, such as privacy=3;terms=1".to_owned()
}

/// Makes a person of a line of NDJSON.
pub(super) fn from_json(line: &[u8], extra: Extra) -> Result<Record, String> {
    let text = std::str::from_utf8(line).map_err(|_| "is not UTF-8".to_owned())?;
    // The parser's own words may repeat what stands in the line.
    let value: Value = serde_json::from_str(text)
        .map_err(|error| format!("is not JSON: look at column {} of the line", error.column()))?;
    let Value::Object(fields) = value else { return Err("is not a JSON object".to_owned()) };
    let mut raw = Raw::default();
    for (key, value) in fields {
        match key.as_str() {
            "email" => raw.email = text_of("email", value)?,
            "name" => raw.name = text_of("name", value)?.filter(|text| !text.is_empty()),
            "external_id" => raw.external_id = text_of("external_id", value)?.filter(|text| !text.is_empty()),
            "locale" => raw.locale = text_of("locale", value)?.filter(|text| !text.is_empty()),
            "tags" => raw.tags = texts_of("tags", value)?,
            "brands" if extra == Extra::Attributes => raw.brands = texts_of("brands", value)?,
            "policies" if extra == Extra::Attributes => match value {
                Value::Null => {}
                Value::Object(named) => raw.policies = named,
                _ => return Err("`policies` must be an object".to_owned()),
            },
            key if key == extra.field() => match value {
                Value::Null => {}
                Value::Object(named) => raw.extra = named,
                _ => return Err(format!("`{key}` must be an object")),
            },
            key => {
                let more = if extra == Extra::Attributes { "brands, policies, " } else { "" };
                return Err(format!(
                    "has the unknown field {}; use email, name, external_id, locale, tags, {more}{}",
                    check::shown(key),
                    extra.field()
                ));
            }
        }
    }
    raw.check(extra)
}

fn text_of(field: &str, value: Value) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        _ => Err(format!("`{field}` must be a string")),
    }
}

fn texts_of(field: &str, value: Value) -> Result<Option<Vec<String>>, String> {
    let wrong = || format!("`{field}` must be an array of strings");
    match value {
        Value::Null => Ok(None),
        Value::Array(items) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(text),
                _ => Err(wrong()),
            })
            .collect::<Result<_, _>>()
            .map(Some),
        _ => Err(wrong()),
    }
}

/// The fields of a line before they are checked.
#[derive(Default)]
struct Raw {
    email: Option<String>,
    name: Option<String>,
    external_id: Option<String>,
    locale: Option<String>,
    tags: Option<Vec<String>>,
    brands: Option<Vec<String>>,
    policies: Map<String, Value>,
    extra: Map<String, Value>,
}

impl Raw {
    fn check(self, extra: Extra) -> Result<Record, String> {
        let Some(email) = self.email else { return Err("has no email".to_owned()) };
        let email = EmailAddress::parse(&email).map_err(|error| format!("`email`: {error}"))?;
        let named = |field: &str, reason: String| format!("`{field}` {reason}");
        if let Some(name) = &self.name {
            check::line(name).map_err(|reason| named("name", reason))?;
        }
        if let Some(id) = &self.external_id {
            check::line(id).map_err(|reason| named("external_id", reason))?;
        }
        if let Some(locale) = &self.locale {
            check::locale(locale).map_err(|reason| named("locale", reason))?;
        }
        let tags = self.tags.map(check::each_once);
        if let Some(tags) = &tags {
            check::tags(tags).map_err(|reason| named("tags", reason))?;
        }
        let brands = self.brands.map(check::each_once);
        if brands.as_ref().is_some_and(|brands| brands.len() > check::MAX_BRANDS) {
            return Err(named("brands", format!("names more than {} brands", check::MAX_BRANDS)));
        }
        check::policies(&self.policies).map_err(|reason| named("policies", reason))?;
        check::attributes(&self.extra).map_err(|reason| named(extra.field(), reason))?;
        Ok(Record {
            email,
            name: self.name,
            external_id: self.external_id,
            locale: self.locale,
            tags,
            brands,
            policies: self.policies,
            extra: self.extra,
        })
    }
}
