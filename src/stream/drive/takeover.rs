//! Takeover of a connection: how a stream gets from the handler of its request to the reactor.

use std::{
    cell::RefCell,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

use crate::stream::session::Session;

/// Offer that comes with a request whose connection can be taken over. The handler leaves the
/// session here, and answers with the head alone.
#[derive(Debug, Default)]
pub struct Takeover(RefCell<Option<Box<Session>>>);

impl Takeover {
    /// Leaves a session, which follows the head of the response.
    pub fn accept(&self, session: Session) {
        self.0.replace(Some(Box::new(session)));
    }

    /// Takes the session, if the handler left one.
    pub fn take(&self) -> Option<Box<Session>> {
        self.0.take()
    }
}

/// Body of a response whose connection is taken over. It makes the head that of a stream, and is
/// never polled for bytes.
#[derive(Debug)]
pub struct TakenOver;

impl MessageBody for TakenOver {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(None)
    }
}
