//! The web service: router, OpenAPI, problems, callers, idempotency, pages, health.

pub mod caller;
mod colour;
pub mod page;
pub mod problem;

pub use caller::{Caller, Role};
pub use problem::{FieldError, Problem};
