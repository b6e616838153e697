//! How a publisher reaches the subscribers of another thread.
//!
//! It crosses over once per worker and not once per subscriber: it notes the topic and wakes the
//! worker's one [`Shard`](crate::hub::Shard) task, which wakes the subscribers on its own thread.

use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use crate::{hub::lock, model::topic::Topic};

/// The bell of one worker.
#[derive(Debug, Default)]
pub struct Notifier {
    pending: Mutex<PendingTopics>,
    notify: Notify,
    listeners: AtomicUsize,
}

/// What was rung since the last answer: at most every topic once.
#[derive(Debug, Default)]
pub struct PendingTopics {
    pub topics: HashSet<Topic>,
    pub all_topics: bool,
}

/// Room for more topics than this is given back after a burst.
const ROOM_KEPT: usize = 64;

impl Notifier {
    /// Tells the subscribers of a topic that it has something new.
    pub fn notify(&self, topic: &Topic) {
        if self.listeners.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut pending = lock(&self.pending);
        if !pending.topics.contains(topic) {
            pending.topics.insert(topic.clone());
            drop(pending);
            self.notify.notify_one();
        }
    }

    /// Tells every subscriber that the hub has changed.
    pub fn notify_all(&self) {
        lock(&self.pending).all_topics = true;
        self.notify.notify_one();
    }

    /// Has it answered, though nothing was rung.
    pub fn wake(&self) {
        self.notify.notify_one();
    }

    /// Waits until it rings. `pending` is handed back in exchange for what was rung, so that its room
    /// is used again.
    pub async fn notified(&self, pending: &mut PendingTopics) {
        self.notify.notified().await;
        // A look at all that is in a set is one at all its room.
        if ROOM_KEPT < pending.topics.capacity() {
            pending.topics = HashSet::new();
        }
        pending.topics.clear();
        pending.all_topics = false;
        std::mem::swap(&mut *lock(&self.pending), pending);
    }

    /// Whether it rang since it was answered.
    pub fn has_pending(&self) -> bool {
        let pending = lock(&self.pending);
        pending.all_topics || !pending.topics.is_empty()
    }

    /// One more listener. It must be here before its first read, or an event in between would ring
    /// for nobody.
    pub fn add_listener(&self) {
        self.listeners.fetch_add(1, Ordering::SeqCst);
    }

    /// One less.
    pub fn remove_listener(&self) {
        self.listeners.fetch_sub(1, Ordering::SeqCst);
    }
}
