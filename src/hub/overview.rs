//! Overview of the hub for people: its topics with counts.

use std::cmp::Reverse;

use crate::{
    hub::{Hub, TopicSet, lock, store::rings::Rings},
    model::{event_id::EventId, topic::Topic},
};

/// Counts of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicCounts {
    /// Topic.
    pub topic: Topic,
    /// Number of events that were stored since the topic got its ring. It never falls while the
    /// topic has its ring.
    pub stored: u64,
    /// Id of the newest event. If the ring is empty, the newest id that it no longer holds.
    newest: EventId,
}

/// Number of topics that are looked at before the lock is released.
const STEP: usize = 256;

impl Hub {
    /// Returns the counts of at most `most` topics of `shown`, those with the newest events, and
    /// the number of the others. The lock is released after every [`STEP`] topics.
    pub fn topic_counts(&self, shown: &TopicSet, most: usize) -> (Vec<TopicCounts>, usize) {
        let (mut counts, mut others) = (Vec::new(), 0);
        let mut next = Some(0);
        while let Some(from) = next {
            let step;
            (step, next) = lock(&self.inner.rings).counts(from);
            counts.extend(step.into_iter().filter(|counted| shown.contains(&counted.topic)));
            counts.sort_unstable_by_key(|counted| Reverse(counted.newest));
            others += counts.len().saturating_sub(most);
            counts.truncate(most);
        }
        (counts, others)
    }
}

impl Rings {
    /// Returns the counts of the next [`STEP`] slots for topics, and the slot at which to continue.
    fn counts(&self, from: usize) -> (Vec<TopicCounts>, Option<usize>) {
        let end = (from + STEP).min(self.channels.capacity());
        let channels = (from..end).filter_map(|at| self.channels.get(at));
        let counts = channels.map(|channel| TopicCounts {
            topic: channel.topic.clone(),
            stored: channel.stored,
            newest: channel.ring.newest(),
        });
        (counts.collect(), (end < self.channels.capacity()).then_some(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hub::{DedupLimits, Limits, Published, RingLimits},
        model::message::Message,
    };

    fn hub() -> Hub {
        let limits = Limits {
            ring: RingLimits { events: 2, bytes: 1 << 20 },
            ring_age_ms: 60_000,
            ring_bytes_total: 1 << 20,
            topics: 1_000,
            dedup: DedupLimits { age_ms: 60_000, ids: 10, ids_total: 10 },
            subscribers: 1,
            followed_bytes: 1 << 20,
            filters: 1_000,
        };
        Hub::new(limits, 7, 1_000)
    }

    fn publish(hub: &Hub, topic: &str) {
        let published = hub.publish(Message::for_tests(topic, "x"), 1_000);
        assert!(matches!(published, Published::Stored(_)));
    }

    fn counts(hub: &Hub, shown: &TopicSet, most: usize) -> (Vec<(String, u64)>, usize) {
        let (counts, others) = hub.topic_counts(shown, most);
        let counts = counts.into_iter().map(|it| (it.topic.to_string(), it.stored));
        (counts.collect(), others)
    }

    #[test]
    fn events_are_counted_after_they_have_left_their_ring() {
        let hub = hub();
        for topic in ["orders", "parcels", "orders", "orders"] {
            publish(&hub, topic);
        }
        let (orders, parcels) = (("orders".to_owned(), 3), ("parcels".to_owned(), 1));
        assert_eq!(counts(&hub, &TopicSet::all(), 10), (vec![orders.clone(), parcels], 0));
        let only = TopicSet::new(vec!["orders".parse().unwrap()]);
        assert_eq!(counts(&hub, &only, 10), (vec![orders], 0));
    }

    #[test]
    fn of_many_topics_those_with_the_newest_events_are_returned() {
        let hub = hub();
        (0..2 * STEP + 10).for_each(|n| publish(&hub, &format!("topic-{n}")));
        publish(&hub, "topic-3");
        let (newest, others) = counts(&hub, &TopicSet::all(), 2);
        assert_eq!(newest[0], ("topic-3".to_owned(), 2));
        assert_eq!(newest[1].0, format!("topic-{}", 2 * STEP + 9));
        assert_eq!(others, 2 * STEP + 8);
    }
}
