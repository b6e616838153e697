//! Key files: loads the key that verifies readers' tokens (`--read-key-file`) or signs them.

use std::{fs, path::Path};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use memchr::memmem;
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer, pem::PemObject as _};
use serde_json::Value;

use crate::auth::jwks::Key;

/// Reason why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("cannot read {0}: {1}")]
    Unreadable(String, std::io::Error),
    /// The file has a private key.
    #[error(
        "{0} holds a private key, which only the tokens' issuer should have: give the public key"
    )]
    Private(String),
    /// The file has no key of a supported kind.
    #[error("{0} holds no public key of a supported kind: RSA, P-256, P-384 or Ed25519, in PEM")]
    Unknown(String),
    /// The file has a public key, which cannot sign.
    #[error("{0} holds a public key, which cannot sign tokens: give the private key")]
    Public(String),
    /// The file has a private key of a kind that is not supported.
    #[error(
        "{0} holds no private key of a supported kind: RSA, P-256, P-384 or Ed25519, in PEM (PKCS #8)"
    )]
    UnknownPrivate(String),
    /// The file has a key set and not one key.
    #[error(
        "{0} holds JSON, expected a key in PEM: give a key set by its URL with --read-jwks-url"
    )]
    KeySet(String),
    /// The secret of the file has too few bytes.
    #[error("{0} holds a secret of {1} bytes; at least {SECRET_MIN_BYTES} are safe")]
    Short(String, usize),
}

/// Shortest secret, in bytes. A shorter one can be guessed from one token (RFC 7518, section 3.2).
const SECRET_MIN_BYTES: usize = 32;

/// Loads a key: a public key in PEM, or a shared secret for HS256.
///
/// # Errors
/// See [`KeyFileError`].
pub fn load_key(path: &Path) -> Result<Key, KeyFileError> {
    let name = || path.display().to_string();
    let bytes = fs::read(path).map_err(|err| KeyFileError::Unreadable(name(), err))?;
    if PrivateKeyDer::from_pem_slice(&bytes).is_ok() {
        return Err(KeyFileError::Private(name()));
    }
    // Searches the whole file: a public key must never be used as a secret, or anyone could sign.
    if memmem::find(&bytes, b"-----BEGIN").is_some() {
        return public_key(&bytes).ok_or_else(|| KeyFileError::Unknown(name()));
    }
    if serde_json::from_slice::<Value>(&bytes).is_ok_and(|json| json.is_object()) {
        return Err(KeyFileError::KeySet(name()));
    }
    // Editors and `openssl rand -base64 32` add a line end, which is not part of the secret.
    let secret = bytes.trim_ascii_end();
    if secret.len() < SECRET_MIN_BYTES {
        return Err(KeyFileError::Short(name(), secret.len()));
    }
    Ok(Key { key: DecodingKey::from_secret(secret), algorithm: Algorithm::HS256 })
}

/// Loads a key that signs tokens, for development: a private key in PEM (PKCS #8), or a shared
/// secret for HS256.
///
/// # Errors
/// See [`KeyFileError`].
pub(crate) fn load_signing_key(path: &Path) -> Result<(EncodingKey, Algorithm), KeyFileError> {
    let name = || path.display().to_string();
    let bytes = fs::read(path).map_err(|err| KeyFileError::Unreadable(name(), err))?;
    let Ok(private) = PrivateKeyDer::from_pem_slice(&bytes) else {
        let key = load_key(path)?;
        if key.algorithm != Algorithm::HS256 {
            return Err(KeyFileError::Public(name()));
        }
        return Ok((EncodingKey::from_secret(bytes.trim_ascii_end()), Algorithm::HS256));
    };
    let (key, algorithm) = match algorithm_of(private.secret_der()) {
        Some(algorithm @ Algorithm::RS256) => (EncodingKey::from_rsa_pem(&bytes), algorithm),
        Some(algorithm @ Algorithm::EdDSA) => (EncodingKey::from_ed_pem(&bytes), algorithm),
        Some(algorithm) => (EncodingKey::from_ec_pem(&bytes), algorithm),
        None => return Err(KeyFileError::UnknownPrivate(name())),
    };
    Ok((key.map_err(|_| KeyFileError::UnknownPrivate(name()))?, algorithm))
}

/// Encoded identifiers of key types and curves
/// ([RFC 3279](https://www.rfc-editor.org/rfc/rfc3279),
/// [RFC 5480](https://www.rfc-editor.org/rfc/rfc5480),
/// [RFC 8410](https://www.rfc-editor.org/rfc/rfc8410)).
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
/// Length of the part of an encoded key that holds the identifiers. The key follows them.
const IDENTIFIERS_BYTES: usize = 32;

/// Parses a public key in PEM. Returns `None` for any other kind of key.
fn public_key(pem: &[u8]) -> Option<Key> {
    let algorithm = algorithm_of(&SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?)?;
    let key = match algorithm {
        Algorithm::RS256 => DecodingKey::from_rsa_pem(pem),
        Algorithm::EdDSA => DecodingKey::from_ed_pem(pem),
        _ => DecodingKey::from_ec_pem(pem),
    };
    Some(Key { key: key.ok()?, algorithm })
}

/// Returns the algorithm of an encoded key. Returns `None` for any other kind of key.
fn algorithm_of(key: &[u8]) -> Option<Algorithm> {
    let beginning = key.get(..key.len().min(IDENTIFIERS_BYTES))?;
    let is = |id: &[u8]| beginning.windows(id.len()).any(|part| part == id);
    let known = [
        (RSA, Algorithm::RS256),
        (P256, Algorithm::ES256),
        (P384, Algorithm::ES384),
        (ED25519, Algorithm::EdDSA),
    ];
    known.into_iter().find(|(id, _)| is(id)).map(|(_, algorithm)| algorithm)
}
