//! Wrapped pushes: decodes the JSON that Pub/Sub wraps a message in
//! (<https://cloud.google.com/pubsub/docs/push#receive_push>).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;

use crate::{
    inlet::{
        base64,
        classify::{DecodeError, Poison, PoisonReason, classify},
        json::{Object, Text},
    },
    model::{message::Message, topic::Topic},
};

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    message: Object<WrappedMessage<'a>>,
    #[serde(borrow)]
    subscription: Option<Text<'a>>,
}

/// Message in an envelope. Pub/Sub writes some fields in two spellings, so both can be present.
#[derive(Deserialize)]
struct WrappedMessage<'a> {
    #[serde(borrow)]
    data: Option<Text<'a>>,
    attributes: Option<BTreeMap<String, String>>,
    #[serde(borrow, rename = "messageId")]
    message_id: Option<Text<'a>>,
    #[serde(borrow, rename = "message_id")]
    message_id_snake: Option<Text<'a>>,
    #[serde(borrow, rename = "publishTime")]
    publish_time: Option<Text<'a>>,
    #[serde(borrow, rename = "publish_time")]
    publish_time_snake: Option<Text<'a>>,
    #[serde(borrow, rename = "orderingKey")]
    ordering_key: Option<Text<'a>>,
    #[serde(borrow, rename = "ordering_key")]
    ordering_key_snake: Option<Text<'a>>,
}

/// Decodes a wrapped push. `topic` is the topic in the path, if the path names one; otherwise the
/// envelope's subscription names it.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(body: &[u8], topic: Option<Topic>) -> Result<Message, DecodeError> {
    // One check of the whole body for UTF-8 costs a fraction of a check of each string in it.
    let parsed = match str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(body),
    };
    let Object::<Envelope<'_>>(envelope) = parsed.map_err(|err| classify(body, &err))?;
    let Object(wrapped) = envelope.message;
    let topic = match topic {
        Some(topic) => topic,
        None => topic_of(envelope.subscription.as_ref().map(|Text(name)| &**name))?,
    };
    let message_id = wrapped.message_id.or(wrapped.message_id_snake).and_then(Text::non_empty);
    let data = match wrapped.data {
        None => Bytes::new(),
        Some(Text(text)) => base64::decode(&text).map_err(|err| {
            DecodeError::Poison(Poison {
                reason: PoisonReason::BadBase64,
                message_id: message_id.clone(),
                detail: format!("message.data is not base64: {err}"),
            })
        })?,
    };
    let publish_time = wrapped.publish_time.or(wrapped.publish_time_snake);
    let ordering_key = wrapped.ordering_key.or(wrapped.ordering_key_snake);
    Ok(Message {
        topic,
        data,
        attributes: wrapped.attributes.unwrap_or_default(),
        ordering_key: ordering_key.and_then(Text::non_empty),
        message_id,
        publish_time_ms: publish_time.and_then(|Text(time)| parse_time(&time)),
    })
}

/// Returns the topic of a push to `/push`: the name of its subscription.
///
/// # Errors
/// [`DecodeError::NoTopic`] when there is no subscription, or its name is not a topic name.
pub(super) fn topic_of(subscription: Option<&str>) -> Result<Topic, DecodeError> {
    let name = subscription.ok_or_else(|| {
        DecodeError::NoTopic(
            "neither the path nor the body names a topic: push to /push/{topic}".into(),
        )
    })?;
    Topic::from_resource_name(name).map_err(|err| DecodeError::NoTopic(err.to_string()))
}

/// Parses an RFC 3339 time into Unix milliseconds. Returns `None` for any other text: the time is
/// only used for metrics.
pub fn parse_time(text: &str) -> Option<u64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> Option<Topic> {
        "orders".parse().ok()
    }

    fn decoded(body: &str) -> Message {
        decode(body.as_bytes(), topic()).unwrap()
    }

    #[test]
    fn googles_largest_example_decodes() {
        let message = decode(
            br#"{"deliveryAttempt":5,"message":{"attributes":{"key":"value"},
            "data":"SGVsbG8gQ2xvdWQgUHViL1N1YiEgSGVyZSBpcyBteSBtZXNzYWdlIQ==",
            "messageId":"2070443601311540","message_id":"2070443601311540","orderingKey":"key",
            "publishTime":"2021-02-26T19:13:55.749Z","publish_time":"2021-02-26T19:13:55.749Z"},
            "subscription":"projects/myproject/subscriptions/mysubscription"}"#,
            None,
        )
        .unwrap();
        assert_eq!(message.topic.as_str(), "mysubscription");
        assert_eq!(message.data, "Hello Cloud Pub/Sub! Here is my message!");
        assert_eq!(message.attributes.get("key").map(String::as_str), Some("value"));
        assert_eq!(message.message_id.as_deref(), Some("2070443601311540"));
        assert_eq!(message.ordering_key.as_deref(), Some("key"));
        assert_eq!(message.publish_time_ms, Some(1_614_366_835_749));
    }

    #[test]
    fn one_spelling_of_the_message_id_is_enough() {
        for id in ["messageId", "message_id"] {
            let message = decoded(&format!(r#"{{"message":{{"data":"eA==","{id}":"7"}}}}"#));
            assert_eq!(message.message_id.as_deref(), Some("7"));
        }
    }

    #[test]
    fn data_can_be_absent_empty_null_escaped_or_url_safe() {
        assert_eq!(decoded(r#"{"message":{"attributes":{"a":"b"}}}"#).data, "");
        assert_eq!(decoded(r#"{"message":{"data":""}}"#).data, "");
        assert_eq!(decoded(r#"{"message":{"data":null,"attributes":null}}"#).data, "");
        assert_eq!(decoded(r#"{"message":{"data":"Pz8\/"}}"#).data, "???");
        assert_eq!(decoded(r#"{"message":{"data":"Pz8_"}}"#).data, "???");
        assert_eq!(decoded(r#"{"message":{"data":"eA"}}"#).data, "x");
    }

    #[test]
    fn poison_keeps_its_message_id() {
        for (body, reason) in [
            (r#"{"message":{"data":"a!b","messageId":"7"}}"#, PoisonReason::BadBase64),
            (r#"{"message":{"data":5,"messageId":"7"}}"#, PoisonReason::BadType),
            (r#"{"message":{"attributes":{"a":1},"message_id":"7"}}"#, PoisonReason::BadType),
            (r#"{"message":{"attributes":[],"messageId":"7"}}"#, PoisonReason::BadType),
        ] {
            let Err(DecodeError::Poison(poison)) = decode(body.as_bytes(), topic()) else {
                panic!("{body} is poison")
            };
            assert_eq!((poison.reason, poison.message_id.as_deref()), (reason, Some("7")));
        }
    }

    #[test]
    fn a_body_that_is_not_an_envelope_is_not_poison() {
        // Serde reads a struct also from a list. These bodies can be good messages without a
        // wrapper.
        for body in [
            "",
            "{",
            "[]",
            "7",
            "{}",
            r#"{"message":"hello"}"#,
            r#"{"id":1}"#,
            "\u{feff}{}",
            r#"[{"id":1}]"#,
            r#"[{"id":1},null]"#,
            r#"[{"id":2},"x"]"#,
            r#"{"message":["a","b"]}"#,
            r#"{"message":[null,null],"k":1}"#,
            r#"{"message":[]}"#,
        ] {
            let refused = decode(body.as_bytes(), topic()).unwrap_err();
            assert!(matches!(refused, DecodeError::NotAnEnvelope(_)), "{body:?}: {refused:?}");
        }
    }

    #[test]
    fn without_a_topic_in_the_path_and_in_the_subscription_there_is_no_topic() {
        for body in [r#"{"message":{}}"#, r#"{"message":{},"subscription":"projects/p/s/"}"#] {
            assert!(
                matches!(decode(body.as_bytes(), None), Err(DecodeError::NoTopic(_))),
                "{body}"
            );
        }
    }
}
