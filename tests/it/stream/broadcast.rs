//! Many streams of the same topics, in both formats and over all transports: what is given to all of
//! them side by side, and whoever is slow, new, told something of their own or gone among them.

use std::{
    net::Shutdown,
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::Value;

use crate::{
    auth::reader,
    outlet::tickets::{for_seconds, name_of, renew},
    support::{
        gateway::Gateway,
        http1::EventSource,
        jwks::KeyServer,
        reader::{BY_GATEWAY, CASES, Case, Reader, Signal},
    },
};

const STREAMS: &str = "stream_events_streams";
const DELIVERED: &str = "stream_events_events_delivered_total";

/// Nobody is helped by a keep-alive, and all are on one thread.
fn gateway(flags: &[(&'static str, &str)]) -> Gateway {
    Gateway::dev(&[&[("workers", "1"), ("keep-alive", "10 min")], flags].concat())
}

/// Most streams are those that can be in a broadcast: of each format, over HTTP/1.1 in clear text.
const MIX: [Case; 8] =
    [CASES[0], CASES[1], CASES[6], CASES[0], CASES[1], CASES[6], CASES[4], CASES[5]];

fn case_of(gateway: &Gateway, number: usize) -> Case {
    let cases: &[Case] = if gateway.tls.is_some() { BY_GATEWAY[1] } else { &MIX };
    cases[number % cases.len()]
}

fn open(gateway: &Gateway, streams: usize) -> Vec<Reader> {
    (0..streams).map(|n| case_of(gateway, n).open(gateway, "?topic=orders")).collect()
}

/// What the tests need of a stream of any kind.
trait Stream {
    fn next_id(&mut self) -> String;
}

impl Stream for Reader {
    fn next_id(&mut self) -> String {
        self.next().id
    }
}

impl Stream for EventSource {
    fn next_id(&mut self) -> String {
        self.next().id
    }
}

/// So many publishers at once, each with so many messages in a row.
fn publish(gateway: &Gateway, publishers: usize, each: usize) {
    publish_all(gateway, publishers, each, "x");
}

fn publish_all(gateway: &Gateway, publishers: usize, each: usize, data: &str) {
    std::thread::scope(|scope| {
        for _ in 0..publishers {
            scope.spawn(move || (0..each).for_each(|_| gateway.publish("orders", data)));
        }
    });
}

fn number(id: &str) -> (u64, u64) {
    let (time, sequence) = id.split_once('-').unwrap();
    (time.parse().unwrap(), sequence.parse().unwrap())
}

/// All get the same events, once each and in one order.
fn all_get(sources: &mut [impl Stream], events: usize) {
    let first: Vec<_> = (0..events).map(|_| sources[0].next_id()).collect();
    assert!(first.is_sorted_by(|a, b| number(a) < number(b)), "{first:?}");
    for source in &mut sources[1..] {
        let ids: Vec<_> = (0..events).map(|_| source.next_id()).collect();
        assert_eq!(ids, first);
    }
}

/// What is published while all of them are being written to comes after it, and waits for nothing.
#[test]
fn bursts_reach_everyone() {
    const STREAMS: [(bool, usize); 2] = [(false, 120), (true, 30)];
    for (is_tls, streams) in STREAMS {
        let flags = [("workers", "1"), ("keep-alive", "10 min")];
        let gateway = if is_tls { Gateway::dev_over_tls(&flags) } else { Gateway::dev(&flags) };
        let mut sources = open(&gateway, streams);
        // More than is read at once, too.
        for size in [10, 10, 10, 5_000, 10, 10, 5_000, 5_000, 10, 10] {
            publish_all(&gateway, 8, 4, &"x".repeat(size));
            all_get(&mut sources, 32);
        }
        gateway.until_metric(DELIVERED, f64::from(u32::try_from(streams * 320).unwrap()));
    }
}

/// What does not fit into a socket waits for its reader, in order, and for nobody else.
#[test]
fn whoever_is_slow_keeps_nobody_waiting() {
    let gateway = gateway(&[]);
    let mut sources = open(&gateway, 48);
    let narrow = |n| case_of(&gateway, n).open_narrow(&gateway, "?topic=orders");
    let mut slow: Vec<_> = (0..8).map(narrow).collect();
    let data = |n: usize| format!("event {n} {}", "x".repeat(n % 7 * 2_000));
    for n in 0..300 {
        gateway.publish("orders", data(n));
        for source in &mut sources {
            assert!(source.next().data == data(n), "{n}");
        }
    }
    assert!(gateway.metric(DELIVERED) < 300.0 * 56.0, "they are not slow enough for this test");
    for source in &mut slow {
        for n in 0..300 {
            assert!(source.next().data == data(n), "{n}");
        }
    }
    // They are among the others again.
    sources.extend(slow);
    publish(&gateway, 1, 3);
    all_get(&mut sources, 3);
}

/// Set when this is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A renewed token is news for one stream alone, which is told at once, most often while events are
/// being given to all: it goes on with those that it was not given.
#[test]
fn whoever_is_renewed_in_between_gets_each_event_once() {
    let keys = KeyServer::start();
    let gateway = reader::gateway(
        &keys,
        &[("workers", "1"), ("keep-alive", "10 min"), ("streams-per-subject", "0")],
    );
    let token = |seconds| for_seconds(seconds, "alice", &["orders"]);
    let first = token(600);
    let mut sources: Vec<_> =
        (0..150).map(|_| reader::open(&gateway, "?topic=orders", &first)).collect();
    let names: Vec<_> = sources.iter().map(name_of).collect();
    for round in 1..=20 {
        let next = token(600 + round * 10);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for name in &names {
                    assert_eq!(renew(&gateway, name, &next), 202);
                }
            });
            publish(&gateway, 4, 100);
        });
        all_get(&mut sources, 400);
    }
}

/// Events of many topics are looked for among those of all others, so many at a time; what comes after
/// is for the whole group, and needs no other event to be found.
#[test]
fn what_is_far_away_is_found() {
    let gateway = gateway(&[("ring-events", "10000")]);
    let topics: Vec<_> = (0..17).map(|n| format!("topic{n}")).collect();
    let query = format!("?topic={}", topics.join(","));
    let open = |n| case_of(&gateway, n).open(&gateway, &query);
    let mut sources: Vec<_> = (0..48).map(open).collect();
    for round in 0..3 {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_100).for_each(|_| gateway.publish("others", "x")));
            }
        });
        gateway.publish("topic0", round.to_string());
        for source in &mut sources {
            assert_eq!(source.next().data, round.to_string());
        }
    }
}

/// Streams come and go while topics that they do not follow move on: the newcomers get what comes from
/// then on, and once.
#[test]
fn newcomers_get_each_event_once() {
    let gateway = gateway(&[]);
    let mut sources = open(&gateway, 48);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                gateway.publish("others", "x");
            }
        });
        let _over = Over(&over);
        for round in 0..100 {
            sources.push(case_of(&gateway, round).open(&gateway, "?topic=orders"));
            if round % 3 == 0 {
                drop(sources.swap_remove(round % sources.len()));
            }
            publish(&gateway, 1 + round % 3, 1);
            all_get(&mut sources, 1 + round % 3);
        }
    });
    let left = sources.len();
    gateway.until_metric(STREAMS, f64::from(u32::try_from(left).unwrap()));
    drop(sources);
    gateway.until_metric(STREAMS, 0.0);
}

/// Between events each stream has its own times; and what is no plain block is each one's own to give.
#[test]
fn silence_and_large_events_in_between() {
    let gateway = gateway(&[("keep-alive", "1 s")]);
    let mut sources = open(&gateway, 48);
    for round in 0..3 {
        publish(&gateway, 2, 2);
        all_get(&mut sources, 4);
        for source in &mut sources {
            assert_eq!(source.next_signal(), Some(Signal::KeepAlive), "{round}");
        }
        gateway.publish("others", "of which they are told the id alone");
        for source in &mut sources {
            let signal = source.next_signal();
            assert!(matches!(signal, Some(Signal::Checkpoint(_))), "{round}: {signal:?}");
        }
        let large = "y".repeat(100_000);
        gateway.publish("orders", &large);
        for source in &mut sources {
            assert!(source.next().data == large);
        }
    }
}

/// A ring that holds less than what comes while they are written to: each is told of what it did not
/// get, before what comes after it.
#[test]
fn all_are_told_what_is_missing() {
    let gateway = gateway(&[("ring-events", "3")]);
    let mut sources = open(&gateway, 160);
    let mut gaps = 0;
    for round in 0..20 {
        publish(&gateway, 16, 2);
        let last = format!("last of {round}");
        gateway.publish("orders", &last);
        for source in &mut sources {
            let (mut events, mut was_gap, mut last_upto) = (0, false, None);
            loop {
                let event = source.next_raw().unwrap();
                if event.event == "stream-gap" {
                    let gap: Value = serde_json::from_str(&event.data).unwrap();
                    assert_eq!(gap["topics"][0], "orders");
                    let upto = number(gap["upto"].as_str().unwrap());
                    assert!(Some(upto) > last_upto.replace(upto), "of each loss once: {gap}");
                    (gaps, was_gap) = (gaps + 1, true);
                    continue;
                }
                events += 1;
                if event.data == last {
                    break;
                }
            }
            assert!(events == 33 || was_gap, "{events} of 33 events, and no gap");
        }
    }
    eprintln!("{gaps} gaps");
    let told = gateway.metric("stream_events_gaps_total{reason=\"evicted\"}");
    assert!((told - f64::from(gaps)).abs() < 0.5, "{told}, {gaps}");
}

/// Those who leave, one way or another, leave nothing behind.
#[test]
fn some_of_many_end() {
    let mut gateway = gateway(&[("drain-timeout", "1 s")]);
    let mut sources = open(&gateway, 60);
    publish(&gateway, 1, 2);
    all_get(&mut sources, 2);
    for (n, source) in sources.drain(40..).enumerate() {
        if n % 2 == 0 {
            // What it was sent and did not read: its end is a reset.
            drop(source);
        } else {
            source.wire.shutdown(Shutdown::Write).unwrap();
        }
    }
    gateway.until_metric(STREAMS, 40.0);
    publish(&gateway, 1, 2);
    all_get(&mut sources, 2);
    let ended = "stream_events_streams_ended_total{reason=\"client\"}";
    gateway.until_metric(ended, 20.0);
    gateway.begin_stop();
    for source in &mut sources {
        assert_eq!(source.end().0, "draining");
    }
}
