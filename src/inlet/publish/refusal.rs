//! Refusals of requests to publish, and the HTTP answer to each.

use std::time::Duration;

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};
use serde_json::Map;

use crate::{
    auth::AuthError,
    backplane::PublishError,
    http::problem::{come_back_later, come_back_later_with, problem, problem_with},
    inlet::{TopicNotServedError, publish::publication::PublicationError},
    model::{event_id::EventId, topic::Topic},
};

/// Reason why a request to publish is refused. Its text is for the client.
#[derive(Debug, thiserror::Error)]
pub enum PublishRefusedError {
    /// Publishing is off: 404.
    #[error("publishing is off here (--publish-auth): choose jwt, or none for anyone")]
    Off,
    /// The token is missing or refused, or cannot be verified now: 401, 403 or 503.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The token does not grant the topic: 403.
    #[error("the token does not grant publishing to the topic {0} (its claim publish)")]
    NotGranted(Topic),
    /// The topic is not served by this gateway: 404.
    #[error(transparent)]
    NotServed(#[from] TopicNotServedError),
    /// The query, the headers, the body or a message is malformed, or breaks a rule: 400.
    #[error(transparent)]
    Invalid(#[from] PublicationError),
    /// The body is too large: 413. Holds the largest size in bytes.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// The batch has more messages than a rate limit ever allows: 413. Holds the largest number,
    /// and the name of the limit's flag.
    #[error("the request has more messages than are allowed in a second: send at most {0} (--{1})")]
    TooMany(u32, &'static str),
    /// A rate limit is reached: 429. Holds the time to wait, and the name of the limit's flag.
    #[error("this publisher sends too many messages in a second (--{1})")]
    TooOften(Duration, &'static str),
    /// The body is compressed: 415.
    #[error("the body is encoded (Content-Encoding); only plain bodies are accepted")]
    Encoded,
    /// The body did not arrive in time: 408.
    #[error("the body did not arrive in time (--body-timeout)")]
    TooSlow,
    /// The connection broke, or the body is malformed: 400.
    #[error("the body was cut off or is malformed")]
    Broken,
    /// The bodies that are being received use all the memory for bodies: 503.
    #[error("too many bytes in flight (--push-bytes-in-flight)")]
    Busy,
    /// The backplane did not confirm a message: 503.
    #[error(transparent)]
    Unconfirmed(#[from] PublishError),
    /// The backplane confirmed the first messages, and then did not confirm one: 503.
    #[error(
        "{} of {count} messages are stored, those whose ids are in \"ids\"; the next one was not \
         confirmed: send it and those after it again",
        ids.len()
    )]
    PartlyStored {
        /// Ids of the stored messages.
        ids: Vec<EventId>,
        /// Number of all messages.
        count: usize,
    },
}

/// Shortest time after which a publisher should try again when the cause is temporary.
const RETRY: Duration = Duration::from_secs(1);

impl PublishRefusedError {
    /// Returns the refusal's label in metrics. `None` for a refusal that the policy has counted.
    pub(super) fn label(&self) -> Option<&'static str> {
        Some(match self {
            Self::Off => "off",
            Self::Auth(err) if err.is_temporary() => "keys-unavailable",
            Self::Auth(_) | Self::NotGranted(_) => "denied",
            Self::NotServed(_) => "not-served",
            Self::Invalid(_) => "invalid",
            Self::TooLarge(_) | Self::TooMany(..) => "too-large",
            Self::TooOften(..) => "too-often",
            Self::Encoded => "encoded",
            Self::TooSlow | Self::Broken => "unreceived",
            Self::Busy => "busy",
            Self::Unconfirmed(_) | Self::PartlyStored { .. } => return None,
        })
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Off | Self::NotServed(_) => StatusCode::NOT_FOUND,
            Self::Auth(err) => err.status(),
            Self::NotGranted(_) => StatusCode::FORBIDDEN,
            Self::Invalid(_) | Self::Broken => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) | Self::TooMany(..) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooOften(..) => StatusCode::TOO_MANY_REQUESTS,
            Self::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Busy | Self::Unconfirmed(_) | Self::PartlyStored { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// Returns the time after which the same request may succeed. `None` if it never will.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooOften(wait, _) => Some(*wait),
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => Some(RETRY),
            _ => None,
        }
    }

    /// Builds the HTTP answer.
    pub(super) fn response(&self) -> HttpResponse {
        let (status, text) = (self.status(), self.to_string());
        match self {
            Self::Auth(err) => err.response(RETRY),
            Self::Encoded => problem_with(status, (header::ACCEPT_ENCODING, "identity"), &text),
            Self::PartlyStored { ids, .. } => {
                let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
                let members = Map::from_iter([("ids".to_owned(), ids.into())]);
                come_back_later_with(status, &text, RETRY, members)
            }
            _ => match self.retry_after() {
                Some(wait) => come_back_later(status, &text, wait),
                None => problem(status, text),
            },
        }
    }
}
