//! Checks that all tokens share: size, header, key, signature and registered claims.
//!
//! An [`UnverifiedToken`] gives its claims only in exchange for a key, after all checks.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header, errors::ErrorKind};
use serde::de::DeserializeOwned;

use crate::auth::{
    error::AuthError,
    jwks::{Key, Keys, Lookup},
};

/// Largest difference between the issuer's clock and this host's, in seconds.
pub(super) const LEEWAY_SECS: u64 = 30;
/// Largest token that is decoded, in bytes. Google's tokens have about 1 kB.
const TOKEN_MAX_BYTES: usize = 8 * 1024;

/// Returns the token of an `Authorization` header: `Bearer` in any case, and a token that is not
/// empty.
pub(super) fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(b"Bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

/// Returns the rules for registered claims that all tokens share. Callers add the audience, the
/// issuer and the required claims.
pub(super) fn validation(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.validate_nbf = true;
    validation.leeway = LEEWAY_SECS;
    validation
}

/// Reasons for wrong claims, which differ by the kind of token.
#[derive(Debug)]
pub(super) struct ClaimReasons {
    pub(super) audience: &'static str,
    pub(super) issuer: &'static str,
    /// Reason for claims that lack a field or have a field of another type.
    pub(super) types: &'static str,
}

/// Token whose signature and claims are not checked yet.
#[derive(Debug)]
pub(super) struct UnverifiedToken<'a> {
    text: &'a str,
    header: Header,
}

impl<'a> UnverifiedToken<'a> {
    /// Decodes the header of a token.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] when the token is too long or not a JWT, or has a `crit` header.
    pub(super) fn parse(token: &'a [u8]) -> Result<Self, AuthError> {
        if TOKEN_MAX_BYTES < token.len() {
            return Err(AuthError::Invalid("it is longer than 8 KiB"));
        }
        let not_a_jwt = AuthError::Invalid("it is not a JWT");
        let Ok(text) = str::from_utf8(token) else { return Err(not_a_jwt) };
        let Ok(header) = decode_header(text) else { return Err(not_a_jwt) };
        // RFC 7515, section 4.1.11: `crit` names extensions that must be understood. This program
        // supports none.
        if header.crit.is_some() {
            return Err(AuthError::Invalid("it has a crit header, which is not supported"));
        }
        Ok(Self { text, header })
    }

    /// Returns the encoded token.
    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// Finds the key that the token's `kid` names. `jku` and `x5u`, which could name a key of an
    /// attacker, are ignored.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] when no key of the set can have signed the token, and
    /// [`AuthError::KeysUnavailable`] when there is no key set.
    pub(super) async fn find_key(&self, keys: &Keys) -> Result<Arc<Key>, AuthError> {
        // Checked before the search, so that a forged `alg` causes no fetch.
        if !keys.algorithms().contains(&self.header.alg) {
            return Err(AuthError::Invalid("its alg is not one that the issuer's keys are for"));
        }
        let kid = self.kid()?;
        match keys.find(kid).await {
            Lookup::Known(key) => Ok(key),
            Lookup::Unknown => Err(AuthError::Invalid("its kid is not in the issuer's key set")),
            Lookup::Unavailable => Err(AuthError::KeysUnavailable(keys.token_kind())),
        }
    }

    /// Returns the id of the key that the token claims to be signed with.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] when it has none.
    pub(super) fn kid(&self) -> Result<&str, AuthError> {
        self.header.kid.as_deref().ok_or(AuthError::Invalid("it has no kid"))
    }

    /// Verifies the signature and the registered claims, and returns the claims.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] when any check fails.
    pub(super) fn claims<C: DeserializeOwned>(
        &self,
        key: &Key,
        validation: &Validation,
        reasons: &ClaimReasons,
    ) -> Result<C, AuthError> {
        // The key decides the algorithm, never the token. The classic forgeries are `none`, and
        // HS256 with a public key as the secret.
        if self.header.alg != key.algorithm {
            return Err(AuthError::Invalid("its alg is not the algorithm of its key"));
        }
        match decode::<C>(self.text, &key.key, validation) {
            Ok(token) => Ok(token.claims),
            Err(err) => Err(AuthError::Invalid(match err.kind() {
                ErrorKind::InvalidSignature => "its signature does not match",
                ErrorKind::ExpiredSignature => "it has expired",
                ErrorKind::ImmatureSignature => "it is not valid yet",
                ErrorKind::InvalidAudience => reasons.audience,
                ErrorKind::InvalidIssuer => reasons.issuer,
                ErrorKind::MissingRequiredClaim(_) => "it lacks one of exp, aud and iss",
                ErrorKind::Json(_) => reasons.types,
                _ => "it is malformed",
            })),
        }
    }
}
