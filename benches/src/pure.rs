//! What the benches of the pure parts work on, the same for time and for instructions.

use std::{collections::BTreeMap, rc::Rc};

use bytes::Bytes;
use stream_events::outlet::sse::SSE;
use stream_events::{
    hub::{
        DedupLimits, GroupKey, Hub, Limits, ReadEvents, RingLimits, Shard, Start, Subscriber,
        TopicSet,
    },
    inlet::envelope,
    model::{event::Draft, event_id::EventId, message::Message, topic::Topic},
};

use crate::dialect::wrap;

const NOW_MS: u64 = 1_763_690_177_349;
const ID: EventId = EventId { time_ms: NOW_MS, sequence: 5_648_324_730_880_001 };

fn topic() -> Topic {
    "orders".parse().expect("this is a topic's name")
}

/// A message of so many bytes.
pub fn message(size: usize) -> Message {
    Message {
        topic: topic(),
        data: Bytes::from(vec![b'x'; size]),
        attributes: BTreeMap::new(),
        ordering_key: None,
        message_id: None,
        publish_time_ms: None,
    }
}

/// A message of so many bytes, and a copy that shares its data and its topic. The copy is in a box,
/// which costs few instructions to return.
pub fn message_and_copy(size: usize) -> (Message, Box<Message>) {
    let message = message(size);
    (message.clone(), Box::new(message))
}

/// A push of so many bytes of data.
pub fn body(size: usize) -> Vec<u8> {
    let mut body = Vec::new();
    wrap(&vec![b'x'; size], 7, None, &mut body);
    body
}

/// A message becomes bytes of a stream.
pub fn encode(message: Message) -> Bytes {
    Draft::new(message).seal(ID).frame().clone()
}

/// A push becomes a message.
pub fn decode(body: &[u8]) -> Message {
    envelope::decode(body, Some(topic())).expect("this is an envelope")
}

/// A hub, and a shard that a reader can be on.
#[derive(Debug)]
pub struct Place {
    hub: Hub,
    shard: Rc<Shard>,
    published: u64,
}

impl Place {
    /// A hub that holds so many events of 200 bytes.
    pub fn with(events: u64) -> Self {
        let limits = Limits {
            ring: RingLimits { events: 1_024, bytes: 32 << 20 },
            ring_age_ms: 15 * 60_000,
            ring_bytes_total: 512 << 20,
            topics: 10_000,
            dedup: DedupLimits { age_ms: 30 * 60_000, ids: 100_000, ids_total: 2_000_000 },
            subscribers: 20_000,
            followed_bytes: 64 << 20,
            filters: 1_000,
        };
        let hub = Hub::new(limits, 7, NOW_MS);
        let shard = hub.add_shard();
        let mut place = Self { hub, shard, published: 0 };
        let message = message(200);
        (0..events).for_each(|_| place.publish(message.clone()));
        place
    }

    /// A message gets its id and its place in a ring.
    pub fn publish(&mut self, message: Message) {
        self.published += 1;
        self.hub.publish(message, NOW_MS + self.published / 50);
    }

    /// A reader that has nothing of what the hub holds.
    pub fn reader(&self) -> Subscriber {
        let topics = TopicSet::new(vec![topic()]);
        let start = Start::Since(NOW_MS - 1);
        self.hub
            .subscribe(&self.shard, GroupKey { topics, filter: None, format: SSE }, start)
            .expect("there is room")
    }
}

/// Reads until there is nothing more. How many events there were.
pub fn read_all(reader: &mut Subscriber) -> u64 {
    let mut read = 0;
    while let Some(found) = reader.read() {
        read += match found.events {
            Some(ReadEvents::Batch(block)) => block.events,
            Some(ReadEvents::Large(_)) => 1,
            None => 0,
        };
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_benches_do_what_they_are_called() {
        assert_eq!(encode(message(200)), encode(decode(&body(200))));
        assert_eq!(read_all(&mut Place::with(100).reader()), 100);
    }
}
