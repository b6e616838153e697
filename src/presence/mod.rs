//! Presence: who takes part in a topic, over all replicas.
//!
//! A stream with `presence=on` takes part in the topics that it names. Each topic has a
//! [`Room`](room::Room), which counts the streams of each name, and keeps the newest changes. A
//! reader has a position in these changes and no queue. With Redis, [`exchange`] writes the streams
//! of this replica, and reads those of the others.

pub mod exchange;
pub mod participation;
pub mod reading;
pub mod report;
pub mod room;
mod shared_room;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::{
    model::{
        presence::{MemberName, Roster},
        topic::Topic,
    },
    presence::{participation::Participation, shared_room::SharedRoom},
};

/// Largest number of topics with presence in one process.
pub const TOPICS_MAX: usize = 1_000;

/// Rooms of all topics in which a stream of this process takes part.
#[derive(Debug)]
pub struct Rooms {
    by_topic: Mutex<HashMap<Topic, Arc<SharedRoom>>>,
    /// True if other replicas can have members too. A new room then waits for their reports.
    is_shared: bool,
    /// Time for which a member without a stream stays a member.
    grace: Duration,
    /// Version of the newest own report. Versions of all rooms are from this number, so that a room
    /// that was dropped and made again has no version a second time.
    version: AtomicU64,
    /// Notified when a room was made that waits for the other replicas.
    opened: Notify,
}

/// Error for a stream that would begin presence in too many topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this gateway has presence in {TOPICS_MAX} topics, which is the limit")]
pub struct TooManyTopicsError;

impl Rooms {
    /// Creates the registry without rooms. A member without a stream leaves after `grace`.
    pub fn new(is_shared: bool, grace: Duration) -> Arc<Self> {
        Arc::new(Self {
            by_topic: Mutex::default(),
            is_shared,
            grace,
            version: AtomicU64::new(0),
            opened: Notify::new(),
        })
    }

    /// Prepares the participation of a stream in `topics`. Its name is a member from
    /// [`Participation::enter`].
    ///
    /// # Errors
    /// Fails when the process has [`TOPICS_MAX`] other topics with presence.
    pub fn reserve(
        &self,
        topics: &[Topic],
        name: Option<MemberName>,
    ) -> Result<Box<Participation>, TooManyTopicsError> {
        let mut by_topic = self.lock();
        let new = topics.iter().filter(|topic| !by_topic.contains_key(*topic)).count();
        if TOPICS_MAX < by_topic.len() + new {
            return Err(TooManyTopicsError);
        }
        let rooms = topics.iter().map(|topic| {
            let new_room = || Arc::new(SharedRoom::new(topic.clone(), !self.is_shared));
            Arc::clone(by_topic.entry(topic.clone()).or_insert_with(new_room))
        });
        // While the lock is held: a room without participants could be dropped.
        let participation = Participation::new(rooms.collect(), name);
        drop(by_topic);
        if self.is_shared && 0 < new {
            self.opened.notify_one();
        }
        Ok(Box::new(participation))
    }

    /// Returns the members of a topic that have a stream. `None` if no stream of this process takes
    /// part in the topic, or if the other replicas were not asked yet.
    pub fn roster(&self, topic: &Topic) -> Option<Roster> {
        let room = self.lock().get(topic).cloned();
        room.and_then(|room| room.roster())
    }

    /// Removes members whose grace time is over, and rooms without participants. `is_current` is
    /// false while the other replicas cannot be asked: a member may be there now, so all stay.
    pub fn sweep(&self, is_current: bool, now: Instant) {
        if is_current {
            for room in self.all() {
                room.change(|room| room.expire(self.grace, now));
            }
        }
        let mut by_topic = self.lock();
        by_topic.retain(|_, room| !room.is_unused(self.is_shared));
        if by_topic.is_empty() {
            by_topic.shrink_to_fit();
        }
    }

    /// Returns the number of topics with presence, and the number of their members.
    pub fn count(&self) -> (usize, usize) {
        let all = self.all();
        (all.len(), all.iter().map(|room| room.member_count()).sum())
    }

    fn all(&self) -> Vec<Arc<SharedRoom>> {
        self.lock().values().cloned().collect()
    }

    fn next_version(&self) -> u64 {
        self.version.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Topic, Arc<SharedRoom>>> {
        self.by_topic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
