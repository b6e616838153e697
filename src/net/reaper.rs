//! Looks after the connections of one worker: those whose peers take nothing, and those whose peers
//! take all day to say what they want. Streams of HTTP/1 only: `http2` looks after its own. Lives
//! on that worker's thread.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use prometheus::IntCounter;

use crate::net::connection::{Connection, ConnectionLimiter};

/// Watches the connections of one worker for peers that take nothing, or that take all day to say
/// what they want.
#[derive(Debug)]
pub struct Reaper {
    limits: ConnectionLimits,
    connections: RefCell<slab::Slab<Weak<Connection>>>,
    streams: RefCell<slab::Slab<Rc<WatchedStream>>>,
}

/// What connections are held to.
#[derive(Debug)]
pub struct ConnectionLimits {
    /// A head has to come in within this.
    pub header_timeout: Duration,
    /// Counts those that take longer.
    pub slow_heads: IntCounter,
    /// Says for how long an idle connection may stay.
    pub limiter: Rc<ConnectionLimiter>,
}

/// One event stream under watch.
#[derive(Debug)]
pub struct WatchedStream {
    connection: Rc<Connection>,
    /// Whether it had nothing to give when it was last asked. If it had, its socket may be full.
    idle: Cell<bool>,
    /// Whether it was asked for more since the last look: then what it gave before was taken.
    asked: Cell<bool>,
    /// The last look at which it was not waiting for its socket.
    since: Cell<Instant>,
}

/// Keeps a stream under watch until it is dropped.
#[derive(Debug)]
pub struct WatchGuard {
    watched: Rc<WatchedStream>,
    /// Where it is listed. HTTP/2's are not: who serves them sees when they are stalled.
    listed: Option<(Rc<Reaper>, usize)>,
}

impl Reaper {
    /// Nobody is watched yet.
    pub fn new(limits: ConnectionLimits) -> Self {
        let (connections, streams) = (RefCell::default(), RefCell::default());
        Self { limits, connections, streams }
    }

    /// Watches a connection for as long as it lives.
    pub fn add(&self, connection: &Rc<Connection>) {
        self.connections.borrow_mut().insert(Rc::downgrade(connection));
    }

    /// Watches a stream from now on.
    pub fn watch(self: &Rc<Self>, connection: &Rc<Connection>) -> WatchGuard {
        connection.stream_begins();
        let watched = Rc::new(WatchedStream {
            connection: Rc::clone(connection),
            idle: Cell::new(true),
            asked: Cell::new(true),
            since: Cell::new(Instant::now()),
        });
        let listed = (!connection.is_http2)
            .then(|| (Rc::clone(self), self.streams.borrow_mut().insert(Rc::clone(&watched))));
        WatchGuard { watched, listed }
    }

    /// Looks after the streams for as long as it is polled.
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

    /// Those whose heads take too long, and those of which nothing is wanted any more.
    fn close_slow(&self, now: Instant) {
        let limiter = &self.limits.limiter;
        self.connections.borrow_mut().retain(|_, connection| {
            let Some(connection) = connection.upgrade() else { return false };
            let idle = connection.look_idle(now);
            if connection.is_slow(now, self.limits.header_timeout) {
                if !connection.is_closed() {
                    self.limits.slow_heads.inc();
                }
                connection.close();
            } else if !connection.is_http2 && limiter.is_idle_expired(idle) {
                // HTTP/2's are told to leave: see `http2`.
                if !connection.is_closed() {
                    limiter.count_idle_close(idle);
                }
                connection.close();
            }
            connection.wake_if_answering();
            true
        });
    }

    /// A stream is cut when its socket took nothing for too long.
    fn close_stalled(&self, now: Instant, write_timeout: Duration) {
        let streams = self.streams.borrow();
        let mut close: Vec<Rc<Connection>> = Vec::new();
        for (_, stream) in streams.iter() {
            let connection = &stream.connection;
            let wrote = connection.wrote.replace(false);
            if stream.asked.replace(false) || stream.idle.get() || wrote {
                stream.since.set(now);
            } else if write_timeout <= now.duration_since(stream.since.get()) {
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
    /// To be told after each time that the stream was asked for more.
    pub fn record_poll(&self, had_something: bool) {
        self.watched.idle.set(!had_something);
        self.watched.asked.set(true);
    }

    /// The connection of its stream.
    pub fn connection(&self) -> &Rc<Connection> {
        &self.watched.connection
    }

    /// Whether its connection ended because its reader took nothing.
    pub fn was_stalled(&self) -> bool {
        self.watched.connection.is_stalled()
    }
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        let connection = &self.watched.connection;
        connection.stream_ends();
        if let Some((by, key)) = &self.listed {
            by.streams.borrow_mut().try_remove(*key);
        }
    }
}
