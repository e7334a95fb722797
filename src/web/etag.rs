//! Answers that a caller may have already.

use axum::http::{HeaderMap, header};

/// Whether `If-None-Match` names this very tag (RFC 9110 §13.1.2).
pub fn has_it(asked: &HeaderMap, tag: &str) -> bool {
    let named = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    named
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}
