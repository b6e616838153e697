//! The JSON that Pub/Sub wraps a pushed message in
//! (<https://cloud.google.com/pubsub/docs/push#receive_push>).

use std::{borrow::Cow, collections::BTreeMap, fmt, marker::PhantomData};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;

use crate::model::{message::Message, topic::Topic};

/// Why a body is not a message.
#[derive(Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// It is no envelope at all: the subscription is configured wrongly, and the message may be
    /// fine.
    NotAnEnvelope(String),
    /// Neither the path nor the envelope names a topic.
    NoTopic(String),
    /// An envelope whose content can never be used.
    Poison(Poison),
}

/// A message that no redelivery will mend.
#[derive(Debug, PartialEq, Eq)]
pub struct Poison {
    pub reason: PoisonReason,
    pub message_id: Option<String>,
    pub detail: String,
}

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoisonReason {
    /// Its data is not base64.
    BadBase64,
    /// A field has a type that Pub/Sub never sends.
    BadType,
    /// Its body is over the limit.
    TooLarge,
}

impl PoisonReason {
    /// As a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadBase64 => "bad-base64",
            Self::BadType => "bad-type",
            Self::TooLarge => "too-large",
        }
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    message: Object<Wire<'a>>,
    #[serde(borrow)]
    subscription: Option<Text<'a>>,
}

/// Pub/Sub writes some fields in two spellings, so both can be there at once.
#[derive(Deserialize)]
struct Wire<'a> {
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

/// A JSON object and nothing else. A derived struct would also be read from a list of its fields,
/// and a good message of a subscription without a wrapper, such as `[{"id":1}]`, be taken for an
/// envelope.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// Borrows from the body unless it holds an escape.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    fn filled(self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.into_owned())
    }
}

/// Decodes a wrapped push. `topic` is the path's, if it named one.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(body: &[u8], topic: Option<Topic>) -> Result<Message, DecodeError> {
    // One look at all of it for what is no UTF-8 takes a fraction of one at each text in it.
    let parsed = match str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(body),
    };
    let Object::<Envelope<'_>>(envelope) = parsed.map_err(|err| classify(body, &err))?;
    let Object(wire) = envelope.message;
    let topic = match topic {
        Some(topic) => topic,
        None => topic_of(envelope.subscription.as_ref().map(|Text(name)| &**name))?,
    };
    let message_id = wire.message_id.or(wire.message_id_snake).and_then(Text::filled);
    let data = match wire.data {
        None => Bytes::new(),
        Some(Text(text)) => decode_base64(&text).map_err(|err| {
            DecodeError::Poison(Poison {
                reason: PoisonReason::BadBase64,
                message_id: message_id.clone(),
                detail: format!("message.data is not base64: {err}"),
            })
        })?,
    };
    let publish_time = wire.publish_time.or(wire.publish_time_snake);
    Ok(Message {
        topic,
        data,
        attributes: wire.attributes.unwrap_or_default(),
        ordering_key: wire.ordering_key.or(wire.ordering_key_snake).and_then(Text::filled),
        message_id,
        publish_time_ms: publish_time.and_then(|Text(time)| parse_time(&time)),
    })
}

/// The topic of a push to `/push`: its subscription's name.
///
/// # Errors
/// When there is none, or it is no topic's name.
pub fn topic_of(subscription: Option<&str>) -> Result<Topic, DecodeError> {
    let name = subscription.ok_or_else(|| {
        DecodeError::NoTopic(
            "neither the path nor the body names a topic: push to /push/{topic}".into(),
        )
    })?;
    Topic::from_resource_name(name).map_err(|err| DecodeError::NoTopic(err.to_string()))
}

/// An RFC 3339 time in Unix milliseconds. It is only for measuring, so a bad one is none.
pub fn parse_time(text: &str) -> Option<u64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

/// A body that did not decode is poison only if it is an envelope: what is not one may be a good
/// message of a subscription without a wrapper, and acking it would destroy it.
fn classify(body: &[u8], err: &serde_json::Error) -> DecodeError {
    match serde_json::from_slice::<Object<Probe<'_>>>(body) {
        Ok(Object(Probe { message: Object(message) })) => DecodeError::Poison(Poison {
            reason: PoisonReason::BadType,
            message_id: message
                .message_id
                .or(message.message_id_snake)
                .and_then(|id| serde_json::from_str(id.get()).ok()),
            detail: err.to_string(),
        }),
        Err(err) => {
            DecodeError::NotAnEnvelope(format!("the body is no object with a message: {err}"))
        }
    }
}

/// The least that makes an envelope. Nothing else of the body is kept, since a large one of nested
/// lists would take many times its size as a tree.
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

/// Either alphabet, with or without padding, as the
/// [JSON form of protocol buffers](https://protobuf.dev/programming-guides/json/) allows.
fn decode_base64(text: &str) -> Result<Bytes, base64::DecodeError> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
    // What Pub/Sub sends, at many bytes a step. For anything else, and to say what is wrong with
    // it, there is the other.
    if let Ok(decoded) = base64_simd::STANDARD.decode_to_vec(text) {
        return Ok(decoded.into());
    }
    let decoded = STANDARD.decode(text);
    let decoded = decoded.or_else(|err| URL_SAFE.decode(text).map_err(|_| err))?;
    Ok(decoded.into())
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
    fn googles_largest_example() {
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
    fn either_spelling_alone_will_do() {
        for id in ["messageId", "message_id"] {
            let message = decoded(&format!(r#"{{"message":{{"data":"eA==","{id}":"7"}}}}"#));
            assert_eq!(message.message_id.as_deref(), Some("7"));
        }
    }

    #[test]
    fn data_may_be_absent_empty_null_escaped_or_of_the_other_alphabet() {
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
    fn what_is_no_envelope_is_not_poison() {
        // A struct is also read from a list, if one lets it: these are good messages of somebody.
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
    fn without_a_path_the_subscription_names_the_topic() {
        for body in [r#"{"message":{}}"#, r#"{"message":{},"subscription":"projects/p/s/"}"#] {
            assert!(
                matches!(decode(body.as_bytes(), None), Err(DecodeError::NoTopic(_))),
                "{body}"
            );
        }
    }
}
