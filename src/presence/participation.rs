//! Participation of one stream in the topics that it names.

use std::{sync::Arc, task::Waker, time::Instant};

use futures_util::task::AtomicWaker;

use crate::{
    model::presence::{MemberName, Presence},
    presence::{reading::Reading, shared_room::SharedRoom},
};

/// Participation of one stream in its topics. Dropping it ends the participation.
#[derive(Debug)]
pub struct Participation {
    /// Name of the stream's reader. `None` if it is only counted.
    name: Option<MemberName>,
    parts: Vec<TopicPart>,
    waker: Arc<AtomicWaker>,
    has_entered: bool,
}

/// Participation of a stream in one topic.
#[derive(Debug)]
struct TopicPart {
    room: Arc<SharedRoom>,
    /// Key of the stream's waker in the room.
    key: usize,
    reading: Reading,
}

impl Participation {
    /// Creates the participation of a stream that is not open yet.
    pub(super) fn new(rooms: Vec<Arc<SharedRoom>>, name: Option<MemberName>) -> Self {
        let waker = Arc::<AtomicWaker>::default();
        let parts = rooms.into_iter().map(|room| {
            let key = room.add(&waker);
            TopicPart { room, key, reading: Reading::default() }
        });
        Self { name, parts: parts.collect(), waker, has_entered: false }
    }

    /// Counts the stream in its topics.
    pub fn enter(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.has_entered, true) {
            for part in &self.parts {
                part.room.change(|room| room.enter(self.name.as_ref(), now));
            }
        }
    }

    /// Returns the next message for the reader. `None` if it knows everything.
    pub fn next_message(&mut self) -> Option<Presence> {
        self.parts.iter_mut().find_map(|part| part.room.next(&mut part.reading))
    }

    /// Registers `waker`, which is woken when there is a message.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
        // The members may have changed since the last look.
        if self.parts.iter().any(|part| part.room.has_next(&part.reading)) {
            self.waker.wake();
        }
    }
}

impl Drop for Participation {
    fn drop(&mut self) {
        let now = Instant::now();
        for part in &self.parts {
            part.room.remove(part.key);
            if self.has_entered {
                part.room.change(|room| room.exit(self.name.as_ref(), now));
            }
        }
    }
}
