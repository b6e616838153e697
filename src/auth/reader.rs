//! Verifies the token that a reader brings, and reads what it may see.

use std::{fs, path::Path, sync::Arc};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, errors::ErrorKind};
use memchr::memmem;
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer, pem::PemObject as _};
use serde_json::{Map, Value};

use crate::{
    auth::{
        grant::{Grant, Holder},
        jwks::{Key, Keys, Lookup},
    },
    clock,
    model::topic::TopicPattern,
};

/// Lets in readers with a token of the issuer.
#[derive(Debug)]
pub struct Tokens {
    keys: TokenKeys,
    audiences: Vec<String>,
    issuers: Vec<String>,
    /// Where in the claims the topics are.
    topics_claim: Vec<String>,
}

/// The keys of readers' tokens.
#[derive(Debug)]
pub enum TokenKeys {
    /// An issuer's key set.
    Set(Keys),
    /// One key, whatever the `kid`.
    Permit(Key),
}

/// Why a token is not let in. The texts tell its sender no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadAuthError {
    /// 401.
    #[error("no token: send it in the Authorization header (Bearer){0}")]
    NoToken(&'static str),
    /// 401.
    #[error("the token is not valid: {0}")]
    Invalid(&'static str),
    /// 403.
    #[error("the token is valid, but {0}")]
    Forbidden(&'static str),
    /// 401.
    #[error("the ticket is not valid: each is good for one stream, within 30 s")]
    NoTicket,
    /// 403.
    #[error(
        "the request comes from a page of another site (Sec-Fetch-Site), which may not use the \
         reader's cookie: list the page's origin (--cors-origin), or send the token in the \
         Authorization header"
    )]
    AnotherSite,
    /// 503. The token may well be valid.
    #[error(
        "readers' tokens cannot be verified yet, since the issuer's keys are not there \
         (--read-jwks-url): try again later"
    )]
    KeysUnavailable,
    /// 503. The ticket may well be valid.
    #[error(
        "the store of tickets (Redis, --backplane) did not answer, so the ticket cannot be looked \
         up: try again later"
    )]
    TicketsUnavailable,
}

/// What public keys may be for. A symmetric algorithm never goes with a public key, or whoever has
/// read it could sign.
pub const ALGORITHMS: &[Algorithm] = &[
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

/// How far the issuer's clock and ours may be apart.
const LEEWAY_SECS: u64 = 30;
/// Far more than an honest token has; nothing larger is decoded.
const TOKEN_MAX_BYTES: usize = 8 * 1024;
/// Patterns of topics in one token.
const PATTERNS_MAX: usize = 1_000;
/// A shorter secret can be guessed from one token (RFC 7518, section 3.2).
const SECRET_MIN_BYTES: usize = 32;

impl Tokens {
    /// Tokens must be for one of `audiences` and from one of `issuers`, if there are any. Their
    /// topics are at `topics_claim`, with dots between the names on the way.
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
        }
    }

    /// Whether tokens can be verified at all.
    pub fn ready(&self) -> bool {
        match &self.keys {
            TokenKeys::Set(keys) => keys.available(),
            TokenKeys::Permit(_) => true,
        }
    }

    /// Checks a token.
    ///
    /// # Errors
    /// See [`ReadAuthError`].
    pub async fn verify(&self, token: &str) -> Result<Grant, ReadAuthError> {
        if TOKEN_MAX_BYTES < token.len() {
            return Err(ReadAuthError::Invalid("it is too long"));
        }
        let header = decode_header(token).map_err(|_| ReadAuthError::Invalid("it is no JWT"))?;
        // An extension that must be understood, and is not (RFC 7515, section 4.1.11).
        if header.crit.is_some() {
            return Err(ReadAuthError::Invalid("it has a crit header"));
        }
        let found;
        let key = match &self.keys {
            TokenKeys::Permit(key) => key,
            TokenKeys::Set(keys) => {
                let kid = header.kid.as_deref().ok_or(ReadAuthError::Invalid("it has no kid"))?;
                found = match keys.find(kid).await {
                    Lookup::Known(key) => key,
                    Lookup::Unknown => {
                        return Err(ReadAuthError::Invalid("its kid is none of the issuer's"));
                    }
                    Lookup::Unavailable => return Err(ReadAuthError::KeysUnavailable),
                };
                &*found
            }
        };
        // The key decides: `none`, and HS256 with a public key as the secret, are the classic
        // forgeries.
        if header.alg != key.algorithm {
            return Err(ReadAuthError::Invalid("its alg is not its key's"));
        }
        let claims = decode::<Map<String, Value>>(token, &key.key, &self.validation(key.algorithm))
            .map_err(|err| ReadAuthError::Invalid(reason(err.kind())))?
            .claims;
        self.grant(token, &claims)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        let mut required = vec!["exp"];
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECS;
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

    fn grant(&self, token: &str, claims: &Map<String, Value>) -> Result<Grant, ReadAuthError> {
        // It is to narrow what its reader sees: whoever cannot apply it must not let it pass.
        if claims.contains_key("filter") {
            return Err(ReadAuthError::Forbidden(
                "its claim filter is not supported by this gateway",
            ));
        }
        let expires = claims.get("exp").and_then(Value::as_f64);
        let expires = expires.filter(|seconds| (0.0..1e12).contains(seconds));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked above"
        )]
        let expires_ms =
            (expires.ok_or(ReadAuthError::Invalid("its exp is no time"))? * 1000.0) as u64;
        // To the second, without leeway: it would open a stream that ends at once, again and again.
        if expires_ms <= clock::now_ms() {
            return Err(ReadAuthError::Invalid("it has expired"));
        }
        let text = |name| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let subject: Option<Arc<str>> = text("sub").map(Arc::from);
        let holder = match (&subject, text("jti")) {
            (Some(subject), _) => Holder::Subject(Arc::clone(subject)),
            (None, Some(id)) => Holder::Token(id.into()),
            (None, None) => Holder::of_signed(token),
        };
        Ok(Grant { subject, holder, topics: self.patterns(claims)?, expires_ms })
    }

    fn patterns(&self, claims: &Map<String, Value>) -> Result<Arc<[TopicPattern]>, ReadAuthError> {
        let mut names = self.topics_claim.iter();
        let first = names.next().and_then(|name| claims.get(name));
        let found = names.fold(first, |found, name| found?.get(name));
        let texts = match found {
            None => return Err(ReadAuthError::Forbidden("it has no claim for topics")),
            Some(Value::String(one)) => vec![one.as_str()],
            Some(Value::Array(all)) if all.len() <= PATTERNS_MAX => {
                let texts: Option<Vec<_>> = all.iter().map(Value::as_str).collect();
                texts.ok_or(ReadAuthError::Invalid("its claim for topics holds what is no text"))?
            }
            Some(_) => {
                return Err(ReadAuthError::Invalid("its claim for topics is no list of names"));
            }
        };
        let patterns: Result<_, _> = texts.into_iter().map(str::parse::<TopicPattern>).collect();
        patterns.map_err(|_| {
            ReadAuthError::Invalid("its claim for topics holds neither a topic's name nor prefix.*")
        })
    }
}

fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidSignature => "its signature does not match",
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::ImmatureSignature => "it is not valid yet",
        ErrorKind::InvalidAudience => "its aud is not one of --read-audience",
        ErrorKind::InvalidIssuer => "its iss is not one of --read-issuer",
        ErrorKind::MissingRequiredClaim(_) => "it lacks one of exp, aud and iss",
        _ => "it is malformed",
    }
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadKeyError {
    #[error("cannot read {0}: {1}")]
    Unreadable(String, std::io::Error),
    #[error(
        "{0} holds a private key, which only the tokens' issuer should have: give the public key"
    )]
    Private(String),
    #[error("{0} holds no public key that is known here: RSA, P-256, P-384 or Ed25519, in PEM")]
    Unknown(String),
    #[error("{0} holds JSON: a key set is given by its URL (--read-jwks-url), a key in PEM")]
    KeySet(String),
    #[error("{0} holds a secret of {1} bytes; at least {SECRET_MIN_BYTES} are safe")]
    Short(String, usize),
}

/// Reads a key: a public one in PEM, or a shared secret, for HS256.
///
/// # Errors
/// See [`ReadKeyError`].
pub fn load_key(path: &Path) -> Result<Key, ReadKeyError> {
    let name = || path.display().to_string();
    let bytes = fs::read(path).map_err(|err| ReadKeyError::Unreadable(name(), err))?;
    if PrivateKeyDer::from_pem_slice(&bytes).is_ok() {
        return Err(ReadKeyError::Private(name()));
    }
    // Wherever it stands: what is public must never be taken for a secret, or anyone could sign.
    if memmem::find(&bytes, b"-----BEGIN").is_some() {
        return public_key(&bytes).ok_or_else(|| ReadKeyError::Unknown(name()));
    }
    if serde_json::from_slice::<Value>(&bytes).is_ok_and(|json| json.is_object()) {
        return Err(ReadKeyError::KeySet(name()));
    }
    // Who writes it with an editor or `openssl rand -base64 32` ends it with a line end.
    let secret = bytes.trim_ascii_end();
    if secret.len() < SECRET_MIN_BYTES {
        return Err(ReadKeyError::Short(name(), secret.len()));
    }
    Ok(Key { key: DecodingKey::from_secret(secret), algorithm: Algorithm::HS256 })
}

/// The identifiers of keys and curves, as they are encoded
/// ([RFC 3279](https://www.rfc-editor.org/rfc/rfc3279),
/// [RFC 5480](https://www.rfc-editor.org/rfc/rfc5480),
/// [RFC 8410](https://www.rfc-editor.org/rfc/rfc8410)).
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

fn public_key(pem: &[u8]) -> Option<Key> {
    let info = SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?;
    // The identifiers stand at its beginning; what follows is the key.
    let beginning = info.get(..info.len().min(32))?;
    let is = |id: &[u8]| beginning.windows(id.len()).any(|part| part == id);
    let (key, algorithm) = if is(RSA) {
        (DecodingKey::from_rsa_pem(pem), Algorithm::RS256)
    } else if is(P256) {
        (DecodingKey::from_ec_pem(pem), Algorithm::ES256)
    } else if is(P384) {
        (DecodingKey::from_ec_pem(pem), Algorithm::ES384)
    } else if is(ED25519) {
        (DecodingKey::from_ed_pem(pem), Algorithm::EdDSA)
    } else {
        return None;
    };
    Some(Key { key: key.ok()?, algorithm })
}
