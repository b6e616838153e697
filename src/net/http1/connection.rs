//! What comes in on a connection: heads and bodies. And what goes out.

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

use crate::net::connection::{ConnectionPermit, HeadClaim, HeadFault, HeadScan, IDLE_LOOK};

/// A connection, and what was read of it and not yet used.
pub(super) struct Http1Connection {
    pub(super) io: TcpStream,
    pub(super) read: BytesMut,
    pub(super) codec: Codec,
    header_timeout: Duration,
    /// Since when it waits for a request.
    waits_since: Instant,
    /// Since when a head has been coming in. The first one of a new connection begins with it.
    head_since: Option<Instant>,
    /// Whether a head was in, or a stream before.
    was_used: bool,
    /// What has come of it.
    head_budget: HeadClaim,
    scan: HeadScan,
    /// How much of what was read is counted in `head_budget`.
    counted: usize,
    /// If not 0, all that was read stands in [`SCRATCH`] too, until another connection reads.
    scratch_len: usize,
    /// How much was read since it began to wait.
    received: usize,
    /// Moved only when it would fire too late, and looked at anew when it fires too early.
    timer: Pin<Box<Sleep>>,
    permit: ConnectionPermit,
}

/// What was heard.
pub(super) enum NextRequest {
    /// A request, and its head as it came if it may have to be handed over. Its body is still to be
    /// read.
    Request { request: Request, head: BytesMut },
    /// What is not for us. It was not used.
    Unsupported,
    /// A head that no decoder may see.
    Refused(HeadFault),
    /// A head that takes too long.
    TooSlow,
    /// The peer has gone, or has to go.
    Closed,
}

/// So much is read at once.
const READ_BYTES: usize = 64 * 1024;
/// So many buffers are kept, if no more than so much was read into them. What was in the last one
/// may still be in the request that actix keeps for the next.
const SPARE_MAX: usize = 2;
const SPARE_MAX_BYTES: usize = 16 * 1024;

thread_local! {
    /// What is read goes here first, so that a connection that waits has no room to read into.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
    /// What connections read into that have used all of it, for the next ones that read.
    static SPARE: RefCell<VecDeque<BytesMut>> = RefCell::default();
}

impl Http1Connection {
    pub(super) fn new(
        io: TcpStream,
        ahead: Bytes,
        config: &ServiceConfig,
        header_timeout: Duration,
        head_budget: HeadClaim,
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
            head_budget,
            scan: HeadScan::default(),
            counted: 0,
            scratch_len: 0,
            received: 0,
            timer: Box::pin(sleep(header_timeout)),
            permit,
        }
    }

    /// The connection, and what was read of it. It is somebody else's from now on.
    pub(super) fn into_parts(self) -> (TcpStream, Bytes, ConnectionPermit) {
        (self.io, self.read.freeze(), self.permit)
    }

    /// It was used before, and nothing has begun.
    pub(super) fn again(mut self) -> Self {
        self.head_since = None;
        self.was_used = true;
        self
    }

    /// From now on it waits for the next request.
    pub(super) fn begin(&mut self) {
        self.waits_since = Instant::now();
        (self.counted, self.scratch_len) = (0, 0);
        self.scan = HeadScan::default();
        if self.read.is_empty() {
            // Nothing is kept for a connection on which nothing is going on.
            let buffer = mem::take(&mut self.read);
            if (1..=SPARE_MAX_BYTES).contains(&self.received) {
                recycle(buffer);
            }
        }
        self.received = 0;
    }

    /// The next request.
    pub(super) fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<NextRequest> {
        loop {
            match self.find_head() {
                Ok(_) if self.scan.has_bare_lf() => return Poll::Ready(NextRequest::Unsupported),
                Ok(Some(end)) => {
                    self.head_since = None;
                    self.was_used = true;
                    self.head_budget.end();
                    return Poll::Ready(self.read_head(end));
                }
                Ok(None) => {}
                Err(fault) => {
                    self.head_budget.refuse();
                    return Poll::Ready(NextRequest::Refused(fault));
                }
            }
            if !self.read.is_empty() {
                self.head_since.get_or_insert_with(Instant::now);
            } else if self.was_used {
                self.head_since = None;
            }
            if !self.head_budget.grow(self.read.len().saturating_sub(self.counted)) {
                return Poll::Ready(NextRequest::Closed);
            }
            self.counted = self.read.len();
            match self.poll_read(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(NextRequest::Closed),
                Poll::Pending => return self.poll_idle_timeout(cx),
            }
        }
    }

    /// Where the head ends, if all of it is there.
    fn find_head(&mut self) -> Result<Option<usize>, HeadFault> {
        if self.scan.skip_empty_lines(&mut self.read)? {
            (self.counted, self.scratch_len) = (0, 0);
        }
        self.scan.find_end(&self.read)
    }

    /// Reads what there is. 0 is the end.
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

    /// Ready when it has waited for long enough.
    fn poll_idle_timeout(&mut self, cx: &mut Context<'_>) -> Poll<NextRequest> {
        loop {
            let look = self.head_since.map(|since| since + self.header_timeout);
            if look.is_some_and(|look| look < self.timer.deadline()) {
                self.timer.as_mut().reset(look.unwrap_or(self.waits_since));
            }
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            match look {
                Some(look) if look <= now => return Poll::Ready(NextRequest::TooSlow),
                Some(look) => self.timer.as_mut().reset(look),
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

    /// Reads the head of which `end` is the end.
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

    fn is_plain(&self, request: &Request) -> bool {
        let head = request.head();
        head.version == Version::HTTP_11
            && !head.expect()
            && head.connection_type() != ConnectionType::Upgrade
            && self.codec.message_type() != MessageType::Stream
    }

    /// Whether something of the request's body has not been read.
    pub(super) fn has_body(&self) -> bool {
        self.codec.message_type() != MessageType::None
    }

    /// Whether a stream can have the socket alone: nothing else has come, and it goes on after it.
    pub(super) fn can_hand_over(&self) -> bool {
        self.read.is_empty() && !self.has_body() && self.codec.keep_alive()
    }

    /// The next part of the body.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, PayloadError>>> {
        loop {
            match self.codec.decode(&mut self.read) {
                Ok(Some(Message::Chunk(chunk))) => return Poll::Ready(chunk.map(Ok)),
                Ok(None) => {}
                // What follows a body is the next request.
                Ok(Some(Message::Item(_))) => return Poll::Ready(None),
                Err(err) => return Poll::Ready(Some(Err(io::Error::other(err).into()))),
            }
            if ready!(self.poll_read(cx))? == 0 {
                return Poll::Ready(Some(Err(PayloadError::Incomplete(None))));
            }
        }
    }

    /// Writes what is left of `bytes`.
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

    /// Reads on for as long as something comes, for nothing.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Ok(1..) = ready!(self.poll_read(cx)) {
            self.read.clear();
        }
        Poll::Ready(())
    }
}

fn recycle(buffer: BytesMut) {
    SPARE.with_borrow_mut(|spare| {
        spare.push_back(buffer);
        if SPARE_MAX < spare.len() {
            spare.pop_front();
        }
    });
}

/// An empty buffer with room for so much.
fn spare(bytes: usize) -> BytesMut {
    let oldest = |spare: &mut VecDeque<_>| (spare.len() == SPARE_MAX).then(|| spare.pop_front());
    let mut spare: BytesMut = SPARE.with_borrow_mut(oldest).flatten().unwrap_or_default();
    if spare.try_reclaim(bytes) {
        return spare;
    }
    BytesMut::with_capacity(bytes.next_power_of_two())
}

/// The body of a request, read when it is asked for.
pub(super) struct Body(pub(super) Rc<RefCell<Http1Connection>>);

impl Stream for Body {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut connection = self.0.borrow_mut();
        if connection.has_body() { connection.poll_body(cx) } else { Poll::Ready(None) }
    }
}
