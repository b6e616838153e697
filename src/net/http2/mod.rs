//! Serves HTTP/2 ([RFC 9113](https://www.rfc-editor.org/rfc/rfc9113)): each request of a connection
//! is answered in its own task.
//!
//! The HTTP/2 server of actix is not used, because it limits neither streams nor heads, closes
//! connections without a GOAWAY, notices a reset stream only when it writes to it, and cannot end a
//! stream whose reader takes nothing.

mod body;
mod frames;
mod socket;
pub(crate) mod trailers;
pub(crate) mod translate;
pub(crate) mod tunnel;

use std::{
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    time::Duration,
};

use actix_http::{HttpMessage as _, Request, RequestHead, Response};
use actix_service::Service;
use actix_web::{
    body::{BodySize, BoxBody, MessageBody as _},
    http::StatusCode,
};
use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    ext::Protocol,
    server::{Builder, SendResponse},
};
use prometheus::IntCounter;
use tokio::time::{Instant, sleep};

use crate::{
    hub::Hub,
    net::{
        heads::HeadBudget,
        http1::Peer,
        http2::{
            body::BodyWriter,
            socket::{Head, HeadSocket},
            trailers::Trailers,
            tunnel::{Receiver, Tunnel, TunnelOffer},
        },
        limiter::{ConnectionLimiter, ConnectionPermit, IDLE_LOOK},
        socket::Socket,
        stall::{StallDetector, WriteWatch},
    },
};

/// HTTP/2 server of one worker.
#[derive(Debug)]
pub(crate) struct Http2 {
    /// Limit of the concurrent streams of one connection.
    pub streams_max: u32,
    /// Counter of the requests that reached `streams_max` on their connection.
    pub full: IntCounter,
    /// Detector of streams whose flow-control window stays closed.
    pub stalls: Rc<StallDetector>,
    /// Memory budget of incomplete heads.
    pub heads: HeadBudget,
    /// Time limit for a request head.
    pub header_timeout: Duration,
    /// Counter of the connections closed after `header_timeout`.
    pub slow_heads: IntCounter,
    /// Hub, which announces the drain.
    pub hub: Hub,
    /// Source of the idle timeout.
    pub limiter: Rc<ConnectionLimiter>,
    /// Returns true if the handler of a request accepts tunnels of WebSockets.
    pub may_tunnel: fn(&RequestHead) -> bool,
    /// Returns true if the response to a request may have trailers.
    pub has_trailers: fn(&RequestHead) -> bool,
}

/// Limit of the bytes of a decompressed request head. It leaves room for the attributes of
/// unwrapped pushes, as the limit of HTTP/1 does.
const HEAD_MAX_BYTES: u32 = 128 * 1024;
/// Time limit for the first request of a connection. Browsers and proxies open connections in
/// advance.
const FIRST_REQUEST_MAX: Duration = Duration::from_secs(60);
/// Time that an idle peer has after a GOAWAY to close the connection.
const GOAWAY_MAX: Duration = Duration::from_secs(5);
/// Flow-control window of one request body: bytes that a peer can send before they are read.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// Flow-control window of all bodies of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Limit of the bytes that a stream buffers before its connection has written them.
const UNWRITTEN_MAX_BYTES: usize = 64 * 1024;

impl Http2 {
    /// Returns the time until the next check for idleness.
    fn check_interval(&self) -> Duration {
        self.limiter.idle_timeout().min(IDLE_LOOK)
    }

    /// Returns true if a connection that was idle for `idle` must be closed. `was_used` is true if
    /// it had a request.
    fn is_expired(&self, idle: Duration, was_used: bool) -> bool {
        self.limiter.is_idle_expired(idle) || (!was_used && FIRST_REQUEST_MAX <= idle)
    }

    /// Counts the close of a connection that was idle for `idle`, if the idle timeout caused it.
    fn count_close(&self, idle: Duration) {
        if self.limiter.is_idle_expired(idle) {
            self.limiter.count_idle_close(idle);
        }
    }

    /// Serves a connection until the peer closes it, sends a head too slowly, or is idle for too
    /// long, or until the gateway drains and the last stream ends. `ahead` has the first received
    /// bytes.
    ///
    /// # Errors
    /// Fails when the socket breaks or the peer violates the protocol.
    pub(crate) async fn serve<S>(
        &self,
        socket: Socket,
        ahead: Bytes,
        peer: Box<Peer>,
        permit: ConnectionPermit,
        service: &Rc<S>,
    ) -> Result<(), h2::Error>
    where
        S: Service<Request, Response = Response<BoxBody>, Error = Infallible> + 'static,
        S::Future: 'static,
    {
        let head = Head::new(self.heads.claim());
        let socket = HeadSocket::new(socket, ahead, Rc::clone(&head));
        let connection = Rc::new(ServedConnection { peer, permit });
        let mut requests = Builder::new()
            .max_concurrent_streams(self.streams_max)
            .max_header_list_size(HEAD_MAX_BYTES)
            .max_send_buffer_size(UNWRITTEN_MAX_BYTES)
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .enable_connect_protocol()
            .handshake(socket)
            .await?;
        let mut check = pin!(sleep(self.check_interval()));
        let mut drain = pin!(self.hub.drain_begins());
        let (mut requested, mut leaving, mut drained) = (false, false, false);
        // Time of the last check at which the connection was not idle.
        let (mut busy_at, mut was_used) = (Instant::now(), false);
        // Counts the open streams: each task holds a clone.
        let open = Rc::new(());
        loop {
            let accepted = tokio::select! {
                // First, since it reads the head that the check needs to know.
                biased;
                accepted = requests.accept() => accepted,
                // After a GOAWAY the peer sends its next request on a new connection. Open streams
                // go on.
                () = &mut drain, if !drained => {
                    (leaving, drained) = (true, true);
                    requests.graceful_shutdown();
                    continue;
                }
                () = poll_fn(|cx| head.poll_check(check.as_mut(), self.header_timeout, cx)) => {
                    let now = Instant::now();
                    if head.deadline(self.header_timeout).is_some_and(|due| due <= now) {
                        self.slow_heads.inc();
                        return Ok(());
                    }
                    if Rc::strong_count(&open) != 1 || std::mem::take(&mut requested) {
                        (busy_at, was_used) = (now, true);
                    } else if leaving {
                        return Ok(());
                    } else if self.is_expired(now.duration_since(busy_at), was_used) {
                        self.count_close(now.duration_since(busy_at));
                        leaving = true;
                        requests.graceful_shutdown();
                    }
                    let next = if leaving { GOAWAY_MAX } else { self.check_interval() };
                    check.as_mut().reset(now + next);
                    continue;
                }
            };
            let Some((request, mut respond)) = accepted.transpose()? else { return Ok(()) };
            requested = true;
            let counted = Rc::clone(&open);
            let (count, max) = (Rc::strong_count(&open) - 1, self.streams_max as usize);
            if max <= count {
                self.full.inc();
            }
            // Twice the limit, because tasks of reset streams may not have noticed the reset yet.
            if 2 * max < count {
                respond.send_reset(Reason::REFUSED_STREAM);
                continue;
            }
            let connection = Rc::clone(&connection);
            // In a box, which is freed when the body begins: the task of a stream is small.
            let (service, address) = (Rc::clone(service), connection.peer.address);
            let begun: Pin<Box<dyn Future<Output = Begun>>> =
                if request.method() == http::Method::CONNECT {
                    Box::pin(connect(request, respond, service, address, self.may_tunnel))
                } else {
                    Box::pin(answer(request, respond, service, address, self.has_trailers))
                };
            let watch = WriteWatch::new(&self.stalls);
            spawn_stream(begun, watch, connection, counted);
        }
    }
}

/// Spawns the task of a stream: waits for `begun`, and writes the body.
fn spawn_stream(
    begun: Pin<Box<dyn Future<Output = Begun>>>,
    watch: WriteWatch,
    connection: Rc<ServedConnection>,
    counted: Rc<()>,
) {
    actix_web::rt::spawn(async move {
        let begun = begun.await;
        let written = match begun {
            Ok(Answered::Tunnel { receiver, incoming, outgoing }) => {
                receiver(Tunnel::new(incoming, outgoing, watch, connection, Rc::clone(&counted)));
                Ok(())
            }
            Ok(Answered::Body(body, stream, trailers)) => {
                let is_stream = body.size() == BodySize::Stream;
                let _streaming = is_stream.then(|| connection.permit.stream());
                let mut writer = BodyWriter::new(body, stream, watch, trailers);
                poll_fn(|cx| writer.poll(cx)).await
            }
            Ok(Answered::Whole) => Ok(()),
            Err(err) => Err(err),
        };
        if let Err(err) = written {
            tracing::debug!(error = %err, "HTTP/2 stream failed");
        }
        drop(counted);
    });
}

/// Rest of a response whose head is sent.
enum Answered {
    /// Nothing.
    Whole,
    /// Body, which is to be written, and the trailers after it.
    Body(BoxBody, SendStream<Bytes>, Option<Rc<Trailers>>),
    /// Bytes in both directions, for `receiver`.
    Tunnel { receiver: Receiver, incoming: RecvStream, outgoing: SendStream<Bytes> },
}

/// Rest of a response, or the error that broke its stream.
type Begun = Result<Answered, h2::Error>;

/// State of a connection that its streams share.
struct ServedConnection {
    peer: Box<Peer>,
    permit: ConnectionPermit,
}

/// Answers one request.
async fn answer<S>(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    service: Rc<S>,
    address: Option<SocketAddr>,
    has_trailers: fn(&RequestHead) -> bool,
) -> Begun
where
    S: Service<Request, Response = Response<BoxBody>, Error = Infallible>,
{
    let is_head = request.method() == http::Method::HEAD;
    let Some(mut request) = translate::request(request) else {
        respond.send_reset(Reason::PROTOCOL_ERROR);
        return Ok(Answered::Whole);
    };
    request.head_mut().peer_addr = address;
    let trailers = has_trailers(request.head()).then(Rc::<Trailers>::default);
    if let Some(trailers) = &trailers {
        request.extensions_mut().insert(Rc::clone(trailers));
    }
    let Some(response) = call(&mut respond, service, request).await else {
        return Ok(Answered::Whole);
    };
    send(respond, response, is_head, trailers)
}

/// Answers an extended CONNECT ([RFC 8441](https://www.rfc-editor.org/rfc/rfc8441)): the handler
/// gets it as a GET with a [`TunnelOffer`].
async fn connect<S>(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    service: Rc<S>,
    address: Option<SocketAddr>,
    may_tunnel: fn(&RequestHead) -> bool,
) -> Begun
where
    S: Service<Request, Response = Response<BoxBody>, Error = Infallible>,
{
    let (parts, incoming) = request.into_parts();
    let Some(protocol) = parts.extensions.get::<Protocol>() else {
        respond.send_reset(Reason::PROTOCOL_ERROR);
        return Ok(Answered::Whole);
    };
    let is_websocket = protocol.as_str() == "websocket";
    let Some(mut request) = translate::tunnel_request(&parts) else {
        respond.send_reset(Reason::PROTOCOL_ERROR);
        return Ok(Answered::Whole);
    };
    if !is_websocket || !may_tunnel(request.head()) {
        let status = if is_websocket { StatusCode::NOT_FOUND } else { StatusCode::NOT_IMPLEMENTED };
        return send(respond, Response::new(status).set_body(BoxBody::new(())), false, None);
    }
    request.head_mut().peer_addr = address;
    let offer = Rc::<TunnelOffer>::default();
    request.extensions_mut().insert(Rc::clone(&offer));
    let Some(response) = call(&mut respond, service, request).await else {
        return Ok(Answered::Whole);
    };
    let Some(receiver) = offer.take() else {
        return send(respond, response, false, None);
    };
    let (response, _) = response.into_parts();
    let head = translate::response(&response, BodySize::Stream);
    let outgoing = respond.send_response(head, false)?;
    Ok(Answered::Tunnel { receiver, incoming, outgoing })
}

/// Calls the service. Returns `None` if the peer resets the stream before the answer. Without that,
/// requests that are reset before their answer would add up beyond the limit of streams.
async fn call<S>(
    respond: &mut SendResponse<Bytes>,
    service: Rc<S>,
    request: Request,
) -> Option<Response<BoxBody>>
where
    S: Service<Request, Response = Response<BoxBody>, Error = Infallible>,
{
    let mut answered = pin!(service.call(request));
    tokio::select! {
        biased;
        _reset = poll_fn(|cx| respond.poll_reset(cx)) => None,
        response = &mut answered => response.ok(),
    }
}

/// Sends the head of a response.
fn send(
    mut respond: SendResponse<Bytes>,
    response: Response<BoxBody>,
    is_head: bool,
    trailers: Option<Rc<Trailers>>,
) -> Begun {
    let (response, body) = response.into_parts();
    let size = body.size();
    let is_finished = is_head || size.is_eof();
    let stream = respond.send_response(translate::response(&response, size), is_finished)?;
    Ok(if is_finished { Answered::Whole } else { Answered::Body(body, stream, trailers) })
}
