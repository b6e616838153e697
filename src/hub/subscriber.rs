//! One reader: a cursor. It owns no queue, so a slow one costs nobody anything.

use std::{
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use crate::{
    event::{Event, EventId},
    hub::{
        Hub,
        read::{Cursor, Gap, GapReason, Topics},
        shard::Shard,
    },
};

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    Live,
    /// After the last event that the reader has.
    After(EventId),
    /// With what arrived at this time or later, Unix milliseconds.
    Since(u64),
    /// The reader brought something that is no event id. It goes on at the head, and is told.
    Unknown,
}

/// A place in the order over all topics, and the bell that rings when there is more.
#[derive(Debug)]
pub struct Subscriber {
    hub: Hub,
    shard: Arc<Shard>,
    slot: usize,
    topics: Topics,
    cursor: Cursor,
    /// What was wrong with the cursor that the reader brought.
    untold: Option<Gap>,
    opened_at: EventId,
}

impl Subscriber {
    pub(super) fn new(hub: Hub, shard: Arc<Shard>, topics: Topics, start: Start) -> Self {
        let slot = shard.enter(&topics);
        let (origin, head) = hub.origin_and_head();
        let gap = |reason, after, upto| Gap { reason, topics: topics.names(), after, upto };
        let (opened_at, after, untold) = match start {
            Start::Live => (head, head, None),
            Start::Unknown => (head, head, Some(gap(GapReason::UnknownId, None, head))),
            Start::After(id) if id.history() != origin.history() => {
                (id, origin, Some(gap(GapReason::Restart, Some(id), origin)))
            }
            Start::After(id) if head < id => {
                (id, head, Some(gap(GapReason::UnknownId, Some(id), head)))
            }
            Start::After(id) => (id, id, None),
            Start::Since(time_ms) => {
                let after = EventId::before(time_ms, origin.history()).min(head);
                (after, after, None)
            }
        };
        let cursor = Cursor { after, evictions_seen: 0 };
        Self { hub, shard, slot, topics, cursor, untold, opened_at }
    }

    /// The id with which the reader is sent off: if it is cut before it was given anything else, it
    /// comes back with this one and has missed nothing. It is the id that it brought, if that is
    /// one.
    pub fn opened_at(&self) -> EventId {
        self.opened_at
    }

    /// Whether the id that the reader brought says nothing about where it was.
    pub fn is_unknown(&self) -> bool {
        self.untold.as_ref().is_some_and(|gap| gap.reason == GapReason::UnknownId)
    }

    /// Everything up to here was read, or is nothing that this reader follows.
    pub fn cursor(&self) -> EventId {
        self.cursor.after
    }

    /// The topics it follows.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Reads the next events into `out`, and tells what is missing before them. Ready with neither
    /// is never returned; while there is nothing, the task is woken when its topics ring.
    pub fn poll_read(&mut self, cx: &Context<'_>, out: &mut Vec<Arc<Event>>) -> Poll<Option<Gap>> {
        if let Some(gap) = self.untold.take() {
            return Poll::Ready(Some(gap));
        }
        let mut waits = false;
        loop {
            // Taken before the read: whatever comes after it changes the count.
            let changes = self.hub.changes().load(Ordering::SeqCst);
            let found = self.hub.read(&self.topics, &mut self.cursor, out);
            if found.gap.is_some() || !out.is_empty() {
                return Poll::Ready(found.gap);
            }
            if found.more {
                // A long walk past other topics' events. The others on this thread come first.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if waits {
                return Poll::Pending;
            }
            self.shard.wait(self.slot, cx.waker());
            // An event between the read and the wait rang for nobody: look again if there was one.
            if self.hub.changes().load(Ordering::SeqCst) == changes {
                return Poll::Pending;
            }
            waits = true;
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.shard.leave(self.slot, &self.topics);
        self.hub.release();
    }
}
