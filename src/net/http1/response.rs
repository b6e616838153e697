//! Writer of one response.

use std::{
    cell::RefCell,
    io, mem,
    task::{Context, Poll, ready},
};

use actix_http::Response;
use actix_web::body::{BodySize, BoxBody, MessageBody as _};
use bytes::BytesMut;

use crate::net::{
    http1::connection::Http1Connection,
    stall::{drop_stalled, is_stall},
};

/// Response that is being written. It is polled by hand, since the future of an `async` function
/// would be larger, and stays for the whole life of a stream.
pub(super) struct ResponseWriter {
    body: BoxBody,
    /// Encoded bytes that the socket did not take yet.
    out: BytesMut,
    /// True for a body without a known size. It can last for hours.
    is_stream: bool,
    /// True if all of the body is encoded.
    is_ended: bool,
}

/// Capacity for the head of a response. Few heads are longer.
pub(super) const HEAD_BYTES: usize = 512;
/// Number of bytes of a response that are collected before they are written.
const WRITE_BYTES: usize = 16 * 1024;

impl ResponseWriter {
    /// Begins a response.
    ///
    /// # Errors
    /// Fails when the head cannot be encoded.
    pub(super) fn new(
        connection: &RefCell<Http1Connection>,
        response: Response<BoxBody>,
    ) -> io::Result<Self> {
        let (head, body) = response.into_parts();
        let (size, mut out) = (body.size(), BytesMut::with_capacity(HEAD_BYTES));
        let is_stream = size == BodySize::Stream;
        let is_ended = matches!(size, BodySize::None | BodySize::Sized(0));
        let mut connection = connection.borrow_mut();
        connection.encode_head(head, size, &mut out)?;
        if is_stream {
            connection.permit.begin_stream();
        }
        Ok(Self { body, out, is_stream, is_ended })
    }

    /// Writes the response to its end.
    ///
    /// # Errors
    /// Fails when the connection must be closed: the socket broke or is stalled, the body failed,
    /// or the reader of a stream is gone.
    pub(super) fn poll(
        &mut self,
        connection: &RefCell<Http1Connection>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let written = ready!(self.poll_parts(connection, cx));
        if self.is_stream {
            connection.borrow().permit.end_stream();
        }
        if written.as_ref().is_err_and(is_stall) {
            drop_stalled(mem::replace(&mut self.body, BoxBody::new(())));
        }
        Poll::Ready(written)
    }

    fn poll_parts(
        &mut self,
        connection: &RefCell<Http1Connection>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_ended {
            if WRITE_BYTES <= self.out.len() {
                ready!(connection.borrow_mut().poll_write(cx, &mut self.out))?;
            }
            // The body may read the request, and so must not find the connection borrowed.
            let chunk = self.body.as_pin_mut().poll_next(cx);
            let mut connection = connection.borrow_mut();
            let Poll::Ready(chunk) = chunk else {
                ready!(connection.poll_write(cx, &mut self.out))?;
                // A stream that waits keeps no buffer.
                self.out = BytesMut::new();
                let is_gone = self.is_stream.then(|| connection.poll_gone(cx));
                return is_gone.unwrap_or(Poll::Pending).map(Err);
            };
            let chunk = chunk.transpose().map_err(|err| io::Error::other(err.to_string()))?;
            self.is_ended = chunk.is_none();
            connection.encode_chunk(chunk, &mut self.out)?;
        }
        connection.borrow_mut().poll_write(cx, &mut self.out)
    }
}
