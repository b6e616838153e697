//! Readers of topics by prefix.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Wake,
    time::Duration,
};

use stream_events::hub::{Start, TopicSet};
use tokio::task::yield_now;

use crate::hub::helpers::{T0, hub, in_sse, limits, poll, poll_read, publish};

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn patterns(texts: &[&str]) -> TopicSet {
    let patterns: Vec<_> = texts.iter().map(|text| text.parse().unwrap()).collect();
    TopicSet::matching(&patterns)
}

/// Whoever follows a prefix is rung for all that begins with it, also for what is new.
#[tokio::test]
async fn who_follows_a_prefix_is_woken_for_it_and_for_nothing_else() {
    let (hub, shard) = hub(limits());
    let mut reader =
        hub.subscribe(&shard, in_sse(patterns(&["acme.*", "news"])), Start::Live).unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    let local = tokio::task::LocalSet::new();
    local.spawn_local(Rc::clone(&shard).run(Duration::ZERO));
    for (at, (name, wakes)) in
        [("acme.orders", 1), ("acmes", 0), ("other.acme.x", 0), ("acme.new.topic", 1), ("news", 1)]
            .into_iter()
            .enumerate()
    {
        while poll_read(&mut reader, &waker).is_ready() {}
        woken.0.store(0, Ordering::SeqCst);
        publish(&hub, name, "x", T0 + at as u64);
        local
            .run_until(async {
                for _ in 0..20 {
                    yield_now().await;
                }
            })
            .await;
        assert_eq!(woken.0.load(Ordering::SeqCst).min(1), wakes, "{name}");
    }
}

#[test]
fn no_patterns_are_no_topics() {
    let (hub, shard) = hub(limits());
    let mut none = hub.subscribe(&shard, in_sse(patterns(&[])), Start::Live).unwrap();
    let mut all = hub.subscribe(&shard, in_sse(patterns(&["*"])), Start::Live).unwrap();
    publish(&hub, "orders", "x", T0);
    assert!(poll(&mut none).is_none_or(|(gap, events)| gap.is_none() && events.is_empty()));
    assert_eq!(poll(&mut all).unwrap().1.len(), 1);
}
