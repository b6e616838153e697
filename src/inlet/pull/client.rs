//! Google's client for Pub/Sub. The library says nothing when it cannot connect or has no token:
//! both are checked before a stream is opened.

use std::{sync::Arc, time::Duration};

use google_cloud_auth::credentials::{self, Credentials, anonymous};
use google_cloud_pubsub::{client::Subscriber, subscriber::MessageStream};
use http::Extensions;
use tokio::time::timeout;

use crate::{
    config::PullConfig,
    inlet::pull::{
        attempts::Attempts,
        failure::{Failure, with_sources},
    },
};

/// Lease of a message, which the library extends while it is stored. After this time at the latest,
/// the messages of a gateway that was killed come to the others. 10 s is the library's minimum.
const LEASE: Duration = Duration::from_secs(10);
/// Bytes of messages that Pub/Sub sends before it waits for acks. The library holds at most one
/// answer of Pub/Sub, which is not larger.
const OUTSTANDING_MAX_BYTES: i64 = 16 * 1024 * 1024;
/// Longest time until Pub/Sub answers a first request, with the connection.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Longest time for a token.
const TOKEN_MAX: Duration = Duration::from_secs(10);

/// Stream of messages on a connection of its own.
pub(super) struct Opened {
    pub(super) stream: Box<MessageStream>,
    /// Calls of Pub/Sub for this stream: one to open it, and those of leases and acks.
    pub(super) attempts: Attempts,
}

/// Client of one subscription.
pub(super) struct Client {
    config: Arc<PullConfig>,
    /// Credentials that were made, and that have not failed since. `None` otherwise.
    credentials: Option<Credentials>,
}

impl Client {
    pub(super) fn new(config: &Arc<PullConfig>) -> Self {
        Self { config: Arc::clone(config), credentials: None }
    }

    /// Makes a stream on a new connection. It is opened when its first message is asked for.
    ///
    /// # Errors
    /// Fails when there are no credentials, or when Pub/Sub cannot be reached.
    pub(super) async fn open(&mut self, subscription: &str) -> Result<Opened, Failure> {
        let credentials = self.credentials()?;
        let token = timeout(TOKEN_MAX, credentials.headers(Extensions::new())).await;
        match token {
            Ok(Ok(_)) => {}
            Ok(Err(err)) => return Err(Failure::Credentials(with_sources(&err))),
            Err(_) => {
                let text = format!("no token within {} s", TOKEN_MAX.as_secs());
                return Err(Failure::Credentials(text));
            }
        }
        let endpoint = &self.config.endpoint;
        check_reachable(endpoint).await.map_err(Failure::Unreachable)?;
        let attempts = Attempts::default();
        let credentials = attempts.count(credentials);
        let builder = Subscriber::builder().with_endpoint(endpoint).with_credentials(credentials);
        // The library asks the metadata server once more, for the domain of Google's services.
        let Ok(client) = timeout(TOKEN_MAX, builder.build()).await else {
            let seconds = TOKEN_MAX.as_secs();
            let text = format!("the metadata server gave no universe domain within {seconds} s");
            return Err(Failure::Credentials(text));
        };
        let client = client.map_err(|err| Failure::Client(with_sources(&err)))?;
        let stream = client
            .subscribe(subscription)
            .set_max_lease_extension(LEASE)
            .set_max_outstanding_messages(self.config.messages)
            .set_max_outstanding_bytes(OUTSTANDING_MAX_BYTES)
            .build();
        Ok(Opened { stream: Box::new(stream), attempts })
    }

    /// Forgets the credentials after they failed: the key file may have been replaced, or the
    /// metadata server may give another token.
    pub(super) fn forget_credentials(&mut self) {
        self.credentials = None;
    }

    /// Returns the credentials: none for an emulator, and otherwise those that Google's tools find.
    fn credentials(&mut self) -> Result<Credentials, Failure> {
        if let Some(credentials) = &self.credentials {
            return Ok(credentials.clone());
        }
        let credentials = if self.config.endpoint.starts_with("http:") {
            anonymous::Builder::new().build()
        } else {
            let builder = credentials::Builder::default();
            builder.build().map_err(|err| Failure::Credentials(with_sources(&err)))?
        };
        self.credentials = Some(credentials.clone());
        Ok(credentials)
    }
}

/// Sends a request to the host of a URL, and ignores the answer. A host that accepts connections
/// and answers nothing, such as a proxy that has lost its server, is not reachable: the library
/// would wait for it without an end.
///
/// # Errors
/// Returns the reason why it cannot be reached.
async fn check_reachable(endpoint: &str) -> Result<(), String> {
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_MAX).build();
    let client = client.map_err(|err| with_sources(&err))?;
    match client.get(endpoint).send().await {
        Err(err) if err.is_connect() || err.is_timeout() => {
            Err(format!("{endpoint}: {}", with_sources(&err)))
        }
        // Any other error is an answer too: a server that speaks HTTP/2 alone does not answer in
        // HTTP/1.1.
        Ok(_) | Err(_) => Ok(()),
    }
}
