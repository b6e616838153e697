//! Files of `--tls-cert`, `--tls-key` and `--read-key-file`, loaded before the gateway starts.

use std::sync::Arc;

use rustls::ServerConfig;

use crate::{
    auth::{
        jwks::Key,
        key_file::{KeyFileError, load_key},
    },
    config::{Config, ReadKeys},
    net::tls::{TlsError, load_tls},
};

/// Contents of the files of `--tls-cert`, `--tls-key` and `--read-key-file`. Each file is loaded
/// once, before the gateway starts: an error ends the process early, and a later change of a file
/// has no effect.
#[derive(Debug)]
pub struct Files {
    /// Certificate chain and private key of the gateway (`--tls-cert`, `--tls-key`).
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// Key of the tokens of readers and publishers (`--read-key-file`).
    pub(super) read_key: Option<Key>,
}

/// File that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Certificate or key of the gateway.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Key of the tokens of readers and publishers.
    #[error("--read-key-file: {0}")]
    ReadKey(#[from] KeyFileError),
}

impl Files {
    /// Loads the files.
    ///
    /// # Errors
    /// Returns the first file that cannot be used.
    pub fn load(config: &Config) -> Result<Self, FileError> {
        let tls = config.tls.as_ref().map(load_tls).transpose()?;
        let read_key = match config.token_checks().map(|checks| &checks.keys) {
            Some(ReadKeys::File(path)) => Some(load_key(path)?),
            _ => None,
        };
        Ok(Self { tls, read_key })
    }
}
