//! A socket as actix gets it: what was read ahead, what goes before anything else, and its end from
//! outside.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use crate::connection::{Connection, Heads};

/// A socket as actix gets it.
#[derive(Debug)]
pub struct Socket {
    /// Bytes that were read to tell which protocol this is.
    ahead: Bytes,
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
    pub fn new(transport: Transport, ahead: Bytes, is_http2: bool, heads: &Heads) -> Self {
        Self { ahead, connection: Rc::new(Connection::new(Some(transport), is_http2, heads)) }
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
        let connection = &self.connection;
        let mut transport = connection.transport.borrow_mut();
        let Some(transport) = transport.as_mut().filter(|_| !connection.closed.get()) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        };
        let polled = io(transport, cx);
        if let Poll::Ready(Err(err)) = &polled
            && err.kind() == io::ErrorKind::TimedOut
        {
            connection.timed_out.set(true);
        }
        if polled.is_pending() {
            let mut waker = connection.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        polled
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
        if !this.ahead.is_empty() {
            let part = this.ahead.split_to(this.ahead.len().min(buffer.remaining()));
            buffer.put_slice(&part);
            this.connection.heard(&part);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = this.poll(cx, |transport, cx| transport.read(cx, buffer));
        this.connection.heard(buffer.filled().get(before..).unwrap_or_default());
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
        ready!(self.poll_rest(cx))?;
        self.poll(cx, Transport::shutdown)
    }
}
