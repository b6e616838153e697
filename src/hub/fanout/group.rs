//! Groups: subscribers that follow the same topics, with the same filter, in the same format.

use std::{
    cell::{Cell, RefCell},
    fmt,
    ops::Range,
    rc::{Rc, Weak},
    task::Waker,
};

use slab::Slab;
use tokio::time::Instant;

use crate::model::{encode::Format, event_id::EventId, filter::Filter};
use crate::{
    hub::{
        fanout::{
            hidden::GroupFilter,
            shared_filter::{ANSWERS_MAX_BYTES, SharedFilter},
        },
        topic_set::TopicSet,
    },
    limits::budget::Claim,
};

/// Topics, filter and format that the subscribers of a group share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupKey {
    /// Topics that the subscribers follow.
    pub topics: TopicSet,
    /// Filter that selects the events that the subscribers receive. `None` selects all.
    pub filter: Option<Filter>,
    /// Format in which the subscribers receive events.
    pub format: Format,
}

/// Subscribers of the same topics, with the same filter, in the same format. They are notified
/// together, and those at the same cursor receive the same bytes.
pub struct Group {
    number: u64,
    key: GroupKey,
    filter: Option<Box<GroupFilter>>,
    slots: RefCell<Slab<Slot>>,
    /// Number of subscribers that wait.
    waiting: Cell<usize>,
    broadcast: RefCell<Option<Weak<dyn Broadcast>>>,
    /// Memory of the group, claimed from the budget of all groups.
    _claim: Claim,
}

/// Action of a waiting subscriber when its topics have new events, instead of waking its task.
/// Neither method may open or drop a subscriber.
pub trait Listener {
    /// Returns true if [`Listener::call`] can be called. The group checks many listeners before it
    /// calls any of them, so that the processor fetches the memory of all of them at once.
    fn is_ready(&self) -> bool;

    /// Handles the new events. Returns false if some work is left for the task, which is then
    /// woken.
    fn call(&self, now: Instant) -> bool;
}

/// Broadcast to the subscribers of a group at the same cursor, which do not wait themselves: one
/// read serves all of them, in one pass.
pub trait Broadcast {
    /// Writes new events to at most `most` members. Returns the number of members written to, or
    /// `None` when all members have received everything.
    fn write_pass(&self, most: usize) -> Option<usize>;
}

/// Slot of one subscriber. The waker is kept as long as the subscriber, since it hardly ever
/// changes.
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
            .field("key", &self.key)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

impl GroupKey {
    /// Returns the estimated memory of a group with this key, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let filter = self.filter.as_ref().map_or(0, |filter| filter.bytes() + ANSWERS_MAX_BYTES);
        self.topics.bytes() + filter
    }
}

impl Group {
    /// Creates a group without subscribers. `filter` is the filter of `key`, and `head` the newest
    /// id.
    pub(crate) fn new(
        number: u64,
        key: GroupKey,
        filter: Option<Rc<SharedFilter>>,
        claim: Claim,
        head: EventId,
    ) -> Self {
        Self {
            number,
            key,
            filter: filter.map(|filter| Box::new(GroupFilter::new(filter, head))),
            slots: RefCell::default(),
            waiting: Cell::default(),
            broadcast: RefCell::default(),
            _claim: claim,
        }
    }

    /// Returns the number of the group, which no other group of the worker ever has.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns the topics that the subscribers follow.
    pub fn topics(&self) -> &TopicSet {
        &self.key.topics
    }

    /// Returns the topics, the filter and the format that the subscribers share.
    pub fn key(&self) -> &GroupKey {
        &self.key
    }

    /// Returns the format of the subscribers.
    pub fn format(&self) -> Format {
        self.key.format
    }

    /// Returns the filter of the subscribers, and how far the group was checked.
    pub(crate) fn filter(&self) -> Option<&GroupFilter> {
        self.filter.as_deref()
    }

    /// Returns the number of subscribers.
    pub fn subscribers(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Sets the broadcast of the group. It is served before single subscribers.
    pub fn set_broadcast(&self, broadcast: Weak<dyn Broadcast>) {
        self.broadcast.replace(Some(broadcast));
    }

    pub(crate) fn broadcast(&self) -> Option<Rc<dyn Broadcast>> {
        self.broadcast.borrow().as_ref()?.upgrade()
    }

    pub(crate) fn add_slot(&self) -> usize {
        self.slots.borrow_mut().insert(Slot::default())
    }

    /// Removes a subscriber. Returns true if the group has no other one.
    pub(crate) fn remove_slot(&self, slot: usize) -> bool {
        self.stop_waiting(slot);
        let mut slots = self.slots.borrow_mut();
        slots.try_remove(slot);
        slots.is_empty()
    }

    /// Registers `waker`, which is woken when the group is notified.
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

    pub(crate) fn is_listening(&self, slot: usize) -> bool {
        let slots = self.slots.borrow();
        let listener = slots.get(slot).and_then(|slot| slot.listener.as_ref());
        listener.is_some_and(|listener| 0 < listener.strong_count())
    }

    pub(crate) fn listen(&self, slot: usize, listener: Weak<dyn Listener>) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(slot) {
            slot.listener = Some(listener);
        }
    }

    /// Returns an upper bound of the indexes of the slots with waiting subscribers, or 0 if no
    /// subscriber waits. It includes the slots of closed streams.
    pub(crate) fn slots_len(&self) -> usize {
        if self.waiting.get() == 0 { 0 } else { self.slots.borrow().capacity() }
    }

    /// Wakes or calls the waiting subscribers in `slots` and returns their number. `ready` is empty
    /// before and after the call: reusing it saves an allocation.
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
