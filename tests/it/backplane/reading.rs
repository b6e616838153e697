//! All ways of reading on three replicas: each replica gives the same events with the same ids,
//! and a reader can continue on another replica, in another format and over another transport.

use std::{collections::BTreeSet, sync::Mutex};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    outlet::poll::{next, poll},
    support::{
        eventually,
        gateway::{Gateway, message},
        reader::{Case, Format, Reader, Transport},
        redis::RedisServer,
        seed,
    },
};

/// Id and number of an event.
type Seen = (String, usize);

/// Transport of each replica.
const TRANSPORTS: [Transport; 3] = [Transport::Plain, Transport::Http2, Transport::Tls];
const FORMATS: [(Format, &str); 4] = [
    (Format::Sse, "message"),
    (Format::Ndjson, "cloudevents"),
    (Format::Sse, "cloudevents"),
    (Format::Ndjson, "message"),
];

fn start() -> (RedisServer, [Gateway; 3]) {
    let redis = RedisServer::start();
    let replicas = TRANSPORTS.map(|transport| {
        let case = Case { format: Format::Sse, transport };
        let gateway = case.gateway(&[("backplane", &redis.url())]);
        eventually("ready", || (gateway.get("/readyz", &[]).status == 200).then_some(()));
        gateway
    });
    (redis, replicas)
}

fn topic(n: usize) -> usize {
    n / 3 % 3
}

fn is_shown(n: usize) -> bool {
    n % 4 < 3
}

fn push(gateway: &Gateway, n: usize) {
    let mut message = message(format!("event {n}"), &n.to_string());
    message["orderingKey"] = format!("key {}", n % 5).into();
    message["attributes"] = if is_shown(n) { json!({ "shown": "" }) } else { json!({}) };
    let topic = ["orders.eu", "orders.us", "parcels"][topic(n)];
    assert_eq!(gateway.push(topic, &message).status, 204);
}

/// Calls `write` with the numbers below `events` in three threads, which differ by `n % 3`.
fn write_all(events: usize, write: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for first in 0..3 {
            let write = &write;
            scope.spawn(move || (first..events).step_by(3).for_each(write));
        }
    });
}

/// Opens a stream, after an id unless it is empty.
fn open(replicas: &[Gateway; 3], at: usize, format: usize, query: &str, id: &str) -> Reader {
    let (format, name) = FORMATS[format % 4];
    let case = Case { format, transport: TRANSPORTS[at % 3] };
    case.open(&replicas[at % 3], &format!("?format={name}{query}&last_event_id={id}"))
}

fn take(reader: &mut Reader, n: usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    while seen.len() < n {
        let event = reader.next_raw().expect("the stream has ended");
        assert_ne!(event.event, "stream-gap", "{event:?}");
        if !event.event.starts_with("stream-") {
            // NDJSON has the data alone here, and server-sent events an object of the format.
            let object = serde_json::from_str(&event.data);
            let data = object.map_or(event.data.into(), |mut object: Value| object["data"].take());
            seen.push((event.id, number(&data)));
        }
    }
    seen
}

fn number(data: &Value) -> usize {
    data.as_str().unwrap().strip_prefix("event ").unwrap().parse().unwrap()
}

fn seen_in(page: &Value) -> Vec<Seen> {
    assert_eq!(page["gap"], Value::Null);
    let id = |event: &Value| event["lasteventid"].as_str().or(event["id"].as_str()).unwrap().into();
    let events = page["events"].as_array().unwrap().iter();
    events.map(|event| (id(event), number(&event["data"]))).collect()
}

/// Events of `all` after an id.
fn after(all: &[Seen], id: &str) -> Vec<Seen> {
    let order =
        |id: &str| id.split_once('-').map(|(ms, n)| [ms, n].map(|n| n.parse::<u64>().unwrap()));
    assert!(all.is_sorted_by(|a, b| order(&a.0) < order(&b.0)));
    all.iter().filter(|seen| order(id) < order(&seen.0)).cloned().collect()
}

/// Newest `count` events of each key among `all`.
fn newest(all: &[Seen], count: usize, key: fn(usize) -> (usize, usize)) -> Vec<Seen> {
    let later = |event: &Seen| {
        let mut of_key = all.iter().rev().filter(|other| key(other.1) == key(event.1));
        of_key.position(|other| other == event).unwrap()
    };
    all.iter().filter(|event| later(event) < count).cloned().collect()
}

/// Reads to event `last`, over streams that are cut or in pages. Each is of another replica and in
/// another format than the one before.
fn read(
    replicas: &[Gateway; 3],
    id: &str,
    last: usize,
    mut random: StdRng,
    polls: bool,
) -> Vec<Seen> {
    let (mut id, mut seen, mut at, mut format) = (id.to_owned(), Vec::new(), 0, 0);
    while seen.len() <= last {
        at += if polls { 1 } else { random.random_range(1..3) };
        format += random.random_range(1..4);
        if polls {
            let (limit, format) = (random.random_range(1..12), FORMATS[format % 4].1);
            let query = format!("&wait=5s&limit={limit}&format={format}&last_event_id={id}");
            let page = poll(&replicas[at % 3], &query);
            seen.extend(seen_in(&page));
            next(&page).clone_into(&mut id);
        } else {
            let mut reader = open(replicas, at, format, "", &id);
            let left = last + 1 - seen.len();
            seen.extend(take(&mut reader, random.random_range(0..60).min(left)));
            reader.last_event_id().clone_into(&mut id);
        }
    }
    seen
}

#[test]
fn readers_that_change_replica_and_format_get_what_an_uncut_reader_gets() {
    let seed = seed("readers_that_change_replica_and_format_get_what_an_uncut_reader_gets");
    let (_redis, replicas) = start();
    let mut uncut = open(&replicas, 0, 0, "", "");
    let begin = uncut.last_event_id().to_owned();
    std::thread::scope(|scope| {
        let readers = [0, 1, 2, 3].map(|reader| {
            let (replicas, begin) = (&replicas, &begin);
            let random = StdRng::seed_from_u64(seed ^ reader);
            scope.spawn(move || read(replicas, begin, 300, random, reader < 2))
        });
        write_all(300, |n| push(&replicas[n % 3], n));
        push(&replicas[0], 300);
        let all = take(&mut uncut, 301);
        assert_eq!(after(&all, &begin), all);
        assert!(all.iter().map(|seen| seen.1).collect::<BTreeSet<_>>().into_iter().eq(0..=300));
        for reader in readers {
            assert_eq!(reader.join().unwrap(), all, "SEED={seed}");
        }
    });
}

/// Writers store a row and then push its event. A reader takes the position from one replica, reads
/// the rows, and follows another replica after that position.
#[test]
fn rows_and_the_events_after_a_position_of_another_replica_are_all_events() {
    let ((_redis, replicas), rows) = (start(), Mutex::new(BTreeSet::new()));
    let (mut uncut, mut readers) = (open(&replicas, 0, 0, "", ""), Vec::new());
    std::thread::scope(|scope| {
        let write = |n| {
            rows.lock().unwrap().insert(n);
            push(&replicas[2], n);
        };
        scope.spawn(move || write_all(240, write));
        for round in 0..8 {
            eventually("rows", || (round * 25 < rows.lock().unwrap().len()).then_some(()));
            let position = next(&poll(&replicas[0], "&limit=0")).to_owned();
            let copy = rows.lock().unwrap().clone();
            readers.push((copy, open(&replicas, 1, round, "", &position), position));
        }
    });
    let all = take(&mut uncut, 240);
    for (mut copy, mut reader, position) in readers {
        let wanted = after(&all, &position);
        assert_eq!(take(&mut reader, wanted.len()), wanted);
        copy.extend(wanted.iter().map(|seen| seen.1));
        assert!(copy.into_iter().eq(0..240), "after {position}");
    }
}

/// A stream that is cut within its selection receives all events after its id elsewhere.
#[test]
fn selections_are_the_same_and_are_continued_on_another_replica() {
    let (_redis, replicas) = start();
    let mut uncut = open(&replicas, 0, 0, "", "");
    write_all(90, |n| push(&replicas[n % 3], n));
    let all = take(&mut uncut, 90);
    for replica in &replicas {
        eventually("read", || (next(&poll(replica, "&limit=0")) == all[89].0).then_some(()));
    }
    let mut orders = all.clone();
    orders.retain(|(_, n)| topic(*n) < 2 && is_shown(*n));
    let (by_topic, by_key) = (|n| (topic(n), 0), |n| (topic(n), n % 5));
    let (mut streams, mut cut) = (Vec::new(), 0);
    for (query, source, count, key) in [
        ("&rewind=7", &all, 7, by_topic as fn(usize) -> _),
        ("&latest=key", &all, 1, by_key),
        ("&topic=orders.*&filter=attributes:shown&rewind=40", &orders, 40, by_topic),
        ("&topic=orders.*&filter=attributes:shown&rewind=4", &orders, 4, by_topic),
        ("&topic=orders.*&filter=attributes:shown&latest=key", &orders, 1, by_key),
    ] {
        let selected = newest(source, count, key);
        for at in 0..12 {
            let page = poll(&replicas[at % 3], &format!("{query}&limit=1000"));
            assert_eq!(seen_in(&page), selected, "{query} of a poll of replica {}", at % 3);
            let mut reader = open(&replicas, at, at / 3, query, "");
            assert_eq!(
                take(&mut reader, selected.len()),
                selected,
                "{query} of replica {}",
                at % 3
            );
            cut = (cut + 5) % (selected.len() + 1);
            let mut reader = open(&replicas, at, at / 3, query, "");
            let seen = take(&mut reader, cut);
            let rest = after(source, reader.last_event_id());
            assert!(selected.iter().all(|event| seen.contains(event) || rest.contains(event)));
            let id = reader.last_event_id();
            streams.push((open(&replicas, at + 1, at / 3 + 1, query, id), rest));
        }
    }
    push(&replicas[2], 120);
    let live = take(&mut uncut, 1);
    for (mut reader, mut wanted) in streams {
        wanted.extend_from_slice(&live);
        assert_eq!(take(&mut reader, wanted.len()), wanted);
    }
}
