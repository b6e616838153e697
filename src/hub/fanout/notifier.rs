//! How a publisher reaches the subscribers of another thread.
//!
//! It crosses over once per worker and not once per subscriber: it notes the topic and wakes the
//! worker's one [`Shard`](super::Shard) task, which wakes the subscribers on its own thread.

use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use crate::{hub::lock, model::message::Topic};

/// The bell of one worker.
#[derive(Debug, Default)]
pub struct Bell {
    rung: Mutex<Rung>,
    notify: Notify,
    listeners: AtomicUsize,
}

/// What was rung since the last answer: at most every topic once.
#[derive(Debug, Default)]
pub struct Rung {
    pub topics: HashSet<Topic>,
    pub everyone: bool,
}

/// Room for more topics than this is given back after a burst.
const ROOM_KEPT: usize = 64;

impl Bell {
    /// Tells the subscribers of a topic that it has something new.
    pub fn ring(&self, topic: &Topic) {
        if self.listeners.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut rung = lock(&self.rung);
        if !rung.topics.contains(topic) {
            rung.topics.insert(topic.clone());
            drop(rung);
            self.notify.notify_one();
        }
    }

    /// Tells every subscriber that the hub has changed.
    pub fn ring_everyone(&self) {
        lock(&self.rung).everyone = true;
        self.notify.notify_one();
    }

    /// Has it answered, though nothing was rung.
    pub fn nudge(&self) {
        self.notify.notify_one();
    }

    /// Waits until it rings. `rung` is handed back in exchange for what was rung, so that its room
    /// is used again.
    pub async fn answer(&self, rung: &mut Rung) {
        self.notify.notified().await;
        // A look at all that is in a set is one at all its room.
        if ROOM_KEPT < rung.topics.capacity() {
            rung.topics = HashSet::new();
        }
        rung.topics.clear();
        rung.everyone = false;
        std::mem::swap(&mut *lock(&self.rung), rung);
    }

    /// Whether it rang since it was answered.
    pub fn is_rung(&self) -> bool {
        let rung = lock(&self.rung);
        rung.everyone || !rung.topics.is_empty()
    }

    /// One more listener. It must be here before its first read, or an event in between would ring
    /// for nobody.
    pub fn enter(&self) {
        self.listeners.fetch_add(1, Ordering::SeqCst);
    }

    /// One less.
    pub fn leave(&self) {
        self.listeners.fetch_sub(1, Ordering::SeqCst);
    }
}
