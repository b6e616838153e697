//! Reads request heads and bodies from one HTTP/1.1 connection, and writes responses to it.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io, mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_http::{
    Request, ServiceConfig,
    error::PayloadError,
    h1::{Codec, Message, MessageType},
};
use actix_web::{
    http::{ConnectionType, Version},
    rt::net::TcpStream,
};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    time::{Instant, Sleep, sleep},
};
use tokio_util::codec::Decoder as _;

use crate::net::connection::{ConnectionPermit, HeadClaim, HeadError, HeadScan, IDLE_LOOK};

/// HTTP/1.1 connection with its unused received bytes.
pub(super) struct Http1Connection {
    pub(super) io: TcpStream,
    /// Received bytes that are not decoded yet.
    pub(super) read: BytesMut,
    pub(super) codec: Codec,
    /// Time limit for a head.
    header_timeout: Duration,
    /// Start of the wait for the next request.
    waits_since: Instant,
    /// Arrival of the first byte of the incomplete head. The time of the first head begins with the
    /// connection.
    head_since: Option<Instant>,
    /// True if the connection had a request or a stream before.
    was_used: bool,
    /// Memory of the incomplete head.
    head_claim: HeadClaim,
    scan: HeadScan,
    /// Number of bytes of `read` that are counted in `head_claim`.
    claimed: usize,
    /// Length of `read` if [`SCRATCH`] has all of it too, until another connection reads. Else 0.
    scratch_len: usize,
    /// Number of bytes received since the wait began.
    received: usize,
    /// Timer of both timeouts. It is reset only when it would fire too late, since a reset costs
    /// more than a timer that fires too early and is set again.
    timer: Pin<Box<Sleep>>,
    permit: ConnectionPermit,
}

/// Result of waiting for the next request.
pub(super) enum NextRequest {
    /// A request whose body is not read yet. `head` has the bytes of its head if the connection may
    /// have to be handed over to actix, else it is empty.
    Request { request: Request, head: BytesMut },
    /// A head that actix must answer. Its bytes are still in `read`.
    Unsupported,
    /// A head over a limit, which must not be decoded.
    Refused(HeadError),
    /// A head that was incomplete for longer than the header timeout.
    TooSlow,
    /// The peer closed the connection, or the connection must be closed.
    Closed,
}

/// Number of bytes read by one system call.
const READ_BYTES: usize = 64 * 1024;
/// Number of buffers kept for reuse. It is 2, because the request that actix keeps in its pool may
/// still refer to the bytes of the last one.
const SPARE_MAX: usize = 2;
/// Limit of the bytes that were read into a buffer kept for reuse.
const SPARE_MAX_BYTES: usize = 16 * 1024;

thread_local! {
    /// Buffer that bytes are read into first, so that a waiting connection needs no buffer.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
    /// Empty buffers of connections that wait, for connections that read.
    static SPARE: RefCell<VecDeque<BytesMut>> = RefCell::default();
}

impl Http1Connection {
    /// Creates a connection whose first received bytes are `ahead`.
    pub(super) fn new(
        io: TcpStream,
        ahead: Bytes,
        config: &ServiceConfig,
        header_timeout: Duration,
        head_claim: HeadClaim,
        permit: ConnectionPermit,
    ) -> Self {
        let now = Instant::now();
        Self {
            io,
            read: ahead.into(),
            codec: Codec::new(config.clone()),
            header_timeout,
            waits_since: now,
            head_since: Some(now),
            was_used: false,
            head_claim,
            scan: HeadScan::default(),
            claimed: 0,
            scratch_len: 0,
            received: 0,
            timer: Box::pin(sleep(header_timeout)),
            permit,
        }
    }

    /// Returns the socket, the received bytes and the permit, to hand the connection over.
    pub(super) fn into_parts(self) -> (TcpStream, Bytes, ConnectionPermit) {
        (self.io, self.read.freeze(), self.permit)
    }

    /// Marks the connection as used before a stream, so that no head is expected at once.
    pub(super) fn reused(mut self) -> Self {
        self.head_since = None;
        self.was_used = true;
        self
    }

    /// Begins to wait for the next request.
    pub(super) fn begin_wait(&mut self) {
        self.waits_since = Instant::now();
        (self.claimed, self.scratch_len) = (0, 0);
        self.scan = HeadScan::default();
        if self.read.is_empty() {
            // An idle connection keeps no buffer.
            let buffer = mem::take(&mut self.read);
            if (1..=SPARE_MAX_BYTES).contains(&self.received) {
                recycle(buffer);
            }
        }
        self.received = 0;
    }

    /// Waits for the next request.
    pub(super) fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<NextRequest> {
        loop {
            match self.find_head() {
                Ok(_) if self.scan.has_bare_lf() => return Poll::Ready(NextRequest::Unsupported),
                Ok(Some(end)) => {
                    self.head_since = None;
                    self.was_used = true;
                    self.head_claim.release();
                    return Poll::Ready(self.read_head(end));
                }
                Ok(None) => {}
                Err(err) => {
                    self.head_claim.count_refusal();
                    return Poll::Ready(NextRequest::Refused(err));
                }
            }
            if !self.read.is_empty() {
                self.head_since.get_or_insert_with(Instant::now);
            } else if self.was_used {
                self.head_since = None;
            }
            if !self.head_claim.try_grow(self.read.len().saturating_sub(self.claimed)) {
                return Poll::Ready(NextRequest::Closed);
            }
            self.claimed = self.read.len();
            match self.poll_read(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(NextRequest::Closed),
                Poll::Pending => return self.poll_timeout(cx),
            }
        }
    }

    /// Returns the end of the head, or `None` when it is incomplete.
    fn find_head(&mut self) -> Result<Option<usize>, HeadError> {
        if self.scan.skip_empty_lines(&mut self.read)? {
            (self.claimed, self.scratch_len) = (0, 0);
        }
        self.scan.find_end(&self.read)
    }

    /// Reads available bytes. Returns their number, which is 0 at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut into = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut into))?;
            self.scratch_len = if self.read.is_empty() { into.filled().len() } else { 0 };
            if self.read.capacity() == 0 {
                self.read = spare(into.filled().len());
            }
            self.read.extend_from_slice(into.filled());
            self.received += into.filled().len();
            Poll::Ready(Ok(into.filled().len()))
        })
    }

    /// Waits until the header timeout of an incomplete head, or the idle timeout without one.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<NextRequest> {
        loop {
            let deadline = self.head_since.map(|since| since + self.header_timeout);
            if deadline.is_some_and(|deadline| deadline < self.timer.deadline()) {
                self.timer.as_mut().reset(deadline.unwrap_or(self.waits_since));
            }
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            match deadline {
                Some(deadline) if deadline <= now => return Poll::Ready(NextRequest::TooSlow),
                Some(deadline) => self.timer.as_mut().reset(deadline),
                None => {
                    let waited = now.duration_since(self.waits_since);
                    let limiter = self.permit.limiter();
                    if limiter.is_idle_expired(waited) {
                        limiter.count_idle_close(waited);
                        return Poll::Ready(NextRequest::Closed);
                    }
                    self.timer.as_mut().reset(now + limiter.idle_timeout().min(IDLE_LOOK));
                }
            }
        }
    }

    /// Decodes the head that ends at `end`.
    fn read_head(&mut self, end: usize) -> NextRequest {
        let scratch_len = mem::take(&mut self.scratch_len);
        let mut left = self.read.split_to(end);
        let has_copy = 0 < scratch_len && !left.starts_with(b"GET ");
        let head = if has_copy { BytesMut::new() } else { left.clone() };
        match self.codec.decode(&mut left) {
            Ok(Some(Message::Item(request))) if left.is_empty() && self.is_plain(&request) => {
                NextRequest::Request { request, head }
            }
            _ if has_copy => {
                self.read = SCRATCH
                    .with_borrow(|scratch| scratch.get(..scratch_len).unwrap_or_default().into());
                NextRequest::Unsupported
            }
            _ => {
                let rest = mem::replace(&mut self.read, head);
                self.read.unsplit(rest);
                NextRequest::Unsupported
            }
        }
    }

    /// Returns true if the request needs nothing that only actix can do: HTTP/1.0, an upgrade, or
    /// `Expect`.
    fn is_plain(&self, request: &Request) -> bool {
        let head = request.head();
        head.version == Version::HTTP_11
            && !head.expect()
            && head.connection_type() != ConnectionType::Upgrade
            && self.codec.message_type() != MessageType::Stream
    }

    /// Returns true if a part of the request body is not read yet.
    pub(super) fn has_body(&self) -> bool {
        self.codec.message_type() != MessageType::None
    }

    /// Returns true if the socket can be given to a stream: all received bytes are used, and the
    /// connection stays open after the response.
    pub(super) fn can_hand_over(&self) -> bool {
        self.read.is_empty() && !self.has_body() && self.codec.keep_alive()
    }

    /// Returns the next part of the body.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, PayloadError>>> {
        loop {
            match self.codec.decode(&mut self.read) {
                Ok(Some(Message::Chunk(chunk))) => return Poll::Ready(chunk.map(Ok)),
                Ok(None) => {}
                // An item after the body is the next request.
                Ok(Some(Message::Item(_))) => return Poll::Ready(None),
                Err(err) => return Poll::Ready(Some(Err(io::Error::other(err).into()))),
            }
            if ready!(self.poll_read(cx))? == 0 {
                return Poll::Ready(Some(Err(PayloadError::Incomplete(None))));
            }
        }
    }

    /// Writes all of `bytes`, and removes from it what is written.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        while !bytes.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let _taken = bytes.split_to(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and drops bytes until the peer closes its side.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Ok(1..) = ready!(self.poll_read(cx)) {
            self.read.clear();
        }
        Poll::Ready(())
    }
}

/// Keeps a buffer for reuse.
fn recycle(buffer: BytesMut) {
    SPARE.with_borrow_mut(|spare| {
        spare.push_back(buffer);
        if SPARE_MAX < spare.len() {
            spare.pop_front();
        }
    });
}

/// Returns an empty buffer with room for `bytes`.
fn spare(bytes: usize) -> BytesMut {
    let oldest = |spare: &mut VecDeque<_>| (spare.len() == SPARE_MAX).then(|| spare.pop_front());
    let mut spare: BytesMut = SPARE.with_borrow_mut(oldest).flatten().unwrap_or_default();
    if spare.try_reclaim(bytes) {
        return spare;
    }
    BytesMut::with_capacity(bytes.next_power_of_two())
}

/// Body of a request, read from the connection when polled.
pub(super) struct Body(pub(super) Rc<RefCell<Http1Connection>>);

impl Stream for Body {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut connection = self.0.borrow_mut();
        if connection.has_body() { connection.poll_body(cx) } else { Poll::Ready(None) }
    }
}
