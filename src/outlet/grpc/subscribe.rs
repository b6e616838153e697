//! `Subscribe`: one stream.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_web::body::MessageBody as _;
use bytes::Bytes;

use super::{
    answer::{Ended, Messages},
    encode::GRPC,
    proto::stream_events::SubscribeRequest,
    status::Status,
};
use crate::{
    outlet::client::Client,
    stream::{
        drive::body::StreamBody,
        request::{HeaderId, Parameters},
        session::Session,
    },
};

/// Largest message of the request, in bytes: names of the most topics.
pub(super) const REQUEST_MAX_BYTES: usize = 64 * 1024;

impl From<SubscribeRequest> for Parameters {
    /// Returns the parameters that say the same. An empty text is one that is not set.
    fn from(asked: SubscribeRequest) -> Self {
        let given = |text: String| (!text.is_empty()).then_some(text);
        Self {
            topic: asked.topics,
            last_event_id: given(asked.last_event_id),
            since: given(asked.since),
            rewind: (asked.rewind != 0).then(|| asked.rewind.to_string()),
            latest: given(asked.latest),
            slow: given(asked.slow),
            filter: given(asked.filter),
            presence: given(asked.presence),
            name: given(asked.name),
            ..Self::default()
        }
    }
}

/// Opens a stream.
///
/// # Errors
/// Returns the refusal of the stream.
pub(super) fn open(
    client: &Client,
    asked: SubscribeRequest,
    id_of_header: HeaderId,
) -> Result<Session, Status> {
    let opened = client.open(asked.into(), id_of_header, |_| GRPC);
    opened.map_err(Status::from)
}

/// Records of one stream.
pub(super) struct Records(StreamBody);

impl Records {
    pub(super) fn new(session: Session) -> Self {
        Self(StreamBody::new(session))
    }
}

impl Messages for Records {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Ended>> {
        Poll::Ready(match ready!(Pin::new(&mut self.0).poll_next(cx)) {
            Some(Ok(records)) => Ok(records),
            Some(Err(err)) => Err(Ended::Cut(err)),
            None => Err(Ended::With(self.0.end().map_or(Status::OK, Status::of_end))),
        })
    }
}
