//! A client's socket, and what the rest of the gateway may know of it: whether it takes anything,
//! and how to close it from outside. Lives on one worker's thread.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// A socket as actix gets it.
#[derive(Debug)]
pub struct Socket {
    transport: Transport,
    /// Bytes that were read to tell which protocol this is.
    ahead: Bytes,
    connection: Rc<Connection>,
}

/// What the bytes go through.
#[derive(Debug)]
pub enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection, as its streams see it. actix offers no way to end a response whose socket takes
/// nothing (its body is not asked for more) nor one HTTP/2 stream: this closes the socket under it.
#[derive(Debug)]
pub struct Connection {
    /// Many streams can share an HTTP/2 connection.
    pub is_http2: bool,
    /// How many event streams are on it.
    pub streams: Cell<usize>,
    /// How many requests are being answered.
    requests: Cell<usize>,
    /// Whether its socket has taken anything since the last look.
    pub wrote: Cell<bool>,
    closed: Cell<bool>,
    /// Whether the kernel gave up, because the peer took nothing for too long.
    timed_out: Cell<bool>,
    /// Since when the head of a request has been coming in.
    head_since: Cell<Option<Instant>>,
    waker: RefCell<Option<Waker>>,
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Request(Rc<Connection>);

impl Drop for Request {
    fn drop(&mut self) {
        self.0.requests.set(self.0.requests.get().saturating_sub(1));
    }
}

/// A request's head has to be in within this time.
pub const HEAD_MAX: Duration = Duration::from_secs(5);
/// The first request of an HTTP/2 connection, which browsers and proxies open ahead of need.
const HTTP2_FIRST_MAX: Duration = Duration::from_secs(60);

impl Socket {
    /// `ahead` is given to the reader before anything else.
    pub fn new(transport: Transport, ahead: Bytes, is_http2: bool) -> Self {
        Self { transport, ahead, connection: Rc::new(Connection::new(is_http2)) }
    }

    /// See [`Connection`].
    pub fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// Does the I/O unless the connection was closed from outside, and is woken when it is.
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        io: impl FnOnce(&mut Self, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.connection.closed.get() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let polled = io(self, cx);
        if let Poll::Ready(Err(err)) = &polled
            && err.kind() == io::ErrorKind::TimedOut
        {
            self.connection.timed_out.set(true);
        }
        if polled.is_pending() {
            let mut waker = self.connection.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        polled
    }
}

impl Connection {
    fn new(is_http2: bool) -> Self {
        Self {
            is_http2,
            streams: Cell::new(0),
            requests: Cell::new(0),
            wrote: Cell::new(false),
            closed: Cell::new(false),
            timed_out: Cell::new(false),
            // The first one begins with the connection.
            head_since: Cell::new(Some(Instant::now())),
            waker: RefCell::new(None),
        }
    }

    /// Ends it: its next read or write fails, and its owner is woken to do one.
    pub fn close(&self) {
        self.closed.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// To be told of each request, when its head is in. What it returns is kept while the request
    /// is answered.
    pub fn request(self: &Rc<Self>) -> Request {
        self.head_since.set(None);
        self.requests.set(self.requests.get() + 1);
        Request(Rc::clone(self))
    }

    fn is_busy(&self) -> bool {
        0 < self.streams.get() || 0 < self.requests.get()
    }

    /// Whether a request's head has been coming in for too long (slow-loris). actix watches only
    /// the first head of HTTP/1. Of HTTP/2 this sees only the first, since what a peer sends later
    /// may be anything; of HTTP/1 also those that follow on the same connection.
    pub fn is_slow(&self, now: Instant) -> bool {
        let since = self.head_since.get();
        let max = if self.is_http2 { HTTP2_FIRST_MAX } else { HEAD_MAX };
        !self.is_busy() && since.is_some_and(|since| max <= now.duration_since(since))
    }

    fn head_begins(&self) {
        if !self.is_http2 && !self.is_busy() && self.head_since.get().is_none() {
            self.head_since.set(Some(Instant::now()));
        }
    }

    /// Whether it ended because its peer took nothing.
    pub fn is_stalled(&self) -> bool {
        self.closed.get() || self.timed_out.get()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ahead.is_empty() {
            let part = this.ahead.split_to(this.ahead.len().min(buffer.remaining()));
            buffer.put_slice(&part);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = this.poll(cx, |this, cx| match &mut this.transport {
            Transport::Plain(io) => Pin::new(io).poll_read(cx, buffer),
            Transport::Tls(io) => Pin::new(io.as_mut()).poll_read(cx, buffer),
        });
        // Empty lines between requests are to be ignored (RFC 9112, section 2.2).
        let read = buffer.filled().get(before..).unwrap_or_default();
        if read.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
            this.connection.head_begins();
        }
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_written(cx, |transport, cx| match transport {
            Transport::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Transport::Tls(io) => Pin::new(io.as_mut()).poll_write(cx, bytes),
        })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_written(cx, |transport, cx| match transport {
            Transport::Plain(io) => Pin::new(io).poll_write_vectored(cx, slices),
            Transport::Tls(io) => Pin::new(io.as_mut()).poll_write_vectored(cx, slices),
        })
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(io) => io.is_write_vectored(),
            Transport::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll(cx, |this, cx| match &mut this.transport {
            Transport::Plain(io) => Pin::new(io).poll_flush(cx),
            Transport::Tls(io) => Pin::new(io.as_mut()).poll_flush(cx),
        })
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll(cx, |this, cx| match &mut this.transport {
            Transport::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Transport::Tls(io) => Pin::new(io.as_mut()).poll_shutdown(cx),
        })
    }
}

impl Socket {
    fn poll_written(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(&mut Transport, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let written = self.poll(cx, |this, cx| write(&mut this.transport, cx));
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.connection.wrote.set(true);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_have_a_time_limit_and_answers_have_none() {
        for (is_http2, max) in [(false, HEAD_MAX), (true, HTTP2_FIRST_MAX)] {
            let connection = Rc::new(Connection::new(is_http2));
            let after = |time: Duration| Instant::now() + time;
            assert!(!connection.is_slow(after(max / 2)));
            assert!(connection.is_slow(after(max)));
            let request = connection.request();
            connection.head_begins();
            assert!(!connection.is_slow(after(max * 9)), "a body is coming in");
            drop(request);
            assert!(!connection.is_slow(after(max * 9)), "nothing is coming in");
            connection.head_begins();
            // What comes later over HTTP/2 may be anything: a ping, a window.
            assert_eq!(connection.is_slow(after(max * 2)), !is_http2);
        }
    }
}
