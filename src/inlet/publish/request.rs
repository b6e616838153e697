//! Requests to publish: decodes the query, the headers and the body into publications.

use std::collections::BTreeMap;

use actix_web::{http::header::HeaderMap, web::Query};
use bytes::Bytes;

use crate::{
    inlet::{
        cloud_event,
        publish::{
            messages,
            publication::{Publication, PublicationError},
        },
        shortened,
    },
    model::topic::Topic,
};

/// Header with the idempotency key
/// (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>).
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Beginning of the parameters with attributes.
const ATTRIBUTES: &str = "attributes.";
/// Attribute with the type of the event.
const EVENT: &str = "event";

/// Request to publish, without its body.
#[derive(Debug)]
pub struct PublishRequest {
    /// Topic in the path.
    topic: Topic,
    /// True if the body has Pub/Sub's JSON (`format=pubsub`), and false if it is the data.
    pub(crate) is_pubsub: bool,
    attributes: BTreeMap<String, String>,
    ordering_key: Option<String>,
    idempotency_key: Option<String>,
}

impl PublishRequest {
    /// Reads the query and the headers of a request to publish to `topic`.
    ///
    /// # Errors
    /// See [`PublicationError`].
    pub fn read(topic: Topic, query: &str, headers: &HeaderMap) -> Result<Self, PublicationError> {
        if cloud_event::is_batch(headers) {
            return refuse("batches of CloudEvents are not accepted: send one event in a request");
        }
        let idempotency_key = idempotency_key(headers)?;
        let mut request = Self {
            topic,
            is_pubsub: false,
            attributes: BTreeMap::new(),
            ordering_key: None,
            idempotency_key,
        };
        let Query(pairs) = Query::<Vec<(String, String)>>::from_query(query)
            .map_err(|err| PublicationError(shortened(&err.to_string())))?;
        let mut is_format_given = false;
        for (name, value) in pairs {
            let is_repeated = match name.as_str() {
                "format" if value == "pubsub" => std::mem::replace(&mut is_format_given, true),
                "format" => {
                    let shown = shortened(&value);
                    return refuse(&format!(
                        "format: {shown:?} is not pubsub; leave it out for data"
                    ));
                }
                "event" | "key" if value.is_empty() => continue,
                "event" => request.attributes.insert(EVENT.to_owned(), value).is_some(),
                "key" => request.ordering_key.replace(value).is_some(),
                other => {
                    let Some(key) = other.strip_prefix(ATTRIBUTES) else {
                        let shown = shortened(other);
                        return refuse(&format!(
                            "{shown:?} is no parameter: expected event, key, attributes.NAME or format"
                        ));
                    };
                    request.attributes.insert(key.to_owned(), value).is_some()
                }
            };
            if is_repeated {
                return refuse(&format!("{:?} is given twice", shortened(&name)));
            }
        }
        request.is_pubsub = is_format_given;
        if request.is_pubsub && (!request.attributes.is_empty() || request.ordering_key.is_some()) {
            return refuse(
                "with format=pubsub each message has its own attributes and orderingKey: leave \
                 event, key and attributes.NAME out",
            );
        }
        Ok(request)
    }

    /// Decodes the body: one publication of any data or of a CloudEvent, or the messages of
    /// `format=pubsub`.
    ///
    /// # Errors
    /// See [`PublicationError`].
    pub fn decode(
        self,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Vec<Publication>, PublicationError> {
        if self.is_pubsub {
            return messages::decode(&self.topic, &body, self.idempotency_key.as_deref());
        }
        let mut publication = Publication {
            topic: self.topic,
            data: body,
            attributes: self.attributes,
            ordering_key: self.ordering_key,
            idempotency_key: self.idempotency_key,
        };
        if cloud_event::is_cloud_event(headers) {
            add_cloud_event(&mut publication, headers)?;
        }
        Ok(vec![publication])
    }
}

/// Adds the attributes of the CloudEvent that the headers and the data are, and its id.
fn add_cloud_event(
    publication: &mut Publication,
    headers: &HeaderMap,
) -> Result<(), PublicationError> {
    let topic = Some(publication.topic.clone());
    let event = cloud_event::decode(headers, publication.data.clone(), topic)
        .map_err(|err| PublicationError(shortened(&err.to_string())))?;
    for (name, value) in event.attributes {
        if publication.attributes.insert(name, value).is_some() {
            return refuse("an attribute of the CloudEvent is also in the query");
        }
    }
    publication.idempotency_key = publication.idempotency_key.take().or(event.message_id);
    Ok(())
}

/// Reads the idempotency key. It may be quoted, as a string of a structured field is.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, PublicationError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return refuse("there are several headers Idempotency-Key: expected one");
    }
    let text = value.to_str().unwrap_or_default().trim();
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let key = quoted.unwrap_or(text);
    if key.is_empty() {
        return refuse("Idempotency-Key is not a key: expected 1 to 255 ASCII characters");
    }
    Ok(Some(key.to_owned()))
}

fn refuse<T>(text: &str) -> Result<T, PublicationError> {
    Err(PublicationError(text.to_owned()))
}
