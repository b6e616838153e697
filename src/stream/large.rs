//! Large events: events over [`BATCH_MAX_BYTES`], which are sent in slices.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use bytes::Bytes;

use crate::{
    hub::BATCH_MAX_BYTES,
    limits::budget::{Budget, Claim},
    model::{encode::Format, event::Event, event_id::EventId},
};

/// Limit of the bytes of large events that slow readers may keep in memory after the events have
/// left their rings, over all streams. Within this limit, a reader that takes longer for an event
/// than its ring holds it still receives it whole. A single event that has to be encoded may be
/// larger.
pub(crate) const LARGE_EVENTS_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Largest size of an event that is encoded again for each slice when the budget is used up: it has
/// few slices.
const ENCODED_AGAIN_MAX_BYTES: usize = 16 * BATCH_MAX_BYTES;

/// Large events that streams are sending. Each is encoded once for all of its readers in one
/// format.
#[derive(Debug)]
pub struct LargeEvents {
    budget: Arc<Budget>,
    /// Encoded events, as long as a stream sends them. They fit into the budget.
    kept: Mutex<HashMap<(EventId, Format), Weak<Kept>>>,
}

/// Encoded event, within the budget.
#[derive(Debug)]
struct Kept {
    bytes: Bytes,
    _claim: Claim,
}

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
    /// Encoded bytes, which the streams that send them keep within the budget.
    Kept(Arc<Kept>),
    /// Reference to the event in its ring, used when the budget is used up: each slice is made from
    /// the event again, while the ring holds it.
    InRing(Weak<Event>, Format),
}

/// Part of a large event.
#[derive(Debug)]
pub struct Slice {
    /// Copied bytes: a part that shares the event's memory would keep all of it.
    pub(crate) bytes: Bytes,
    pub(crate) is_last: bool,
}

impl LargeEvents {
    /// Creates the state without large events. `max` is the limit of their bytes.
    pub fn new(max: usize) -> Self {
        Self { budget: Budget::new(max), kept: Mutex::default() }
    }

    /// Returns the number of bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.budget.bytes()
    }

    /// Begins to send `event`: returns the state before its first byte. `None` when the memory for
    /// its encoding is used up: the connection must then be cut, so that the reader comes back for
    /// the event.
    pub fn begin(&self, event: &Arc<Event>, format: Format) -> Option<LargeEvent> {
        let source = self.source(event, format)?;
        Some(LargeEvent { id: event.id, publish_time_ms: event.publish_time_ms, source, sent: 0 })
    }

    /// Returns the source of an event's bytes. Encodes the event if no stream is sending it.
    fn source(&self, event: &Arc<Event>, format: Format) -> Option<Source> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (event.id, format);
        if let Some(kept) = lock().get(&key).and_then(Weak::upgrade) {
            return Some(Source::Kept(kept));
        }
        // Other streams are not kept waiting while this one encodes.
        let bytes = format.event(event);
        let mut claim = self.budget.claim();
        if !claim.grow(bytes.len()) {
            let is_frame = bytes.as_ptr() == event.frame().as_ptr();
            if is_frame || bytes.len() <= ENCODED_AGAIN_MAX_BYTES {
                return Some(Source::InRing(Arc::downgrade(event), format));
            }
            // An event that is larger than the budget must not be refused for ever.
            if !claim.grow_alone(bytes.len()) {
                return None;
            }
        }
        let kept = Arc::new(Kept { bytes, _claim: claim });
        let mut all = lock();
        all.retain(|_, kept| 0 < kept.strong_count());
        all.insert(key, Arc::downgrade(&kept));
        Some(Source::Kept(kept))
    }
}

impl LargeEvent {
    /// Returns the next part. `None` when the event has left its ring: the connection must then be
    /// cut, so that the reader drops the incomplete event, reconnects, and receives a gap.
    pub fn next_slice(&mut self) -> Option<Slice> {
        let encoded;
        let bytes = match &self.source {
            Source::Kept(kept) => &kept.bytes,
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
