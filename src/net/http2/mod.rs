//! HTTP/2 ([RFC 9113](https://www.rfc-editor.org/rfc/rfc9113)): the requests of a connection, each
//! answered in a task of its own.
//!
//! actix's own limits neither streams nor heads, ends connections without a word, does not see that
//! a reader has reset its stream until it writes to it, and cannot end a stream whose reader takes
//! nothing.

pub mod translate;

use std::{
    convert::Infallible, future::poll_fn, net::SocketAddr, pin::pin, rc::Rc, time::Duration,
};

use actix_http::{HttpMessage as _, Request, Response};
use actix_service::Service;
use actix_web::body::{BoxBody, MessageBody as _};
use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    server::{Builder, SendResponse},
};
use prometheus::IntCounter;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    hub::Hub,
    net::connection::{Connection, ConnectionLimiter, IDLE_LOOK, Socket},
};

/// How HTTP/2 connections are served.
#[derive(Debug)]
pub struct Http2 {
    /// Streams at once on one connection.
    pub streams_max: u32,
    /// Counts the connections' requests that left no room for another.
    pub full: IntCounter,
    /// A stream whose window stays shut for so long is reset.
    pub write_timeout: Duration,
    /// Says when to leave.
    pub hub: Hub,
    /// Says for how long an idle connection may stay.
    pub limiter: Rc<ConnectionLimiter>,
}

/// The head of a request, unfolded: what attributes of unwrapped pushes may take, as with HTTP/1.
const HEAD_MAX_BYTES: u32 = 128 * 1024;
/// The first request of a connection, which browsers and proxies open ahead of need.
const FIRST_MAX: Duration = Duration::from_secs(60);
/// Who has been told to leave has so long to close the connection.
const LEAVE_MAX: Duration = Duration::from_secs(5);
/// What a peer may send ahead of being read: of one body, and of all on a connection.
const WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Bytes that a stream gives out before its connection has written them.
const UNWRITTEN_MAX_BYTES: usize = 64 * 1024;

impl Http2 {
    /// Time until an idle connection is looked at.
    fn next_look(&self) -> Duration {
        self.limiter.idle_timeout().min(IDLE_LOOK)
    }

    /// Whether a connection that was idle for so long has to go, which is counted.
    fn has_to_leave(&self, idle: Duration, was_used: bool) -> bool {
        let is_expired = self.limiter.is_idle_expired(idle);
        if is_expired {
            self.limiter.count_idle_close(idle);
        }
        is_expired || (!was_used && FIRST_MAX <= idle)
    }

    /// Serves a connection until either side has had enough of it.
    ///
    /// # Errors
    /// When it broke.
    pub async fn serve<S>(
        &self,
        socket: Socket,
        peer: Option<SocketAddr>,
        service: &Rc<S>,
    ) -> Result<(), h2::Error>
    where
        S: Service<Request, Response = Response<BoxBody>, Error = Infallible> + 'static,
        S::Future: 'static,
    {
        let connection = Rc::clone(socket.connection());
        let mut requests = Builder::new()
            .max_concurrent_streams(self.streams_max)
            .max_header_list_size(HEAD_MAX_BYTES)
            .max_send_buffer_size(UNWRITTEN_MAX_BYTES)
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(socket)
            .await?;
        let mut look = pin!(sleep(self.next_look()));
        let mut drain = pin!(self.hub.drain_begins());
        let (mut asked, mut leaving, mut drained) = (false, false, false);
        // When something was last going on.
        let (mut busy, mut was_used) = (Instant::now(), false);
        // Each task has one of these.
        let open = Rc::new(());
        loop {
            let accepted = tokio::select! {
                accepted = requests.accept() => accepted,
                // Its peer takes its next request elsewhere; what is open goes on.
                () = &mut drain, if !drained => {
                    (leaving, drained) = (true, true);
                    requests.graceful_shutdown();
                    continue;
                }
                () = &mut look => {
                    let now = Instant::now();
                    if Rc::strong_count(&open) != 1 || std::mem::take(&mut asked) {
                        (busy, was_used) = (now, true);
                    } else if leaving {
                        return Ok(());
                    } else if self.has_to_leave(now.duration_since(busy), was_used) {
                        leaving = true;
                        requests.graceful_shutdown();
                    }
                    let next = if leaving { LEAVE_MAX } else { self.next_look() };
                    look.as_mut().reset(now + next);
                    continue;
                }
            };
            let Some((request, mut respond)) = accepted.transpose()? else { return Ok(()) };
            asked = true;
            let mine = Rc::clone(&open);
            let (count, most) = (Rc::strong_count(&open) - 1, self.streams_max as usize);
            if most <= count {
                self.full.inc();
            }
            // Twice: of those that were reset some have not been told yet.
            if 2 * most < count {
                respond.send_reset(Reason::REFUSED_STREAM);
                continue;
            }
            let (service, connection) = (Rc::clone(service), Rc::clone(&connection));
            let write_timeout = self.write_timeout;
            actix_web::rt::spawn(async move {
                let answered =
                    answer(request, respond, peer, &*service, &connection, write_timeout).await;
                if let Err(err) = answered {
                    tracing::debug!(error = %err, "HTTP/2 stream ended");
                }
                drop(mine);
            });
        }
    }
}

async fn answer<S>(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    peer: Option<SocketAddr>,
    service: &S,
    connection: &Rc<Connection>,
    write_timeout: Duration,
) -> Result<(), h2::Error>
where
    S: Service<Request, Response = Response<BoxBody>, Error = Infallible>,
{
    let is_head = request.method() == http::Method::HEAD;
    let Some(mut request) = translate::request(request) else {
        respond.send_reset(Reason::PROTOCOL_ERROR);
        return Ok(());
    };
    request.head_mut().peer_addr = peer;
    request.extensions_mut().insert(Rc::clone(connection));
    let answered = service.call(request);
    let mut answered = pin!(answered);
    // Nobody waits for it any more: else requests that are reset while they are answered would add
    // up beyond the number of streams.
    let Ok(response) = tokio::select! {
        biased;
        _reset = poll_fn(|cx| respond.poll_reset(cx)) => return Ok(()),
        response = &mut answered => response,
    };
    let (response, body) = response.into_parts();
    let size = body.size();
    let is_finished = is_head || size.is_eof();
    let stream = respond.send_response(translate::response(&response, size), is_finished)?;
    if is_finished {
        return Ok(());
    }
    give(body, stream, connection, write_timeout).await
}

/// Gives out a body, until it ends or its reader has enough.
async fn give(
    body: BoxBody,
    mut stream: SendStream<Bytes>,
    connection: &Connection,
    write_timeout: Duration,
) -> Result<(), h2::Error> {
    let mut body = Box::pin(body);
    loop {
        let chunk = tokio::select! {
            biased;
            reset = poll_fn(|cx| stream.poll_reset(cx)) => return reset.map(drop),
            chunk = poll_fn(|cx| body.as_mut().poll_next(cx)) => chunk,
        };
        let mut chunk = match chunk {
            Some(Ok(chunk)) => chunk,
            Some(Err(err)) => {
                tracing::debug!(error = %err, "body");
                stream.send_reset(Reason::CANCEL);
                return Ok(());
            }
            None => return stream.send_data(Bytes::new(), true),
        };
        while !chunk.is_empty() {
            stream.reserve_capacity(chunk.len());
            let Ok(room) = timeout(write_timeout, poll_fn(|cx| stream.poll_capacity(cx))).await
            else {
                connection.drop_stalled(body);
                stream.send_reset(Reason::CANCEL);
                return Ok(());
            };
            let Some(room) = room.transpose()? else { return Ok(()) };
            stream.send_data(chunk.split_to(room.min(chunk.len())), false)?;
        }
    }
}
