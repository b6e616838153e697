//! What readers at the same place are given: one read, shared, and only while it is still true.

use stream_events::{
    hub::{Limits, RingLimits, Start, Topics},
    message::Topic,
};

use crate::hub::{T0, hub, limits, poll, publish, read, read_all, topics};

/// A reader that was told what is missing gets what is left, and nothing that another one read when
/// there was more: or an event would come after the gap that tells of it, and the next one would
/// be missing with nothing said.
#[test]
fn nobody_is_given_what_it_was_told_is_missing() {
    let ring = RingLimits { events: 2, bytes: 1 << 20 };
    // Two of them are more than a block.
    let large = |name: &str| format!("{name} {}", "x".repeat(10_000));
    for all in [Topics::all(), topics(&["aaa", "bbb"])] {
        let (hub, shard) = hub(Limits { ring, ..limits() });
        let mut late = hub.subscribe(&shard, all.clone(), Start::Live).unwrap();
        let a0 = publish(&hub, "aaa", "a0", T0);
        let mut early = hub.subscribe(&shard, all, Start::After(a0)).unwrap();
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
