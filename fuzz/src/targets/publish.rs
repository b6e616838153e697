//! Requests to publish. The oracles are a form decoded by hand, and the tree that `serde_json`
//! makes of a body of `format=pubsub`.
//!
//! An input is the query, lines of headers, an empty line and a body.

use std::collections::BTreeMap;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use base64::{Engine as _, engine::general_purpose as alphabets};
use bytes::Bytes;
use serde_json::Value;
use stream_events::{
    inlet::{
        cloud_event,
        publish::{
            MESSAGES_MAX,
            publication::{ATTRIBUTES_MAX, Publication},
            request::PublishRequest,
        },
    },
    model::topic::Topic,
};

/// What a query asks for.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    is_pubsub: bool,
    attributes: BTreeMap<String, String>,
    ordering_key: Option<String>,
}

/// Runs the target on one input: see the module.
pub fn run(input: &[u8]) -> &'static str {
    let topic: Topic = "orders".parse().unwrap();
    let Some((query, headers, body)) = request(input) else { return "no-request" };
    let key = key(&headers);
    let content_type = headers.get("content-type").and_then(|value| value.to_str().ok());
    let is_batch = content_type.is_some_and(|value| {
        let name = value.find(';').map_or(value, |end| &value[..end]);
        name.trim().eq_ignore_ascii_case("application/cloudevents-batch+json")
    });
    let expected = asked(&query).filter(|_| key.is_ok() && !is_batch);
    let read = PublishRequest::read(topic.clone(), &query, &headers);
    let Ok(read) = read else {
        let text = read.unwrap_err().to_string();
        assert!(text.chars().count() < 600, "{text}");
        assert_eq!(expected, None, "{query:?}: {text}");
        return "refused-query";
    };
    let (expected, key) = (expected.expect("it must be refused"), key.unwrap());
    let decoded = read.decode(&headers, Bytes::copy_from_slice(body));
    if expected.is_pubsub {
        return check_messages(decoded.ok(), &topic, body, key.as_deref());
    }
    if cloud_event::is_cloud_event(&headers) {
        return if decoded.is_ok() { "cloud-event" } else { "refused-cloud-event" };
    }
    let whole = Publication {
        topic,
        data: Bytes::copy_from_slice(body),
        attributes: expected.attributes,
        ordering_key: expected.ordering_key,
        idempotency_key: key,
    };
    assert_eq!(decoded, Ok(vec![whole]));
    "data"
}

/// Splits an input. Headers that HTTP does not allow are left out.
fn request(input: &[u8]) -> Option<(String, HeaderMap, &[u8])> {
    let mut rest = input;
    let mut line = || {
        let (line, after) = rest.split_at(rest.iter().position(|byte| *byte == b'\n')?);
        rest = &after[1..];
        Some(line)
    };
    let query = String::from_utf8(line()?.to_vec()).ok()?;
    let mut headers = HeaderMap::new();
    while let Some(field) = line().filter(|field| !field.is_empty()) {
        let Some(colon) = field.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&field[..colon]);
        let value = HeaderValue::from_bytes(field[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    Some((query, headers, rest))
}

/// Returns the idempotency key, if there is one.
///
/// # Errors
/// When it must be refused.
fn key(headers: &HeaderMap) -> Result<Option<String>, ()> {
    let all: Vec<_> = headers.get_all("idempotency-key").collect();
    match all[..] {
        [] => Ok(None),
        [one] => {
            let text = str::from_utf8(one.as_bytes()).map_err(drop)?.trim();
            let is_quoted = 2 <= text.len() && text.starts_with('"') && text.ends_with('"');
            let text = if is_quoted { &text[1..text.len() - 1] } else { text };
            let is_valid = !text.is_empty() && text.is_ascii();
            is_valid.then(|| Some(text.to_owned())).ok_or(())
        }
        _ => Err(()),
    }
}

/// Returns what a query asks for, or `None` if it must be refused.
fn asked(query: &str) -> Option<Asked> {
    let mut asked = Asked::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name), decoded(value));
        let is_new = match &*name {
            "format" => value == "pubsub" && !std::mem::replace(&mut asked.is_pubsub, true),
            "key" => value.is_empty() || asked.ordering_key.replace(value).is_none(),
            "event" if value.is_empty() => true,
            "event" => asked.attributes.insert(name, value).is_none(),
            _ => {
                let name = name.strip_prefix("attributes.")?;
                asked.attributes.insert(name.to_owned(), value).is_none()
            }
        };
        if !is_new {
            return None;
        }
    }
    let is_mixed = !asked.attributes.is_empty() || asked.ordering_key.is_some();
    (!asked.is_pubsub || !is_mixed).then_some(asked)
}

fn decoded(text: &str) -> String {
    let text = text.as_bytes();
    let (mut plain, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| text[at] == b'%');
        let hex = hex.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let hex =
            hex.map(|digits| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap());
        plain.push(hex.unwrap_or(if text[at] == b'+' { b' ' } else { text[at] }));
        at += if hex.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Compares the publications of a body of `format=pubsub` with its tree.
fn check_messages(
    decoded: Option<Vec<Publication>>,
    topic: &Topic,
    body: &[u8],
    key: Option<&str>,
) -> &'static str {
    let tree = serde_json::from_slice::<Value>(body);
    let Some(decoded) = decoded else {
        // The tree keeps the last of two fields with one name, and the gateway refuses both. So
        // the comparison uses a text that has each field once.
        let Ok(tree) = tree else { return "refused-body" };
        let once = expected(&tree, topic, key);
        let text = Bytes::from(tree.to_string());
        let again =
            PublishRequest::read(topic.clone(), "format=pubsub", &HeaderMap::new()).unwrap();
        assert_eq!(again.decode(&HeaderMap::new(), text).is_ok(), once.is_some(), "{tree}");
        return "refused-body";
    };
    assert!(decoded.len() <= MESSAGES_MAX);
    assert!(decoded.iter().all(|message| message.attributes.len() <= ATTRIBUTES_MAX));
    // The tree has limits on nesting and on numbers, which the gateway does not read.
    if let Ok(tree) = tree {
        assert_eq!(Some(decoded), expected(&tree, topic, key), "{tree}");
    }
    "messages"
}

/// Decodes base64 of both alphabets, with any part of the padding.
fn of_base64(text: &str) -> Option<Bytes> {
    let bare = text.trim_end_matches('=');
    let padding = bare.len().next_multiple_of(4) - bare.len();
    if padding < text.len() - bare.len() {
        return None;
    }
    let decoders = [alphabets::STANDARD_NO_PAD, alphabets::URL_SAFE_NO_PAD];
    decoders.iter().find_map(|decoder| decoder.decode(bare).ok()).map(Bytes::from)
}

/// Returns the publications of a tree, or `None` if it must be refused.
fn expected(tree: &Value, topic: &Topic, key: Option<&str>) -> Option<Vec<Publication>> {
    let messages = tree.as_object().filter(|all| all.len() == 1)?.get("messages")?.as_array()?;
    let publication = |(position, message): (usize, &Value)| {
        let message = message.as_object()?;
        let names = [
            ["data", "data"],
            ["attributes", "attributes"],
            ["orderingKey", "ordering_key"],
            ["messageId", "message_id"],
            ["publishTime", "publish_time"],
        ];
        let is_known = |name: &String| names.iter().flatten().any(|known| known == name);
        let is_twice = names
            .iter()
            .any(|[a, b]| a != b && message.contains_key(*a) && message.contains_key(*b));
        if is_twice || !message.keys().all(is_known) {
            return None;
        }
        let field = |at: usize| names[at].iter().find_map(|name| message.get(*name));
        let text = |at: usize| match field(at) {
            None | Some(Value::Null) => Some(String::new()),
            Some(Value::String(text)) => Some(text.clone()),
            Some(_) => None,
        };
        let attributes: BTreeMap<_, _> = match field(1) {
            None | Some(Value::Null) => BTreeMap::new(),
            Some(Value::Object(all)) => all
                .iter()
                .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect::<Option<_>>()?,
            Some(_) => return None,
        };
        let filled = |text: String| (!text.is_empty()).then_some(text);
        let data = text(0)?;
        let data = of_base64(&data)?;
        let own = filled(text(3)?);
        Some(Publication {
            topic: topic.clone(),
            data,
            ordering_key: filled(text(2)?),
            idempotency_key: own.or_else(|| key.map(|key| format!("{key}#{position}"))),
            attributes,
        })
        .filter(|publication| publication.attributes.len() <= ATTRIBUTES_MAX)
    };
    let all = messages.iter().enumerate().map(publication).collect::<Option<Vec<_>>>()?;
    (1..=MESSAGES_MAX).contains(&all.len()).then_some(all)
}
