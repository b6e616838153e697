//! Refusals that all outlets share.

use actix_web::{HttpResponse, http::StatusCode};

use crate::{
    auth::{AuthError, access::TopicDeniedError},
    http::problem::{come_back_later, problem},
    model::control::refusal_wait,
};

/// Refuses a request for now with 503, `text` and `Retry-After`.
pub(crate) fn unready(text: &str) -> HttpResponse {
    come_back_later(StatusCode::SERVICE_UNAVAILABLE, text, refusal_wait())
}

/// Returns the answer to a request whose token or ticket is refused.
pub(crate) fn deny(denied: &AuthError) -> HttpResponse {
    denied.response(refusal_wait())
}

/// Answers a request for a topic that the reader may not have.
pub(crate) fn deny_topic(denied: &TopicDeniedError) -> HttpResponse {
    let status = match denied {
        TopicDeniedError::NotServed(_) => StatusCode::NOT_FOUND,
        TopicDeniedError::NotGranted(_) => StatusCode::FORBIDDEN,
    };
    problem(status, denied.to_string())
}
