//! Limits the number of connections of one worker, over all protocols.

use std::{cell::Cell, rc::Rc, time::Duration};

use prometheus::IntCounter;

/// Limit of the connections of one worker: plain, TLS, HTTP/1 and HTTP/2 together. It shortens the
/// idle timeout when more than half of the connections beside the streams are in use.
#[derive(Debug)]
pub struct ConnectionLimiter {
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
pub const IDLE_MAX: Duration = Duration::from_secs(620);
/// Idle timeout when many connections have no stream: their peers can connect again.
const SHORT_IDLE_MAX: Duration = Duration::from_secs(1);
/// Longest time between two checks of an idle connection.
pub const IDLE_LOOK: Duration = Duration::from_secs(5);

/// Permit for one connection, returned to the limiter on drop. It stays on its worker's thread.
#[derive(Debug)]
pub struct ConnectionPermit {
    limiter: Rc<ConnectionLimiter>,
    is_streaming: Cell<bool>,
}

impl ConnectionLimiter {
    /// Creates a limiter of `streams_max + beside_streams` connections. The idle timeout is short
    /// when more than half of `beside_streams` have no stream. `limit_reached` counts the
    /// connections that are refused, or closed by the short timeout.
    pub fn new(streams_max: usize, beside_streams: usize, limit_reached: IntCounter) -> Rc<Self> {
        Rc::new(Self {
            max: streams_max + beside_streams,
            short_timeout_above: beside_streams / 2,
            limit_reached,
            with_stream: Cell::new(0),
            without_stream: Cell::new(0),
        })
    }

    /// Returns a permit for one more connection, or `None` at the limit. `reactor_streams` is the
    /// number of connections that the reactor writes: they hold no permit but count to the limit.
    pub fn try_acquire(self: &Rc<Self>, reactor_streams: usize) -> Option<ConnectionPermit> {
        let taken = self.with_stream.get() + self.without_stream.get() + reactor_streams;
        if self.max <= taken {
            self.limit_reached.inc();
            return None;
        }
        self.without_stream.set(self.without_stream.get() + 1);
        Some(ConnectionPermit { limiter: Rc::clone(self), is_streaming: Cell::new(false) })
    }

    /// Returns the time after which an idle connection is closed.
    pub fn idle_timeout(&self) -> Duration {
        if self.short_timeout_above < self.without_stream.get() { SHORT_IDLE_MAX } else { IDLE_MAX }
    }

    /// Returns true if a connection that was idle for `idle` must be closed.
    pub fn is_idle_expired(&self, idle: Duration) -> bool {
        self.idle_timeout() <= idle
    }

    /// Counts the close of a connection that was idle for `idle`, if the short timeout caused it.
    pub fn count_idle_close(&self, idle: Duration) {
        if idle < IDLE_MAX {
            self.limit_reached.inc();
        }
    }
}

impl ConnectionPermit {
    /// Returns the limiter that the permit is from.
    pub fn limiter(&self) -> &Rc<ConnectionLimiter> {
        &self.limiter
    }

    /// Moves the connection to the count of those with a stream, or of those without one.
    pub fn set_streaming(&self, is_streaming: bool) {
        if self.is_streaming.replace(is_streaming) != is_streaming {
            let (from, to) = (self.count(!is_streaming), self.count(is_streaming));
            from.set(from.get().saturating_sub(1));
            to.set(to.get() + 1);
        }
    }

    /// Returns the count of the connections with a stream, or of those without one.
    fn count(&self, is_streaming: bool) -> &Cell<usize> {
        if is_streaming { &self.limiter.with_stream } else { &self.limiter.without_stream }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let count = self.count(self.is_streaming.get());
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
        let mut permits: Vec<_> = (0..3).filter_map(|_| limiter.try_acquire(0)).collect();
        assert!(
            limiter.is_idle_expired(Duration::from_secs(1)),
            "3 of 4 connections have no stream"
        );
        assert!(!limiter.is_idle_expired(Duration::from_millis(999)));
        permits[0].set_streaming(true);
        permits[0].set_streaming(true);
        assert!(!limiter.is_idle_expired(IDLE_MAX / 2), "2 of 4 connections have no stream");
        assert!(limiter.is_idle_expired(IDLE_MAX));
        permits.extend((0..2).filter_map(|_| limiter.try_acquire(1)));
        assert_eq!(permits.len(), 5, "the sixth is a stream of the reactor");
        assert!(limiter.try_acquire(1).is_none());
        assert_eq!(limit_reached.get(), 1);
        permits.clear();
        assert_eq!((limiter.with_stream.get(), limiter.without_stream.get()), (0, 0));
    }
}
