//! Bodies of pushes: with a wrapper, without one, and CloudEvents. The oracles are the tree that
//! `serde_json` makes of the body and the four strict decoders of the `base64` crate.
//!
//! An input is a body; or `/`, the topic in the path, lines of headers, an empty line and a body.

use std::collections::BTreeMap;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use base64::{Engine as _, engine::general_purpose as alphabets};
use bytes::Bytes;
use serde_json::Value;
use stream_events::{
    inlet::{DecodeError, PoisonReason, cloud_event, envelope, unwrapped},
    model::{message::Message, topic::Topic},
};

/// Runs the target on one input: see the module.
pub fn run(input: &[u8]) -> &'static str {
    let (topic, headers, body) = request(input);
    if unwrapped::has_metadata(&headers) {
        let body = Bytes::copy_from_slice(body);
        let decoded = unwrapped::decode(&headers, body.clone(), topic.clone());
        return check_unwrapped(decoded.as_ref(), &headers, &body, topic.as_ref());
    }
    if cloud_event::is_cloud_event(&headers) {
        return super::cloud_event::check(&headers, body, topic.as_ref());
    }
    let decoded = envelope::decode(body, topic.clone());
    if let Ok(tree) = serde_json::from_slice::<Value>(body) {
        // The tree keeps the last of two fields with one name, and the gateway refuses both. So the
        // comparison uses a text that has each field once.
        let once = envelope::decode(tree.to_string().as_bytes(), topic.clone());
        check_wrapped(&once, &tree, topic.as_ref());
        if decoded.is_ok() {
            assert_eq!(decoded, once, "two spellings of one JSON");
        }
    }
    outcome(&decoded)
}

fn outcome(decoded: &Result<Message, DecodeError>) -> &'static str {
    match decoded {
        Ok(_) => "message",
        Err(DecodeError::NotAnEnvelope(_)) => "no-envelope",
        Err(DecodeError::NoTopic(_)) => "no-topic",
        Err(DecodeError::Poison(poison)) => match poison.reason {
            PoisonReason::BadBase64 => "poison-bad-base64",
            PoisonReason::BadCloudEvent => "poison-bad-cloud-event",
            PoisonReason::BadType => "poison-bad-type",
            PoisonReason::TooLarge => panic!("the decoders have no limit on the size"),
        },
    }
}

fn request(input: &[u8]) -> (Option<Topic>, HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    let Some(mut rest) = input.strip_prefix(b"/") else {
        return ("orders".parse().ok(), headers, input);
    };
    let mut line = || {
        let (line, after) = rest.split_at(rest.iter().position(|byte| *byte == b'\n')?);
        rest = &after[1..];
        Some(line)
    };
    let topic = line().and_then(|name| str::from_utf8(name).ok()?.parse().ok());
    while let Some(field) = line().filter(|field| !field.is_empty()) {
        let Some(colon) = field.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&field[..colon]);
        let value = HeaderValue::from_bytes(field[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (topic, headers, rest)
}

/// Returns a field's string, in its first spelling or else in its second.
///
/// # Errors
/// When the field has another type.
fn text<'a>(message: &'a Value, names: &[&str]) -> Result<Option<&'a str>, ()> {
    let mut found = None;
    for name in names {
        match message.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => found = found.or(Some(text.as_str())),
            Some(_) => return Err(()),
        }
    }
    Ok(found)
}

fn attributes(message: &Value) -> Result<BTreeMap<String, String>, ()> {
    match message.get("attributes") {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(all)) => {
            all.iter()
                .map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
                .collect::<Option<_>>()
        }
        .ok_or(()),
        Some(_) => Err(()),
    }
}

/// Returns the message that a body must decode to, field by field.
///
/// # Errors
/// The outcome of a body that must be refused.
fn expected(tree: &Value, topic: Option<&Topic>) -> Result<Message, &'static str> {
    let message = tree.get("message").filter(|message| message.is_object()).ok_or("no-envelope")?;
    let bad_type = |()| "poison-bad-type";
    let data = text(message, &["data"]).map_err(bad_type)?;
    let message_id = text(message, &["messageId", "message_id"]).map_err(bad_type)?;
    let publish_time = text(message, &["publishTime", "publish_time"]).map_err(bad_type)?;
    let ordering_key = text(message, &["orderingKey", "ordering_key"]).map_err(bad_type)?;
    let attributes = attributes(message).map_err(bad_type)?;
    let subscription = text(tree, &["subscription"]).map_err(bad_type)?;
    let of_subscription = || subscription?.rsplit('/').next()?.parse().ok();
    let filled = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    Ok(Message {
        topic: topic.cloned().or_else(of_subscription).ok_or("no-topic")?,
        data: data.map_or(Some(Bytes::new()), from_base64).ok_or("poison-bad-base64")?,
        attributes,
        ordering_key: filled(ordering_key),
        message_id: filled(message_id),
        publish_time_ms: publish_time.and_then(envelope::parse_time),
    })
}

/// Decodes base64 in either alphabet, with or without padding, but one alphabet for the whole text.
fn from_base64(text: &str) -> Option<Bytes> {
    // The gateway ignores padding, so one `=` where two belong is fine.
    let bare = text.strip_suffix('=').filter(|rest| rest.len() % 4 == 3);
    let bare = bare.filter(|rest| !rest.ends_with('=')).map(|_| text);
    let half = text.strip_suffix('=').filter(|rest| rest.len() % 4 == 2);
    let half = half.filter(|rest| !rest.ends_with('='));
    let text = bare.or(half).unwrap_or(text);
    [
        &alphabets::STANDARD,
        &alphabets::STANDARD_NO_PAD,
        &alphabets::URL_SAFE,
        &alphabets::URL_SAFE_NO_PAD,
    ]
    .iter()
    .find_map(|alphabet| alphabet.decode(text).ok())
    .map(Bytes::from)
}

/// Compares a decoded envelope with the tree.
fn check_wrapped(decoded: &Result<Message, DecodeError>, tree: &Value, topic: Option<&Topic>) {
    match expected(tree, topic) {
        Ok(message) => assert_eq!(decoded.as_ref(), Ok(&message)),
        Err(refused) => assert_eq!(outcome(decoded), refused, "{tree}"),
    }
    let Err(DecodeError::Poison(poison)) = decoded else { return };
    // Users look for a poison message in Pub/Sub by its message id.
    let message = &tree["message"];
    let of = |name: &str| message.get(name).filter(|id| !id.is_null());
    let id = of("messageId").or_else(|| of("message_id")).and_then(Value::as_str);
    let shown = poison.message_id.as_deref();
    assert_eq!(shown.unwrap_or_default(), id.unwrap_or_default(), "{tree}");
}

/// Compares a message without a wrapper with its request: the body is the data, and the attributes
/// are headers, none of them the transport's.
fn check_unwrapped(
    decoded: Result<&Message, &DecodeError>,
    headers: &HeaderMap,
    body: &Bytes,
    topic: Option<&Topic>,
) -> &'static str {
    let text = |name: &str| headers.get(name).and_then(|v| str::from_utf8(v.as_bytes()).ok());
    let of_subscription =
        || text("x-goog-pubsub-subscription-name")?.rsplit('/').next()?.parse::<Topic>().ok();
    let topic = topic.cloned().or_else(of_subscription);
    let (message, topic) = match (decoded, topic) {
        (Ok(message), Some(topic)) => (message, topic),
        (Err(DecodeError::NoTopic(_)), None) => return "no-topic",
        (other, topic) => panic!("{other:?} with the topic {topic:?}"),
    };
    assert_eq!((&message.topic, &message.data), (&topic, body));
    let id = text("x-goog-pubsub-message-id").filter(|id| !id.is_empty());
    assert_eq!(message.message_id.as_deref(), id);
    let secret = ["authorization", "cookie", "proxy-authorization", "host", "x-forwarded-for"];
    for (name, value) in &message.attributes {
        assert!(!secret.contains(&name.as_str()), "{name}");
        assert!(!name.starts_with("x-goog-"), "{name}");
        let named = headers.get_all(name.as_str()).any(|v| v.as_bytes() == value.as_bytes());
        assert!(named, "{name}: {value:?} is not a header");
    }
    "unwrapped"
}
