//! Heartbeats of the workers. They distinguish a worker that hangs from a busy one.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use slab::Slab;

/// Time between two marks of a worker.
const BEAT: Duration = Duration::from_secs(1);

/// Time without a mark after which `/healthz` reports that a worker hangs. A busy worker marks
/// within milliseconds, or within seconds if the node lacks CPU. A restart would cost its readers
/// more than the wait.
pub const HUNG_AFTER: Duration = Duration::from_secs(30);

/// Newest mark of each worker. Clones share the marks.
#[derive(Debug, Clone)]
pub struct Heartbeats {
    /// Time from which marks are counted.
    start: Instant,
    /// Time without a mark after which a worker hangs.
    hung_after: Duration,
    /// Milliseconds from `start` to the newest mark, by the worker's number.
    marks: Arc<Mutex<Slab<Arc<AtomicU64>>>>,
}

/// Entry of one worker. Dropping it removes the worker from the heartbeats.
#[derive(Debug)]
pub struct Heart {
    /// Heartbeats that the worker belongs to.
    heartbeats: Heartbeats,
    /// Number of the worker.
    worker: usize,
    /// Milliseconds from the start to the newest mark.
    mark: Arc<AtomicU64>,
}

/// Worker without a mark for longer than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HungWorker {
    /// Number of the worker, from 0.
    pub worker: usize,
    /// Time since its newest mark.
    pub silent: Duration,
}

impl Heartbeats {
    /// Makes heartbeats without workers. A worker hangs if it did not mark for `hung_after`.
    pub fn new(hung_after: Duration, now: Instant) -> Self {
        Self { start: now, hung_after, marks: Arc::default() }
    }

    /// Adds a worker. `now` is its first mark.
    pub fn add(&self, now: Instant) -> Heart {
        let mark = Arc::new(AtomicU64::new(self.since_start(now)));
        let worker = self.marks().insert(Arc::clone(&mark));
        Heart { heartbeats: self.clone(), worker, mark }
    }

    /// Returns the number of workers.
    pub fn workers(&self) -> usize {
        self.marks().len()
    }

    /// Returns the worker with the oldest mark, if it hangs.
    pub fn hung(&self, now: Instant) -> Option<HungWorker> {
        let now = self.since_start(now);
        let marks = self.marks();
        let oldest = marks.iter().map(|(worker, mark)| (mark.load(Ordering::Relaxed), worker));
        let (mark, worker) = oldest.min()?;
        let silent = Duration::from_millis(now.saturating_sub(mark));
        (self.hung_after < silent).then_some(HungWorker { worker, silent })
    }

    /// Returns the milliseconds from the start to `now`.
    fn since_start(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn marks(&self) -> MutexGuard<'_, Slab<Arc<AtomicU64>>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heart {
    /// Marks that the worker runs.
    pub fn mark(&self, now: Instant) {
        self.mark.store(self.heartbeats.since_start(now), Ordering::Relaxed);
    }

    /// Marks each second while the thread polls its tasks. Never returns.
    pub async fn run(self) {
        let mut beats = tokio::time::interval(BEAT);
        loop {
            beats.tick().await;
            self.mark(Instant::now());
        }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.heartbeats.marks().try_remove(self.worker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_without_marks_hangs_and_a_late_worker_does_not() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let heartbeats = Heartbeats::new(Duration::from_secs(30), start);
        assert_eq!(heartbeats.hung(at(100)), None, "there is no worker yet");
        let (first, second) = (heartbeats.add(at(100)), heartbeats.add(at(100)));
        first.mark(at(120));
        assert_eq!(heartbeats.hung(at(130)), None, "30 s are allowed");
        let hung = HungWorker { worker: 1, silent: Duration::from_secs(31) };
        assert_eq!(heartbeats.hung(at(131)), Some(hung));
        second.mark(at(132));
        assert_eq!(heartbeats.hung(at(132)), None, "it runs again");
        let hung = HungWorker { worker: 0, silent: Duration::from_secs(40) };
        assert_eq!(heartbeats.hung(at(160)), Some(hung), "the first has the oldest mark");
        drop(first);
        assert_eq!(heartbeats.hung(at(160)), None, "a worker that ended does not hang");
        assert_eq!(heartbeats.workers(), 1);
        let again = heartbeats.add(at(160));
        assert_eq!((again.worker, heartbeats.workers()), (0, 2), "its number is used again");
    }
}
