//! Reasons to refuse a token or a ticket, and the HTTP answer for each.

use std::time::Duration;

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};

use crate::{
    http::problem::{come_back_later, problem, problem_with},
    model::filter::FilterError,
};

/// Reason why a request's token or ticket is refused.
///
/// The sender of the request reads the texts: they hold no secret and no part of the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The request has no token: 401. The text says how to send one.
    #[error("the request has no token: {0}")]
    MissingToken(&'static str),
    /// The token is malformed, forged, expired or for another service: 401. The text says why.
    #[error("the token is not valid: {0}")]
    Invalid(&'static str),
    /// The token is valid and does not grant what the request asks for: 403. The text says why.
    #[error("the token is valid, but {0}")]
    Forbidden(&'static str),
    /// The token is valid, and its claim `filter` is no filter: 403.
    #[error("the token is valid, but its claim filter is no filter: {0}")]
    Filter(FilterError),
    /// The ticket is unknown, used or expired: 401.
    #[error("the ticket is not valid: a ticket opens one stream, within 30 s after it was issued")]
    InvalidTicket,
    /// The request has the token in the cookie and comes from a page that may not use it: 403.
    #[error(
        "the request comes from a page of another site (Sec-Fetch-Site), which may not use the \
         reader's cookie: list the page's origin (--cors-origin), or send the token in the \
         Authorization header"
    )]
    AnotherSite,
    /// The request publishes with the token in the cookie, and does not show that it comes from an
    /// allowed page: 403.
    #[error(
        "a request with the token in the cookie publishes only from a page of this host or of an \
         origin of --cors-origin (Origin, Sec-Fetch-Site): send the token in the Authorization \
         header"
    )]
    UnknownPage,
    /// The issuer's key set is not available, so the token may be valid: 503. The text names the
    /// kind of tokens.
    #[error(
        "the keys for {0} are not available, since the issuer's key set could not be fetched: try \
         again later"
    )]
    KeysUnavailable(&'static str),
    /// The ticket store did not answer, so the ticket may be valid: 503.
    #[error(
        "the ticket cannot be checked, since the ticket store (Redis, --backplane) did not answer: \
         try again later"
    )]
    TicketsUnavailable,
}

impl AuthError {
    /// Returns the error's label in metrics.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::MissingToken(_) => "none",
            Self::Invalid(_) => "invalid",
            Self::Forbidden(_) | Self::Filter(_) => "forbidden",
            Self::InvalidTicket => "invalid-ticket",
            Self::AnotherSite | Self::UnknownPage => "another-site",
            Self::KeysUnavailable(_) => "no-keys",
            Self::TicketsUnavailable => "no-tickets",
        }
    }

    /// Returns true if the credentials may be valid and only could not be checked: the same request
    /// can succeed later.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self, Self::KeysUnavailable(_) | Self::TicketsUnavailable)
    }

    /// Returns the HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::MissingToken(_) | Self::Invalid(_) | Self::InvalidTicket => {
                StatusCode::UNAUTHORIZED
            }
            Self::Forbidden(_) | Self::Filter(_) | Self::AnotherSite | Self::UnknownPage => {
                StatusCode::FORBIDDEN
            }
            Self::KeysUnavailable(_) | Self::TicketsUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Builds the HTTP answer: 401 with `WWW-Authenticate`
    /// ([RFC 6750, section 3](https://www.rfc-editor.org/rfc/rfc6750#section-3)), 403, or 503 with
    /// `Retry-After` from `retry_after` on.
    pub(crate) fn response(&self, retry_after: Duration) -> HttpResponse {
        let (status, text) = (self.status(), self.to_string());
        let unauthorized =
            |challenge| problem_with(status, (header::WWW_AUTHENTICATE, challenge), &text);
        match self {
            // RFC 6750, section 3.1: a request without a token gets no error code.
            Self::MissingToken(_) => unauthorized("Bearer"),
            Self::Invalid(_) | Self::InvalidTicket => {
                unauthorized("Bearer error=\"invalid_token\"")
            }
            _ if self.is_temporary() => come_back_later(status, &text, retry_after),
            _ => problem(status, &text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_status_and_its_challenge() {
        let invalid = Some("Bearer error=\"invalid_token\"");
        for (err, status, challenge) in [
            (AuthError::MissingToken("x"), 401, Some("Bearer")),
            (AuthError::Invalid("x"), 401, invalid),
            (AuthError::InvalidTicket, 401, invalid),
            (AuthError::Forbidden("x"), 403, None),
            (AuthError::AnotherSite, 403, None),
            (AuthError::UnknownPage, 403, None),
            (AuthError::KeysUnavailable("x"), 503, None),
            (AuthError::TicketsUnavailable, 503, None),
        ] {
            let answer = err.response(Duration::from_secs(1));
            let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
            assert_eq!(answer.status().as_u16(), status, "{err}");
            assert_eq!(header(header::WWW_AUTHENTICATE), challenge, "{err}");
            assert_eq!(header(header::RETRY_AFTER).is_some(), err.is_temporary(), "{err}");
        }
    }
}
