//! The web service: router, OpenAPI, problems, callers, idempotency, pages, health.

pub mod caller;
pub mod check;
pub mod client;
mod etag;
mod health;
mod idempotency;
mod json;
mod layers;
pub mod link_page;
mod list;
mod openapi;
pub mod page;
mod params;
pub mod problem;
mod roles;
pub mod router;
mod upload;

pub use caller::{Caller, Role};
pub use etag::has_it;
pub use idempotency::NewId;
pub use json::{Json, MAX_BODY, OptionalJson, given, read, whole, whole_or_none, wholes_or_none};
pub use list::{List, Paging};
pub use params::{Path, Query};
pub use problem::{FieldError, Problem};
pub use upload::Upload;
