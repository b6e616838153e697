//! Takeover: a handler takes the socket of its request, and writes the body of the response itself.

use std::{
    cell::RefCell,
    convert::Infallible,
    fmt, io,
    net::TcpStream,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

use crate::net::{http1::Peer, limiter::ConnectionPermit};

/// Offer in the extensions of a request: its handler may take the connection over. The handler then
/// answers with [`TakenOver`] as the body.
#[derive(Default)]
pub(crate) struct Takeover(RefCell<Option<Receiver>>);

/// Function that receives the socket.
pub(super) type Receiver = Box<dyn FnOnce(TakenSocket) -> io::Result<()>>;

/// Socket that was taken over. It is plain and has no received bytes that are not used.
#[derive(Debug)]
pub(crate) struct TakenSocket {
    /// Socket, on which the head was not written yet.
    pub io: TcpStream,
    /// Head of the response, which must be written before anything else.
    pub head: Bytes,
    /// Client of the connection. `None` if the client has no permit of the limit per address, and
    /// its address is that of the socket.
    pub peer: Option<Box<Peer>>,
    /// Permit of the limiter.
    pub permit: ConnectionPermit,
}

/// Body of a response whose connection is taken over. It makes the head that of a chunked response,
/// and is never read.
#[derive(Debug)]
pub(crate) struct TakenOver;

impl fmt::Debug for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Takeover").finish_non_exhaustive()
    }
}

impl Takeover {
    /// Accepts the offer. `receiver` gets the socket once the head of the response is known.
    pub(crate) fn accept(&self, receiver: impl FnOnce(TakenSocket) -> io::Result<()> + 'static) {
        self.0.replace(Some(Box::new(receiver)));
    }

    /// Returns the receiver, if the offer was accepted.
    pub(super) fn take(&self) -> Option<Receiver> {
        self.0.take()
    }
}

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
