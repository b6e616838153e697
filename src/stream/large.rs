//! Large events: events over [`BATCH_MAX_BYTES`], which are sent in slices.

use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::{
    hub::BATCH_MAX_BYTES,
    limits::budget::{Budget, Claim},
    model::{encode::Format, event::Event, event_id::EventId},
};

/// Limit of the bytes of large events that slow readers may keep in memory after the events have
/// left their rings, over all streams. Within this limit, a reader that takes longer for an event
/// than its ring holds it still receives it whole.
pub const LARGE_EVENTS_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Large event that a stream is sending.
#[derive(Debug)]
pub struct LargeEvent {
    pub(crate) id: EventId,
    pub(crate) publish_time_ms: Option<u64>,
    source: Source,
    /// Number of bytes that were returned.
    sent: usize,
}

#[derive(Debug)]
enum Source {
    /// Encoded bytes, which the stream keeps within the budget.
    Kept(Bytes, #[expect(dead_code, reason = "gives its bytes back when dropped")] Claim),
    /// Reference to the event in its ring, used when the budget is used up: the bytes are encoded
    /// again for each slice, while the ring holds the event.
    InRing(Weak<Event>, Format),
}

/// Part of a large event.
#[derive(Debug)]
pub struct Slice {
    /// Copied bytes: a part that shares the event's memory would keep all of it.
    pub(crate) bytes: Bytes,
    pub(crate) is_last: bool,
}

impl LargeEvent {
    /// Creates the state before the first byte of `event`.
    pub fn new(event: &Arc<Event>, format: Format, budget: &Arc<Budget>) -> Self {
        let mut claim = budget.claim();
        let source = if claim.grow(event.size()) {
            Source::Kept(format.event(event), claim)
        } else {
            Source::InRing(Arc::downgrade(event), format)
        };
        Self { id: event.id, publish_time_ms: event.publish_time_ms, source, sent: 0 }
    }

    /// Returns the next part. `None` when the event has left its ring: the connection must then be
    /// cut, so that the reader drops the incomplete event, reconnects, and receives a gap.
    pub fn next_slice(&mut self) -> Option<Slice> {
        let encoded;
        let bytes = match &self.source {
            Source::Kept(bytes, _) => bytes,
            Source::InRing(event, format) => {
                encoded = format.event(&*event.upgrade()?);
                &encoded
            }
        };
        let end = bytes.len().min(self.sent + BATCH_MAX_BYTES);
        let part = Bytes::copy_from_slice(bytes.get(self.sent..end).unwrap_or_default());
        self.sent = end;
        Some(Slice { bytes: part, is_last: end == bytes.len() })
    }
}
