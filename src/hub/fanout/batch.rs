//! What readers at the same place are given: read once, joined once, shared by all of them.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::{
    hub::store::read::Cursor,
    model::event::{Event, EventId},
};

/// Up to so many bytes of whole events are read and handed out at a time. It is a frame's size in
/// HTTP/2, and the most that a reader that stops reading pins of events.
pub const BATCH_MAX_BYTES: usize = 16 * 1024;

/// What a read hands out.
#[derive(Debug, Clone)]
pub enum ReadEvents {
    /// Some events, as they go to the socket.
    Batch(Batch),
    /// A single one that is larger than [`BATCH_MAX_BYTES`].
    Large(Arc<Event>),
}

/// Whole events in a row.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Their frames, joined.
    pub bytes: Bytes,
    /// How many they are.
    pub events: u64,
    /// The newest one's id.
    pub newest: EventId,
    /// When Pub/Sub took the newest one, Unix milliseconds.
    pub publish_time_ms: Option<u64>,
}

impl ReadEvents {
    /// None for no events.
    pub fn of(events: &[Arc<Event>]) -> Option<Self> {
        let newest = events.last()?;
        let bytes = match events {
            [only] if BATCH_MAX_BYTES < only.frame.len() => {
                return Some(Self::Large(Arc::clone(only)));
            }
            [only] => only.frame.clone(),
            several => {
                let mut joined =
                    BytesMut::with_capacity(several.iter().map(|event| event.frame.len()).sum());
                for event in several {
                    joined.extend_from_slice(&event.frame);
                }
                joined.freeze()
            }
        };
        Some(Self::Batch(Batch {
            bytes,
            events: events.len() as u64,
            newest: newest.id,
            publish_time_ms: newest.publish_time_ms,
        }))
    }
}

/// A read that others at the same place need not repeat.
#[derive(Debug, Clone)]
pub struct SharedRead {
    /// Who read: a number that is given to one group of readers only.
    pub group: u64,
    /// From where.
    pub from: Cursor,
    /// To where.
    pub to: Cursor,
    pub batch: Batch,
    /// The hub's version up to which there was nothing more, if so.
    pub complete_at: Option<u64>,
}

/// The last few reads of one worker's readers. What it pins of events that have left their rings is
/// bounded by [`BATCH_MAX_BYTES`] each.
#[derive(Debug, Default)]
pub struct RecentReads {
    reads: [Option<SharedRead>; RECENT_MAX],
    next: usize,
}

/// Readers are woken group by group, so few reads are under way at a time.
const RECENT_MAX: usize = 8;

impl RecentReads {
    /// A read that tells a reader all that one of its own would: what comes after its cursor is
    /// history, and does not change. A gap cannot be missed by it: it found none for a reader that
    /// had been told of no more losses than this one. Nor is it older than what this one was told:
    /// it would hand out events that are gone, and that the reader was told are missing.
    pub fn find(&self, group: u64, cursor: &Cursor) -> Option<&SharedRead> {
        self.reads.iter().flatten().find(|read| {
            read.group == group
                && read.from.after == cursor.after
                && read.from.losses_seen <= cursor.losses_seen
                && cursor.losses_seen <= read.to.losses_seen
        })
    }

    /// Remembers a read in place of the oldest.
    pub fn remember(&mut self, read: SharedRead) {
        if let Some(slot) = self.reads.get_mut(self.next) {
            *slot = Some(read);
        }
        self.next = (self.next + 1) % RECENT_MAX;
    }
}
