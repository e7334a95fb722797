//! The web service: router, OpenAPI, problems, callers, idempotency, pages, health.

pub mod caller;
pub mod problem;

pub use caller::{Caller, Role};
pub use problem::{FieldError, Problem};
