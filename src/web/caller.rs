//! Who calls the API: the holder of an API key, with a role and perhaps bound to one brand.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Problem;
use crate::decision::UnknownWord;
use crate::id::BrandId;

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

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] =
        [Self::Admin, Self::Accounts, Self::Marketer, Self::Sender, Self::Operator, Self::Auditor];

    /// The word used in the API and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Accounts => "accounts",
            Self::Marketer => "marketer",
            Self::Sender => "sender",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Role {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| {
            UnknownWord(format!(
                "{text:?} is no role; use admin, accounts, marketer, sender, operator or auditor"
            ))
        })
    }
}

/// The holder of a key. An extractor: without a valid key the answer is 401.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who is recorded as having done it, such as `key:crm` or `cli`.
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
}
