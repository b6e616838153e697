//! CloudEvents, as any HTTP sender pushes them
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md>).
//!
//! - Binary mode: the headers `ce-…` are the attributes of the event, and the body is its data.
//! - Structured mode: the body is a JSON object with the attributes and the data.
//!
//! The message has the form of Pub/Sub's binding
//! (<https://github.com/googleapis/google-cloudevents/blob/main/docs/spec/pubsub.md>): the attributes
//! `ce-…` and `content-type`, and the body as the data.

use std::{borrow::Cow, collections::BTreeMap};

use actix_web::http::header::{CONTENT_TYPE, HeaderMap};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;

use crate::{
    inlet::{
        classify::{DecodeError, Poison, PoisonReason},
        envelope::parse_time,
    },
    model::{message::Message, topic::Topic},
};

/// Attributes that every CloudEvent has. None of them is empty.
const REQUIRED: [&str; 4] = ["ce-id", "ce-source", "ce-specversion", "ce-type"];
/// Prefix of the headers, and of the message's attributes.
const PREFIX: &str = "ce-";
/// Media type of structured mode.
const STRUCTURED: &str = "application/cloudevents+json";
/// Media type of a batch of events.
const BATCH: &str = "application/cloudevents-batch+json";
/// Type of the events of Eventarc's Pub/Sub triggers. Their data is Pub/Sub's envelope.
const PUBSUB_TYPE: &str = "google.cloud.pubsub.topic.v1.messagePublished";

/// Returns true if a push is a CloudEvent, other than one whose data is Pub/Sub's envelope.
pub fn is_cloud_event(headers: &HeaderMap) -> bool {
    let is_binary = || REQUIRED.iter().all(|name| headers.contains_key(*name));
    let is_envelope = || headers.get("ce-type").is_some_and(|value| value == PUBSUB_TYPE);
    is_structured(headers) || is_binary() && !is_envelope()
}

/// Returns true if a request has a batch of CloudEvents, which no inlet accepts.
pub(super) fn is_batch(headers: &HeaderMap) -> bool {
    has_media_type(headers, BATCH)
}

fn is_structured(headers: &HeaderMap) -> bool {
    has_media_type(headers, STRUCTURED)
}

fn has_media_type(headers: &HeaderMap, expected: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(expected))
}

/// Decodes a CloudEvent. `topic` is the topic in the path. The message id is the source and the id
/// of the event, which together are unique. They are joined by a space, which no source has.
///
/// # Errors
/// - [`DecodeError::NoTopic`] if the path names no topic: a CloudEvent names none.
/// - [`PoisonReason::BadCloudEvent`] if the event lacks an attribute that every CloudEvent has.
pub fn decode(
    headers: &HeaderMap,
    body: Bytes,
    topic: Option<Topic>,
) -> Result<Message, DecodeError> {
    let topic = topic.ok_or_else(|| {
        DecodeError::NoTopic(
            "the path names no topic: push CloudEvents to /push/{topic}".to_owned(),
        )
    })?;
    let mut attributes = if is_structured(headers) {
        attributes_of_body(&body)?
    } else {
        attributes_of_headers(headers)?
    };
    for name in REQUIRED {
        if attributes.get(name).is_none_or(String::is_empty) {
            let name = name.trim_start_matches(PREFIX);
            return Err(poison(format!("the CloudEvent has no {name}, which must be a text")));
        }
    }
    let of = |name: &str| attributes.get(name).map(String::as_str).unwrap_or_default();
    let message_id = Some(format!("{} {}", of("ce-source"), of("ce-id")));
    let publish_time_ms = parse_time(of("ce-time"));
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    attributes.extend(content_type.map(|value| ("content-type".to_owned(), value.to_owned())));
    Ok(Message { topic, data: body, attributes, ordering_key: None, message_id, publish_time_ms })
}

fn poison(detail: String) -> DecodeError {
    let reason = PoisonReason::BadCloudEvent;
    DecodeError::Poison(Poison { reason, message_id: None, detail })
}

/// Returns the headers `ce-…`.
///
/// # Errors
/// Fails if a value is not UTF-8.
fn attributes_of_headers(headers: &HeaderMap) -> Result<BTreeMap<String, String>, DecodeError> {
    let named = headers.iter().filter(|(name, _)| name.as_str().starts_with(PREFIX));
    let attribute = named.map(|(name, value)| match unescaped(value.as_bytes()) {
        Some(value) => Ok((name.as_str().to_owned(), value)),
        None => Err(poison(format!("the header {name} is not UTF-8 when it is percent-decoded"))),
    });
    attribute.collect()
}

/// Decodes the value of a header: a text that may be quoted, and percent-encoded.
fn unescaped(value: &[u8]) -> Option<String> {
    let text = str::from_utf8(value).ok()?;
    let quoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let text = quoted.map_or(Cow::Borrowed(text), |quoted| unquoted(quoted).into());
    Some(percent_decode_str(&text).decode_utf8().ok()?.into_owned())
}

/// Removes the backslashes that escape characters of a quoted text.
fn unquoted(text: &str) -> String {
    let mut is_escaped = false;
    let is_kept = |c: &char| {
        is_escaped = *c == '\\' && !is_escaped;
        !is_escaped
    };
    text.chars().filter(is_kept).collect()
}

/// Returns the attributes in the body of an event in structured mode. Each gets the prefix `ce-`:
/// filters find it as in binary mode.
///
/// # Errors
/// Fails if the body is not a JSON object.
fn attributes_of_body(body: &[u8]) -> Result<BTreeMap<String, String>, DecodeError> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_slice(body)
        .map_err(|err| poison(format!("the CloudEvent is not a JSON object: {err}")))?;
    let is_attribute = |name: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        name != "data" && !name.is_empty() && name.bytes().all(is_allowed)
    };
    let named = members.into_iter().filter(|(name, _)| is_attribute(name));
    let attribute = named.filter_map(|(name, value)| {
        let name = format!("{PREFIX}{name}");
        // Extension attributes can also be integers and booleans.
        let value = match value.get() {
            text if text.starts_with('"') => serde_json::from_str(text).ok()?,
            _ if REQUIRED.contains(&name.as_str()) => return None,
            text @ ("true" | "false") => text.to_owned(),
            text => serde_json::from_str::<i64>(text).ok()?.to_string(),
        };
        Some((name, value))
    });
    Ok(attribute.collect())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    const BINARY: [(&str, &str); 4] =
        [("ce-id", "a"), ("ce-source", "/s"), ("ce-specversion", "1.0"), ("ce-type", "t")];

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn decoded(fields: &[(&str, &str)], body: &str) -> Result<Message, DecodeError> {
        decode(&headers(fields), body.to_owned().into(), "orders".parse().ok())
    }

    #[test]
    fn values_of_headers_are_unquoted_and_percent_decoded() {
        for (value, expected) in [
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", Some("Euro € 😀")),
            ("%e2%82%ac 50%", Some("€ 50%")),
            (r#""a \"b\" \\ %20""#, Some(r#"a "b" \  "#)),
            ("\"", Some("\"")),
            ("é", Some("é")),
            ("%C0%A0", None),
        ] {
            assert_eq!(unescaped(value.as_bytes()).as_deref(), expected, "{value}");
        }
        assert_eq!(unescaped(b"\xff"), None);
    }

    #[test]
    fn both_modes_have_the_same_attributes() {
        let time = [("ce-time", "2021-02-26T19:13:55.749Z"), ("ce-customer", "c1")];
        let mut binary = decoded(&[&BINARY[..], &time, &[("accept", "x")]].concat(), "1").unwrap();
        assert_eq!(binary.message_id.as_deref(), Some("/s a"));
        assert_eq!(binary.publish_time_ms, Some(1_614_366_835_749));
        assert_eq!(binary.attributes.len(), 6);
        let body = r#"{"id":"a","source":"/s","specversion":"1.0","type":"t","Not":"a name",
            "time":"2021-02-26T19:13:55.749Z","customer":"c1","data":"x","data_base64":"eA==",
            "n":null,"o":{},"l":[],"f":1.5}"#;
        let content_type = ("content-type", "Application/CloudEvents+JSON ; charset=utf-8");
        let structured = decoded(&[content_type], body).unwrap();
        binary.attributes.insert(content_type.0.to_owned(), content_type.1.to_owned());
        assert_eq!(structured, Message { data: body.to_owned().into(), ..binary });
    }

    #[test]
    fn an_event_without_a_required_attribute_is_poison() {
        let structured = [("content-type", STRUCTURED)];
        let binary = [&BINARY[1..], &[("ce-id", "")]].concat();
        for (fields, body) in [
            (&binary[..], "x"),
            (&structured, "x"),
            (&structured, "[]"),
            (&structured, r#"{"id":"","source":"/s","specversion":"1.0","type":"t"}"#),
            (&structured, r#"{"id":"a","source":null,"specversion":"1.0","type":"t"}"#),
            (&structured, r#"{"id":1,"source":"/s","specversion":"1.0","type":"t"}"#),
        ] {
            assert!(is_cloud_event(&headers(fields)));
            let Err(DecodeError::Poison(poison)) = decoded(fields, body) else {
                panic!("{body} is poison")
            };
            assert_eq!(poison.reason, PoisonReason::BadCloudEvent);
        }
    }

    #[test]
    fn other_requests_are_no_cloud_events() {
        let eventarc = [&BINARY[..3], &[("ce-type", PUBSUB_TYPE)]].concat();
        let batch = [("content-type", "application/cloudevents-batch+json")];
        for fields in [&BINARY[..3], &eventarc, &batch] {
            assert!(!is_cloud_event(&headers(fields)), "{fields:?}");
        }
        assert!(is_cloud_event(&headers(&BINARY)));
    }
}
