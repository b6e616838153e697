//! Represents a client's connection: its socket, the limits of what the client sends, and the
//! state that its streams and the reaper share. Lives on one worker's thread.

pub mod chunk;
pub mod frames;
pub mod heads;
pub mod http1;
pub mod request_head;
pub mod request_reader;
pub mod socket;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::Waker,
    time::{Duration, Instant},
};

use crate::net::connection::frames::Frames;
pub use crate::net::connection::heads::{HEADS_MAX_BYTES, HeadBudget, HeadClaim};
pub use crate::net::connection::request_head::{HeadError, HeadScan};
pub use crate::net::connection::request_reader::REFUSED_METHOD;
pub use crate::net::connection::socket::{LINGER, Socket, Transport};
pub use crate::net::limiter::{ConnectionLimiter, ConnectionPermit, IDLE_LOOK, IDLE_MAX};
use actix_http::Extensions;

/// State of a connection, shared by its socket, its streams and the reaper. [`Connection::close`]
/// closes the socket under actix, which offers no other way to end a response whose socket takes
/// nothing: it does not poll the body any more.
#[derive(Debug)]
pub struct Connection {
    /// `None` when the socket is closed.
    transport: RefCell<Option<Transport>>,
    /// True for HTTP/2, on whose connections many streams can be open.
    pub is_http2: bool,
    /// Number of open event streams.
    streams: Cell<usize>,
    /// Number of requests that are being answered.
    requests: Cell<usize>,
    /// True if the socket took bytes since the last check of the reaper.
    pub wrote: Cell<bool>,
    /// True after [`Connection::close`].
    closed: Cell<bool>,
    /// True if the kernel closed the socket, because the peer acknowledged nothing for too long.
    timed_out: Cell<bool>,
    /// Arrival of the first byte of the incomplete head. `None` when no head is incomplete.
    head_since: Cell<Option<Instant>>,
    /// Memory of the incomplete head.
    head: RefCell<HeadClaim>,
    /// True if a head was completed. The time of the first head begins with the connection.
    had_head: Cell<bool>,
    /// Error for which the next head is refused.
    refusal: Cell<Option<HeadError>>,
    /// Sizes of the HTTP/1 heads that were given to actix and not dispatched yet.
    given_heads: RefCell<VecDeque<usize>>,
    /// HTTP/1 bytes behind the request that was dispatched last.
    bytes_behind: Cell<usize>,
    /// Bytes of a body that arrived after its request was answered.
    leftover_body: Cell<usize>,
    /// Permit of the limiter. `None` in tests.
    permit: Option<ConnectionPermit>,
    /// Position in the frames of the peer. `None` for HTTP/1.
    frames: Option<Box<RefCell<Frames>>>,
    /// True if a request began since the last check of the reaper.
    requested: Cell<bool>,
    /// Time of the first check at which the connection was idle.
    idle_since: Cell<Option<Instant>>,
    /// Waker of the task that serves the connection.
    waker: RefCell<Option<Waker>>,
}

/// Guard that counts a request as being answered until it is dropped.
#[derive(Debug)]
pub struct RequestGuard(Rc<Connection>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.requests.set(self.0.requests.get().saturating_sub(1));
    }
}

impl Connection {
    /// Creates the state of a new connection.
    fn new(
        transport: Option<Transport>,
        is_http2: bool,
        head_budget: &HeadBudget,
        permit: Option<ConnectionPermit>,
    ) -> Self {
        Self {
            transport: RefCell::new(transport),
            is_http2,
            streams: Cell::new(0),
            requests: Cell::new(0),
            wrote: Cell::new(false),
            closed: Cell::new(false),
            timed_out: Cell::new(false),
            // The time of the first head begins with the connection.
            head_since: Cell::new(Some(Instant::now())),
            head: RefCell::new(head_budget.claim()),
            had_head: Cell::new(false),
            refusal: Cell::new(None),
            given_heads: RefCell::default(),
            bytes_behind: Cell::new(0),
            leftover_body: Cell::new(0),
            permit,
            frames: is_http2.then(|| Box::new(RefCell::new(Frames::new()))),
            requested: Cell::new(false),
            idle_since: Cell::new(None),
            waker: RefCell::new(None),
        }
    }

    /// Returns the connection of a request: from the connection data of actix over HTTP/1, else
    /// from the extensions of the request.
    pub fn of(conn_data: Option<&Rc<Self>>, extensions: &Extensions) -> Option<Rc<Self>> {
        conn_data.or_else(|| extensions.get()).cloned()
    }

    /// Closes the connection: its next read or write fails. Wakes its task to do one.
    pub fn close(&self) {
        self.closed.set(true);
        self.wake();
    }

    /// Returns true if the gateway closed the connection.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Wakes the task that serves the connection.
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Drops the body of a stalled stream. [`Connection::is_stalled`] is true during the drop, so
    /// that the stream is counted as stalled, while the connection goes on.
    pub fn drop_stalled<T>(&self, body: T) {
        let before = self.timed_out.replace(true);
        drop(body);
        self.timed_out.set(before);
    }

    /// Wakes the task if a request is being answered. Must be called about once a second: a push
    /// sets the timer for its body only when it is polled a second time. For nearly all pushes that
    /// is when the body is received, and no timer is needed.
    pub fn wake_if_answering(&self) {
        if 0 < self.requests.get() && self.streams.get() == 0 {
            self.wake();
        }
    }

    /// Counts a request whose head is complete. The guard must be kept until the request is
    /// answered.
    pub fn begin_request(self: &Rc<Self>) -> RequestGuard {
        let head = self.given_heads.borrow_mut().pop_front().unwrap_or_default();
        self.bytes_behind.set(self.bytes_behind.get().saturating_sub(head));
        self.requested.set(true);
        self.requests.set(self.requests.get() + 1);
        RequestGuard(Rc::clone(self))
    }

    /// Returns true if a request is being answered or a stream is open.
    fn is_busy(&self) -> bool {
        0 < self.streams.get() || 0 < self.requests.get()
    }

    /// Returns true if a head has been incomplete for `header_timeout` (slow loris). It can be the
    /// first head or a later one, which may arrive while another request is answered.
    pub fn is_slow(&self, now: Instant, header_timeout: Duration) -> bool {
        self.head_since.get().is_some_and(|since| header_timeout <= now.duration_since(since))
    }

    /// Updates and returns the time for which the connection has been idle. The reaper calls it at
    /// each check.
    pub fn update_idle(&self, now: Instant) -> Duration {
        if self.requested.replace(false) || self.is_busy() {
            self.idle_since.set(None);
            return Duration::ZERO;
        }
        let since = self.idle_since.get().unwrap_or(now);
        self.idle_since.set(Some(since));
        now.duration_since(since)
    }

    /// Counts a new stream.
    pub fn begin_stream(&self) {
        self.streams.set(self.streams.get() + 1);
        self.limit_bytes_behind_stream();
        if let Some(permit) = &self.permit {
            permit.set_streaming(true);
        }
    }

    /// Counts the end of a stream.
    pub fn end_stream(&self) {
        self.streams.set(self.streams.get().saturating_sub(1));
        if let Some(permit) = self.permit.as_ref().filter(|_| self.streams.get() == 0) {
            permit.set_streaming(false);
        }
    }

    /// Returns the error for which the head was refused that [`REFUSED_METHOD`] replaces. `None`
    /// when no head was refused: the client itself sent a request with that method.
    pub fn refusal(&self) -> Option<HeadError> {
        self.refusal.get()
    }

    /// Follows bytes received over HTTP/2.
    fn on_read(&self, bytes: &[u8]) {
        if let Some(frames) = &self.frames {
            let seen = frames.borrow_mut().read(bytes);
            if seen.has_completed || !seen.is_incomplete {
                self.end_head();
            }
            if seen.is_incomplete && self.head_since.get().is_none() {
                self.head_since.set(Some(Instant::now()));
            }
        }
        if self.head_since.get().is_some() && !self.head.borrow_mut().try_grow(bytes.len()) {
            self.close();
        }
    }

    /// Ends the time and the memory claim of a head.
    fn end_head(&self) {
        self.had_head.set(true);
        self.leftover_body.set(0);
        self.head_since.set(None);
        self.head.borrow_mut().release();
    }

    /// Returns true if the gateway closed the connection, or the kernel did because the peer
    /// acknowledged nothing.
    pub fn is_stalled(&self) -> bool {
        self.closed.get() || self.timed_out.get()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use super::*;

    fn head_budget() -> HeadBudget {
        HeadBudget::new(1_000_000, prometheus::IntCounter::new("refused", "refused").unwrap())
    }

    #[test]
    fn connection_is_idle_after_its_last_answer() {
        let connection = Rc::new(Connection::new(None, false, &head_budget(), None));
        let start = Instant::now();
        let idle_after = |time: Duration| connection.update_idle(start + time);
        assert_eq!(idle_after(Duration::ZERO), Duration::ZERO);
        assert_eq!(idle_after(IDLE_MAX / 2), IDLE_MAX / 2);
        drop(connection.begin_request());
        assert_eq!(idle_after(IDLE_MAX), Duration::ZERO, "a request came since the last check");
        assert_eq!(idle_after(IDLE_MAX), Duration::ZERO);
        let answering = connection.begin_request();
        assert_eq!(idle_after(IDLE_MAX * 3), Duration::ZERO, "a request is being answered");
        drop(answering);
        assert_eq!(idle_after(IDLE_MAX * 3), Duration::ZERO);
        assert_eq!(idle_after(IDLE_MAX * 4), IDLE_MAX);
    }

    #[test]
    fn only_a_connection_that_is_answering_is_woken() {
        struct Woken(AtomicUsize);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        for (answering, wakes) in [(true, 1), (false, 0)] {
            let connection = Rc::new(Connection::new(None, false, &head_budget(), None));
            connection.waker.replace(Some(Arc::clone(&woken).into()));
            let _request = answering.then(|| connection.begin_request());
            connection.wake_if_answering();
            assert_eq!(woken.0.swap(0, Ordering::SeqCst), wakes);
        }
    }

    #[test]
    fn head_has_a_time_limit_and_its_answer_has_none() {
        let max = Duration::from_secs(5);
        let connection = Rc::new(Connection::new(None, false, &head_budget(), None));
        let is_slow_after = |time: Duration| connection.is_slow(Instant::now() + time, max);
        assert!(!is_slow_after(max / 2));
        assert!(is_slow_after(max));
        connection.end_head();
        let _request = connection.begin_request();
        connection.set_head_bytes(0);
        assert!(!is_slow_after(max * 9), "no head is incomplete");
        connection.set_head_bytes(1);
        assert!(is_slow_after(max * 2), "the head behind the request is incomplete");
    }
}
