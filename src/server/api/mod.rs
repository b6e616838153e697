//! Descriptions of the interface: `openapi.json` describes all paths, and `asyncapi.json` the
//! messages of a stream. `GET` of these names answers with them.
//!
//! The file `openapi.json` has the GET or POST of each path. This module adds what follows from the
//! list of routes: HEAD, OPTIONS, and the answers that every request can get. It copies the schemas
//! of events into `asyncapi.json`.

use actix_web::{
    HttpResponse,
    http::{Method, header},
    web,
};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::config::Mode;

/// Both documents, encoded.
#[derive(Debug)]
pub(super) struct Documents {
    openapi: Bytes,
    asyncapi: Bytes,
}

/// Answers that every request can get: the status, and the name in `components.responses`.
const COMMON_RESPONSES: &[(&str, &str)] = &[
    ("400", "BadRequest"),
    ("405", "MethodNotAllowed"),
    ("414", "UriTooLong"),
    ("431", "HeadersTooLarge"),
];
/// Answer that every request to `dev` can get.
const COMMON_RESPONSE_OF_DEV: (&str, &str) = ("421", "Misdirected");

/// Schemas in `openapi.json` that `asyncapi.json` refers to.
const SHARED_SCHEMAS: [&str; 8] =
    ["Topic", "EventId", "Message", "CloudEvent", "Event", "Gap", "Members", "Member"];

impl Documents {
    /// Makes the documents of a gateway that has these `routes`: paths and the methods of each.
    ///
    /// # Errors
    /// Returns an error if a document in the source tree is not JSON.
    pub(super) fn new(
        mode: Mode,
        routes: &[(&'static str, &[Method])],
    ) -> serde_json::Result<Self> {
        let mut openapi = parse(include_str!("openapi.json"))?;
        let responses = openapi.pointer("/components/responses").cloned().unwrap_or_default();
        if let Some(paths) = openapi.get_mut("paths").and_then(Value::as_object_mut) {
            paths.retain(|path, _| routes.iter().any(|(served, _)| served == path));
            for (path, methods) in routes {
                if let Some(Value::Object(item)) = paths.get_mut(*path) {
                    complete(item, path, methods, mode, &responses);
                }
            }
        }
        let mut asyncapi = parse(include_str!("asyncapi.json"))?;
        if let Some(Value::Object(schemas)) = asyncapi.pointer_mut("/components/schemas") {
            let shared = openapi.pointer("/components/schemas").and_then(Value::as_object);
            let shared = shared.into_iter().flatten();
            let shared = shared.filter(|(name, _)| SHARED_SCHEMAS.contains(&name.as_str()));
            schemas.extend(shared.map(|(name, schema)| (name.clone(), schema.clone())));
        }
        let encoded = |document: &Value| Bytes::from(document.to_string());
        Ok(Self { openapi: encoded(&openapi), asyncapi: encoded(&asyncapi) })
    }
}

/// Parses a document, and sets its version to that of the crate.
fn parse(document: &str) -> serde_json::Result<Value> {
    serde_json::from_str(&document.replace("CARGO_PKG_VERSION", env!("CARGO_PKG_VERSION")))
}

/// Adds the common responses to the operations of a path, and the operations HEAD and OPTIONS.
fn complete(
    item: &mut Map<String, Value>,
    path: &str,
    methods: &[Method],
    mode: Mode,
    responses: &Value,
) {
    if methods.contains(&Method::OPTIONS) {
        item.insert("options".to_owned(), options(path));
    }
    let of_dev = (mode == Mode::Dev).then_some(&COMMON_RESPONSE_OF_DEV);
    for method in ["get", "post", "options"] {
        let Some(operation) = item.get_mut(method) else { continue };
        let Some(Value::Object(own)) = operation.get_mut("responses") else { continue };
        for (status, name) in COMMON_RESPONSES.iter().chain(of_dev) {
            let response = json!({ "$ref": format!("#/components/responses/{name}") });
            own.entry(*status).or_insert(response);
        }
    }
    if methods.contains(&Method::HEAD)
        && let Some(get) = item.get("get")
    {
        let head = head(get, responses);
        item.insert("head".to_owned(), head);
    }
}

/// Returns the operation HEAD of a path: its GET, with responses that have no content.
fn head(get: &Value, shared: &Value) -> Value {
    let mut head = get.clone();
    if let Some(Value::String(id)) = head.get_mut("operationId") {
        id.push_str("Head");
    }
    if let Some(Value::Object(responses)) = head.get_mut("responses") {
        for response in responses.values_mut() {
            let name = response.get("$ref").and_then(Value::as_str);
            let name = name.and_then(|path| path.strip_prefix("#/components/responses/"));
            if let Some(named) = name.and_then(|name| shared.get(name)) {
                *response = named.clone();
            }
            if let Value::Object(response) = response {
                response.remove("content");
            }
        }
    }
    head
}

/// Returns the operation OPTIONS of a path that web pages use.
fn options(path: &str) -> Value {
    // A preflight is answered whatever the parameter is.
    let name = path.split_once('{').map(|(_, rest)| rest.trim_end_matches('}'));
    let parameter = |name| json!({ "name": name, "in": "path", "required": true, "schema": {} });
    let parameters: Vec<_> = name.into_iter().map(parameter).collect();
    json!({
        "summary": "Ask for the methods of the path (CORS preflight).",
        "parameters": parameters,
        "responses": {
            "200": { "description": "The answer to a preflight, with the headers of CORS." },
            "204": {
                "description": "The answer to a request without Access-Control-Request-Method.",
                "headers": { "Allow": { "required": true, "schema": { "type": "string" } } },
            },
        },
    })
}

/// Answers `GET /openapi.json`.
pub(super) async fn openapi(documents: web::Data<Documents>) -> HttpResponse {
    document(&documents.openapi)
}

/// Answers `GET /asyncapi.json`.
pub(super) async fn asyncapi(documents: web::Data<Documents>) -> HttpResponse {
    document(&documents.asyncapi)
}

/// Answers with a document. Its type is `application/json`, which all tools accept and browsers
/// show. Types of these formats, such as `application/openapi+json`, are little known.
fn document(text: &Bytes) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .insert_header((header::CACHE_CONTROL, "public, max-age=300"))
        .body(text.clone())
}
