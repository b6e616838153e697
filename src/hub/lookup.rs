//! Look-up of one event by its id.

use std::sync::Arc;

use crate::{
    hub::{Hub, lock, store::rings::Rings},
    model::{event::Event, event_id::EventId},
};

impl Hub {
    /// Returns an event. `None` if the hub does not hold it.
    pub fn find(&self, id: EventId) -> Option<Arc<Event>> {
        lock(&self.inner.rings).find(id)
    }
}

impl Rings {
    fn find(&self, id: EventId) -> Option<Arc<Event>> {
        let before = match id.sequence.checked_sub(1) {
            Some(sequence) => EventId { sequence, ..id },
            None => EventId { time_ms: id.time_ms.checked_sub(1)?, sequence: u64::MAX },
        };
        let (found, _, event) = self.timeline.after(before).next()?;
        event.filter(|_| found == id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hub::{DedupLimits, Limits, Published, RingLimits},
        model::message::Message,
    };

    #[test]
    fn an_event_is_found_for_as_long_as_it_is_held() {
        let limits = Limits {
            ring: RingLimits { events: 2, bytes: 1 << 20 },
            ring_age_ms: 60_000,
            ring_bytes_total: 1 << 20,
            topics: 10,
            dedup: DedupLimits { age_ms: 60_000, ids: 10, ids_total: 10 },
            subscribers: 1,
            followed_bytes: 1 << 20,
            filters: 1_000,
        };
        let hub = Hub::new(limits, 7, 1_000);
        let publish = |topic: &str| {
            let message = Message {
                topic: topic.parse().unwrap(),
                data: bytes::Bytes::from_static(b"x"),
                attributes: std::collections::BTreeMap::new(),
                ordering_key: None,
                message_id: None,
                publish_time_ms: None,
            };
            let Published::Stored(id) = hub.publish(message, 1_000) else { panic!("not stored") };
            id
        };
        let topic_of = |id| hub.find(id).map(|event| event.topic.to_string());
        let names = ["orders", "parcels", "orders", "parcels"];
        let ids = names.map(publish);
        assert_eq!(ids.map(topic_of), names.map(|name| Some(name.to_owned())));
        publish("orders");
        assert_eq!(topic_of(ids[0]), None, "it has left its ring");
        assert_eq!(topic_of(ids[1]).as_deref(), Some("parcels"));
        for never in [EventId::ZERO, EventId::MAX, EventId { sequence: 0, ..ids[0] }] {
            assert_eq!(topic_of(never), None, "{never}");
        }
    }
}
