//! HTTP/1.1 in clear text: the requests of a connection, one after the other, with actix' codec and
//! without the two buffers of 8 KiB that its dispatcher keeps for each connection. A stream leaves
//! this altogether: its socket goes to [`Reactor`], and comes back when the stream has ended.
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

use crate::net::http1::connection::{Body, Http1Connection, NextRequest};
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
    limits::concurrency::Permit,
    net::connection::{ConnectionLimiter, ConnectionPermit, HeadBudget, HeadFault, LINGER},
    stream::{
        drive::{reactor::Reactor, takeover::Takeover},
        session::Session,
    },
};

/// How connections are served.
pub struct Http1<S> {
    pub dispatch: Rc<S>,
    pub config: ServiceConfig,
    pub header_timeout: Duration,
    /// Counts the heads that took longer.
    pub slow_heads: IntCounter,
    /// A peer that takes nothing for so long is let go.
    pub write_timeout: Duration,
    pub reactor: Rc<Reactor>,
    pub heads: HeadBudget,
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
    pub permit: ConnectionPermit,
}

/// Whose a connection is.
#[derive(Debug)]
pub struct Peer {
    pub address: Option<SocketAddr>,
    /// Kept until the connection ends.
    pub counted: Option<Permit<IpAddr>>,
}

/// A connection, which a body that is being read has a part in.
type Shared = Rc<RefCell<Http1Connection>>;

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
    pub fn try_acquire(&self) -> Option<ConnectionPermit> {
        self.limiter.try_acquire(self.reactor.streams())
    }

    /// Serves a new connection, on which `ahead` came already.
    pub async fn serve(
        self: Rc<Self>,
        io: TcpStream,
        ahead: Bytes,
        peer: Box<Peer>,
        permit: ConnectionPermit,
    ) {
        let connection = self.connection(io, ahead, permit);
        self.answer_all(connection, peer).await;
    }

    /// Serves a connection on, after a stream. Closes it if there is no place for it.
    pub async fn serve_again(self: Rc<Self>, io: TcpStream, peer: Box<Peer>) {
        let Some(permit) = self.try_acquire() else { return };
        let connection = self.connection(io, Bytes::new(), permit);
        self.answer_all(connection.again(), peer).await;
    }

    fn connection(&self, io: TcpStream, ahead: Bytes, permit: ConnectionPermit) -> Http1Connection {
        Http1Connection::new(
            io,
            ahead,
            &self.config,
            self.header_timeout,
            self.heads.head(),
            permit,
        )
    }

    async fn answer_all(self: Rc<Self>, connection: Http1Connection, peer: Box<Peer>) {
        let (mut connection, mut peer) = (Rc::new(RefCell::new(connection)), Some(peer));
        loop {
            connection.borrow_mut().begin();
            match poll_fn(|cx| connection.borrow_mut().poll_request(cx)).await {
                NextRequest::Request { request, head } => {
                    match self.answer(connection, request, head, &mut peer).await {
                        Ok(Some(next)) => connection = next,
                        Ok(None) => return,
                        Err(err) => return tracing::debug!(error = %err, "connection failed"),
                    }
                }
                NextRequest::Unsupported => {
                    let address = peer.as_ref().and_then(|peer| peer.address);
                    return self.hand_over(connection, Bytes::new(), address).await;
                }
                NextRequest::Refused(fault) => return self.refuse(connection, fault).await,
                NextRequest::TooSlow => return self.slow_heads.inc(),
                NextRequest::Closed => return,
            }
        }
    }

    /// Has actix serve the connection from `head` on.
    async fn hand_over(&self, connection: Shared, head: Bytes, address: Option<SocketAddr>) {
        let Some(connection) = Rc::into_inner(connection).map(RefCell::into_inner) else { return };
        let (io, read, permit) = connection.into_parts();
        let ahead = if head.is_empty() { read } else { [head, read].concat().into() };
        (self.actix)(HandedOver { io, ahead, peer: address, permit }).await;
    }

    /// Answers a head that no decoder may see. The connection ends.
    async fn refuse(&self, connection: Shared, fault: HeadFault) {
        // One that has decoded nothing: the last request may have been a HEAD.
        connection.borrow_mut().codec = Codec::new(self.config.clone());
        let mut response = Response::from(problem(fault.status(), fault.detail()));
        response.head_mut().set_connection_type(ConnectionType::Close);
        if let Err(err) = self.respond(connection, response).await {
            tracing::debug!(error = %err, "connection failed");
        }
    }

    /// Returns the connection if it goes on.
    async fn answer(
        &self,
        connection: Shared,
        mut request: Request,
        head: BytesMut,
        peer: &mut Option<Box<Peer>>,
    ) -> io::Result<Option<Shared>> {
        let address = peer.as_ref().and_then(|peer| peer.address);
        request.head_mut().peer_addr = address;
        // The routes know it by its decoded name too.
        let may_be = |path: &str| path == "/events" || path.contains('%');
        let is_events = request.method() == Method::GET && may_be(request.path());
        if is_events && !connection.borrow().can_hand_over() {
            self.hand_over(connection, head.freeze(), address).await;
            return Ok(None);
        }
        let takeover = is_events.then(Rc::<Takeover>::default);
        if let Some(takeover) = &takeover {
            request.extensions_mut().insert(Rc::clone(takeover));
        }
        if connection.borrow().has_body() {
            *request.payload() =
                Payload::Stream { payload: Box::pin(Body(Rc::clone(&connection))) };
        }
        let Ok(response) = self.dispatch.call(request).await;
        match takeover.and_then(|takeover| takeover.take()) {
            Some(session) => {
                self.leave(connection, response, *session, peer.take())?;
                Ok(None)
            }
            None => self.respond(connection, response).await,
        }
    }

    /// Leaves the socket to its stream.
    fn leave(
        &self,
        connection: Shared,
        response: Response<BoxBody>,
        session: Session,
        peer: Option<Box<Peer>>,
    ) -> io::Result<()> {
        let gone = io::ErrorKind::NotConnected;
        let mut connection = Rc::into_inner(connection).map(RefCell::into_inner).ok_or(gone)?;
        let mut out = BytesMut::with_capacity(HEAD_BYTES);
        let (head, _) = response.into_parts();
        connection.codec.encode(Message::Item((head, BodySize::Stream)), &mut out)?;
        let io = connection.io.into_std()?;
        // Most connections come from where they say, and are not counted: that is known anyhow.
        let address = io.peer_addr().ok();
        let peer = peer.filter(|peer| peer.counted.is_some() || peer.address != address);
        let peer = peer.map(|peer| -> Box<dyn Any> { peer });
        self.reactor.register(io, out.freeze(), session, peer)
    }

    async fn respond(
        &self,
        connection: Shared,
        response: Response<BoxBody>,
    ) -> io::Result<Option<Shared>> {
        let (mut head, body) = response.into_parts();
        let size = body.size();
        if connection.borrow().has_body() {
            // What is left of the request's body is no next head.
            head.head_mut().set_connection_type(ConnectionType::Close);
        }
        let mut out = BytesMut::with_capacity(HEAD_BYTES);
        connection.borrow_mut().codec.encode(Message::Item((head, size)), &mut out)?;
        if !matches!(size, BodySize::None | BodySize::Sized(0)) {
            let mut body = pin!(body);
            while let Some(chunk) = poll_fn(|cx| body.as_mut().poll_next(cx)).await {
                let chunk = chunk.map_err(|err| io::Error::other(err.to_string()))?;
                connection.borrow_mut().codec.encode(Message::Chunk(Some(chunk)), &mut out)?;
                if WRITE_BYTES <= out.len() {
                    self.write(&connection, &mut out).await?;
                }
            }
            connection.borrow_mut().codec.encode(Message::Chunk(None), &mut out)?;
        }
        self.write(&connection, &mut out).await?;
        if connection.borrow().codec.keep_alive() && !connection.borrow().has_body() {
            return Ok(Some(connection));
        }
        poll_fn(|cx| Pin::new(&mut connection.borrow_mut().io).poll_shutdown(cx)).await?;
        let discard = poll_fn(|cx| connection.borrow_mut().poll_discard(cx));
        drop(timeout(LINGER, discard).await);
        Ok(None)
    }

    async fn write(&self, connection: &Shared, bytes: &mut BytesMut) -> io::Result<()> {
        let mut written = pin!(poll_fn(|cx| connection.borrow_mut().poll_write(cx, bytes)));
        // Mostly all of it is taken at once, and needs no timer.
        if let Poll::Ready(written) = poll_fn(|cx| Poll::Ready(written.as_mut().poll(cx))).await {
            return written;
        }
        timeout(self.write_timeout, written).await?
    }
}
