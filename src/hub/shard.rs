//! The bells of one worker's subscribers.
//!
//! A publisher crosses to another thread once per worker and not once per subscriber: it notes the
//! topic and wakes the worker's one shard task, which wakes the subscribers on its own thread.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
};

use slab::Slab;
use tokio::sync::Notify;

use crate::{
    hub::{lock, read::Topics},
    message::Topic,
};

/// One worker's part of the hub.
#[derive(Debug, Default)]
pub struct Shard {
    rung: Mutex<Rung>,
    bell: Notify,
    waiting: Mutex<Waiting>,
    subscribers: AtomicUsize,
}

/// What was rung since the shard's task last looked: at most every topic once.
#[derive(Debug, Default)]
struct Rung {
    topics: HashSet<Topic>,
    everyone: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    /// A waker when its subscriber had nothing to read, until it is woken.
    slots: Slab<Option<Waker>>,
    by_topic: HashMap<Topic, HashSet<usize>>,
    all_topics: HashSet<usize>,
}

impl Shard {
    /// Wakes subscribers when their topics ring, for as long as it is polled.
    pub async fn run(self: Arc<Self>) {
        let mut wakers = Vec::new();
        loop {
            self.bell.notified().await;
            let rung = std::mem::take(&mut *lock(&self.rung));
            lock(&self.waiting).take_wakers(&rung, &mut wakers);
            // Woken outside of the lock: what a waker does is not ours to know.
            wakers.drain(..).for_each(Waker::wake);
        }
    }

    /// Tells the subscribers of a topic that it has something new.
    pub fn ring(&self, topic: &Topic) {
        if self.subscribers.load(Ordering::SeqCst) == 0 {
            return;
        }
        if lock(&self.rung).topics.insert(topic.clone()) {
            self.bell.notify_one();
        }
    }

    /// Tells every subscriber that the hub has changed.
    pub fn ring_everyone(&self) {
        lock(&self.rung).everyone = true;
        self.bell.notify_one();
    }

    /// A place for a subscriber. It must be entered before the subscriber's first read, or an event
    /// in between would ring no bell.
    pub fn enter(&self, topics: &Topics) -> usize {
        self.subscribers.fetch_add(1, Ordering::SeqCst);
        let mut waiting = lock(&self.waiting);
        let slot = waiting.slots.insert(None);
        if matches!(topics, Topics::All) {
            waiting.all_topics.insert(slot);
        }
        for name in topics.names() {
            waiting.by_topic.entry(name).or_default().insert(slot);
        }
        slot
    }

    /// Wakes the subscriber when something rings for it.
    pub fn wait(&self, slot: usize, waker: &Waker) {
        if let Some(place) = lock(&self.waiting).slots.get_mut(slot) {
            match place {
                Some(waiting) => waiting.clone_from(waker),
                None => *place = Some(waker.clone()),
            }
        }
    }

    /// Gives the place back.
    pub fn leave(&self, slot: usize, topics: &Topics) {
        let mut waiting = lock(&self.waiting);
        waiting.slots.try_remove(slot);
        waiting.all_topics.remove(&slot);
        for name in topics.names() {
            if let Some(slots) = waiting.by_topic.get_mut(&name) {
                slots.remove(&slot);
                if slots.is_empty() {
                    waiting.by_topic.remove(&name);
                }
            }
        }
        drop(waiting);
        self.subscribers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Waiting {
    fn take_wakers(&mut self, rung: &Rung, wakers: &mut Vec<Waker>) {
        if rung.everyone {
            wakers.extend(self.slots.iter_mut().filter_map(|(_, waker)| waker.take()));
            return;
        }
        let of_topics = rung.topics.iter().filter_map(|topic| self.by_topic.get(topic)).flatten();
        let of_all = self.all_topics.iter().filter(|_| !rung.topics.is_empty());
        for slot in of_topics.chain(of_all) {
            wakers.extend(self.slots.get_mut(*slot).and_then(Option::take));
        }
    }
}
