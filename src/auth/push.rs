//! Verifies the token that Pub/Sub signs each push with
//! (<https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions>).

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use jsonwebtoken::{Algorithm, Validation, decode, decode_header, errors::ErrorKind};
use serde::Deserialize;

use crate::auth::jwks::{Keys, Lookup};

/// Lets in Pub/Sub's tokens of the given service accounts for the given audiences, and nothing
/// else.
#[derive(Debug)]
pub struct Verifier {
    keys: Keys,
    validation: Validation,
    service_accounts: HashSet<String>,
    /// Pub/Sub uses one token for many pushes, for up to an hour: its signature is checked once.
    /// Only tokens that were verified are in here, so nobody can choose them for their hashes.
    verified: Mutex<HashMap<Vec<u8>, Verified, foldhash::fast::RandomState>>,
}

#[derive(Debug)]
struct Verified {
    expires_ms: u64,
    /// A key that the issuer took back takes its tokens with it.
    kid: String,
}

/// Why a push is not let in. The texts tell its sender no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushAuthError {
    /// 401.
    #[error("no bearer token: is the subscription set up with --push-auth-service-account?")]
    NoToken,
    /// 401.
    #[error("the token is not valid: {0}")]
    Invalid(&'static str),
    /// 403.
    #[error("the token is valid, but {0}")]
    Forbidden(&'static str),
    /// 503: it may well be valid.
    #[error("the issuer's keys are not available")]
    Unavailable,
}

/// All of them required: a claim that is missing is never a claim that holds.
#[derive(Deserialize)]
struct Claims {
    /// One text and not a list. The validation has compared it.
    #[serde(rename = "aud")]
    _aud: String,
    /// So is this (RFC 7519, section 4.1.1): the validation would take a list with Google in it.
    #[serde(rename = "iss")]
    _iss: String,
    email: String,
    email_verified: bool,
    exp: u64,
    iat: Option<u64>,
}

/// Google writes its own name in these two ways.
const ISSUERS: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];
/// How far the issuer's clock and ours may be apart.
const LEEWAY_SECS: u64 = 30;
/// Google's tokens have about 1 kB; the rest is not worth a look.
const TOKEN_MAX_BYTES: usize = 8 * 1024;
/// Tokens remembered. One subscription uses a new one each hour or so.
const VERIFIED_MAX: usize = 1_024;

/// What Google signs with.
pub const ALGORITHMS: &[Algorithm] = &[Algorithm::RS256];

impl Verifier {
    /// Tokens must be for one of `audiences` and of one of `service_accounts`, to the letter.
    pub fn new(keys: Keys, audiences: &[String], service_accounts: &[String]) -> Self {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_audience(audiences);
        validation.set_issuer(&ISSUERS);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECS;
        Self {
            keys,
            validation,
            service_accounts: service_accounts.iter().cloned().collect(),
            verified: Mutex::default(),
        }
    }

    /// Whether tokens can be verified at all.
    pub fn ready(&self) -> bool {
        self.keys.available()
    }

    /// Checks the value of an `Authorization` header.
    ///
    /// # Errors
    /// See [`PushAuthError`].
    pub async fn verify(
        &self,
        authorization: Option<&[u8]>,
        now_ms: u64,
    ) -> Result<(), PushAuthError> {
        let token = authorization.and_then(bearer).ok_or(PushAuthError::NoToken)?;
        if TOKEN_MAX_BYTES < token.len() {
            return Err(PushAuthError::Invalid("it is too long"));
        }
        let token = str::from_utf8(token).map_err(|_| PushAuthError::Invalid("it is no JWT"))?;
        let header = decode_header(token).map_err(|_| PushAuthError::Invalid("it is no JWT"))?;
        // Never by what the token says: `none`, and HS256 with our public key as the secret, are
        // the classic forgeries. So are `jku` and `x5u`, which nothing here follows.
        if header.alg != Algorithm::RS256 {
            return Err(PushAuthError::Invalid("its alg is not RS256"));
        }
        // An extension that must be understood, and is not (RFC 7515, section 4.1.11).
        if header.crit.is_some() {
            return Err(PushAuthError::Invalid("it has a crit header"));
        }
        let kid = header.kid.ok_or(PushAuthError::Invalid("it has no kid"))?;
        let key = match self.keys.find(&kid).await {
            Lookup::Known(key) => key,
            Lookup::Unknown => {
                return Err(PushAuthError::Invalid("its kid is none of the issuer's"));
            }
            Lookup::Unavailable => return Err(PushAuthError::Unavailable),
        };
        let claims = decode::<Claims>(token, &key.key, &self.validation)
            .map_err(|err| PushAuthError::Invalid(reason(err.kind())))?
            .claims;
        let latest_issue = now_ms / 1000 + LEEWAY_SECS;
        if claims.iat.is_some_and(|issued| latest_issue < issued) {
            return Err(PushAuthError::Invalid("it was issued in the future"));
        }
        if !claims.email_verified {
            return Err(PushAuthError::Forbidden("its email is not verified"));
        }
        // Any Google account can get a token for any audience: only this tells ours from theirs.
        if !self.service_accounts.contains(&claims.email) {
            return Err(PushAuthError::Forbidden("not of an allowed service account"));
        }
        self.remember(token, kid, claims.exp.saturating_mul(1000), now_ms);
        Ok(())
    }

    /// Whether the value of an `Authorization` header was verified before, its key is still the
    /// issuer's, and it has not expired.
    pub fn remembers(&self, authorization: Option<&[u8]>, now_ms: u64) -> bool {
        let Some(token) = authorization.and_then(bearer) else { return false };
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified
            .get(token)
            .is_some_and(|known| now_ms < known.expires_ms && self.keys.has(&known.kid))
    }

    fn remember(&self, token: &str, kid: String, expires_ms: u64, now_ms: u64) {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if VERIFIED_MAX <= verified.len() {
            verified.retain(|_, known| now_ms < known.expires_ms);
        }
        if verified.len() < VERIFIED_MAX {
            verified.insert(token.as_bytes().to_vec(), Verified { expires_ms, kid });
        }
    }
}

fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(b"Bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidSignature => "its signature does not match",
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::ImmatureSignature => "it is not valid yet",
        ErrorKind::InvalidAudience => "its aud is not one of --push-audience",
        ErrorKind::InvalidIssuer => "its iss is not Google",
        ErrorKind::MissingRequiredClaim(_) => "it lacks one of exp, iss and aud",
        ErrorKind::Json(_) => {
            "it lacks one of aud, iss, email, email_verified and exp, or has another type"
        }
        _ => "it is malformed",
    }
}
