//! Looks after the connections of one worker: those whose peers take nothing, and those whose peers
//! take all day to say what they want. Lives on that worker's thread.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use crate::connection::Connection;

/// Watches the connections of one worker for peers that take nothing, or that take all day to say
/// what they want.
#[derive(Debug, Default)]
pub struct StallWatch {
    connections: RefCell<slab::Slab<Weak<Connection>>>,
    streams: RefCell<slab::Slab<Rc<Watched>>>,
}

/// One event stream under watch.
#[derive(Debug)]
pub struct Watched {
    connection: Rc<Connection>,
    /// Whether it had nothing to give when it was last asked. If it had, its socket may be full.
    idle: Cell<bool>,
    /// Whether it was asked for more since the last look: then what it gave before was taken.
    asked: Cell<bool>,
    /// The last look at which it was not waiting for its socket.
    since: Cell<Instant>,
    /// When it must be over at the latest.
    over_at: Instant,
}

/// Keeps a stream under watch until it is dropped.
#[derive(Debug)]
pub struct Watch {
    watched: Rc<Watched>,
    by: Rc<StallWatch>,
    key: usize,
}

impl StallWatch {
    /// Watches a connection for as long as it lives.
    pub fn add(&self, connection: &Rc<Connection>) {
        self.connections.borrow_mut().insert(Rc::downgrade(connection));
    }

    /// Watches a stream from now on. It should end by itself at `over_at`.
    pub fn watch(self: &Rc<Self>, connection: &Rc<Connection>, over_at: Instant) -> Watch {
        connection.streams.set(connection.streams.get() + 1);
        let watched = Rc::new(Watched {
            connection: Rc::clone(connection),
            idle: Cell::new(true),
            asked: Cell::new(true),
            since: Cell::new(Instant::now()),
            over_at,
        });
        let key = self.streams.borrow_mut().insert(Rc::clone(&watched));
        Watch { watched, by: Rc::clone(self), key }
    }

    /// Looks after the streams for as long as it is polled.
    pub async fn run(self: Rc<Self>, stall: Duration) {
        let mut ticks = tokio::time::interval((stall / 4).min(Duration::from_secs(1)));
        loop {
            ticks.tick().await;
            self.close_stalled(Instant::now(), stall);
            self.close_slow(Instant::now());
        }
    }

    /// Those whose heads take too long, and those of which nothing is wanted any more.
    fn close_slow(&self, now: Instant) {
        self.connections.borrow_mut().retain(|_, connection| {
            let Some(connection) = connection.upgrade() else { return false };
            if connection.is_slow(now) || connection.is_idle(now) {
                connection.close();
            }
            connection.nudge();
            true
        });
    }

    /// An HTTP/1 stream is cut when its socket took nothing for too long. An HTTP/2 stream has only
    /// its window to go by, and its connection carries others too: it is closed when all of its
    /// event streams are stalled, or when a stalled one is past its age.
    fn close_stalled(&self, now: Instant, stall: Duration) {
        let streams = self.streams.borrow();
        let mut stalled: Vec<(&Rc<Connection>, usize)> = Vec::new();
        let mut close: Vec<Rc<Connection>> = Vec::new();
        let mut wrote: Vec<&Rc<Connection>> = Vec::new();
        for (_, stream) in streams.iter() {
            let connection = &stream.connection;
            let progress = !connection.is_http2 && connection.wrote.get();
            if connection.wrote.get() {
                wrote.push(connection);
            }
            if stream.asked.replace(false) || stream.idle.get() || progress {
                stream.since.set(now);
            } else if stall <= now.duration_since(stream.since.get()) {
                if !connection.is_http2 || stream.over_at + stall <= now {
                    close.push(Rc::clone(connection));
                } else if let Some((_, count)) =
                    stalled.iter_mut().find(|(other, _)| Rc::ptr_eq(other, connection))
                {
                    *count += 1;
                } else {
                    stalled.push((connection, 1));
                }
            }
        }
        for connection in wrote {
            connection.wrote.set(false);
        }
        let all_stalled = stalled.into_iter().filter(|(c, count)| c.streams.get() <= *count);
        close.extend(all_stalled.map(|(connection, _)| Rc::clone(connection)));
        drop(streams);
        for connection in close {
            connection.close();
        }
    }
}

impl Watch {
    /// To be told after each time that the stream was asked for more.
    pub fn asked(&self, had_something: bool) {
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

impl Drop for Watch {
    fn drop(&mut self) {
        let connection = &self.watched.connection;
        connection.streams.set(connection.streams.get().saturating_sub(1));
        self.by.streams.borrow_mut().try_remove(self.key);
    }
}
