//! TLS: loads the certificate chain and the private key of the gateway.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};

use crate::config::TlsFiles;

/// Error for certificate and key files that cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate file cannot be read, or is not PEM.
    #[error("--tls-cert: cannot read a PEM certificate chain from {0}: {1}")]
    Cert(String, #[source] pem::Error),
    /// The certificate file has no certificate.
    #[error("--tls-cert: {0} has no certificate; it must have a PEM block BEGIN CERTIFICATE")]
    NoCertificate(String),
    /// The key file cannot be read, or has no private key in PEM.
    #[error("--tls-key: cannot read a PEM private key from {0}: {1}")]
    Key(String, #[source] pem::Error),
    /// `rustls` refuses the pair, for example because the key is that of another certificate.
    #[error("--tls-cert, --tls-key: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Loads a certificate chain and its private key. Returns a configuration that offers HTTP/2 and
/// HTTP/1.1 by ALPN and asks clients for no certificate.
///
/// # Errors
/// Fails when a file cannot be read or is not PEM, or when the key is that of another certificate.
pub fn load_tls(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    pair(load_chain(files)?, load_key(files)?)
}

/// Returns all errors of the files.
pub(crate) fn problems(files: &TlsFiles) -> Vec<TlsError> {
    match (load_chain(files), load_key(files)) {
        (Ok(chain), Ok(key)) => pair(chain, key).err().into_iter().collect(),
        (chain, key) => chain.err().into_iter().chain(key.err()).collect(),
    }
}

/// Loads the certificate chain.
fn load_chain(files: &TlsFiles) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let name = || files.cert.display().to_string();
    let chain: Vec<_> = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect)
        .map_err(|err| TlsError::Cert(name(), err))?;
    if chain.is_empty() { Err(TlsError::NoCertificate(name())) } else { Ok(chain) }
}

/// Loads the private key.
fn load_key(files: &TlsFiles) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|err| TlsError::Key(files.key.display().to_string(), err))
}

/// Makes the configuration of TLS. Fails if the key is that of another certificate.
fn pair(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
