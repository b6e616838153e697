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
pub struct Hatch(RefCell<Left>);

/// What the handler left.
#[derive(Debug, Default)]
pub enum Left {
    /// Its response is the whole answer.
    #[default]
    Nothing,
    /// This belongs behind the head.
    Stream(Box<Subscribed>),
    /// Its response is none: the request is to be handled without a hatch.
    Passed,
}

impl Hatch {
    pub fn leave(&self, left: Left) {
        self.0.replace(left);
    }

    pub fn take(&self) -> Left {
        self.0.take()
    }
}

/// The body of a response whose stream was left in the hatch: its head is that of a stream.
#[derive(Debug)]
pub struct Behind;

impl MessageBody for Behind {
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
