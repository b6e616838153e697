//! Error answers: `application/problem+json` ([RFC
//! 9457](https://www.rfc-editor.org/rfc/rfc9457)).

use std::time::Duration;

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    http::{StatusCode, header},
};
use rand::RngExt as _;
use serde_json::json;

/// Builds an error answer. `detail` says what was wrong, what was expected and what to do. It must
/// not contain a secret.
pub(crate) fn problem(status: StatusCode, detail: impl AsRef<str>) -> HttpResponse {
    with_body(&mut HttpResponse::build(status), status, detail.as_ref())
}

/// Builds an error answer with a `Retry-After` header, for an error that passes.
///
/// The header is a random number of seconds between `after` (at least 1 s) and twice `after`, so
/// that clients that were refused together do not all retry together.
pub(crate) fn come_back_later(status: StatusCode, detail: &str, after: Duration) -> HttpResponse {
    let seconds = after.as_secs().max(1);
    let spread = rand::rng().random_range(seconds..=seconds * 2);
    let mut response = HttpResponse::build(status);
    response.insert_header((header::RETRY_AFTER, spread));
    with_body(&mut response, status, detail)
}

/// Builds an error answer with one more header.
pub(crate) fn problem_with(
    status: StatusCode,
    header: (header::HeaderName, &str),
    detail: &str,
) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    response.insert_header(header);
    with_body(&mut response, status, detail)
}

/// Adds the body and the headers that all error answers have.
fn with_body(response: &mut HttpResponseBuilder, status: StatusCode, detail: &str) -> HttpResponse {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = json!({ "title": title, "status": status.as_u16(), "detail": detail });
    response
        .insert_header((header::CONTENT_TYPE, "application/problem+json"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(body.to_string())
}

/// Formats an error with all its causes. The errors of the HTTP client describe the problem only in
/// their causes.
pub(crate) fn error_chain(err: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(err.source(), |cause| cause.source());
    causes.fold(err.to_string(), |text, cause| format!("{text}: {cause}"))
}
