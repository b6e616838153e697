//! What readers at the same place are given: one read, shared, and only while it is still true.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    time::Duration,
};

use stream_events::{
    hub::{Broadcast, Limits, Position, Reader, RingLimits, Start, TopicSet},
    model::topic::Topic,
};
use tokio::task::{LocalSet, spawn_local, yield_now};

use crate::hub::helpers::{T0, hub, in_sse, limits, poll, publish, read, read_all, topics};

/// A reader that was told what is missing gets what is left, and nothing that another one read when
/// there was more: or an event would come after the gap that tells of it, and the next one would
/// be missing with nothing said.
#[test]
fn nobody_is_given_what_it_was_told_is_missing() {
    let ring = RingLimits { events: 2, bytes: 1 << 20 };
    // Two of them are more than a block.
    let large = |name: &str| format!("{name} {}", "x".repeat(10_000));
    for all in [TopicSet::all(), topics(&["aaa", "bbb"])] {
        let (hub, shard) = hub(Limits { ring, ..limits() });
        let mut late = hub.subscribe(&shard, in_sse(all.clone()), Start::Live).unwrap();
        let a0 = publish(&hub, "aaa", "a0", T0);
        let mut early = hub.subscribe(&shard, in_sse(all), Start::After(a0)).unwrap();
        publish(&hub, "bbb", &large("b1"), T0 + 1);
        publish(&hub, "aaa", &large("a1"), T0 + 2);
        publish(&hub, "aaa", "a2", T0 + 3);
        // Two reads: one of b1, which is a block, and one from there on.
        let (_, events) = read_all(&mut early);
        assert_eq!(events.len(), 3);
        for n in 3..6 {
            publish(&hub, "aaa", &large(&format!("a{n}")), T0 + 1 + n);
        }

        let (gap, events) = read(&mut late).unwrap();
        let gap = gap.unwrap();
        assert_eq!((gap.topics, gap.upto.time_ms), (vec!["aaa".parse::<Topic>().unwrap()], T0 + 4));
        assert!(events.len() == 1 && events[0].starts_with("b1 "));
        let mut rest = Vec::new();
        while let Some((gap, events)) = poll(&mut late) {
            assert_eq!(gap, None);
            rest.extend(events.into_iter().map(|(id, _)| id.time_ms));
        }
        assert_eq!(rest, [T0 + 5, T0 + 6]);
    }
}

/// Reads on, for nobody.
struct Walker {
    reader: Reader,
    at: RefCell<Position>,
    looks: Cell<usize>,
}

impl Broadcast for Walker {
    fn write_pass(&self, _: usize) -> Option<usize> {
        let mut at = self.at.borrow_mut();
        self.reader.read(&mut at);
        self.looks.set(self.looks.get() + 1);
        if at.has_more() {
            self.reader.reschedule();
        }
        None
    }
}

/// A walk past the events of other topics, however long, is made in turns with the thread's other
/// tasks.
#[tokio::test]
async fn a_long_walk_keeps_nobody_waiting() {
    const EVENTS: usize = 200_000;
    let ring = RingLimits { events: EVENTS, bytes: 1 << 30 };
    let (hub, shard) = hub(Limits { ring, ring_bytes_total: 1 << 30, ..limits() });
    let names: Vec<_> = (0..17).map(|n| format!("topic{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let one = hub.subscribe(&shard, in_sse(topics(&names)), Start::Live).unwrap();
    let (reader, at) = (one.reader().clone(), RefCell::new(one.position()));
    let walker = Rc::new(Walker { reader, at, looks: Cell::default() });
    let weak: Weak<Walker> = Rc::downgrade(&walker);
    one.reader().group().set_broadcast(weak);
    for _ in 0..EVENTS {
        publish(&hub, "others", "x", T0);
    }
    publish(&hub, "topic0", "x", T0);
    let all = LocalSet::new();
    all.run_until(async {
        spawn_local(shard.run(Duration::ZERO));
        let mut seen = 0;
        while seen == 0 || walker.at.borrow().has_more() {
            yield_now().await;
            let looks = walker.looks.get();
            assert!(looks <= seen + 1, "{seen} and then {looks} looks");
            seen = looks;
        }
        assert!(10 < seen, "{seen} are no long walk");
    })
    .await;
}
