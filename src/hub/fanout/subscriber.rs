//! Subscriber: one reader's cursor. It has no queue, so a slow reader costs the others nothing.

use std::{
    rc::{Rc, Weak},
    sync::Arc,
    task::Waker,
};

use crate::{
    hub::{
        Hub,
        fanout::{
            group::{Group, Listener},
            shard::{Read, Shard},
        },
        store::read::{Cursor, Position, Version},
    },
    model::{
        event::Event,
        event_id::EventId,
        gap::{Gap, GapReason},
    },
};

/// Position where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Events that are published from now on.
    Live,
    /// Events after the last one that the reader received.
    After(EventId),
    /// Events after an id that the log has assigned and that this copy of the log may not have read
    /// yet. Reading waits until the copy has it.
    Ahead(EventId),
    /// Events that arrived at this time or later, in Unix milliseconds.
    Since(u64),
    /// All events that are held. The reader does not expect older ones.
    Held,
    /// Events from now on, with a gap first: the reader sent an id that is not an event id.
    Unknown,
}

/// Cursor of one reader, with its slot in the group that notifies it. It cannot leave the thread of
/// its shard.
#[derive(Debug)]
pub struct Subscriber {
    reader: Reader,
    slot: usize,
    at: Position,
    pending: Option<Box<PendingGap>>,
}

/// Gap that the reader's id implies, which is sent first.
#[derive(Debug)]
struct PendingGap {
    gap: Gap,
    /// Id that the reader receives before the gap.
    opened_at: EventId,
}

/// Handle that reads for a group.
#[derive(Debug, Clone)]
pub struct Reader {
    shard: Rc<Shard>,
    group: Rc<Group>,
}

impl Reader {
    /// Returns the hub that the handle reads from.
    pub fn hub(&self) -> &Hub {
        self.shard.hub()
    }

    /// Returns the group that the handle reads for.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Notifies the group again, since it has more to read.
    pub fn reschedule(&self) {
        if let Some(filter) = self.group.filter() {
            filter.set_due();
        }
        self.shard.reschedule(&self.group);
    }

    /// Returns the version of the hub, which grows with everything that is stored. A notification
    /// that the group has received belongs to this version or to an older one.
    pub fn version(&self) -> Version {
        self.hub().version()
    }

    /// Reads the next events, and the gap before them. Returns `None` if there is neither.
    pub fn read(&self, at: &mut Position) -> Option<Read> {
        self.read_upto(EventId::MAX, at)
    }

    /// Reads the next events up to `upto`, which must be after the position, without encoding them.
    /// Appends them to `out`, and returns the gap before them. Bounded as other reads are.
    pub fn read_stored(
        &self,
        upto: EventId,
        at: &mut Position,
        out: &mut Vec<Arc<Event>>,
    ) -> Option<Gap> {
        let (found, version) = self.shard.read_stored(&self.group, &mut at.cursor, upto, out);
        at.complete_at = (!found.more).then_some(version);
        found.gap
    }

    fn read_upto(&self, upto: EventId, at: &mut Position) -> Option<Read> {
        if at.complete_at == Some(self.hub().version()) {
            return None;
        }
        let read = self.shard.read(&self.group, &mut at.cursor, upto);
        at.complete_at = read.complete_at;
        (read.gap.is_some() || read.events.is_some()).then_some(read)
    }
}

impl Subscriber {
    /// Creates a subscriber for a slot in a group of `shard`. Dropping the subscriber frees the
    /// slot.
    pub(crate) fn new(shard: Rc<Shard>, (group, slot): (Rc<Group>, usize), start: Start) -> Self {
        let (origin, head) = shard.hub().origin_and_head();
        let gap = |reason, after: Option<EventId>, upto| {
            // Without topics, the gap can be in any topic, also in those that a prefix selects.
            let has_prefixes = !group.topics().prefixes().is_empty();
            let topics = if has_prefixes { &[][..] } else { group.topics().names() }.to_vec();
            let opened_at = after.unwrap_or(upto);
            Some(Box::new(PendingGap { gap: Gap { reason, topics, after, upto }, opened_at }))
        };
        let (after, pending) = match start {
            Start::Live => (head, None),
            Start::Unknown => (head, gap(GapReason::UnknownId, None, head)),
            Start::After(id) if id.history() != origin.history() => {
                (origin, gap(GapReason::Restart, Some(id), origin))
            }
            Start::After(id) if head < id => (head, gap(GapReason::UnknownId, Some(id), head)),
            Start::After(id) | Start::Ahead(id) => (id, None),
            Start::Held => (EventId::before(0, origin.history()), None),
            Start::Since(time_ms) => (EventId::before(time_ms, origin.history()).min(head), None),
        };
        // A reader that expects only what is held has lost nothing before.
        let losses_seen = if start == Start::Held { u64::MAX } else { 0 };
        let at = Position { cursor: Cursor { after, losses_seen }, complete_at: None };
        Self { reader: Reader { shard, group }, slot, at, pending }
    }

    /// Returns the hub that the subscriber reads from.
    pub fn hub(&self) -> &Hub {
        self.reader.hub()
    }

    /// Returns true if the id that the reader sent says nothing about its position.
    pub fn is_unknown(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.gap.reason == GapReason::UnknownId)
    }

    /// Returns the cursor. Everything up to it was read, is of topics that the reader does not
    /// follow, or is hidden by its filter. While a gap is pending, it is the id that the reader
    /// sent, or the head if that is no event id.
    ///
    /// Before the first read it is the id that the reader receives first: a reader that is
    /// disconnected before it receives another id reconnects with this one and has missed nothing.
    pub fn cursor(&self) -> EventId {
        self.pending.as_ref().map_or(self.at.cursor.after, |pending| pending.opened_at)
    }

    /// Returns true if the last read found nothing only because it stopped before the head.
    pub fn has_more(&self) -> bool {
        self.at.has_more()
    }

    /// Returns the handle that the subscriber reads with.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Returns the position.
    pub fn position(&self) -> Position {
        self.at
    }

    /// Continues at `at`.
    pub fn move_to(&mut self, at: Position) {
        self.at = at;
    }

    /// Returns true if the subscriber can continue at the position of another subscriber of its
    /// group, and its reader still receives each event and each gap exactly once. `last_sent_id` is
    /// the id up to which its reader was sent everything.
    ///
    /// Either both are at the same cursor, or this subscriber is further and found nothing after
    /// the other position; otherwise its reader would have been sent a later id.
    pub fn is_with(&self, other: &Position, last_sent_id: EventId) -> bool {
        let (here, there) = (self.at.after(), other.after());
        let is_past = there <= here && !self.at.has_more();
        self.pending.is_none() && last_sent_id <= there && (here == there || is_past)
    }

    /// Reads the next events, and the gap before them. Returns `None` if there is neither.
    pub fn read(&mut self) -> Option<Read> {
        self.read_upto(EventId::MAX)
    }

    /// Reads like [`Subscriber::read`], but not beyond `upto`, which must be after the cursor.
    pub fn read_upto(&mut self, upto: EventId) -> Option<Read> {
        debug_assert!(self.at.after() < upto, "reading does not go back");
        if let Some(pending) = self.pending.take() {
            return Some(Read { gap: Some(pending.gap), events: None, complete_at: None });
        }
        self.reader.read_upto(upto, &mut self.at)
    }

    /// Registers `waker`, which is woken when there is more to read. Must be called after a read
    /// that found nothing, on the same thread and before other code runs there. A notification of a
    /// later event was or will be sent to the shard's task. That task passes it on, and runs on
    /// this thread, so it runs after this call and finds the waker.
    pub fn wait(&self, waker: &Waker) {
        self.reader.group.wait(self.slot, waker);
    }

    /// Stops the notifications until the next [`Subscriber::wait`].
    pub fn stop_waiting(&self) {
        self.reader.group.stop_waiting(self.slot);
    }

    /// Returns true if [`Subscriber::listen`] was called with a listener that still exists.
    pub fn is_listening(&self) -> bool {
        self.reader.group.is_listening(self.slot)
    }

    /// Sets the listener that is called instead of waking the task while the subscriber waits.
    pub fn listen(&self, listener: Weak<dyn Listener>) {
        self.reader.group.listen(self.slot, listener);
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let Reader { shard, group } = &self.reader;
        shard.leave(group, self.slot);
        shard.hub().release();
    }
}
