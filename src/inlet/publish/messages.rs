//! Body of `format=pubsub`: the messages of Pub/Sub's REST method `topics.publish`
//! (<https://cloud.google.com/pubsub/docs/reference/rest/v1/projects.topics/publish>).

use serde::{Deserialize, de::IgnoredAny};

use crate::{
    inlet::{
        base64,
        json::{List, Object, Text, Texts},
        publish::publication::{ATTRIBUTES_MAX, Publication, PublicationError},
        shortened,
    },
    model::topic::Topic,
};

/// Largest number of messages in a request, which is that of Pub/Sub.
pub const MESSAGES_MAX: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    messages: List<Object<BatchMessage<'a>>, MESSAGES_MAX>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct BatchMessage<'a> {
    #[serde(borrow)]
    data: Option<Text<'a>>,
    attributes: Option<Texts<ATTRIBUTES_MAX>>,
    #[serde(borrow, alias = "ordering_key")]
    ordering_key: Option<Text<'a>>,
    #[serde(borrow, alias = "message_id")]
    message_id: Option<Text<'a>>,
    /// Time that Pub/Sub sets. Ignored, as by Pub/Sub.
    #[serde(rename = "publishTime", alias = "publish_time")]
    _publish_time: Option<IgnoredAny>,
}

/// Decodes a body. A message without an id has the idempotency key of the request, `#`, and its
/// position in the list, from 0 on.
///
/// # Errors
/// See [`PublicationError`].
pub(super) fn decode(
    topic: &Topic,
    body: &[u8],
    idempotency_key: Option<&str>,
) -> Result<Vec<Publication>, PublicationError> {
    let parsed = match str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(body),
    };
    let Object::<Batch<'_>>(Batch { messages: List(messages) }) = parsed.map_err(|err| {
        let text = shortened(&err.to_string());
        PublicationError(format!("the body is not {{\"messages\":[…]}} as Pub/Sub's: {text}"))
    })?;
    if messages.is_empty() {
        return Err(PublicationError("messages: expected at least one message".to_owned()));
    }
    let publication = |(position, Object(message)): (usize, Object<BatchMessage<'_>>)| {
        let data = message.data.map(|Text(text)| base64::decode(&text)).transpose();
        let data = data.map_err(|err| {
            PublicationError(format!("messages[{position}]: the data is not base64: {err}"))
        })?;
        let own_key = message.message_id.and_then(Text::non_empty);
        Ok(Publication {
            topic: topic.clone(),
            data: data.unwrap_or_default(),
            attributes: message.attributes.map(|Texts(all)| all).unwrap_or_default(),
            ordering_key: message.ordering_key.and_then(Text::non_empty),
            idempotency_key: own_key
                .or_else(|| idempotency_key.map(|key| format!("{key}#{position}"))),
        })
    };
    messages.into_iter().enumerate().map(publication).collect()
}
