//! Tokens of readers and publishers: verifies a token and reads the topics that it grants.

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

/// Verifier of the tokens of readers and publishers. Accepts the tokens of one issuer.
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

/// Largest number of topic patterns in a claim of a token.
const PATTERNS_MAX: usize = 1_000;

/// Claim that lists the topics to which its bearer may publish.
const PUBLISH_CLAIM: &str = "publish";

/// Use that a request makes of its token. It decides which claim the token must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenUse {
    Read,
    Publish,
}

/// Texts about a claim that does not list topics: it is no list, has a value that is no string, or
/// has a string that is no pattern.
struct PatternErrors {
    list: &'static str,
    text: &'static str,
    pattern: &'static str,
}

const TOPICS_ERRORS: PatternErrors = PatternErrors {
    list: "its claim for topics is not a list of at most 1,000 strings",
    text: "its claim for topics has a value that is no string",
    pattern: "its claim for topics has a string that is neither a topic name nor a pattern \
                    such as prefix.*",
};

const PUBLISH_ERRORS: PatternErrors = PatternErrors {
    list: "its claim publish is not a list of at most 1,000 strings",
    text: "its claim publish has a value that is no string",
    pattern: "its claim publish has a string that is neither a topic name nor a pattern such \
                    as prefix.*",
};

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

    /// Verifies a reader's token and returns what it grants.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub async fn verify(&self, token: &[u8]) -> Result<Grant, AuthError> {
        self.verify_for(token, TokenUse::Read).await
    }

    /// Verifies a publisher's token and returns what it grants. Such a token needs no claim for the
    /// topics to read.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub(crate) async fn verify_publisher(&self, token: &[u8]) -> Result<Grant, AuthError> {
        self.verify_for(token, TokenUse::Publish).await
    }

    async fn verify_for(&self, token: &[u8], token_use: TokenUse) -> Result<Grant, AuthError> {
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
        self.grant(&token, &claims, token_use)
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
        token_use: TokenUse,
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
        let (topics, publish) =
            (self.topics(claims, token_use)?, publish_topics(claims, token_use)?);
        Ok(Grant { subject, holder, topics, publish, filter: self.filter(claims)?, expires_ms })
    }

    /// Reads the topics that the token's bearer may read.
    fn topics(
        &self,
        claims: &Map<String, Value>,
        token_use: TokenUse,
    ) -> Result<Arc<[TopicPattern]>, AuthError> {
        let mut names = self.topics_claim.iter();
        let first = names.next().and_then(|name| claims.get(name));
        let found = names.fold(first, |found, name| found?.get(name));
        match (found, token_use) {
            (Some(claim), _) => patterns(claim, &TOPICS_ERRORS),
            (None, TokenUse::Publish) => Ok(Arc::default()),
            (None, TokenUse::Read) => {
                Err(AuthError::Forbidden("it has no claim for topics (--read-topics-claim)"))
            }
        }
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

/// Reads the topics to which the token's bearer may publish. A claim of another form grants none to
/// a reader, whose issuer may use the name for something else.
fn publish_topics(
    claims: &Map<String, Value>,
    token_use: TokenUse,
) -> Result<Arc<[TopicPattern]>, AuthError> {
    match (claims.get(PUBLISH_CLAIM), token_use) {
        (Some(claim), TokenUse::Publish) => patterns(claim, &PUBLISH_ERRORS),
        (claim, TokenUse::Read) => {
            let granted = claim.and_then(|claim| patterns(claim, &PUBLISH_ERRORS).ok());
            Ok(granted.unwrap_or_default())
        }
        (None, TokenUse::Publish) => Err(AuthError::Forbidden(
            "it has no claim publish, which lists the topics to which its bearer may publish",
        )),
    }
}

/// Reads the topic patterns of a claim: a string, or a list of at most [`PATTERNS_MAX`] strings.
fn patterns(claim: &Value, errors: &PatternErrors) -> Result<Arc<[TopicPattern]>, AuthError> {
    let texts = match claim {
        Value::String(one) => vec![one.as_str()],
        Value::Array(all) if all.len() <= PATTERNS_MAX => {
            let texts: Option<Vec<_>> = all.iter().map(Value::as_str).collect();
            texts.ok_or(AuthError::Invalid(errors.text))?
        }
        _ => return Err(AuthError::Invalid(errors.list)),
    };
    let patterns: Result<_, _> = texts.into_iter().map(str::parse::<TopicPattern>).collect();
    patterns.map_err(|_| AuthError::Invalid(errors.pattern))
}
