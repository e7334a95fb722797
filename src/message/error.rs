//! What can be wrong with a template, and with one message made from it.

use std::fmt;

/// A part of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The subject.
    Subject,
    /// The HTML part.
    Html,
    /// The text part.
    Text,
}

impl Part {
    /// The word used in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Html => "html",
            Self::Text => "text",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {part} of template {template}, line {line}, column {column}: {reason}")]
pub struct TemplateError {
    /// The slug of the template.
    pub template: String,
    /// Which part of it.
    pub part: Part,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong and what to do.
    pub reason: String,
}

impl TemplateError {
    pub(super) fn new(template: &str, part: Part, flaw: super::template::Flaw) -> Self {
        let super::template::Flaw { line, column, reason } = flaw;
        Self { template: template.to_owned(), part, line, column, reason }
    }
}

/// Why the message of one delivery cannot be made. Trying again without a change gives the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// The template names something that is not there.
    #[error("{name} is not there; give it, or ask with {{{{#if {name}}}}}")]
    Variable {
        /// Its name as the template spells it.
        name: String,
    },
    /// Rendering failed in another way.
    #[error("the template cannot be rendered: {0}")]
    Render(String),
    /// A part is over its bound.
    #[error("the {part} is longer than {limit} octets")]
    TooLong {
        /// Which part.
        part: Part,
        /// The bound in octets.
        limit: usize,
    },
    /// The template does more than a message may cost.
    #[error("the template loops over too much; a message may take {0} steps")]
    TooMuchWork(usize),
    /// Something in the HTML part that is not closed hides what follows it, the unsubscribe link too.
    #[error("the HTML part hides its end, and with it the unsubscribe link; close its elements and comments")]
    Hidden,
    /// The brand lacks what its mail must carry.
    #[error("the brand's {field} cannot be used: {reason}")]
    Brand {
        /// The field of the brand.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The mail could not be put together.
    #[error("the message cannot be built: {0}")]
    Build(String),
}
