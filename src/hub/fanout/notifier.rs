//! Notifier: passes a publisher's notifications to the subscribers of another thread.
//!
//! A publisher wakes each worker once, not each subscriber: it records the topic and wakes the
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

/// Notifier of one worker.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    pending: Mutex<PendingTopics>,
    notify: Notify,
    listeners: AtomicUsize,
}

/// Topics with new events since the last notification was taken. Holds each topic once.
#[derive(Debug, Default)]
pub(crate) struct PendingTopics {
    pub topics: HashSet<Topic>,
    pub all_topics: bool,
}

/// Capacity that is kept after very many topics were pending.
const ROOM_KEPT: usize = 64;

impl Notifier {
    /// Notifies the subscribers of `topic` that it has a new event.
    pub(crate) fn notify(&self, topic: &Topic) {
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

    /// Notifies all subscribers that the hub has changed.
    pub(crate) fn notify_all(&self) {
        lock(&self.pending).all_topics = true;
        self.notify.notify_one();
    }

    /// Wakes the shard's task without a notification.
    pub(crate) fn wake(&self) {
        self.notify.notify_one();
    }

    /// Waits for a notification and moves the pending topics into `pending`. The set that `pending`
    /// held is reused, to save an allocation.
    pub(crate) async fn notified(&self, pending: &mut PendingTopics) {
        self.notify.notified().await;
        // Iterating over a `HashSet` takes time in proportion to its capacity.
        if ROOM_KEPT < pending.topics.capacity() {
            pending.topics = HashSet::new();
        }
        pending.topics.clear();
        pending.all_topics = false;
        std::mem::swap(&mut *lock(&self.pending), pending);
    }

    /// Returns true if there are notifications that the shard has not taken.
    pub(crate) fn has_pending(&self) -> bool {
        let pending = lock(&self.pending);
        pending.all_topics || !pending.topics.is_empty()
    }

    /// Adds a listener. Must be called before its first read: otherwise an event in between would
    /// cause no notification.
    pub(crate) fn add_listener(&self) {
        self.listeners.fetch_add(1, Ordering::SeqCst);
    }

    /// Removes a listener.
    pub(crate) fn remove_listener(&self) {
        self.listeners.fetch_sub(1, Ordering::SeqCst);
    }
}
