//! Limits the number of connections of one worker, over all protocols.

use std::{cell::Cell, rc::Rc, time::Duration};

use prometheus::IntCounter;

/// Limit of the connections of one worker: plain, TLS, HTTP/1 and HTTP/2 together. It shortens the
/// idle timeout when more than half of the connections beside the streams are in use.
#[derive(Debug)]
pub(crate) struct ConnectionLimiter {
    /// Limit of all connections, with and without a stream.
    max: usize,
    /// Number of connections without a stream above which the idle timeout is short.
    short_timeout_above: usize,
    /// Counter of refused connections, and of idle ones closed by the short timeout.
    limit_reached: IntCounter,
    with_stream: Cell<usize>,
    without_stream: Cell<usize>,
}

/// Idle timeout. Google's load balancers keep idle connections for 600 s. The side that closes
/// first may miss a request that is on its way, so the gateway waits longer than a load balancer.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(620);
/// Idle timeout when many connections have no stream: their peers can connect again.
const SHORT_IDLE_MAX: Duration = Duration::from_secs(1);
/// Longest time between two checks of an idle connection.
pub(crate) const IDLE_LOOK: Duration = Duration::from_secs(5);

/// Permit for one connection, returned to the limiter on drop. It stays on its worker's thread.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    limiter: Rc<ConnectionLimiter>,
    /// Number of open streams. An HTTP/2 connection can have many.
    streams: Cell<u32>,
}

/// Guard that counts a stream of a connection until it is dropped.
#[derive(Debug)]
pub(crate) struct StreamGuard<'a>(&'a ConnectionPermit);

impl ConnectionLimiter {
    /// Creates a limiter of `streams_max + beside_streams` connections. The idle timeout is short
    /// when more than half of `beside_streams` have no stream. `limit_reached` counts the
    /// connections that are refused, or closed by the short timeout.
    pub(crate) fn new(
        streams_max: usize,
        beside_streams: usize,
        limit_reached: IntCounter,
    ) -> Rc<Self> {
        Rc::new(Self {
            max: streams_max + beside_streams,
            short_timeout_above: beside_streams / 2,
            limit_reached,
            with_stream: Cell::new(0),
            without_stream: Cell::new(0),
        })
    }

    /// Returns a permit for one more connection, or `None` at the limit.
    pub(crate) fn try_acquire(self: &Rc<Self>) -> Option<ConnectionPermit> {
        if self.max <= self.with_stream.get() + self.without_stream.get() {
            self.limit_reached.inc();
            return None;
        }
        self.without_stream.set(self.without_stream.get() + 1);
        Some(ConnectionPermit { limiter: Rc::clone(self), streams: Cell::new(0) })
    }

    /// Returns the time after which an idle connection is closed.
    pub(crate) fn idle_timeout(&self) -> Duration {
        if self.short_timeout_above < self.without_stream.get() { SHORT_IDLE_MAX } else { IDLE_MAX }
    }

    /// Returns true if a connection that was idle for `idle` must be closed.
    pub(crate) fn is_idle_expired(&self, idle: Duration) -> bool {
        self.idle_timeout() <= idle
    }

    /// Counts the close of a connection that was idle for `idle`, if the short timeout caused it.
    pub(crate) fn count_idle_close(&self, idle: Duration) {
        if idle < IDLE_MAX {
            self.limit_reached.inc();
        }
    }
}

impl ConnectionPermit {
    /// Returns the limiter that the permit is from.
    pub(crate) fn limiter(&self) -> &Rc<ConnectionLimiter> {
        &self.limiter
    }

    /// Counts a new stream. The connection moves to those with a stream.
    pub(crate) fn begin_stream(&self) {
        self.streams.set(self.streams.get() + 1);
        if self.streams.get() == 1 {
            let ConnectionLimiter { with_stream, without_stream, .. } = &*self.limiter;
            without_stream.set(without_stream.get().saturating_sub(1));
            with_stream.set(with_stream.get() + 1);
        }
    }

    /// Counts the end of a stream. After its last one the connection is one without a stream.
    pub(crate) fn end_stream(&self) {
        self.streams.set(self.streams.get().saturating_sub(1));
        if self.streams.get() == 0 {
            let ConnectionLimiter { with_stream, without_stream, .. } = &*self.limiter;
            with_stream.set(with_stream.get().saturating_sub(1));
            without_stream.set(without_stream.get() + 1);
        }
    }

    /// Counts a new stream until the guard is dropped.
    pub(crate) fn stream(&self) -> StreamGuard<'_> {
        self.begin_stream();
        StreamGuard(self)
    }
}

impl Drop for StreamGuard<'_> {
    fn drop(&mut self) {
        self.0.end_stream();
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let ConnectionLimiter { with_stream, without_stream, .. } = &*self.limiter;
        let count = if self.streams.get() == 0 { without_stream } else { with_stream };
        count.set(count.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_counts_once_with_or_without_stream() {
        let limit_reached = IntCounter::new("reached", "reached").unwrap();
        let limiter = ConnectionLimiter::new(2, 4, limit_reached.clone());
        let mut permits: Vec<_> = (0..3).filter_map(|_| limiter.try_acquire()).collect();
        assert!(
            limiter.is_idle_expired(Duration::from_secs(1)),
            "3 of 4 connections have no stream"
        );
        assert!(!limiter.is_idle_expired(Duration::from_millis(999)));
        permits[0].begin_stream();
        drop(permits[0].stream());
        assert!(!limiter.is_idle_expired(IDLE_MAX / 2), "2 of 4 connections have no stream");
        assert!(limiter.is_idle_expired(IDLE_MAX));
        permits.extend((0..4).filter_map(|_| limiter.try_acquire()));
        assert_eq!((permits.len(), limit_reached.get()), (6, 1));
        permits[0].end_stream();
        assert!(limiter.is_idle_expired(Duration::from_secs(1)), "no connection has a stream");
        permits.clear();
        assert_eq!((limiter.with_stream.get(), limiter.without_stream.get()), (0, 0));
    }
}
