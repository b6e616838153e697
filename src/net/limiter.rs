//! Limits the connections of one worker, of whichever protocol.

use std::{cell::Cell, rc::Rc, time::Duration};

use prometheus::IntCounter;

use crate::net::connection::IDLE_MAX;

/// Limit of the connections of one worker: plain, TLS, HTTP/1 and HTTP/2 together. When many have
/// no stream, idle ones are closed sooner.
#[derive(Debug)]
pub struct ConnectionLimiter {
    /// Connections with and without a stream.
    max: usize,
    /// More connections than this without a stream are many.
    crowded_above: usize,
    /// Counts connections that were refused, and idle ones that were closed sooner.
    met: IntCounter,
    with_stream: Cell<usize>,
    without_stream: Cell<usize>,
}

/// An idle connection is closed after this when there are many: its peer can make another.
const IDLE_MAX_WHEN_CROWDED: Duration = Duration::from_secs(1);
/// How often an idle connection is looked at, at least.
pub const IDLE_LOOK: Duration = Duration::from_secs(5);

/// Place of one connection, given back when it is dropped. It belongs to the thread it came from.
#[derive(Debug)]
pub struct ConnectionPermit {
    limiter: Rc<ConnectionLimiter>,
    is_streaming: Cell<bool>,
}

impl ConnectionLimiter {
    /// Limits connections to those of `streams_max` streams and `beside_streams` more. When more
    /// than half of the latter number have no stream, there are many.
    pub fn new(streams_max: usize, beside_streams: usize, met: IntCounter) -> Rc<Self> {
        Rc::new(Self {
            max: streams_max + beside_streams,
            crowded_above: beside_streams / 2,
            met,
            with_stream: Cell::new(0),
            without_stream: Cell::new(0),
        })
    }

    /// A place for one more connection. `reactor_streams` are connections that need no permit,
    /// since they are counted where their streams are. None if all places are taken.
    pub fn try_acquire(self: &Rc<Self>, reactor_streams: usize) -> Option<ConnectionPermit> {
        let taken = self.with_stream.get() + self.without_stream.get() + reactor_streams;
        if self.max <= taken {
            self.met.inc();
            return None;
        }
        self.without_stream.set(self.without_stream.get() + 1);
        Some(ConnectionPermit { limiter: Rc::clone(self), is_streaming: Cell::new(false) })
    }

    /// Whether so many connections have no stream that idle ones have to go.
    pub fn is_crowded(&self) -> bool {
        self.crowded_above < self.without_stream.get()
    }

    /// Time for which an idle connection may stay.
    pub fn idle_timeout(&self) -> Duration {
        if self.is_crowded() { IDLE_MAX_WHEN_CROWDED } else { IDLE_MAX }
    }

    /// Whether a connection that was idle for so long has to go.
    pub fn is_idle_expired(&self, idle: Duration) -> bool {
        self.idle_timeout() <= idle
    }

    /// Counts an idle connection that is closed, if it could have stayed among fewer.
    pub fn count_idle_close(&self, idle: Duration) {
        if idle < IDLE_MAX {
            self.met.inc();
        }
    }
}

impl ConnectionPermit {
    /// Its limiter.
    pub fn limiter(&self) -> &Rc<ConnectionLimiter> {
        &self.limiter
    }

    /// Says whether the connection has a stream now.
    pub fn set_streaming(&self, is_streaming: bool) {
        if self.is_streaming.replace(is_streaming) != is_streaming {
            let (from, to) = self.counts(is_streaming);
            from.set(from.get().saturating_sub(1));
            to.set(to.get() + 1);
        }
    }

    /// The count of the other connections, and that of those that stream, or do not.
    fn counts(&self, is_streaming: bool) -> (&Cell<usize>, &Cell<usize>) {
        let (with, without) = (&self.limiter.with_stream, &self.limiter.without_stream);
        if is_streaming { (without, with) } else { (with, without) }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let (_, count) = self.counts(self.is_streaming.get());
        count.set(count.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_all_kinds_are_counted_once() {
        let met = IntCounter::new("met", "met").unwrap();
        let limiter = ConnectionLimiter::new(2, 4, met.clone());
        let mut permits: Vec<_> = (0..3).filter_map(|_| limiter.try_acquire(0)).collect();
        assert!(limiter.is_idle_expired(Duration::from_secs(1)), "three of four have no stream");
        assert!(!limiter.is_idle_expired(Duration::from_millis(999)));
        permits[0].set_streaming(true);
        permits[0].set_streaming(true);
        assert!(!limiter.is_idle_expired(IDLE_MAX / 2), "two of four have none");
        assert!(limiter.is_idle_expired(IDLE_MAX));
        permits.extend((0..2).filter_map(|_| limiter.try_acquire(1)));
        assert_eq!(permits.len(), 5, "and a stream that is counted elsewhere");
        assert!(limiter.try_acquire(1).is_none());
        assert_eq!(met.get(), 1);
        permits.clear();
        assert_eq!((limiter.with_stream.get(), limiter.without_stream.get()), (0, 0));
    }
}
