//! Reasons why a stream of messages ended, each with its remedy.

use std::{error::Error as _, fmt::Write as _};

use google_cloud_pubsub::Error;

use crate::config::PullSubscription;

/// Reason why a stream of messages could not be opened, or ended.
#[derive(Debug)]
pub(super) enum Failure {
    /// The client could not be made: bad credentials, or a bad URL.
    Client(String),
    /// Pub/Sub's address does not accept connections.
    Unreachable(String),
    /// Pub/Sub refused the stream, or ended it with an error.
    Stream(Box<Error>),
    /// Pub/Sub ended the stream without an error.
    Ended,
}

impl Failure {
    /// Returns the reason's label in metrics.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Client(_) => "client",
            Self::Unreachable(_) => "unreachable",
            Self::Ended => "ended",
            Self::Stream(err) if err.is_authentication() => "unauthenticated",
            Self::Stream(err) => match code(err) {
                "NOT_FOUND" => "not-found",
                "PERMISSION_DENIED" => "permission-denied",
                "UNAUTHENTICATED" => "unauthenticated",
                _ => "other",
            },
        }
    }

    /// Returns the text of the reason.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Client(text) | Self::Unreachable(text) => text.clone(),
            Self::Ended => "Pub/Sub ended the stream".to_owned(),
            Self::Stream(err) => {
                let mut text = err.to_string();
                if let (None, Some(source)) = (err.status(), err.source()) {
                    write!(text, ": {source}").ok();
                }
                text
            }
        }
    }

    /// Returns what an operator can do.
    pub(super) fn remedy(&self, subscription: &PullSubscription) -> String {
        let (project, id) = subscription.project_and_id();
        match self.as_str() {
            "not-found" => format!(
                "create the subscription: gcloud pubsub subscriptions create {id} \
                 --project={project} --topic=TOPIC --enable-message-ordering"
            ),
            "permission-denied" => format!(
                "let the gateway's service account pull: gcloud pubsub subscriptions \
                 add-iam-policy-binding {id} --project={project} \
                 --member=serviceAccount:EMAIL --role=roles/pubsub.subscriber"
            ),
            "client" | "unauthenticated" => {
                "give the gateway credentials: a Google service account \
                                             of the pod or the service, or the file that \
                                             GOOGLE_APPLICATION_CREDENTIALS names"
                    .to_owned()
            }
            "unreachable" => {
                "check --pull-endpoint, and that the network lets the gateway reach it".to_owned()
            }
            _ => "none: the gateway tries again".to_owned(),
        }
    }
}

/// Returns the name of the error's gRPC status, or "" if it has none.
fn code(err: &Error) -> &str {
    err.status().map_or("", |status| status.code.name())
}
