//! Serves HTTP/1.1 in clear text: the requests of a connection one after another. It uses the codec
//! of actix, but not its dispatcher, which keeps two buffers of 8 KiB for each connection. The
//! handler of a request can take the socket over ([`Takeover`]), and give it back later.
//!
//! Rare requests are handed over to actix, with all later bytes of their connection: heads that the
//! codec rejects or whose lines end in LF alone, HTTP/1.0, upgrades, `Expect`.

pub mod connection;
pub mod takeover;

use std::{
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

use crate::net::http1::{
    connection::{Body, Http1Connection, NextRequest},
    takeover::{Receiver, TakenSocket, Takeover},
};
use actix_http::{
    HttpMessage as _, Payload, Request, RequestHead, Response, ServiceConfig,
    h1::{Codec, Message},
};
use actix_service::Service;
use actix_web::{
    body::{BodySize, BoxBody, MessageBody as _},
    http::ConnectionType,
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
    net::connection::{ConnectionLimiter, ConnectionPermit, HeadBudget, HeadError, LINGER},
};

/// HTTP/1.1 server of one worker.
pub struct Http1<S> {
    /// Service that answers requests.
    pub dispatch: Rc<S>,
    /// Settings of the codec.
    pub config: ServiceConfig,
    /// Time limit for a request head.
    pub header_timeout: Duration,
    /// Counter of the connections closed after `header_timeout`.
    pub slow_heads: IntCounter,
    /// Time limit for writing a part of a response.
    pub write_timeout: Duration,
    /// Returns true if the handler of a request may take the connection over.
    pub may_take_over: fn(&RequestHead) -> bool,
    /// Returns the number of connections that are taken over.
    pub taken_over: Box<dyn Fn() -> usize>,
    /// Memory budget of incomplete heads.
    pub heads: HeadBudget,
    /// Function that serves a connection with actix.
    pub actix: Box<dyn Fn(HandedOver) -> LocalBoxFuture<'static, ()>>,
    /// Limiter of the connections of the worker.
    pub limiter: Rc<ConnectionLimiter>,
}

/// Connection that is handed over to actix.
#[derive(Debug)]
pub struct HandedOver {
    /// Socket of the connection.
    pub io: TcpStream,
    /// Received bytes that are not answered yet.
    pub ahead: Bytes,
    /// Address of the client.
    pub peer: Option<SocketAddr>,
    /// Permit of the limiter.
    pub permit: ConnectionPermit,
}

/// Client of a connection.
#[derive(Debug)]
pub struct Peer {
    /// Address of the client, from the PROXY protocol header if that has one.
    pub address: Option<SocketAddr>,
    /// Permit of the limit per address, kept until the connection ends.
    pub counted: Option<Permit<IpAddr>>,
}

/// Connection that is shared with the body of its current request.
type Shared = Rc<RefCell<Http1Connection>>;

/// Capacity for the head of a response. Few heads are longer.
const HEAD_BYTES: usize = 512;
/// Number of bytes of a response that are collected before they are written.
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
    /// Returns a permit for one more connection of the worker, of any protocol, or `None` at the
    /// limit.
    pub fn try_acquire(&self) -> Option<ConnectionPermit> {
        self.limiter.try_acquire((self.taken_over)())
    }

    /// Serves a new connection whose first received bytes are `ahead`.
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

    /// Serves a connection after its stream has ended. Closes it at the limit of connections.
    pub async fn serve_again(self: Rc<Self>, io: TcpStream, peer: Box<Peer>) {
        let Some(permit) = self.try_acquire() else { return };
        let connection = self.connection(io, Bytes::new(), permit);
        self.answer_all(connection.reused(), peer).await;
    }

    /// Creates the state of a connection.
    fn connection(&self, io: TcpStream, ahead: Bytes, permit: ConnectionPermit) -> Http1Connection {
        Http1Connection::new(
            io,
            ahead,
            &self.config,
            self.header_timeout,
            self.heads.claim(),
            permit,
        )
    }

    /// Answers the requests of a connection until it ends or is handed over.
    async fn answer_all(self: Rc<Self>, connection: Http1Connection, peer: Box<Peer>) {
        let (mut connection, mut peer) = (Rc::new(RefCell::new(connection)), Some(peer));
        loop {
            connection.borrow_mut().begin_wait();
            match poll_fn(|cx| connection.borrow_mut().poll_request(cx)).await {
                NextRequest::Request { request, head } => {
                    match self.answer(connection, request, head, &mut peer).await {
                        Ok(Some(next)) => connection = next,
                        Ok(None) => return,
                        Err(err) => {
                            return tracing::debug!(error = %err, "HTTP/1.1 connection failed");
                        }
                    }
                }
                NextRequest::Unsupported => {
                    let address = peer.as_ref().and_then(|peer| peer.address);
                    return self.hand_over(connection, Bytes::new(), address).await;
                }
                NextRequest::Refused(err) => return self.refuse(connection, err).await,
                NextRequest::TooSlow => return self.slow_heads.inc(),
                NextRequest::Closed => return,
            }
        }
    }

    /// Hands the connection over to actix, which first reads `head`.
    async fn hand_over(&self, connection: Shared, head: Bytes, address: Option<SocketAddr>) {
        let Some(connection) = Rc::into_inner(connection).map(RefCell::into_inner) else { return };
        let (io, read, permit) = connection.into_parts();
        let ahead = if head.is_empty() { read } else { [head, read].concat().into() };
        (self.actix)(HandedOver { io, ahead, peer: address, permit }).await;
    }

    /// Refuses a head over a limit, and closes the connection.
    async fn refuse(&self, connection: Shared, err: HeadError) {
        // A new codec, since the last request may have been a HEAD, whose response has no body.
        connection.borrow_mut().codec = Codec::new(self.config.clone());
        let mut response = Response::from(problem(err.status(), err.detail()));
        response.head_mut().set_connection_type(ConnectionType::Close);
        if let Err(err) = self.respond(connection, response).await {
            tracing::debug!(error = %err, "HTTP/1.1 connection failed");
        }
    }

    /// Answers a request. Returns the connection, or `None` when it ended or was handed over.
    async fn answer(
        &self,
        connection: Shared,
        mut request: Request,
        head: BytesMut,
        peer: &mut Option<Box<Peer>>,
    ) -> io::Result<Option<Shared>> {
        let address = peer.as_ref().and_then(|peer| peer.address);
        request.head_mut().peer_addr = address;
        let may_take_over = (self.may_take_over)(request.head());
        if may_take_over && !connection.borrow().can_hand_over() {
            self.hand_over(connection, head.freeze(), address).await;
            return Ok(None);
        }
        let takeover = may_take_over.then(Rc::<Takeover>::default);
        if let Some(takeover) = &takeover {
            request.extensions_mut().insert(Rc::clone(takeover));
        }
        if connection.borrow().has_body() {
            *request.payload() =
                Payload::Stream { payload: Box::pin(Body(Rc::clone(&connection))) };
        }
        let Ok(response) = self.dispatch.call(request).await;
        match takeover.and_then(|takeover| takeover.take()) {
            Some(receiver) => {
                Self::give_socket(connection, response, peer.take(), receiver)?;
                Ok(None)
            }
            None => self.respond(connection, response).await,
        }
    }

    /// Gives the socket, and the head of the response, to the handler that takes it over.
    fn give_socket(
        connection: Shared,
        response: Response<BoxBody>,
        peer: Option<Box<Peer>>,
        receiver: Receiver,
    ) -> io::Result<()> {
        let shared = io::ErrorKind::NotConnected;
        let mut connection = Rc::into_inner(connection).map(RefCell::into_inner).ok_or(shared)?;
        let mut out = BytesMut::with_capacity(HEAD_BYTES);
        let (head, _) = response.into_parts();
        connection.codec.encode(Message::Item((head, BodySize::Stream)), &mut out)?;
        let io = connection.io.into_std()?;
        // The peer is kept only if it has a permit, or an address that is not that of the
        // socket. Most streams have neither.
        let address = io.peer_addr().ok();
        let peer = peer.filter(|peer| peer.counted.is_some() || peer.address != address);
        receiver(TakenSocket { io, head: out.freeze(), peer })
    }

    /// Writes a response. Returns the connection if it stays open.
    async fn respond(
        &self,
        connection: Shared,
        response: Response<BoxBody>,
    ) -> io::Result<Option<Shared>> {
        let (mut head, body) = response.into_parts();
        let size = body.size();
        if connection.borrow().has_body() {
            // The rest of the request body must not be read as the next head.
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

    /// Writes all of `bytes`, within the write timeout.
    async fn write(&self, connection: &Shared, bytes: &mut BytesMut) -> io::Result<()> {
        let mut written = pin!(poll_fn(|cx| connection.borrow_mut().poll_write(cx, bytes)));
        // The socket mostly takes all bytes at once, and no timer is needed.
        if let Poll::Ready(written) = poll_fn(|cx| Poll::Ready(written.as_mut().poll(cx))).await {
            return written;
        }
        timeout(self.write_timeout, written).await?
    }
}
