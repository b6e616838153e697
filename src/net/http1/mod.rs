//! Serves HTTP/1.1, in clear text and over TLS: the requests of a connection one after another. It
//! uses the codec of actix, which is well tested against request smuggling, but not its dispatcher,
//! which keeps two buffers of 8 KiB for each connection. The handler of a request can take the
//! socket over ([`Takeover`]), and give it back later.

mod buffers;
pub mod chunk;
mod connection;
mod odd;
mod request_head;
pub mod takeover;

use std::{
    cell::RefCell,
    convert::Infallible,
    fmt,
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use crate::net::http1::{
    connection::{Body, Http1Connection, NextRequest},
    request_head::HeadError,
    takeover::{Receiver, TakenSocket, Takeover},
};
use actix_http::{HttpMessage as _, Payload, Request, RequestHead, Response, ServiceConfig};
use actix_service::Service;
use actix_web::{
    body::{BodySize, BoxBody, MessageBody as _},
    http::ConnectionType,
};
use bytes::{Bytes, BytesMut};
use prometheus::IntCounter;
use tokio::{io::AsyncWrite as _, time::timeout};

use crate::{
    http::problem::problem,
    limits::concurrency::Permit,
    net::{
        heads::HeadBudget,
        limiter::ConnectionPermit,
        socket::Socket,
        stall::{drop_stalled, is_stall},
    },
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
    /// Returns true if the handler of a request may take the connection over.
    pub may_take_over: fn(&RequestHead) -> bool,
    /// Memory budget of incomplete heads.
    pub heads: HeadBudget,
}

/// Client of a connection.
#[derive(Debug)]
pub struct Peer {
    /// Address of the client, from the PROXY protocol header if that has one.
    pub address: Option<SocketAddr>,
    /// Permit of the limit per address, kept until the connection ends.
    pub counted: Option<Permit<IpAddr>>,
}

/// Next step of writing a response body.
enum Step {
    /// A part of the body, or its end.
    Chunk(Option<Result<Bytes, Box<dyn std::error::Error>>>),
    /// The body has nothing more for now, and bytes are left to write.
    Write,
    /// The reader of a stream is gone.
    Gone(io::Error),
}

/// Connection that is shared with the body of its current request.
type Shared = Rc<RefCell<Http1Connection>>;

/// Capacity for the head of a response. Few heads are longer.
const HEAD_BYTES: usize = 512;
/// Number of bytes of a response that are collected before they are written.
const WRITE_BYTES: usize = 16 * 1024;
/// Time for which bytes are still read after the last answer. A close over unread bytes would reset
/// the connection, and the peer could lose the answer.
const LINGER: Duration = Duration::from_secs(5);

impl<S> fmt::Debug for Http1<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1").finish_non_exhaustive()
    }
}

impl<S> Http1<S>
where
    S: Service<Request, Response = Response<BoxBody>, Error = Infallible> + 'static,
    S::Future: 'static,
{
    /// Serves a new connection whose first received bytes are `ahead`.
    pub async fn serve(
        self: Rc<Self>,
        io: Socket,
        ahead: Bytes,
        peer: Box<Peer>,
        permit: ConnectionPermit,
    ) {
        let connection = self.connection(io, ahead, permit);
        self.answer_all(connection, peer).await;
    }

    /// Serves a connection again that was taken over.
    pub async fn serve_again(
        self: Rc<Self>,
        io: Socket,
        peer: Box<Peer>,
        permit: ConnectionPermit,
    ) {
        let connection = self.connection(io, Bytes::new(), permit);
        self.answer_all(connection.reused(), peer).await;
    }

    /// Creates the state of a connection.
    fn connection(&self, io: Socket, ahead: Bytes, permit: ConnectionPermit) -> Http1Connection {
        let claim = self.heads.claim();
        Http1Connection::new(io, ahead, &self.config, self.header_timeout, claim, permit)
    }

    /// Answers the requests of a connection until it ends or is taken over.
    async fn answer_all(self: Rc<Self>, connection: Http1Connection, peer: Box<Peer>) {
        let (mut connection, mut peer) = (Rc::new(RefCell::new(connection)), Some(peer));
        loop {
            connection.borrow_mut().begin_wait();
            let answered = match poll_fn(|cx| connection.borrow_mut().poll_request(cx)).await {
                NextRequest::Request(request) => self.answer(connection, request, &mut peer).await,
                NextRequest::Refused(err) => self.refuse(connection, err).await,
                NextRequest::TooSlow => return self.slow_heads.inc(),
                NextRequest::Closed => return,
            };
            match answered {
                Ok(Some(next)) => connection = next,
                Ok(None) => return,
                Err(err) => return tracing::debug!(error = %err, "HTTP/1.1 connection failed"),
            }
        }
    }

    /// Answers a head that is refused, and closes the connection.
    async fn refuse(&self, connection: Shared, err: HeadError) -> io::Result<Option<Shared>> {
        // The last request may have been a HEAD, whose response has no body.
        connection.borrow_mut().forget_request();
        let mut response = Response::from(problem(err.status(), err.to_string()));
        response.head_mut().set_connection_type(ConnectionType::Close);
        self.respond(connection, response).await
    }

    /// Answers a request. Returns the connection, or `None` when it ended or was taken over.
    async fn answer(
        &self,
        connection: Shared,
        mut request: Request,
        peer: &mut Option<Box<Peer>>,
    ) -> io::Result<Option<Shared>> {
        request.head_mut().peer_addr = peer.as_ref().and_then(|peer| peer.address);
        let may_take_over =
            (self.may_take_over)(request.head()) && connection.borrow().can_take_over();
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
        connection.encode_head(head, BodySize::Stream, &mut out)?;
        let Http1Connection { io, permit, .. } = connection;
        let io = io.into_plain().ok_or(io::ErrorKind::Unsupported)?.into_std()?;
        // The peer is kept only if it has a permit, or an address that is not that of the
        // socket. Most streams have neither.
        let address = io.peer_addr().ok();
        let peer = peer.filter(|peer| peer.counted.is_some() || peer.address != address);
        receiver(TakenSocket { io, head: out.freeze(), peer, permit })
    }

    /// Writes a response. Returns the connection if it stays open.
    async fn respond(
        &self,
        connection: Shared,
        response: Response<BoxBody>,
    ) -> io::Result<Option<Shared>> {
        let (head, mut body) = response.into_parts();
        let size = body.size();
        let mut out = BytesMut::with_capacity(HEAD_BYTES);
        connection.borrow_mut().encode_head(head, size, &mut out)?;
        if matches!(size, BodySize::None | BodySize::Sized(0)) {
            write(&connection, &mut out).await?;
        } else if size == BodySize::Stream {
            connection.borrow().permit.begin_stream();
            let written = write_body(&connection, &mut body, true, out).await;
            connection.borrow().permit.end_stream();
            if written.as_ref().is_err_and(is_stall) {
                drop_stalled(body);
            }
            written?;
        } else {
            write_body(&connection, &mut body, false, out).await?;
        }
        if connection.borrow().is_kept() {
            return Ok(Some(connection));
        }
        poll_fn(|cx| Pin::new(&mut connection.borrow_mut().io).poll_shutdown(cx)).await?;
        let discard = poll_fn(|cx| connection.borrow_mut().poll_discard(cx));
        drop(timeout(LINGER, discard).await);
        Ok(None)
    }
}

/// Writes `out`, which has the head of a response, and the body. An idle stream keeps no buffer.
async fn write_body(
    connection: &Shared,
    body: &mut BoxBody,
    is_stream: bool,
    mut out: BytesMut,
) -> io::Result<()> {
    loop {
        let step = poll_fn(|cx| match body.as_pin_mut().poll_next(cx) {
            Poll::Ready(chunk) => Poll::Ready(Step::Chunk(chunk)),
            Poll::Pending if !out.is_empty() => Poll::Ready(Step::Write),
            Poll::Pending if is_stream => connection.borrow_mut().poll_gone(cx).map(Step::Gone),
            Poll::Pending => Poll::Pending,
        });
        match step.await {
            Step::Chunk(None) => break,
            Step::Chunk(Some(chunk)) => {
                let chunk = chunk.map_err(|err| io::Error::other(err.to_string()))?;
                connection.borrow_mut().encode_chunk(Some(chunk), &mut out)?;
                if WRITE_BYTES <= out.len() {
                    write(connection, &mut out).await?;
                }
            }
            Step::Write => {
                write(connection, &mut out).await?;
                out = BytesMut::new();
            }
            Step::Gone(err) => return Err(err),
        }
    }
    connection.borrow_mut().encode_chunk(None, &mut out)?;
    write(connection, &mut out).await
}

/// Writes all of `bytes`.
async fn write(connection: &Shared, bytes: &mut BytesMut) -> io::Result<()> {
    poll_fn(|cx| connection.borrow_mut().poll_write(cx, bytes)).await
}
