//! Subscribers of the same topics.

use std::{
    cell::{Cell, RefCell},
    fmt,
    ops::Range,
    rc::{Rc, Weak},
    task::Waker,
};

use slab::Slab;
use tokio::time::Instant;

use crate::{hub::topic_set::TopicSet, limits::budget::Claim};

/// Subscribers of the same topics. They are woken together, and those of them that are at the same
/// place are given the same bytes.
pub struct Group {
    number: u64,
    topics: TopicSet,
    slots: RefCell<Slab<Slot>>,
    /// How many of them wait.
    waiting: Cell<usize>,
    broadcast: RefCell<Option<Weak<dyn Broadcast>>>,
    /// Pays for what it takes.
    _claim: Claim,
}

/// What a waiting subscriber would have done when its topics ring, instead of its task being woken.
/// Neither may open or drop a subscriber.
pub trait Listener {
    /// Whether it can be called at all. Asked of many before any of them is called, so that the
    /// processor fetches what they are about at once and not one after the other.
    fn is_ready(&self) -> bool;

    /// Whether nothing is left to do. If not, the task is woken.
    fn call(&self, now: Instant) -> bool;
}

/// Those of a group that have all been given the same and do not wait themselves: somebody reads
/// for all of them.
pub trait Broadcast {
    /// Gives what was published to at most so many of them. Returns to how many, and none when all
    /// of them were given all there was.
    fn write_pass(&self, most: usize) -> Option<usize>;
}

/// A subscriber's waker stays for as long as the subscriber, since it hardly ever changes.
#[derive(Default)]
struct Slot {
    waker: Option<Waker>,
    waits: Cell<bool>,
    listener: Option<Weak<dyn Listener>>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("number", &self.number)
            .field("topics", &self.topics)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

impl Group {
    pub(crate) fn new(number: u64, topics: TopicSet, claim: Claim) -> Self {
        Self {
            number,
            topics,
            slots: RefCell::default(),
            waiting: Cell::default(),
            broadcast: RefCell::default(),
            _claim: claim,
        }
    }

    /// Given to no other group.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Which topics its subscribers follow.
    pub fn topics(&self) -> &TopicSet {
        &self.topics
    }

    /// How many there are.
    pub fn subscribers(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Has it called before anyone is rung for.
    pub fn set_broadcast(&self, broadcast: Weak<dyn Broadcast>) {
        self.broadcast.replace(Some(broadcast));
    }

    pub(crate) fn broadcast(&self) -> Option<Rc<dyn Broadcast>> {
        self.broadcast.borrow().as_ref()?.upgrade()
    }

    pub(crate) fn add_slot(&self) -> usize {
        self.slots.borrow_mut().insert(Slot::default())
    }

    /// Returns whether nobody is left.
    pub(crate) fn remove_slot(&self, slot: usize) -> bool {
        self.stop_waiting(slot);
        let mut slots = self.slots.borrow_mut();
        slots.try_remove(slot);
        slots.is_empty()
    }

    /// Wakes a subscriber when something rings for it.
    pub fn wait(&self, slot: usize, waker: &Waker) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(slot) {
            self.set_waits(slot, true);
            match &mut slot.waker {
                Some(known) => known.clone_from(waker),
                None => slot.waker = Some(waker.clone()),
            }
        }
    }

    pub(crate) fn stop_waiting(&self, slot: usize) {
        self.slots.borrow().get(slot).inspect(|slot| self.set_waits(slot, false));
    }

    fn set_waits(&self, slot: &Slot, waits: bool) {
        let waited = slot.waits.replace(waits);
        self.waiting.set(self.waiting.get() + usize::from(waits) - usize::from(waited));
    }

    pub(crate) fn listen(&self, slot: usize, listener: Weak<dyn Listener>) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(slot) {
            slot.listener = Some(listener);
        }
    }

    /// Above the places of all who wait; what closed streams have left counts too.
    pub(crate) fn slots_len(&self) -> usize {
        if self.waiting.get() == 0 { 0 } else { self.slots.borrow().capacity() }
    }

    /// Rings for those who wait at some places. Returns for how many. `ready` is empty before and
    /// after.
    pub(crate) fn notify_waiting(
        &self,
        slots: Range<usize>,
        ready: &mut Vec<(usize, Rc<dyn Listener>)>,
    ) -> usize {
        let all = self.slots.borrow();
        let mut notified = 0;
        for (at, slot) in slots.filter_map(|at| Some((at, all.get(at)?))) {
            if !slot.waits.get() {
                continue;
            }
            notified += 1;
            match slot.listener.as_ref().and_then(Weak::upgrade) {
                Some(listener) if listener.is_ready() => ready.push((at, listener)),
                _ => self.wake(slot),
            }
        }
        if ready.is_empty() {
            return notified;
        }
        let now = Instant::now();
        for (at, listener) in ready.drain(..) {
            if !listener.call(now) {
                all.get(at).inspect(|slot| self.wake(slot));
            }
        }
        notified
    }

    fn wake(&self, slot: &Slot) {
        self.set_waits(slot, false);
        if let Some(waker) = &slot.waker {
            waker.wake_by_ref();
        }
    }
}
