//! HTTP answers to pushes.

use std::time::Duration;

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};

use crate::{
    auth::AuthError,
    http::problem::{come_back_later, problem, problem_with},
    inlet::{Outcome, Poison, PoisonReason},
};

/// Reason why a push is refused before its message is decoded.
#[derive(Debug)]
pub(super) enum Refusal {
    /// No one may push.
    Off,
    /// The token is missing or refused, or cannot be verified now.
    Auth(AuthError),
    /// The address has pushed too often without a valid token. Holds the time to wait.
    TooOften(Duration),
    /// The body is compressed.
    Encoded,
    /// The bodies that are being received use all the memory for bodies.
    Busy,
    /// The body did not arrive in time.
    TooSlow,
    /// The connection broke, or the body is malformed.
    Broken,
}

/// Shortest time after which Pub/Sub should push again when the cause is temporary. Pub/Sub has a
/// back-off of its own and may ignore it.
const RETRY: Duration = Duration::from_secs(1);

/// Text about a compressed body, for the log and the answer.
pub(super) const ENCODED: &str =
    "the body is encoded (Content-Encoding); only plain bodies are accepted";

/// Translates the outcome of a message into the answer to its push.
pub(super) fn answer(outcome: &Outcome) -> HttpResponse {
    match outcome {
        // The rest of the body was not read, and may never end.
        Outcome::PoisonDropped(Poison { reason: PoisonReason::TooLarge, .. }) => {
            HttpResponse::NoContent().force_close().finish()
        }
        Outcome::Stored(_) | Outcome::Duplicate(_) | Outcome::PoisonDropped(_) => {
            HttpResponse::NoContent().finish()
        }
        Outcome::PoisonRefused(Poison { reason: PoisonReason::TooLarge, detail, .. }) => {
            problem(StatusCode::PAYLOAD_TOO_LARGE, detail)
        }
        Outcome::PoisonRefused(Poison { detail: text, .. })
        | Outcome::NotAnEnvelope(text)
        | Outcome::NoTopic(text) => problem(StatusCode::BAD_REQUEST, text),
        Outcome::NotServed(text) => problem(StatusCode::NOT_FOUND, text),
        Outcome::Unconfirmed(err) => {
            come_back_later(StatusCode::SERVICE_UNAVAILABLE, &err.to_string(), RETRY)
        }
    }
}

impl Refusal {
    /// Returns the refusal's label in metrics.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Auth(err) if err.is_temporary() => "keys-unavailable",
            Self::Auth(_) => "denied",
            Self::TooOften(_) => "too-often",
            Self::Encoded => "encoded",
            Self::Busy => "busy",
            Self::TooSlow | Self::Broken => "unreceived",
        }
    }

    /// Builds the answer.
    pub(super) fn response(&self) -> HttpResponse {
        match self {
            Self::Off => {
                problem(StatusCode::NOT_FOUND, "this gateway takes no pushes (--push-auth off)")
            }
            Self::Auth(err) => err.response(RETRY),
            Self::TooOften(wait) => {
                let text = "this address has pushed too often without a valid token \
                            (--push-failures-per-address)";
                come_back_later(StatusCode::TOO_MANY_REQUESTS, text, *wait)
            }
            Self::Encoded => {
                let accept = (header::ACCEPT_ENCODING, "identity");
                problem_with(StatusCode::UNSUPPORTED_MEDIA_TYPE, accept, ENCODED)
            }
            Self::Busy => {
                let text = "too many bytes in flight (--push-bytes-in-flight)";
                come_back_later(StatusCode::SERVICE_UNAVAILABLE, text, RETRY)
            }
            Self::TooSlow => {
                let text = "the body did not arrive in time (--body-timeout)";
                problem(StatusCode::REQUEST_TIMEOUT, text)
            }
            Self::Broken => {
                problem(StatusCode::BAD_REQUEST, "the body was cut off or is malformed")
            }
        }
    }
}
