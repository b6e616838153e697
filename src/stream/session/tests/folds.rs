//! Tests of folds: `rewind=`, `latest=` and `slow=latest`.

use std::collections::BTreeMap;

use super::{
    fixture::{Gateway, KEEP_ALIVE, RING_AGE_MS, Stream, hub, topic},
    gap,
};
use crate::{
    hub::{BATCH_MAX_BYTES, Start, TopicSet},
    limits::budget::Budget,
    model::{
        control::{Control, EndReason, Folded},
        event_id::EventId,
        filter::Filter,
        gap::GapReason,
        message::Message,
    },
    stream::{
        fold::{FOLD_EVENTS_MAX, FoldBy, FoldRule, Slow},
        large::LargeEvents,
        pending::PendingStream,
        session::Next,
    },
};

use super::fixture::NOW_MS;

const REWIND_2: FoldRule = FoldRule { by: FoldBy::Topic, count: 2 };

/// Publishes an event with an ordering key and an attribute `device`. "" means none.
fn publish(gateway: &Gateway, name: &str, key: &str, device: &str, data: &str) -> EventId {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let attributes = some(device).map(|device| ("device".to_owned(), device));
    gateway.publish_message(Message {
        ordering_key: some(key),
        attributes: attributes.into_iter().collect(),
        ..Message::for_tests(name, data.to_owned())
    })
}

/// Opens a stream of `orders` and `parcels` that begins with the events that `rule` selects.
fn open(gateway: &Gateway, start: Start, rule: Option<FoldRule>) -> Stream {
    gateway.open_pending(pending(gateway, start, rule))
}

fn pending(gateway: &Gateway, start: Start, rule: Option<FoldRule>) -> PendingStream {
    let mut pending = gateway.pending(start);
    pending.key.topics = TopicSet::new(["orders", "parcels"].map(topic).into());
    PendingStream { fold: rule, slow: Slow::LATEST, ..pending }
}

/// Takes steps until the stream waits. Returns the data of its events, and its control messages.
fn run(stream: &mut Stream) -> (Vec<String>, Vec<Control>) {
    let (mut data, mut said) = (Vec::new(), Vec::new());
    loop {
        match stream.next() {
            Next::Give(bytes) => {
                assert!(bytes.len() <= BATCH_MAX_BYTES);
                let text = String::from_utf8(bytes.to_vec()).unwrap();
                data.extend(text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()));
            }
            Next::Say(control) => said.push(control),
            Next::Yield => {}
            Next::WaitUntil(_) => return (data, said),
            other => panic!("unexpected: {other:?}"),
        }
    }
}

#[test]
fn a_rewind_begins_with_the_last_events_of_each_topic_and_goes_on() {
    let gateway = Gateway::new(hub(4));
    for (name, data) in [("parcels", "p"), ("orders", "a"), ("another", "x"), ("orders", "b")] {
        gateway.publish(name, data);
    }
    let c = gateway.publish("orders", "c");
    let mut stream = open(&gateway, Start::Held, Some(REWIND_2));
    let before_first = stream.say_open();
    assert!(!before_first.resumed);
    assert_eq!(run(&mut stream), (["p", "b", "c"].map(str::to_owned).into(), vec![]));
    gateway.publish("orders", "d");
    assert_eq!(run(&mut stream).0, ["d"]);
    // A reader that is cut resumes where it was, and also before its first event.
    let mut again = gateway.open(Start::After(before_first.id));
    assert_eq!(run(&mut again).0, ["a", "b", "c", "d"], "of one topic, all after the parcel");
    let mut again = gateway.open(Start::After(c));
    assert_eq!(run(&mut again).0, ["d"]);
}

#[test]
fn a_rewind_tells_no_loss_of_older_events_and_a_time_does() {
    let gateway = Gateway::new(hub(2));
    let ids = ["a", "b", "c"].map(|data| gateway.publish("orders", data));
    let rule = FoldRule { count: 9, ..REWIND_2 };
    let mut stream = open(&gateway, Start::Held, Some(rule.clone()));
    let open_id = stream.say_open().id;
    assert_eq!(open_id, ids[0], "right before the first event");
    assert_eq!(run(&mut stream), (["b", "c"].map(str::to_owned).into(), vec![]));
    let mut stream = open(&gateway, Start::Since(NOW_MS), Some(rule));
    stream.say_open();
    assert_eq!(stream.say_gap().upto, ids[0]);
    assert_eq!(run(&mut stream).0, ["b", "c"]);
}

#[test]
fn nothing_held_is_nothing_sent_and_the_stream_is_at_the_head() {
    let gateway = Gateway::new(hub(2));
    let head = gateway.publish("another", "a");
    let mut stream = open(&gateway, Start::Held, Some(REWIND_2));
    assert_eq!(stream.say_open().id, head);
    assert_eq!(stream.wait(), KEEP_ALIVE);
    gateway.publish("parcels", "b");
    assert_eq!(run(&mut stream).0, ["b"]);
}

#[test]
fn latest_selects_the_newest_of_each_key_and_topic_that_the_filter_shows() {
    let gateway = Gateway::new(hub(99));
    for (name, key, device, data) in [
        ("orders", "k", "d1", "1"),
        ("orders", "k", "d2", "2"),
        ("parcels", "k", "d1", "3"),
        ("orders", "", "", "4"),
        ("orders", "l", "d1", "5"),
        ("orders", "", "d3", "6"),
        ("orders", "", "", "7"),
        ("orders", "k", "d1", "8"),
    ] {
        publish(&gateway, name, key, device, data);
    }
    let of = |by: FoldBy, filter: Option<&str>| {
        let mut pending = pending(&gateway, Start::Held, Some(FoldRule::newest(by)));
        pending.key.filter = filter.map(|text| Filter::parse(text).unwrap());
        let mut stream = gateway.open_pending(pending);
        stream.say_open();
        run(&mut stream).0
    };
    let device = || FoldBy::Attribute("device".into());
    assert_eq!(of(FoldBy::OrderingKey, None), ["3", "5", "7", "8"]);
    assert_eq!(of(device(), None), ["2", "3", "6", "7", "8"]);
    assert_eq!(of(device(), Some("attributes:device")), ["2", "3", "6", "8"]);
    assert_eq!(of(FoldBy::OrderingKey, Some("attributes.device = \"d1\"")), ["3", "5", "8"]);
}

#[test]
fn a_long_fold_lets_others_run_and_gives_batches() {
    const EVENTS: usize = 3_000;
    let gateway = Gateway::new(hub(EVENTS));
    let data = |n: usize| format!("{n} {}", "x".repeat(50));
    for n in 0..EVENTS {
        gateway.publish("orders", &data(n));
    }
    let rule = FoldRule { count: 1_000, ..REWIND_2 };
    let mut stream = open(&gateway, Start::Held, Some(rule));
    assert!(matches!(stream.next(), Next::Yield));
    assert!(0 < gateway.context.folds.bytes());
    while !matches!(stream.next(), Next::Say(Control::Open(_))) {}
    let expected: Vec<_> = (EVENTS - 1_000..EVENTS).map(data).collect();
    assert_eq!(run(&mut stream), (expected, vec![]));
    assert_eq!(gateway.context.folds.bytes(), 0);
}

#[test]
fn a_fold_with_too_many_keys_or_bytes_gives_the_newest_and_tells_the_rest() {
    let gateway = Gateway::new(hub(usize::MAX));
    let ids: Vec<_> = (0..FOLD_EVENTS_MAX + 9)
        .map(|n| publish(&gateway, "orders", &n.to_string(), "", &n.to_string()))
        .collect();
    let latest = FoldRule::newest(FoldBy::OrderingKey);
    let mut stream = open(&gateway, Start::Held, Some(latest.clone()));
    let (events, said) = run(&mut stream);
    assert_eq!((events.len(), events[0].as_str()), (FOLD_EVENTS_MAX, "9"));
    let [Control::Open(open_message), Control::Gap(gap)] = &said[..] else { panic!("{said:?}") };
    assert_eq!((gap.reason, gap.upto), (GapReason::FoldLimit, ids[8]));
    assert!(open_message.id < ids[0], "a reader that is cut before the gap gets it again");
    // Another event of a key that is selected takes the place of the first.
    publish(&gateway, "orders", "100", "", "newer");
    let mut stream = open(&gateway, Start::After(ids[8]), Some(latest.clone()));
    let (events, said) = run(&mut stream);
    assert_eq!((events.len(), said.len()), (FOLD_EVENTS_MAX, 1), "no gap: {:?}", said.get(1));
    let gateway = Gateway::with(hub(9), |context| context.folds = Budget::new(BATCH_MAX_BYTES));
    let data = "x".repeat(BATCH_MAX_BYTES / 2);
    let ids = ["1", "2", "3"].map(|key| publish(&gateway, "orders", key, "", &data));
    let mut stream = open(&gateway, Start::Held, Some(latest.clone()));
    let (events, said) = run(&mut stream);
    let Control::Gap(gap) = &said[1] else { panic!("{said:?}") };
    assert_eq!((events.len(), gap.upto), (1, ids[1]));
    let mut claim = gateway.context.folds.claim();
    assert!(claim.grow(BATCH_MAX_BYTES));
    let mut stream = open(&gateway, Start::Held, Some(latest));
    let (events, said) = run(&mut stream);
    let [_, Control::Gap(gap), Control::Checkpoint(head)] = &said[..] else { panic!("{said:?}") };
    assert_eq!((events.len(), gap.upto, *head), (0, ids[2], ids[2]));
}

/// Returns the counts that a stream told, and checks that they are the sum of those of their keys.
fn folded(said: &[Control]) -> Vec<Folded> {
    let folded = said.iter().filter_map(|control| match control {
        Control::Folded(folded) => Some((**folded).clone()),
        _ => None,
    });
    let folded: Vec<_> = folded.collect();
    assert!(folded.iter().all(|it| it.events == it.keys.values().sum::<u64>()));
    folded
}

#[test]
fn a_reader_that_cannot_keep_up_gets_the_newest_of_each_key_with_counts() {
    let gateway = Gateway::new(hub(usize::MAX));
    let mut stream = open(&gateway, Start::Live, None);
    let opened_at = stream.say_open().id;
    stream.wait();
    let data = |n: usize| format!("{n} {}", "x".repeat(500));
    for n in 0..100 {
        publish(&gateway, "orders", ["", "a", "b", "c"][n % 4], "", &data(n));
    }
    let last = publish(&gateway, "parcels", "a", "", "parcel");
    stream.session.mark_blocked();
    let (events, said) = run(&mut stream);
    assert_eq!(events, [data(96), data(97), data(98), data(99), "parcel".to_owned()]);
    let counts = ["", "a", "b", "c"].map(|key| (key.to_owned(), 24));
    let expected =
        Folded { events: 96, after: opened_at, upto: last, keys: BTreeMap::from(counts) };
    assert_eq!(folded(&said), [expected]);
    assert_eq!(gateway.context.metrics.folded.get(), 96);
    assert_eq!(gateway.context.folds.bytes(), 0);
    // It keeps up again.
    for n in 0..100 {
        gateway.publish("orders", &data(n));
    }
    assert_eq!(run(&mut stream), ((0..100).map(data).collect(), vec![]));
}

#[test]
fn a_reader_with_a_batch_or_less_to_read_gets_all_of_it() {
    let gateway = Gateway::new(hub(usize::MAX));
    let mut stream = open(&gateway, Start::Live, None);
    stream.say_open();
    for n in 0..9 {
        publish(&gateway, "orders", "a", "", &n.to_string());
    }
    stream.session.mark_blocked();
    assert_eq!(run(&mut stream), ((0..9).map(|n| n.to_string()).collect(), vec![]));
    // It had everything in between, so it has kept up.
    for n in 0..2_000 {
        publish(&gateway, "orders", "a", "", &n.to_string());
    }
    assert_eq!(run(&mut stream).0.len(), 2_000);
}

#[test]
fn what_left_its_ring_before_it_was_folded_is_told_as_a_gap() {
    let gateway = Gateway::new(hub(1_000));
    let mut stream = open(&gateway, Start::Live, None);
    let opened_at = stream.say_open().id;
    let ids: Vec<_> = (0..3_000)
        .map(|n| publish(&gateway, "orders", ["a", "b"][n % 2], "", &n.to_string()))
        .collect();
    stream.session.mark_blocked();
    let (events, said) = run(&mut stream);
    let lost = gap(GapReason::Evicted, Some(opened_at), ids[1_999]);
    assert_eq!(said[0], Control::Gap(Box::new(lost)));
    let counted: u64 = folded(&said).iter().map(|it| it.events).sum();
    assert_eq!(events.len() as u64 + counted, 1_000);
    assert_eq!(events.last().unwrap(), "2999");
}

#[test]
fn a_stream_that_ends_during_a_fold_resumes_after_its_last_event() {
    let gateway = Gateway::new(hub(usize::MAX));
    let data = |n: usize| format!("{n} {}", "x".repeat(BATCH_MAX_BYTES / 2));
    let ids = [0, 1, 2].map(|n| gateway.publish("orders", &data(n)));
    let mut pending = pending(&gateway, Start::Held, Some(FoldRule { count: 9, ..REWIND_2 }));
    pending.end_at = gateway.begun + KEEP_ALIVE / 2;
    let mut stream = gateway.open_pending(pending);
    stream.say_open();
    assert_eq!(stream.give(), format!("{} {}\n", ids[0], data(0)));
    assert!(stream.session.subscriber().unwrap().cursor() < ids[0]);
    stream.advance(KEEP_ALIVE / 2);
    assert_eq!(stream.say_end().reason, EndReason::MaxAge, "and no checkpoint");
}

#[test]
fn events_of_a_fold_outlive_their_rings() {
    let gateway = Gateway::new(hub(9));
    let data = ["a", "b"].map(|name| format!("{name} {}", "x".repeat(BATCH_MAX_BYTES / 2)));
    for data in &data {
        gateway.publish("orders", data);
    }
    let mut stream = open(&gateway, Start::Held, Some(REWIND_2));
    stream.say_open();
    gateway.hub().sweep(NOW_MS + RING_AGE_MS + 1);
    assert_eq!(run(&mut stream), (data.to_vec(), vec![]), "all of it came, so nothing is told");
}

/// A fold gives a large event up to the budget for large events. If that is used up, and the event
/// has left its ring, the stream is cut before the event, and its reader resumes with a gap.
#[test]
fn a_large_event_of_a_fold_that_is_cut_is_told_as_a_gap() {
    let gateway = Gateway::with(hub(9), |context| context.large_events = LargeEvents::new(0));
    let before = gateway.publish("orders", "before");
    let large = gateway.publish("orders", &"x".repeat(3 * BATCH_MAX_BYTES));
    let mut stream = open(&gateway, Start::Held, Some(REWIND_2));
    let begin = stream.say_open().id;
    assert!(begin < before);
    gateway.hub().sweep(NOW_MS + RING_AGE_MS + 1);
    assert_eq!(stream.give(), format!("{before} before\n"));
    assert_eq!(stream.give().len(), BATCH_MAX_BYTES);
    assert!(matches!(stream.next(), Next::FellBehind));
    let mut resumed = open(&gateway, Start::After(before), Some(REWIND_2));
    assert_eq!(resumed.say_open().id, before);
    let gap = resumed.say_gap();
    assert_eq!((gap.after, gap.upto), (Some(before), large));
}
