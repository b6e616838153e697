//! A client's socket, and what the rest of the gateway may know of it: whether it takes anything,
//! and how to close it from outside. Lives on one worker's thread.

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

use crate::net::connection::chunk::send_chunk;
use crate::net::connection::frames::Frames;
pub use crate::net::connection::heads::{HEADS_MAX_BYTES, HeadBudget, HeadClaim};
pub use crate::net::connection::request_head::{HeadFault, HeadScan};
pub use crate::net::connection::request_reader::REFUSED_METHOD;
pub use crate::net::connection::socket::{LINGER, Socket, Transport};
pub use crate::net::limiter::{ConnectionLimiter, ConnectionPermit, IDLE_LOOK};
use actix_http::Extensions;
use bytes::Bytes;

/// A connection, as its streams see it. actix offers no way to end a response whose socket takes
/// nothing (its body is not asked for more) nor one HTTP/2 stream: this closes the socket under it.
#[derive(Debug)]
pub struct Connection {
    /// None when its socket is closed.
    transport: RefCell<Option<Transport>>,
    /// Many streams can share an HTTP/2 connection.
    pub is_http2: bool,
    /// How many event streams are on it.
    streams: Cell<usize>,
    /// How many requests are being answered.
    requests: Cell<usize>,
    /// Whether its socket has taken anything since the last look.
    pub wrote: Cell<bool>,
    /// Whether the last write of its owner was taken whole, and nothing is due since.
    quiet: Cell<bool>,
    /// What of a chunk that was written past its owner was not taken. It goes before anything else.
    rest: RefCell<Bytes>,
    closed: Cell<bool>,
    /// Whether the kernel gave up, because the peer took nothing for too long.
    timed_out: Cell<bool>,
    /// Since when the head of a request has been coming in.
    head_since: Cell<Option<Instant>>,
    head: RefCell<HeadClaim>,
    /// Whether a head was in: the first one begins with the connection.
    had_head: Cell<bool>,
    /// Why its next head is refused.
    refusal: Cell<Option<HeadFault>>,
    /// Sizes of the heads of HTTP/1 that actix was given and has not handed on yet.
    given_heads: RefCell<VecDeque<usize>>,
    /// Bytes of HTTP/1 behind the request that was handed on last.
    behind: Cell<usize>,
    /// Bytes of a body that came after its request was answered.
    left_over: Cell<usize>,
    /// None in tests.
    permit: Option<ConnectionPermit>,
    /// Where in what its peer sends it is: of HTTP/2.
    frames: Option<Box<RefCell<Frames>>>,
    /// Whether a request came since the last look.
    asked: Cell<bool>,
    /// The first look at which nothing was going on.
    idle_since: Cell<Option<Instant>>,
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

/// A load balancer of Google keeps idle connections for 600 s. Whoever closes first risks that the
/// other has just sent a request, so it has to be the other.
pub const IDLE_MAX: Duration = Duration::from_secs(620);

impl Connection {
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
            quiet: Cell::new(false),
            rest: RefCell::default(),
            closed: Cell::new(false),
            timed_out: Cell::new(false),
            // The first one begins with the connection.
            head_since: Cell::new(Some(Instant::now())),
            head: RefCell::new(head_budget.head()),
            had_head: Cell::new(false),
            refusal: Cell::new(None),
            given_heads: RefCell::default(),
            behind: Cell::new(0),
            left_over: Cell::new(0),
            permit,
            frames: is_http2.then(|| Box::new(RefCell::new(Frames::new()))),
            asked: Cell::new(false),
            idle_since: Cell::new(None),
            waker: RefCell::new(None),
        }
    }

    /// The connection of a request: actix knows it where it accepted it, else it came with it.
    pub fn of(accepted: Option<&Rc<Self>>, with_request: &Extensions) -> Option<Rc<Self>> {
        accepted.or_else(|| with_request.get()).cloned()
    }

    /// Ends it: its next read or write fails, and its owner is woken to do one.
    pub fn close(&self) {
        self.closed.set(true);
        self.wake();
    }

    /// Whether it was ended from this side.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Drops what its reader takes nothing of, which can tell by [`Connection::is_stalled`]: a
    /// stream of a connection that goes on.
    pub fn drop_stalled<T>(&self, body: T) {
        let before = self.timed_out.replace(true);
        drop(body);
        self.timed_out.set(before);
    }

    /// Wakes its owner if a request is being answered. To be called about once a second: a push
    /// sets a timer for its body only when it is looked at a second time, which for nearly all is
    /// when the body is there.
    pub fn wake_if_answering(&self) {
        if 0 < self.requests.get() && self.streams.get() == 0 {
            self.wake();
        }
    }

    /// Whether chunks can be written past its owner at all: not what has to be encrypted, nor
    /// framed by HTTP/2.
    pub fn takes_chunks(&self) -> bool {
        !self.is_http2 && matches!(&*self.transport.borrow(), Some(Transport::Plain(_)))
    }

    /// Its owner has something to write.
    pub fn mark_dirty(&self) {
        self.quiet.set(false);
    }

    /// Whether a chunk may be written past its owner: the owner's last write was taken whole and
    /// nothing is due since, so it has nothing in its buffer that belongs before.
    pub fn is_quiet(&self) -> bool {
        self.quiet.get() && !self.closed.get() && self.rest.borrow().is_empty()
    }

    /// Writes a chunk of a chunked HTTP/1.1 response ([RFC 9112, section
    /// 7.1](https://www.rfc-editor.org/rfc/rfc9112#section-7.1)) past actix, when
    /// [`Connection::is_quiet`]. Returns whether it was taken whole. If not, the owner has to be
    /// woken: it finds the error, or writes the rest with its next flush.
    pub fn write_chunk(&self, chunk: &Bytes) -> bool {
        let sent = match &*self.transport.borrow() {
            // Not through tokio, whose word on whether the socket is writable lies in yet another
            // place of the memory. It finds out when it writes the rest.
            Some(Transport::Plain(io)) => send_chunk(io, chunk),
            _ => return false,
        };
        // Who finds the error is its owner.
        let Ok(sent) = sent else { return false };
        if 0 < sent.bytes {
            self.wrote.set(true);
        }
        let whole = sent.rest.is_empty();
        self.rest.replace(sent.rest);
        whole
    }

    /// To be told of each request, when its head is in. What it returns is kept while the request
    /// is answered.
    pub fn begin_request(self: &Rc<Self>) -> Request {
        let head = self.given_heads.borrow_mut().pop_front().unwrap_or_default();
        self.behind.set(self.behind.get().saturating_sub(head));
        self.asked.set(true);
        self.requests.set(self.requests.get() + 1);
        Request(Rc::clone(self))
    }

    fn is_busy(&self) -> bool {
        0 < self.streams.get() || 0 < self.requests.get()
    }

    /// Whether a request's head has been coming in for too long (slow-loris), be it the first or a
    /// later one, which may come while another request is answered.
    pub fn is_slow(&self, now: Instant, header_timeout: Duration) -> bool {
        self.head_since.get().is_some_and(|since| header_timeout <= now.duration_since(since))
    }

    /// Finds out for how long nothing has been going on. To be called at each look.
    pub fn look_idle(&self, now: Instant) -> Duration {
        if self.asked.replace(false) || self.is_busy() {
            self.idle_since.set(None);
            return Duration::ZERO;
        }
        let since = self.idle_since.get().unwrap_or(now);
        self.idle_since.set(Some(since));
        now.duration_since(since)
    }

    /// Counts a stream that begins on it.
    pub fn stream_begins(&self) {
        self.streams.set(self.streams.get() + 1);
        self.cut_behind_stream();
        if let Some(permit) = &self.permit {
            permit.set_streaming(true);
        }
    }

    /// Counts a stream of it that has ended.
    pub fn stream_ends(&self) {
        self.streams.set(self.streams.get().saturating_sub(1));
        if let Some(permit) = self.permit.as_ref().filter(|_| self.streams.get() == 0) {
            permit.set_streaming(false);
        }
    }

    /// Why the request with [`REFUSED_METHOD`] is to be refused, if it is the reader's.
    pub fn refusal(&self) -> Option<HeadFault> {
        self.refusal.get()
    }

    /// Follows what was read over HTTP/2.
    fn on_read(&self, bytes: &[u8]) {
        if let Some(frames) = &self.frames {
            let seen = frames.borrow_mut().read(bytes);
            if seen.is_new || !seen.is_coming {
                self.head_ends();
            }
            if seen.is_coming && self.head_since.get().is_none() {
                self.head_since.set(Some(Instant::now()));
            }
        }
        if self.head_since.get().is_some() && !self.head.borrow_mut().grow(bytes.len()) {
            self.close();
        }
    }

    fn head_ends(&self) {
        self.had_head.set(true);
        self.left_over.set(0);
        self.head_since.set(None);
        self.head.borrow_mut().end();
    }

    /// Whether it ended because its peer took nothing.
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
    fn a_connection_is_idle_since_its_last_request_was_answered() {
        let connection = Rc::new(Connection::new(None, false, &head_budget(), None));
        let start = Instant::now();
        let idle_after = |time: Duration| connection.look_idle(start + time);
        assert_eq!(idle_after(Duration::ZERO), Duration::ZERO);
        assert_eq!(idle_after(IDLE_MAX / 2), IDLE_MAX / 2);
        drop(connection.begin_request());
        assert_eq!(idle_after(IDLE_MAX), Duration::ZERO, "there was a request");
        assert_eq!(idle_after(IDLE_MAX), Duration::ZERO);
        let answering = connection.begin_request();
        assert_eq!(idle_after(IDLE_MAX * 3), Duration::ZERO, "one is being answered");
        drop(answering);
        assert_eq!(idle_after(IDLE_MAX * 3), Duration::ZERO);
        assert_eq!(idle_after(IDLE_MAX * 4), IDLE_MAX);
    }

    #[test]
    fn who_is_being_answered_is_nudged() {
        struct Woken(AtomicUsize);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        for (answering, nudged) in [(true, 1), (false, 0)] {
            let connection = Rc::new(Connection::new(None, false, &head_budget(), None));
            connection.waker.replace(Some(Arc::clone(&woken).into()));
            let _request = answering.then(|| connection.begin_request());
            connection.wake_if_answering();
            assert_eq!(woken.0.swap(0, Ordering::SeqCst), nudged);
        }
    }

    #[test]
    fn heads_have_a_time_limit_and_answers_have_none() {
        let max = Duration::from_secs(5);
        let connection = Rc::new(Connection::new(None, false, &head_budget(), None));
        let is_slow_after = |time: Duration| connection.is_slow(Instant::now() + time, max);
        assert!(!is_slow_after(max / 2));
        assert!(is_slow_after(max));
        connection.head_ends();
        let _request = connection.begin_request();
        connection.head_holds(0);
        assert!(!is_slow_after(max * 9), "a body is coming in");
        connection.head_holds(1);
        assert!(is_slow_after(max * 2), "a head is, behind it");
    }
}
