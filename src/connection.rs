//! A client's socket, and what the rest of the gateway may know of it: whether it takes anything,
//! and how to close it from outside. Lives on one worker's thread.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    rc::{Rc, Weak},
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
    wrote: Cell<bool>,
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

impl Socket {
    /// `ahead` is given to the reader before anything else.
    pub fn new(transport: Transport, ahead: Bytes, is_http2: bool) -> Self {
        let connection = Connection {
            is_http2,
            streams: Cell::new(0),
            requests: Cell::new(0),
            wrote: Cell::new(false),
            closed: Cell::new(false),
            timed_out: Cell::new(false),
            // The first one begins with the connection.
            head_since: Cell::new(Some(Instant::now())),
            waker: RefCell::new(None),
        };
        Self { transport, ahead, connection: Rc::new(connection) }
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
    fn is_slow(&self, now: Instant) -> bool {
        let since = self.head_since.get();
        !self.is_busy() && since.is_some_and(|since| HEAD_MAX <= now.duration_since(since))
    }

    fn was_read(&self) {
        if !self.is_http2 && !self.is_busy() && self.head_since.get().is_none() {
            self.head_since.set(Some(Instant::now()));
        }
    }

    /// Whether it ended because its peer took nothing.
    fn is_stalled(&self) -> bool {
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
        let polled = this.poll(cx, |this, cx| match &mut this.transport {
            Transport::Plain(io) => Pin::new(io).poll_read(cx, buffer),
            Transport::Tls(io) => Pin::new(io.as_mut()).poll_read(cx, buffer),
        });
        if polled.is_ready() {
            this.connection.was_read();
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

/// Watches the connections of one worker for peers that take nothing, or that take all day to say
/// what they want.
#[derive(Debug, Default)]
pub struct StallWatch {
    connections: RefCell<slab::Slab<Weak<Connection>>>,
    streams: RefCell<slab::Slab<Rc<Watched>>>,
}

/// One event stream under watch.
#[derive(Debug)]
pub struct Watched {
    connection: Rc<Connection>,
    /// Whether it had nothing to give when it was last asked. If it had, its socket may be full.
    idle: Cell<bool>,
    /// Whether it was asked for more since the last look: then what it gave before was taken.
    asked: Cell<bool>,
    /// The last look at which it was not waiting for its socket.
    since: Cell<Instant>,
    /// When it must be over at the latest.
    over_at: Instant,
}

/// Keeps a stream under watch until it is dropped.
#[derive(Debug)]
pub struct Watch {
    watched: Rc<Watched>,
    by: Rc<StallWatch>,
    key: usize,
}

impl StallWatch {
    /// Watches a connection for as long as it lives.
    pub fn add(&self, connection: &Rc<Connection>) {
        self.connections.borrow_mut().insert(Rc::downgrade(connection));
    }

    /// Watches a stream from now on. It should end by itself at `over_at`.
    pub fn watch(self: &Rc<Self>, connection: &Rc<Connection>, over_at: Instant) -> Watch {
        connection.streams.set(connection.streams.get() + 1);
        let watched = Rc::new(Watched {
            connection: Rc::clone(connection),
            idle: Cell::new(true),
            asked: Cell::new(true),
            since: Cell::new(Instant::now()),
            over_at,
        });
        let key = self.streams.borrow_mut().insert(Rc::clone(&watched));
        Watch { watched, by: Rc::clone(self), key }
    }

    /// Looks after the streams for as long as it is polled.
    pub async fn run(self: Rc<Self>, stall: Duration) {
        let mut ticks = tokio::time::interval((stall / 4).min(Duration::from_secs(1)));
        loop {
            ticks.tick().await;
            self.close_stalled(Instant::now(), stall);
            self.close_slow(Instant::now());
        }
    }

    fn close_slow(&self, now: Instant) {
        self.connections.borrow_mut().retain(|_, connection| {
            let Some(connection) = connection.upgrade() else { return false };
            if connection.is_slow(now) {
                connection.close();
            }
            true
        });
    }

    /// An HTTP/1 stream is cut when its socket took nothing for too long. An HTTP/2 stream has only
    /// its window to go by, and its connection carries others too: it is closed when all of its
    /// event streams are stalled, or when a stalled one is past its age.
    fn close_stalled(&self, now: Instant, stall: Duration) {
        let streams = self.streams.borrow();
        let mut stalled: Vec<(&Rc<Connection>, usize)> = Vec::new();
        let mut close: Vec<Rc<Connection>> = Vec::new();
        let mut wrote: Vec<&Rc<Connection>> = Vec::new();
        for (_, stream) in streams.iter() {
            let connection = &stream.connection;
            let progress = !connection.is_http2 && connection.wrote.get();
            if connection.wrote.get() {
                wrote.push(connection);
            }
            if stream.asked.replace(false) || stream.idle.get() || progress {
                stream.since.set(now);
            } else if stall <= now.duration_since(stream.since.get()) {
                if !connection.is_http2 || stream.over_at + stall <= now {
                    close.push(Rc::clone(connection));
                } else if let Some((_, count)) =
                    stalled.iter_mut().find(|(other, _)| Rc::ptr_eq(other, connection))
                {
                    *count += 1;
                } else {
                    stalled.push((connection, 1));
                }
            }
        }
        for connection in wrote {
            connection.wrote.set(false);
        }
        let all_stalled = stalled.into_iter().filter(|(c, count)| c.streams.get() <= *count);
        close.extend(all_stalled.map(|(connection, _)| Rc::clone(connection)));
        drop(streams);
        for connection in close {
            connection.close();
        }
    }
}

impl Watch {
    /// To be told after each time that the stream was asked for more.
    pub fn asked(&self, had_something: bool) {
        self.watched.idle.set(!had_something);
        self.watched.asked.set(true);
    }

    /// Whether its connection ended because its reader took nothing.
    pub fn was_stalled(&self) -> bool {
        self.watched.connection.is_stalled()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let connection = &self.watched.connection;
        connection.streams.set(connection.streams.get().saturating_sub(1));
        self.by.streams.borrow_mut().try_remove(self.key);
    }
}
