//! Rings of all topics in one order, protected by the hub's one lock. Pure: no clock, no I/O.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use slab::Slab;

use crate::{
    hub::store::{
        dedup::{DedupLimits, DedupWindow, Fingerprinter},
        ring::RingLimits,
        timeline::Timeline,
        topic::{Channel, Floor},
    },
    model::{
        event::{Draft, Event},
        event_id::EventId,
        gap::GapReason,
        topic::Topic,
    },
};

/// Limits of the hub. See the flags of the same names in `config`.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Limits of each topic's ring.
    pub ring: RingLimits,
    /// Largest age of an event, in milliseconds.
    pub ring_age_ms: u64,
    /// Largest number of bytes over all topics. Above it, the oldest events are removed.
    pub ring_bytes_total: usize,
    /// Largest number of topics with a ring.
    pub topics: usize,
    /// Limits of the windows of message ids.
    pub dedup: DedupLimits,
    /// Largest number of subscribers.
    pub subscribers: usize,
    /// Largest memory for the topics and filters of all groups, in bytes, as estimated.
    pub followed_bytes: usize,
    /// Largest number of different filters, on each worker.
    pub filters: usize,
}

/// Rings of all topics, the order over them, and the floors up to which events are missing.
#[derive(Debug)]
pub(crate) struct Rings {
    limits: Limits,
    /// Id before the first one of this history.
    pub(crate) origin: EventId,
    /// Cause of the gap of a reader whose cursor is before the origin.
    pub(crate) origin_reason: GapReason,
    pub(crate) head: EventId,
    pub(crate) channels: Slab<Channel>,
    pub(crate) by_topic: HashMap<Topic, usize>,
    /// Topics in order, to find those with a prefix.
    pub(crate) in_order: BTreeSet<Topic>,
    pub(crate) timeline: Timeline,
    bytes: usize,
    dedup_ids: usize,
    /// Time of the event that each channel's oldest message id belongs to, and the channel.
    dedup_oldest: BTreeSet<(u64, usize)>,
    fingerprinter: Fingerprinter,
    /// Count of losses that must be reported to readers: events that left their ring, and topics
    /// that were removed.
    pub(crate) losses: u64,
    evictions: u64,
    /// Channels by the count of losses at their latest loss. Each channel occurs once.
    pub(crate) lost: BTreeMap<u64, usize>,
    /// Highest of all floors. A reader whose cursor is at or above it has missed nothing.
    pub(crate) floor_max: EventId,
    /// Floor of all topics without a channel, whether they were removed or never known.
    pub(crate) forgotten: Floor,
    /// Floor of the newest event that was skipped, of any topic.
    pub(crate) skipped: Floor,
    /// Channel at which the next search for idle topics continues.
    reap_next: usize,
    closed: bool,
}

/// Result of publishing a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The message is stored in its topic's ring, with this id.
    Stored(EventId),
    /// A message with the same message id was stored before, within the window, as this event.
    Duplicate(EventId),
    /// The message is not stored: the rings are closed, because their process is about to end.
    Closed,
}

/// Values of the metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    /// Number of topics with a ring.
    pub topics: usize,
    /// Number of events.
    pub events: usize,
    /// Bytes that the limits count for the events.
    pub bytes: usize,
    /// Number of events that left their ring since the start.
    pub evictions: u64,
    /// Number of message ids.
    pub dedup_ids: usize,
}

/// Steps of a sweep before it releases the lock.
const SWEEP_STEP: usize = 256;

impl Rings {
    /// Creates empty rings for a history that begins after `origin`.
    pub(crate) fn new(limits: Limits, origin: EventId) -> Self {
        Self {
            limits,
            origin,
            origin_reason: GapReason::Restart,
            head: origin,
            channels: Slab::new(),
            by_topic: HashMap::new(),
            in_order: BTreeSet::new(),
            timeline: Timeline::default(),
            bytes: 0,
            dedup_ids: 0,
            dedup_oldest: BTreeSet::new(),
            fingerprinter: Fingerprinter::default(),
            losses: 1,
            evictions: 0,
            lost: BTreeMap::new(),
            floor_max: origin,
            forgotten: Floor { id: origin, lost_at: 1 },
            skipped: Floor { id: EventId::ZERO, lost_at: 0 },
            reap_next: 0,
            closed: false,
        }
    }

    /// Stores a message with a new id, unless its message id is in its topic's window.
    pub(crate) fn publish(&mut self, draft: Draft, now_ms: u64) -> Published {
        if self.closed {
            return Published::Closed;
        }
        let at = self.channel_for(draft.topic());
        let id = self.head.next(now_ms);
        if let Some(message_id) = draft.message_id()
            && let Some(stored) = self.remember(at, message_id, id, now_ms)
        {
            return Published::Duplicate(stored);
        }
        self.append(at, draft.seal(id));
        Published::Stored(id)
    }

    /// Stores a message that has its id already. Returns false if the id is not newer than the
    /// head.
    pub(crate) fn store(&mut self, draft: Draft, id: EventId) -> bool {
        if id <= self.head {
            return false;
        }
        let at = self.channel_for(draft.topic());
        self.append(at, draft.seal(id));
        true
    }

    /// Skips an event that cannot be decoded. The stored events are kept.
    pub(crate) fn skip(&mut self, id: EventId) {
        self.losses += 1;
        self.skipped = Floor { id, lost_at: self.losses };
        self.floor_max = self.floor_max.max(id);
        self.head = self.head.max(id);
    }

    /// Starts a new history after `origin`: no event up to `origin` is held, and every reader whose
    /// cursor is before it gets a gap. Returns the old rings, which must be dropped when no lock is
    /// held.
    #[must_use]
    pub(crate) fn begin(&mut self, origin: EventId, reason: GapReason) -> Self {
        let mut anew = Self::new(self.limits, origin);
        anew.origin_reason = reason;
        anew.losses = self.losses + 1;
        anew.forgotten.lost_at = anew.losses;
        anew.evictions = self.evictions + self.timeline.len() as u64;
        anew.closed = self.closed;
        std::mem::replace(self, anew)
    }

    /// Adds the message id of `event` to its topic's window. If the window has the message id
    /// already, returns the event that it belongs to.
    fn remember(
        &mut self,
        at: usize,
        message_id: &str,
        event: EventId,
        now_ms: u64,
    ) -> Option<EventId> {
        let fingerprint = self.fingerprinter.of(message_id);
        // Trims first: an id that is older than the window belongs to a new message.
        let stored = self.dedup(at, |dedup, limits| {
            dedup.trim(now_ms, limits);
            let stored = dedup.insert(fingerprint, event);
            dedup.trim(now_ms, limits);
            stored
        });
        // Over all topics, the oldest ids are removed first.
        while self.limits.dedup.ids_total < self.dedup_ids
            && let Some((_, oldest)) = self.dedup_oldest.first().copied()
        {
            self.dedup(oldest, |dedup, _| dedup.forget_oldest());
        }
        stored.flatten()
    }

    /// Changes a topic's window of message ids, and updates the counts.
    fn dedup<T>(
        &mut self,
        at: usize,
        change: impl FnOnce(&mut DedupWindow, &DedupLimits) -> T,
    ) -> Option<T> {
        let dedup = &mut self.channels.get_mut(at)?.dedup;
        let (ids, oldest) = (dedup.len(), dedup.oldest_ms());
        let changed = change(dedup, &self.limits.dedup);
        self.dedup_ids = self.dedup_ids + dedup.len() - ids;
        if dedup.oldest_ms() != oldest {
            oldest.map(|oldest_ms| self.dedup_oldest.remove(&(oldest_ms, at)));
            dedup.oldest_ms().map(|oldest_ms| self.dedup_oldest.insert((oldest_ms, at)));
        }
        Some(changed)
    }

    fn append(&mut self, at: usize, event: Arc<Event>) {
        let Some(channel) = self.channels.get_mut(at) else { return };
        self.head = event.id;
        self.bytes += event.size();
        channel.ring.push(Arc::clone(&event));
        channel.stored += 1;
        self.timeline.push(at, event);
        while let Some(oldest) =
            self.channels.get_mut(at).and_then(|channel| channel.ring.evict_over(&self.limits.ring))
        {
            self.evicted(at, &oldest);
        }
        while self.limits.ring_bytes_total < self.bytes
            && let Some((oldest, _)) = self.timeline.oldest()
        {
            self.evict(oldest);
        }
    }

    /// Returns the channel of a topic, and creates it if there is none.
    fn channel_for(&mut self, topic: &Topic) -> usize {
        if let Some(at) = self.by_topic.get(topic) {
            return *at;
        }
        if self.limits.topics <= self.channels.len() {
            self.forget_one();
        }
        let at = self.channels.insert(Channel::new(topic.clone(), self.forgotten));
        self.by_topic.insert(topic.clone(), at);
        self.in_order.insert(topic.clone());
        at
    }

    /// Makes room for a topic. Removes an idle topic if there is one, and otherwise the topic whose
    /// newest event is the oldest. The search runs only for a push that exceeds `topics`.
    fn forget_one(&mut self) {
        let idle_first = |channel: &Channel| (!channel.is_idle(), channel.ring.newest());
        let victim = self.channels.iter().min_by_key(|(_, channel)| idle_first(channel));
        if let Some((at, _)) = victim {
            self.forget(at);
        }
    }

    /// Removes a topic. Every topic without a channel may then have lost the events that this one
    /// has lost.
    fn forget(&mut self, at: usize) {
        while self.evict(at) {}
        self.dedup(at, |dedup, _| *dedup = DedupWindow::default());
        let Some(channel) = self.channels.try_remove(at) else { return };
        self.by_topic.remove(&channel.topic);
        self.in_order.remove(&channel.topic);
        self.lost.remove(&channel.lost_at);
        self.losses += 1;
        self.forgotten =
            Floor { id: self.forgotten.id.max(channel.ring.floor()), lost_at: self.losses };
    }

    fn evict(&mut self, at: usize) -> bool {
        let Some(oldest) = self.channels.get_mut(at).and_then(|channel| channel.ring.evict())
        else {
            return false;
        };
        self.evicted(at, &oldest);
        true
    }

    fn evicted(&mut self, at: usize, event: &Event) {
        self.timeline.forget(event.id);
        self.bytes -= event.size();
        self.evictions += 1;
        self.losses += 1;
        self.floor_max = self.floor_max.max(event.id);
        if let Some(channel) = self.channels.get_mut(at) {
            self.lost.remove(&channel.lost_at);
            channel.lost_at = self.losses;
            self.lost.insert(self.losses, at);
        }
    }

    /// Removes old events and idle topics, in a bounded step. Returns true if there is more to do
    /// at once.
    pub(crate) fn sweep(&mut self, now_ms: u64) -> bool {
        let oldest_kept = EventId::start_of(0, now_ms.saturating_sub(self.limits.ring_age_ms));
        for _ in 0..SWEEP_STEP {
            match self.timeline.oldest() {
                Some((at, event)) if event.id < oldest_kept => self.evict(at),
                _ => return self.reap(now_ms),
            };
        }
        true
    }

    fn reap(&mut self, now_ms: u64) -> bool {
        let end = (self.reap_next + SWEEP_STEP).min(self.channels.capacity());
        for at in self.reap_next..end {
            self.dedup(at, |dedup, limits| dedup.trim(now_ms, limits));
            if self.channels.get(at).is_some_and(Channel::is_idle) {
                self.forget(at);
            }
        }
        let more = end < self.channels.capacity();
        self.reap_next = if more { end } else { 0 };
        more
    }

    /// Refuses further messages, so that readers receive only the stored ones.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Returns the newest id.
    pub(crate) fn head(&self) -> EventId {
        self.head
    }

    /// Returns the id before the first one of this history.
    pub(crate) fn origin(&self) -> EventId {
        self.origin
    }

    /// Returns the values of the metrics.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            topics: self.channels.len(),
            events: self.timeline.len(),
            bytes: self.bytes,
            evictions: self.evictions,
            dedup_ids: self.dedup_ids,
        }
    }
}
