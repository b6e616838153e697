//! Reactor: writes the streams of a worker to their sockets directly. One task per worker watches
//! all sockets and deadlines with epoll, so a stream has neither a task nor buffers: an idle one
//! takes the memory of its cursor and its socket.

mod broadcast;
mod deadlines;
mod direct;
mod framing;
pub(crate) mod owner;
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

use crate::net::{
    http1::takeover::TakenDirect,
    limiter::ConnectionPermit,
    stall::{BlockedWriter, StallDetector},
};
use crate::stream::{
    drive::reactor::{
        broadcast::SocketBroadcast,
        deadlines::Deadlines,
        direct::{DirectStream, DriveResult},
        framing::Framing,
        owner::{Finished, GiveBack, Owner},
        socket::DirectSocket,
    },
    session::Session,
};

/// Reactor of one worker.
pub(crate) struct Reactor {
    epoll: AsyncFd<OwnedFd>,
    streams: RefCell<Slab<Entry>>,
    deadlines: RefCell<Deadlines>,
    /// Broadcasts by the numbers of their groups.
    pub(super) broadcasts: RefCell<HashMap<u64, Weak<SocketBroadcast>>>,
    /// Streams that have something to do.
    ready: RefCell<Vec<u32>>,
    ready_notify: Notify,
    /// Streams whose sockets did not take all bytes.
    blocked: RefCell<HashMap<u32, BlockedWriter>>,
    stalls: Rc<StallDetector>,
    woken: Arc<WokenStreams>,
    /// Function that continues with a connection whose stream has ended.
    on_finished: Box<dyn Fn(Finished)>,
}

struct Entry {
    stream: Rc<RefCell<DirectStream>>,
    /// Bucket of the stream's next deadline. Keys of the stream in other buckets are ignored.
    bucket: Cell<u64>,
    /// Owner of the connection. `None` if the reader has no permit of the limit per address, and
    /// its address is that of the socket.
    owner: Option<Box<Owner>>,
    permit: ConnectionPermit,
}

/// Streams that other tasks and threads wake: after a renewal, an answer of the log, or a stall.
#[derive(Debug, Default)]
struct WokenStreams {
    keys: Mutex<Vec<u32>>,
    notify: Notify,
}

#[derive(Debug)]
struct StreamWaker {
    woken: Arc<WokenStreams>,
    key: u32,
}

impl Wake for StreamWaker {
    fn wake(self: Arc<Self>) {
        self.woken.keys.lock().unwrap_or_else(PoisonError::into_inner).push(self.key);
        self.woken.notify.notify_one();
    }
}

/// Number of events that are taken from epoll at once.
const EVENTS_MAX: usize = 256;
/// Number of streams that are driven before other tasks of the thread run.
const YIELD_EVERY: usize = 64;

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("streams", &self.streams.borrow().len())
            .finish_non_exhaustive()
    }
}

impl Reactor {
    /// Creates a reactor without streams. It closes the sockets that `stalls` finds, and gives a
    /// connection whose stream has ended to `on_finished`.
    ///
    /// # Errors
    /// Fails when the kernel provides no epoll instance.
    pub(crate) fn new(
        stalls: Rc<StallDetector>,
        on_finished: impl Fn(Finished) + 'static,
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
            stalls,
            woken: Arc::default(),
            on_finished: Box::new(on_finished),
        }))
    }

    /// Adds a stream, and writes the head of its response and the available events. `peer` is kept
    /// and continues with the connection.
    ///
    /// # Errors
    /// Fails when the socket cannot be watched.
    pub(crate) fn register(
        self: &Rc<Self>,
        taken: TakenDirect,
        session: Session,
    ) -> io::Result<()> {
        let TakenDirect { io, head, peer, permit } = taken;
        let owner = peer.map(|peer| Box::new(Owner::Http(*peer)));
        self.add((io, head), session, owner, permit)
    }

    /// Adds the stream of a connection in both directions, of which all bytes so far were written.
    /// `give_back` continues with the connection.
    ///
    /// # Errors
    /// Fails when the socket cannot be watched.
    pub(crate) fn register_duplex(
        self: &Rc<Self>,
        io: TcpStream,
        session: Session,
        permit: ConnectionPermit,
        give_back: GiveBack,
    ) -> io::Result<()> {
        let owner = Some(Box::new(Owner::Duplex(give_back)));
        self.add((io, Bytes::new()), session, owner, permit)
    }

    fn add(
        self: &Rc<Self>,
        (io, head): (TcpStream, Bytes),
        session: Session,
        owner: Option<Box<Owner>>,
        permit: ConnectionPermit,
    ) -> io::Result<()> {
        let is_duplex = matches!(owner.as_deref(), Some(Owner::Duplex(_)));
        let at = self.streams.borrow().vacant_key();
        let Ok(key) = u32::try_from(at) else { return Err(io::ErrorKind::OutOfMemory.into()) };
        // Edge-triggered: the kernel reports once that there is room again, and that the peer is
        // gone. Bytes that the peer sends meanwhile stay in the kernel, and are its next request.
        let mut what = EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        what.set(EventFlags::IN, is_duplex);
        epoll::add(self.epoll.get_ref(), &io, EventData::new_u64(u64::from(key)), what)?;
        let waker = if session.needs_waker() { self.waker(key) } else { Waker::noop().clone() };
        let framing = Framing::of(session.format());
        let socket = DirectSocket::new(io, head, framing, Rc::downgrade(self), key);
        let stream = DirectStream::new(session, socket, waker);
        permit.begin_stream();
        self.streams.borrow_mut().insert(Entry { stream, bucket: Cell::new(0), owner, permit });
        self.drive(key);
        Ok(())
    }

    /// Returns a waker that makes the task of the reactor drive a stream.
    fn waker(&self, key: u32) -> Waker {
        Arc::new(StreamWaker { woken: Arc::clone(&self.woken), key }).into()
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
    pub(crate) async fn run(self: Rc<Self>) {
        loop {
            tokio::select! {
                () = self.poll_sockets() => {}
                () = self.ready_notify.notified() => {}
                () = self.woken.notify.notified() => self.take_woken(),
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
        // Distant time, used when there is no deadline.
        let never = || Instant::now() + Duration::from_secs(3600);
        self.deadlines.borrow().next().unwrap_or_else(never)
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
            let is_gone = flags.intersects(EventFlags::HUP | EventFlags::ERR);
            if !is_gone
                && flags.intersects(EventFlags::IN | EventFlags::RDHUP)
                && self.is_duplex(key)
            {
                self.give_back(key);
            } else if is_gone || flags.contains(EventFlags::RDHUP) {
                let is_stalled = flags.contains(EventFlags::ERR) && self.has_timed_out(key);
                self.close(key, is_stalled);
            } else if self.blocked.borrow().contains_key(&key) {
                self.ready.borrow_mut().push(key);
            }
        }
    }

    fn take_woken(&self) {
        let mut keys = self.woken.keys.lock().unwrap_or_else(PoisonError::into_inner);
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
    }

    fn drive(&self, key: u32) {
        let stream_of = |entry: &Entry| Rc::clone(&entry.stream);
        let Some(stream) = self.streams.borrow().get(key as usize).map(stream_of) else { return };
        let driven = DirectStream::drive(&stream);
        let is_end = matches!(driven, DriveResult::Finished | DriveResult::FellBehind);
        if matches!(driven, DriveResult::Silent) || is_end && self.is_duplex(key) {
            drop(stream);
            return self.give_back(key);
        }
        if matches!(driven, DriveResult::Blocked) {
            let has_progress = stream.borrow_mut().socket().take_progress();
            return self.set_blocked(key, has_progress);
        }
        self.blocked.borrow_mut().remove(&key);
        match driven {
            DriveResult::WaitUntil(due) => self.set_deadline(key, due),
            DriveResult::Yield | DriveResult::Blocked => self.schedule(key),
            DriveResult::Finished => {
                if let Some(finished) = self.remove(key) {
                    if let Err(err) = epoll::delete(self.epoll.get_ref(), &finished.io) {
                        tracing::debug!(error = %err, "a socket was not watched");
                    }
                    finished.permit.end_stream();
                    (self.on_finished)(finished);
                }
            }
            DriveResult::FellBehind | DriveResult::Broken | DriveResult::Silent => {
                self.close(key, false);
            }
        }
    }

    /// Watches a stream whose socket took no more bytes, and closes it if it is stalled.
    fn set_blocked(&self, key: u32, has_progress: bool) {
        let is_stalled = match self.blocked.borrow().get(&key) {
            Some(writer) if !has_progress => Some(writer.is_stalled()),
            _ => None,
        };
        match is_stalled {
            Some(true) => self.close(key, true),
            Some(false) => {}
            None => {
                let writer = self.stalls.add(self.waker(key));
                self.blocked.borrow_mut().insert(key, writer);
            }
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

    /// Closes the connection of a stream. The kernel stops watching a socket that is closed.
    fn close(&self, key: u32, stalled: bool) {
        if let Some(entry) = self.streams.borrow().get(key as usize) {
            entry.stream.borrow_mut().mark_end(stalled);
        }
        drop(self.remove(key));
    }
}
