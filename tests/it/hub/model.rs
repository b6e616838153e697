//! The hub against a model: a plain list of all that was published.

use std::rc::Rc;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use stream_events::{
    hub::{DedupLimits, Hub, Limits, RingLimits, Shard, Start, Subscriber, TopicSet},
    model::{event_id::EventId, gap::Gap, topic::TopicPattern},
};

use crate::{
    hub::helpers::{T0, hub, in_sse, limits, poll, publish, topic},
    support::seed,
};

/// A model: the hub must agree with a plain list of all that was published, whatever the order of
/// publishing, reading, ageing and forgetting. What a reader does not get, it must have been told of.
#[test]
fn every_event_is_read_or_told_as_missing() {
    let seed = seed("every_event_is_read_or_told_as_missing");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..60 {
        let ring = RingLimits { events: random.random_range(1..20), bytes: 40_000 };
        let (hub, shard) = hub(Limits {
            ring,
            ring_bytes_total: 200_000,
            ring_age_ms: 50,
            topics: random.random_range(2..30),
            dedup: DedupLimits { age_ms: 60, ids: 10, ids_total: 50 },
            ..limits()
        });
        let names: Vec<_> = (0..30).map(|n| format!("part-{}.topic-{n:02}", n % 7)).collect();
        let mut published: Vec<(EventId, usize)> = Vec::new();
        let mut readers: Vec<Reader> = Vec::new();
        let mut now_ms = T0;
        for _ in 0..1_500 {
            match random.random_range(0..100) {
                0..60 => {
                    // Some topics are busy, most are quiet.
                    let at = random.random_range(0..30_usize).min(random.random_range(0..30));
                    // Some fill a block, and some are larger than one.
                    let length = match random.random_range(0..20) {
                        0 => 17_000,
                        1..5 => 3_000,
                        _ => 10,
                    };
                    let data = "x".repeat(length);
                    published.push((publish(&hub, &names[at], &data, now_ms), at));
                }
                60..75 => now_ms += random.random_range(0..5),
                75..80 => hub.sweep(now_ms),
                80..84 => {
                    let after = published
                        .iter()
                        .map(|(id, _)| *id)
                        .nth(random.random_range(0..published.len().max(1)));
                    let count = [1, 3, 20, 0][random.random_range(0..4_usize)];
                    let first = random.random_range(0..10);
                    let asked: Vec<usize> = (first..first + count).collect();
                    let part = random.random_range(0..14);
                    let (topics, asked) = match part {
                        0..7 => matching(&names, &[&format!("part-{part}.*")]),
                        // More than are merged.
                        7 => matching(&names, &["part-0.*", "part-1.*", "part-2.*", "part-3.*"]),
                        8 => matching(&names, &["part-5.*", "part-5.topic-05", "part-6.topic-13"]),
                        _ => (named(&names, &asked), asked),
                    };
                    readers.push(Reader::new(&hub, &shard, &names, (topics, asked), after));
                }
                _ => {
                    if !readers.is_empty() {
                        let at = random.random_range(0..readers.len());
                        readers[at].read();
                    }
                }
            }
        }
        for reader in &mut readers {
            while reader.read() {
                assert!(reader.gaps.len() < 10_000, "SEED={seed}: told again and again");
            }
            reader.check(&published, &format!("SEED={seed} round {round}"));
        }
    }
}

fn named(names: &[String], asked: &[usize]) -> TopicSet {
    TopicSet::new(asked.iter().map(|at| topic(&names[*at])).collect())
}

/// The topics that match, and which they are.
fn matching(names: &[String], patterns: &[&str]) -> (TopicSet, Vec<usize>) {
    let patterns: Vec<TopicPattern> = patterns.iter().map(|text| text.parse().unwrap()).collect();
    let matches = |name: &str| patterns.iter().any(|pattern| pattern.matches(&topic(name)));
    let asked = (0..names.len()).filter(|at| matches(&names[*at])).collect();
    (TopicSet::matching(&patterns), asked)
}

struct Reader {
    subscriber: Subscriber,
    asked: Vec<usize>,
    from: EventId,
    got: Vec<EventId>,
    gaps: Vec<Gap>,
    names: Vec<String>,
}

impl Reader {
    fn new(
        hub: &Hub,
        shard: &Rc<Shard>,
        names: &[String],
        (topics, asked): (TopicSet, Vec<usize>),
        after: Option<EventId>,
    ) -> Self {
        let start = after.map_or(Start::Live, Start::After);
        let subscriber = hub.subscribe(shard, in_sse(topics), start).unwrap();
        let from = subscriber.cursor();
        let names = names.to_vec();
        Self { subscriber, asked, from, got: Vec::new(), gaps: Vec::new(), names }
    }

    fn read(&mut self) -> bool {
        let Some((gap, events)) = poll(&mut self.subscriber) else { return false };
        if let Some(gap) = &gap {
            let beyond = self.got.last().copied().unwrap_or(self.from);
            assert!(beyond <= gap.after.unwrap(), "a gap behind what was read");
            assert!(gap.after.unwrap() < gap.upto);
        }
        self.gaps.extend(gap);
        self.got.extend(events.into_iter().map(|(id, _)| id));
        true
    }

    fn check(&self, published: &[(EventId, usize)], at: &str) {
        assert!(self.got.is_sorted_by(|a, b| a < b), "{at}: ids decrease or repeat");
        let wanted = |topic: usize| self.asked.is_empty() || self.asked.contains(&topic);
        for (id, topic) in published.iter().filter(|(id, topic)| self.from < *id && wanted(*topic))
        {
            let told = || {
                self.gaps.iter().any(|gap| {
                    let name = &self.names[*topic];
                    let named = gap.topics.is_empty()
                        || gap.topics.iter().any(|gone| gone.as_str() == name);
                    named && gap.after.unwrap() < *id && *id <= gap.upto
                })
            };
            assert!(self.got.contains(id) || told(), "{at}: {id} was lost in silence");
        }
        let all: Vec<_> = published.iter().map(|(id, topic)| (*id, *topic)).collect();
        for id in &self.got {
            assert!(all.iter().any(|(known, topic)| known == id && wanted(*topic)), "{at}: {id}");
        }
    }
}
