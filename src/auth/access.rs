//! Who may read what.

use actix_web::{HttpRequest, http::header};

use crate::{
    auth::{
        grant::Grant,
        reader::{ReadAuthError, Tokens},
    },
    backplane::Backplane,
    clock,
    http::cors::Pages,
    hub::TopicSet,
    model::topic::Topic,
};

/// What a reader may see. A closed set: one variant for each way to decide it.
#[derive(Debug)]
pub enum Access {
    /// Anyone may read every topic that is served.
    Anonymous,
    /// Whoever brings a token may read what it grants.
    Token { tokens: Tokens, cookie: Option<TokenCookie> },
}

/// The cookie that a token may be in: native `EventSource` can set no header.
#[derive(Debug)]
pub struct TokenCookie {
    pub name: String,
    /// The pages whose requests may use it.
    pub pages: Pages,
}

/// A topic that a reader asked for and may not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicDeniedError {
    /// Nobody may.
    NotServed(Topic),
    /// This one may not.
    NotGranted(Topic),
}

impl Access {
    /// Finds out who asks.
    ///
    /// # Errors
    /// When it is nobody who may read.
    pub async fn admit(&self, request: &HttpRequest) -> Result<Option<Grant>, ReadAuthError> {
        let Self::Token { tokens, cookie } = self else { return Ok(None) };
        let in_cookie = || cookie.as_ref().map(|cookie| cookie.token_of(request)).transpose();
        let token = match request.headers().get(header::AUTHORIZATION) {
            Some(value) => bearer(value.as_bytes()),
            None => in_cookie()?.flatten(),
        };
        let or_cookie = if cookie.is_some() { ", or in the cookie (--read-cookie)" } else { "" };
        let token = token.ok_or(ReadAuthError::NoToken(or_cookie))?;
        tokens.verify(token).await.map(Some)
    }

    /// Finds out for whom a ticket was given out. It is good once.
    ///
    /// # Errors
    /// When it is not, or not any more.
    pub async fn admit_ticket(
        &self,
        ticket: &str,
        log: &Backplane,
    ) -> Result<Grant, ReadAuthError> {
        if matches!(self, Self::Anonymous) {
            return Err(ReadAuthError::NoTicket);
        }
        let kept = log.take_ticket(ticket).await.map_err(|_| ReadAuthError::TicketsUnavailable)?;
        let grant = kept.and_then(|kept| Grant::read(&kept)).ok_or(ReadAuthError::NoTicket)?;
        if grant.expires_ms <= clock::now_ms() {
            return Err(ReadAuthError::Invalid("it has expired"));
        }
        Ok(grant)
    }

    /// Whether readers can be told apart at all.
    pub fn ready(&self) -> bool {
        match self {
            Self::Anonymous => true,
            Self::Token { tokens, .. } => tokens.ready(),
        }
    }
}

impl TokenCookie {
    /// The token in it, if the request has one.
    ///
    /// # Errors
    /// When the request has one and comes from a page that may not use it. Such a page reads no
    /// answer, but it would use up the streams and tickets of the reader who looks at it.
    fn token_of<'a>(&self, request: &'a HttpRequest) -> Result<Option<&'a str>, ReadAuthError> {
        match cookie_of(request, &self.name) {
            Some(_) if !self.pages.may_use_cookies(request.head()) => {
                Err(ReadAuthError::AnotherSite)
            }
            token => Ok(token),
        }
    }
}

/// What a reader follows who asks for some topics, or for all that it may have. `served` are the
/// only ones, if there are any.
///
/// # Errors
/// With the first topic that it may not have.
pub fn choose(
    asked: &[Topic],
    grant: Option<&Grant>,
    served: &[Topic],
) -> Result<TopicSet, TopicDeniedError> {
    // A look into a set each: a thousand topics and a thousand patterns are a million pairs.
    let patterns = grant.map(|grant| TopicSet::matching(&grant.topics));
    let granted = |topic: &Topic| patterns.as_ref().is_none_or(|all| all.contains(topic));
    if let Some(topic) = asked.iter().find(|topic| !granted(topic)) {
        return Err(TopicDeniedError::NotGranted(topic.clone()));
    }
    let is_served = |topic: &Topic| served.is_empty() || served.contains(topic);
    if let Some(topic) = asked.iter().find(|topic| !is_served(topic)) {
        return Err(TopicDeniedError::NotServed(topic.clone()));
    }
    Ok(match grant {
        _ if !asked.is_empty() => TopicSet::new(asked.to_vec()),
        _ if !served.is_empty() => TopicSet::only(served.iter().filter(|t| granted(t)).cloned()),
        _ => patterns.unwrap_or_else(TopicSet::all),
    })
}

fn bearer(authorization: &[u8]) -> Option<&str> {
    let (scheme, token) = authorization.split_at_checked(b"Bearer ".len())?;
    let token = str::from_utf8(token.trim_ascii()).ok()?;
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

/// A cookie's value ([RFC 6265, section 4.2](https://www.rfc-editor.org/rfc/rfc6265#section-4.2)).
/// HTTP/2 may send them in several fields.
fn cookie_of<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    let fields = request.headers().get_all(header::COOKIE);
    let pairs = fields.filter_map(|field| field.to_str().ok()).flat_map(|field| field.split(';'));
    let mut named =
        pairs.filter_map(|pair| pair.trim().split_once('=').filter(|(n, _)| *n == name));
    named.next().map(|(_, value)| value.trim_matches('"'))
}
