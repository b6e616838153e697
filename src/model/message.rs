//! Message as an inlet receives it from Pub/Sub.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::model::topic::Topic;

/// Decoded Pub/Sub message. The fields are those of Pub/Sub's
/// [`PubsubMessage`](https://cloud.google.com/pubsub/docs/reference/rest/v1/PubsubMessage).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic that the message is published to.
    pub topic: Topic,
    /// Payload, decoded from base64. At most 10 MB when it comes from Pub/Sub.
    pub data: Bytes,
    /// Attributes by name. Pub/Sub allows 100; this program limits only the size of the request
    /// body.
    pub attributes: BTreeMap<String, String>,
    /// Ordering key. Pub/Sub delivers messages with the same key in the order in which they were
    /// published.
    pub ordering_key: Option<String>,
    /// Id of the message, unique within a Pub/Sub topic. A redelivery of a message without an id
    /// cannot be recognised.
    pub message_id: Option<String>,
    /// Time at which Pub/Sub received the message, in Unix milliseconds.
    pub publish_time_ms: Option<u64>,
}

#[cfg(test)]
impl Message {
    /// Creates a message without attributes.
    pub(crate) fn for_tests(topic: &str, data: impl Into<Bytes>) -> Self {
        Self {
            topic: topic.parse().unwrap(),
            data: data.into(),
            attributes: BTreeMap::new(),
            ordering_key: None,
            message_id: None,
            publish_time_ms: None,
        }
    }
}
