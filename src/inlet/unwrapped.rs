//! Pushes without a wrapper: the body is the data, the headers hold the other fields
//! (<https://cloud.google.com/pubsub/docs/payload-unwrapping>).

use std::collections::BTreeMap;

use actix_web::http::header::HeaderMap;
use bytes::Bytes;

use crate::{
    inlet::{
        classify::DecodeError,
        envelope::{parse_time, topic_of},
    },
    model::{message::Message, topic::Topic},
};

/// Prefix of Pub/Sub's own headers, which a subscription with `--push-no-wrapper-write-metadata`
/// sends.
const METADATA: &str = "x-goog-pubsub-";
const MESSAGE_ID: &str = "x-goog-pubsub-message-id";
const PUBLISH_TIME: &str = "x-goog-pubsub-publish-time";
const SUBSCRIPTION: &str = "x-goog-pubsub-subscription-name";
/// Names of the header with the ordering key: the documentation names the first, the emulator
/// (0.8.20) sends the second.
const ORDERING_KEY: [&str; 2] = ["x-goog-pubsub-ordering-key", "x-goog-ordering-key"];

/// Headers of the transport, which never become attributes. An attribute with one of these names is
/// lost, since it looks the same as the header.
const TRANSPORT: &[&str] = &[
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "from",
    "host",
    "http2-settings",
    "keep-alive",
    "origin",
    "pragma",
    "proxy-authorization",
    "proxy-connection",
    "referer",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-cloud-trace-context",
    "x-real-ip",
    "x-request-id",
];

/// Prefixes of headers of the transport: Google's, and those of proxies and service meshes.
const TRANSPORT_PREFIXES: &[&str] =
    &["x-goog-", "x-forwarded-", "x-envoy-", "x-b3-", "x-appengine-", "x-serverless-", "sec-"];

/// Returns true if the headers hold a message's metadata.
pub fn has_metadata(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with(METADATA))
}

/// Decodes an unwrapped push. `topic` is the topic in the path, if the path names one; otherwise
/// the subscription in the headers names it. Names of attributes become lower case, since `Type`
/// and `type` are the same header. Values that are not UTF-8 are left out.
///
/// # Errors
/// [`DecodeError::NoTopic`] when neither the path nor the headers name a topic.
pub fn decode(
    headers: &HeaderMap,
    body: Bytes,
    topic: Option<Topic>,
) -> Result<Message, DecodeError> {
    let text =
        |name: &str| headers.get(name).and_then(|value| str::from_utf8(value.as_bytes()).ok());
    let non_empty = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let topic = match topic {
        Some(topic) => topic,
        None => topic_of(text(SUBSCRIPTION))?,
    };
    let attributes = if has_metadata(headers) { attributes(headers) } else { BTreeMap::new() };
    Ok(Message {
        topic,
        data: body,
        attributes,
        ordering_key: ORDERING_KEY.into_iter().find_map(text).and_then(non_empty),
        message_id: text(MESSAGE_ID).and_then(non_empty),
        publish_time_ms: text(PUBLISH_TIME).and_then(parse_time),
    })
}

fn attributes(headers: &HeaderMap) -> BTreeMap<String, String> {
    let is_transport = |name: &str| {
        TRANSPORT.contains(&name)
            || TRANSPORT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    headers
        .iter()
        .filter(|(name, _)| !is_transport(name.as_str()))
        .filter_map(|(name, value)| {
            let value = str::from_utf8(value.as_bytes()).ok()?;
            Some((name.as_str().to_owned(), value.to_owned()))
        })
        .collect()
}
