//! The meeting point: messages come in, get an id and a place in their topic's ring, and are read
//! from there by every subscriber.

mod fanout;
mod lookup;
mod store;
mod topic_set;

use std::{
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

pub use crate::hub::fanout::batch::{BATCH_MAX_BYTES, Batch, ReadEvents};
pub use crate::hub::fanout::group::{Broadcast, Group, Listener};
pub use crate::hub::fanout::shard::{Read, Shard};
pub use crate::hub::fanout::subscriber::{Reader, Start, Subscriber};
pub use crate::hub::store::dedup::DedupLimits;
pub use crate::hub::store::read::{Gap, GapReason, Position};
pub use crate::hub::store::ring::RingLimits;
pub use crate::hub::store::rings::{Limits, Published, Stats};
pub use crate::hub::topic_set::TopicSet;
use tokio::sync::Notify;

use crate::{
    hub::{
        fanout::notifier::Notifier,
        store::{
            read::{Cursor, Found},
            rings::Rings,
        },
    },
    limits::budget::{Budget, Claim},
    model::{
        event::{Draft, Event, EventId},
        message::Message,
    },
};

/// The hub. A clone is another handle on the same one.
#[derive(Debug, Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// One lock for all topics, since an event's id and its place in the order over all topics are
    /// one decision. It is never held across I/O, an await or anything that grows with the size of
    /// an event or the number of subscribers.
    rings: Mutex<Rings>,
    /// Counts what was stored, under the lock. Who has read all there was at some count has nothing
    /// to read while it stands, and need not lock to know.
    version: AtomicU64,
    /// Publishers that waited for the lock for longer than each of [`WAITS_US`].
    waits: [AtomicU64; WAITS_US.len()],
    notifiers: RwLock<Vec<Arc<Notifier>>>,
    subscribers: AtomicUsize,
    subscribers_max: usize,
    /// For what all subscribers follow.
    followed: Arc<Budget>,
    is_copy: bool,
    drain: OnceLock<Drain>,
    drain_begins: Notify,
}

/// How long publishers wait for each other and for readers, in microseconds, is counted by these.
pub const WAITS_US: [u64; 3] = [10, 100, 1_000];

/// Streams are to end, each at a time of its own within this span.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// When it began.
    pub from: Instant,
    /// How long it lasts.
    pub over: Duration,
}

/// A limit that a new subscriber would go beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitReached {
    /// [`Limits::subscribers`].
    #[error("as many streams are open as this gateway allows (--subscribers-max)")]
    Subscribers,
    /// [`Limits::followed_bytes`].
    #[error(
        "the topics that all open streams follow take as much memory as this gateway allows \
         (--followed-bytes-max): come back later, or follow fewer topics"
    )]
    FollowedBytes,
}

impl Hub {
    /// An empty hub. `history` is a random number of this process, not 0, that its ids will carry.
    pub fn new(limits: Limits, history: u64, now_ms: u64) -> Self {
        Self::after(limits, EventId::start_of(history, now_ms), false)
    }

    /// An empty copy of a log that is kept elsewhere and hands out the ids. See [`Hub::begin`] and
    /// [`Hub::store`].
    pub fn copy(limits: Limits) -> Self {
        Self::after(limits, EventId::ZERO, true)
    }

    fn after(limits: Limits, origin: EventId, is_copy: bool) -> Self {
        let inner = Inner {
            rings: Mutex::new(Rings::new(limits, origin)),
            version: AtomicU64::new(0),
            waits: Default::default(),
            notifiers: RwLock::default(),
            subscribers: AtomicUsize::new(0),
            subscribers_max: limits.subscribers,
            followed: Budget::new(limits.followed_bytes),
            is_copy,
            drain: OnceLock::new(),
            drain_begins: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Puts a message into its topic's ring, unless it was stored before, and rings for its
    /// readers.
    pub fn publish(&self, message: &Message, now_ms: u64) -> Published {
        let draft = Draft::new(message);
        let id = message.message_id.as_deref();
        let mut rings = self.enter();
        let published = rings.publish(&message.topic, id, draft, now_ms);
        let stored = matches!(published, Published::Stored(_));
        if stored {
            self.inner.version.fetch_add(1, Ordering::SeqCst);
        }
        drop(rings);
        if stored {
            self.notifiers().iter().for_each(|notifier| notifier.notify(&message.topic));
        }
        published
    }

    /// Stores a message with the id that its log gave it, and rings for its readers. One that is
    /// not newer than all there is was stored before.
    pub fn store(&self, message: &Message, id: EventId) {
        let draft = Draft::new(message);
        let mut rings = lock(&self.inner.rings);
        let stored = rings.store(&message.topic, id, draft);
        if stored {
            self.inner.version.fetch_add(1, Ordering::SeqCst);
        }
        drop(rings);
        if stored {
            self.notifiers().iter().for_each(|notifier| notifier.notify(&message.topic));
        }
    }

    /// Begins anew after `origin`, and has every reader told that has not read as far.
    pub fn begin(&self, origin: EventId, reason: GapReason) {
        let mut rings = lock(&self.inner.rings);
        let before = rings.begin(origin, reason);
        self.inner.version.fetch_add(1, Ordering::SeqCst);
        drop(rings);
        drop(before);
        self.notifiers().iter().for_each(|notifier| notifier.notify_all());
    }

    /// Passes over an event that the log has and that cannot be read: every reader that has not
    /// read as far is told.
    pub fn skip(&self, id: EventId) {
        lock(&self.inner.rings).skip(id);
        self.inner.version.fetch_add(1, Ordering::SeqCst);
        self.notifiers().iter().for_each(|notifier| notifier.notify_all());
    }

    /// Whether what is held is held elsewhere too, and outlives this process.
    pub fn is_copy(&self) -> bool {
        self.inner.is_copy
    }

    /// Opens a place for a reader on the shard of this thread, which it cannot leave.
    ///
    /// # Errors
    /// With the limit that it would go beyond.
    pub fn subscribe(
        &self,
        shard: &Rc<Shard>,
        topics: TopicSet,
        start: Start,
    ) -> Result<Subscriber, LimitReached> {
        let max = self.inner.subscribers_max;
        let try_acquire = |open: usize| (open < max).then_some(open + 1);
        let counted =
            self.inner.subscribers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, try_acquire);
        counted.map_err(|_| LimitReached::Subscribers)?;
        let Some(slot) = shard.enter(topics, &self.inner.followed) else {
            self.release();
            return Err(LimitReached::FollowedBytes);
        };
        Ok(Subscriber::new(self.clone(), Rc::clone(shard), slot, start))
    }

    /// Reserves the memory of topics that are to be subscribed to later, until the claim is
    /// dropped. Whoever subscribes drops it first.
    ///
    /// # Errors
    /// When as much is not left.
    pub fn reserve(&self, topics: &TopicSet) -> Result<Claim, LimitReached> {
        let mut claim = self.inner.followed.claim();
        let has_room = claim.grow(topics.bytes());
        has_room.then_some(claim).ok_or(LimitReached::FollowedBytes)
    }

    /// About how many bytes are taken by what all subscribers follow.
    pub fn followed_bytes(&self) -> usize {
        self.inner.followed.bytes()
    }

    /// A new shard, for this thread. Its [`Shard::run`] has to be polled there.
    pub fn add_shard(&self) -> Rc<Shard> {
        let notifier = Arc::<Notifier>::default();
        let mut notifiers = self.inner.notifiers.write().unwrap_or_else(PoisonError::into_inner);
        notifiers.push(Arc::clone(&notifier));
        Shard::new(notifier)
    }

    /// Lets go of what is too old, and of idle topics. To be called about once a second.
    pub fn sweep(&self, now_ms: u64) {
        while lock(&self.inner.rings).sweep(now_ms) {}
    }

    /// The newest id of all.
    pub fn head(&self) -> EventId {
        self.origin_and_head().1
    }

    /// Refuses every further [`Hub::publish`] with [`Published::Closed`]. [`Hub::store`] goes on: a
    /// copy follows its log to the end.
    pub fn close(&self) {
        lock(&self.inner.rings).close();
    }

    /// Closes the hub, and asks every stream to end within the span, when it has given all there
    /// is. Only the first call counts.
    pub fn drain(&self, over: Duration) {
        self.close();
        let drain = Drain { from: Instant::now(), over };
        if self.inner.drain.set(drain).is_ok() {
            self.inner.drain_begins.notify_waiters();
            self.notifiers().iter().for_each(|notifier| notifier.notify_all());
        }
    }

    /// Whether streams are to end.
    pub fn draining(&self) -> Option<Drain> {
        self.inner.drain.get().copied()
    }

    /// Waits until streams are to end.
    pub async fn drain_begins(&self) {
        let begins = self.inner.drain_begins.notified();
        if self.draining().is_none() {
            begins.await;
        }
    }

    /// How many subscribers there are.
    pub fn subscribers(&self) -> usize {
        self.inner.subscribers.load(Ordering::SeqCst)
    }

    /// Whether there may be one more subscriber beside so many that are about to be.
    pub fn has_room(&self, coming: usize) -> bool {
        self.subscribers() + coming < self.inner.subscribers_max
    }

    /// Numbers for the metrics.
    pub fn stats(&self) -> Stats {
        lock(&self.inner.rings).stats()
    }

    fn origin_and_head(&self) -> (EventId, EventId) {
        let rings = lock(&self.inner.rings);
        (rings.origin(), rings.head())
    }

    /// A read, and the version as of which it holds.
    fn read(
        &self,
        topics: &TopicSet,
        cursor: &mut Cursor,
        upto: EventId,
        out: &mut Vec<Arc<Event>>,
    ) -> (Found, u64) {
        let rings = lock(&self.inner.rings);
        (rings.read(topics, cursor, upto, out), self.version())
    }

    /// Takes the lock, and the time if it has to wait.
    fn enter(&self) -> MutexGuard<'_, Rings> {
        if let Ok(rings) = self.inner.rings.try_lock() {
            return rings;
        }
        let start = Instant::now();
        let rings = lock(&self.inner.rings);
        let waited = start.elapsed();
        for (over_us, count) in WAITS_US.iter().zip(&self.inner.waits) {
            if Duration::from_micros(*over_us) < waited {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        rings
    }

    /// How many publishers had to wait for longer than each of [`WAITS_US`].
    pub fn waits(&self) -> [u64; WAITS_US.len()] {
        self.inner.waits.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    fn version(&self) -> u64 {
        self.inner.version.load(Ordering::SeqCst)
    }

    fn release(&self) {
        self.inner.subscribers.fetch_sub(1, Ordering::SeqCst);
    }

    fn notifiers(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<Notifier>>> {
        self.inner.notifiers.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lock whose holder panicked is still taken: nothing under our locks is left half done by what
/// can panic in them (an allocation that fails aborts), and a hub that answers beats one that is
/// poisoned for good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
