//! `POST /publish`: what a client publishes, and the ids that it gets.

mod access;
mod batches;
mod log;
mod sink;

use crate::support::{
    gateway::Gateway,
    http1::{self, Answer},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// Publishes data with an idempotency key.
fn publish(gateway: &Gateway, path: &str, key: &str, data: &str) -> Answer {
    gateway.post(path, &[("Idempotency-Key", key)], data.as_bytes())
}

/// Returns the ids of an answer, which must be 200.
fn ids(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    serde_json::from_value(answer.json()["ids"].clone()).unwrap()
}

fn outcome(gateway: &Gateway, outcome: &str) -> usize {
    let value = gateway.metric(&format!("stream_events_publishes_total{{outcome=\"{outcome}\"}}"));
    value.to_string().parse().unwrap()
}

#[test]
fn the_body_is_the_data_and_the_id_is_a_cursor() {
    let gateway = Gateway::dev(&[]);
    let mut data = gateway.events("?topic=orders");
    let mut messages = gateway.events("?format=message");
    let query = "?event=created&key=k%201&attributes.customer=Zo%C3%AB&attributes.a.b=";
    let answer = publish(&gateway, &format!("/publish/orders{query}"), "\"first\"", "{\"id\": 1}");
    let [id] = &ids(&answer)[..] else { panic!("one id") };
    let event = data.next();
    assert_eq!((&*event.event, &*event.data), ("created", "{\"id\": 1}"));
    assert_eq!(event.id, *id);
    let mut message: Value = serde_json::from_str(&messages.next().data).unwrap();
    let time = message.as_object_mut().unwrap().remove("publish_time").unwrap();
    assert!(time.as_str().is_some_and(|time| time.ends_with('Z')), "{time}");
    let expected = json!({
        "id": id, "topic": "orders", "message_id": "first", "ordering_key": "k 1",
        "attributes": { "event": "created", "customer": "Zoë", "a.b": "" },
        "data": { "id": 1 },
    });
    assert_eq!(message, expected);
    // A writer follows from its own write.
    let mut follower = gateway.resume("?topic=orders", id);
    let second = ids(&gateway.post("/publish/orders", &[], b"second"));
    let event = follower.next();
    assert_eq!((&*event.data, &event.id), ("second", &second[0]));
    assert!(follower.opened.unwrap().data.contains("\"resumed\":true"));
    // Without a key, each message gets an id of its own.
    let third = ids(&gateway.post("/publish/orders", &[], b"second"));
    assert_ne!(second, third);
    assert_eq!(outcome(&gateway, "stored"), 3);
}

#[test]
fn any_bytes_are_data() {
    let gateway = Gateway::dev(&[]);
    let mut messages = gateway.events("?format=message");
    let bytes: Vec<u8> = (0..=255).collect();
    for content_type in ["application/octet-stream", "application/x-www-form-urlencoded"] {
        ids(&gateway.post("/publish/a%25b", &[("Content-Type", content_type)], &bytes));
        let message: Value = serde_json::from_str(&messages.next().data).unwrap();
        assert_eq!(message["data_base64"], STANDARD.encode(&bytes));
        assert_eq!(message["topic"], "a%b");
    }
    let large = vec![b'x'; 10_000_000];
    let mut stream = gateway.events("?topic=large");
    ids(&gateway.post("/publish/large", &[], &large));
    assert_eq!(stream.next().data.len(), large.len());
    let answer = gateway.post("/publish/large", &[], &[&large[..], b"x"].concat());
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert_eq!(outcome(&gateway, "too-large"), 1);
}

#[test]
fn a_duplicate_gets_the_id_of_the_stored_event() {
    let gateway = Gateway::dev(&[]);
    let mut stream = gateway.events("");
    let first = ids(&publish(&gateway, "/publish/orders", "1", "first"));
    assert_eq!(ids(&publish(&gateway, "/publish/orders", "1", "again")), first);
    let elsewhere = ids(&publish(&gateway, "/publish/parcels", "1", "of another topic"));
    assert_ne!(first, elsewhere);
    assert_eq!(stream.take(2), ["first", "of another topic"]);
    assert_eq!((outcome(&gateway, "stored"), outcome(&gateway, "duplicate")), (2, 1));
}

#[test]
fn cloud_events_keep_their_attributes_and_ids() {
    let gateway = Gateway::dev(&[]);
    let mut events = gateway.events("?format=cloudevents");
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-type", "com.example.made"),
        ("ce-source", "/shop"),
        ("ce-id", "1"),
        ("Content-Type", "application/json"),
    ];
    let first = ids(&gateway.post("/publish/orders?key=k", &binary, b"{\"price\":1}"));
    assert_eq!(ids(&gateway.post("/publish/orders", &binary, b"{}")), first, "the same event");
    let event: Value = serde_json::from_str(&events.next().data).unwrap();
    assert_eq!((&event["source"], &event["data"]["price"]), (&json!("/shop"), &json!(1)));
    let structured = [("Content-Type", "application/cloudevents+json")];
    let body = br#"{"specversion":"1.0","type":"t","source":"/s","id":"2","data":7}"#;
    ids(&gateway.post("/publish/orders", &structured, body));
    let event: Value = serde_json::from_str(&events.next().data).unwrap();
    assert_eq!((&event["id"], &event["data"]), (&json!("2"), &json!(7)));
    for (path, headers, body) in [
        ("/publish/orders", &structured[..], &b"{}"[..]),
        ("/publish/orders?attributes.ce-type=x", &binary, b"{}"),
        ("/publish/orders", &[("Content-Type", "application/cloudevents-batch+json")], b"[]"),
    ] {
        assert_eq!(gateway.post(path, headers, body).status, 400, "{path}");
    }
}

/// What breaks a rule is refused with a text that names it, and stores nothing.
#[test]
fn what_breaks_a_rule_is_refused() {
    let gateway = Gateway::dev(&[]);
    let attributes =
        |count| (0..count).map(|n| format!("attributes.a{n}=")).collect::<Vec<_>>().join("&");
    let long = |length: usize| "x".repeat(length);
    for (query, accepted) in [
        (attributes(100), true),
        (attributes(101), false),
        (format!("attributes.{}=x", long(256)), true),
        (format!("attributes.{}=x", long(257)), false),
        (format!("attributes.a={}", long(1_024)), true),
        (format!("attributes.a={}", long(1_025)), false),
        (format!("key={}", long(1_024)), true),
        (format!("key={}", long(1_025)), false),
        ("attributes.=x".to_owned(), false),
        ("attributes.google=x".to_owned(), false),
        ("attributes.publisher=x".to_owned(), true),
        ("event=a&event=b".to_owned(), false),
        ("event=a&attributes.event=b".to_owned(), false),
        ("event=&key=".to_owned(), true),
        ("key=a&key=b".to_owned(), false),
        ("keys=a".to_owned(), false),
        ("topic=orders".to_owned(), false),
        ("format=json".to_owned(), false),
    ] {
        let answer = gateway.post(&format!("/publish/orders?{query}"), &[], b"x");
        let text = answer.text();
        assert_eq!(answer.status, if accepted { 200 } else { 400 }, "{query}: {text}");
        assert!(text.len() < 600, "{text}");
    }
    for (key, accepted) in [
        (long(255), true),
        (long(256), false),
        (String::new(), false),
        ("\"\"".to_owned(), false),
        ("\u{e9}".to_owned(), false),
        ("orders-0-17".to_owned(), true),
        ("two words".to_owned(), true),
    ] {
        let answer = publish(&gateway, "/publish/orders", &key, "x");
        assert_eq!(answer.status, if accepted { 200 } else { 400 }, "{key}: {}", answer.text());
    }
    let twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")];
    assert_eq!(gateway.post("/publish/orders", &twice, b"x").status, 400);
    assert_eq!(gateway.post("/publish/orders", &[], b"").status, 400, "empty");
    assert_eq!(gateway.post("/publish/orders?event=reset", &[], b"").status, 200);
    assert_eq!(gateway.post("/publish/no", &[], b"x").status, 400, "not a topic's name");
    assert_eq!(gateway.post("/publish/a/b", &[], b"x").status, 404);
    let compressed = gateway.post("/publish/orders", &[("Content-Encoding", "gzip")], b"x");
    assert_eq!(compressed.status, 415);
    assert_eq!(compressed.header("accept-encoding"), Some("identity"));
    let refused = http1::request(gateway.address, "GET", "/publish/orders", &[], b"");
    assert_eq!((refused.status, refused.header("allow")), (405, Some("POST, OPTIONS")));
}

#[test]
fn only_served_topics_are_published() {
    let gateway = Gateway::dev(&[("topic", "orders")]);
    assert_eq!(gateway.post("/publish/orders", &[], b"x").status, 200);
    let answer = gateway.post("/publish/parcels", &[], b"x");
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("--topic"), "{}", answer.text());
    assert_eq!(outcome(&gateway, "not-served"), 1);
}
