//! Readers' tokens: verifies a token and reads the topics that it grants.

use std::sync::{Arc, Mutex, PoisonError};

use jsonwebtoken::{Algorithm, Validation};
use serde_json::{Map, Value};

use crate::{
    auth::{
        error::AuthError,
        grant::{Grant, Holder},
        jwks::{Key, Keys},
        jwt::{self, ClaimReasons, UnverifiedToken},
    },
    clock,
    model::{
        filter::{Filter, FilterCache},
        topic::TopicPattern,
    },
};

/// Verifier of readers' tokens. Accepts the tokens of one issuer.
#[derive(Debug)]
pub struct ReaderVerifier {
    /// Keys of the issuer.
    keys: TokenKeys,
    /// Allowed values of the claim `aud`. Empty: any, also none.
    audiences: Vec<String>,
    /// Allowed values of the claim `iss`. Empty: any, also none.
    issuers: Vec<String>,
    /// Path to the claim that lists the topics, from the outside in.
    topics_claim: Vec<String>,
    /// Filters of earlier tokens.
    filters: Mutex<FilterCache>,
}

/// Keys that verify readers' tokens.
#[derive(Debug)]
pub enum TokenKeys {
    /// Key set of an issuer. The token's `kid` names the key.
    Set(Keys),
    /// Single key for all tokens. The token's `kid` is ignored.
    Single(Key),
}

/// Algorithms of public keys. Symmetric algorithms are excluded: a public key must never be used as
/// a secret, or anyone who has read it could sign.
pub(crate) const ALGORITHMS: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Largest number of topic patterns in a token.
const PATTERNS_MAX: usize = 1_000;

const REASONS: ClaimReasons = ClaimReasons {
    audience: "its aud is not one of --read-audience",
    issuer: "its iss is not one of --read-issuer",
    types: "its claims are not a JSON object",
};

impl ReaderVerifier {
    /// Creates a verifier. Tokens must be for one of `audiences` and from one of `issuers`; an
    /// empty list allows any. `topics_claim` is the path to the claim that lists the topics, with a
    /// dot between the names: `app.topics`.
    pub fn new(
        keys: TokenKeys,
        audiences: &[String],
        issuers: &[String],
        topics_claim: &str,
    ) -> Self {
        Self {
            keys,
            audiences: audiences.to_vec(),
            issuers: issuers.to_vec(),
            topics_claim: topics_claim.split('.').map(str::to_owned).collect(),
            filters: Mutex::default(),
        }
    }

    /// Returns true if the keys that verify tokens are available.
    pub(crate) fn is_ready(&self) -> bool {
        match &self.keys {
            TokenKeys::Set(keys) => keys.is_available(),
            TokenKeys::Single(_) => true,
        }
    }

    /// Verifies a token and returns what it grants.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub async fn verify(&self, token: &[u8]) -> Result<Grant, AuthError> {
        let token = UnverifiedToken::parse(token)?;
        let found;
        let key = match &self.keys {
            TokenKeys::Single(key) => key,
            TokenKeys::Set(keys) => {
                found = token.find_key(keys).await?;
                &*found
            }
        };
        let claims = token.claims(key, &self.validation(key.algorithm), &REASONS)?;
        self.grant(&token, &claims)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = jwt::validation(algorithm);
        let mut required = vec!["exp"];
        validation.validate_aud = !self.audiences.is_empty();
        if !self.audiences.is_empty() {
            required.push("aud");
            validation.set_audience(&self.audiences);
        }
        if !self.issuers.is_empty() {
            required.push("iss");
            validation.set_issuer(&self.issuers);
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    fn grant(
        &self,
        token: &UnverifiedToken<'_>,
        claims: &Map<String, Value>,
    ) -> Result<Grant, AuthError> {
        let expires = claims.get("exp").and_then(Value::as_f64);
        let expires = expires.filter(|seconds| (0.0..1e12).contains(seconds));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked above"
        )]
        let expires_ms =
            (expires.ok_or(AuthError::Invalid("its exp is not a time"))? * 1000.0) as u64;
        // No leeway is added: an expired token would open streams that end at once, again and
        // again.
        if expires_ms <= clock::now_ms() {
            return Err(AuthError::Invalid("it has expired"));
        }
        let text = |name| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let subject: Option<Arc<str>> = text("sub").map(Arc::from);
        let holder = match (&subject, text("jti")) {
            (Some(subject), _) => Holder::Subject(Arc::clone(subject)),
            (None, Some(id)) => Holder::Token(id.into()),
            (None, None) => Holder::of_signed(token.text()),
        };
        let topics = self.patterns(claims)?;
        Ok(Grant { subject, holder, topics, filter: self.filter(claims)?, expires_ms })
    }

    /// Reads the topic patterns: a string, or a list of at most [`PATTERNS_MAX`] strings.
    fn patterns(&self, claims: &Map<String, Value>) -> Result<Arc<[TopicPattern]>, AuthError> {
        let mut names = self.topics_claim.iter();
        let first = names.next().and_then(|name| claims.get(name));
        let found = names.fold(first, |found, name| found?.get(name));
        let texts = match found {
            None => {
                return Err(AuthError::Forbidden(
                    "it has no claim for topics (--read-topics-claim)",
                ));
            }
            Some(Value::String(one)) => vec![one.as_str()],
            Some(Value::Array(all)) if all.len() <= PATTERNS_MAX => {
                let texts: Option<Vec<_>> = all.iter().map(Value::as_str).collect();
                texts.ok_or(AuthError::Invalid(
                    "its claim for topics has a value that is no string",
                ))?
            }
            Some(_) => {
                return Err(AuthError::Invalid(
                    "its claim for topics is not a list of at most 1,000 strings",
                ));
            }
        };
        let patterns: Result<_, _> = texts.into_iter().map(str::parse::<TopicPattern>).collect();
        patterns.map_err(|_| {
            AuthError::Invalid(
                "its claim for topics has a string that is neither a topic name nor a pattern \
                 such as prefix.*",
            )
        })
    }

    /// Reads the claim `filter`. It narrows what the token grants, so that a claim which is no
    /// filter, such as an empty text, is refused and not ignored.
    fn filter(&self, claims: &Map<String, Value>) -> Result<Option<Filter>, AuthError> {
        let Some(claim) = claims.get("filter") else { return Ok(None) };
        let text = claim.as_str().ok_or(AuthError::Forbidden("its claim filter is no string"))?;
        let mut filters = self.filters.lock().unwrap_or_else(PoisonError::into_inner);
        filters.parse(text).map(Some).map_err(AuthError::Filter)
    }
}
