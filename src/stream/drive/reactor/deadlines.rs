//! Deadlines of a worker's streams, for keep-alives and ends: one structure in place of a timer for
//! each stream.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// Buckets of deadlines, each with the keys of its streams.
#[derive(Debug)]
pub(super) struct Deadlines {
    begun: Instant,
    buckets: BTreeMap<u64, Vec<u32>>,
}

/// Width of a bucket. A keep-alive may be late by this time.
const TICK: Duration = Duration::from_millis(50);

impl Deadlines {
    pub(super) fn new(begun: Instant) -> Self {
        Self { begun, buckets: BTreeMap::new() }
    }

    /// Returns the bucket of a deadline. It is never due before the deadline.
    pub(super) fn bucket_of(&self, due: Instant) -> u64 {
        let since = due.saturating_duration_since(self.begun).as_millis();
        u64::try_from(since.div_ceil(TICK.as_millis())).unwrap_or(u64::MAX)
    }

    pub(super) fn put(&mut self, bucket: u64, key: u32) {
        self.buckets.entry(bucket).or_default().push(key);
    }

    /// Returns the time of the next bucket.
    pub(super) fn next(&self) -> Option<Instant> {
        let (bucket, _) = self.buckets.first_key_value()?;
        let since = TICK.as_millis() * u128::from(*bucket);
        Some(self.begun + Duration::from_millis(u64::try_from(since).ok()?))
    }

    /// Removes and returns the buckets that are due, in order.
    pub(super) fn take_due(&mut self, now: Instant) -> impl Iterator<Item = (u64, Vec<u32>)> {
        std::iter::from_fn(move || {
            self.next().filter(|next| *next <= now)?;
            self.buckets.pop_first()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_buckets_are_taken_once_and_not_early() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        for (key, ms) in [(1, 0), (2, 1), (3, 50), (4, 51), (5, 10_000)] {
            let bucket = deadlines.bucket_of(start + Duration::from_millis(ms));
            deadlines.put(bucket, key);
        }
        let due = |deadlines: &mut Deadlines, ms| {
            deadlines
                .take_due(start + Duration::from_millis(ms))
                .flat_map(|(_, keys)| keys)
                .collect()
        };
        let none: Vec<u32> = Vec::new();
        assert_eq!(due(&mut deadlines, 0), [1]);
        assert_eq!(due(&mut deadlines, 49), none);
        assert_eq!(due(&mut deadlines, 100), [2, 3, 4]);
        assert_eq!(deadlines.next(), Some(start + Duration::from_secs(10)));
        assert_eq!(due(&mut deadlines, 60_000), [5]);
        assert_eq!((due(&mut deadlines, 90_000), deadlines.next()), (none, None));
    }
}
