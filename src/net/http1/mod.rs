//! HTTP/1.1 in clear text: the requests of a connection, one after the other, with actix' codec and
//! without the two buffers of 8 KiB that its dispatcher keeps for each connection. A stream leaves
//! this altogether: its socket goes to [`Lean`], and comes back when the stream has ended.
//!
//! What is odd goes to actix as it came, with all that follows on its connection: heads that cannot
//! be read, HTTP/1.0, upgrades, `Expect`.

pub mod connection;

use std::{
    any::Any,
    cell::RefCell,
    convert::Infallible,
    fmt,
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use crate::net::http1::connection::{Body, Heard, Wire};
use actix_http::{
    HttpMessage as _, Payload, Request, Response, ServiceConfig,
    h1::{Codec, Message},
};
use actix_service::Service;
use actix_web::{
    body::{BodySize, BoxBody, MessageBody as _},
    http::{ConnectionType, Method},
    rt::net::TcpStream,
};
use bytes::{Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use prometheus::IntCounter;
use tokio::{io::AsyncWrite as _, time::timeout};
use tokio_util::codec::Encoder as _;

use crate::{
    http::problem::problem,
    limits::concurrency::One,
    net::connection::{ConnectionLimiter, HeadFault, Heads, LINGER, Permit},
    stream::{
        open::Subscribed,
        reactor::{Hatch, Lean, Left},
    },
};

/// How connections are served.
pub struct Http1<S> {
    pub front: Rc<S>,
    pub config: ServiceConfig,
    pub head_time: Duration,
    /// Counts the heads that took longer.
    pub slow_heads: IntCounter,
    /// A peer that takes nothing for so long is let go.
    pub stall: Duration,
    pub lean: Rc<Lean>,
    pub heads: Heads,
    /// Serves what is odd.
    pub actix: Box<dyn Fn(HandedOver) -> LocalBoxFuture<'static, ()>>,
    pub limiter: Rc<ConnectionLimiter>,
}

/// A connection that actix is to serve.
#[derive(Debug)]
pub struct HandedOver {
    pub io: TcpStream,
    /// What was read of it and not used.
    pub ahead: Bytes,
    pub peer: Option<SocketAddr>,
    pub permit: Permit,
}

/// Whose a connection is.
#[derive(Debug)]
pub struct Peer {
    pub address: Option<SocketAddr>,
    /// Kept until the connection ends.
    pub counted: Option<One<IpAddr>>,
}

/// A connection, which a body that is being read has a part in.
type Shared = Rc<RefCell<Wire>>;

/// The head of a response seldom has more.
const HEAD_BYTES: usize = 512;
/// Of a response so much is put together before it is written.
const WRITE_BYTES: usize = 16 * 1024;

impl<S> fmt::Debug for Http1<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1").field("limiter", &self.limiter).finish_non_exhaustive()
    }
}

impl<S> Http1<S>
where
    S: Service<Request, Response = Response<BoxBody>, Error = Infallible> + 'static,
    S::Future: 'static,
{
    /// A place for one more connection of the worker, of any protocol. None if there is none.
    pub fn try_acquire(&self) -> Option<Permit> {
        self.limiter.try_acquire(self.lean.streams())
    }

    /// Serves a new connection, on which `ahead` came already.
    pub async fn serve(
        self: Rc<Self>,
        io: TcpStream,
        ahead: Bytes,
        peer: Box<Peer>,
        permit: Permit,
    ) {
        let wire = self.wire(io, ahead, permit);
        self.answer_all(wire, peer).await;
    }

    /// Serves a connection on, after a stream. Closes it if there is no place for it.
    pub async fn serve_again(self: Rc<Self>, io: TcpStream, peer: Box<Peer>) {
        let Some(permit) = self.try_acquire() else { return };
        let wire = self.wire(io, Bytes::new(), permit);
        self.answer_all(wire.again(), peer).await;
    }

    fn wire(&self, io: TcpStream, ahead: Bytes, permit: Permit) -> Wire {
        Wire::new(io, ahead, &self.config, self.head_time, self.heads.head(), permit)
    }

    async fn answer_all(self: Rc<Self>, wire: Wire, peer: Box<Peer>) {
        let (mut wire, mut peer) = (Rc::new(RefCell::new(wire)), Some(peer));
        loop {
            wire.borrow_mut().begin();
            match poll_fn(|cx| wire.borrow_mut().poll_hear(cx)).await {
                Heard::Request { request, head } => {
                    match self.answer(wire, request, head, &mut peer).await {
                        Ok(Some(next)) => wire = next,
                        Ok(None) => return,
                        Err(err) => return tracing::debug!(error = %err, "connection failed"),
                    }
                }
                Heard::Odd => {
                    let address = peer.as_ref().and_then(|peer| peer.address);
                    return self.hand_over(wire, Bytes::new(), address).await;
                }
                Heard::Refused(fault) => return self.refuse(wire, fault).await,
                Heard::Slow => return self.slow_heads.inc(),
                Heard::Nothing => return,
            }
        }
    }

    /// Has actix serve the connection from `head` on.
    async fn hand_over(&self, wire: Shared, head: Bytes, address: Option<SocketAddr>) {
        let Some(wire) = Rc::into_inner(wire).map(RefCell::into_inner) else { return };
        let (io, read, permit) = wire.into_parts();
        let ahead = if head.is_empty() { read } else { [head, read].concat().into() };
        (self.actix)(HandedOver { io, ahead, peer: address, permit }).await;
    }

    /// Answers a head that no decoder may see. The connection ends.
    async fn refuse(&self, wire: Shared, fault: HeadFault) {
        // One that has decoded nothing: the last request may have been a HEAD.
        wire.borrow_mut().codec = Codec::new(self.config.clone());
        let mut response = Response::from(problem(fault.status(), fault.detail()));
        response.head_mut().set_connection_type(ConnectionType::Close);
        if let Err(err) = self.respond(wire, response).await {
            tracing::debug!(error = %err, "connection failed");
        }
    }

    /// Returns the connection if it goes on.
    async fn answer(
        &self,
        wire: Shared,
        mut request: Request,
        head: BytesMut,
        peer: &mut Option<Box<Peer>>,
    ) -> io::Result<Option<Shared>> {
        let address = peer.as_ref().and_then(|peer| peer.address);
        request.head_mut().peer_addr = address;
        // The routes know it by its decoded name too.
        let may_be = |path: &str| path == "/events" || path.contains('%');
        let is_events = request.method() == Method::GET && may_be(request.path());
        if is_events && !wire.borrow().can_be_left() {
            self.hand_over(wire, head.freeze(), address).await;
            return Ok(None);
        }
        let hatch = is_events.then(Rc::<Hatch>::default);
        if let Some(hatch) = &hatch {
            request.extensions_mut().insert(Rc::clone(hatch));
        }
        if wire.borrow().has_body() {
            *request.payload() = Payload::Stream { payload: Box::pin(Body(Rc::clone(&wire))) };
        }
        let Ok(response) = self.front.call(request).await;
        match hatch.map(|hatch| hatch.take()) {
            Some(Left::Passed) => {
                self.hand_over(wire, head.freeze(), address).await;
                Ok(None)
            }
            Some(Left::Stream(subscribed)) => {
                self.leave(wire, response, *subscribed, peer.take())?;
                Ok(None)
            }
            Some(Left::Nothing) | None => self.respond(wire, response).await,
        }
    }

    /// Leaves the socket to its stream.
    fn leave(
        &self,
        wire: Shared,
        response: Response<BoxBody>,
        subscribed: Subscribed,
        peer: Option<Box<Peer>>,
    ) -> io::Result<()> {
        let gone = io::ErrorKind::NotConnected;
        let mut wire = Rc::into_inner(wire).map(RefCell::into_inner).ok_or(gone)?;
        let mut out = BytesMut::with_capacity(HEAD_BYTES);
        let (head, _) = response.into_parts();
        wire.codec.encode(Message::Item((head, BodySize::Stream)), &mut out)?;
        let io = wire.io.into_std()?;
        // Most connections come from where they say, and are not counted: that is known anyhow.
        let address = io.peer_addr().ok();
        let peer = peer.filter(|peer| peer.counted.is_some() || peer.address != address);
        let peer = peer.map(|peer| -> Box<dyn Any> { peer });
        self.lean.take_in(io, out.freeze(), subscribed, peer)
    }

    async fn respond(
        &self,
        wire: Shared,
        response: Response<BoxBody>,
    ) -> io::Result<Option<Shared>> {
        let (mut head, body) = response.into_parts();
        let size = body.size();
        if wire.borrow().has_body() {
            // What is left of the request's body is no next head.
            head.head_mut().set_connection_type(ConnectionType::Close);
        }
        let mut out = BytesMut::with_capacity(HEAD_BYTES);
        wire.borrow_mut().codec.encode(Message::Item((head, size)), &mut out)?;
        if !matches!(size, BodySize::None | BodySize::Sized(0)) {
            let mut body = pin!(body);
            while let Some(chunk) = poll_fn(|cx| body.as_mut().poll_next(cx)).await {
                let chunk = chunk.map_err(|err| io::Error::other(err.to_string()))?;
                wire.borrow_mut().codec.encode(Message::Chunk(Some(chunk)), &mut out)?;
                if WRITE_BYTES <= out.len() {
                    self.write(&wire, &mut out).await?;
                }
            }
            wire.borrow_mut().codec.encode(Message::Chunk(None), &mut out)?;
        }
        self.write(&wire, &mut out).await?;
        if wire.borrow().codec.keep_alive() && !wire.borrow().has_body() {
            return Ok(Some(wire));
        }
        poll_fn(|cx| Pin::new(&mut wire.borrow_mut().io).poll_shutdown(cx)).await?;
        let discard = poll_fn(|cx| wire.borrow_mut().poll_discard(cx));
        drop(timeout(LINGER, discard).await);
        Ok(None)
    }

    async fn write(&self, wire: &Shared, bytes: &mut BytesMut) -> io::Result<()> {
        let mut written = pin!(poll_fn(|cx| wire.borrow_mut().poll_write(cx, bytes)));
        // Mostly all of it is taken at once, and needs no timer.
        if let Poll::Ready(written) = poll_fn(|cx| Poll::Ready(written.as_mut().poll(cx))).await {
            return written;
        }
        timeout(self.stall, written).await?
    }
}
