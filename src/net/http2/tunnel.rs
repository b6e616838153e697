//! Tunnel: a stream of HTTP/2 that carries bytes in both directions, after an extended CONNECT
//! ([RFC 8441](https://www.rfc-editor.org/rfc/rfc8441)).

use std::{
    cell::RefCell,
    fmt, io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::{http2::ServedConnection, stall::WriteWatch};

/// Offer in the extensions of a request for a tunnel: its handler may accept it. The handler then
/// answers with 200, and with [`TakenOver`](crate::net::http1::takeover::TakenOver) as the body.
#[derive(Default)]
pub(crate) struct TunnelOffer(RefCell<Option<Receiver>>);

/// Function that receives the tunnel.
pub(super) type Receiver = Box<dyn FnOnce(Tunnel)>;

impl fmt::Debug for TunnelOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelOffer").finish_non_exhaustive()
    }
}

impl TunnelOffer {
    /// Accepts the offer. `receiver` gets the tunnel after the head of the response was sent.
    pub(crate) fn accept(&self, receiver: impl FnOnce(Tunnel) + 'static) {
        self.0.replace(Some(Box::new(receiver)));
    }

    /// Returns the receiver, if the offer was accepted.
    pub(super) fn take(&self) -> Option<Receiver> {
        self.0.take()
    }
}

/// Bytes of one stream in both directions. Dropping it before its end resets the stream. The
/// connection counts as one with a stream until then.
pub(crate) struct Tunnel {
    incoming: RecvStream,
    outgoing: SendStream<Bytes>,
    /// Watch over the flow-control window of the stream.
    watch: WriteWatch,
    /// Received bytes that are not read yet.
    received: Bytes,
    connection: Rc<ServedConnection>,
    /// Count of the open streams of the connection.
    _counted: Rc<()>,
}

impl Tunnel {
    /// Creates a tunnel. The head of the response is sent already.
    pub(super) fn new(
        incoming: RecvStream,
        outgoing: SendStream<Bytes>,
        watch: WriteWatch,
        connection: Rc<ServedConnection>,
        counted: Rc<()>,
    ) -> Self {
        connection.permit.begin_stream();
        Self { incoming, outgoing, watch, received: Bytes::new(), connection, _counted: counted }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.connection.permit.end_stream();
    }
}

impl AsyncRead for Tunnel {
    /// Reads received bytes. The flow-control window grows by what is read.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.received.is_empty() {
            let Some(chunk) = ready!(self.incoming.poll_data(cx)) else {
                return Poll::Ready(Ok(()));
            };
            self.received = chunk.map_err(into_io_error)?;
        }
        let bytes = self.received.len().min(buffer.remaining());
        buffer.put_slice(&self.received.split_to(bytes));
        self.incoming.flow_control().release_capacity(bytes).map_err(into_io_error)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    /// Writes as many bytes as the flow-control window takes.
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { outgoing, watch, .. } = &mut *self;
        outgoing.reserve_capacity(bytes.len());
        let room = ready!(watch.poll(cx, |cx| outgoing.poll_capacity(cx)))?;
        let Some(room) = room.transpose().map_err(into_io_error)? else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let taken = room.min(bytes.len());
        outgoing.send_data(bytes.copy_to_bytes(taken), false).map_err(into_io_error)?;
        Poll::Ready(Ok(taken))
    }

    /// Does nothing: the connection sends what is written.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends the stream in this direction.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.outgoing.send_data(Bytes::new(), true).map_err(into_io_error))
    }
}

/// Converts an error. An error of the socket keeps its kind, so that a stall is recognized.
fn into_io_error(err: h2::Error) -> io::Error {
    if err.is_io() {
        err.into_io().unwrap_or_else(|| io::ErrorKind::Other.into())
    } else {
        io::Error::other(err)
    }
}
