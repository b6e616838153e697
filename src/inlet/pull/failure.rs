//! Reasons why a stream of messages ended, each with its remedy.

use std::error::Error as StdError;

use google_cloud_pubsub::Error;

use crate::config::PullSubscription;

/// Reason why a stream of messages could not be opened, or ended.
#[derive(Debug)]
pub(super) enum Failure {
    /// There are no credentials, or no token for them.
    Credentials(String),
    /// The client could not be made.
    Client(String),
    /// Pub/Sub's address does not accept connections.
    Unreachable(String),
    /// The library tried in vain to open the stream, and does not say why.
    Unavailable,
    /// Pub/Sub refused the stream, or ended it with an error.
    Stream(Box<Error>),
    /// Pub/Sub ended the stream without an error.
    Ended,
}

impl Failure {
    /// Returns the reason's label in metrics.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Credentials(_) => "credentials",
            Self::Client(_) => "other",
            Self::Unreachable(_) => "unreachable",
            Self::Unavailable => "unavailable",
            Self::Ended => "ended",
            Self::Stream(err) if err.is_authentication() => "credentials",
            Self::Stream(err) => match err.status().map(|status| status.code.name()) {
                Some("NOT_FOUND") => "not-found",
                Some("PERMISSION_DENIED") => "permission-denied",
                Some("UNAUTHENTICATED") => "credentials",
                _ => "other",
            },
        }
    }

    /// Returns true if the credentials are missing or were refused.
    pub(super) fn is_of_credentials(&self) -> bool {
        self.as_str() == "credentials"
    }

    /// Returns the text of the reason.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Credentials(text) | Self::Client(text) | Self::Unreachable(text) => text.clone(),
            Self::Stream(err) => match err.status() {
                Some(status) => format!("{}: {}", status.code.name(), status.message),
                None => with_sources(err),
            },
            Self::Unavailable => "Pub/Sub does not open the stream".to_owned(),
            Self::Ended => "Pub/Sub ended the stream".to_owned(),
        }
    }

    /// Returns what an operator can do about it.
    pub(super) fn remedy(&self, subscription: &PullSubscription) -> String {
        let (project, id) = subscription.project_and_id();
        match self.as_str() {
            "not-found" => format!(
                "create the subscription: gcloud pubsub subscriptions create {id} \
                 --project={project} --topic=TOPIC --enable-message-ordering \
                 --min-retry-delay=1s"
            ),
            "permission-denied" => format!(
                "let the gateway's service account pull: gcloud pubsub subscriptions \
                 add-iam-policy-binding {id} --project={project} \
                 --member=serviceAccount:EMAIL --role=roles/pubsub.subscriber"
            ),
            "credentials" => "give the gateway a Google service account (on GKE with Workload \
                              Identity), or the file that GOOGLE_APPLICATION_CREDENTIALS names"
                .to_owned(),
            "unreachable" => {
                "check --pull-endpoint, whether the network lets the gateway connect, and whether a \
                 proxy answers with a certificate that the gateway does not trust"
                    .to_owned()
            }
            "unavailable" => {
                "check --pull-endpoint, and whether a proxy blocks the connection; if Pub/Sub is \
                 down, wait: the gateway tries again"
                    .to_owned()
            }
            _ => "no action is needed: the gateway tries again".to_owned(),
        }
    }
}

/// Returns the text of an error and of its causes.
pub(super) fn with_sources(err: &dyn StdError) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(err) = source {
        let cause = err.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = err.source();
    }
    text
}
