//! A socket as actix gets it: what was read ahead, what goes before anything else, and its end from
//! outside.

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

/// After a refusal, for what the peer still sends to be read: closing over unread bytes would reset
/// the connection, and take the answer with it.
pub const LINGER: Duration = Duration::from_secs(5);
/// So much is read at once for nothing.
const DISCARD_BYTES: usize = 4 * 1024;

/// A socket as actix gets it.
#[derive(Debug)]
pub struct Socket {
    /// Bytes of HTTP/2 that were read to tell which protocol this is.
    ahead: Bytes,
    /// Of HTTP/1.
    reader: Option<Box<RequestReader>>,
    /// Runs while the peer may still send what is not read, after a refusal.
    linger: Option<Pin<Box<Sleep>>>,
    connection: Rc<Connection>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.connection.transport.take();
    }
}

/// What the bytes go through.
#[derive(Debug)]
pub enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// `ahead` is given to the reader before anything else.
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

    /// See [`Connection`].
    pub fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// Does the I/O unless the connection was closed from outside, and is woken when it is.
    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        io: impl FnOnce(&mut Transport, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.connection.poll(cx, io)
    }

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

    /// Reads on until the peer has nothing more to send, for nothing.
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

    /// Writes what is left of a chunk.
    fn poll_rest(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut rest = self.connection.rest.borrow_mut();
        while !rest.is_empty() {
            let written =
                ready!(self.poll_written(cx, |transport, cx| transport.write(cx, &rest)))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let _taken = rest.split_to(written);
        }
        // An empty part of a buffer would keep the buffer.
        *rest = Bytes::new();
        Poll::Ready(Ok(()))
    }
}

/// Reads over HTTP/1: whole heads, and bodies as they come.
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
                connection.read_left_over(buffer.filled().len() - before);
                break;
            }
            Ok(true) => {
                if let Some(bytes) = reader.take_new_head() {
                    connection.given_heads.borrow_mut().push_back(bytes);
                }
                connection.head_ends();
                connection.head_holds(reader.head_bytes());
                break;
            }
            Ok(false) if reader.is_in_body() => {}
            Ok(false) => connection.head_holds(reader.head_bytes()),
            Err(fault) => {
                connection.refuse(fault);
                continue;
            }
        }
        ready!(connection.poll(cx, |transport, cx| transport.read(cx, buffer)))?;
        let new = buffer.filled().get(before..).unwrap_or_default();
        if new.is_empty() {
            // Its refusal is still to be written, and ends the connection.
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
    /// Does the I/O unless the connection was closed from outside, and is woken when it is.
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
        self.connection.quiet.set(false);
        ready!(self.poll_rest(cx))?;
        let written = self.poll_written(cx, |transport, cx| transport.write(cx, bytes));
        self.connection.quiet.set(matches!(written, Poll::Ready(Ok(all)) if all == bytes.len()));
        written
    }

    /// Only HTTP/2 writes so, past whose owner nothing is ever written.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.connection.quiet.set(false);
        ready!(self.poll_rest(cx))?;
        self.poll_written(cx, |transport, cx| transport.write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_http2
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(cx))?;
        self.poll(cx, Transport::flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(this.poll_rest(cx))?;
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
