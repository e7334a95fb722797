//! Who calls the API: the holder of an API key, with a role and perhaps bound to one brand.

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Problem;
use super::client::client_of;
use crate::access;
use crate::app::App;
use crate::id::BrandId;
use crate::word::words;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Admin,
    /// The company's own system: recipients with standing and `customer_of`.
    Accounts,
    /// Recipients without those two, templates, campaigns on topics that can be refused.
    Marketer,
    /// Single messages of class requested and service.
    Sender,
    /// One person at a time: explain, opt-outs, opt-ins with evidence.
    Operator,
    /// Reads everything that is evidence.
    Auditor,
}

words! {
    Role, "role; use admin, accounts, marketer, sender, operator or auditor",
    Admin = "admin",
    Accounts = "accounts",
    Marketer = "marketer",
    Sender = "sender",
    Operator = "operator",
    Auditor = "auditor",
}

/// The holder of a key. An extractor: without a valid key the answer is 401, or 429 after many wrong ones.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who is recorded as having done it, such as `key:crm/1f2e3d4c5b` (name and prefix) or `cli`; one for each key.
    pub actor: String,
    /// What the key may do.
    pub role: Role,
    /// The one brand whose people it sees; every brand when none.
    pub brand: Option<BrandId>,
}

impl Caller {
    /// Lets only these roles, and admin, go on.
    ///
    /// # Errors
    /// 403 for every other role.
    pub fn must_be(&self, roles: &[Role]) -> Result<(), Problem> {
        if self.role == Role::Admin || roles.contains(&self.role) {
            return Ok(());
        }
        Err(Problem::forbidden(format!("A key of role {} may not do this.", self.role)))
    }

    /// Whether the key sees this brand. What it does not see is not there for it: answer 404, not 403.
    pub fn sees(&self, brand: BrandId) -> bool {
        self.brand.is_none_or(|own| own == brand)
    }

    /// Whether the key sees what belongs to no brand, or to all: one that is bound to a brand does not.
    pub fn sees_every_brand(&self) -> bool {
        self.brand.is_none()
    }

    /// Whose key `parts` carry.
    async fn of(parts: &Parts, app: &App) -> Result<Self, Problem> {
        let key = bearer(parts).ok_or_else(Problem::unauthorized)?;
        if let Some(admin) = &app.settings.admin_key
            && same(key, admin.expose_secret())
        {
            return Ok(Self { actor: "key:admin".to_owned(), role: Role::Admin, brand: None });
        }
        let Some(row) = access::rows::key_of(app.db.reads(), key).await? else {
            let wrong = app.guesses.wrong(client_of(&parts.extensions, &parts.headers, &app.settings), "key");
            return Err(wrong.map_or_else(Problem::too_many, |()| Problem::unauthorized()));
        };
        let role = row.role.parse().map_err(|_| {
            tracing::error!(key = %row.id, "the role of an API key is none that this program knows");
            Problem::unauthorized()
        })?;
        Ok(Self { actor: format!("key:{}/{}", row.name, row.prefix), role, brand: row.brand_id })
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        if let Some(known) = parts.extensions.get::<Self>() {
            return Ok(known.clone());
        }
        let caller = Self::of(parts, app).await?;
        parts.extensions.insert(caller.clone());
        Ok(caller)
    }
}

/// The key of `Authorization: Bearer KEY` (RFC 6750 §2.1).
fn bearer(parts: &Parts) -> Option<&str> {
    let (scheme, key) = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key)
}

/// Compares hashes in constant time, so that not even the length of the secret shows.
fn same(given: &str, secret: &str) -> bool {
    Sha256::digest(given).ct_eq(&Sha256::digest(secret)).into()
}
