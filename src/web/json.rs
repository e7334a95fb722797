//! JSON bodies: read strictly, with errors that point at the field.
//!
//! A wrong content type is 415, a body over the limit 413, what is not JSON 400 with line and column, and JSON of
//! another shape 422 with a pointer, and so is NUL anywhere in it, which no text of the database can hold. Bodies that
//! refuse what they do not know carry `#[serde(deny_unknown_fields)]`.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::{FieldError, Problem};

/// Longest JSON body in octets. Streamed uploads have no such limit.
pub const MAX_BODY: usize = 1024 * 1024;

/// A JSON body, as an extractor and as an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(pub T);

/// A JSON body that may be absent together with its content type, or null; then it is the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct OptionalJson<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Err(error) => {
                tracing::error!(%error, "an answer could not be written as JSON");
                Problem::internal().into_response()
            }
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        must_be_json(request.headers())?;
        read(&body(request, state).await?).map(Self)
    }
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let typed = must_be_json(request.headers());
        let body = body(request, state).await?;
        if body.is_empty() {
            return Ok(Self::default());
        }
        typed?;
        if body.trim_ascii() == b"null" {
            return Ok(Self::default());
        }
        read(&body).map(Self)
    }
}

/// Reads JSON text that was taken from a request by other means.
///
/// # Errors
/// 400 when it is not JSON, 422 when it is of another shape.
pub fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    // Elsewhere an array of values in the right order would pass for an object.
    if text.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::field("", "must be an object"));
    }
    // JSON writes NUL in no other way.
    if text.windows(6).any(|six| six == br"\u0000")
        && let Ok(value) = serde_json::from_slice(text)
        && let Some(pointer) = nul_in(&value)
    {
        return Err(Problem::field(&pointer, "must not hold NUL"));
    }
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let pointer = pointer(error.path());
        shape_problem(pointer, error.inner())
    })?;
    json.end().map_err(|error| shape_problem(String::new(), &error))?;
    Ok(value)
}

/// The whole body, up to the limit.
pub(super) async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Problem::too_large(MAX_BODY)
        } else {
            Problem::malformed("The body ended before it was whole.")
        }
    })
}

/// What the body says it is, in lower case and without parameters; empty when it says nothing.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    given.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// A whole number, also where it is written with a fraction of nought, as JSON Schema takes it (`613.0`).
///
/// # Errors
/// Whatever is no whole number from 0 to 4,294,967,295.
pub fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let number = serde_json::Number::deserialize(from)?;
    let rounded =
        number.as_f64().filter(|number| number.fract() == 0.0 && (0.0..=4_294_967_295.0).contains(number));
    let whole =
        number.as_u64().or(rounded.map(|number| number as u64)).and_then(|number| u32::try_from(number).ok());
    whole
        .ok_or_else(|| serde::de::Error::custom(format!("{number} is no whole number that can be used here")))
}

/// The same for a field that may be absent or null.
///
/// # Errors
/// As [`whole`].
pub fn whole_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    #[derive(Deserialize)]
    struct Whole(#[serde(deserialize_with = "whole")] u32);
    Ok(Option::<Whole>::deserialize(from)?.map(|Whole(number)| number))
}

/// The same for a list of them, which may be absent or null.
///
/// # Errors
/// As [`whole`].
pub fn wholes_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u32>>, D::Error> {
    #[derive(Deserialize)]
    struct Whole(#[serde(deserialize_with = "whole")] u32);
    let list = Option::<Vec<Whole>>::deserialize(from)?;
    Ok(list.map(|list| list.into_iter().map(|Whole(number)| number).collect()))
}

/// For `deserialize_with` beside `default`: tells a field that is there, null included, from one that is absent.
///
/// # Errors
/// Those of `T`.
pub fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

fn must_be_json(headers: &HeaderMap) -> Result<(), Problem> {
    let given = media_type(headers);
    let json = given == "application/json" || (given.starts_with("application/") && given.ends_with("+json"));
    if json { Ok(()) } else { Err(Problem::unsupported("application/json")) }
}

fn shape_problem(mut pointer: String, error: &serde_json::Error) -> Problem {
    if !error.is_data() {
        // The text of a syntax error names line and column.
        return Problem::malformed(format!("The body is not JSON: {error}."));
    }
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let reason = text.strip_suffix(&place).unwrap_or(&text);
    let (name, reason) = named_field(reason);
    if let Some(name) = name {
        let step = format!("/{}", escaped(name));
        if !pointer.ends_with(&step) || reason == MISSING {
            pointer.push_str(&step);
        }
    }
    Problem::fields(vec![FieldError { pointer, reason }])
}

/// The pointer to the first string that holds NUL, or to the object one of whose keys does.
fn nul_in(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(n, item)| Some(format!("/{n}{}", nul_in(item)?)))
        }
        Value::Object(fields) if fields.keys().any(|key| key.contains('\0')) => Some(String::new()),
        Value::Object(fields) => {
            fields.iter().find_map(|(key, value)| Some(format!("/{}{}", escaped(key), nul_in(value)?)))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

const MISSING: &str = "is missing";

/// The field that the error of a derived `Deserialize` is about, when it names one, and the reason in our words.
fn named_field(reason: &str) -> (Option<&str>, String) {
    if let Some(rest) = reason.strip_prefix("missing field `")
        && let Some(end) = rest.find('`')
    {
        return (Some(&rest[..end]), MISSING.to_owned());
    }
    if let Some(rest) = reason.strip_prefix("unknown field `")
        && let Some(end) = rest.find('`')
    {
        let known = rest[end..].trim_start_matches(['`', ',', ' ']);
        return (Some(&rest[..end]), format!("is not known here; {known}"));
    }
    if let Some(rest) = reason.strip_prefix("unknown variant `")
        && let Some((word, known)) = rest.split_once("`, expected ")
    {
        return (None, format!("{word:?} is not known here; use {}", known.replace('`', "")));
    }
    (None, plainly(reason))
}

/// A reason of a parser's without the names of the program's own types.
pub(super) fn plainly(reason: &str) -> String {
    if reason.contains("UUID parsing failed") {
        return "is no id: copy it as it was given, 36 letters, digits and hyphens".to_owned();
    }
    if reason.contains("invalid digit found in string") || reason.contains("number too ") {
        return "must be a whole number that is not too large".to_owned();
    }
    match reason.split_once("expected ") {
        Some((found, "i64" | "i32" | "u64" | "u32" | "u16" | "u8" | "usize")) => {
            format!("{found}expected a whole number")
        }
        Some((found, named)) if named.starts_with("struct ") => format!("{found}expected an object"),
        _ => reason.to_owned(),
    }
}

/// The JSON pointer (RFC 6901) of a path.
fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&format!("/{}", escaped(key))),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read into")]
    struct Outer {
        name: String,
        #[serde(default)]
        to: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read into")]
    struct Inner {
        email: String,
    }

    fn refused(text: &str) -> (u16, String, String) {
        let problem = read::<Outer>(text.as_bytes()).unwrap_err();
        let field = problem.errors.first().cloned();
        (
            problem.status,
            field.as_ref().map(|f| f.pointer.clone()).unwrap_or_default(),
            field.map(|f| f.reason).unwrap_or(problem.detail),
        )
    }

    #[test]
    fn reasons_name_nothing_of_the_programs_own() {
        for (said, plain) in [
            (
                "invalid type: string \"x\", expected i64",
                "invalid type: string \"x\", expected a whole number",
            ),
            (
                "invalid type: integer `1`, expected struct Body",
                "invalid type: integer `1`, expected an object",
            ),
            (
                "UUID parsing failed: invalid character: found `x` at 0",
                "is no id: copy it as it was given, 36 letters, digits and hyphens",
            ),
            ("invalid digit found in string", "must be a whole number that is not too large"),
            ("invalid type: null, expected a string", "invalid type: null, expected a string"),
        ] {
            assert_eq!(plainly(said), plain);
        }
    }

    #[test]
    fn a_wrong_field_is_named_by_its_pointer() {
        assert_eq!(refused("{}"), (422, "/name".into(), "is missing".into()));
        assert_eq!(
            refused(r#"{"name":"n","to":[{"email":"e"},{}]}"#),
            (422, "/to/1/email".into(), "is missing".into())
        );
        let (status, pointer, reason) = refused(r#"{"name":"n","to":[{"email":"e","cc/bcc":1}]}"#);
        assert_eq!((status, pointer.as_str()), (422, "/to/0/cc~1bcc"));
        assert!(reason.starts_with("is not known here; expected `email`"), "{reason}");
        let (status, pointer, reason) = refused(r#"{"nome":"n"}"#);
        assert_eq!((status, pointer.as_str()), (422, "/nome"));
        assert!(reason.contains("`name`"), "{reason}");
        let (status, pointer, reason) = refused(r#"{"name":7}"#);
        assert_eq!((status, pointer.as_str()), (422, "/name"));
        assert!(reason.contains("expected a string"), "{reason}");
    }

    #[test]
    fn a_word_that_is_none_is_named_with_those_that_are() {
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum By {
            Letter,
            Phone,
            InPerson,
        }
        #[derive(Debug, Deserialize)]
        struct Told {
            by: By,
        }
        assert!(matches!(read::<Told>(br#"{"by":"phone"}"#).map(|told| told.by), Ok(By::Phone)));
        let problem = read::<Told>(br#"{"by":"fax"}"#).unwrap_err();
        let expected = FieldError {
            pointer: "/by".into(),
            reason: "\"fax\" is not known here; use one of letter, phone, in_person".into(),
        };
        assert_eq!(problem.errors, [expected]);
    }

    #[test]
    fn nul_is_refused_wherever_it_stands() {
        for (text, pointer) in [
            (r#"{"name":"a\u0000b"}"#, "/name"),
            (r#"{"name":"n","to":[{"email":"e"},{"email":"\u0000"}]}"#, "/to/1/email"),
            (r#"{"name":"n","to":[{"e\u0000":1}]}"#, "/to/0"),
            (r#"{"name":"n","a/b":"\u0000"}"#, "/a~1b"),
        ] {
            assert_eq!(refused(text), (422, pointer.into(), "must not hold NUL".into()), "{text}");
        }
        assert_eq!(read::<Outer>(br#"{"name":"a\\u0000b"}"#).unwrap().name, r"a\u0000b");
    }

    #[test]
    fn an_array_is_no_object_and_no_word_of_the_program_shows() {
        assert_eq!(refused(r#"["n"]"#), (422, String::new(), "must be an object".into()));
        let (status, pointer, reason) = refused(r#"{"name":"n","to":["ann"]}"#);
        assert_eq!((status, pointer.as_str()), (422, "/to/0"));
        assert!(reason.ends_with("expected an object"), "{reason}");
    }

    #[test]
    fn what_is_not_json_is_refused_with_line_and_column() {
        let (status, _, detail) = refused("{\"name\":\n}");
        assert_eq!(status, 400);
        assert!(detail.contains("line 2 column 1"), "{detail}");
        assert_eq!(refused("").0, 400);
        assert_eq!(refused(r#"{"name":"n"} x"#).0, 400);
        assert_eq!(refused(&"[".repeat(1000)).0, 422);
    }
}
