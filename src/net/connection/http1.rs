//! Limits of what a peer sends over HTTP/1 through actix: heads that are coming in, and what comes
//! behind a request that is answered or is a stream.

use std::time::Instant;

use crate::net::connection::{Connection, request_head::HeadFault};

/// What a peer may send behind the request of a stream over HTTP/1: requests that wait until the
/// stream has ended, for which memory is kept as long.
const BEHIND_STREAM_MAX_BYTES: usize = 16 * 1024;
/// What is read of a body whose request is answered: twice as much as a push may have.
const LEFT_OVER_MAX_BYTES: usize = 32 * 1024 * 1024;

impl Connection {
    /// So many bytes of a head of HTTP/1 are in that is not whole yet. Ends the connection if
    /// there is no room for them.
    pub(super) fn head_holds(&self, bytes: usize) {
        if bytes == 0 && self.had_head.get() {
            // There were empty lines, which were skipped.
            self.head_since.set(None);
        } else if self.head_since.get().is_none() {
            self.head_since.set(Some(Instant::now()));
        }
        if !self.head.borrow_mut().hold(bytes) {
            self.close();
        }
    }

    /// Whether every request of HTTP/1 that actix was given is answered.
    pub(super) fn is_answered(&self) -> bool {
        !self.is_busy() && self.given_heads.borrow().is_empty()
    }

    /// Counts what was read over HTTP/1 of a body whose request is answered. It is read so that the
    /// peer sees the answer, in the time of a head.
    pub(super) fn read_left_over(&self, bytes: usize) {
        let since = self.head_since.get().unwrap_or_else(Instant::now);
        self.head_since.set(Some(since));
        self.left_over.set(self.left_over.get() + bytes);
        if LEFT_OVER_MAX_BYTES < self.left_over.get() {
            self.close();
        }
    }

    /// Counts what was read over HTTP/1.
    pub(super) fn count_read(&self, bytes: usize) {
        if self.is_answered() && self.head_since.get().is_none() {
            // What came before is answered.
            self.behind.set(0);
        }
        self.behind.set(self.behind.get() + bytes);
        self.cut_behind_stream();
    }

    /// Ends the connection if too much came behind the request of a stream over HTTP/1.
    pub(super) fn cut_behind_stream(&self) {
        let is_finished = BEHIND_STREAM_MAX_BYTES < self.behind.get();
        if is_finished && 0 < self.streams.get() && !self.is_closed() {
            self.head.borrow().refuse();
            self.close();
        }
    }

    /// The next head is refused, with an answer.
    pub(super) fn refuse(&self, fault: HeadFault) {
        self.head_ends();
        self.head.borrow().refuse();
        self.refusal.set(Some(fault));
    }
}
