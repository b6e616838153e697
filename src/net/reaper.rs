//! Closes connections of one worker whose peer is too slow: peers that take nothing of a stream,
//! that send a request head too slowly, or that are idle for too long. Of HTTP/2 it checks only the
//! heads: `http2` resets stalled streams and ends idle connections. Lives on the worker's thread.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use prometheus::IntCounter;

use crate::net::connection::{Connection, ConnectionLimiter};

/// List of the connections and streams of one worker, checked at intervals for slow peers.
#[derive(Debug)]
pub struct Reaper {
    limits: ConnectionLimits,
    connections: RefCell<slab::Slab<Weak<Connection>>>,
    streams: RefCell<slab::Slab<Rc<WatchedStream>>>,
}

/// Time limits of connections, and their counters.
#[derive(Debug)]
pub struct ConnectionLimits {
    /// Time limit for a request head.
    pub header_timeout: Duration,
    /// Counter of the connections closed after `header_timeout`.
    pub slow_heads: IntCounter,
    /// Source of the idle timeout.
    pub limiter: Rc<ConnectionLimiter>,
}

/// State of one watched event stream.
#[derive(Debug)]
pub struct WatchedStream {
    connection: Rc<Connection>,
    /// True if the stream had no data when it was last polled. If it had, its socket may be full.
    idle: Cell<bool>,
    /// True if the stream was polled since the last check: the socket took all data before that.
    polled: Cell<bool>,
    /// Time of the last check at which the stream was not waiting for its socket.
    not_blocked_at: Cell<Instant>,
}

/// Guard that keeps a stream watched until it is dropped.
#[derive(Debug)]
pub struct WatchGuard {
    watched: Rc<WatchedStream>,
    /// Key of the stream in the reaper's list. `None` for HTTP/2: `http2` detects its stalls.
    listed: Option<(Rc<Reaper>, usize)>,
}

impl Reaper {
    /// Creates a reaper without connections.
    pub fn new(limits: ConnectionLimits) -> Self {
        let (connections, streams) = (RefCell::default(), RefCell::default());
        Self { limits, connections, streams }
    }

    /// Watches a connection until it is dropped.
    pub fn add(&self, connection: &Rc<Connection>) {
        self.connections.borrow_mut().insert(Rc::downgrade(connection));
    }

    /// Watches a new stream of `connection` until the guard is dropped.
    pub fn watch(self: &Rc<Self>, connection: &Rc<Connection>) -> WatchGuard {
        connection.begin_stream();
        let watched = Rc::new(WatchedStream {
            connection: Rc::clone(connection),
            idle: Cell::new(true),
            polled: Cell::new(true),
            not_blocked_at: Cell::new(Instant::now()),
        });
        let listed = (!connection.is_http2)
            .then(|| (Rc::clone(self), self.streams.borrow_mut().insert(Rc::clone(&watched))));
        WatchGuard { watched, listed }
    }

    /// Checks the connections and streams at intervals. Runs until the future is dropped.
    pub async fn run(self: Rc<Self>, write_timeout: Duration) {
        let mut ticks = tokio::time::interval(
            (write_timeout.min(self.limits.header_timeout) / 4).min(Duration::from_secs(1)),
        );
        loop {
            ticks.tick().await;
            self.close_stalled(Instant::now(), write_timeout);
            self.close_slow(Instant::now());
        }
    }

    /// Closes connections whose request head takes too long, and HTTP/1 ones that are idle for too
    /// long.
    fn close_slow(&self, now: Instant) {
        let limiter = &self.limits.limiter;
        self.connections.borrow_mut().retain(|_, connection| {
            let Some(connection) = connection.upgrade() else { return false };
            let idle = connection.update_idle(now);
            if connection.is_slow(now, self.limits.header_timeout) {
                if !connection.is_closed() {
                    self.limits.slow_heads.inc();
                }
                connection.close();
            } else if !connection.is_http2 && limiter.is_idle_expired(idle) {
                // `http2` ends idle connections with a GOAWAY.
                if !connection.is_closed() {
                    limiter.count_idle_close(idle);
                }
                connection.close();
            }
            connection.wake_if_answering();
            true
        });
    }

    /// Closes the connections of streams whose socket took nothing for `write_timeout`.
    fn close_stalled(&self, now: Instant, write_timeout: Duration) {
        let streams = self.streams.borrow();
        let mut close: Vec<Rc<Connection>> = Vec::new();
        for (_, stream) in streams.iter() {
            let connection = &stream.connection;
            let wrote = connection.wrote.replace(false);
            if stream.polled.replace(false) || stream.idle.get() || wrote {
                stream.not_blocked_at.set(now);
            } else if write_timeout <= now.duration_since(stream.not_blocked_at.get()) {
                close.push(Rc::clone(connection));
            }
        }
        drop(streams);
        for connection in close {
            connection.close();
        }
    }
}

impl WatchGuard {
    /// Records that the stream was polled. `had_data` is true if it returned data. Must be called
    /// after each poll.
    pub fn record_poll(&self, had_data: bool) {
        self.watched.idle.set(!had_data);
        self.watched.polled.set(true);
    }

    /// Returns the connection of the stream.
    pub fn connection(&self) -> &Rc<Connection> {
        &self.watched.connection
    }

    /// Returns true if the connection ended because its reader took nothing.
    pub fn was_stalled(&self) -> bool {
        self.watched.connection.is_stalled()
    }
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.watched.connection.end_stream();
        if let Some((reaper, key)) = &self.listed {
            reaper.streams.borrow_mut().try_remove(*key);
        }
    }
}
