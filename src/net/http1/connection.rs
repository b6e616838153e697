//! Reads request heads and bodies from one HTTP/1.1 connection, and writes responses to it.

use std::{
    cell::RefCell,
    io, mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_http::{
    Request, Response, ServiceConfig,
    error::{ParseError, PayloadError},
    h1::{Codec, Message, MessageType},
};
use actix_web::{
    body::BodySize,
    http::{ConnectionType, Version},
};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::{
    io::AsyncWrite as _,
    time::{Instant, Sleep, sleep},
};
use tokio_util::codec::{Decoder as _, Encoder as _};

use crate::net::{
    heads::HeadClaim,
    http1::{
        buffers::{poll_scratch, recycle, spare},
        odd::{check_expectation, codec_without_upgrade},
        request_head::{HeadError, HeadScan},
        takeover::Takeover,
    },
    limiter::{ConnectionPermit, IDLE_LOOK},
    socket::Socket,
};

/// HTTP/1.1 connection with its unused received bytes.
pub(super) struct Http1Connection {
    pub(super) io: Socket,
    /// Received bytes that are not decoded yet.
    pub(super) read: BytesMut,
    codec: Codec,
    config: ServiceConfig,
    /// Version of the last request.
    version: Version,
    /// True if the body of the last request is malformed. Its decoder must not be used again.
    is_body_broken: bool,
    /// Part of `100 Continue` that must be written before the body of the request is waited for.
    continue_left: &'static [u8],
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
    pub(super) head_claim: HeadClaim,
    scan: HeadScan,
    /// Number of bytes of `read` that are counted in `head_claim`.
    claimed: usize,
    /// Number of bytes received since the wait began.
    received: usize,
    /// Timer of both timeouts. It is reset only when it would fire too late, since a reset costs
    /// more than a timer that fires too early and is set again.
    timer: Pin<Box<Sleep>>,
    pub(super) permit: ConnectionPermit,
}

/// Result of waiting for the next request.
pub(super) enum NextRequest {
    /// A request whose body is not read yet.
    Request(Request),
    /// A head that is answered with an error. The connection is closed after that.
    Refused(HeadError),
    /// A head that was incomplete for longer than the header timeout.
    TooSlow,
    /// The peer closed the connection, or the connection must be closed.
    Closed,
}

/// Answer to `Expect: 100-continue`.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Http1Connection {
    /// Creates a connection whose first received bytes are `ahead`.
    pub(super) fn new(
        io: Socket,
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
            config: config.clone(),
            version: Version::HTTP_11,
            is_body_broken: false,
            continue_left: &[],
            header_timeout,
            waits_since: now,
            head_since: Some(now),
            was_used: false,
            head_claim,
            scan: HeadScan::default(),
            claimed: 0,
            received: 0,
            timer: Box::pin(sleep(header_timeout)),
            permit,
        }
    }

    /// Marks the connection as used before, so that no head is expected at once.
    pub(super) fn set_used(&mut self) {
        self.head_since = None;
        self.was_used = true;
    }

    /// Begins to wait for the next request.
    pub(super) fn begin_wait(&mut self) {
        self.waits_since = Instant::now();
        self.claimed = 0;
        self.scan = HeadScan::default();
        if self.read.is_empty() {
            // An idle connection keeps no buffer.
            let buffer = mem::take(&mut self.read);
            recycle(buffer, self.received);
        }
        self.received = 0;
    }

    /// Waits for the next request.
    pub(super) fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<NextRequest> {
        loop {
            match self.find_head() {
                Ok(Some(end)) => {
                    self.head_since = None;
                    self.was_used = true;
                    self.head_claim.release();
                    let request = self.read_head(end);
                    return Poll::Ready(
                        request.map_or_else(NextRequest::Refused, NextRequest::Request),
                    );
                }
                Ok(None) => {}
                Err(err) => {
                    if err.is_over_limit() {
                        self.head_claim.count_refusal();
                    }
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
            self.claimed = 0;
        }
        self.scan.find_end(&self.read)
    }

    /// Reads available bytes. Returns their number, which is 0 at the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self { io, read, received, .. } = self;
        poll_scratch(io, cx, |bytes| {
            if read.capacity() == 0 {
                *read = spare(bytes.len());
            }
            read.extend_from_slice(bytes);
            *received += bytes.len();
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
    fn read_head(&mut self, end: usize) -> Result<Request, HeadError> {
        let mut head = self.read.split_to(end);
        let request = match self.codec.decode(&mut head) {
            Ok(Some(Message::Item(request))) => request,
            Err(ParseError::Version) if names_http(&head) => return Err(HeadError::Version),
            _ => return Err(HeadError::Malformed),
        };
        check_expectation(request.head())?;
        if let Some(codec) = codec_without_upgrade(&self.codec, &self.config, request.head()) {
            self.codec = codec;
        }
        self.version = request.head().version;
        self.continue_left = if request.head().expect() { CONTINUE } else { &[] };
        Ok(request)
    }

    /// Returns true if a part of the request body is not read yet.
    pub(super) fn has_body(&self) -> bool {
        self.codec.message_type() != MessageType::None
    }

    /// Returns true if the connection stays open after the response.
    pub(super) fn is_kept(&self) -> bool {
        self.codec.keep_alive() && !self.has_body()
    }

    /// Returns the offer to take the socket over: the response can be chunked and leave the
    /// connection open.
    pub(super) fn offer_takeover(&self) -> Option<Takeover> {
        let is_direct = self.io.is_plain() && self.read.is_empty();
        (self.is_kept() && self.version == Version::HTTP_11).then(|| Takeover::new(is_direct))
    }

    /// Writes the head of a response, whose body has the size `size`, to `out`.
    pub(super) fn encode_head(
        &mut self,
        mut response: Response<()>,
        size: BodySize,
        out: &mut BytesMut,
    ) -> io::Result<()> {
        self.skip_received_body();
        let head = response.head_mut();
        if self.has_body() {
            // The rest of the request body must not be read as the next head.
            head.set_connection_type(ConnectionType::Close);
        }
        let is_chunkable =
            self.version == Version::HTTP_11 && self.codec.message_type() != MessageType::Stream;
        if size == BodySize::Stream && !is_chunkable {
            // HTTP/1.0 has no chunks. The end of the connection is the end of the body.
            head.no_chunking(true);
            head.set_connection_type(ConnectionType::Close);
        }
        self.codec.encode(Message::Item((response, size)), out)
    }

    /// Writes a part of a response body, or its end, to `out`.
    pub(super) fn encode_chunk(
        &mut self,
        chunk: Option<Bytes>,
        out: &mut BytesMut,
    ) -> io::Result<()> {
        self.codec.encode(Message::Chunk(chunk), out)
    }

    /// Forgets the last request and all received bytes, before an answer to a head that was not
    /// decoded.
    pub(super) fn forget_request(&mut self) {
        self.read = BytesMut::new();
        self.head_claim.release();
        self.codec = Codec::new(self.config.clone());
        self.version = Version::HTTP_11;
    }

    /// Drops the part of the request body that the handler left and that is received already, so
    /// that the connection can stay open.
    fn skip_received_body(&mut self) {
        while self.has_body() && !self.is_body_broken {
            match self.codec.decode(&mut self.read) {
                Ok(Some(Message::Chunk(_))) => {}
                _ => return,
            }
        }
    }

    /// Returns the next part of the body.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, PayloadError>>> {
        loop {
            match self.codec.decode(&mut self.read) {
                Ok(Some(Message::Chunk(chunk))) => return Poll::Ready(chunk.map(Ok)),
                Ok(None) => {}
                // An item after the body is the next request.
                Ok(Some(Message::Item(_))) => return Poll::Ready(None),
                Err(err) => {
                    self.is_body_broken = true;
                    return Poll::Ready(Some(Err(io::Error::other(err).into())));
                }
            }
            while !self.continue_left.is_empty() {
                let written = ready!(Pin::new(&mut self.io).poll_write(cx, self.continue_left))?;
                self.continue_left = self.continue_left.get(written..).unwrap_or_default();
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
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Closes the side of the gateway.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Reads and drops bytes until the peer closes its side.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.read = BytesMut::new();
        while let Ok(1..) = ready!(poll_scratch(&mut self.io, cx, |_| ())) {}
        Poll::Ready(())
    }
}

/// Returns true if the request line of a head ends in a version of HTTP.
fn names_http(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    line.rsplit(|byte| *byte == b' ').next().is_some_and(|version| version.starts_with(b"HTTP/"))
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
