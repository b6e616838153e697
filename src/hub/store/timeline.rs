//! Timeline: all events of all topics in their one order. Pure: no clock, no lock, no I/O.

use std::{collections::VecDeque, sync::Arc};

use crate::model::{event::Event, event_id::EventId};

/// Events of all topics in order. Readers of very many topics read it, so that an event costs them
/// one check instead of one for each topic. Its first event is the oldest of all topics.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    slots: VecDeque<Entry>,
    live: usize,
}

/// Entry of one event. The event is `None` after it has left its ring.
#[derive(Debug)]
struct Entry {
    id: EventId,
    channel: usize,
    event: Option<Arc<Event>>,
}

/// Number of empty entries that are not worth a compaction.
const EMPTY_SLACK: usize = 64;

impl Timeline {
    /// Adds an event that is newer than all others.
    pub(crate) fn push(&mut self, channel: usize, event: Arc<Event>) {
        self.slots.push_back(Entry { id: event.id, channel, event: Some(event) });
        self.live += 1;
    }

    /// Clears the entry of an event that left its ring.
    pub(crate) fn forget(&mut self, id: EventId) {
        // The event usually is the oldest of all, and a search would read memory that is not
        // cached.
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
        // Frees the memory of many small events that were removed.
        if self.slots.len() * 4 < self.slots.capacity() && EMPTY_SLACK * 4 < self.slots.capacity() {
            self.slots.shrink_to(self.slots.len() * 2);
        }
        // The removals that made the entries empty share the cost: there are never more empty
        // entries than live ones.
        if self.live * 2 + EMPTY_SLACK < self.slots.len() {
            self.slots.retain(|slot| slot.event.is_some());
        }
    }

    /// Returns the oldest event and the channel that holds it.
    pub(crate) fn oldest(&self) -> Option<(usize, &Arc<Event>)> {
        let slot = self.slots.front()?;
        Some((slot.channel, slot.event.as_ref()?))
    }

    /// Returns the entries after `cursor`, oldest first: id, channel, and the event if it is still
    /// held.
    pub(crate) fn after(
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

    /// Returns the number of events.
    pub(crate) fn len(&self) -> usize {
        self.live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps one event of a quiet topic while very many events of a busy one are stored and
    /// removed.
    #[test]
    fn removed_events_use_no_memory() {
        let event = |time_ms| {
            let id = EventId { time_ms, sequence: 0 };
            Event::for_tests(id, 0)
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
