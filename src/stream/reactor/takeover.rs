//! How a stream gets from the handler of its request to the socket past the response.

use std::{
    cell::RefCell,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

use crate::stream::open::Subscribed;

/// Comes with a request whose connection can be taken over. The handler leaves the stream here, and
/// answers with the head alone.
#[derive(Debug, Default)]
pub struct Takeover(RefCell<Handoff>);

/// What the handler left.
#[derive(Debug, Default)]
pub enum Handoff {
    /// Its response is the whole answer.
    #[default]
    None,
    /// This belongs behind the head.
    Stream(Box<Subscribed>),
    /// Its response is none: the request is to be handled without a hatch.
    Decline,
}

impl Takeover {
    pub fn leave(&self, rest: Handoff) {
        self.0.replace(rest);
    }

    pub fn take(&self) -> Handoff {
        self.0.take()
    }
}

/// The body of a response whose stream was left in the hatch: its head is that of a stream.
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
