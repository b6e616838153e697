//! Ring: the bounded memory of one topic. Pure: no clock, no lock, no I/O.

use std::{collections::VecDeque, sync::Arc};

use crate::model::{event::Event, event_id::EventId};

/// Newest events of one topic, oldest first, and the newest id that the ring no longer holds.
///
/// The ring is the queue of all its readers: a reader has no queue, only a cursor into the ring.
#[derive(Debug)]
pub(crate) struct Ring {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    floor: EventId,
}

/// Limits of one ring.
#[derive(Debug, Clone, Copy)]
pub struct RingLimits {
    /// Largest number of events.
    pub events: usize,
    /// Largest number of bytes, as [`Event::size`] counts them. A ring keeps its newest event even
    /// if that alone is larger: an event that was acked and cannot be read would be lost.
    pub bytes: usize,
}

impl Ring {
    /// Creates an empty ring that holds no event up to and including `floor`.
    pub(crate) fn new(floor: EventId) -> Self {
        Self { events: VecDeque::new(), bytes: 0, floor }
    }

    /// Adds an event that is newer than all others. [`Ring::evict_over`] restores the limits.
    pub(crate) fn push(&mut self, event: Arc<Event>) {
        debug_assert!(self.newest() < event.id, "ring order is id order");
        self.bytes += event.size();
        self.events.push_back(event);
    }

    /// Removes the oldest event if the ring is over its limits.
    pub(crate) fn evict_over(&mut self, limits: &RingLimits) -> Option<Arc<Event>> {
        let over = limits.events < self.events.len() || limits.bytes < self.bytes;
        if over && 1 < self.events.len() { self.evict() } else { None }
    }

    /// Removes the oldest event and raises the floor to it.
    pub(crate) fn evict(&mut self) -> Option<Arc<Event>> {
        let oldest = self.events.pop_front()?;
        self.bytes -= oldest.size();
        self.floor = oldest.id;
        // A topic that was busy in the past must not keep a large empty buffer.
        if self.events.len() * 4 < self.events.capacity() && 64 < self.events.capacity() {
            self.events.shrink_to(self.events.len() * 2);
        }
        Some(oldest)
    }

    /// Returns the newest id that the ring no longer holds. A reader whose cursor is below it has
    /// missed events.
    pub(crate) fn floor(&self) -> EventId {
        self.floor
    }

    /// Returns the newest id that the ring holds, or its floor.
    pub(crate) fn newest(&self) -> EventId {
        self.events.back().map_or(self.floor, |event| event.id)
    }

    /// Returns the events after `cursor`, oldest first.
    pub(crate) fn after(&self, cursor: EventId) -> impl Iterator<Item = &Arc<Event>> {
        // Most readers lack only the newest event, and need no search.
        let all_but_last = self.events.len().saturating_sub(1);
        let near_end = match self.events.get(all_but_last.saturating_sub(1)) {
            Some(last_but_one) => last_but_one.id <= cursor && 1 < self.events.len(),
            None => false,
        };
        let start = if near_end {
            all_but_last + usize::from(self.newest() <= cursor)
        } else {
            self.events.partition_point(|event| event.id <= cursor)
        };
        self.events.range(start..)
    }

    /// Returns true if the ring is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(time_ms: u64, len: usize) -> Arc<Event> {
        Event::for_tests(EventId { time_ms, sequence: 0 }, len)
    }

    proptest! {
        /// Compares the ring with a plain list of all pushed events.
        #[test]
        fn ring_holds_the_newest_pushed_events(
            sizes in prop::collection::vec(0_usize..3_000, 1..200),
            max_events in 1_usize..40,
            max_bytes in 1_usize..20_000,
            cursors in prop::collection::vec(0_u64..220, 1..20),
        ) {
            let limits = RingLimits { events: max_events, bytes: max_bytes };
            let mut ring = Ring::new(EventId::ZERO);
            let mut model: Vec<Arc<Event>> = Vec::new();
            for (at, size) in (1_u64..).zip(&sizes) {
                ring.push(event(at, *size));
                model.push(event(at, *size));
                while ring.evict_over(&limits).is_some() {}

                let mut kept = model.len();
                let mut bytes = 0;
                let mut events = 0;
                while 0 < kept {
                    bytes += model[kept - 1].size();
                    events += 1;
                    let fits = events <= max_events && bytes <= max_bytes;
                    if !fits && 1 < events { break; }
                    kept -= 1;
                    if !fits { break; }
                }
                let floor = if kept == 0 { EventId::ZERO } else { model[kept - 1].id };
                prop_assert_eq!(ring.floor(), floor);
                for cursor in &cursors {
                    let cursor = EventId { time_ms: *cursor, sequence: 0 };
                    let got: Vec<_> = ring.after(cursor).map(|event| event.id).collect();
                    let want: Vec<_> = model[kept..]
                        .iter().map(|event| event.id).filter(|id| cursor < *id).collect();
                    prop_assert_eq!(got, want);
                }
            }
        }
    }
}
