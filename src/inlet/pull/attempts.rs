//! Attempts of Google's library to call Pub/Sub. The library repeats a call after an error that it
//! takes for temporary, such as a refused connection or an untrusted certificate, and reports
//! nothing. Each attempt requests headers from the credentials, so a wrapper of the credentials
//! counts the attempts.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use google_cloud_auth::{
    credentials::{CacheableResource, Credentials, CredentialsProvider},
    errors::CredentialsError,
};
use http::{Extensions, HeaderMap};

/// Number of the attempts of one client. A clone shares it.
#[derive(Debug, Clone, Default)]
pub(super) struct Attempts(Arc<AtomicUsize>);

/// Credentials that count the requests for their headers.
#[derive(Debug)]
struct CountingCredentials {
    credentials: Credentials,
    attempts: Attempts,
}

impl Attempts {
    /// Returns the number of attempts.
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Wraps credentials, so that each attempt is counted.
    pub(super) fn count(&self, credentials: Credentials) -> Credentials {
        CountingCredentials { credentials, attempts: self.clone() }.into()
    }
}

impl CredentialsProvider for CountingCredentials {
    async fn headers(
        &self,
        extensions: Extensions,
    ) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        self.attempts.0.fetch_add(1, Ordering::Relaxed);
        self.credentials.headers(extensions).await
    }

    async fn universe_domain(&self) -> Option<String> {
        self.credentials.universe_domain().await
    }
}
