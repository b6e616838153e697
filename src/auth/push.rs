//! Tokens of pushes: verifies the token that Pub/Sub signs each push with
//! (<https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions>).

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;

use crate::auth::{
    error::AuthError,
    jwks::Keys,
    jwt::{self, ClaimReasons, LEEWAY_SECS, UnverifiedToken, bearer},
};

/// Verifier of push tokens. Accepts Google's tokens of the given service accounts for the given
/// audiences, and refuses all others.
#[derive(Debug)]
pub struct Verifier {
    /// Google's key set.
    keys: Keys,
    /// Rules for the registered claims.
    validation: Validation,
    /// Allowed values of the claim `email`.
    service_accounts: HashSet<String>,
    /// Verified tokens. Pub/Sub uses one token for many pushes, for up to an hour: its signature is
    /// checked once. Only verified tokens are stored, so an attacker cannot choose them for their
    /// hashes.
    verified: Mutex<HashMap<Vec<u8>, Verified, foldhash::fast::RandomState>>,
}

#[derive(Debug)]
struct Verified {
    /// Expiry of the token in Unix milliseconds.
    expires_ms: u64,
    /// Key of the token. When the issuer revokes the key, its tokens are refused.
    kid: String,
}

/// Claims of a push token. A field that is not an `Option` is required: a missing claim never
/// passes.
#[derive(Deserialize)]
struct Claims {
    /// Audience: a string and not a list. The validation has compared it.
    #[serde(rename = "aud")]
    _aud: String,
    /// Issuer: a string and not a list (RFC 7519, section 4.1.1). The validation has compared it,
    /// and would accept a list that contains Google.
    #[serde(rename = "iss")]
    _iss: String,
    email: String,
    email_verified: bool,
    /// Expiry in Unix seconds.
    exp: u64,
    /// Time of issue in Unix seconds.
    iat: Option<u64>,
}

/// Both spellings of Google's name in `iss`.
const ISSUERS: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];
/// Largest number of remembered tokens. A subscription uses a new token about once an hour.
const VERIFIED_MAX: usize = 1_024;

const REASONS: ClaimReasons = ClaimReasons {
    audience: "its aud is not one of --push-audience",
    issuer: "its iss is not Google",
    types: "it lacks one of aud, iss, email, email_verified and exp, or has another type",
};

/// Algorithm that Google signs with.
pub const ALGORITHMS: &[Algorithm] = &[Algorithm::RS256];

impl Verifier {
    /// Creates a verifier. Tokens must be for one of `audiences` and of one of `service_accounts`,
    /// compared byte by byte.
    pub fn new(keys: Keys, audiences: &[String], service_accounts: &[String]) -> Self {
        let mut validation = jwt::validation(Algorithm::RS256);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_audience(audiences);
        validation.set_issuer(&ISSUERS);
        Self {
            keys,
            validation,
            service_accounts: service_accounts.iter().cloned().collect(),
            verified: Mutex::default(),
        }
    }

    /// Returns true if the keys that verify tokens are available.
    pub(crate) fn is_ready(&self) -> bool {
        self.keys.is_available()
    }

    /// Verifies the value of an `Authorization` header, and remembers its token.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub async fn verify(&self, authorization: Option<&[u8]>, now_ms: u64) -> Result<(), AuthError> {
        let token = authorization.and_then(bearer).ok_or(AuthError::MissingToken(
            "set --push-auth-service-account on the subscription, so that Pub/Sub sends one",
        ))?;
        let unverified = UnverifiedToken::parse(token)?;
        let key = unverified.find_key(&self.keys).await?;
        let claims: Claims = unverified.claims(&key, &self.validation, &REASONS)?;
        let latest_issue = now_ms / 1000 + LEEWAY_SECS;
        if claims.iat.is_some_and(|issued| latest_issue < issued) {
            return Err(AuthError::Invalid("it was issued in the future"));
        }
        if !claims.email_verified {
            return Err(AuthError::Forbidden("its email is not verified"));
        }
        // Any Google account can get a token for any audience. Only the service account shows that
        // the token is from an accepted sender.
        if !self.service_accounts.contains(&claims.email) {
            return Err(AuthError::Forbidden("its email is not one of --push-service-account"));
        }
        let kid = unverified.kid()?.to_owned();
        self.remember(token, kid, claims.exp.saturating_mul(1000), now_ms);
        Ok(())
    }

    /// Returns true if the value of an `Authorization` header was verified before, the issuer still
    /// has its key, and it has not expired.
    pub fn remembers(&self, authorization: Option<&[u8]>, now_ms: u64) -> bool {
        let Some(token) = authorization.and_then(bearer) else { return false };
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified
            .get(token)
            .is_some_and(|known| now_ms < known.expires_ms && self.keys.contains(&known.kid))
    }

    fn remember(&self, token: &[u8], kid: String, expires_ms: u64, now_ms: u64) {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if VERIFIED_MAX <= verified.len() {
            verified.retain(|_, known| now_ms < known.expires_ms);
        }
        if verified.len() < VERIFIED_MAX {
            verified.insert(token.to_vec(), Verified { expires_ms, kid });
        }
    }
}
