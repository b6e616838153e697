//! Limits the bytes that an HTTP/1 peer sends on a connection that actix serves: incomplete heads,
//! bodies of requests that are already answered, and requests behind a stream.

use std::time::Instant;

use crate::net::connection::{Connection, request_head::HeadError};

/// Limit of the bytes behind the request of a stream. They are requests that wait in memory until
/// the stream ends.
const BEHIND_STREAM_MAX_BYTES: usize = 16 * 1024;
/// Limit of the bytes that are read of a body whose request is already answered: twice the largest
/// push.
const LEFTOVER_BODY_MAX_BYTES: usize = 32 * 1024 * 1024;

impl Connection {
    /// Records that `bytes` of an incomplete head are received. Closes the connection if the head
    /// budget is used up.
    pub(super) fn set_head_bytes(&self, bytes: usize) {
        if bytes == 0 && self.had_head.get() {
            // The peer sent empty lines, which were skipped.
            self.head_since.set(None);
        } else if self.head_since.get().is_none() {
            self.head_since.set(Some(Instant::now()));
        }
        if !self.head.borrow_mut().try_resize(bytes) {
            self.close();
        }
    }

    /// Returns true if every request that was given to actix is answered.
    pub(super) fn is_answered(&self) -> bool {
        !self.is_busy() && self.given_heads.borrow().is_empty()
    }

    /// Counts bytes of a body whose request is already answered. They are read, within the header
    /// timeout, because a close over unread bytes would reset the connection before the peer has
    /// read the answer. Closes the connection above the limit.
    pub(super) fn count_leftover_body(&self, bytes: usize) {
        let since = self.head_since.get().unwrap_or_else(Instant::now);
        self.head_since.set(Some(since));
        self.leftover_body.set(self.leftover_body.get() + bytes);
        if LEFTOVER_BODY_MAX_BYTES < self.leftover_body.get() {
            self.close();
        }
    }

    /// Counts received bytes, and closes the connection if too many follow a stream's request.
    pub(super) fn count_read(&self, bytes: usize) {
        if self.is_answered() && self.head_since.get().is_none() {
            // All requests before these bytes are answered.
            self.bytes_behind.set(0);
        }
        self.bytes_behind.set(self.bytes_behind.get() + bytes);
        self.limit_bytes_behind_stream();
    }

    /// Closes the connection if too many bytes follow the request of a stream.
    pub(super) fn limit_bytes_behind_stream(&self) {
        let is_over = BEHIND_STREAM_MAX_BYTES < self.bytes_behind.get();
        if is_over && 0 < self.streams.get() && !self.is_closed() {
            self.head.borrow().count_refusal();
            self.close();
        }
    }

    /// Refuses the next head, for `err`, with an answer.
    pub(super) fn refuse(&self, err: HeadError) {
        self.end_head();
        self.head.borrow().count_refusal();
        self.refusal.set(Some(err));
    }
}
