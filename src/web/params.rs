//! Path and query parameters. What is wrong with a query is 422 and named; a path that cannot be read leads nowhere: 404.
//! NUL is wrong in both: no text of the database can hold it.

use axum::extract::FromRequestParts;
use axum::http::Uri;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::json::plainly;
use super::{FieldError, Problem};

/// The query parameters. `limit` and `after` of a list are read by [`Paging`](super::Paging) instead.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<T>(pub T);

/// The path parameters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        query(&parts.uri).map(Self)
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if parts.uri.path().contains("%00") {
            return Err(Problem::not_found("thing"));
        }
        let path = <axum::extract::Path<T> as FromRequestParts<S>>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|_| Problem::not_found("thing"))
    }
}

/// Reads the query of `uri`.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    let given = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    for (name, value) in given {
        if name.contains('\0') || value.contains('\0') {
            return Err(Problem::field(&name.replace('\0', ""), "must not hold NUL"));
        }
    }
    axum::extract::Query::try_from_uri(uri).map(|query| query.0).map_err(|rejection| {
        let (pointer, reason) = name_and_reason(&rejection);
        Problem::fields(vec![FieldError { pointer, reason }])
    })
}

fn name_and_reason(rejection: &(dyn std::error::Error + 'static)) -> (String, String) {
    let mut cause = Some(rejection);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<serde_path_to_error::Error<serde::de::value::Error>>() {
            let reason = error.inner().to_string();
            if let Some(name) = reason.strip_prefix("missing field `").and_then(|rest| rest.split('`').next())
            {
                return (name.to_owned(), "is missing".to_owned());
            }
            let path = error.path().to_string();
            return (if path == "." { String::new() } else { path }, plainly(&reason));
        }
        cause = error.source();
    }
    (String::new(), "The query cannot be read.".to_owned())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read into")]
    struct Asked {
        email: String,
        n: Option<u8>,
    }

    #[test]
    fn a_wrong_query_parameter_is_named() {
        let named = |uri: &'static str| {
            let problem = query::<Asked>(&Uri::from_static(uri)).unwrap_err();
            (problem.status, problem.errors[0].pointer.clone())
        };
        assert_eq!(named("/x"), (422, "email".into()));
        assert_eq!(named("/x?email=a&n=300"), (422, "n".into()));
        assert_eq!(named("/x?email=a&m=3"), (422, "m".into()));
        assert_eq!(named("/x?email=a%00"), (422, "email".into()));
        assert!(query::<Asked>(&Uri::from_static("/x?email=a%40b&n=3")).is_ok());
    }
}
