//! Reactor: writes the streams of a worker to their sockets directly. One task per worker watches
//! all sockets and deadlines with epoll, so a stream has neither a task nor buffers: an idle one
//! takes the memory of its cursor and its socket.

mod broadcast;
mod deadlines;
mod direct;
mod socket;

use std::{
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

use crate::net::http1::{Peer, takeover::TakenSocket};
use crate::stream::{
    drive::reactor::{
        broadcast::SocketBroadcast,
        deadlines::Deadlines,
        direct::{DirectStream, DriveResult},
        socket::DirectSocket,
    },
    session::Session,
};

/// Reactor of one worker.
pub struct Reactor {
    epoll: AsyncFd<OwnedFd>,
    streams: RefCell<Slab<Entry>>,
    deadlines: RefCell<Deadlines>,
    /// Broadcasts by the numbers of their groups.
    pub(super) broadcasts: RefCell<HashMap<u64, Weak<SocketBroadcast>>>,
    /// Streams that have something to do.
    ready: RefCell<Vec<u32>>,
    ready_notify: Notify,
    /// Streams whose sockets did not take all bytes, and the time since which each has taken none.
    blocked: RefCell<HashMap<u32, Instant>>,
    /// Time of the next search for stalled sockets.
    stall_check: Cell<Option<Instant>>,
    renewed: Arc<RenewedStreams>,
    write_timeout: Duration,
    /// Function that continues with a connection whose stream has ended.
    on_finished: Box<dyn Fn(TcpStream, Option<Box<Peer>>)>,
}

struct Entry {
    stream: Rc<RefCell<DirectStream>>,
    /// Bucket of the stream's next deadline. Keys of the stream in other buckets are ignored.
    bucket: Cell<u64>,
    peer: Option<Box<Peer>>,
}

/// Streams to wake from other threads, after a renewal or an answer of the log.
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

/// Number of events that are taken from epoll at once.
const EVENTS_MAX: usize = 256;
/// Number of streams that are driven before other tasks of the thread run.
const YIELD_EVERY: usize = 64;
/// Interval of the search for stalled sockets.
const STALL_TICK: Duration = Duration::from_millis(500);

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("streams", &self.streams.borrow().len())
            .finish_non_exhaustive()
    }
}

impl Reactor {
    /// Creates a reactor without streams. It closes a socket that takes nothing for
    /// `write_timeout`, and gives a connection whose stream has ended to `on_finished`.
    ///
    /// # Errors
    /// Fails when the kernel provides no epoll instance.
    pub fn new(
        write_timeout: Duration,
        on_finished: impl Fn(TcpStream, Option<Box<Peer>>) + 'static,
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

    /// Adds a stream, and writes the head of its response and the available events. `peer` is kept
    /// and continues with the connection.
    ///
    /// # Errors
    /// Fails when the socket cannot be watched.
    pub fn register(
        self: &Rc<Self>,
        TakenSocket { io, head, peer }: TakenSocket,
        session: Session,
    ) -> io::Result<()> {
        let at = self.streams.borrow().vacant_key();
        let Ok(key) = u32::try_from(at) else { return Err(io::ErrorKind::OutOfMemory.into()) };
        // Edge-triggered: the kernel reports once that there is room again, and that the peer is
        // gone. Bytes that the peer sends meanwhile stay in the kernel, and are its next request.
        let what = EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(self.epoll.get_ref(), &io, EventData::new_u64(u64::from(key)), what)?;
        let waker = if session.needs_waker() {
            Arc::new(RenewalWaker { renewed: Arc::clone(&self.renewed), key }).into()
        } else {
            Waker::noop().clone()
        };
        let socket = DirectSocket::new(io, head, Rc::downgrade(self), key);
        let stream = DirectStream::new(session, socket, waker);
        self.streams.borrow_mut().insert(Entry { stream, bucket: Cell::new(0), peer });
        self.drive(key);
        Ok(())
    }

    /// Returns the number of streams.
    pub fn streams(&self) -> usize {
        self.streams.borrow().len()
    }

    /// Makes the task of the reactor drive a stream.
    pub(super) fn schedule(&self, key: u32) {
        self.ready.borrow_mut().push(key);
        self.ready_notify.notify_one();
    }

    /// Removes a stream from its broadcast, with the part of the last chunk that its socket did not
    /// take.
    pub(super) fn leave_broadcast(&self, key: u32, rest: io::Result<Bytes>) {
        if let Some(entry) = self.streams.borrow().get(key as usize) {
            entry.stream.borrow_mut().socket().set_rest(rest);
        }
        self.schedule(key);
    }

    /// Drives the streams as long as it is polled.
    pub async fn run(self: Rc<Self>) {
        loop {
            tokio::select! {
                () = self.poll_sockets() => {}
                () = self.ready_notify.notified() => {}
                () = self.renewed.notify.notified() => self.take_renewed(),
                () = sleep_until(self.next_deadline()) => self.check_deadlines(),
            }
            // Streams with more to do are driven after the other tasks of the thread, which run
            // after each `YIELD_EVERY` streams.
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
        // Distant time, used when there is no deadline.
        let never = now + Duration::from_secs(3600);
        let due = self.deadlines.borrow().next().unwrap_or(never);
        self.stall_check.get().unwrap_or(never).min(due)
    }

    async fn poll_sockets(&self) {
        let Ok(mut readable) = self.epoll.readable().await else { return };
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let at_once = Timespec::default();
        let found = epoll::wait(self.epoll.get_ref(), spare_capacity(&mut events), Some(&at_once));
        // All events were taken. Only then does the kernel report new ones.
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
                // The stream has no deadline any more.
                entry.bucket.set(0);
                match entry.stream.borrow().member_deadline() {
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
        let driven = DirectStream::drive(&stream);
        if matches!(driven, DriveResult::Blocked) {
            let now = Instant::now();
            let mut blocked = self.blocked.borrow_mut();
            let since = blocked.entry(key).or_insert(now);
            if stream.borrow_mut().socket().take_progress() {
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

    /// Sets the deadline of a stream. The deadline is moved only when the stream would be driven
    /// too late, and not for every event.
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

    /// Returns true if the kernel closed a connection because its peer took nothing for too long.
    fn has_timed_out(&self, key: u32) -> bool {
        let streams = self.streams.borrow();
        let Some(entry) = streams.get(key as usize) else { return false };
        entry.stream.borrow_mut().socket().has_timed_out()
    }

    /// Closes the connection of a stream.
    fn close(&self, key: u32, stalled: bool) {
        if stalled && let Some(entry) = self.streams.borrow().get(key as usize) {
            entry.stream.borrow_mut().mark_stalled();
        }
        drop(self.remove(key));
    }

    /// Removes a stream. Returns its socket, and its peer if that was kept.
    fn remove(&self, key: u32) -> Option<(TcpStream, Option<Box<Peer>>)> {
        let mut streams = self.streams.borrow_mut();
        let entry = streams.try_remove(key as usize)?;
        if streams.is_empty() {
            // The memory of the slab is freed when it becomes empty.
            *streams = Slab::new();
        }
        drop(streams);
        self.blocked.borrow_mut().remove(&key);
        let io = entry.stream.borrow_mut().socket().take()?;
        if let Err(err) = epoll::delete(self.epoll.get_ref(), &io) {
            tracing::debug!(error = %err, "a socket was not watched");
        }
        Some((io, entry.peer))
    }
}
