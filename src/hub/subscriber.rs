//! One reader: a cursor. It owns no queue, so a slow one costs nobody anything.

use std::{
    marker::PhantomData,
    rc::Rc,
    sync::Arc,
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
    has_more: bool,
    /// Not `Send`: see [`Subscriber::poll_read`].
    _of_shards_thread: PhantomData<Rc<()>>,
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
        let cursor = Cursor { after, losses_seen: 0 };
        Self {
            hub,
            shard,
            slot,
            topics,
            cursor,
            untold,
            opened_at,
            has_more: false,
            _of_shards_thread: PhantomData,
        }
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

    /// Everything up to here was read, or is nothing that this reader follows. Before its gap was
    /// told, this is where it came from.
    pub fn cursor(&self) -> EventId {
        if self.untold.is_some() { self.opened_at } else { self.cursor.after }
    }

    /// Whether the last read found nothing only because it stopped short of the head.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Goes back to an event that was read, because what was read after it was not given out.
    pub fn rewind(&mut self, after: EventId) {
        self.cursor.after = after;
    }

    /// To be called on the thread that runs the shard. Reads the next events into `out`, and tells
    /// what is missing before them. Ready with neither is never returned; while there is nothing,
    /// the task is woken when its topics ring.
    pub fn poll_read(&mut self, cx: &Context<'_>, out: &mut Vec<Arc<Event>>) -> Poll<Option<Gap>> {
        if let Some(gap) = self.untold.take() {
            return Poll::Ready(Some(gap));
        }
        let found = self.hub.read(&self.topics, &mut self.cursor, out);
        if found.gap.is_some() || !out.is_empty() {
            return Poll::Ready(found.gap);
        }
        self.has_more = found.more;
        if found.more {
            // A long walk past other topics' events. The others on this thread come first.
            cx.waker().wake_by_ref();
        } else {
            // What was published since the read has rung already. The shard's task, which answers
            // the bell, is on this thread, so it comes after this and finds the waker.
            self.shard.wait(self.slot, cx.waker());
        }
        Poll::Pending
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.shard.leave(self.slot, &self.topics);
        self.hub.release();
    }
}
