//! An error answer: `application/problem+json` ([RFC
//! 9457](https://www.rfc-editor.org/rfc/rfc9457)).

use std::time::Duration;

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    http::{StatusCode, header},
};
use rand::RngExt as _;
use serde_json::json;

/// What was wrong, what was expected and what to do. `detail` must hold nothing secret.
pub fn problem(status: StatusCode, detail: impl AsRef<str>) -> HttpResponse {
    with(&mut HttpResponse::build(status), status, detail.as_ref())
}

/// As [`problem`], for a fault that passes: with a `Retry-After`, spread so that those who were
/// refused together do not come back together.
pub fn come_back_later(status: StatusCode, detail: &str, after: Duration) -> HttpResponse {
    let seconds = after.as_secs().max(1);
    let spread = rand::rng().random_range(seconds..=seconds * 2);
    let mut response = HttpResponse::build(status);
    response.insert_header((header::RETRY_AFTER, spread));
    with(&mut response, status, detail)
}

/// As [`problem`], with one more header.
pub fn problem_with(
    status: StatusCode,
    header: (header::HeaderName, &'static str),
    detail: &str,
) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    response.insert_header(header);
    with(&mut response, status, detail)
}

fn with(response: &mut HttpResponseBuilder, status: StatusCode, detail: &str) -> HttpResponse {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = json!({ "title": title, "status": status.as_u16(), "detail": detail });
    response
        .insert_header((header::CONTENT_TYPE, "application/problem+json"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(body.to_string())
}

/// An HTTP client's error says what went wrong only in its causes.
pub fn error_chain(err: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(err.source(), |cause| cause.source());
    causes.fold(err.to_string(), |text, cause| format!("{text}: {cause}"))
}
