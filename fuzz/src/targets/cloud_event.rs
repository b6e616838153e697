//! CloudEvents in pushes, for the target `envelope`. The oracles are a second decoder of headers,
//! and the tree that `serde_json` makes of a body.

use std::collections::BTreeMap;

use actix_web::http::header::HeaderMap;
use bytes::Bytes;
use serde_json::Value;
use stream_events::{
    inlet::{DecodeError, PoisonReason, cloud_event, envelope},
    model::{message::Message, topic::Topic},
};

/// Decodes a CloudEvent and compares it with its request.
pub(super) fn check(headers: &HeaderMap, body: &[u8], topic: Option<&Topic>) -> &'static str {
    let body = Bytes::copy_from_slice(body);
    let decoded = cloud_event::decode(headers, body.clone(), topic.cloned());
    let Some(topic) = topic else {
        assert!(matches!(decoded, Err(DecodeError::NoTopic(_))), "{decoded:?}");
        return "no-topic";
    };
    let content_type = headers.get("content-type").and_then(|value| value.to_str().ok());
    let is_structured = content_type.is_some_and(|value| {
        let name = value.find(';').map_or(value, |end| &value[..end]);
        name.trim().eq_ignore_ascii_case("application/cloudevents+json")
    });
    let expected = if is_structured {
        // The tree has a limit on nesting and on numbers, and the gateway reads only attributes.
        match (serde_json::from_slice::<Value>(&body), &decoded) {
            (Err(_), Ok(_)) => return "cloud-event",
            (tree, _) => of_tree(&tree.unwrap_or_default()),
        }
    } else {
        of_headers(headers)
    };
    let is_filled = |name: &str| {
        let value = expected.as_ref().and_then(|all| all.get(name));
        value.is_some_and(|value| !value.is_empty())
    };
    let is_valid = ["ce-id", "ce-source", "ce-type", "ce-specversion"].into_iter().all(is_filled);
    match (decoded, expected.filter(|_| is_valid)) {
        (Ok(message), Some(mut attributes)) => {
            attributes.extend(content_type.map(|text| ("content-type".into(), text.into())));
            let of = |name: &str| attributes.get(name).cloned().unwrap_or_default();
            let whole = Message {
                topic: topic.clone(),
                data: body,
                ordering_key: None,
                message_id: Some(of("ce-source") + " " + &of("ce-id")),
                publish_time_ms: envelope::parse_time(&of("ce-time")),
                attributes,
            };
            assert_eq!(message, whole);
            "cloud-event"
        }
        (Err(DecodeError::Poison(poison)), None) => {
            assert_eq!(poison.reason, PoisonReason::BadCloudEvent);
            "poison-bad-cloud-event"
        }
        (decoded, expected) => panic!("{decoded:?} and not {expected:?}"),
    }
}

/// Returns the attributes of a body. Those that a CloudEvent cannot have are left out.
fn of_tree(tree: &Value) -> Option<BTreeMap<String, String>> {
    let mut attributes = BTreeMap::new();
    for (name, value) in tree.as_object()? {
        let value = match value {
            Value::String(text) => text.clone(),
            _ if ["id", "source", "specversion", "type"].contains(&name.as_str()) => continue,
            Value::Bool(value) => value.to_string(),
            value => match value.as_i64() {
                Some(integer) => integer.to_string(),
                None => continue,
            },
        };
        let is_name = name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9'));
        if is_name && !["", "data"].contains(&name.as_str()) {
            attributes.insert(format!("ce-{name}"), value);
        }
    }
    Some(attributes)
}

/// Returns the attributes in the headers. `None` if one of them is not UTF-8.
fn of_headers(headers: &HeaderMap) -> Option<BTreeMap<String, String>> {
    let mut attributes = BTreeMap::new();
    for (name, value) in headers {
        if !name.as_str().starts_with("ce-") {
            continue;
        }
        let mut bytes = value.as_bytes().to_vec();
        String::from_utf8(bytes.clone()).ok()?;
        if 2 <= bytes.len() && bytes[0] == b'"' && bytes[bytes.len() - 1] == b'"' {
            let mut unquoted = Vec::new();
            let mut rest = bytes[1..bytes.len() - 1].iter();
            while let Some(byte) = rest.next() {
                unquoted.extend(if *byte == b'\\' { rest.next() } else { Some(byte) });
            }
            bytes = unquoted;
        }
        let mut plain = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let hex = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
            let hex = hex.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
            let byte = hex.map(|digits| str::from_utf8(digits).unwrap());
            plain.push(byte.map_or(bytes[at], |hex| u8::from_str_radix(hex, 16).unwrap()));
            at += if byte.is_some() { 3 } else { 1 };
        }
        attributes.insert(name.as_str().to_owned(), String::from_utf8(plain).ok()?);
    }
    Some(attributes)
}
