//! Serves HTTP/1.1, in clear text and over TLS: the requests of a connection one after another. It
//! uses the codec of actix, which is well tested against request smuggling, but not its dispatcher,
//! which keeps two buffers of 8 KiB for each connection. The handler of a request can take the
//! socket over ([`Takeover`]), and give it back later.

mod buffers;
pub(crate) mod chunk;
mod connection;
mod odd;
pub(crate) mod peer_closed;
mod request_head;
mod response;
pub(crate) mod takeover;

use std::{
    cell::RefCell,
    convert::Infallible,
    fmt,
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    rc::Rc,
    time::Duration,
};

use crate::net::http1::{
    connection::{Body, Http1Connection, NextRequest},
    peer_closed::PeerClosed,
    request_head::HeadError,
    response::{HEAD_BYTES, ResponseWriter},
    takeover::{Receiver, TakenSocket, Takeover},
};
use actix_http::{HttpMessage as _, Payload, Request, RequestHead, Response, ServiceConfig};
use actix_service::Service;
use actix_web::{
    body::{BodySize, BoxBody},
    http::ConnectionType,
};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use prometheus::IntCounter;
use tokio::time::timeout;

use crate::{
    http::problem::problem,
    limits::concurrency::Permit,
    net::{heads::HeadBudget, limiter::ConnectionPermit, socket::Socket},
};

/// HTTP/1.1 server of one worker.
pub(crate) struct Http1<S> {
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
    /// Returns true if the handler of a request may wait for something, and wants to know when the
    /// client leaves ([`PeerClosed`]).
    pub may_wait: fn(&RequestHead) -> bool,
    /// Memory budget of incomplete heads.
    pub heads: HeadBudget,
}

/// Client of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Address of the client, from the PROXY protocol header if that has one.
    pub address: Option<SocketAddr>,
    /// Permit of the limit per address, kept until the connection ends.
    pub counted: Option<Permit<IpAddr>>,
}

/// Connection that is shared with the body of its current request.
type Shared = Rc<RefCell<Http1Connection>>;

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
    pub(crate) fn serve(
        self: Rc<Self>,
        io: Socket,
        ahead: Bytes,
        peer: Box<Peer>,
        permit: ConnectionPermit,
    ) -> impl Future<Output = ()> {
        let connection = self.connection(io, ahead, permit);
        self.answer_all(connection, peer).map(log_failure)
    }

    /// Serves a connection again that was taken over.
    pub(crate) fn serve_again(
        self: Rc<Self>,
        io: Socket,
        peer: Box<Peer>,
        permit: ConnectionPermit,
    ) -> impl Future<Output = ()> {
        let connection = self.connection(io, Bytes::new(), permit);
        connection.borrow_mut().set_used();
        self.answer_all(connection, peer).map(log_failure)
    }

    /// Creates the state of a connection.
    fn connection(&self, io: Socket, ahead: Bytes, permit: ConnectionPermit) -> Shared {
        let (timeout, claim) = (self.header_timeout, self.heads.claim());
        let connection = Http1Connection::new(io, ahead, &self.config, timeout, claim, permit);
        Rc::new(RefCell::new(connection))
    }

    /// Answers the requests of a connection until it ends or is taken over. The future is small,
    /// because it stays for the whole life of a stream: all that need not wait is done in functions
    /// that are not async.
    async fn answer_all(self: Rc<Self>, connection: Shared, peer: Box<Peer>) -> io::Result<()> {
        loop {
            connection.borrow_mut().begin_wait();
            let response = match poll_fn(|cx| connection.borrow_mut().poll_request(cx)).await {
                NextRequest::Request(request) => {
                    let (answer, takeover, closed) = self.call(&connection, request, &peer);
                    let Ok(response) = answer_watched(answer, &connection, closed).await;
                    if let Some(receiver) = takeover.and_then(|takeover| takeover.take()) {
                        return give_socket(connection, response, peer, receiver);
                    }
                    response
                }
                NextRequest::Refused(err) => refusal(&connection, err),
                NextRequest::TooSlow => {
                    self.slow_heads.inc();
                    return Ok(());
                }
                NextRequest::Closed => return Ok(()),
            };
            let mut writer = ResponseWriter::new(&connection, response)?;
            poll_fn(|cx| writer.poll(&connection, cx)).await?;
            if !connection.borrow().is_kept() {
                break;
            }
        }
        poll_fn(|cx| connection.borrow_mut().poll_shutdown(cx)).await?;
        let discard = poll_fn(|cx| connection.borrow_mut().poll_discard(cx));
        drop(Box::pin(timeout(LINGER, discard)).await);
        Ok(())
    }

    /// Calls the service with a request. Returns its answer, the offer to take the socket over that
    /// was made to it, and the flag for a handler that may wait.
    fn call(
        &self,
        connection: &Shared,
        mut request: Request,
        peer: &Peer,
    ) -> (S::Future, Option<Rc<Takeover>>, Option<Rc<PeerClosed>>) {
        request.head_mut().peer_addr = peer.address;
        let has_body = connection.borrow().has_body();
        let may_wait = !has_body && (self.may_wait)(request.head());
        let closed = may_wait.then(Rc::<PeerClosed>::default);
        if let Some(closed) = &closed {
            request.extensions_mut().insert(Rc::clone(closed));
        }
        let may_take_over = !may_wait && (self.may_take_over)(request.head());
        let takeover =
            may_take_over.then(|| connection.borrow().offer_takeover()).flatten().map(Rc::new);
        if let Some(takeover) = &takeover {
            request.extensions_mut().insert(Rc::clone(takeover));
        }
        if has_body {
            *request.payload() = Payload::Stream { payload: Box::pin(Body(Rc::clone(connection))) };
        }
        (self.dispatch.call(request), takeover, closed)
    }
}

/// Returns the answer of the service. Sets the flag if the client leaves before the answer.
async fn answer_watched<T>(
    answer: impl Future<Output = T>,
    connection: &Shared,
    closed: Option<Rc<PeerClosed>>,
) -> T {
    let mut answer = pin!(answer);
    poll_fn(|cx| {
        let answered = answer.as_mut().poll(cx);
        if let (true, Some(closed)) = (answered.is_pending(), &closed) {
            closed.poll(&mut connection.borrow_mut(), cx);
        }
        answered
    })
    .await
}

/// Logs the error of a connection. Clients cause most of them, so the level is debug.
fn log_failure(ended: io::Result<()>) {
    if let Err(err) = ended {
        tracing::debug!(error = %err, "an HTTP/1.1 connection failed");
    }
}

/// Returns the answer to a head that is refused. The connection is closed after it.
fn refusal(connection: &Shared, err: HeadError) -> Response<BoxBody> {
    // The last request may have been a HEAD, whose response has no body.
    connection.borrow_mut().forget_request();
    let mut response = Response::from(problem(err.status(), err.to_string()));
    response.head_mut().set_connection_type(ConnectionType::Close);
    response
}

/// Gives the socket, and the head of the response, to the handler that takes it over.
fn give_socket(
    connection: Shared,
    response: Response<BoxBody>,
    peer: Box<Peer>,
    receiver: Receiver,
) -> io::Result<()> {
    let shared = io::ErrorKind::NotConnected;
    let mut connection = Rc::into_inner(connection).map(RefCell::into_inner).ok_or(shared)?;
    let mut out = BytesMut::with_capacity(HEAD_BYTES);
    let (head, _) = response.into_parts();
    connection.encode_head(head, BodySize::Stream, &mut out)?;
    let Http1Connection { io, read, permit, .. } = connection;
    receiver(TakenSocket { io, received: read.freeze(), head: out.freeze(), peer, permit })
}
