//! Heartbeats of the workers: they tell a worker that hangs from one that is busy.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use slab::Slab;

/// How often each worker marks that it runs.
const BEAT: Duration = Duration::from_secs(1);

/// How long a worker may go without a mark before `/healthz` says that it hangs. A worker that is
/// only busy marks within milliseconds, or within seconds when the node is short of CPU: a restart
/// would cost its readers more than waiting.
pub const HUNG_AFTER: Duration = Duration::from_secs(30);

/// The newest mark of each worker. A clone is another handle on the same marks.
#[derive(Debug, Clone)]
pub struct Heartbeats {
    start: Instant,
    hung_after: Duration,
    /// By the worker's number: milliseconds from `start` to its newest mark.
    marks: Arc<Mutex<Slab<Arc<AtomicU64>>>>,
}

/// One worker's place among the heartbeats. Dropping it takes the worker out.
#[derive(Debug)]
pub struct Heart {
    heartbeats: Heartbeats,
    worker: usize,
    mark: Arc<AtomicU64>,
}

/// A worker that has not marked for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HungWorker {
    /// The number of the worker, from 0.
    pub worker: usize,
    /// How long ago its newest mark was.
    pub silent: Duration,
}

impl Heartbeats {
    /// Heartbeats of no worker yet. A worker hangs when it has not marked for `hung_after`.
    pub fn new(hung_after: Duration, now: Instant) -> Self {
        Self { start: now, hung_after, marks: Arc::default() }
    }

    /// Adds a worker, which has marked now.
    pub fn add(&self, now: Instant) -> Heart {
        let mark = Arc::new(AtomicU64::new(self.since_start(now)));
        let worker = self.marks().insert(Arc::clone(&mark));
        Heart { heartbeats: self.clone(), worker, mark }
    }

    /// Number of workers that have a heart.
    pub fn workers(&self) -> usize {
        self.marks().len()
    }

    /// The worker that has been silent for longest, if that is too long.
    pub fn hung(&self, now: Instant) -> Option<HungWorker> {
        let now = self.since_start(now);
        let marks = self.marks();
        let oldest = marks.iter().map(|(worker, mark)| (mark.load(Ordering::Relaxed), worker));
        let (mark, worker) = oldest.min()?;
        let silent = Duration::from_millis(now.saturating_sub(mark));
        (self.hung_after < silent).then_some(HungWorker { worker, silent })
    }

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

    /// Marks each second, for as long as the thread polls its tasks. Never returns.
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
    fn a_silent_worker_hangs_and_a_slow_one_does_not() {
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
        assert_eq!(heartbeats.hung(at(160)), Some(hung), "the first is silent for longest");
        drop(first);
        assert_eq!(heartbeats.hung(at(160)), None, "a worker that ended does not hang");
        assert_eq!(heartbeats.workers(), 1);
        let again = heartbeats.add(at(160));
        assert_eq!((again.worker, heartbeats.workers()), (0, 2), "its place is taken again");
    }
}
