//! Command `publish`: stores a message, under the rules of `POST /publish/{topic}`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, value::RawValue};

use super::effect::{Effect, read};
use crate::{
    inlet::{
        base64,
        publish::{PublishRefusedError, publication::Publication},
    },
    model::topic::{ParseTopicError, Topic},
    outlet::client::{
        Client,
        refusal::{CloseCode, Refusal},
    },
};

/// Members of the command.
#[derive(Deserialize)]
struct Publish<'a> {
    topic: String,
    /// Text, which is stored as it is, or any other JSON value, which is stored as JSON.
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    /// Bytes, in place of `data`.
    data_base64: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    /// Type of the event: the attribute `event`.
    event: Option<String>,
    /// Ordering key.
    key: Option<String>,
    /// Idempotency key: the client repeats it when it sends the message again.
    id: Option<String>,
}

/// Stores the message of a command. The answer has the id of its event in a list, as that of `POST
/// /publish/{topic}` does. It is not the member `id` of a record: a client could take that for the
/// position of its stream.
pub(super) async fn publish(client: &Client, text: &str) -> Result<Effect, Refusal> {
    let publication = publication(text)?;
    let publisher = {
        let grant = client.grant()?;
        client.publish.publisher(grant.as_ref(), client.address)?
    };
    let id = client.publish.publish(&publisher, publication).await?;
    let ids = vec![id.to_string()];
    Ok(Effect::Answer(Map::from_iter([("ids".to_owned(), ids.into())])))
}

fn publication(text: &str) -> Result<Publication, Refusal> {
    let Publish { topic, data, data_base64, mut attributes, event, key, id } = read(text)?;
    // An empty text is none, as in the query of `POST /publish/{topic}`.
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (event, ordering_key, idempotency_key) = (given(event), given(key), given(id));
    let malformed = |text: String| Refusal::new(CloseCode::BadRequest, text);
    let topic: Topic =
        topic.parse().map_err(|err: ParseTopicError| malformed(format!("topic: {err}")))?;
    let data = match (data, data_base64) {
        (Some(_), Some(_)) => {
            return Err(malformed("data and data_base64: give one of them".to_owned()));
        }
        (None, Some(text)) => base64::decode(&text)
            .map_err(|err| malformed(format!("data_base64 is not base64: {err}")))?,
        (Some(value), None) => bytes_of(value),
        (None, None) => Bytes::new(),
    };
    if let Some(event) = event
        && attributes.insert("event".to_owned(), event).is_some()
    {
        return Err(malformed("event: the attributes have it already".to_owned()));
    }
    Ok(Publication { topic, data, attributes, ordering_key, idempotency_key })
}

/// Returns the bytes of a JSON value: those of a text, or its JSON as the client wrote it.
fn bytes_of(value: &RawValue) -> Bytes {
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) => text.into(),
        Err(_) => Bytes::copy_from_slice(value.get().as_bytes()),
    }
}

impl From<PublishRefusedError> for Refusal {
    fn from(err: PublishRefusedError) -> Self {
        let code = match err.status().as_u16() {
            400 | 413 => CloseCode::BadRequest,
            401 => CloseCode::Unauthorized,
            403 => CloseCode::Forbidden,
            404 => CloseCode::NotFound,
            429 => CloseCode::TooOften,
            _ => CloseCode::TryAgain,
        };
        let retry_ms =
            err.retry_after().map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        Self { retry_ms, ..Self::new(code, err.to_string()) }
    }
}
