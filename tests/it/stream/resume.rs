//! Resuming by `Last-Event-ID`: no event is lost or repeated over a reconnect without a gap.

use std::collections::{BTreeSet, HashMap};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::support::{
    gateway::{Gateway, message},
    parser::Dispatched,
    reader::{BY_GATEWAY, CASES, Case, Signal},
    seed,
};

/// Returns the data of a `stream-gap`.
fn gap(event: &Dispatched) -> Value {
    assert_eq!(event.event, "stream-gap", "{event:?}");
    serde_json::from_str(&event.data).unwrap()
}

/// Many readers, each with other topics, disconnect at random and resume in another format over
/// another transport while many writers publish. Each reader receives every event of its topics once
/// and in one order, which keeps the order of each writer.
#[test]
fn resuming_readers_receive_each_event_once() {
    let seed = seed("resuming_readers_receive_each_event_once");
    for (cases, each) in BY_GATEWAY.into_iter().zip([300, 100]) {
        let gateway = cases[0].gateway(&[("ring-events", "100000")]);
        resume_at_random(&gateway, cases, each, seed);
    }
}

fn resume_at_random(gateway: &Gateway, cases: &'static [Case], each: usize, seed: u64) {
    const WRITERS: usize = 4;
    const TOPICS: [&str; 6] = ["topic-a", "topic-b", "topic-c", "topic-d", "topic-e", "topic-f"];
    let begin = cases[0].open(gateway, "").last_event_id().to_owned();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..16)
            .map(|reader| {
                let begin = begin.clone();
                scope.spawn(move || {
                    let mut random = StdRng::seed_from_u64(seed ^ reader);
                    let requested: BTreeSet<&str> =
                        (0..reader % 4).map(|_| TOPICS[random.random_range(0..6_usize)]).collect();
                    let got = follow(gateway, cases, &requested, begin, &mut random);
                    check(&got, &requested, WRITERS * each);
                })
            })
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || {
                    let mut random = StdRng::seed_from_u64(seed ^ (1 << 32) ^ writer as u64);
                    for n in 0..each {
                        let topic = TOPICS[random.random_range(0..6_usize)];
                        gateway.publish(topic, format!("{topic} {writer} {n}"));
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        for topic in TOPICS {
            gateway.publish(topic, format!("{topic} end"));
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// Reads to the last event of all topics, over many connections.
fn follow(
    gateway: &Gateway,
    cases: &[Case],
    requested: &BTreeSet<&str>,
    mut id: String,
    random: &mut StdRng,
) -> Vec<Dispatched> {
    let names: Vec<_> = requested.iter().copied().collect();
    let query =
        if names.is_empty() { String::new() } else { format!("?topic={}", names.join(",")) };
    let mut ends = if names.is_empty() { 6 } else { names.len() };
    let mut seen = Vec::new();
    loop {
        let case = cases[random.random_range(0..cases.len())];
        let mut source = case.resume(gateway, &query, &id);
        for _ in 0..random.random_range(0..60) {
            let event = source.next_raw().expect("the stream has ended");
            assert_ne!(event.event, "stream-gap", "{event:?}");
            ends -= usize::from(event.data.ends_with(" end"));
            seen.push(event);
            if ends == 0 {
                return seen;
            }
        }
        source.last_event_id().clone_into(&mut id);
    }
}

/// Checks ids, order and completeness of the events of one reader.
fn check(seen: &[Dispatched], requested: &BTreeSet<&str>, published: usize) {
    let number = |id: &str| -> (u64, u64) {
        let (time, sequence) = id.split_once('-').unwrap();
        (time.parse().unwrap(), sequence.parse().unwrap())
    };
    assert!(
        seen.is_sorted_by(|a, b| number(&a.id) < number(&b.id)),
        "ids decrease or repeat on a stream"
    );
    let mut last: HashMap<(&str, &str), usize> = HashMap::new();
    let mut counted = 0;
    for event in seen.iter().filter(|event| !event.data.ends_with(" end")) {
        let parts: Vec<_> = event.data.split(' ').collect();
        assert!(
            requested.is_empty() || requested.contains(parts[0]),
            "{} was not requested",
            parts[0]
        );
        let n = parts[2].parse().unwrap();
        if let Some(before) = last.insert((parts[0], parts[1]), n) {
            assert!(before < n, "{} came after {before}", event.data);
        }
        counted += 1;
    }
    if requested.is_empty() {
        assert_eq!(counted, published, "of all topics");
    }
}

/// A reader of one topic and a reader of all topics receive the same events with the same ids.
#[test]
fn all_readers_receive_the_same_events_with_the_same_ids() {
    for cases in BY_GATEWAY {
        let gateway = cases[0].gateway(&[]);
        let open = |query| cases.iter().map(|case| case.open(&gateway, query)).collect::<Vec<_>>();
        let (mut all, mut one) = (open(""), open("?topic=orders"));
        for n in 0..50 {
            gateway.publish(["orders", "parcels"][n % 2], n.to_string());
        }
        let expected: Vec<_> = (0..50).map(|_| all[0].next()).collect();
        for all in &mut all[1..] {
            assert!(expected.iter().all(|event| all.next() == *event));
        }
        for one in &mut one {
            assert!(expected.iter().step_by(2).all(|event| one.next() == *event));
        }
    }
}

#[test]
fn gap_is_sent_again_until_the_reader_is_past_it() {
    for case in CASES {
        let gateway = case.gateway(&[("ring-events", "2")]);
        let mut live = case.open(&gateway, "");
        for n in 0..10 {
            gateway.publish("orders", n.to_string());
        }
        let ids: Vec<_> = (0..10).map(|_| live.next().id).collect();

        // Cut after the first message, before the gap.
        let cut = case.resume(&gateway, "", &ids[0]);
        assert_eq!(cut.last_event_id(), ids[0]);
        drop(cut);
        // Cut after the gap, before the first event: the gap has no id.
        let mut cut = case.resume(&gateway, "", &ids[0]);
        let expected = json!({
            "reason": "evicted", "topics": ["orders"], "after": ids[0], "upto": ids[7],
        });
        assert_eq!(gap(&cut.next_raw().unwrap()), expected);
        assert_eq!(cut.last_event_id(), ids[0]);
        drop(cut);
        let mut resumed = case.resume(&gateway, "", &ids[0]);
        gap(&resumed.next_raw().unwrap());
        assert_eq!(resumed.next().id, ids[8]);
        let past = resumed.last_event_id().to_owned();
        drop(resumed);
        // After the gap, it is not sent again.
        assert_eq!(case.resume(&gateway, "", &past).next_raw().unwrap().data, "9");
        let gaps = gateway.metric("stream_events_gaps_total{reason=\"evicted\"}");
        assert!(
            (2.0..4.0).contains(&gaps),
            "the disconnected readers may have been sent the gap: {gaps}"
        );
    }
}

/// When no event follows a gap, the reader receives an id beyond the gap at once, without an event.
#[test]
fn id_follows_a_gap_at_once_when_no_event_does() {
    for case in CASES {
        let gateway = case.gateway(&[("topics-max", "1")]);
        let begin = case.open(&gateway, "").last_event_id().to_owned();
        gateway.publish("orders", "gone");
        gateway.publish("parcels", "held");
        let mut source = case.resume(&gateway, "?topic=orders", &begin);
        let gap_data = gap(&source.next_raw().unwrap());
        assert_eq!(
            (gap_data["reason"].as_str(), &gap_data["topics"][0]),
            (Some("evicted"), &"orders".into())
        );
        let Some(Signal::Checkpoint(id)) = source.next_signal() else { panic!("no id") };
        let mut resumed = case.resume(&gateway, "?topic=orders", &id);
        gateway.publish("orders", "new");
        assert_eq!(resumed.next_raw().unwrap().data, "new", "the gap is not sent again");
    }
}

#[test]
fn id_of_another_process_is_a_gap_before_all_held_events() {
    CASES.into_iter().for_each(move_between_processes);
}

fn move_between_processes(case: Case) {
    let [first, second] = [case.gateway(&[]), case.gateway(&[])];
    let [mut of_first, mut of_second] = [&first, &second].map(|gateway| case.open(gateway, ""));
    for n in 0..3 {
        first.push("orders", &message(format!("first {n}"), &n.to_string()));
        second.push("orders", &message(format!("second {n}"), &n.to_string()));
    }
    // As two pods during a rolling update: with the same clock, their ids interleave.
    for (source, other, name) in
        [(&mut of_first, &second, "second"), (&mut of_second, &first, "first")]
    {
        let id = source.next().id;
        let mut moved = case.resume(other, "?topic=orders", &id);
        assert_eq!(moved.last_event_id(), id);
        let gap_data = gap(&moved.next_raw().unwrap());
        assert_eq!(
            (&gap_data["reason"], &gap_data["after"]),
            (&"restart".into(), &id.clone().into())
        );
        assert_eq!(gap_data["topics"][0], "orders");
        assert_eq!(moved.take(3), [0, 1, 2].map(|n| format!("{name} {n}")));
        // From here on the reader has ids of the other process.
        let id = moved.last_event_id().to_owned();
        other.publish("orders", "next");
        assert_eq!(case.resume(other, "", &id).next_raw().unwrap().data, "next");
    }
}

#[test]
fn invalid_last_event_ids_are_a_gap_and_not_refused() {
    CASES.into_iter().for_each(send_invalid_ids);
}

fn send_invalid_ids(case: Case) {
    let gateway = case.gateway(&[]);
    let mut live = case.open(&gateway, "");
    gateway.publish("orders", "1");
    let newest = live.next().id;
    let (time, sequence) = newest.split_once('-').unwrap();
    let later = format!("{}-{sequence}", time.parse::<u64>().unwrap() + 1);
    let long = "9".repeat(5_000);
    for id in ["abc", "1", "1-", "-1", "1-2-3", "1-x", "0x1-2", "é", "1-2\u{a0}", &long, &later] {
        let mut source = case.resume(&gateway, "", id);
        let opened = source.opened.clone().unwrap();
        let gap_data = gap(&source.next_raw().unwrap());
        assert_eq!(
            (&gap_data["reason"], &gap_data["upto"]),
            (&"unknown-id".into(), &newest.clone().into())
        );
        let well_formed = id == later;
        assert_eq!(gap_data["after"], if well_formed { id.into() } else { Value::Null });
        assert_eq!(opened.id, if well_formed { id } else { &newest });
        assert_eq!(source.next_signal(), Some(Signal::Checkpoint(newest.clone())));
        let open: Value = serde_json::from_str(&opened.data).unwrap();
        assert_eq!(open["resumed"], false);
    }
    // An empty header counts as none.
    let mut source = case.resume(&gateway, "", "");
    gateway.publish("orders", "2");
    assert_eq!(source.next_raw().unwrap().data, "2");
}
