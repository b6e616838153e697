//! Streams with a filter: through reconnects, over replicas, with rare events and lost ones.

use std::fmt::Write as _;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    backplane::replicas::replica,
    support::{
        gateway::{Gateway, message},
        http1::EventSource,
        redis::RedisServer,
        seed,
    },
};

/// Returns true if a filter shows the event with this number, region and part.
type IsShown = fn((usize, &str, usize)) -> bool;

const EVALUATIONS: &str = "stream_events_filter_evaluations_total";

/// Query for events of the topic `orders` that a filter shows.
pub fn query(filter: &str) -> String {
    let mut query = "?topic=orders&filter=".to_owned();
    for byte in filter.bytes() {
        write!(query, "%{byte:02X}").unwrap();
    }
    query
}

pub fn publish(gateway: &Gateway, data: &str, attributes: &Value) {
    let mut message = message(data, &rand::random::<u64>().to_string());
    message["attributes"] = attributes.clone();
    assert_eq!(gateway.push("orders", &message).status, 204);
}

/// Reads to the event `end`, over many connections to any of the replicas.
fn follow(replicas: &[Gateway], query: &str, begin: &str, mut random: StdRng) -> Vec<String> {
    let (mut id, mut seen) = (begin.to_owned(), Vec::new());
    loop {
        let mut source = replicas[random.random_range(0..replicas.len())].resume(query, &id);
        for _ in 0..random.random_range(0..20) {
            let event = source.next_raw().expect("the stream has ended");
            assert_ne!(event.event, "stream-gap", "{event:?}");
            if event.data == "end" {
                return seen;
            }
            if !event.event.starts_with("stream-") {
                seen.push(event.data);
            }
        }
        source.last_event_id().clone_into(&mut id);
    }
}

/// Readers with different filters reconnect again and again while events are published. Each gets
/// exactly the events that its filter shows, once each and in order.
fn readers_get_what_their_filters_show(replicas: &[Gateway], seed: u64) {
    const EVENTS: usize = 600;
    let begin = replicas[0].events("").last_event_id().to_owned();
    let data = |n: usize| (n, ["eu", "us", "apac"][n % 3], n % 7);
    let end = " OR attributes:end";
    let filters: [(String, IsShown); 4] = [
        (format!("attributes.region = \"eu\"{end}"), |(_, region, _)| region == "eu"),
        (format!("attributes.region != \"eu\"{end}"), |(_, region, _)| region != "eu"),
        (
            format!("(hasPrefix(attributes.region, \"a\") AND attributes.n = \"3\"){end}"),
            |(_, region, n)| region == "apac" && n == 3,
        ),
        (format!("(NOT attributes.n = \"3\" AND attributes:region){end}"), |(_, _, n)| n != 3),
    ];
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..12)
            .map(|reader| {
                let (filter, is_shown) = &filters[reader % 4];
                let begin = &begin;
                scope.spawn(move || {
                    let random = StdRng::seed_from_u64(seed ^ reader as u64);
                    let got = follow(replicas, &query(filter), begin, random);
                    let shown = (0..EVENTS).filter(|n| is_shown(data(*n)));
                    let wanted: Vec<_> = shown.map(|n| n.to_string()).collect();
                    assert_eq!(got, wanted, "SEED={seed}, {filter}");
                })
            })
            .collect();
        for n in 0..EVENTS {
            let (_, region, part) = data(n);
            let attributes = json!({ "region": region, "n": part.to_string() });
            publish(&replicas[n % replicas.len()], &n.to_string(), &attributes);
        }
        publish(&replicas[0], "end", &json!({ "end": "" }));
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn shown_events_arrive_once_through_reconnects_in_memory() {
    let seed = seed("shown_events_arrive_once_through_reconnects_in_memory");
    readers_get_what_their_filters_show(&[Gateway::dev(&[("ring-events", "10000")])], seed);
}

#[test]
fn shown_events_arrive_once_through_reconnects_on_three_replicas() {
    let seed = seed("shown_events_arrive_once_through_reconnects_on_three_replicas");
    let redis = RedisServer::start();
    let replicas = [replica(&redis.url()), replica(&redis.url()), replica(&redis.url())];
    readers_get_what_their_filters_show(&replicas, seed);
}

/// The ids of a stream that shows nothing advance, so that it resumes where it was.
#[test]
fn a_reader_of_a_rare_event_resumes_without_a_gap() {
    const ROUNDS: usize = 4;
    const EVENTS_PER_ROUND: usize = 2_500;
    let gateway = Gateway::dev(&[("ring-events", "3000"), ("keep-alive", "1 s")]);
    let rare = query("attributes:rare");
    let mut source = gateway.events(&rare);
    let begin = source.last_event_id().to_owned();
    for _ in 0..ROUNDS {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let publish_some = || {
                    (0..EVENTS_PER_ROUND / 4).for_each(|_| publish(&gateway, "x", &json!({})));
                };
                scope.spawn(publish_some);
            }
        });
        let checkpoint = loop {
            let block = source.next_block().expect("the stream has ended");
            assert!(!block.contains("event:") && !block.contains("data:"), "{block}");
            if let Some(id) = block.strip_prefix("id: ") {
                break id.trim_end().to_owned();
            }
        };
        source = gateway.resume(&rare, &checkpoint);
        assert_eq!(source.last_event_id(), checkpoint);
    }
    publish(&gateway, "rare", &json!({ "rare": "" }));
    let event = source.next_raw().unwrap();
    assert_eq!((&*event.event, &*event.data), ("message", "rare"));
    // The ring does not hold the first id any more, although the filter would hide what is lost.
    let mut late = gateway.resume(&rare, &begin);
    let gap = late.next_raw().unwrap();
    let reason: Value = serde_json::from_str(&gap.data).unwrap();
    assert_eq!((gap.event.as_str(), &reason["reason"]), ("stream-gap", &json!("evicted")));
    assert_eq!(late.next().data, "rare");
}

/// Over HTTP/1.1, which the reactor serves, each event is checked once for all streams.
#[test]
fn a_thousand_streams_check_an_event_once() {
    const STREAMS: usize = 1_000;
    let gateway = Gateway::dev(&[("workers", "1"), ("keep-alive", "10 min")]);
    let shown = query("attributes.shown = \"yes\"");
    let mut sources: Vec<_> = (0..STREAMS).map(|_| gateway.events(&shown)).collect();
    let mut published = 0;
    for round in 0..4 {
        for n in 0..20 {
            let value = if n == 10 { "yes" } else { "no" };
            publish(&gateway, &format!("{round} {n}"), &json!({ "shown": value }));
            published += 1;
        }
        for source in &mut sources {
            assert_eq!(source.next().data, format!("{round} 10"));
        }
        gateway.until_metric(EVALUATIONS, f64::from(published));
    }
    // Streams that wait alone, and new ones, are served too.
    let mut new = gateway.events(&shown);
    let mut all = gateway.events("?topic=orders");
    publish(&gateway, "last", &json!({ "shown": "yes" }));
    for source in sources.iter_mut().chain([&mut new, &mut all]) {
        assert_eq!(source.next().data, "last");
    }
    gateway.until_metric(EVALUATIONS, f64::from(published + 1));
}

/// Streams of other topics and in other formats share the answers of their filter.
#[test]
fn an_event_is_checked_once_for_all_streams_with_the_same_filter() {
    let gateway = Gateway::dev(&[("workers", "1"), ("filters-max", "1"), ("keep-alive", "10 min")]);
    let one = query("attributes.shown = \"yes\"");
    let several =
        query("(attributes.\"shown\"=\"\\x79es\")").replacen("orders", "orders,parcels", 1);
    let open = |topics: &String, format: &str| gateway.events(&format!("{topics}&format={format}"));
    let mut sources: Vec<_> = [&one, &several]
        .into_iter()
        .flat_map(|topics| ["data", "message", "cloudevents"].map(|format| open(topics, format)))
        .collect();
    let mut published = 0;
    for n in 0..30 {
        let is_shown = n % 3 == 0;
        let value = if is_shown { "yes" } else { "no" };
        publish(&gateway, &format!("event {n}"), &json!({ "shown": value }));
        published += 1;
        if is_shown {
            for source in &mut sources {
                let data = source.next().data;
                assert!(data.contains(&format!("event {n}")), "{data}");
            }
        }
        gateway.until_metric(EVALUATIONS, f64::from(published));
    }
    let refused = gateway.get(&format!("/events{}", query("attributes:other")), &[]);
    assert_eq!(refused.status, 503);
    drop(sources);
    gateway.until_metric("stream_events_streams", 0.0);
    drop(gateway.events(&query("attributes:other")));
}

#[test]
fn readers_with_more_filters_than_are_allowed_are_told_to_come_back() {
    let gateway = Gateway::dev(&[("filters-max", "2"), ("workers", "1")]);
    let a = query("attributes:a");
    let open = [gateway.events(&a), gateway.events(&query("attributes:b"))];
    let refused = gateway.get(&format!("/events{}", query("attributes:c")), &[]);
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("--filters-max"), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    let accept = [("Accept", "text/event-stream")];
    let path = format!("/events{}", query("attributes:c"));
    let mut browser = EventSource::connect(gateway.address, &path, &accept);
    let end = browser.next_raw().unwrap();
    assert_eq!((&*end.event, &*end.data), ("stream-end", r#"{"reason":"busy"}"#));
    gateway.until_metric("stream_events_limits_met_total{limit=\"filters-max\"}", 2.0);
    // The same filter in other words, and no filter, are allowed.
    let mut same = gateway.events(&query("(attributes:\"a\")"));
    let mut all = gateway.events("?topic=orders&filter=");
    publish(&gateway, "x", &json!({ "a": "" }));
    assert_eq!((same.next().data, all.next().data), ("x".to_owned(), "x".to_owned()));
    drop((open, same));
    gateway.until_metric("stream_events_streams", 1.0);
    drop(gateway.events(&query("attributes:c")));
}

#[test]
fn a_filter_that_cannot_be_parsed_is_refused_with_its_position() {
    let gateway = Gateway::dev(&[]);
    let long = format!("attributes:{}", "a".repeat(2_000));
    for (filter, wanted) in [
        ("attributes.name = com", "filter: at character 19, expected a text in double quotes"),
        (
            "attributes:a AND attributes:b OR attributes:c",
            "filter: at character 31, expected paren",
        ),
        ("name", "filter: at character 1, expected a condition"),
        (&long, "filter: at character 1025, expected the end of the filter"),
    ] {
        let answer = gateway.get(&format!("/events{}", query(filter)), &[]);
        assert_eq!(answer.status, 400, "{filter}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with(wanted), "{filter}: {detail}");
    }
    let twice = format!("/events{}&filter=attributes:a", query("attributes:b"));
    assert_eq!(gateway.get(&twice, &[]).status, 400);
}
