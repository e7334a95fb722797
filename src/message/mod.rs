//! Messages: template, layout, text part, headers.
//!
//! A template is written by somebody else and frozen at a start ([`Frozen`]); [`Compiled`] is what a worker keeps of
//! it; [`compose`] makes the mail of one delivery out of it and is a pure function: the same input gives the same
//! octets, so every attempt hands over the same message. A message that can be refused cannot be built without its
//! unsubscribe link. Nothing here sends, and only `rows.rs` knows the database.

pub mod alignment;
pub mod api;
mod branches;
mod compose;
mod content;
mod dkim;
mod encoding;
mod error;
mod footing;
mod headers;
mod hiding;
mod html;
mod inline;
mod locale;
mod look;
mod nesting;
pub mod rows;
mod shapes;
mod template;
mod text_part;
mod warning;

pub use branches::{MAX_CONDITIONS, blocks_marked, branches, names};
pub use compose::{Addressee, Message, Prepared, Rendered, Sender, compose};
pub use content::{Compiled, Frozen, Partial};
pub use dkim::{DkimKeys, KeyError};
pub use error::{ComposeError, Part, TemplateError};
pub use warning::{Warning, WarningKind, warnings};
