//! Writer of the body of one response.

use std::{
    mem,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_web::body::{BoxBody, MessageBody as _};
use bytes::Bytes;
use h2::{Reason, SendStream};

use crate::net::{
    http2::trailers::Trailers,
    stall::{WriteWatch, drop_stalled, is_stall},
};

/// Body that is being written. It is polled by hand, since the future of an `async` function would
/// be larger, and stays for the whole life of a stream.
pub(super) struct BodyWriter {
    body: BoxBody,
    stream: SendStream<Bytes>,
    /// Watch over the flow-control window of the stream. It can be closed while those of other
    /// streams, and the socket, are open.
    watch: WriteWatch,
    /// Part of the body that is not written yet.
    chunk: Bytes,
    /// Trailers, which the body may set.
    trailers: Option<Rc<Trailers>>,
}

impl BodyWriter {
    pub(super) fn new(
        body: BoxBody,
        stream: SendStream<Bytes>,
        watch: WriteWatch,
        trailers: Option<Rc<Trailers>>,
    ) -> Self {
        Self { body, stream, watch, chunk: Bytes::new(), trailers }
    }

    /// Writes the body until it ends or the reader resets the stream. Resets the stream if its
    /// window stays closed for the write timeout.
    ///
    /// # Errors
    /// Fails when the connection or the stream broke.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            while !self.chunk.is_empty() {
                let Self { stream, watch, chunk, .. } = self;
                stream.reserve_capacity(chunk.len());
                match ready!(watch.poll(cx, |cx| stream.poll_capacity(cx))) {
                    Ok(Some(Ok(room))) => {
                        stream.send_data(chunk.split_to(room.min(chunk.len())), false)?;
                    }
                    Ok(Some(Err(err))) => return Poll::Ready(self.fail(err)),
                    Ok(None) => return Poll::Ready(Ok(())),
                    Err(_stall) => {
                        self.drop_stalled();
                        self.stream.send_reset(Reason::CANCEL);
                        return Poll::Ready(Ok(()));
                    }
                }
            }
            if let Poll::Ready(reset) = self.stream.poll_reset(cx) {
                return Poll::Ready(reset.map_or_else(|err| self.fail(err), |_| Ok(())));
            }
            match ready!(self.body.as_pin_mut().poll_next(cx)) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(err)) => {
                    tracing::debug!(error = %err, "response body failed");
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Ok(()));
                }
                None => return Poll::Ready(self.end()),
            }
        }
    }

    /// Ends the stream, with trailers if the body has set them.
    fn end(&mut self) -> Result<(), h2::Error> {
        match self.trailers.as_ref().and_then(|trailers| trailers.take()) {
            Some(trailers) => self.stream.send_trailers(trailers),
            None => self.stream.send_data(Bytes::new(), true),
        }
    }

    /// Ends the body for an error, which can be a stall of the socket that all streams share.
    fn fail(&mut self, err: h2::Error) -> Result<(), h2::Error> {
        if err.get_io().is_some_and(is_stall) {
            self.drop_stalled();
        }
        Err(err)
    }

    fn drop_stalled(&mut self) {
        drop_stalled(mem::replace(&mut self.body, BoxBody::new(())));
    }
}
