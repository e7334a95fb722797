//! `Idempotency-Key`: a POST that is sent again makes nothing again.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use uuid::Uuid;

/// The id that what this request makes must bear. It is the same again when a call with an `Idempotency-Key` is repeated
/// after a crash: a handler that finds it taken has made it before and gives that one back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewId(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for NewId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or_else(|| Self(Uuid::now_v7())))
    }
}
