//! Access of publishers: admits a request, and decides to which topics its client may publish.

use std::{net::IpAddr, sync::Arc};

use actix_http::RequestHead;
use actix_web::HttpRequest;

use crate::{
    auth::{access::TokenCheck, error::AuthError, grant::Grant},
    http::cors::Pages,
    model::topic::{Topic, TopicPattern},
};

/// Rule for publishers. A closed set: one variant for each value of `--publish-auth` but `off`.
#[derive(Debug)]
pub enum PublishAccess {
    /// Any client may publish to every served topic, without a token.
    Anyone,
    /// A publisher needs a token, and may publish to the topics that the token grants.
    Token(Arc<TokenCheck>),
}

/// Client that may publish.
#[derive(Debug, Clone)]
pub struct Publisher {
    /// Subject of the client's token. `None` if publishers need no token.
    pub(crate) subject: Option<Arc<str>>,
    /// Address that limits count. `None` if it is not known.
    pub(crate) address: Option<IpAddr>,
    /// Topics to which the client may publish. `None` for all.
    topics: Option<Arc<[TopicPattern]>>,
}

/// Longest subject that may publish, in bytes. Subjects of the standard OIDC have at most 255.
pub(crate) const SUBJECT_MAX_BYTES: usize = 256;

impl PublishAccess {
    /// Verifies the request's token and returns its grant, or `None` if publishers need no token. A
    /// token in the `Authorization` header has precedence over one in the cookie.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub(crate) async fn admit(&self, request: &HttpRequest) -> Result<Option<Grant>, AuthError> {
        let Self::Token(check) = self else { return Ok(None) };
        let may_use = |pages: &Pages, head: &RequestHead| {
            pages.may_publish_with_cookies(head).then_some(()).ok_or(AuthError::UnknownPage)
        };
        let token = check.token_of(request, may_use)?;
        check.verifier.verify_publisher(token).await.map(Some)
    }

    /// Returns the publisher that a grant makes of the client at `address`. The grant is that of
    /// the client's token, which has been verified and has not expired; it is ignored if publishers
    /// need no token.
    ///
    /// # Errors
    /// [`AuthError::MissingToken`] without a grant, and [`AuthError::Forbidden`] if the grant names
    /// no topic to publish to, or has no subject, or one that is too long.
    pub(crate) fn publisher(
        &self,
        grant: Option<&Grant>,
        address: Option<IpAddr>,
    ) -> Result<Publisher, AuthError> {
        if matches!(self, Self::Anyone) {
            return Ok(Publisher { subject: None, address, topics: None });
        }
        let grant = grant.ok_or(AuthError::MissingToken("publishing needs one"))?;
        if grant.publish.is_empty() {
            return Err(AuthError::Forbidden(
                "it grants no topic to publish to, which its claim publish would list",
            ));
        }
        let subject = grant.subject.clone();
        let subject =
            subject.ok_or(AuthError::Forbidden("it has no subject (sub) to publish as"))?;
        if SUBJECT_MAX_BYTES < subject.len() {
            return Err(AuthError::Forbidden("its subject (sub) is longer than 256 bytes"));
        }
        let topics = Some(Arc::clone(&grant.publish));
        Ok(Publisher { subject: Some(subject), address, topics })
    }

    /// Returns true if publishers can be admitted: no tokens are needed, or their keys are
    /// available.
    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Self::Anyone => true,
            Self::Token(check) => check.verifier.is_ready(),
        }
    }
}

impl Publisher {
    /// Returns true if the client may publish to `topic`.
    pub(crate) fn may_publish(&self, topic: &Topic) -> bool {
        let all = self.topics.as_deref();
        all.is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(topic)))
    }
}
