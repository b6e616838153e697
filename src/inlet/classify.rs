//! Classes of bodies that are not messages: poison, or not an envelope.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{config::PUSH_BODY_MAX_BYTES, inlet::json::Object};

/// Reason why a body is not a message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The body is not an envelope. The subscription is set up wrongly, and the message may be
    /// good.
    #[error("{0}")]
    NotAnEnvelope(String),
    /// Neither the path nor the body names a topic.
    #[error("{0}")]
    NoTopic(String),
    /// The body is an envelope whose content can never be used.
    #[error("{}", .0.detail)]
    Poison(Poison),
}

/// Message that no redelivery can repair.
#[derive(Debug, PartialEq, Eq)]
pub struct Poison {
    /// Class of the defect.
    pub reason: PoisonReason,
    /// Pub/Sub's id of the message, to find it there.
    pub message_id: Option<String>,
    /// Description of the defect.
    pub detail: String,
}

/// Class of a poison message's defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoisonReason {
    /// The data is not base64.
    BadBase64,
    /// A CloudEvent lacks an attribute that every CloudEvent has, or is malformed.
    BadCloudEvent,
    /// A field has a type that Pub/Sub never sends.
    BadType,
    /// The body is larger than the limit.
    TooLarge,
}

impl PoisonReason {
    /// All reasons.
    pub(crate) const ALL: [Self; 4] =
        [Self::BadBase64, Self::BadCloudEvent, Self::BadType, Self::TooLarge];

    /// Returns the reason's label in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::BadBase64 => "bad-base64",
            Self::BadCloudEvent => "bad-cloud-event",
            Self::BadType => "bad-type",
            Self::TooLarge => "too-large",
        }
    }
}

/// Returns the error for a message that is larger than the limit.
pub(super) fn too_large(message_id: Option<String>) -> DecodeError {
    DecodeError::Poison(Poison {
        reason: PoisonReason::TooLarge,
        message_id,
        detail: format!("the message is larger than {PUSH_BODY_MAX_BYTES} bytes"),
    })
}

/// Classifies a body that did not decode, with the decoder's error. Only an envelope can be poison:
/// any other body may be a good message of a subscription without a wrapper, and an ack would
/// destroy it.
pub(super) fn classify(body: &[u8], err: &serde_json::Error) -> DecodeError {
    match serde_json::from_slice::<Object<Probe<'_>>>(body) {
        Ok(Object(Probe { message: Object(message) })) => DecodeError::Poison(Poison {
            reason: PoisonReason::BadType,
            message_id: message
                .message_id
                .or(message.message_id_snake)
                .and_then(|id| serde_json::from_str(id.get()).ok()),
            detail: err.to_string(),
        }),
        Err(err) => DecodeError::NotAnEnvelope(format!(
            "the body is not a JSON object with an object \"message\": {err}"
        )),
    }
}

/// Smallest content that makes an envelope. Nothing else of the body is kept: as a tree, a large
/// body of nested lists would take many times its size.
#[derive(Deserialize)]
struct Probe<'a> {
    #[serde(borrow)]
    message: Object<ProbedMessage<'a>>,
}

#[derive(Deserialize)]
struct ProbedMessage<'a> {
    #[serde(borrow, rename = "messageId")]
    message_id: Option<&'a RawValue>,
    #[serde(borrow, rename = "message_id")]
    message_id_snake: Option<&'a RawValue>,
}
