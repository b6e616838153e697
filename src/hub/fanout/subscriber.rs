//! One reader: a cursor. It owns no queue, so a slow one costs nobody anything.

use std::{
    rc::{Rc, Weak},
    task::{Context, Poll},
};

use crate::{
    hub::{
        Hub,
        fanout::{
            group::{Group, Listener},
            shard::{Read, Shard},
        },
        store::read::{Cursor, Gap, GapReason, Position},
    },
    model::event::EventId,
};

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    Live,
    /// After the last event that the reader has.
    After(EventId),
    /// After an event that the log has, and this copy of it perhaps not yet. Nothing is read until
    /// it has.
    Ahead(EventId),
    /// With what arrived at this time or later, Unix milliseconds.
    Since(u64),
    /// The reader brought something that is no event id. It goes on at the head, and is told.
    Unknown,
}

/// A place in the order over all topics, and in the group that is woken when there is more. It
/// cannot leave its shard's thread.
#[derive(Debug)]
pub struct Subscriber {
    reader: Reader,
    slot: usize,
    at: Position,
    /// What was wrong with the cursor that the reader brought.
    pending_gap: Option<Box<Gap>>,
    opened_at: EventId,
}

/// Reads what a group follows.
#[derive(Debug, Clone)]
pub struct Reader {
    hub: Hub,
    shard: Rc<Shard>,
    group: Rc<Group>,
}

impl Reader {
    /// The hub that it reads from.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// For whom it reads.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Has the group rung for once more, since not all there was has been read.
    pub fn reschedule(&self) {
        self.shard.reschedule(&self.group);
    }

    /// Grows with all that is stored. What has rung for the group is as of this, or older.
    pub fn version(&self) -> u64 {
        self.hub.version()
    }

    /// Reads what comes next, and tells what is missing before it. None for neither.
    pub fn read(&self, at: &mut Position) -> Option<Read> {
        self.read_upto(EventId::MAX, at)
    }

    fn read_upto(&self, upto: EventId, at: &mut Position) -> Option<Read> {
        if at.complete_at == Some(self.hub.version()) {
            return None;
        }
        let read = self.shard.read(&self.hub, &self.group, &mut at.cursor, upto);
        at.complete_at = read.complete_at;
        (read.gap.is_some() || read.events.is_some()).then_some(read)
    }
}

impl Subscriber {
    /// For a place in a group of the shard, which it gives back.
    pub(crate) fn new(
        hub: Hub,
        shard: Rc<Shard>,
        (group, slot): (Rc<Group>, usize),
        start: Start,
    ) -> Self {
        let (origin, head) = hub.origin_and_head();
        let gap = |reason, after, upto| {
            let topics = group.topics().names().to_vec();
            Some(Box::new(Gap { reason, topics, after, upto }))
        };
        let (opened_at, after, pending_gap) = match start {
            Start::Live => (head, head, None),
            Start::Unknown => (head, head, gap(GapReason::UnknownId, None, head)),
            Start::After(id) if id.history() != origin.history() => {
                (id, origin, gap(GapReason::Restart, Some(id), origin))
            }
            Start::After(id) if head < id => (id, head, gap(GapReason::UnknownId, Some(id), head)),
            Start::After(id) | Start::Ahead(id) => (id, id, None),
            Start::Since(time_ms) => {
                let after = EventId::before(time_ms, origin.history()).min(head);
                (after, after, None)
            }
        };
        let at = Position { cursor: Cursor { after, losses_seen: 0 }, complete_at: None };
        Self { reader: Reader { hub, shard, group }, slot, at, pending_gap, opened_at }
    }

    /// The hub that it reads from.
    pub fn hub(&self) -> &Hub {
        &self.reader.hub
    }

    /// The id with which the reader is sent off: if it is cut before it was given anything else, it
    /// comes back with this one and has missed nothing. It is the id that it brought, if that is
    /// one.
    pub fn opened_at(&self) -> EventId {
        self.opened_at
    }

    /// Whether the id that the reader brought says nothing about where it was.
    pub fn is_unknown(&self) -> bool {
        self.pending_gap.as_ref().is_some_and(|gap| gap.reason == GapReason::UnknownId)
    }

    /// Everything up to here was read, or is nothing that this reader follows. Before its gap was
    /// told, this is where it came from.
    pub fn cursor(&self) -> EventId {
        if self.pending_gap.is_some() { self.opened_at } else { self.at.cursor.after }
    }

    /// Whether the last read found nothing only because it stopped short of the head.
    pub fn has_more(&self) -> bool {
        self.at.has_more()
    }

    /// What it reads with.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// How far it is.
    pub fn position(&self) -> Position {
        self.at
    }

    /// Goes on from there.
    pub fn move_to(&mut self, at: Position) {
        self.at = at;
    }

    /// Whether it can go on from where another one of its group is, so that its reader, who was
    /// told of all up to `last_sent_id`, is told of each event and each loss once. It has read up to there,
    /// where there may be more for both; or if further, all there was, and found nothing, or its
    /// reader would have been told.
    pub fn is_with(&self, other: &Position, last_sent_id: EventId) -> bool {
        let (here, there) = (self.at.after(), other.after());
        let is_past = there <= here && !self.at.has_more();
        self.pending_gap.is_none() && last_sent_id <= there && (here == there || is_past)
    }

    /// Reads the next events, and tells what is missing before them. None for neither.
    pub fn read(&mut self) -> Option<Read> {
        self.read_upto(EventId::MAX)
    }

    /// The same, but not beyond an id that it has not read up to.
    pub fn read_upto(&mut self, upto: EventId) -> Option<Read> {
        debug_assert!(self.at.after() < upto, "reading does not go back");
        if let Some(gap) = self.pending_gap.take() {
            return Some(Read { gap: Some(*gap), events: None, complete_at: None });
        }
        self.reader.read_upto(upto, &mut self.at)
    }

    /// As [`Subscriber::read`]. While there is nothing, the task is woken when its topics ring.
    pub fn poll_read(&mut self, cx: &Context<'_>) -> Poll<Read> {
        if let Some(read) = self.read() {
            return Poll::Ready(read);
        }
        if self.has_more() {
            // A long walk past other topics' events. The others on this thread come first.
            cx.waker().wake_by_ref();
        } else {
            // What was stored since that version has rung already, or will. The shard's task, which
            // answers the bell, is on this thread, so it comes after this and finds the waker.
            self.reader.group.wait(self.slot, cx.waker());
        }
        Poll::Pending
    }

    /// Nothing is rung for it until it has read all there is again.
    pub fn stop_waiting(&self) {
        self.reader.group.stop_waiting(self.slot);
    }

    /// Has `listener` called when its topics ring while it waits.
    pub fn listen(&self, listener: Weak<dyn Listener>) {
        self.reader.group.listen(self.slot, listener);
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let Reader { hub, shard, group } = &self.reader;
        shard.leave(group, self.slot);
        hub.release();
    }
}
