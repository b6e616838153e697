//! State of one topic.

use crate::{
    hub::store::{dedup::DedupWindow, ring::Ring},
    model::{event_id::EventId, topic::Topic},
};

/// Ring of one topic, the ids of its messages, and its latest loss.
#[derive(Debug)]
pub(crate) struct Channel {
    pub topic: Topic,
    pub ring: Ring,
    pub dedup: DedupWindow,
    /// Count of losses of the hub at this channel's latest loss.
    pub lost_at: u64,
    /// Number of all events that were stored in the ring, also of those that have left it.
    pub stored: u64,
}

/// Id up to which events are missing, and the count of losses at which they were lost. A reader to
/// which all losses up to a count were reported gets a gap only for losses with a higher count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floor {
    /// Newest id that is no longer held.
    pub id: EventId,
    /// Count of losses of the hub when the floor rose to that id.
    pub lost_at: u64,
}

impl Channel {
    /// Creates the channel of a topic. `floor` is the floor of the topics that the hub has removed.
    pub(crate) fn new(topic: Topic, floor: Floor) -> Self {
        Self {
            topic,
            ring: Ring::new(floor.id),
            dedup: DedupWindow::default(),
            lost_at: floor.lost_at,
            stored: 0,
        }
    }

    /// Returns the floor.
    pub(crate) fn floor(&self) -> Floor {
        Floor { id: self.ring.floor(), lost_at: self.lost_at }
    }

    /// Returns true if removing the channel would lose only its floor.
    pub(crate) fn is_idle(&self) -> bool {
        self.ring.is_empty() && self.dedup.is_empty()
    }
}
