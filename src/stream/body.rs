//! A stream as the body of a response.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

use crate::stream::session::{FellBehindError, Stream};

/// The body of a response to `GET /events`. It is asked for more only while its socket takes more,
/// and then reads on from its cursor: that is all the flow control there is.
#[derive(Debug)]
pub struct EventStream(pub Rc<RefCell<Stream>>);

impl MessageBody for EventStream {
    type Error = FellBehindError;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, FellBehindError>>> {
        self.0.borrow_mut().poll_body(cx)
    }
}
