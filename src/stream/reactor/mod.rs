//! Streams over plain HTTP/1.1 that need neither a task nor buffers: each worker has one task that
//! watches their sockets and their times. A stream that is idle is its cursor and its socket.

pub mod broadcast;
pub mod deadlines;
pub mod socket;
pub mod takeover;

use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt, io,
    net::TcpStream,
    os::fd::OwnedFd,
    rc::{Rc, Weak},
    sync::{Arc, Mutex, PoisonError},
    task::{Wake, Waker},
    time::Duration,
};

use crate::stream::reactor::broadcast::Row;
use crate::stream::reactor::deadlines::Wheel;
pub use crate::stream::reactor::socket::LeanSocket;
pub use crate::stream::reactor::takeover::{Behind, Hatch, Left};
use bytes::Bytes;
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, EventData, EventFlags},
    },
};
use slab::Slab;
use tokio::{
    io::unix::AsyncFd,
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::stream::{open::Subscribed, session::Stream};

/// A worker's lean streams.
pub struct Lean {
    epoll: AsyncFd<OwnedFd>,
    streams: RefCell<Slab<Entry>>,
    wheel: RefCell<Wheel>,
    /// By their groups' numbers.
    rows: RefCell<HashMap<u64, Weak<Row>>>,
    /// Those that have something to do.
    ready: RefCell<Vec<u32>>,
    ready_bell: Notify,
    /// Those whose sockets did not take all, and since when they have taken nothing.
    blocked: RefCell<HashMap<u32, Instant>>,
    /// When these are looked at next.
    stall_look: Cell<Option<Instant>>,
    renewed: Arc<Renewed>,
    stall: Duration,
    /// What becomes of a connection whose stream has ended.
    goes_on: Box<dyn Fn(TcpStream, Peer)>,
}

/// What is kept for a connection until it ends.
pub type Peer = Option<Box<dyn Any>>;

struct Entry {
    stream: Rc<RefCell<Stream>>,
    /// The turn of the wheel at which it is looked at. Where else it stands on it is old.
    turn: Cell<u64>,
    peer: Peer,
}

/// How far a stream was driven.
#[derive(Debug)]
pub enum Driven {
    /// There is nothing to do until then, unless something is published.
    Waits(Instant),
    /// There is more to do, but others have a turn first.
    Again,
    /// Its socket takes nothing more now.
    Blocked,
    /// It has ended, and all of it was taken.
    Over,
    /// Its connection is gone, or has to go.
    Broken,
}

/// Streams whose tokens were renewed, on whichever thread that was.
#[derive(Debug, Default)]
struct Renewed {
    keys: Mutex<Vec<u32>>,
    bell: Notify,
}

#[derive(Debug)]
struct RenewedOne {
    renewed: Arc<Renewed>,
    key: u32,
}

impl Wake for RenewedOne {
    fn wake(self: Arc<Self>) {
        self.renewed.keys.lock().unwrap_or_else(PoisonError::into_inner).push(self.key);
        self.renewed.bell.notify_one();
    }
}

/// So many sockets are looked at in one go.
const EVENTS_MAX: usize = 256;
/// So many are driven before the thread's other tasks have a turn.
const TURN: usize = 64;
/// How often those whose sockets take nothing are looked at.
const STALL_TICK: Duration = Duration::from_millis(500);

impl fmt::Debug for Lean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lean")
            .field("streams", &self.streams.borrow().len())
            .finish_non_exhaustive()
    }
}

impl Lean {
    /// None yet. A socket that takes nothing for `stall` is closed; one whose stream has ended
    /// `goes_on`.
    ///
    /// # Errors
    /// When the kernel gives no epoll instance.
    pub fn new(
        stall: Duration,
        goes_on: impl Fn(TcpStream, Peer) + 'static,
    ) -> io::Result<Rc<Self>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "unsound only for a type that changes its descriptor, which an OwnedFd does not"
        )]
        let epoll = AsyncFd::new(epoll)?;
        Ok(Rc::new(Self {
            epoll,
            streams: RefCell::default(),
            wheel: RefCell::new(Wheel::new(Instant::now())),
            rows: RefCell::default(),
            ready: RefCell::default(),
            ready_bell: Notify::new(),
            blocked: RefCell::default(),
            stall_look: Cell::default(),
            renewed: Arc::default(),
            stall,
            goes_on: Box::new(goes_on),
        }))
    }

    /// Takes a stream in, and writes the head of its response and what it has. `peer` is kept, and
    /// goes on with the connection.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub fn take_in(
        self: &Rc<Self>,
        io: TcpStream,
        head: Bytes,
        subscribed: Subscribed,
        peer: Peer,
    ) -> io::Result<()> {
        let at = self.streams.borrow().vacant_key();
        let Ok(key) = u32::try_from(at) else { return Err(io::ErrorKind::OutOfMemory.into()) };
        // Said once of each: that there is room again, and that the peer is gone. What the peer
        // sends meanwhile stays where it is, and is its next request.
        let what = EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(self.epoll.get_ref(), &io, EventData::new_u64(u64::from(key)), what)?;
        let waker = if subscribed.is_leased() {
            Arc::new(RenewedOne { renewed: Arc::clone(&self.renewed), key }).into()
        } else {
            Waker::noop().clone()
        };
        let stream = subscribed.lean(LeanSocket::new(io, head, Rc::downgrade(self), key, waker));
        self.streams.borrow_mut().insert(Entry { stream, turn: Cell::new(0), peer });
        self.drive(key);
        Ok(())
    }

    /// How many there are.
    pub fn streams(&self) -> usize {
        self.streams.borrow().len()
    }

    /// Drives a stream when this has its turn.
    fn drive_soon(&self, key: u32) {
        self.ready.borrow_mut().push(key);
        self.ready_bell.notify_one();
    }

    /// A stream steps out of its row, and sees itself to what is `left` of the last chunk.
    fn steps_out(&self, key: u32, left: io::Result<Bytes>) {
        if let Some(entry) = self.streams.borrow().get(key as usize)
            && let Some(socket) = entry.stream.borrow_mut().lean_socket()
        {
            socket.has_left(left);
        }
        self.drive_soon(key);
    }

    /// Looks after the streams for as long as it is polled.
    pub async fn run(self: Rc<Self>) {
        loop {
            tokio::select! {
                () = self.look_at_sockets() => {}
                () = self.ready_bell.notified() => {}
                () = self.renewed.bell.notified() => self.look_at_renewed(),
                () = sleep_until(self.next_look()) => self.look_at_times(),
            }
            // Those that want another turn come after the thread's other tasks, which come after so
            // many of these.
            for some in self.ready.take().chunks(TURN) {
                for key in some {
                    self.drive(*key);
                }
                tokio::task::yield_now().await;
            }
        }
    }

    fn next_look(&self) -> Instant {
        let now = Instant::now();
        if self.stall_look.get().is_none() && !self.blocked.borrow().is_empty() {
            self.stall_look.set(Some(now + STALL_TICK.min(self.stall / 4)));
        }
        // Far away, when there is nothing to look at.
        let never = now + Duration::from_secs(3600);
        let due = self.wheel.borrow().next().unwrap_or(never);
        self.stall_look.get().unwrap_or(never).min(due)
    }

    async fn look_at_sockets(&self) {
        let Ok(mut readable) = self.epoll.readable().await else { return };
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let at_once = Timespec::default();
        let found = epoll::wait(self.epoll.get_ref(), spare_capacity(&mut events), Some(&at_once));
        // All of it was seen: only then is it told when there is more.
        if found.is_ok_and(|found| found < EVENTS_MAX) {
            readable.clear_ready();
        }
        for epoll::Event { flags, data } in events {
            let Ok(key) = u32::try_from(data.u64()) else { continue };
            if flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
                self.let_go(key, self.has_timed_out(key));
            } else if self.blocked.borrow().contains_key(&key) {
                self.ready.borrow_mut().push(key);
            }
        }
    }

    fn look_at_renewed(&self) {
        let mut keys = self.renewed.keys.lock().unwrap_or_else(PoisonError::into_inner);
        self.ready.borrow_mut().append(&mut keys);
    }

    fn look_at_times(&self) {
        let now = Instant::now();
        let mut not_yet = Vec::new();
        for (turn, keys) in self.wheel.borrow_mut().take_due(now) {
            let streams = self.streams.borrow();
            let entry_of = |key: u32| Some((key, streams.get(key as usize)?));
            let found = keys.into_iter().filter_map(entry_of);
            for (key, entry) in found.filter(|(_, entry)| entry.turn.get() == turn) {
                // It stands on the wheel no more.
                entry.turn.set(0);
                match entry.stream.borrow().stands_until() {
                    Some(due) if now < due => not_yet.push((key, due)),
                    _ => self.ready.borrow_mut().push(key),
                }
            }
        }
        for (key, due) in not_yet {
            self.look_again(key, due);
        }
        if self.stall_look.get().is_some_and(|look| look <= now) {
            self.stall_look.set(None);
        }
        let is_stalled = |since: &Instant| self.stall <= now.duration_since(*since);
        let blocked = self.blocked.borrow();
        let stalled: Vec<_> =
            blocked.iter().filter(|(_, since)| is_stalled(since)).map(|(key, _)| *key).collect();
        drop(blocked);
        for key in stalled {
            self.let_go(key, true);
        }
    }

    fn drive(&self, key: u32) {
        let stream_of = |entry: &Entry| Rc::clone(&entry.stream);
        let Some(stream) = self.streams.borrow().get(key as usize).map(stream_of) else { return };
        let driven = stream.borrow_mut().drive();
        if matches!(driven, Driven::Blocked) {
            let now = Instant::now();
            let mut blocked = self.blocked.borrow_mut();
            let since = blocked.entry(key).or_insert(now);
            if stream.borrow_mut().lean_socket().is_some_and(LeanSocket::took_something) {
                *since = now;
            }
            return;
        }
        self.blocked.borrow_mut().remove(&key);
        match driven {
            Driven::Waits(due) => self.look_again(key, due),
            Driven::Again | Driven::Blocked => self.drive_soon(key),
            Driven::Over => {
                if let Some((io, peer)) = self.take_out(key) {
                    (self.goes_on)(io, peer);
                }
            }
            Driven::Broken => self.let_go(key, false),
        }
    }

    /// It is not moved on the wheel for every event: only when it would be looked at too late.
    fn look_again(&self, key: u32, due: Instant) {
        let mut wheel = self.wheel.borrow_mut();
        let turn = wheel.turn_of(due).max(1);
        let streams = self.streams.borrow();
        let Some(Entry { turn: stands, .. }) = streams.get(key as usize) else { return };
        if stands.get() == 0 || turn < stands.get() {
            stands.set(turn);
            wheel.put(turn, key);
        }
    }

    /// Whether the kernel gave up on a connection, because its peer took nothing for too long.
    fn has_timed_out(&self, key: u32) -> bool {
        let streams = self.streams.borrow();
        let Some(entry) = streams.get(key as usize) else { return false };
        entry.stream.borrow_mut().lean_socket().is_some_and(|socket| socket.has_timed_out())
    }

    /// Closes a stream's connection.
    fn let_go(&self, key: u32, stalled: bool) {
        if stalled && let Some(entry) = self.streams.borrow().get(key as usize) {
            entry.stream.borrow_mut().lean_socket().map(LeanSocket::stalls);
        }
        drop(self.take_out(key));
    }

    /// A stream is over. Returns its socket, and what was kept.
    fn take_out(&self, key: u32) -> Option<(TcpStream, Peer)> {
        let mut streams = self.streams.borrow_mut();
        let entry = streams.try_remove(key as usize)?;
        if streams.is_empty() {
            // The room of a crowd goes with the last of it.
            *streams = Slab::new();
        }
        drop(streams);
        self.blocked.borrow_mut().remove(&key);
        let io = entry.stream.borrow_mut().lean_socket()?.take()?;
        if let Err(err) = epoll::delete(self.epoll.get_ref(), &io) {
            tracing::debug!(error = %err, "a socket was not watched");
        }
        Some((io, entry.peer))
    }
}
