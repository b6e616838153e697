//! What the hub keeps of one topic.

use crate::{
    hub::store::{dedup::DedupWindow, ring::Ring},
    model::{event::EventId, topic::Topic},
};

/// One topic's ring, the ids of its messages, and when it last lost an event.
#[derive(Debug)]
pub struct Channel {
    pub topic: Topic,
    pub ring: Ring,
    pub dedup: DedupWindow,
    /// The hub's count of losses at this channel's latest one.
    pub lost_at: u64,
}

/// Up to where something is missing, and since when. A reader that was told of all losses up to a
/// count of losses has to be told again only of those with a higher count.
#[derive(Debug, Clone, Copy)]
pub struct Floor {
    /// The newest id that is no longer held.
    pub id: EventId,
    /// The hub's count of losses when it rose to that.
    pub lost_at: u64,
}

impl Channel {
    /// A channel for a topic that has none. `floor` is what the hub knows of topics it has
    /// forgotten.
    pub fn new(topic: Topic, floor: Floor) -> Self {
        Self {
            topic,
            ring: Ring::new(floor.id),
            dedup: DedupWindow::default(),
            lost_at: floor.lost_at,
        }
    }

    /// See [`Floor`].
    pub fn floor(&self) -> Floor {
        Floor { id: self.ring.floor(), lost_at: self.lost_at }
    }

    /// Whether nothing would be lost with it but its floor.
    pub fn is_idle(&self) -> bool {
        self.ring.is_empty() && self.dedup.is_empty()
    }
}
