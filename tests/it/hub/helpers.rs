//! Helpers of the hub tests: a hub, messages, and reads in a form that is easy to compare.

use std::{
    collections::BTreeMap,
    rc::Rc,
    task::{Poll, Waker},
};

use bytes::Bytes;
use stream_events::outlet::sse::SSE;
use stream_events::{
    hub::{
        BATCH_MAX_BYTES, DedupLimits, GroupKey, Hub, Limits, Published, Read, ReadEvents,
        RingLimits, Shard, Subscriber, TopicSet,
    },
    model::{event_id::EventId, gap::Gap, message::Message, topic::Topic},
};

pub const MINUTE_MS: u64 = 60_000;
/// When the hub begins.
pub const T0: u64 = 1_000_000_000;

pub fn limits() -> Limits {
    Limits {
        ring: RingLimits { events: 1024, bytes: 1 << 20 },
        ring_age_ms: 15 * MINUTE_MS,
        ring_bytes_total: 64 << 20,
        topics: 10_000,
        dedup: DedupLimits { age_ms: 30 * MINUTE_MS, ids: 1_000, ids_total: 10_000 },
        subscribers: 1_000,
        followed_bytes: 64 << 20,
        filters: 1_000,
    }
}

pub fn hub(limits: Limits) -> (Hub, Rc<Shard>) {
    let hub = Hub::new(limits, 7, T0);
    let shard = hub.add_shard();
    (hub, shard)
}

pub fn topic(name: &str) -> Topic {
    name.parse().unwrap()
}

pub fn topics(names: &[&str]) -> TopicSet {
    TopicSet::new(names.iter().map(|name| topic(name)).collect())
}

pub fn message(name: &str, data: &str) -> Message {
    Message {
        topic: topic(name),
        data: Bytes::copy_from_slice(data.as_bytes()),
        attributes: BTreeMap::new(),
        ordering_key: None,
        message_id: None,
        publish_time_ms: None,
    }
}

pub fn publish(hub: &Hub, name: &str, data: &str, now_ms: u64) -> EventId {
    match hub.publish(message(name, data), now_ms) {
        Published::Stored(id) => id,
        other => panic!("a message without an id is {other:?}"),
    }
}

/// What one read hands out: what is missing, and each event's id and data.
pub type Found = (Option<Gap>, Vec<(EventId, String)>);

pub fn found(read: Read) -> Found {
    let frames = match read.events {
        None => Bytes::new(),
        Some(ReadEvents::Large(event)) => event.frame().clone(),
        Some(ReadEvents::Batch(block)) => {
            assert!(block.bytes.len() <= BATCH_MAX_BYTES);
            block.bytes
        }
    };
    let blocks = str::from_utf8(&frames).unwrap().split_terminator("\n\n");
    let line = |block: &str, field| {
        block.lines().find_map(|line| line.strip_prefix(field)).unwrap().to_owned()
    };
    let event = |block| (line(block, "id: ").parse().unwrap(), line(block, "data: "));
    (read.gap, blocks.map(event).collect())
}

/// Key of the group of `topics` in the format of server-sent events.
pub fn in_sse(topics: TopicSet) -> GroupKey {
    GroupKey { topics, filter: None, format: SSE }
}

/// Reads, and waits if there is nothing to read.
pub fn poll_read(subscriber: &mut Subscriber, waker: &Waker) -> Poll<Read> {
    match subscriber.read() {
        Some(read) => Poll::Ready(read),
        None if subscriber.has_more() => {
            waker.wake_by_ref();
            Poll::Pending
        }
        None => {
            subscriber.wait(waker);
            Poll::Pending
        }
    }
}

/// One read. None when there is nothing.
pub fn poll(subscriber: &mut Subscriber) -> Option<Found> {
    match poll_read(subscriber, Waker::noop()) {
        Poll::Ready(read) => Some(found(read)),
        Poll::Pending => None,
    }
}

/// As [`poll`], without the ids.
pub fn read(subscriber: &mut Subscriber) -> Option<(Option<Gap>, Vec<String>)> {
    let (gap, events) = poll(subscriber)?;
    Some((gap, events.into_iter().map(|(_, data)| data).collect()))
}

/// All that there is to read.
pub fn read_all(subscriber: &mut Subscriber) -> (Vec<Gap>, Vec<String>) {
    let (mut gaps, mut all) = (Vec::new(), Vec::new());
    while let Some((gap, data)) = read(subscriber) {
        gaps.extend(gap);
        all.extend(data);
        assert!(gaps.len() < 1_000, "told again and again");
    }
    (gaps, all)
}
