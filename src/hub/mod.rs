//! Hub: stores messages. Each gets an id and a place in the ring of its topic, from which every
//! subscriber reads it.

mod fanout;
mod overview;
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

pub use crate::hub::fanout::batch::{Batch, ReadEvents, SampledEvent};
pub use crate::hub::fanout::group::{Broadcast, Group, GroupKey, Listener};
pub use crate::hub::fanout::shard::{Read, Shard};
pub use crate::hub::fanout::subscriber::{Reader, Start, Subscriber};
pub use crate::hub::overview::TopicCounts;
pub use crate::hub::store::dedup::DedupLimits;
pub use crate::hub::store::read::BATCH_MAX_BYTES;
pub use crate::hub::store::read::Position;
pub use crate::hub::store::ring::RingLimits;
pub use crate::hub::store::rings::{Limits, Published, Stats};
pub use crate::hub::topic_set::TopicSet;
use tokio::sync::Notify;

use crate::model::gap::GapReason;
use crate::model::topic::Topic;
use crate::{
    hub::{
        fanout::{groups::Groups, notifier::Notifier, shared_filter::SharedFilter},
        store::{
            read::{Cursor, Found, Version},
            rings::Rings,
        },
    },
    limits::budget::{Budget, Claim},
    model::{
        event::{Draft, Event},
        event_id::EventId,
        message::Message,
    },
};

/// Hub of one process. A clone is another handle to the same hub.
#[derive(Debug, Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Rings of all topics. One lock protects them, since an event's id and its place in the order
    /// over all topics are assigned in one step. The lock is never held across I/O, an await, or
    /// work that grows with the size of an event or the number of subscribers.
    rings: Mutex<Rings>,
    /// [`Version`], which is changed under the lock. A reader whose last read was complete at this
    /// version can skip the lock.
    version: AtomicU64,
    /// Number of publishers that waited for the lock for longer than each of [`WAITS_US`].
    waits: [AtomicU64; WAITS_US.len()],
    notifiers: RwLock<Vec<Arc<Notifier>>>,
    subscribers: AtomicUsize,
    subscribers_max: usize,
    /// Memory for the topics that all subscribers follow.
    followed: Arc<Budget>,
    /// Largest number of different filters on each worker.
    filters_max: usize,
    /// Number of evaluations of filters.
    evaluations: AtomicU64,
    is_copy: bool,
    drain: OnceLock<Drain>,
    drain_begins: Notify,
}

/// Number of events after which a read that finds none for its filter lets other tasks of the
/// worker run.
const CHECKED_MAX: usize = 1_024;

/// Thresholds, in microseconds, of the counters of publishers that waited for the lock.
pub const WAITS_US: [u64; 3] = [10, 100, 1_000];

/// Drain: each stream ends at a time of its own within this span.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// Time at which the drain began.
    pub from: Instant,
    /// Length of the drain.
    pub over: Duration,
}

/// Limit that a new subscriber would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The limit of subscribers is reached: [`Limits::subscribers`].
    #[error("as many streams are open as this gateway allows (--subscribers-max)")]
    Subscribers,
    /// The limit of memory for followed topics is reached: [`Limits::followed_bytes`].
    #[error(
        "the topics that all open streams follow take as much memory as this gateway allows \
         (--followed-bytes-max): try again later, or follow fewer topics"
    )]
    FollowedBytes,
    /// The limit of different filters on the worker is reached: [`Limits::filters`].
    #[error(
        "the streams of a worker have as many different filters as this gateway allows \
         (--filters-max): try again later, or send the filter of another stream"
    )]
    Filters,
}

impl Hub {
    /// Creates an empty hub. `history` is a random number of this process, not 0, which its ids
    /// carry.
    pub fn new(limits: Limits, history: u64, now_ms: u64) -> Self {
        Self::after(limits, EventId::start_of(history, now_ms), false)
    }

    /// Creates an empty copy of a log that is stored elsewhere and assigns the ids. See
    /// [`Hub::begin`] and [`Hub::store`].
    pub fn copy(limits: Limits) -> Self {
        Self::after(limits, EventId::ZERO, true)
    }

    fn after(limits: Limits, origin: EventId, is_copy: bool) -> Self {
        let inner = Inner {
            rings: Mutex::new(Rings::new(limits, origin)),
            version: AtomicU64::new(Version::MIN.get()),
            waits: Default::default(),
            notifiers: RwLock::default(),
            subscribers: AtomicUsize::new(0),
            subscribers_max: limits.subscribers,
            followed: Budget::new(limits.followed_bytes),
            filters_max: limits.filters,
            evaluations: AtomicU64::new(0),
            is_copy,
            drain: OnceLock::new(),
            drain_begins: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Gives a message its id and stores it in its topic's ring, unless it was stored before, and
    /// notifies its readers.
    pub fn publish(&self, message: Message, now_ms: u64) -> Published {
        let topic = message.topic.clone();
        let draft = Draft::new(message);
        let mut rings = self.enter();
        let published = rings.publish(draft, now_ms);
        let stored = matches!(published, Published::Stored(_));
        self.finish(rings, stored.then_some(&topic));
        published
    }

    /// Stores a message with the id that the log assigned, and notifies its readers. Ignores a
    /// message whose id is not newer than the head: it was stored before.
    pub fn store(&self, message: Message, id: EventId) {
        let topic = message.topic.clone();
        let draft = Draft::new(message);
        let mut rings = lock(&self.inner.rings);
        let stored = rings.store(draft, id);
        self.finish(rings, stored.then_some(&topic));
    }

    /// Counts the change, releases the lock, and notifies the readers of the topic.
    fn finish(&self, rings: MutexGuard<'_, Rings>, stored: Option<&Topic>) {
        let Some(topic) = stored else { return };
        self.inner.version.fetch_add(1, Ordering::SeqCst);
        drop(rings);
        self.notifiers().iter().for_each(|notifier| notifier.notify(topic));
    }

    /// Starts a new history after `origin`. Every reader whose cursor is before it gets a gap.
    pub fn begin(&self, origin: EventId, reason: GapReason) {
        let mut rings = lock(&self.inner.rings);
        let before = rings.begin(origin, reason);
        self.inner.version.fetch_add(1, Ordering::SeqCst);
        drop(rings);
        drop(before);
        self.notifiers().iter().for_each(|notifier| notifier.notify_all());
    }

    /// Skips an event of the log that cannot be decoded. Every reader whose cursor is before it
    /// gets a gap.
    pub fn skip(&self, id: EventId) {
        lock(&self.inner.rings).skip(id);
        self.inner.version.fetch_add(1, Ordering::SeqCst);
        self.notifiers().iter().for_each(|notifier| notifier.notify_all());
    }

    /// Returns true if the events are stored elsewhere too, and outlive this process.
    pub fn is_copy(&self) -> bool {
        self.inner.is_copy
    }

    /// Creates a subscriber on the shard of this thread, which it cannot leave.
    ///
    /// # Errors
    /// Returns the limit that the subscriber would exceed.
    pub fn subscribe(
        &self,
        shard: &Rc<Shard>,
        key: GroupKey,
        start: Start,
    ) -> Result<Subscriber, SubscribeError> {
        let max = self.inner.subscribers_max;
        let try_acquire = |open: usize| (open < max).then_some(open + 1);
        let counted =
            self.inner.subscribers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, try_acquire);
        counted.map_err(|_| SubscribeError::Subscribers)?;
        let slot = shard.enter(key).inspect_err(|_| self.release())?;
        Ok(Subscriber::new(Rc::clone(shard), slot, start))
    }

    /// Reserves the memory of a group that will be subscribed to later. The claim must be dropped
    /// before the subscription.
    ///
    /// # Errors
    /// Fails when the budget does not suffice.
    pub fn reserve(&self, key: &GroupKey) -> Result<Claim, SubscribeError> {
        let mut claim = self.inner.followed.claim();
        let has_room = claim.grow(key.bytes());
        has_room.then_some(claim).ok_or(SubscribeError::FollowedBytes)
    }

    /// Returns the bytes that the topics of all subscribers take, as estimated.
    pub fn followed_bytes(&self) -> usize {
        self.inner.followed.bytes()
    }

    /// Creates a shard for this thread, on which [`Shard::run`] must be polled.
    pub fn add_shard(&self) -> Rc<Shard> {
        let notifier = Arc::<Notifier>::default();
        let mut notifiers = self.inner.notifiers.write().unwrap_or_else(PoisonError::into_inner);
        notifiers.push(Arc::clone(&notifier));
        let groups = Groups::new(Arc::clone(&self.inner.followed), self.inner.filters_max);
        Shard::new(self.clone(), notifier, groups)
    }

    /// Removes events that are too old, and idle topics. Must be called about once a second.
    pub fn sweep(&self, now_ms: u64) {
        while lock(&self.inner.rings).sweep(now_ms) {}
    }

    /// Returns the newest id.
    pub fn head(&self) -> EventId {
        self.origin_and_head().1
    }

    /// Refuses every further [`Hub::publish`] with [`Published::Closed`]. [`Hub::store`] still
    /// works: a copy follows its log to the end.
    pub fn close(&self) {
        lock(&self.inner.rings).close();
    }

    /// Closes the hub and asks every stream to end within `over`, after it has sent all events that
    /// only this process holds. Only the first call has an effect.
    pub fn drain(&self, over: Duration) {
        self.close();
        let drain = Drain { from: Instant::now(), over };
        if self.inner.drain.set(drain).is_ok() {
            self.inner.drain_begins.notify_waiters();
            self.notifiers().iter().for_each(|notifier| notifier.notify_all());
        }
    }

    /// Returns the drain, if one has begun.
    pub fn draining(&self) -> Option<Drain> {
        self.inner.drain.get().copied()
    }

    /// Waits until a drain begins.
    pub async fn drain_begins(&self) {
        let begins = self.inner.drain_begins.notified();
        if self.draining().is_none() {
            begins.await;
        }
    }

    /// Returns the number of subscribers.
    pub fn subscribers(&self) -> usize {
        self.inner.subscribers.load(Ordering::SeqCst)
    }

    /// Returns true if one more subscriber is allowed in addition to `coming` others that are about
    /// to subscribe.
    pub fn has_room(&self, coming: usize) -> bool {
        self.subscribers() + coming < self.inner.subscribers_max
    }

    /// Returns the values of the metrics.
    pub fn stats(&self) -> Stats {
        lock(&self.inner.rings).stats()
    }

    fn origin_and_head(&self) -> (EventId, EventId) {
        let rings = lock(&self.inner.rings);
        (rings.origin(), rings.head())
    }

    /// Reads, and returns the version at which the result is complete.
    fn read(
        &self,
        topics: &TopicSet,
        cursor: &mut Cursor,
        upto: EventId,
        out: &mut Vec<Arc<Event>>,
    ) -> (Found, Version) {
        let rings = lock(&self.inner.rings);
        (rings.read(topics, cursor, upto, out), self.version())
    }

    /// Reads like [`Hub::read`], and keeps only the events that a filter shows. Reads on until it
    /// has found one, but checks at most about [`CHECKED_MAX`] events. The lock is released between
    /// the reads and is not held while the filter is evaluated.
    fn read_matching(
        &self,
        filter: &SharedFilter,
        topics: &TopicSet,
        cursor: &mut Cursor,
        upto: EventId,
        out: &mut Vec<Arc<Event>>,
    ) -> (Found, Version) {
        let (mut checked, mut evaluations) = (0, 0);
        loop {
            let (found, version) = self.read(topics, cursor, upto, out);
            // A read without events is complete, or has skipped many events of other topics.
            let is_last = out.is_empty() || !found.more || found.gap.is_some();
            checked += out.len();
            out.retain(|event| filter.shows(event, &mut evaluations));
            if is_last || !out.is_empty() || CHECKED_MAX <= checked {
                self.inner.evaluations.fetch_add(evaluations, Ordering::Relaxed);
                return (found, version);
            }
        }
    }

    /// Returns the number of times that a filter was evaluated for an event.
    pub fn evaluations(&self) -> u64 {
        self.inner.evaluations.load(Ordering::Relaxed)
    }

    /// Takes the lock. If it has to wait, measures the time.
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

    /// Returns the number of publishers that waited for longer than each of [`WAITS_US`].
    pub fn waits(&self) -> [u64; WAITS_US.len()] {
        self.inner.waits.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    fn version(&self) -> Version {
        Version::new(self.inner.version.load(Ordering::SeqCst)).unwrap_or(Version::MIN)
    }

    fn release(&self) {
        self.inner.subscribers.fetch_sub(1, Ordering::SeqCst);
    }

    fn notifiers(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<Notifier>>> {
        self.inner.notifiers.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a lock even if its holder panicked. The code that can panic under these locks leaves
/// nothing incomplete (an allocation that fails aborts), and a hub that answers is better than one
/// whose lock is poisoned until the process ends.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
