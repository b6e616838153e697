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

use crate::stream::reactor::broadcast::SocketBroadcast;
use crate::stream::reactor::deadlines::Deadlines;
pub use crate::stream::reactor::socket::DirectSocket;
pub use crate::stream::reactor::takeover::{Handoff, TakenOver, Takeover};
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
pub struct Reactor {
    epoll: AsyncFd<OwnedFd>,
    streams: RefCell<Slab<Entry>>,
    deadlines: RefCell<Deadlines>,
    /// By their groups' numbers.
    broadcasts: RefCell<HashMap<u64, Weak<SocketBroadcast>>>,
    /// Those that have something to do.
    ready: RefCell<Vec<u32>>,
    ready_notify: Notify,
    /// Those whose sockets did not take all, and since when they have taken nothing.
    blocked: RefCell<HashMap<u32, Instant>>,
    /// When these are looked at next.
    stall_check: Cell<Option<Instant>>,
    renewed: Arc<RenewedStreams>,
    write_timeout: Duration,
    /// What becomes of a connection whose stream has ended.
    on_finished: Box<dyn Fn(TcpStream, Peer)>,
}

/// What is kept for a connection until it ends.
pub type Peer = Option<Box<dyn Any>>;

struct Entry {
    stream: Rc<RefCell<Stream>>,
    /// The turn of the wheel at which it is looked at. Where else it stands on it is old.
    bucket: Cell<u64>,
    peer: Peer,
}

/// How far a stream was driven.
#[derive(Debug)]
pub enum DriveResult {
    /// There is nothing to do until then, unless something is published.
    WaitUntil(Instant),
    /// There is more to do, but others have a turn first.
    Yield,
    /// Its socket takes nothing more now.
    Blocked,
    /// It has ended, and all of it was taken.
    Finished,
    /// Its connection is gone, or has to go.
    Broken,
}

/// Streams whose tokens were renewed, on whichever thread that was.
#[derive(Debug, Default)]
struct RenewedStreams {
    keys: Mutex<Vec<u32>>,
    notify: Notify,
}

#[derive(Debug)]
struct RenewalWaker {
    renewed: Arc<RenewedStreams>,
    key: u32,
}

impl Wake for RenewalWaker {
    fn wake(self: Arc<Self>) {
        self.renewed.keys.lock().unwrap_or_else(PoisonError::into_inner).push(self.key);
        self.renewed.notify.notify_one();
    }
}

/// So many sockets are looked at in one go.
const EVENTS_MAX: usize = 256;
/// So many are driven before the thread's other tasks have a turn.
const YIELD_EVERY: usize = 64;
/// How often those whose sockets take nothing are looked at.
const STALL_TICK: Duration = Duration::from_millis(500);

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lean")
            .field("streams", &self.streams.borrow().len())
            .finish_non_exhaustive()
    }
}

impl Reactor {
    /// None yet. A socket that takes nothing for `write_timeout` is closed; one whose stream has ended
    /// `on_finished`.
    ///
    /// # Errors
    /// When the kernel gives no epoll instance.
    pub fn new(
        write_timeout: Duration,
        on_finished: impl Fn(TcpStream, Peer) + 'static,
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
            deadlines: RefCell::new(Deadlines::new(Instant::now())),
            broadcasts: RefCell::default(),
            ready: RefCell::default(),
            ready_notify: Notify::new(),
            blocked: RefCell::default(),
            stall_check: Cell::default(),
            renewed: Arc::default(),
            write_timeout,
            on_finished: Box::new(on_finished),
        }))
    }

    /// Takes a stream in, and writes the head of its response and what it has. `peer` is kept, and
    /// goes on with the connection.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub fn register(
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
            Arc::new(RenewalWaker { renewed: Arc::clone(&self.renewed), key }).into()
        } else {
            Waker::noop().clone()
        };
        let stream =
            subscribed.direct(DirectSocket::new(io, head, Rc::downgrade(self), key, waker));
        self.streams.borrow_mut().insert(Entry { stream, bucket: Cell::new(0), peer });
        self.drive(key);
        Ok(())
    }

    /// How many there are.
    pub fn streams(&self) -> usize {
        self.streams.borrow().len()
    }

    /// Drives a stream when this has its turn.
    fn schedule(&self, key: u32) {
        self.ready.borrow_mut().push(key);
        self.ready_notify.notify_one();
    }

    /// A stream steps out of its row, and sees itself to what is `rest` of the last chunk.
    fn leave_broadcast(&self, key: u32, rest: io::Result<Bytes>) {
        if let Some(entry) = self.streams.borrow().get(key as usize)
            && let Some(socket) = entry.stream.borrow_mut().direct_socket()
        {
            socket.set_rest(rest);
        }
        self.schedule(key);
    }

    /// Looks after the streams for as long as it is polled.
    pub async fn run(self: Rc<Self>) {
        loop {
            tokio::select! {
                () = self.poll_sockets() => {}
                () = self.ready_notify.notified() => {}
                () = self.renewed.notify.notified() => self.take_renewed(),
                () = sleep_until(self.next_deadline()) => self.check_deadlines(),
            }
            // Those that want another turn come after the thread's other tasks, which come after so
            // many of these.
            for some in self.ready.take().chunks(YIELD_EVERY) {
                for key in some {
                    self.drive(*key);
                }
                tokio::task::yield_now().await;
            }
        }
    }

    fn next_deadline(&self) -> Instant {
        let now = Instant::now();
        if self.stall_check.get().is_none() && !self.blocked.borrow().is_empty() {
            self.stall_check.set(Some(now + STALL_TICK.min(self.write_timeout / 4)));
        }
        // Far away, when there is nothing to look at.
        let never = now + Duration::from_secs(3600);
        let due = self.deadlines.borrow().next().unwrap_or(never);
        self.stall_check.get().unwrap_or(never).min(due)
    }

    async fn poll_sockets(&self) {
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
                self.close(key, self.has_timed_out(key));
            } else if self.blocked.borrow().contains_key(&key) {
                self.ready.borrow_mut().push(key);
            }
        }
    }

    fn take_renewed(&self) {
        let mut keys = self.renewed.keys.lock().unwrap_or_else(PoisonError::into_inner);
        self.ready.borrow_mut().append(&mut keys);
    }

    fn check_deadlines(&self) {
        let now = Instant::now();
        let mut not_yet = Vec::new();
        for (bucket, keys) in self.deadlines.borrow_mut().take_due(now) {
            let streams = self.streams.borrow();
            let entry_of = |key: u32| Some((key, streams.get(key as usize)?));
            let found = keys.into_iter().filter_map(entry_of);
            for (key, entry) in found.filter(|(_, entry)| entry.bucket.get() == bucket) {
                // It stands on the wheel no more.
                entry.bucket.set(0);
                match entry.stream.borrow().joined_until() {
                    Some(due) if now < due => not_yet.push((key, due)),
                    _ => self.ready.borrow_mut().push(key),
                }
            }
        }
        for (key, due) in not_yet {
            self.set_deadline(key, due);
        }
        if self.stall_check.get().is_some_and(|look| look <= now) {
            self.stall_check.set(None);
        }
        let is_stalled = |since: &Instant| self.write_timeout <= now.duration_since(*since);
        let blocked = self.blocked.borrow();
        let stalled: Vec<_> =
            blocked.iter().filter(|(_, since)| is_stalled(since)).map(|(key, _)| *key).collect();
        drop(blocked);
        for key in stalled {
            self.close(key, true);
        }
    }

    fn drive(&self, key: u32) {
        let stream_of = |entry: &Entry| Rc::clone(&entry.stream);
        let Some(stream) = self.streams.borrow().get(key as usize).map(stream_of) else { return };
        let driven = stream.borrow_mut().drive();
        if matches!(driven, DriveResult::Blocked) {
            let now = Instant::now();
            let mut blocked = self.blocked.borrow_mut();
            let since = blocked.entry(key).or_insert(now);
            if stream.borrow_mut().direct_socket().is_some_and(DirectSocket::take_progress) {
                *since = now;
            }
            return;
        }
        self.blocked.borrow_mut().remove(&key);
        match driven {
            DriveResult::WaitUntil(due) => self.set_deadline(key, due),
            DriveResult::Yield | DriveResult::Blocked => self.schedule(key),
            DriveResult::Finished => {
                if let Some((io, peer)) = self.remove(key) {
                    (self.on_finished)(io, peer);
                }
            }
            DriveResult::Broken => self.close(key, false),
        }
    }

    /// It is not moved on the wheel for every event: only when it would be looked at too late.
    fn set_deadline(&self, key: u32, due: Instant) {
        let mut deadlines = self.deadlines.borrow_mut();
        let bucket = deadlines.bucket_of(due).max(1);
        let streams = self.streams.borrow();
        let Some(Entry { bucket: stands, .. }) = streams.get(key as usize) else { return };
        if stands.get() == 0 || bucket < stands.get() {
            stands.set(bucket);
            deadlines.put(bucket, key);
        }
    }

    /// Whether the kernel gave up on a connection, because its peer took nothing for too long.
    fn has_timed_out(&self, key: u32) -> bool {
        let streams = self.streams.borrow();
        let Some(entry) = streams.get(key as usize) else { return false };
        entry.stream.borrow_mut().direct_socket().is_some_and(|socket| socket.has_timed_out())
    }

    /// Closes a stream's connection.
    fn close(&self, key: u32, stalled: bool) {
        if stalled && let Some(entry) = self.streams.borrow().get(key as usize) {
            entry.stream.borrow_mut().direct_socket().map(DirectSocket::mark_stalled);
        }
        drop(self.remove(key));
    }

    /// A stream is over. Returns its socket, and what was kept.
    fn remove(&self, key: u32) -> Option<(TcpStream, Peer)> {
        let mut streams = self.streams.borrow_mut();
        let entry = streams.try_remove(key as usize)?;
        if streams.is_empty() {
            // The room of a crowd goes with the last of it.
            *streams = Slab::new();
        }
        drop(streams);
        self.blocked.borrow_mut().remove(&key);
        let io = entry.stream.borrow_mut().direct_socket()?.take()?;
        if let Err(err) = epoll::delete(self.epoll.get_ref(), &io) {
            tracing::debug!(error = %err, "a socket was not watched");
        }
        Some((io, entry.peer))
    }
}
