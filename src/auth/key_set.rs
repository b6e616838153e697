//! The key set (JWKS) of a token issuer: fetches and parses it.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use prometheus::IntCounterVec;
use reqwest::{StatusCode, header};
use serde::Deserialize;

/// Address of an issuer's key set, and the keys to take from it.
#[derive(Debug)]
pub struct KeySource {
    /// URL of the key set.
    pub url: String,
    /// Kind of tokens that the keys verify, for logs and errors: `push tokens`.
    pub token_kind: &'static str,
    /// Algorithms to verify tokens with. Keys for other algorithms are ignored.
    pub algorithms: &'static [Algorithm],
    /// Counter of fetches by `result`.
    pub fetches: IntCounterVec,
}

/// Public key, or shared secret, of an issuer.
pub struct Key {
    /// Key material.
    pub key: DecodingKey,
    /// Algorithm of the signatures that the key verifies; signatures with another one are refused.
    /// The `alg` of a token must equal it, and decides nothing.
    pub algorithm: Algorithm,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// Keys of an issuer by their `kid`.
pub(super) type KeysByKid = HashMap<String, Arc<Key>>;

/// Reason why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("the status of the answer is {0}, expected 200")]
    Status(StatusCode),
    #[error("the answer is larger than {BODY_MAX_BYTES} bytes")]
    TooLarge,
    #[error("the answer is not a JSON key set: {0}")]
    NotAKeySet(#[from] serde_json::Error),
    #[error("the key set has no key with a kid for signatures with one of {0:?}")]
    NoUsableKey(&'static [Algorithm]),
}

#[derive(Deserialize)]
struct KeySetJson {
    keys: Vec<serde_json::Value>,
}

/// Largest answer that is read as a key set.
const BODY_MAX_BYTES: usize = 1024 * 1024;
/// Largest number of keys in a set. Further keys are ignored.
const KEYS_MAX: usize = 100;
/// Length of a 2048-bit modulus in base64url. A shorter RSA key can be broken.
const MODULUS_MIN_CHARS: usize = 342;
/// Age of an answer that names none in its `Cache-Control`.
const AGE_DEFAULT: Duration = Duration::from_secs(3600);

/// Fetches a key set. Returns its usable keys, of which there is at least one, and how long the
/// answer may be kept.
///
/// # Errors
/// See [`FetchError`].
pub(super) async fn fetch(
    client: &reqwest::Client,
    source: &KeySource,
) -> Result<(KeysByKid, Duration), FetchError> {
    let mut response = client.get(&source.url).send().await?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let age = max_age(response.headers()).unwrap_or(AGE_DEFAULT);
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if BODY_MAX_BYTES < body.len() + chunk.len() {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    let set: KeySetJson = serde_json::from_slice(&body)?;
    let keys = set.keys.into_iter().take(KEYS_MAX);
    let by_kid: KeysByKid = keys.filter_map(|key| usable_key(key, source.algorithms)).collect();
    if by_kid.is_empty() {
        return Err(FetchError::NoUsableKey(source.algorithms));
    }
    Ok((by_kid, age))
}

/// Parses a key that verifies signatures with one of `algorithms`, and its `kid`. Returns `None`
/// for any other key: an issuer may add keys of other kinds at any time.
fn usable_key(value: serde_json::Value, algorithms: &[Algorithm]) -> Option<(String, Arc<Key>)> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let algorithm = algorithm_of(&jwk).filter(|algorithm| algorithms.contains(algorithm))?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some((jwk.common.key_id?, Arc::new(Key { key, algorithm })))
}

/// Returns the algorithm of a key: the `alg` of the key if its type allows that algorithm, or the
/// usual algorithm of its type if it has no `alg`. A symmetric key does not belong into a public
/// set and has none.
fn algorithm_of(jwk: &Jwk) -> Option<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let possible: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) if MODULUS_MIN_CHARS <= rsa.n.len() => {
            &[RS256, RS384, RS512, PS256, PS384, PS512]
        }
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => &[ES256],
            EllipticCurve::P384 => &[ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(_) => &[EdDSA],
        _ => return None,
    };
    match jwk.common.key_algorithm {
        None => possible.first().copied(),
        Some(named) => possible.iter().copied().find(|one| KeyAlgorithm::from(*one) == named),
    }
}

/// Returns how long an answer may be kept: `max-age` less `Age`
/// ([RFC 9111, section 4.2](https://www.rfc-editor.org/rfc/rfc9111#section-4.2)).
fn max_age(headers: &header::HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let control = text(header::CACHE_CONTROL)?;
    let seconds: u64 = control
        .split(',')
        .filter_map(|directive| directive.trim().strip_prefix("max-age="))
        .find_map(|seconds| seconds.trim_matches('"').parse().ok())?;
    let age: u64 = text(header::AGE).and_then(|age| age.parse().ok()).unwrap_or(0);
    Some(Duration::from_secs(seconds.saturating_sub(age)))
}
