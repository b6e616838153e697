//! `Publish`: stores a message, under the rules of `POST /publish/{topic}`.

use actix_web::HttpRequest;

use super::{
    proto::stream_events::{PublishRequest, PublishResponse},
    status::{Code, Status},
};
use crate::{
    inlet::publish::{
        PublishEndpoint,
        publication::{DATA_MAX_BYTES, Publication},
    },
    model::{
        event_id::EventId,
        topic::{ParseTopicError, Topic},
    },
};

/// Largest message of the request, in bytes: the most data, and room for the most attributes.
pub(super) const REQUEST_MAX_BYTES: usize = DATA_MAX_BYTES + 256 * 1024;

/// Stores the message that `receive` returns, which is called once the client may publish.
pub(super) async fn publish(
    endpoint: &PublishEndpoint,
    request: &HttpRequest,
    receive: impl Future<Output = Result<PublishRequest, Status>>,
) -> Result<PublishResponse, Status> {
    let _guard = endpoint.in_flight.begin();
    let publisher = endpoint.authenticate(request).await?;
    let publication = publication(receive.await?)?;
    Ok(response(endpoint.publish_counted(&publisher, publication).await?))
}

/// Returns the publication of a request. An empty text is one that is not set.
pub(super) fn publication(asked: PublishRequest) -> Result<Publication, Status> {
    let topic: Topic = asked.topic.parse().map_err(|err: ParseTopicError| {
        Status::new(Code::InvalidArgument, format!("topic: {err}"))
    })?;
    let given = |text: String| (!text.is_empty()).then_some(text);
    Ok(Publication {
        topic,
        data: asked.data,
        attributes: asked.attributes,
        ordering_key: given(asked.ordering_key),
        idempotency_key: given(asked.idempotency_key),
    })
}

/// Returns the answer for a stored event.
pub(super) fn response(id: EventId) -> PublishResponse {
    PublishResponse { id: id.to_string() }
}
