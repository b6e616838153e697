//! Implements the socket that actix and h2 read and write: it returns the bytes that were read
//! ahead, checks heads, and fails after [`Connection::close`].

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};
use tokio_rustls::server::TlsStream;

use crate::net::connection::{
    Connection, ConnectionPermit, HeadBudget, request_reader::RequestReader,
};

/// Time for which bytes are still read after a refusal. A close over unread bytes would reset the
/// connection, and the peer could lose the answer.
pub const LINGER: Duration = Duration::from_secs(5);
/// Size of the buffer for bytes that are read and dropped.
const DISCARD_BYTES: usize = 4 * 1024;

/// Socket of a connection that actix or `http2` serves.
#[derive(Debug)]
pub struct Socket {
    /// HTTP/2 bytes that were read to recognize the protocol.
    ahead: Bytes,
    /// Buffer of request heads. `None` for HTTP/2.
    reader: Option<Box<RequestReader>>,
    /// Timer of [`LINGER`], started when a refusal is written.
    linger: Option<Pin<Box<Sleep>>>,
    connection: Rc<Connection>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.connection.transport.take();
    }
}

/// Socket with or without TLS.
#[derive(Debug)]
pub enum Transport {
    /// Clear text.
    Plain(TcpStream),
    /// Server side of a TLS connection.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Creates a socket whose first received bytes are `ahead`.
    pub fn new(
        transport: Transport,
        ahead: Bytes,
        is_http2: bool,
        head_budget: &HeadBudget,
        permit: ConnectionPermit,
    ) -> Self {
        let connection = Connection::new(Some(transport), is_http2, head_budget, Some(permit));
        let connection = Rc::new(connection);
        if is_http2 {
            return Self { ahead, reader: None, linger: None, connection };
        }
        connection.count_read(ahead.len());
        let reader = Some(Box::new(RequestReader::new(&ahead)));
        Self { ahead: Bytes::new(), reader, linger: None, connection }
    }

    /// Returns the state of the connection, which its streams share.
    pub fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// Does I/O on the transport. Fails after [`Connection::close`], which also wakes the task.
    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        io: impl FnOnce(&mut Transport, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.connection.poll(cx, io)
    }

    /// Writes to the transport, and records that it took bytes.
    fn poll_written(
        &self,
        cx: &mut Context<'_>,
        write: impl FnOnce(&mut Transport, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let written = self.poll(cx, write);
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.connection.wrote.set(true);
        }
        written
    }

    /// Reads and drops bytes until the peer closes its side.
    fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = [0; DISCARD_BYTES];
        loop {
            let mut buffer = ReadBuf::new(&mut room);
            ready!(self.poll(cx, |transport, cx| transport.read(cx, &mut buffer)))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// Reads from an HTTP/1 connection: complete heads, and body bytes as they arrive.
fn poll_read_http1(
    connection: &Connection,
    reader: &mut RequestReader,
    cx: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    while 0 < buffer.remaining() {
        let before = buffer.filled().len();
        match reader.give(buffer) {
            Ok(true)
                if reader.is_in_body() && !reader.has_new_head() && connection.is_answered() =>
            {
                connection.count_leftover_body(buffer.filled().len() - before);
                break;
            }
            Ok(true) => {
                if let Some(bytes) = reader.take_new_head() {
                    connection.given_heads.borrow_mut().push_back(bytes);
                }
                connection.end_head();
                connection.set_head_bytes(reader.head_bytes());
                break;
            }
            Ok(false) if reader.is_in_body() => {}
            Ok(false) => connection.set_head_bytes(reader.head_bytes()),
            Err(err) => {
                connection.refuse(err);
                continue;
            }
        }
        ready!(connection.poll(cx, |transport, cx| transport.read(cx, buffer)))?;
        let new = buffer.filled().get(before..).unwrap_or_default();
        if new.is_empty() {
            // actix still has to write the refusal, and then closes the connection.
            let is_refused = connection.refusal().is_some() && connection.streams.get() == 0;
            return if is_refused { Poll::Pending } else { Poll::Ready(Ok(())) };
        }
        connection.count_read(new.len());
        reader.add(new);
        buffer.set_filled(before);
    }
    Poll::Ready(Ok(()))
}

impl Connection {
    /// Does I/O on the transport. Fails after [`Connection::close`], which also wakes the task.
    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        io: impl FnOnce(&mut Transport, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut transport = self.transport.borrow_mut();
        let Some(transport) = transport.as_mut().filter(|_| !self.closed.get()) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        };
        let polled = io(transport, cx);
        if let Poll::Ready(Err(err)) = &polled
            && err.kind() == io::ErrorKind::TimedOut
        {
            self.timed_out.set(true);
        }
        if polled.is_pending() {
            let mut waker = self.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        polled
    }
}

impl Transport {
    fn read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(io) => Pin::new(io).poll_read(cx, into),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_read(cx, into),
        }
    }

    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_write(cx, bytes),
        }
    }

    fn write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, slices),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_write_vectored(cx, slices),
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_flush(cx),
        }
    }

    fn shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(reader) = &mut this.reader {
            return poll_read_http1(&this.connection, reader, cx, buffer);
        }
        if !this.ahead.is_empty() {
            let part = this.ahead.split_to(this.ahead.len().min(buffer.remaining()));
            buffer.put_slice(&part);
            this.connection.on_read(&part);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = this.poll(cx, |transport, cx| transport.read(cx, buffer));
        this.connection.on_read(buffer.filled().get(before..).unwrap_or_default());
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_written(cx, |transport, cx| transport.write(cx, bytes))
    }

    /// Writes several buffers. Only HTTP/2 calls this.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_written(cx, |transport, cx| transport.write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_http2
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, Transport::flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(this.poll(cx, Transport::shutdown))?;
        }
        if this.connection.refusal().is_none() {
            return Poll::Ready(Ok(()));
        }
        let linger = this.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if linger.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        this.poll_discard(cx)
    }
}
