//! Refusals of connections and commands, with the codes that close a WebSocket. gRPC has a status
//! for each code.

use actix_web::http::StatusCode;

use crate::{
    auth::{AuthError, access::TopicDeniedError},
    model::control::{End, EndReason, retry_after_cut_ms},
    stream::{open::OpenError, presence::PresenceError},
};

/// Code of a close frame ([RFC 6455, section
/// 7.4](https://www.rfc-editor.org/rfc/rfc6455#section-7.4)). Codes from 4400 on are those of HTTP,
/// plus 4000. docs/websocket.md says which of them a client may retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::outlet) enum CloseCode {
    /// A stream has reached its maximum age.
    GoingAway = 1001,
    /// The client broke the protocol of WebSockets.
    Protocol = 1002,
    /// The client sent a binary message.
    Unsupported = 1003,
    /// The client sent a text message, or a reason, that is not UTF-8.
    NotUtf8 = 1007,
    /// The client sent a message that is too large.
    TooLarge = 1009,
    /// The gateway is shutting down.
    Restart = 1012,
    /// The gateway is busy or not ready, or the client is too slow for a large event.
    TryAgain = 1013,
    /// The query is malformed.
    BadRequest = 4400,
    /// There is no token, or it is not valid, or it has expired.
    Unauthorized = 4401,
    /// The token, or the page, does not allow what is asked for.
    Forbidden = 4403,
    /// The topic is not served.
    NotFound = 4404,
    /// The client did not answer pings.
    Silent = 4408,
    /// The client sends too much, or has too many streams.
    TooOften = 4429,
}

/// Refusal of a connection, of a stream or of a command.
#[derive(Debug)]
pub(in crate::outlet) struct Refusal {
    pub(in crate::outlet) code: CloseCode,
    /// Name of the reason in the record `end`.
    pub(in crate::outlet) reason: &'static str,
    /// Text for the sender.
    pub(in crate::outlet) detail: String,
    /// Time after which the same request can succeed, in milliseconds. `None` if it cannot.
    pub(in crate::outlet) retry_ms: Option<u64>,
}

impl CloseCode {
    /// Returns the number.
    pub(in crate::outlet) fn number(self) -> u16 {
        self as u16
    }

    /// Returns the code for the end of a stream.
    pub(in crate::outlet) fn of(reason: EndReason) -> Self {
        match reason {
            EndReason::Draining => Self::Restart,
            EndReason::MaxAge => Self::GoingAway,
            EndReason::Busy | EndReason::Unready => Self::TryAgain,
            EndReason::Expired => Self::Unauthorized,
        }
    }
}

impl Refusal {
    /// Creates a refusal for good.
    pub(in crate::outlet) fn new(code: CloseCode, detail: impl Into<String>) -> Self {
        let reason = match code {
            CloseCode::Unauthorized => "unauthorized",
            CloseCode::Forbidden => "forbidden",
            CloseCode::NotFound => "not-served",
            CloseCode::Silent => "silent",
            CloseCode::TooOften => "too-often",
            CloseCode::TryAgain => "busy",
            _ => "bad-request",
        };
        Self { code, reason, detail: detail.into(), retry_ms: None }
    }

    /// Creates the refusal of what the client is to ask for again later.
    pub(in crate::outlet) fn later(reason: EndReason, detail: impl Into<String>) -> Self {
        let retry_ms = Some(End::refusal(reason, None).retry_ms);
        let code = CloseCode::of(reason);
        Self { code, reason: reason.as_str(), detail: detail.into(), retry_ms }
    }

    /// Creates the refusal of a client that asks too often.
    pub(in crate::outlet) fn too_often(detail: impl Into<String>) -> Self {
        let retry_ms = Some(End::refusal(EndReason::Busy, None).retry_ms);
        Self { retry_ms, ..Self::new(CloseCode::TooOften, detail) }
    }

    /// Creates the refusal of a client that answers no pings. The client is told to wait for a
    /// random time: a proxy may have failed, and all its clients would connect again at once.
    pub(in crate::outlet) fn silent() -> Self {
        let retry_ms = Some(retry_after_cut_ms());
        Self { retry_ms, ..Self::new(CloseCode::Silent, "the client answered no pings") }
    }

    /// Returns the status of HTTP that says the same.
    pub(in crate::outlet) fn status(&self) -> StatusCode {
        let of_http = self.code.number().checked_sub(4000);
        let status = of_http.and_then(|number| StatusCode::from_u16(number).ok());
        status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
    }
}

impl From<AuthError> for Refusal {
    fn from(err: AuthError) -> Self {
        let text = err.to_string();
        match err {
            AuthError::KeysUnavailable(_) | AuthError::TicketsUnavailable => {
                Self::later(EndReason::Unready, text)
            }
            AuthError::Forbidden(_)
            | AuthError::Filter(_)
            | AuthError::AnotherSite
            | AuthError::UnknownPage => Self::new(CloseCode::Forbidden, text),
            AuthError::MissingToken(_) | AuthError::Invalid(_) | AuthError::InvalidTicket => {
                Self::new(CloseCode::Unauthorized, text)
            }
        }
    }
}

impl From<TopicDeniedError> for Refusal {
    fn from(err: TopicDeniedError) -> Self {
        let code = match err {
            TopicDeniedError::NotServed(_) => CloseCode::NotFound,
            TopicDeniedError::NotGranted(_) => CloseCode::Forbidden,
        };
        Self::new(code, err.to_string())
    }
}

impl From<OpenError> for Refusal {
    fn from(err: OpenError) -> Self {
        let text = err.to_string();
        match err {
            OpenError::Draining => Self::later(EndReason::Draining, text),
            OpenError::TooMany(_) => Self::too_often(text),
            OpenError::Presence(PresenceError::Name(_)) => Self::new(CloseCode::BadRequest, text),
            OpenError::Presence(PresenceError::TooManyTopics(_)) | OpenError::Busy(_) => {
                Self::later(EndReason::Busy, text)
            }
        }
    }
}
