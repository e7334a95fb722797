//! Whom an audience means, asked of the database.
//!
//! The same as [`Audience::matches`], which says it for one person in memory. People are read in the order of their ids,
//! each once: a condition decides about those read and is looked up in no index of its own.

use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement, Value};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::id::{BrandId, RecipientId};
use crate::recipient::Audience;
use crate::recipient::filter::Conditions;

/// A query of people, to stand in another statement: its columns are `id` and `address_hash`. Its values are bound first,
/// from `$1` on.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The query.
    pub sql: String,
    /// Its values.
    pub values: Vec<Value>,
}

/// The last of the next `size` people after `after`, of whatever brand; none when there are fewer.
///
/// # Errors
/// The database's own.
pub async fn end_of_step(
    on: &impl ConnectionTrait,
    after: Option<RecipientId>,
    size: u64,
) -> Result<Option<RecipientId>, DbErr> {
    let sql = format!(
        "SELECT id FROM recipients WHERE id > $1 ORDER BY id LIMIT 1 OFFSET {}",
        size.saturating_sub(1)
    );
    let values = [from(after).into()];
    let row =
        on.query_one_raw(Statement::from_sql_and_values(on.get_database_backend(), sql, values)).await?;
    row.map(|row| row.try_get("", "id")).transpose()
}

/// The brand's people whom the audience means, with ids after `after` and up to `upto`; the erased are left out.
pub fn meant(
    backend: DbBackend,
    audience: &Audience,
    brand: BrandId,
    after: Option<RecipientId>,
    upto: Option<RecipientId>,
) -> Selection {
    let upto = upto.map_or(Uuid::max(), |upto| upto.0);
    let mut asked = Asked { backend, values: vec![from(after).into(), upto.into(), brand.0.into()] };
    let conditions = match audience {
        Audience::All => Vec::new(),
        Audience::Those(conditions) => asked.conditions(conditions),
    };
    // The ties are bounded as the people are: no step reads those of all.
    let mut sql = "SELECT r.id, r.address_hash FROM recipients r LEFT JOIN recipient_brands b \
        ON b.brand_id = $3 AND b.recipient_id = r.id AND b.recipient_id > $1 AND b.recipient_id <= $2 \
        WHERE r.id > $1 AND r.id <= $2 AND r.standing <> 'erased' AND (r.every_brand OR b.belongs)"
        .to_owned();
    for condition in conditions {
        sql += " AND ";
        sql += &condition;
    }
    Selection { sql, values: asked.values }
}

pub(super) fn from(after: Option<RecipientId>) -> Uuid {
    after.map_or(Uuid::nil(), |after| after.0)
}

/// Conditions becoming SQL about the person `r` and the tie to the brand `b`.
struct Asked {
    backend: DbBackend,
    values: Vec<Value>,
}

impl Asked {
    fn bind(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    fn conditions(&mut self, those: &Conditions) -> Vec<String> {
        let Conditions { tags, locale, customer, attributes } = those;
        let mut all = Vec::new();
        if let Some(customer) = customer {
            all.push(if *customer { "b.customer" } else { "COALESCE(NOT b.customer, TRUE)" }.to_owned());
        }
        if let Some(tags) = tags {
            let tags: Vec<String> = tags.iter().map(|tag| self.bind(tag.as_str())).collect();
            all.push(if self.backend == DbBackend::Postgres {
                format!("r.tags ?| CAST(ARRAY[{}] AS text[])", tags.join(", "))
            } else {
                format!("EXISTS (SELECT 1 FROM json_each(r.tags) t WHERE t.value IN ({}))", tags.join(", "))
            });
        }
        if let Some(locale) = locale {
            // RFC 4647 §3.3.1, with `_` read as `-`; what is stored is ASCII.
            let range = self.bind(format!("{}-", locale.replace('_', "-").to_ascii_lowercase()));
            let plain =
                if self.backend == DbBackend::Postgres { "r.locale COLLATE \"C\"" } else { "r.locale" };
            all.push(format!(
                "substr(replace(lower({plain}), '_', '-') || '-', 1, length({range})) = {range}"
            ));
        }
        for (key, value) in attributes.iter().flatten() {
            let key = self.bind(key.as_str());
            all.push(self.attribute(&key, value));
        }
        all
    }

    /// Whether the attribute of this key is this value. 1 is 1.0 and no other things of two kinds are the same.
    fn attribute(&mut self, key: &str, want: &Json) -> String {
        if self.backend == DbBackend::Postgres {
            let want = self.bind(want.to_string());
            return format!("r.attributes -> CAST({key} AS text) = CAST({want} AS jsonb)");
        }
        let same = match want {
            Json::Null => "a.type = 'null'".to_owned(),
            Json::Bool(want) => format!("a.type = '{want}'"),
            Json::String(want) => format!("a.type = 'text' AND a.value = {}", self.bind(want.as_str())),
            Json::Number(want) => {
                let want = match want.as_i64() {
                    Some(whole) => self.bind(whole),
                    None => self.bind(want.as_f64()),
                };
                format!("a.type IN ('integer', 'real') AND a.value = {want}")
            }
            Json::Array(_) | Json::Object(_) => {
                let kind = if want.is_array() { "array" } else { "object" };
                let want = self.bind(want.to_string());
                let nodes = |of: &str| {
                    format!("SELECT fullkey, replace(type, 'real', 'integer'), atom FROM json_tree({of})")
                };
                let (is, want) = (nodes("a.value"), nodes(&want));
                format!(
                    "a.type = '{kind}' AND NOT EXISTS ({is} EXCEPT {want}) AND NOT EXISTS ({want} EXCEPT {is})"
                )
            }
        };
        format!("EXISTS (SELECT 1 FROM json_each(r.attributes) a WHERE a.key = {key} AND {same})")
    }
}
