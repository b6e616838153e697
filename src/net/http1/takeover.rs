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

use crate::net::{http1::Peer, limiter::ConnectionPermit, socket::Socket};

/// Offer in the extensions of a request: its handler may take the connection over. The handler then
/// answers with [`TakenOver`] as the body.
pub(crate) struct Takeover {
    is_direct: bool,
    receiver: RefCell<Option<Receiver>>,
}

/// Function that receives the socket.
pub(super) type Receiver = Box<dyn FnOnce(TakenSocket) -> io::Result<()>>;

/// Connection that was taken over.
#[derive(Debug)]
pub(crate) struct TakenSocket {
    /// Socket, on which the head was not written yet.
    pub io: Socket,
    /// Bytes that were received behind the request head.
    pub received: Bytes,
    /// Head of the response, which must be written before anything else.
    pub head: Bytes,
    pub peer: Box<Peer>,
    /// Permit of the limiter.
    pub permit: ConnectionPermit,
}

/// Plain socket that was taken over, without received bytes.
#[derive(Debug)]
pub(crate) struct TakenDirect {
    /// Socket, on which the head was not written yet.
    pub io: TcpStream,
    /// Bytes that must be written before anything else: the head of the response.
    pub head: Bytes,
    /// Client of the connection. `None` if the client has no permit of the limit per address, and
    /// its address is that of the socket.
    pub peer: Option<Box<Peer>>,
    /// Permit of the limiter.
    pub permit: ConnectionPermit,
}

impl TakenSocket {
    /// Returns the plain socket.
    ///
    /// # Errors
    /// Fails for a connection with TLS, and when the runtime does not release the socket.
    pub(crate) fn into_direct(self) -> io::Result<TakenDirect> {
        let Self { io, head, peer, permit, .. } = self;
        let io = io.into_plain().ok_or(io::ErrorKind::Unsupported)?.into_std()?;
        // The peer is kept only if it has a permit, or an address that is not that of the socket.
        // Most streams have neither.
        let address = io.peer_addr().ok();
        let is_kept = peer.counted.is_some() || peer.address != address;
        Ok(TakenDirect { io, head, peer: is_kept.then_some(peer), permit })
    }
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
    /// Creates an offer. `is_direct` is true for a plain socket without received bytes.
    pub(super) fn new(is_direct: bool) -> Self {
        Self { is_direct, receiver: RefCell::default() }
    }

    /// Returns true if the socket is plain and all received bytes are used: see
    /// [`TakenSocket::into_direct`].
    pub(crate) fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// Accepts the offer. `receiver` gets the socket once the head of the response is known.
    pub(crate) fn accept(&self, receiver: impl FnOnce(TakenSocket) -> io::Result<()> + 'static) {
        self.receiver.replace(Some(Box::new(receiver)));
    }

    /// Returns the receiver, if the offer was accepted.
    pub(super) fn take(&self) -> Option<Receiver> {
        self.receiver.take()
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
