//! Deduplication: the ids of the messages that a topic stored recently. Pure: no clock, no lock, no
//! I/O.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasher, RandomState},
};

use crate::model::event_id::EventId;

/// Window of message ids. Pub/Sub delivers at least once, and deliveries of one message have the
/// same id. The window remembers ids, not publish times, which two messages can share.
#[derive(Debug, Default)]
pub(crate) struct DedupWindow {
    /// Events by the fingerprint of their message id.
    seen: HashMap<u128, EventId, Fingerprints>,
    /// Fingerprints in the order in which they were stored.
    oldest_first: VecDeque<u128>,
}

/// Limits of the windows.
#[derive(Debug, Clone, Copy)]
pub struct DedupLimits {
    /// Largest age of an id, in milliseconds.
    pub age_ms: u64,
    /// Largest number of ids per topic.
    pub ids: usize,
    /// Largest number of ids over all topics.
    pub ids_total: usize,
}

/// Hash of message ids: two keyed 64-bit hashes, which take 16 bytes for an id of any length. The
/// keys are random in each process, so no publisher can choose an id with the hash of another id,
/// whose message would then be dropped as a duplicate.
#[derive(Debug, Default)]
pub(crate) struct Fingerprinter(RandomState, RandomState);

impl Fingerprinter {
    /// Returns the fingerprint of a message id.
    pub(crate) fn of(&self, message_id: &str) -> u128 {
        u128::from(self.0.hash_one(message_id)) << 64 | u128::from(self.1.hash_one(message_id))
    }
}

impl DedupWindow {
    /// Adds the message id of an event. If the window has the message id already, changes nothing
    /// and returns the event that it belongs to.
    pub(crate) fn insert(&mut self, fingerprint: u128, event: EventId) -> Option<EventId> {
        match self.seen.entry(fingerprint) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(place) => {
                place.insert(event);
                self.oldest_first.push_back(fingerprint);
                None
            }
        }
    }

    /// Removes the ids beyond the limits of age and number.
    pub(crate) fn trim(&mut self, now_ms: u64, limits: &DedupLimits) {
        while let Some(stored_ms) = self.oldest_ms() {
            let old = limits.age_ms < now_ms.saturating_sub(stored_ms);
            if !old && self.len() <= limits.ids {
                break;
            }
            self.forget_oldest();
        }
    }

    /// Removes the oldest id, if there is one.
    pub(crate) fn forget_oldest(&mut self) {
        let Some(fingerprint) = self.oldest_first.pop_front() else { return };
        self.seen.remove(&fingerprint);
        if self.len() * 4 < self.oldest_first.capacity() && 64 < self.oldest_first.capacity() {
            self.oldest_first.shrink_to(self.len() * 2);
            self.seen.shrink_to(self.seen.len() * 2);
        }
    }

    /// Returns the time of the event whose message id is the oldest.
    pub(crate) fn oldest_ms(&self) -> Option<u64> {
        let oldest = self.oldest_first.front().and_then(|fingerprint| self.seen.get(fingerprint));
        oldest.map(|event| event.time_ms)
    }

    /// Returns the number of ids.
    pub(crate) fn len(&self) -> usize {
        self.oldest_first.len()
    }

    /// Returns true if there is no id.
    pub(crate) fn is_empty(&self) -> bool {
        self.oldest_first.is_empty()
    }
}

/// Hasher for fingerprints. They are keyed hashes already, so hashing them again has no benefit.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Fingerprints;

/// Low 64 bits of a fingerprint.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct LowBits(u64);

impl BuildHasher for Fingerprints {
    type Hasher = LowBits;

    fn build_hasher(&self) -> LowBits {
        LowBits(0)
    }
}

impl std::hash::Hasher for LowBits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(time_ms: u64) -> EventId {
        EventId::start_of(7, time_ms)
    }

    #[test]
    fn the_window_is_bounded_by_count_and_by_age() {
        let limits = DedupLimits { age_ms: 100, ids: 3, ids_total: 100 };
        let mut window = DedupWindow::default();
        for (now_ms, id) in [(0, 1), (10, 2), (20, 3), (30, 4)] {
            assert_eq!(window.insert(id, event(now_ms)), None);
            window.trim(now_ms, &limits);
        }
        let known =
            |window: &DedupWindow| (1..5).filter(|id| window.seen.contains_key(id)).collect();
        let of: Vec<u128> = known(&window);
        assert_eq!(of, [2, 3, 4], "the oldest of four goes");
        window.trim(110, &limits);
        let of: Vec<u128> = known(&window);
        assert_eq!(of, [2, 3, 4], "100 ms is still within");
        window.trim(111, &limits);
        let of: Vec<u128> = known(&window);
        assert_eq!(of, [3, 4]);
        assert_eq!(window.oldest_ms(), Some(20));
        window.trim(1_000, &limits);
        assert!(window.is_empty());
    }

    #[test]
    fn a_clock_that_goes_back_removes_no_ids() {
        let limits = DedupLimits { age_ms: 100, ids: 3, ids_total: 100 };
        let mut window = DedupWindow::default();
        window.insert(1, event(5_000));
        window.trim(10, &limits);
        assert_eq!(window.insert(1, event(5_001)), Some(event(5_000)));
    }
}
