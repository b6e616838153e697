//! Publications: messages as clients publish them, and the rules that they must keep. The rules are
//! those of Pub/Sub (<https://cloud.google.com/pubsub/quotas#resource_limits>).

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    auth::publisher::{Publisher, SUBJECT_MAX_BYTES},
    inlet::shortened,
    model::{message::Message, topic::Topic},
};

/// Message that a client publishes, before its checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Topic that the message is published to.
    pub topic: Topic,
    /// Payload.
    pub data: Bytes,
    /// Attributes by name.
    pub attributes: BTreeMap<String, String>,
    /// Ordering key.
    pub ordering_key: Option<String>,
    /// Idempotency key: the same in each attempt to publish this message, and in no other message
    /// of the publisher. `None` if the publisher sends the message once.
    pub idempotency_key: Option<String>,
}

/// Largest data, in bytes.
pub const DATA_MAX_BYTES: usize = 10_000_000;
/// Largest number of attributes.
pub const ATTRIBUTES_MAX: usize = 100;
/// Longest name of an attribute, in bytes.
const NAME_MAX_BYTES: usize = 256;
/// Longest value of an attribute, in bytes.
const VALUE_MAX_BYTES: usize = 1_024;
/// Longest ordering key, in bytes.
const ORDERING_KEY_MAX_BYTES: usize = 1_024;
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_MAX_BYTES: usize = 255;
/// Beginning of the names that Pub/Sub reserves.
const RESERVED: &str = "goog";
/// Attribute with the subject of the publisher, which the gateway sets.
const PUBLISHER: &str = "publisher";

// Each byte of an escaped subject takes three.
const _: () = assert!(
    SUBJECT_MAX_BYTES * 3 + 1 + IDEMPOTENCY_KEY_MAX_BYTES <= crate::backplane::MESSAGE_ID_MAX_BYTES,
    "the log would not remember some message ids"
);

/// Reason why a publication is refused. The text says what was wrong and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PublicationError(pub String);

impl Publication {
    /// Checks the publication and returns the message that `publisher` sends with it at `now_ms`.
    ///
    /// The message id is the idempotency key, after the publisher's subject and a space: two
    /// publishers may use the same key. Spaces of the subject are escaped, so that no two pairs of
    /// a subject and a key make the same id. A message without a key gets a random id.
    ///
    /// # Errors
    /// See [`PublicationError`].
    pub(crate) fn into_message(
        self,
        publisher: &Publisher,
        now_ms: u64,
    ) -> Result<Message, PublicationError> {
        self.check()?;
        let mut attributes = self.attributes;
        if let Some(subject) = &publisher.subject
            && attributes.insert(PUBLISHER.to_owned(), subject.to_string()).is_some()
        {
            return refuse("the attribute publisher is the gateway's: it is the sender's subject");
        }
        let message_id = match (self.idempotency_key, &publisher.subject) {
            (None, _) => format!("{:032x}", rand::random::<u128>()),
            (Some(key), None) => key,
            (Some(key), Some(subject)) => {
                format!("{} {key}", subject.replace('%', "%25").replace(' ', "%20"))
            }
        };
        Ok(Message {
            topic: self.topic,
            data: self.data,
            attributes,
            ordering_key: self.ordering_key,
            message_id: Some(message_id),
            publish_time_ms: Some(now_ms),
        })
    }

    fn check(&self) -> Result<(), PublicationError> {
        if self.idempotency_key.as_ref().is_some_and(String::is_empty) {
            return refuse(
                "the idempotency key is empty: leave it out, or give each message its own",
            );
        }
        if self.data.is_empty() && self.attributes.is_empty() {
            return refuse("the message is empty: expected data, or at least one attribute");
        }
        at_most("the data", self.data.len(), DATA_MAX_BYTES)?;
        if ATTRIBUTES_MAX < self.attributes.len() {
            let count = self.attributes.len();
            return refuse(&format!(
                "the message has {count} attributes: at most {ATTRIBUTES_MAX} are allowed"
            ));
        }
        for (name, value) in &self.attributes {
            if name.is_empty() {
                return refuse("an attribute has no name");
            }
            at_most("the name of an attribute", name.len(), NAME_MAX_BYTES)?;
            let shown = shortened(name);
            if name.starts_with(RESERVED) {
                return refuse(&format!(
                    "attribute {shown:?}: names that begin with goog are reserved"
                ));
            }
            at_most(&format!("the value of attribute {shown:?}"), value.len(), VALUE_MAX_BYTES)?;
        }
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        at_most("the ordering key", length(&self.ordering_key), ORDERING_KEY_MAX_BYTES)?;
        at_most(
            "the message id (idempotency key)",
            length(&self.idempotency_key),
            IDEMPOTENCY_KEY_MAX_BYTES,
        )
    }
}

fn refuse<T>(text: &str) -> Result<T, PublicationError> {
    Err(PublicationError(text.to_owned()))
}

fn at_most(what: &str, bytes: usize, max: usize) -> Result<(), PublicationError> {
    if bytes <= max {
        return Ok(());
    }
    refuse(&format!("{what} has {bytes} bytes: at most {max} are allowed"))
}
