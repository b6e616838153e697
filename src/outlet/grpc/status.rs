//! Status of a call: its code, its text, and the headers that say it.

use actix_web::http::StatusCode;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::{
    inlet::{body::ReceiveError, publish::PublishRefusedError},
    model::control::{End, EndReason},
    outlet::client::refusal::Refusal,
};

/// Code of a status (<https://grpc.io/docs/guides/status-codes/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Ok = 0,
    Cancelled = 1,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// Status with which a call ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: Code,
    /// Text for the client. Empty if there is none.
    pub(super) message: String,
    /// Time after which the same call can succeed, in milliseconds. `None` if it cannot.
    pub(super) retry_ms: Option<u64>,
}

/// Characters of a text that are escaped in `grpc-message`, in addition to those that are not ASCII
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#responses>).
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

impl Status {
    /// Status of a call that succeeded.
    pub(super) const OK: Self = Self { code: Code::Ok, message: String::new(), retry_ms: None };

    /// Creates a status that a repeated call would have too.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_ms: None }
    }

    /// Returns the status after the last message of a stream.
    pub(super) fn of_end(end: &End) -> Self {
        let (code, message) = match end.reason {
            EndReason::Expired => (Code::Unauthenticated, "the token has expired"),
            EndReason::Draining => (Code::Unavailable, "this gateway is shutting down"),
            EndReason::MaxAge => {
                (Code::Unavailable, "the stream has reached its maximum age (--stream-age-max)")
            }
            EndReason::Busy => (Code::Unavailable, "a limit of streams is reached"),
            EndReason::Unready => (Code::Unavailable, "the log does not answer"),
        };
        let retry_ms = (code == Code::Unavailable).then_some(end.retry_ms);
        Self { code, message: message.to_owned(), retry_ms }
    }

    /// Returns the headers of the status, in the order in which they are sent.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&'static str, String)> {
        let code = ("grpc-status", (self.code as u8).to_string());
        let message = utf8_percent_encode(&self.message, ESCAPED).to_string();
        let message = (!message.is_empty()).then_some(("grpc-message", message));
        let retry = self.retry_ms.map(|ms| ("grpc-retry-pushback-ms", ms.to_string()));
        [Some(code), message, retry].into_iter().flatten()
    }
}

/// Returns the code that says the same as a status of HTTP.
fn code_of(status: StatusCode) -> Code {
    match status.as_u16() {
        400 | 415 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        413 | 429 => Code::ResourceExhausted,
        408 => Code::DeadlineExceeded,
        _ => Code::Unavailable,
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let code = code_of(refusal.status());
        Self { code, message: refusal.detail, retry_ms: refusal.retry_ms }
    }
}

impl From<PublishRefusedError> for Status {
    fn from(err: PublishRefusedError) -> Self {
        let retry = err.retry_after().map(|wait| u64::try_from(wait.as_millis()));
        let retry_ms = retry.map(|ms| ms.unwrap_or(u64::MAX));
        Self { code: code_of(err.status()), message: err.to_string(), retry_ms }
    }
}

impl From<ReceiveError> for Status {
    fn from(err: ReceiveError) -> Self {
        match err {
            ReceiveError::TooLarge => {
                Self::new(Code::ResourceExhausted, "the message of the request is too large")
            }
            ReceiveError::Busy => Self {
                retry_ms: Some(End::refusal(EndReason::Busy, None).retry_ms),
                ..Self::new(Code::Unavailable, "too many bytes in flight (--push-bytes-in-flight)")
            },
            ReceiveError::TooSlow => Self::new(
                Code::DeadlineExceeded,
                "the message of the request did not arrive in time (--body-timeout)",
            ),
            ReceiveError::Broken => Self::new(Code::Cancelled, "the request was cut off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_escaped() {
        let status =
            Status { retry_ms: Some(7), ..Status::new(Code::NotFound, "a 100 %\n\"ä\" ~") };
        let headers: Vec<_> = status.headers().collect();
        let message = "a 100 %25%0A\"%C3%A4\" ~".to_owned();
        assert_eq!(
            headers,
            [
                ("grpc-status", "5".to_owned()),
                ("grpc-message", message),
                ("grpc-retry-pushback-ms", "7".to_owned()),
            ]
        );
        assert_eq!(Status::OK.headers().count(), 1);
    }
}
