//! Refusals that all outlets share.

use actix_web::{HttpResponse, http::StatusCode};

use crate::{auth::AuthError, http::problem::come_back_later, model::control::refusal_wait};

/// Refuses a request for now with 503, `text` and `Retry-After`.
pub(crate) fn unready(text: &str) -> HttpResponse {
    come_back_later(StatusCode::SERVICE_UNAVAILABLE, text, refusal_wait())
}

/// Returns the answer to a request whose token or ticket is refused.
pub(crate) fn deny(denied: &AuthError) -> HttpResponse {
    denied.response(refusal_wait())
}
