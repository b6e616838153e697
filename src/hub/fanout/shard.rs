//! One worker's subscribers, and what they share. Lives on that worker's thread.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use crate::{
    hub::{
        Hub,
        fanout::{
            batch::{ReadEvents, RecentReads, SharedRead},
            group::Group,
            groups::Groups,
            notifier::{Notifier, PendingTopics},
        },
        store::read::{Cursor, Gap},
        topic_set::TopicSet,
    },
    limits::budget::Budget,
    model::event::{Event, EventId},
};

/// One worker's part of the hub.
#[derive(Debug)]
pub struct Shard {
    notifier: Arc<Notifier>,
    groups: RefCell<Groups>,
    recent: RefCell<RecentReads>,
    /// Those with more to read than was read for them at once.
    rescheduled: RefCell<Vec<Rc<Group>>>,
    /// What is read into. Empty between reads.
    events: RefCell<Vec<Arc<Event>>>,
}

/// What one read found.
#[derive(Debug)]
pub struct Read {
    /// To be told before any of the events.
    pub gap: Option<Gap>,
    pub events: Option<ReadEvents>,
    /// The hub's version up to which there is nothing more; none if there is more to read at once.
    pub complete_at: Option<u64>,
}

/// So many subscribers are rung for before the thread's other tasks, such as pushes, have a turn.
const YIELD_EVERY: usize = 64;
/// A round of writing to all who were woken that takes less than this is not worth a wait.
const JOIN_FROM: Duration = Duration::from_millis(1);

impl Shard {
    pub(crate) fn new(notifier: Arc<Notifier>) -> Rc<Self> {
        Rc::new(Self {
            notifier,
            groups: RefCell::default(),
            recent: RefCell::default(),
            rescheduled: RefCell::default(),
            events: RefCell::default(),
        })
    }

    /// Wakes subscribers when their topics ring, for as long as it is polled.
    ///
    /// A worker that has more to write before it has written all is overloaded, and a write costs
    /// it by far more than the bytes in it. Then it waits for as long as its last round took, but
    /// at most `coalesce_max`, so that more events share a write. One that keeps up never waits.
    pub async fn run(self: Rc<Self>, coalesce_max: Duration) {
        let (mut pending, mut groups, mut ready) =
            (PendingTopics::default(), Vec::new(), Vec::new());
        let mut was_behind = false;
        loop {
            self.notifier.notified(&mut pending).await;
            let start = Instant::now();
            groups.append(&mut self.rescheduled.borrow_mut());
            if !groups.is_empty() {
                // A long walk past other topics' events is made in yields, like anything long.
                yield_now().await;
            }
            self.groups.borrow().find(&pending, &mut groups);
            groups.sort_unstable_by_key(|group| group.number());
            groups.dedup_by_key(|group| group.number());
            let (mut yields, mut since_yield) = (0, 0);
            for group in groups.drain(..) {
                // First those who stand where the others can join them.
                let broadcast = group.broadcast();
                while let Some(given) =
                    broadcast.as_ref().and_then(|all| all.write_pass(YIELD_EVERY - since_yield))
                {
                    since_yield += given;
                    if YIELD_EVERY <= since_yield {
                        yield_now().await;
                        (yields, since_yield) = (yields + 1, 0);
                    }
                }
                drop(broadcast);
                for first in (0..group.slots_len()).step_by(YIELD_EVERY) {
                    since_yield += group.notify_waiting(first..first + YIELD_EVERY, &mut ready);
                    if YIELD_EVERY <= since_yield {
                        yield_now().await;
                        (yields, since_yield) = (yields + 1, 0);
                    }
                }
            }
            if yields == 0 || coalesce_max.is_zero() {
                was_behind = false;
                continue;
            }
            // All who were woken stand before this task in its thread's queue.
            yield_now().await;
            let took = start.elapsed();
            // Who has more to read than fits into a write has nothing to join.
            let has_more = !self.rescheduled.borrow().is_empty();
            let is_behind = JOIN_FROM <= took && self.notifier.has_pending() && !has_more;
            // Once may be anything that kept the thread from running for a moment.
            if is_behind && was_behind {
                sleep(took.min(coalesce_max)).await;
            }
            was_behind = is_behind;
        }
    }

    /// Rings for a group once more.
    pub(crate) fn reschedule(&self, group: &Rc<Group>) {
        self.rescheduled.borrow_mut().push(Rc::clone(group));
        self.notifier.wake();
    }

    /// Takes a subscriber into the group of its topics. None when that is a new one, and `budget`
    /// has not enough left for it.
    pub(crate) fn enter(
        &self,
        topics: TopicSet,
        budget: &Arc<Budget>,
    ) -> Option<(Rc<Group>, usize)> {
        let group = self.groups.borrow_mut().of(topics, budget)?;
        self.notifier.add_listener();
        let slot = group.add_slot();
        Some((group, slot))
    }

    /// Gives its place back.
    pub(crate) fn leave(&self, group: &Rc<Group>, slot: usize) {
        if group.remove_slot(slot) {
            self.groups.borrow_mut().remove(group);
        }
        self.notifier.remove_listener();
    }

    /// Reads what comes after a cursor, but not beyond `upto`, for one of a group's subscribers.
    /// Moves the cursor.
    pub(crate) fn read(
        &self,
        hub: &Hub,
        group: &Group,
        cursor: &mut Cursor,
        upto: EventId,
    ) -> Read {
        let recent = self.recent.borrow();
        let found = recent.find(group.number(), cursor);
        if let Some(read) = found.filter(|read| read.batch.newest <= upto) {
            *cursor = read.to;
            let events = Some(ReadEvents::Batch(read.batch.clone()));
            return Read { gap: None, events, complete_at: read.complete_at };
        }
        drop(recent);
        let mut out = self.events.borrow_mut();
        let from = *cursor;
        let (found, version) = hub.read(group.topics(), cursor, upto, &mut out);
        let complete_at = (!found.more).then_some(version);
        let events = ReadEvents::of(&out);
        out.clear();
        if let (None, Some(ReadEvents::Batch(batch))) = (&found.gap, &events)
            && 1 < group.subscribers()
        {
            let (group, to, batch) = (group.number(), *cursor, batch.clone());
            self.recent.borrow_mut().remember(SharedRead { group, from, to, batch, complete_at });
        }
        Read { gap: found.gap, events, complete_at }
    }
}
