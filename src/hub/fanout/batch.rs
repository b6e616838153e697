//! Batches: events that are read and encoded once for all subscribers at the same cursor.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::{
    hub::store::read::{BATCH_MAX_BYTES, Cursor, Version},
    model::{
        encode::Format,
        event::{Event, MessageTrace},
        event_id::EventId,
    },
};

/// Events that a read returns.
#[derive(Debug, Clone)]
pub enum ReadEvents {
    /// Batch of whole events, encoded for the socket.
    Batch(Batch),
    /// Single event that is larger than [`BATCH_MAX_BYTES`], in its frame or encoded.
    Large(Arc<Event>),
}

/// Whole events, encoded one after the other.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Encoded events, one after the other.
    pub bytes: Bytes,
    /// Number of events.
    pub events: u64,
    /// Id of the newest event.
    pub newest: EventId,
    /// Time at which Pub/Sub received the newest message, in Unix milliseconds.
    pub publish_time_ms: Option<u64>,
    /// Events in traces that their publishers record. `None` if there are none.
    pub sampled: Option<Arc<[SampledEvent]>>,
}

/// Event in a trace that its publisher records.
#[derive(Debug, Clone)]
pub struct SampledEvent {
    /// Id of the event.
    pub id: EventId,
    /// Trace of its message.
    pub trace: Arc<MessageTrace>,
}

impl SampledEvent {
    /// Returns the events in recorded traces. Allocates nothing if there are none.
    pub(crate) fn among(events: &[Arc<Event>]) -> Option<Arc<[Self]>> {
        let sampled = events.iter().filter_map(|event| {
            let trace = Arc::clone(event.trace()?);
            Some(Self { id: event.id, trace })
        });
        let sampled: Vec<_> = sampled.collect();
        (!sampled.is_empty()).then(|| sampled.into())
    }
}

impl ReadEvents {
    /// Encodes events in the format of a group, from the first one on: as many as fit into
    /// [`BATCH_MAX_BYTES`] once they are encoded. The caller reads the others again. Returns `None`
    /// if there are no events.
    pub fn encode(events: &[Arc<Event>], format: Format) -> Option<Self> {
        let first = events.first()?;
        if BATCH_MAX_BYTES < first.frame().len() {
            return Some(Self::Large(Arc::clone(first)));
        }
        let (bytes, count) = match events {
            [only] => (format.event(only), 1),
            several => encode_several(several, format),
        };
        let newest = events.get(..count).and_then(<[_]>::last);
        let Some(newest) = newest.filter(|_| bytes.len() <= BATCH_MAX_BYTES) else {
            return Some(Self::Large(Arc::clone(first)));
        };
        Some(Self::Batch(Batch {
            bytes,
            events: count as u64,
            newest: newest.id,
            publish_time_ms: newest.publish_time_ms,
            sampled: events.get(..count).and_then(SampledEvent::among),
        }))
    }

    /// Returns the id of the newest event.
    pub fn newest(&self) -> EventId {
        match self {
            Self::Batch(batch) => batch.newest,
            Self::Large(event) => event.id,
        }
    }
}

/// Encodes the events from the first one on that fit into [`BATCH_MAX_BYTES`]. Returns their bytes
/// and their number, which is 0 if the first event does not fit.
fn encode_several(events: &[Arc<Event>], format: Format) -> (Bytes, usize) {
    let bytes = events.iter().map(|event| event.frame().len()).sum();
    let mut joined = BytesMut::with_capacity(bytes);
    let count = format.append(events, BATCH_MAX_BYTES, &mut joined);
    (joined.freeze(), count)
}

/// Result of a read, for all subscribers at the same cursor.
#[derive(Debug, Clone)]
pub(crate) struct SharedRead {
    /// Number of the group that the read was for.
    pub group: u64,
    /// Cursor before the read.
    pub from: Cursor,
    /// Cursor after the read.
    pub to: Cursor,
    pub batch: Batch,
    /// Version of the hub up to which the read was complete. `None` if there was more to read.
    pub complete_at: Option<Version>,
}

/// Last few reads of one worker. Each keeps at most [`BATCH_MAX_BYTES`] of events that have left
/// their rings.
#[derive(Debug, Default)]
pub(crate) struct RecentReads {
    reads: [Option<SharedRead>; RECENT_MAX],
    next: usize,
}

/// Number of reads that are kept. Groups are notified one after the other, so few are in use at a
/// time.
const RECENT_MAX: usize = 8;

impl RecentReads {
    /// Returns a read whose result equals the one that the subscriber's own read would have.
    ///
    /// Events after a cursor are never changed, so a shared read stays correct. It hides no gap: it
    /// found none for a subscriber to which no more losses had been reported than to this one. It
    /// also is not older than the losses that were reported to this subscriber: otherwise it would
    /// return events that are no longer held, after a gap that reported them as missing.
    pub(crate) fn find(&self, group: u64, cursor: &Cursor) -> Option<&SharedRead> {
        self.reads.iter().flatten().find(|read| {
            read.group == group
                && read.from.after == cursor.after
                && read.from.losses_seen <= cursor.losses_seen
                && cursor.losses_seen <= read.to.losses_seen
        })
    }

    /// Stores a read in place of the oldest one.
    pub(crate) fn remember(&mut self, read: SharedRead) {
        if let Some(slot) = self.reads.get_mut(self.next) {
            *slot = Some(read);
        }
        self.next = (self.next + 1) % RECENT_MAX;
    }
}
