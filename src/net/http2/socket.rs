//! Socket that h2 reads and writes. It follows the request heads that the peer sends, for their
//! limits of memory and time, which h2 does not have.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use crate::net::{
    heads::HeadClaim,
    http2::frames::{Frames, Seen},
    socket::Socket,
};

/// Socket of an HTTP/2 connection.
pub(super) struct HeadSocket {
    socket: Socket,
    /// Bytes that were read to recognize the protocol.
    ahead: Bytes,
    frames: Frames,
    head: Rc<Head>,
}

/// Incomplete request head of a connection.
pub(super) struct Head {
    /// Arrival of its first byte. `None` when no head is incomplete. The time of the preface, which
    /// counts as a head, begins with the connection.
    since: Cell<Option<Instant>>,
    claim: RefCell<HeadClaim>,
}

impl Head {
    pub(super) fn new(claim: HeadClaim) -> Rc<Self> {
        Rc::new(Self { since: Cell::new(Some(Instant::now())), claim: RefCell::new(claim) })
    }

    /// Returns the time at which the head has taken `header_timeout` (slow loris).
    pub(super) fn deadline(&self, header_timeout: Duration) -> Option<Instant> {
        self.since.get().map(|since| since + header_timeout)
    }

    /// Polls the timer of the next check of the connection, which is moved to the deadline of the
    /// head if that is earlier.
    pub(super) fn poll_check(
        &self,
        mut check: Pin<&mut Sleep>,
        header_timeout: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let due = self.deadline(header_timeout);
        if let Some(due) = due.filter(|due| *due < check.deadline()) {
            check.as_mut().reset(due);
        }
        check.poll(cx)
    }

    /// Follows received bytes.
    ///
    /// # Errors
    /// Fails when the memory for heads is used up.
    fn on_read(&self, seen: Seen, bytes: usize) -> io::Result<()> {
        let mut claim = self.claim.borrow_mut();
        if seen.has_completed || !seen.is_incomplete {
            self.since.set(None);
            claim.release();
        }
        if seen.is_incomplete {
            self.since.set(Some(self.since.get().unwrap_or_else(Instant::now)));
            if !claim.try_grow(bytes) {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
        }
        Ok(())
    }
}

impl HeadSocket {
    /// Creates a socket whose first received bytes are `ahead`.
    pub(super) fn new(socket: Socket, ahead: Bytes, head: Rc<Head>) -> Self {
        Self { socket, ahead, frames: Frames::new(), head }
    }
}

impl AsyncRead for HeadSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if this.ahead.is_empty() {
            ready!(Pin::new(&mut this.socket).poll_read(cx, buffer))?;
        } else {
            let part = this.ahead.split_to(this.ahead.len().min(buffer.remaining()));
            buffer.put_slice(&part);
        }
        let new = buffer.filled().get(before..).unwrap_or_default();
        let seen = this.frames.read(new);
        Poll::Ready(this.head.on_read(seen, new.len()))
    }
}

impl AsyncWrite for HeadSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
