//! Room that the streams of all workers share, and that wakes them when its members change.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use futures_util::task::AtomicWaker;
use slab::Slab;

use crate::{
    model::{
        presence::{Presence, Roster},
        topic::Topic,
    },
    presence::{reading::Reading, room::Room},
};

/// Room of one topic.
#[derive(Debug)]
pub(super) struct SharedRoom {
    pub(super) topic: Topic,
    state: Mutex<State>,
    /// [`Room::changed`], to be read without the lock.
    changed: AtomicU64,
}

#[derive(Debug)]
struct State {
    room: Room,
    /// Wakers of the streams that take part.
    wakers: Slab<Arc<AtomicWaker>>,
    /// True once the other replicas were asked, or could not be asked.
    is_complete: bool,
    /// Number of the pass of the exchange that last had this room.
    pass: u64,
}

/// Place of a room in the order in which the exchange has the rooms. The most urgent room is the
/// least value, by the fields in their order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Urgency {
    /// False if readers wait for the members.
    pub(super) is_complete: bool,
    /// False if the report of this replica is to be written.
    is_stored: bool,
    /// Number of the pass that last had the room.
    pass: u64,
}

impl SharedRoom {
    /// Creates a room without members. Readers get no list until it is complete.
    pub(super) fn new(topic: Topic, is_complete: bool) -> Self {
        let (room, wakers) = (Room::default(), Slab::new());
        let state = Mutex::new(State { room, wakers, is_complete, pass: 0 });
        Self { topic, state, changed: AtomicU64::new(0) }
    }

    /// Adds a stream, whose waker is woken when the members change. Returns its key.
    pub(super) fn add(&self, waker: &Arc<AtomicWaker>) -> usize {
        self.lock().wakers.insert(Arc::clone(waker))
    }

    /// Removes a stream.
    pub(super) fn remove(&self, key: usize) {
        let mut state = self.lock();
        state.wakers.try_remove(key);
        if state.wakers.is_empty() {
            state.wakers = Slab::new();
        }
    }

    /// Changes the members, and wakes the streams if readers are to be notified.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Room) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state.room);
        let changed = state.room.changed();
        if self.changed.swap(changed, Ordering::SeqCst) != changed {
            state.wake();
        }
        result
    }

    /// Lets readers have the list.
    pub(super) fn complete(&self) {
        let mut state = self.lock();
        if !state.is_complete {
            state.is_complete = true;
            state.wake();
        }
    }

    /// Returns the next message for a reader.
    pub(super) fn next(&self, reading: &mut Reading) -> Option<Presence> {
        if reading.is_current(self.changed.load(Ordering::SeqCst)) {
            return None;
        }
        let state = self.lock();
        let update = if state.is_complete { reading.next(&state.room)? } else { return None };
        Some(Presence { topic: self.topic.clone(), update })
    }

    /// Returns true if there is a message for a reader.
    pub(super) fn has_next(&self, reading: &Reading) -> bool {
        !reading.is_current(self.changed.load(Ordering::SeqCst)) && self.lock().is_complete
    }

    /// Returns the members that have a stream, if the room is complete.
    pub(super) fn roster(&self) -> Option<Roster> {
        let state = self.lock();
        state.is_complete.then(|| state.room.roster())
    }

    /// Returns the number of members.
    pub(super) fn member_count(&self) -> usize {
        self.lock().room.member_count()
    }

    /// Returns true if no stream and no other replica needs the room.
    pub(super) fn is_unused(&self, is_shared: bool) -> bool {
        let state = self.lock();
        let is_stored = !is_shared || !state.room.is_unstored();
        state.wakers.is_empty() && !state.room.has_absent() && is_stored
    }

    /// Returns the place of the room in the order in which the exchange has the rooms.
    pub(super) fn urgency(&self) -> Urgency {
        let state = self.lock();
        let (is_complete, is_stored) = (state.is_complete, !state.room.is_unstored());
        Urgency { is_complete, is_stored, pass: state.pass }
    }

    /// Records that the pass `pass` of the exchange has this room.
    pub(super) fn set_pass(&self, pass: u64) {
        self.lock().pass = pass;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake(&self) {
        for (_, waker) in &self.wakers {
            waker.wake();
        }
    }
}
