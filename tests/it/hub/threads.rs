//! The hub with many threads at once, and with very many topics.

use std::{
    rc::Rc,
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use stream_events::{
    hub::{Limits, RingLimits, Start, TopicSet},
    model::event_id::EventId,
};

use crate::{
    hub::helpers::{T0, found, hub, in_sse, limits, poll, poll_read, publish, read, topic, topics},
    support::PATIENCE,
};

/// Ids are handed out and put into the rings in one critical section, and a read takes all its rings
/// under the same lock: otherwise a reader sees 11 before 10 shows up in another ring.
#[test]
fn ids_never_decrease_and_nothing_is_lost_with_many_writers() {
    const WRITERS: usize = 4;
    const EACH: usize = 20_000;
    let limits = Limits { ring: RingLimits { events: 200_000, bytes: 1 << 30 }, ..limits() };
    let (hub, _) = hub(Limits { ring_bytes_total: 1 << 30, ..limits });
    let all: Vec<_> = (0..20).map(|n| format!("topic-{n}")).collect();
    let named = |count: usize| TopicSet::new(all[..count].iter().map(|name| topic(name)).collect());
    let (hub, all, ready) = (&hub, &all, &Barrier::new(WRITERS + 3));
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                ready.wait();
                for n in 0..EACH {
                    publish(hub, &all[(n + writer) % 20], "x", T0 + n as u64 / 100);
                }
            });
        }
        for (asked, share) in [(TopicSet::all(), 1), (named(20), 1), (named(4), 5)] {
            scope.spawn(move || {
                let mut reader =
                    hub.subscribe(&hub.add_shard(), in_sse(asked), Start::Live).unwrap();
                ready.wait();
                let (mut last, mut seen) = (EventId::ZERO, 0);
                let start = Instant::now();
                while seen < WRITERS * EACH / share {
                    assert!(start.elapsed() < PATIENCE, "only {seen} came");
                    let Some((gap, events)) = poll(&mut reader) else { continue };
                    assert_eq!(gap, None);
                    for (id, _) in events {
                        assert!(last < id, "{id} came after {last}");
                        last = id;
                        seen += 1;
                    }
                }
            });
        }
    });
}

/// The bell: one event, and no other until it was read, published at the very moment at which the
/// reader finds nothing and begins to wait. A wake-up that is missed once is missed for good.
#[actix_web::test]
async fn no_wake_up_is_missed() {
    const EVENTS: u64 = 50_000;
    let (hub, shard) = hub(limits());
    let shard_task = actix_web::rt::spawn(Rc::clone(&shard).run(Duration::from_millis(5)));
    for asked in [TopicSet::all(), topics(&["orders"])] {
        let mut reader = hub.subscribe(&shard, in_sse(asked), Start::Live).unwrap();
        let (publisher, seen) = (hub.clone(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&seen);
        let writer = std::thread::spawn(move || {
            for n in 0..EVENTS {
                while counted.load(Ordering::SeqCst) < n && 1 < Arc::strong_count(&counted) {
                    std::hint::spin_loop();
                }
                publish(&publisher, "orders", "x", T0 + n);
            }
        });
        let all = async {
            while seen.load(Ordering::SeqCst) < EVENTS {
                let read = std::future::poll_fn(|cx| poll_read(&mut reader, cx.waker())).await;
                let (gap, events) = found(read);
                assert_eq!(gap, None);
                seen.fetch_add(events.len() as u64, Ordering::SeqCst);
            }
        };
        let got = tokio::time::timeout(Duration::from_secs(60), all).await;
        assert!(got.is_ok(), "a wake-up was missed after {seen:?} events");
        drop(seen);
        writer.join().unwrap();
    }
    shard_task.abort();
}

/// A reader of all of 10,000 topics costs no scan of them per event.
#[test]
fn following_ten_thousand_topics_is_no_scan() {
    let time = |count: usize| {
        let (hub, shard) = hub(Limits { topics: 20_000, ..limits() });
        for n in 0..count {
            publish(&hub, &format!("topic-{n}"), "x", T0);
        }
        let mut reader = hub.subscribe(&shard, in_sse(TopicSet::all()), Start::Live).unwrap();
        let start = Instant::now();
        for n in 0..2_000 {
            publish(&hub, &format!("topic-{}", n % count), "x", T0 + 1);
            assert_eq!(read(&mut reader).unwrap().1.len(), 1);
        }
        start.elapsed()
    };
    // Side by side, the best of five: a scan would make it a thousand times slower, not a few.
    let pairs: Vec<_> = (0..5).map(|_| (time(10), time(10_000))).collect();
    let few = pairs.iter().map(|(few, _)| *few).min().unwrap();
    let many = pairs.iter().map(|(_, many)| *many).min().unwrap();
    assert!(many < few * 10, "10 topics: {few:?}, 10,000 topics: {many:?}");
}
