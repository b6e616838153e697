//! Folds: `rewind=`, `latest=` and `slow=latest`.

use std::{
    collections::HashMap,
    io::{BufReader, Read, Write},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    outlet::poll::{data, next, poll},
    stream::filter::publish,
    support::{
        eventually,
        gateway::{Gateway, message},
        http1,
        parser::Dispatched,
        reader::{CASES, Case, FEW_CASES, Reader, tls_stream},
        redis::RedisServer,
    },
};

const BOTH: &str = "?topic=orders,parcels&filter=attributes:shown";

/// Publishes 20 events of two topics, of which a filter shows each second one.
fn publish_20(gateway: &Gateway) {
    for n in 0..20 {
        let attributes = if n % 4 < 2 { json!({ "shown": "" }) } else { json!({}) };
        let mut message = message(n.to_string(), &n.to_string());
        message["attributes"] = attributes;
        assert_eq!(gateway.push(["orders", "parcels"][n % 2], &message).status, 204);
    }
}

fn numbers(numbers: &[usize]) -> Vec<String> {
    numbers.iter().map(ToString::to_string).collect()
}

#[test]
fn a_rewind_begins_with_the_last_matching_events_of_each_topic() {
    for case in CASES {
        let gateway = case.gateway(&[]);
        publish_20(&gateway);
        let mut reader = case.open(&gateway, &format!("{BOTH}&rewind=3"));
        assert_eq!(reader.take(6), numbers(&[8, 9, 12, 13, 16, 17]));
        publish(&gateway, "live", &json!({ "shown": "" }));
        assert_eq!(reader.next().data, "live");
        // Within a time, and not with an id.
        let mut within = case.open(&gateway, "?topic=orders&since=1h&rewind=2");
        assert_eq!(within.take(2), ["18", "live"]);
        let id = within.last_event_id().to_owned();
        let mut resumed = case.resume(&gateway, "?topic=orders&rewind=2", &id);
        gateway.publish("orders", "more");
        assert_eq!(resumed.next().data, "more");
    }
}

#[test]
fn a_rewind_that_is_cut_anywhere_is_resumed_without_loss_or_repetition() {
    for case in FEW_CASES {
        let gateway = case.gateway(&[]);
        publish_20(&gateway);
        let all = numbers(&[8, 9, 12, 13, 16, 17]);
        for cut in 0..=all.len() {
            let mut reader = case.open(&gateway, &format!("{BOTH}&rewind=3"));
            let mut seen = reader.take(cut);
            let id = reader.last_event_id().to_owned();
            drop(reader);
            let mut resumed = case.resume(&gateway, &format!("{BOTH}&rewind=3"), &id);
            let opened: Value =
                serde_json::from_str(&resumed.opened.as_ref().unwrap().data).unwrap();
            assert_eq!(opened["resumed"], true);
            seen.extend(resumed.take(all.len() - cut));
            assert_eq!(seen, all, "cut after {cut}");
        }
    }
}

#[test]
fn latest_begins_with_the_state() {
    for case in CASES {
        let gateway = case.gateway(&[]);
        for (n, (key, device)) in
            [("k", "a"), ("k", "b"), ("l", "a"), ("", "b"), ("k", "a"), ("", "a")]
                .into_iter()
                .enumerate()
        {
            let mut message = message(n.to_string(), &n.to_string());
            message["attributes"] = json!({ "device": device });
            message["orderingKey"] = key.into();
            assert_eq!(gateway.push("orders", &message).status, 204);
        }
        let mut of_key = case.open(&gateway, "?latest=key");
        let mut of_device = case.open(&gateway, "?latest=attributes.device");
        gateway.publish("orders", "live");
        assert_eq!(of_key.take(4), ["2", "4", "5", "live"]);
        assert_eq!(of_device.take(3), ["3", "5", "live"]);
    }
}

#[test]
fn a_poll_begins_with_a_state_too_and_continues_after_a_part_of_it() {
    let gateway = Gateway::dev(&[]);
    publish_20(&gateway);
    let page = poll(&gateway, "&topic=orders&rewind=3");
    assert_eq!((data_of(&page), &page["more"]), (vec![14, 16, 18], &json!(false)));
    gateway.publish("parcels", "another");
    let after = poll(&gateway, &format!("&topic=orders&rewind=3&last_event_id={}", next(&page)));
    assert_eq!(data(&after), [""; 0]);
    let part = poll(&gateway, "&topic=orders&rewind=3&limit=2");
    assert_eq!((data_of(&part), &part["more"]), (vec![14, 16], &json!(true)));
    let rest = poll(&gateway, &format!("&topic=orders&last_event_id={}", next(&part)));
    assert_eq!((data_of(&rest), &rest["more"]), (vec![18], &json!(false)));
    for wrong in [
        "rewind=0",
        "rewind=1001",
        "rewind=x",
        "latest=x",
        "latest=attributes.",
        "rewind=1&latest=key",
        "slow=x",
        "mode=poll&slow=latest",
    ] {
        assert_eq!(gateway.get(&format!("/events?{wrong}"), &[]).status, 400, "{wrong}");
    }
}

fn data_of(page: &Value) -> Vec<u64> {
    let events = page["events"].as_array().unwrap();
    events.iter().map(|event| event["data"].as_u64().unwrap()).collect()
}

const KEYS: usize = 20;
/// More than the sockets and the buffers between a gateway and its reader hold.
const EVENTS: usize = 12_000;
/// Events that are published at once.
const BURST: usize = 500;

/// Connection to a gateway over which events of many keys are pushed, one after another.
struct Publisher {
    connection: BufReader<Box<dyn Connection>>,
    published: usize,
}

trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

impl Publisher {
    fn connect(gateway: &Gateway) -> Self {
        let socket = http1::connect(gateway.address);
        let connection: Box<dyn Connection> = match &gateway.tls {
            Some(tls) => Box::new(tls_stream(socket, tls)),
            None => Box::new(socket),
        };
        Self { connection: BufReader::new(connection), published: 0 }
    }

    /// Publishes events of one key after another.
    fn publish(&mut self, events: usize) {
        let mut requests = Vec::new();
        for n in self.published..self.published + events {
            let key = format!("key-{}", n % KEYS);
            let mut message = message(format!("{key} {n} {}", "x".repeat(300)), &n.to_string());
            message["orderingKey"] = key.into();
            let body = json!({ "message": message, "subscription": "projects/p/subscriptions/s" });
            let body = body.to_string();
            let length = body.len().to_string();
            let headers = [("Content-Type", "application/json"), ("Content-Length", &*length)];
            http1::write_head(&mut requests, "POST", "/push/orders", &headers);
            requests.extend_from_slice(body.as_bytes());
        }
        self.connection.get_mut().write_all(&requests).unwrap();
        for _ in 0..events {
            assert_eq!(http1::read_head(&mut self.connection).unwrap().0, 204);
        }
        self.published += events;
    }
}

/// Counts what a reader is sent, by key.
#[derive(Default)]
struct Seen {
    ids: Vec<(u64, u64)>,
    newest: HashMap<String, usize>,
    events: HashMap<String, usize>,
    folded: HashMap<String, usize>,
}

impl Seen {
    fn add(&mut self, event: &Dispatched) {
        assert_ne!(event.event, "stream-gap", "{event:?}");
        if event.event == "stream-folded" {
            let data: Value = serde_json::from_str(&event.data).unwrap();
            let mut sum = 0;
            for (key, events) in data["keys"].as_object().unwrap() {
                let events = usize::try_from(events.as_u64().unwrap()).unwrap();
                *self.folded.entry(key.clone()).or_default() += events;
                sum += events;
            }
            assert_eq!(data["events"], sum);
        } else if !event.event.starts_with("stream-") {
            let (time_ms, sequence) = event.id.split_once('-').unwrap();
            self.ids.push((time_ms.parse().unwrap(), sequence.parse().unwrap()));
            let mut words = event.data.split(' ');
            let key = words.next().unwrap().to_owned();
            self.newest.insert(key.clone(), words.next().unwrap().parse().unwrap());
            *self.events.entry(key).or_default() += 1;
        }
    }

    fn is_complete(&self, published: usize) -> bool {
        let sum = |counts: &HashMap<String, usize>| counts.values().sum::<usize>();
        published <= sum(&self.events) + sum(&self.folded)
    }

    /// Reads until each of `published` events was received or counted. The newest of each key must
    /// be received, all in order.
    fn finish(mut self, reader: &mut Reader, published: usize) {
        while !self.is_complete(published) {
            self.add(&reader.next_raw().expect("the stream has ended"));
        }
        assert!(self.ids.is_sorted_by(|a, b| a < b));
        for key in 0..KEYS {
            let name = format!("key-{key}");
            assert_eq!(self.newest[&name], published - KEYS + key);
            assert_eq!(self.events[&name] + self.folded[&name], published / KEYS, "{name}");
        }
        let folded: usize = self.folded.values().sum();
        assert!(published / 2 < folded, "{folded} folded: the reader was not slow enough");
        assert!(self.ids.len() + folded == published);
    }
}

fn open_slow(case: Case, gateway: &Gateway) -> Reader {
    let mut reader = case.open_narrow(gateway, "?topic=orders&slow=latest");
    assert_eq!(reader.next_raw().unwrap().event, "stream-open");
    reader
}

/// A reader that takes one event while hundreds are published gets the newest of each key in the
/// end, in order, and is told of all others.
fn read_slowly(case: Case, gateway: &Gateway) {
    let mut reader = open_slow(case, gateway);
    let (mut publisher, mut seen) = (Publisher::connect(gateway), Seen::default());
    while publisher.published < EVENTS {
        for _ in 0..20 {
            publisher.publish(KEYS);
        }
        seen.add(&reader.next_raw().unwrap());
    }
    seen.finish(&mut reader, EVENTS);
}

const RING: (&str, &str) = ("ring-events", "100000");

#[test]
fn a_slow_reader_gets_the_newest_of_each_key_and_counts() {
    for case in [CASES[0], CASES[3], CASES[4]] {
        read_slowly(case, &case.gateway(&[RING]));
    }
}

#[test]
fn a_slow_reader_of_a_replica_gets_the_newest_of_each_key_and_counts() {
    let redis = RedisServer::start();
    let gateway = Gateway::dev(&[RING, ("backplane", &redis.url())]);
    eventually("ready", || (gateway.get("/readyz", &[]).status == 200).then_some(()));
    read_slowly(CASES[1], &gateway);
}

/// The reader takes one event in each second, in which 10,000 are published. (A machine that takes
/// longer to publish them makes the seconds longer.)
#[test]
fn a_reader_of_one_event_a_second_gets_the_newest_of_ten_thousand() {
    const PER_SECOND: usize = 10_000;
    const SECONDS: usize = 5;
    let gateway = Gateway::dev(&[RING, ("ring-bytes", "256 MiB"), ("workers", "1")]);
    let mut reader = open_slow(CASES[0], &gateway);
    let (mut publisher, mut seen) = (Publisher::connect(&gateway), Seen::default());
    let begun = Instant::now();
    for second in 1..=SECONDS {
        while publisher.published < second * PER_SECOND {
            publisher.publish(BURST);
        }
        seen.add(&reader.next_raw().unwrap());
        let rest = Duration::from_secs(second as u64).saturating_sub(begun.elapsed());
        std::thread::sleep(rest);
    }
    eprintln!("{} events in {:?}", publisher.published, begun.elapsed());
    seen.finish(&mut reader, SECONDS * PER_SECOND);
}
