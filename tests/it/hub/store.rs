//! The hub by itself, with time as an argument: its limits, its gaps and its one order.

use bytes::BytesMut;
use stream_events::{
    hub::{DedupLimits, Hub, Limits, Published, RingLimits, Start, TopicSet},
    model::{event::Draft, event_id::EventId, gap::GapReason},
};

use super::helpers::*;

#[test]
fn a_reader_that_fell_off_the_ring_is_told_at_once_and_reads_on() {
    let (hub, shard) = hub(Limits { ring: RingLimits { events: 3, bytes: 1 << 20 }, ..limits() });
    let first = publish(&hub, "orders", "1", T0);
    let mut reader =
        hub.subscribe(&shard, in_sse(topics(&["orders"])), Start::After(first)).unwrap();
    let ids: Vec<_> = (2..=6).map(|n| publish(&hub, "orders", &n.to_string(), T0 + n)).collect();
    let (gap, events) = read(&mut reader).unwrap();
    assert_eq!(events, ["4", "5", "6"]);
    let gap = gap.unwrap();
    assert_eq!(gap.reason, GapReason::Evicted);
    assert_eq!((gap.after, gap.upto), (Some(first), ids[1]));
    assert_eq!(gap.topics, [topic("orders")]);
    assert_eq!(read(&mut reader), None);
}

#[test]
fn one_topics_loss_is_no_gap_for_readers_of_another() {
    let (hub, shard) = hub(Limits { ring: RingLimits { events: 2, bytes: 1 << 20 }, ..limits() });
    let first = publish(&hub, "quiet", "1", T0);
    for n in 0..10 {
        publish(&hub, "busy", &n.to_string(), T0 + n);
    }
    publish(&hub, "quiet", "2", T0 + 20);
    let mut quiet = hub.subscribe(&shard, in_sse(topics(&["quiet"])), Start::After(first)).unwrap();
    assert_eq!(read_all(&mut quiet), (vec![], vec!["2".to_owned()]));
    for both in [TopicSet::all(), topics(&["busy", "quiet"])] {
        let mut both = hub.subscribe(&shard, in_sse(both), Start::After(first)).unwrap();
        let (gaps, events) = read_all(&mut both);
        assert_eq!(gaps.len(), 1);
        assert_eq!(gaps[0].topics, [topic("busy")]);
        assert_eq!(events, ["8", "9", "2"]);
    }
}

/// The gap of one topic is not hidden by one of another that reached further and was told before.
#[test]
fn a_loss_below_one_that_was_told_is_told_too() {
    let ring = RingLimits { events: 2, bytes: 1 << 20 };
    for all in [TopicSet::all(), topics(&["aaa", "bbb"])] {
        let (hub, shard) = hub(Limits { ring, ..limits() });
        let mut reader = hub.subscribe(&shard, in_sse(all), Start::Live).unwrap();
        publish(&hub, "bbb", "b1", T0 + 1);
        publish(&hub, "bbb", "b2", T0 + 2);
        // More than a batch of `aaa`, of which two are held.
        for n in 0..5 {
            publish(&hub, "aaa", &n.to_string(), T0 + 10 + n);
        }
        // The reader is told of `aaa` and reads what is held; then it stalls again.
        let (gap, events) = read(&mut reader).unwrap();
        assert_eq!(gap.unwrap().topics, [topic("aaa")]);
        assert_eq!(events, ["b1", "b2", "3", "4"]);
        for n in 0..3 {
            publish(&hub, "bbb", &format!("b{}", 3 + n), T0 + 20 + n);
        }
        let (gap, events) = read(&mut reader).unwrap();
        assert_eq!(gap.unwrap().topics, [topic("bbb")]);
        assert_eq!(events, ["b4", "b5"]);
    }
}

/// In the middle of a replay by batches, a ring loses what the reader has not reached yet, at ids
/// below a floor that it was told of.
#[test]
fn a_loss_in_the_middle_of_a_replay_is_told() {
    let ring = RingLimits { events: 100, bytes: 1 << 20 };
    // Some 60 of them make a block.
    let padded = |name: &str, n: u64| format!("{name}{n} {}", "x".repeat(230));
    for all in [TopicSet::all(), topics(&["aaa", "bbb"])] {
        let (hub, shard) = hub(Limits { ring, ..limits() });
        let mut reader = hub.subscribe(&shard, in_sse(all), Start::Live).unwrap();
        for n in 0..100 {
            publish(&hub, "bbb", &padded("b", n), T0 + n);
        }
        for n in 0..101 {
            publish(&hub, "aaa", &padded("a", n), T0 + 200 + n);
        }
        let (gap, events) = read(&mut reader).unwrap();
        assert_eq!(gap.unwrap().topics, [topic("aaa")], "up to a0, which is beyond all of bbb");
        let first = events.len();
        assert!((50..70).contains(&first) && events[0].starts_with("b0 "), "one block of bbb");
        for n in 0..80 {
            publish(&hub, "bbb", &padded("c", n), T0 + 400 + n);
        }
        let (gap, events) = read(&mut reader).unwrap();
        assert_eq!(gap.unwrap().topics, [topic("bbb")], "up to b79 they are lost");
        assert!(events[0].starts_with("b80 "));
        let (gaps, rest) = read_all(&mut reader);
        assert_eq!((gaps, events.len() + rest.len()), (vec![], 20 + 100 + 80));
    }
}

#[test]
fn histories_are_told_apart() {
    let (old, _) = hub(limits());
    let old_id = publish(&old, "orders", "old", T0 + 5);
    // Another process: its clock is even behind.
    let new = Hub::new(limits(), 8, T0 - 1_000);
    let shard = new.add_shard();
    publish(&new, "orders", "1", T0 - 900);
    let mut reader =
        new.subscribe(&shard, in_sse(topics(&["orders"])), Start::After(old_id)).unwrap();
    assert_eq!(reader.cursor(), old_id);
    let (gaps, events) = read_all(&mut reader);
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].reason, gaps[0].after), (GapReason::Restart, Some(old_id)));
    assert_eq!(events, ["1"], "all that is held follows");
}

#[test]
fn an_id_beyond_the_newest_goes_on_at_the_head() {
    for unknown in [false, true] {
        let (hub, shard) = hub(limits());
        let first = publish(&hub, "orders", "1", T0);
        let beyond = Start::After(EventId { time_ms: T0 + 99_999, ..first });
        let start = if unknown { Start::Unknown } else { beyond };
        let mut reader = hub.subscribe(&shard, in_sse(TopicSet::all()), start).unwrap();
        let (gaps, events) = read_all(&mut reader);
        assert_eq!((gaps[0].reason, gaps[0].upto), (GapReason::UnknownId, first));
        assert_eq!(events, Vec::<String>::new());
        let data = rand::random::<u32>().to_string();
        publish(&hub, "orders", &data, T0 + 1);
        assert_eq!(read_all(&mut reader).1, [data]);
    }
}

#[test]
fn since_includes_its_time_and_tells_what_is_older() {
    let (hub, shard) = hub(limits());
    for n in 1..=3 {
        publish(&hub, "orders", &n.to_string(), T0 + n * 1_000);
    }
    let since = |time_ms| {
        let mut reader =
            hub.subscribe(&shard, in_sse(TopicSet::all()), Start::Since(time_ms)).unwrap();
        let (gaps, events) = read_all(&mut reader);
        (gaps.into_iter().map(|gap| gap.reason).collect::<Vec<_>>(), events.len())
    };
    assert_eq!(since(T0 + 2_000), (vec![], 2));
    assert_eq!(since(T0 + 2_001), (vec![], 1));
    assert_eq!(since(T0 + 9_000), (vec![], 0));
    assert_eq!(since(T0 - 1), (vec![GapReason::Restart], 3));
    assert_eq!(since(0), (vec![GapReason::Restart], 3));
}

#[test]
fn events_age_and_idle_topics_are_reaped_but_not_forgotten() {
    let (hub, shard) = hub(limits());
    let mut with_id = message("orders", "1");
    with_id.message_id = Some("1".to_owned());
    let Published::Stored(first) = hub.publish(with_id.clone(), T0 + 1) else { panic!("new") };
    let before = EventId { sequence: first.sequence - 1, ..first };

    hub.sweep(T0 + 15 * MINUTE_MS);
    assert_eq!(hub.stats().events, 1, "not older than its age");
    hub.sweep(T0 + 15 * MINUTE_MS + 2);
    assert_eq!((hub.stats().events, hub.stats().bytes, hub.stats().topics), (0, 0, 1));
    assert_eq!(hub.publish(with_id.clone(), T0 + 16 * MINUTE_MS), Published::Duplicate(first));
    hub.sweep(T0 + 30 * MINUTE_MS + 2);
    assert_eq!((hub.stats().topics, hub.stats().dedup_ids), (0, 0), "reaped");

    for asked in [TopicSet::all(), topics(&["orders"]), topics(&["never-known"])] {
        let mut reader = hub.subscribe(&shard, in_sse(asked), Start::After(before)).unwrap();
        let (gaps, _) = read_all(&mut reader);
        assert_eq!(gaps.len(), 1, "whatever it was, it can have been in any topic without a ring");
        assert_eq!((gaps[0].reason, gaps[0].upto), (GapReason::Evicted, first));
    }
    let mut reader =
        hub.subscribe(&shard, in_sse(topics(&["orders"])), Start::After(first)).unwrap();
    assert_eq!(read(&mut reader), None, "nothing is missing after it");
    // A ring that is made anew knows what it cannot know.
    publish(&hub, "orders", "2", T0 + 31 * MINUTE_MS);
    let mut reader =
        hub.subscribe(&shard, in_sse(topics(&["orders"])), Start::After(before)).unwrap();
    let (gaps, events) = read_all(&mut reader);
    assert_eq!((gaps.len(), events), (1, vec!["2".to_owned()]));
}

#[test]
fn the_number_of_topics_is_limited_and_the_quietest_goes() {
    let (hub, shard) = hub(Limits { topics: 3, ..limits() });
    let start = hub.head();
    for (n, name) in (1..).zip(["aaa", "bbb", "ccc", "aaa", "ddd"]) {
        publish(&hub, name, &n.to_string(), T0 + n);
    }
    assert_eq!(hub.stats().topics, 3);
    let mut all = hub.subscribe(&shard, in_sse(TopicSet::all()), Start::After(start)).unwrap();
    let (gaps, events) = read_all(&mut all);
    assert_eq!(events, ["1", "3", "4", "5"], "bbb was quiet for longest");
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0].topics, [], "nobody knows which any more");
    let mut kept = hub.subscribe(&shard, in_sse(topics(&["aaa"])), Start::After(start)).unwrap();
    assert_eq!(read_all(&mut kept).0, []);
}

#[test]
fn bytes_are_bounded_per_topic_and_in_total() {
    let ring = RingLimits { events: 1_000, bytes: 10_000 };
    let (hub, shard) = hub(Limits { ring, ring_bytes_total: 30_000, ..limits() });
    let kilobyte = "x".repeat(1_000);
    for n in 0..50 {
        publish(&hub, "orders", &kilobyte, T0 + n);
        assert!(hub.stats().bytes <= 10_000);
    }
    let held_alone = hub.stats().events;
    assert!((6..=9).contains(&held_alone), "{held_alone}");
    for n in 0..500 {
        publish(&hub, &format!("topic-{}", n % 10), &kilobyte, T0 + 50 + n);
        assert!(hub.stats().bytes <= 30_000);
    }
    let mut orders = hub.subscribe(&shard, in_sse(topics(&["orders"])), Start::Since(T0)).unwrap();
    let (gaps, events) = read_all(&mut orders);
    assert_eq!((gaps.len(), events.len()), (1, 0), "the oldest of all went first");
    // An event larger than its ring is held: it was acked.
    publish(&hub, "large", &"y".repeat(20_000), T0 + 600);
    let mut large =
        hub.subscribe(&shard, in_sse(topics(&["large"])), Start::Since(T0 + 600)).unwrap();
    assert_eq!(read_all(&mut large).1.len(), 1);
}

#[test]
fn a_reader_that_never_reads_holds_nothing() {
    let (hub, shard) = hub(Limits { ring: RingLimits { events: 4, bytes: 1 << 20 }, ..limits() });
    let mut reader = hub.subscribe(&shard, in_sse(TopicSet::all()), Start::Live).unwrap();
    for n in 0..10_000 {
        publish(&hub, "orders", &n.to_string(), T0 + n);
    }
    assert_eq!(hub.stats().events, 4);
    let (gaps, events) = read_all(&mut reader);
    assert_eq!(
        (gaps.len(), events),
        (1, ["9996", "9997", "9998", "9999"].map(str::to_owned).to_vec())
    );
}

#[test]
fn message_ids_are_bounded_over_all_topics_and_the_oldest_go_first() {
    let dedup = DedupLimits { age_ms: 30 * MINUTE_MS, ids: 100, ids_total: 10 };
    let (hub, _) = hub(Limits { dedup, ..limits() });
    let push = |name: &str, id: u64, now_ms| {
        let mut with_id = message(name, "x");
        with_id.message_id = Some(id.to_string());
        hub.publish(with_id.clone(), now_ms)
    };
    let mut now_ms = T0;
    for id in 0..50 {
        now_ms += 1;
        assert!(matches!(
            push(if id % 2 == 0 { "aaa" } else { "bbb" }, id, now_ms),
            Published::Stored(_)
        ));
        assert!(hub.stats().dedup_ids <= 10);
    }
    // A newcomer's ids are remembered as long as anyone's.
    let stored = [0, 1, 2, 3, 4].map(|id| match push("newcomer", id, now_ms + id) {
        Published::Stored(event) => event,
        other => panic!("{other:?}"),
    });
    for (id, event) in (0..).zip(stored) {
        assert_eq!(push("newcomer", id, now_ms + 5 + id), Published::Duplicate(event));
    }
    let newest = push("bbb", 49, now_ms + 10);
    assert!(matches!(newest, Published::Duplicate(_)), "among the newest ten");
    assert!(matches!(push("aaa", 40, now_ms + 11), Published::Stored(_)), "not any more");
}

#[test]
fn a_hub_that_drains_takes_nothing_more() {
    let (hub, shard) = hub(limits());
    let mut reader = hub.subscribe(&shard, in_sse(TopicSet::all()), Start::Live).unwrap();
    publish(&hub, "orders", "1", T0);
    hub.drain(std::time::Duration::ZERO);
    assert_eq!(hub.publish(message("orders", "2"), T0), Published::Closed);
    assert_eq!(read_all(&mut reader).1, ["1"], "and gives what it has");
}

/// The ring's limits count what an event takes, so its buffer must not be larger than its bytes.
#[test]
fn an_event_takes_no_more_memory_than_it_is_charged_for() {
    for data in ["x".repeat(100), "line\n".repeat(1_000), "\n".repeat(1_000), "a\r\nb".repeat(500)]
    {
        let event = Draft::new(message("orders", &data)).seal(EventId::ZERO);
        let frame = event.frame().clone();
        drop(event);
        let (len, capacity) = (frame.len(), BytesMut::from(frame).capacity());
        assert!(capacity <= len + len / 3 + 64, "{len} bytes in {capacity}");
    }
}
