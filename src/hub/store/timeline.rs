//! All events of all topics in their one order. Pure: no clock, no lock, no I/O.

use std::{collections::VecDeque, sync::Arc};

use crate::model::event::{Event, EventId};

/// What readers of very many topics follow, so that an event costs them one look and not one per
/// topic, and what tells which event is the oldest of all.
#[derive(Debug, Default)]
pub struct Timeline {
    slots: VecDeque<Entry>,
    live: usize,
}

/// A place in the timeline. Its event is gone when its ring has let go of it.
#[derive(Debug)]
struct Entry {
    id: EventId,
    channel: usize,
    event: Option<Arc<Event>>,
}

/// So many empty slots are not worth a compaction.
const EMPTY_SLACK: usize = 64;

impl Timeline {
    /// Adds an event that is newer than all before it.
    pub fn push(&mut self, channel: usize, event: Arc<Event>) {
        self.slots.push_back(Entry { id: event.id, channel, event: Some(event) });
        self.live += 1;
    }

    /// Lets go of an event that left its ring.
    pub fn forget(&mut self, id: EventId) {
        // Most often it is the oldest of all, and the search would look at cold memory.
        let is_oldest = self.slots.front().is_some_and(|slot| slot.id == id);
        let at = if is_oldest { 0 } else { self.slots.partition_point(|slot| slot.id < id) };
        if let Some(slot) = self.slots.get_mut(at)
            && slot.id == id
            && slot.event.take().is_some()
        {
            self.live -= 1;
        }
        while self.slots.front().is_some_and(|slot| slot.event.is_none()) {
            self.slots.pop_front();
        }
        // After a burst of small events the room for them is given back.
        if self.slots.len() * 4 < self.slots.capacity() && EMPTY_SLACK * 4 < self.slots.capacity() {
            self.slots.shrink_to(self.slots.len() * 2);
        }
        // Amortised over the forgetting that made them: never more empty slots than live ones.
        if self.live * 2 + EMPTY_SLACK < self.slots.len() {
            self.slots.retain(|slot| slot.event.is_some());
        }
    }

    /// The oldest event and the channel that holds it.
    pub fn oldest(&self) -> Option<(usize, &Arc<Event>)> {
        let slot = self.slots.front()?;
        Some((slot.channel, slot.event.as_ref()?))
    }

    /// The slots after `cursor`, oldest first: id, channel, and the event if it is still held.
    pub fn after(
        &self,
        cursor: EventId,
    ) -> impl Iterator<Item = (EventId, usize, Option<&Arc<Event>>)> {
        let start = if self.slots.back().is_none_or(|newest| newest.id <= cursor) {
            self.slots.len()
        } else {
            self.slots.partition_point(|slot| slot.id <= cursor)
        };
        self.slots.range(start..).map(|slot| (slot.id, slot.channel, slot.event.as_ref()))
    }

    /// How many events it holds.
    pub fn len(&self) -> usize {
        self.live
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// One event of a quiet topic is held before very many of a busy one that come and go.
    #[test]
    fn what_was_forgotten_takes_no_room() {
        let event = |time_ms| {
            let id = EventId { time_ms, sequence: 0 };
            Arc::new(Event { id, frame: Bytes::new(), publish_time_ms: None })
        };
        let mut timeline = Timeline::default();
        timeline.push(0, event(0));
        for at in 1..10_000 {
            timeline.push(1, event(at));
            if 10 < at {
                timeline.forget(event(at - 10).id);
            }
            assert!(timeline.slots.len() <= timeline.live * 2 + EMPTY_SLACK);
        }
        assert_eq!(timeline.len(), 11);
        assert_eq!(
            timeline.oldest().map(|(channel, event)| (channel, event.id.time_ms)),
            Some((0, 0))
        );
        let held = timeline.after(EventId::ZERO).filter(|(_, _, event)| event.is_some()).count();
        assert_eq!(held, 10);
    }
}
