//! The OpenAPI document, made from the code, with what is alike in every operation added here.

use serde_json::{Map, Value, json};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa::{PartialSchema, ToSchema};

use super::{FieldError, Problem, roles};

const ABOUT: &str = "Sends the mail that people must get and stops the mail that people refuse.\n\n\
    Times are RFC 3339 in UTC, ids opaque strings. Errors are RFC 9457 problems with a stable `type`. \
    Lists are `{items, next}`, paged by `?limit=&after=`.";

/// What fields may hold: kinds, and which field of which schema is of which.
const FIELDS: &str = include_str!("openapi/fields.json");

/// What the operations are added to.
pub(super) fn frame() -> OpenApi {
    let components = ComponentsBuilder::new()
        .schema(Problem::name(), Problem::schema())
        .schema(FieldError::name(), FieldError::schema())
        .security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)))
        .build();
    let info = InfoBuilder::new()
        .title("Tidings")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .build();
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// The document as it is served: with the server, the key that every operation needs, and the problems that every
/// operation may answer.
pub(super) fn finished(openapi: &OpenApi, server: &str) -> Value {
    let mut document = serde_json::to_value(openapi).unwrap_or_default();
    document["info"]["license"] =
        json!({ "name": "MIT or Apache-2.0", "identifier": env!("CARGO_PKG_LICENSE") });
    document["servers"] = json!([{ "url": server }]);
    document["security"] = json!([{ "bearer": [] }]);
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    for (path, item) in paths.into_iter().flatten() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            if let Some(operation) = operation.as_object_mut() {
                complete(path, method, operation);
            }
        }
    }
    bound(&mut document);
    leave_out_unused(&mut document);
    document
}

/// Says of each field what it may hold, as far as a schema can: the limits that the handlers keep.
fn bound(document: &mut Value) {
    let limits: Value = serde_json::from_str(FIELDS).unwrap_or_default();
    let lay = |kind: &Value, over: Option<&mut Value>| {
        let kind = kind.as_str().and_then(|kind| limits["kinds"][kind].as_object());
        if let (Some(kind), Some(over)) = (kind, over.and_then(Value::as_object_mut)) {
            over.extend(kind.clone());
        }
    };
    for (schema, fields) in limits["schemas"].as_object().into_iter().flatten() {
        for (path, kind) in fields.as_object().into_iter().flatten() {
            lay(kind, document.pointer_mut(&format!("/components/schemas/{schema}/{path}")));
        }
    }
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    let operations = paths.into_iter().flatten().filter_map(|(_, item)| item.as_object_mut()).flatten();
    for (_, operation) in operations {
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        for parameter in parameters.into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap_or_default().to_owned();
            lay(&limits["parameters"][name], parameter.get_mut("schema"));
        }
    }
}

/// Takes out the schemas that nothing refers to: those of lists' items stand in the lists.
fn leave_out_unused(document: &mut Value) {
    loop {
        let text = document.to_string();
        let schemas = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut);
        let Some(schemas) = schemas else { return };
        let before = schemas.len();
        schemas.retain(|name, _| text.contains(&format!("\"#/components/schemas/{name}\"")));
        if schemas.len() == before {
            return;
        }
    }
}

fn complete(path: &str, method: &str, operation: &mut Map<String, Value>) {
    operation.insert("operationId".to_owned(), operation_id(path, method).into());
    let may = roles::of(method, path);
    let text = operation.get("description").and_then(Value::as_str).unwrap_or_default();
    let text = format!("{text}\n\nRoles: {}.", may.join(", "));
    operation.insert("description".to_owned(), text.trim().into());
    operation.insert("x-roles".to_owned(), json!(may));
    let takes_json =
        operation.get("requestBody").and_then(|body| body.pointer("/content/application~1json")).is_some();
    let has_body = operation.contains_key("requestBody");
    if method == "post" && (takes_json || !has_body) {
        let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
        if let Some(parameters) = parameters.as_array_mut() {
            parameters.push(json!({
                "name": "Idempotency-Key",
                "in": "header",
                "required": false,
                "description": "Kept 24 hours per API key and path: the same body gets the first answer again, another \
                                body 422, a call while the first runs 409.",
                "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" },
            }));
        }
    }
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    let Some(responses) = responses.as_object_mut() else { return };
    let mut may = vec![
        ("401", "No API key, or none that counts."),
        ("403", "The key's role may not do this."),
        ("422", "Fields that cannot be used; `errors` names them."),
        ("429", "Too many wrong keys came from this address; `Retry-After` says when the next is looked at."),
        ("503", "The database did not commit; try again."),
    ];
    if path.contains('{') {
        may.push(("404", "There is no such thing, or the key does not see it."));
    }
    if has_body {
        may.push(("400", "The body cannot be read."));
        may.push(("413", "The body is over the limit."));
        may.push(("415", "The content type cannot be used."));
    }
    if method == "post" {
        may.push(("409", "Not possible in this state."));
    }
    for (status, description) in may {
        let response = responses.entry(status).or_insert_with(|| json!({ "description": description }));
        if let Some(response) = response.as_object_mut() {
            response.insert("content".to_owned(), problem_content());
        }
    }
    for (status, response) in responses.iter_mut() {
        if response.get("description").is_none_or(|text| text.as_str() == Some("")) {
            response["description"] = default_description(status).into();
        }
        if status.starts_with('4') || status.starts_with('5') {
            response["content"] = problem_content();
        }
    }
}

/// What OpenAPI asks to be said of every answer, where the code says nothing.
fn default_description(status: &str) -> &'static str {
    match status {
        "404" => "There is no such thing, or the key does not see it.",
        "422" => "Fields that cannot be used; `errors` names them.",
        _ if status.starts_with('2') => "Done as asked.",
        _ => "It cannot be done.",
    }
}

/// Such as `post_campaigns_id_start`: one for each operation, whatever the handlers are called.
fn operation_id(path: &str, method: &str) -> String {
    let path = path.trim_start_matches("/api/v1").replace(['{', '}'], "").replace(['/', '-'], "_");
    format!("{method}{path}")
}

fn problem_content() -> Value {
    json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } })
}
