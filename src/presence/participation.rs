//! Participation: the part of one stream in the topics that it names.

use std::{sync::Arc, task::Waker, time::Instant};

use futures_util::task::AtomicWaker;

use crate::{
    model::presence::{MemberName, Presence},
    presence::{reading::Reading, shared_room::SharedRoom},
};

/// Part of one stream in its topics. Dropping it ends the part.
#[derive(Debug)]
pub struct Participation {
    /// Name of the stream's reader. `None` if it is only counted.
    name: Option<MemberName>,
    seats: Vec<Seat>,
    waker: Arc<AtomicWaker>,
    has_entered: bool,
}

/// Place of a stream in one topic.
#[derive(Debug)]
struct Seat {
    room: Arc<SharedRoom>,
    /// Key of the stream's waker in the room.
    key: usize,
    reading: Reading,
}

impl Participation {
    /// Creates the part of a stream that is not open yet.
    pub(super) fn new(rooms: Vec<Arc<SharedRoom>>, name: Option<MemberName>) -> Self {
        let waker = Arc::<AtomicWaker>::default();
        let seats = rooms.into_iter().map(|room| {
            let key = room.add(&waker);
            Seat { room, key, reading: Reading::default() }
        });
        Self { name, seats: seats.collect(), waker, has_entered: false }
    }

    /// Counts the stream in its topics.
    pub fn enter(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.has_entered, true) {
            for seat in &self.seats {
                seat.room.change(|room| room.enter(self.name.as_ref(), now));
            }
        }
    }

    /// Returns the next message for the reader. `None` if it knows everything.
    pub fn next_message(&mut self) -> Option<Presence> {
        self.seats.iter_mut().find_map(|seat| seat.room.next(&mut seat.reading))
    }

    /// Registers `waker`, which is woken when there is a message.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
        // The members may have changed since the last look.
        if self.seats.iter().any(|seat| seat.room.has_next(&seat.reading)) {
            self.waker.wake();
        }
    }
}

impl Drop for Participation {
    fn drop(&mut self) {
        let now = Instant::now();
        for seat in &self.seats {
            seat.room.remove(seat.key);
            if self.has_entered {
                seat.room.change(|room| room.exit(self.name.as_ref(), now));
            }
        }
    }
}
