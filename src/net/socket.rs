//! Socket of a connection: plain or TLS, with the detection of stalled writes.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::net::{
    stall::{StallDetector, WriteWatch},
    tls_stream::TlsStream,
};

/// Socket of a connection. A write to it fails when it is stalled: see [`crate::net::stall`].
#[derive(Debug)]
pub(crate) struct Socket {
    transport: Transport,
    watch: WriteWatch,
}

/// Socket with or without TLS.
#[derive(Debug)]
pub(crate) enum Transport {
    /// Clear text.
    Plain(TcpStream),
    /// Server side of a TLS connection.
    Tls(Box<TlsStream>),
}

/// Reader and writer of a transport.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}
type Io = dyn Stream + 'static;

impl Transport {
    fn stream(&mut self) -> Pin<&mut Io> {
        match self {
            Self::Plain(io) => Pin::new(io),
            Self::Tls(io) => Pin::new(io.as_mut()),
        }
    }
}

impl Socket {
    /// Creates a socket whose writes `stalls` watches.
    pub(crate) fn new(transport: Transport, stalls: &Rc<StallDetector>) -> Self {
        Self { transport, watch: WriteWatch::new(stalls) }
    }

    /// Returns true if the socket has no TLS.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.transport, Transport::Plain(_))
    }

    /// Returns the plain socket. `None` with TLS.
    pub(crate) fn into_plain(self) -> Option<TcpStream> {
        match self.transport {
            Transport::Plain(io) => Some(io),
            Transport::Tls(_) => None,
        }
    }

    /// Polls a write, which fails when it is stalled.
    fn poll_watched<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Io>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Self { transport, watch } = self;
        let written = write(transport.stream(), cx);
        if let Transport::Tls(tls) = transport
            && tls.take_progress()
        {
            watch.record_progress();
        }
        watch.poll(cx, |_| written).map(io::Result::flatten)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().transport.stream().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_watched(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    /// Writes several buffers. Only HTTP/2 calls this.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_watched(cx, |stream, cx| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_watched(cx, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_watched(cx, AsyncWrite::poll_shutdown)
    }
}
