//! Access of readers: admits a request, and decides which topics it gets.

use std::sync::Arc;

use actix_http::RequestHead;
use actix_web::{HttpRequest, http::header};

use crate::{
    auth::{error::AuthError, grant::Grant, jwt::bearer, reader::ReaderVerifier},
    http::cors::Pages,
    hub::TopicSet,
    model::topic::{Topic, TopicPattern},
};

/// Rule for readers. A closed set: one variant for each value of `--read-auth`.
#[derive(Debug)]
pub enum Access {
    /// Any reader may read every served topic, without a token.
    Anonymous,
    /// A reader needs a token, and may read the topics that the token grants.
    Token(Arc<TokenCheck>),
}

/// Check of the tokens of readers and publishers.
#[derive(Debug)]
pub struct TokenCheck {
    /// Verifier of the tokens.
    pub verifier: ReaderVerifier,
    /// Cookie that can hold the token. `None` when only the `Authorization` header can.
    pub cookie: Option<TokenCookie>,
}

/// Cookie that can hold a reader's token: native `EventSource` cannot set headers.
#[derive(Debug)]
pub struct TokenCookie {
    /// Name of the cookie.
    pub name: String,
    /// Pages whose requests may use the cookie.
    pub pages: Pages,
}

/// Reason why a reader does not get a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TopicDeniedError {
    /// The gateway does not serve the topic to any reader.
    #[error("topic: {0} is not served here")]
    NotServed(TopicPattern),
    /// The reader's token does not grant the topic.
    #[error("topic: the token does not grant {0}")]
    NotGranted(TopicPattern),
}

impl Access {
    /// Verifies the request's token and returns its grant, or `None` if readers need no token. A
    /// token in the `Authorization` header has precedence over one in the cookie.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub async fn admit(&self, request: &HttpRequest) -> Result<Option<Grant>, AuthError> {
        let Self::Token(check) = self else { return Ok(None) };
        let may_use = |pages: &Pages, head: &RequestHead| {
            pages.may_use_cookies(head).then_some(()).ok_or(AuthError::AnotherSite)
        };
        check.verifier.verify(check.token_of(request, may_use)?).await.map(Some)
    }

    /// Verifies a token that is not in the head of a request. Returns `None` if readers need no
    /// token.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub async fn verify(&self, token: &str) -> Result<Option<Grant>, AuthError> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Token(check) => check.verifier.verify(token.as_bytes()).await.map(Some),
        }
    }

    /// Returns true if readers can be admitted: no tokens are needed, or their keys are available.
    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Self::Anonymous => true,
            Self::Token(check) => check.verifier.is_ready(),
        }
    }
}

impl TokenCheck {
    /// Returns the token of a request: in the `Authorization` header, or else in the cookie.
    ///
    /// # Errors
    /// [`AuthError::MissingToken`], and the error of `may_use_cookie` when the token is in the
    /// cookie. A page that may not use the cookie cannot read the answer, but it would use up what
    /// the reader has who has the page open.
    pub(super) fn token_of<'a>(
        &self,
        request: &'a HttpRequest,
        may_use_cookie: impl FnOnce(&Pages, &RequestHead) -> Result<(), AuthError>,
    ) -> Result<&'a [u8], AuthError> {
        let token = match (request.headers().get(header::AUTHORIZATION), &self.cookie) {
            (Some(value), _) => bearer(value.as_bytes()),
            (None, None) => None,
            (None, Some(cookie)) => {
                let token = cookie_of(request, &cookie.name);
                if token.is_some() {
                    may_use_cookie(&cookie.pages, request.head())?;
                }
                token
            }
        };
        token.ok_or(AuthError::MissingToken(if self.cookie.is_some() {
            "send it as Authorization: Bearer TOKEN, or in the cookie that --read-cookie names"
        } else {
            "send it as Authorization: Bearer TOKEN"
        }))
    }
}

/// Chooses the topics of a stream: those that match the `asked` patterns, or all that the reader
/// may have if it asked for none. Without a `grant` it may have any topic. If `served` is not
/// empty, it lists the only topics that exist.
///
/// # Errors
/// The first asked pattern that matches topics that the reader may not have, or no served topic.
pub(crate) fn choose(
    asked: &[TopicPattern],
    grant: Option<&Grant>,
    served: &[Topic],
) -> Result<TopicSet, TopicDeniedError> {
    // One search in a set for each topic: a thousand topics and a thousand patterns would be a
    // million comparisons.
    let patterns = grant.map(|grant| TopicSet::matching(&grant.topics));
    let is_granted = |topic: &Topic| patterns.as_ref().is_none_or(|all| all.contains(topic));
    let are_granted =
        |asked: &TopicPattern| patterns.as_ref().is_none_or(|all| all.contains_all_of(asked));
    // Checked before `served`, so that a token reveals nothing about topics that it does not grant.
    if let Some(topic) = asked.iter().find(|asked| !are_granted(asked)) {
        return Err(TopicDeniedError::NotGranted(topic.clone()));
    }
    let is_served = |asked: &TopicPattern| match asked {
        _ if served.is_empty() => true,
        TopicPattern::Exact(topic) => served.contains(topic),
        pattern => served.iter().any(|topic| pattern.matches(topic)),
    };
    if let Some(topic) = asked.iter().find(|asked| !is_served(asked)) {
        return Err(TopicDeniedError::NotServed(topic.clone()));
    }
    let asked_set = TopicSet::matching(asked);
    let has_patterns = !asked_set.prefixes().is_empty() || asked_set.is_all();
    Ok(match grant {
        _ if has_patterns && !served.is_empty() => {
            TopicSet::only(served.iter().filter(|topic| asked_set.contains(topic)).cloned())
        }
        _ if !asked.is_empty() => asked_set,
        _ if !served.is_empty() => TopicSet::only(served.iter().filter(|t| is_granted(t)).cloned()),
        _ => patterns.unwrap_or_else(TopicSet::all),
    })
}

/// Returns the value of a cookie
/// ([RFC 6265, section 4.2](https://www.rfc-editor.org/rfc/rfc6265#section-4.2)). HTTP/2 may send
/// cookies in several fields.
fn cookie_of<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a [u8]> {
    let fields = request.headers().get_all(header::COOKIE);
    let pairs = fields.filter_map(|field| field.to_str().ok()).flat_map(|field| field.split(';'));
    let mut named =
        pairs.filter_map(|pair| pair.trim().split_once('=').filter(|(n, _)| *n == name));
    named.next().map(|(_, value)| value.trim_matches('"').as_bytes())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use jsonwebtoken::{Algorithm, DecodingKey};

    use super::*;
    use crate::{
        auth::{jwks::Key, reader::TokenKeys},
        config::Mode,
    };

    fn access(cookie: Option<&str>) -> Access {
        let key = Key { key: DecodingKey::from_secret(&[7; 32]), algorithm: Algorithm::HS256 };
        let verifier = ReaderVerifier::new(TokenKeys::Single(key), &[], &[], "topics");
        let pages = || Pages { mode: Mode::Serve, origins: Vec::new() };
        let cookie = cookie.map(|name| TokenCookie { name: name.to_owned(), pages: pages() });
        Access::Token(Arc::new(TokenCheck { verifier, cookie }))
    }

    #[tokio::test]
    async fn a_token_that_is_not_utf8_is_invalid_and_not_missing() {
        let request = |header: &[u8]| {
            let value = header::HeaderValue::from_bytes(header).unwrap();
            TestRequest::default().insert_header((header::AUTHORIZATION, value)).to_http_request()
        };
        let refused = access(None).admit(&request(b"Bearer \xff")).await.unwrap_err();
        assert!(matches!(refused, AuthError::Invalid(_)), "{refused}");
        let refused = access(None).admit(&request(b"Basic \xff")).await.unwrap_err();
        assert!(matches!(refused, AuthError::MissingToken(_)), "{refused}");
    }

    #[tokio::test]
    async fn the_error_for_a_missing_token_names_the_cookie_if_there_can_be_one() {
        let request = TestRequest::default().to_http_request();
        for (cookie, is_named) in [(None, false), (Some("session"), true)] {
            let refused = access(cookie).admit(&request).await.unwrap_err();
            assert_eq!(refused.to_string().contains("--read-cookie"), is_named, "{refused}");
        }
    }
}
