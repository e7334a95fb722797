//! Lists: `{items, next}`, paged by `?limit=&after=` with opaque cursors.
//!
//! A cursor holds the key of the last item shown, so a page neither repeats nor skips what was there before it.

use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::{Problem, params};

/// Items on a page when `limit` is absent.
const DEFAULT_LIMIT: u64 = 50;
/// Most items on a page.
const MAX_LIMIT: u64 = 500;
/// Longest cursor read, in characters.
const MAX_CURSOR: usize = 512;

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct List<T> {
    /// What is on this page.
    pub items: Vec<T>,
    /// Give it as `after` to get the next page; null on the last one.
    pub next: Option<String>,
}

impl<T> List<T> {
    /// The page that `rows` make, which were read with `LIMIT` [`Paging::fetch`]: one more than is shown tells whether
    /// there is a next page. `key` is what the next page begins after.
    pub fn page<R>(
        mut rows: Vec<R>,
        paging: &Paging,
        key: impl Fn(&R) -> String,
        show: impl FnMut(R) -> T,
    ) -> Self {
        let shown = usize::try_from(paging.limit).unwrap_or(usize::MAX);
        let more = rows.len() > shown;
        rows.truncate(shown);
        let next = rows.last().filter(|_| more).map(|row| URL_SAFE_NO_PAD.encode(key(row)));
        Self { items: rows.into_iter().map(show).collect(), next }
    }
}

/// Which page of a list is asked for. An extractor that reads `limit` and `after` of the query; name it in `params(Paging)`
/// for OpenAPI.
#[derive(Clone, Debug, PartialEq, Eq, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// Most items on the page: 1 to 500, 50 when absent.
    #[param(minimum = 1, maximum = 500, default = 50, required = false)]
    pub limit: u64,
    /// The `next` of the page before; absent for the first page.
    pub after: Option<String>,
}

impl Default for Paging {
    fn default() -> Self {
        Self { limit: DEFAULT_LIMIT, after: None }
    }
}

impl Paging {
    /// How many rows to read: one more than is shown.
    pub fn fetch(&self) -> u64 {
        self.limit + 1
    }

    /// The key that the page begins after; none for the first page.
    ///
    /// # Errors
    /// 422 when `after` is no cursor of such a list.
    pub fn after_key<K: FromStr>(&self) -> Result<Option<K>, Problem> {
        let wrong = || Problem::field("after", "is no cursor of this list; give the `next` of a page of it");
        let Some(cursor) = &self.after else { return Ok(None) };
        if cursor.len() > MAX_CURSOR {
            return Err(wrong());
        }
        let key = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| wrong())?;
        let key = String::from_utf8(key).map_err(|_| wrong())?;
        if key.contains('\0') {
            return Err(wrong());
        }
        key.parse().map(Some).map_err(|_| wrong())
    }
}

#[derive(Deserialize)]
struct Asked {
    limit: Option<u64>,
    after: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Paging {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Asked { limit, after } = params::query(&parts.uri)?;
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Problem::field("limit", format!("must be 1 to {MAX_LIMIT}")));
        }
        Ok(Self { limit, after: after.filter(|cursor| !cursor.is_empty()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_the_next_one_only_when_there_is_more() {
        let paging = Paging { limit: 2, after: None };
        let list = List::page(vec![1, 2, 3], &paging, ToString::to_string, |n| n * 10);
        assert_eq!(list.items, [10, 20]);
        let next = Paging { limit: 2, after: list.next };
        assert_eq!(next.after_key::<u32>().unwrap(), Some(2));
        assert_eq!(List::page(vec![3], &next, ToString::to_string, |n| n).next, None);
        assert!(Paging { limit: 2, after: Some("!".into()) }.after_key::<u32>().is_err());
        let nul = URL_SAFE_NO_PAD.encode("a\0");
        assert!(Paging { limit: 2, after: Some(nul) }.after_key::<String>().is_err());
    }
}
