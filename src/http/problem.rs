//! Error answers: `application/problem+json` ([RFC
//! 9457](https://www.rfc-editor.org/rfc/rfc9457)).

use std::time::Duration;

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    http::{StatusCode, header},
};
use rand::RngExt as _;
use serde_json::{Map, Value};

/// Builds an error answer. `detail` says what was wrong, what was expected and what to do. It must
/// not contain a secret.
pub(crate) fn problem(status: StatusCode, detail: impl AsRef<str>) -> HttpResponse {
    with_body(&mut HttpResponse::build(status), &standard_members(status, detail.as_ref()))
}

/// Builds an error answer with a `Retry-After` header, for an error that passes.
///
/// The header is a random number of seconds between `after` (at least 1 s) and twice `after`, so
/// that clients that were refused together do not all retry together.
pub(crate) fn come_back_later(status: StatusCode, detail: &str, after: Duration) -> HttpResponse {
    come_back_later_with(status, detail, after, Map::new())
}

/// Builds an error answer with a `Retry-After` header, as [`come_back_later`] does, and with more
/// members than other answers ([RFC 9457, section
/// 3.2](https://www.rfc-editor.org/rfc/rfc9457#section-3.2)).
pub(crate) fn come_back_later_with(
    status: StatusCode,
    detail: &str,
    after: Duration,
    members: Map<String, Value>,
) -> HttpResponse {
    let mut body = members;
    body.extend(standard_members(status, detail));
    let mut response = HttpResponse::build(status);
    response.insert_header(retry_after(after));
    with_body(&mut response, &body)
}

/// Builds an error answer with one more header.
pub(crate) fn problem_with(
    status: StatusCode,
    header: (header::HeaderName, &str),
    detail: &str,
) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    response.insert_header(header);
    with_body(&mut response, &standard_members(status, detail))
}

/// Returns a random time between `after` and twice `after`, in seconds and at least 1.
fn retry_after(after: Duration) -> (header::HeaderName, u64) {
    let seconds = after.as_secs().max(1);
    (header::RETRY_AFTER, rand::rng().random_range(seconds..=seconds * 2))
}

/// Returns the members of the body that all error answers have.
fn standard_members(status: StatusCode, detail: &str) -> Map<String, Value> {
    let title = status.canonical_reason().unwrap_or("Error");
    let members = [("title", title.into()), ("status", status.as_u16().into())];
    let members = members.into_iter().chain([("detail", detail.into())]);
    members.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Adds the body and the headers that all error answers have.
fn with_body(response: &mut HttpResponseBuilder, body: &Map<String, Value>) -> HttpResponse {
    response
        .insert_header((header::CONTENT_TYPE, "application/problem+json"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(body)
}

/// Formats an error with all its causes. The errors of the HTTP client describe the problem only in
/// their causes.
pub(crate) fn error_chain(err: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(err.source(), |cause| cause.source());
    causes.fold(err.to_string(), |text, cause| format!("{text}: {cause}"))
}
