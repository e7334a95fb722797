//! An HTTP client of the API that speaks JSON and fails the test with the whole answer in view.

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::Value;

/// A caller: where Tidings is and with which key to ask. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    client: reqwest::Client,
    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub(crate) base: String,
    key: Option<String>,
}

impl Api {
    pub(crate) fn new(base: impl Into<String>, key: Option<&str>) -> Self {
        let direct = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let client = direct.build().unwrap();
        Self { client, base: base.into(), key: key.map(str::to_owned) }
    }

    /// The same place with another key.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    /// The same place without a key.
    pub(crate) fn anonymous(&self) -> Self {
        Self { key: None, ..self.clone() }
    }

    /// A request to be finished and sent by hand: `path` as on the server, or a whole URL.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.base) };
        let request = self.client.request(method, url);
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// The same for a call of the management API: `/brands/b` stands for `/api/v1/brands/b`.
    pub(crate) fn call(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.request(method, &api(path))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, &api(path))).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, &api(path))).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::POST, &api(path)).json(&body)).await
    }

    /// A POST without body and Content-Type.
    pub(crate) async fn post_empty(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::POST, &api(path))).await
    }

    /// A POST of a text of this type, such as `text/csv`.
    pub(crate) async fn post_text(&self, path: &str, kind: &str, body: impl Into<reqwest::Body>) -> Answer {
        Answer::of(self.request(Method::POST, &api(path)).header("content-type", kind).body(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::PUT, &api(path)).json(&body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::PATCH, &api(path)).json(&body)).await
    }

    /// A page outside the API: a path such as `/u/…`, or a whole URL.
    pub(crate) async fn page(&self, path: &str) -> Answer {
        Answer::of(self.anonymous().request(Method::GET, path)).await
    }

    /// A form sent to a page, urlencoded as browsers do.
    pub(crate) async fn submit(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let body: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.anonymous().request(Method::POST, path);
        Answer::of(request.header("content-type", "application/x-www-form-urlencoded").body(body)).await
    }

    /// What a mailbox provider does when its user clicks unsubscribe (RFC 8058).
    pub(crate) async fn one_click(&self, url: &str) -> Answer {
        self.submit(url, &[("List-Unsubscribe", "One-Click")]).await
    }
}

/// `/brands/b` stands for `/api/v1/brands/b`.
fn api(path: &str) -> String {
    if path.starts_with("http") { path.to_owned() } else { format!("/api/v1{path}") }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Self { status, headers, text: response.text().await.unwrap() }
    }

    /// As [`Answer::of`]; none when there was no answer.
    pub(crate) async fn attempt(request: reqwest::RequestBuilder) -> Option<Self> {
        let response = request.send().await.ok()?;
        let (status, headers) = (response.status(), response.headers().clone());
        Some(Self { status, headers, text: response.text().await.ok()? })
    }

    /// The body as JSON, whatever the status.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// Asserts any success; gives the body, null when it is empty.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// Asserts this very status; gives itself.
    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    /// Asserts a problem (RFC 9457) of this status; gives it.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> Value {
        self.is(status);
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        let problem = self.json();
        assert!(problem["type"].is_string() && problem["title"].is_string(), "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        problem
    }

    /// Asserts a 422 that names this field; gives its reason.
    #[track_caller]
    pub(crate) fn refuses(&self, pointer: &str) -> String {
        let problem = self.problem(422);
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        let found = errors.iter().find(|error| error["pointer"] == pointer);
        let reason = found.and_then(|error| error["reason"].as_str());
        reason.unwrap_or_else(|| panic!("{pointer} is not named: {problem}")).to_owned()
    }

    /// A header, empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The id in the body of a success.
    #[track_caller]
    pub(crate) fn id(&self) -> String {
        self.ok()["id"].as_str().unwrap_or_else(|| panic!("no id: {}", self.text)).to_owned()
    }
}
