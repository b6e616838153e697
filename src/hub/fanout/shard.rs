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
            batch::{Events, Recent, Shared},
            group::Group,
            groups::Groups,
            notifier::{Bell, Rung},
        },
        store::read::{Cursor, Gap},
        topic_set::Topics,
    },
    limits::budget::Budget,
    model::event::{Event, EventId},
};

/// One worker's part of the hub.
#[derive(Debug)]
pub struct Shard {
    bell: Arc<Bell>,
    groups: RefCell<Groups>,
    recent: RefCell<Recent>,
    /// Those with more to read than was read for them at once.
    again: RefCell<Vec<Rc<Group>>>,
    /// What is read into. Empty between reads.
    events: RefCell<Vec<Arc<Event>>>,
}

/// What one read found.
#[derive(Debug)]
pub struct Read {
    /// To be told before any of the events.
    pub gap: Option<Gap>,
    pub events: Option<Events>,
    /// The hub's version up to which there is nothing more; none if there is more to read at once.
    pub complete_at: Option<u64>,
}

/// So many subscribers are rung for before the thread's other tasks, such as pushes, have a turn.
const TURN: usize = 64;
/// A round of writing to all who were woken that takes less than this is not worth a wait.
const JOIN_FROM: Duration = Duration::from_millis(1);

impl Shard {
    pub(crate) fn new(bell: Arc<Bell>) -> Rc<Self> {
        Rc::new(Self {
            bell,
            groups: RefCell::default(),
            recent: RefCell::default(),
            again: RefCell::default(),
            events: RefCell::default(),
        })
    }

    /// Wakes subscribers when their topics ring, for as long as it is polled.
    ///
    /// A worker that has more to write before it has written all is overloaded, and a write costs
    /// it by far more than the bytes in it. Then it waits for as long as its last round took, but
    /// at most `join_max`, so that more events share a write. One that keeps up never waits.
    pub async fn run(self: Rc<Self>, join_max: Duration) {
        let (mut rung, mut groups, mut ready) = (Rung::default(), Vec::new(), Vec::new());
        let mut was_behind = false;
        loop {
            self.bell.answer(&mut rung).await;
            let start = Instant::now();
            groups.append(&mut self.again.borrow_mut());
            if !groups.is_empty() {
                // A long walk past other topics' events is made in turns, like anything long.
                yield_now().await;
            }
            self.groups.borrow().find(&rung, &mut groups);
            groups.sort_unstable_by_key(|group| group.number());
            groups.dedup_by_key(|group| group.number());
            let (mut turns, mut in_turn) = (0, 0);
            for group in groups.drain(..) {
                // First those who stand where the others can join them.
                let cohort = group.cohort();
                while let Some(given) = cohort.as_ref().and_then(|all| all.give(TURN - in_turn)) {
                    in_turn += given;
                    if TURN <= in_turn {
                        yield_now().await;
                        (turns, in_turn) = (turns + 1, 0);
                    }
                }
                drop(cohort);
                for first in (0..group.places_max()).step_by(TURN) {
                    in_turn += group.ring(first..first + TURN, &mut ready);
                    if TURN <= in_turn {
                        yield_now().await;
                        (turns, in_turn) = (turns + 1, 0);
                    }
                }
            }
            if turns == 0 || join_max.is_zero() {
                was_behind = false;
                continue;
            }
            // All who were woken stand before this task in its thread's queue.
            yield_now().await;
            let took = start.elapsed();
            // Who has more to read than fits into a write has nothing to join.
            let has_more = !self.again.borrow().is_empty();
            let is_behind = JOIN_FROM <= took && self.bell.is_rung() && !has_more;
            // Once may be anything that kept the thread from running for a moment.
            if is_behind && was_behind {
                sleep(took.min(join_max)).await;
            }
            was_behind = is_behind;
        }
    }

    /// Rings for a group once more.
    pub(crate) fn ring_again(&self, group: &Rc<Group>) {
        self.again.borrow_mut().push(Rc::clone(group));
        self.bell.nudge();
    }

    /// Takes a subscriber into the group of its topics. None when that is a new one, and `budget`
    /// has not enough left for it.
    pub(crate) fn enter(&self, topics: Topics, budget: &Arc<Budget>) -> Option<(Rc<Group>, usize)> {
        let group = self.groups.borrow_mut().of(topics, budget)?;
        self.bell.enter();
        let place = group.enter();
        Some((group, place))
    }

    /// Gives its place back.
    pub(crate) fn leave(&self, group: &Rc<Group>, place: usize) {
        if group.leave(place) {
            self.groups.borrow_mut().remove(group);
        }
        self.bell.leave();
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
        if let Some(read) = found.filter(|read| read.block.newest <= upto) {
            *cursor = read.to;
            let events = Some(Events::Block(read.block.clone()));
            return Read { gap: None, events, complete_at: read.complete_at };
        }
        drop(recent);
        let mut out = self.events.borrow_mut();
        let from = *cursor;
        let (found, version) = hub.read(group.topics(), cursor, upto, &mut out);
        let complete_at = (!found.more).then_some(version);
        let events = Events::of(&out);
        out.clear();
        if let (None, Some(Events::Block(block))) = (&found.gap, &events)
            && 1 < group.subscribers()
        {
            let (group, to, block) = (group.number(), *cursor, block.clone());
            self.recent.borrow_mut().remember(Shared { group, from, to, block, complete_at });
        }
        Read { gap: found.gap, events, complete_at }
    }
}
