//! Clients that leave while their requests are answered. Bytes that a client sends meanwhile are
//! its next requests, and are kept.

use std::{
    cell::Cell,
    io,
    task::{Context, Poll, ready},
};

use crate::net::http1::connection::Http1Connection;

/// Flag in the extensions of a request: its client has closed its side of the connection. A handler
/// that waits can then answer at once. A client that has only ended its own side still gets the
/// answer: the gateway cannot tell one from the other.
///
/// The handler runs in the task of its connection, which is woken when the flag is set.
#[derive(Debug, Default)]
pub(crate) struct PeerClosed(Cell<bool>);

/// Limit of the bytes that are kept while a request is answered.
const BEHIND_REQUEST_MAX_BYTES: usize = 16 * 1024;

impl PeerClosed {
    /// Returns true if the client has closed its side.
    pub(crate) fn is_set(&self) -> bool {
        self.0.get()
    }

    /// Sets the flag when the client has closed its side. Must be polled while a request is
    /// answered. Stops reading at the limit of bytes behind the request.
    pub(super) fn poll(&self, connection: &mut Http1Connection, cx: &mut Context<'_>) {
        while !self.is_set() && connection.read.len() <= BEHIND_REQUEST_MAX_BYTES {
            match connection.poll_read(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => {
                    self.0.set(true);
                    cx.waker().wake_by_ref();
                }
                Poll::Pending => return,
            }
        }
    }
}

impl Http1Connection {
    /// Waits until the peer of a stream is gone, and returns the reason. Keeps the bytes that the
    /// peer sends meanwhile: they are its next requests.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            if BEHIND_REQUEST_MAX_BYTES < self.read.len() {
                self.head_claim.count_refusal();
                return Poll::Ready(io::Error::other(
                    "too many bytes behind the request of a stream",
                ));
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) => return Poll::Ready(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(err) => return Poll::Ready(err),
            }
        }
    }
}
