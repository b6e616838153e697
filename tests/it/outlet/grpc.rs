//! gRPC: calls, their statuses, and what a client can do wrong.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use serde_json::json;

use crate::{
    auth::reader::{bearer, claims, gateway as with_tokens, now},
    support::{
        gateway::{Gateway, message},
        grpc::{
            Call, SERVICE, framed,
            proto::{
                PublishRequest, PublishResponse, Record, SubscribeRequest, record::Record as Kind,
            },
        },
        http1,
        jwks::{KeyServer, sign},
    },
};

const OK: u8 = 0;
const INVALID_ARGUMENT: u8 = 3;
const DEADLINE_EXCEEDED: u8 = 4;
const NOT_FOUND: u8 = 5;
const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
const UNIMPLEMENTED: u8 = 12;
const UNAVAILABLE: u8 = 14;
const UNAUTHENTICATED: u8 = 16;

fn path(method: &str) -> String {
    format!("{SERVICE}{method}")
}

fn topic(topic: &str) -> SubscribeRequest {
    SubscribeRequest { topics: vec![topic.to_owned()], ..Default::default() }
}

/// Calls Subscribe with these headers, and returns the code of its refusal, which is in the head.
fn refused(gateway: &Gateway, asked: &SubscribeRequest, headers: &[(&str, &str)]) -> (u8, String) {
    let call = Call::with(gateway, &path("Subscribe"), asked, headers);
    assert!(call.head.contains_key("grpc-status"), "{:?}", call.head);
    call.status()
}

fn retry_of(headers: &http::HeaderMap) -> Option<u64> {
    Some(headers.get("grpc-retry-pushback-ms")?.to_str().unwrap().parse().unwrap())
}

#[test]
fn a_stream_has_the_events_and_the_fields_of_its_messages() {
    let gateway = Gateway::dev(&[]);
    let mut call = Call::subscribe(&gateway, "orders");
    assert_eq!(call.head["content-type"], "application/grpc");
    assert_eq!(call.head["grpc-accept-encoding"], "identity");
    let Some(Kind::Open(open)) = call.record().record else { panic!() };
    assert_eq!((open.topics, open.resumed), (vec!["orders".to_owned()], false));
    let mut push = message([0xff, 0, b'\r'], "7");
    push["attributes"] = json!({"event": "made", "a": "b"});
    push["orderingKey"] = json!("k");
    push["publishTime"] = json!("2021-02-26T19:13:55.749Z");
    assert_eq!(gateway.push("orders", &push).status, 204);
    let event = call.event();
    assert_eq!((&*event.data, event.message_id.as_str()), (&[0xff, 0, b'\r'][..], "7"));
    assert_eq!((event.topic.as_str(), event.ordering_key.as_str()), ("orders", "k"));
    assert_eq!(event.publish_time.unwrap().seconds, 1_614_366_835);
    assert_eq!(event.attributes["a"], "b");
    gateway.publish("orders", "next");
    // The id resumes a stream of another outlet, and one of gRPC, in the message and in the metadata.
    let mut sse = gateway.events(&format!("?topic=orders&last_event_id={}", event.id));
    assert_eq!(sse.next().data, "next");
    let asked = SubscribeRequest { last_event_id: event.id.clone(), ..topic("orders") };
    for (asked, headers) in
        [(asked, vec![]), (topic("orders"), vec![("last-event-id", event.id.as_str())])]
    {
        let mut call = Call::with(&gateway, &path("Subscribe"), &asked, &headers);
        let Some(Kind::Open(open)) = call.record().record else { panic!() };
        assert!(open.resumed);
        assert_eq!(&*call.event().data, b"next");
    }
}

#[test]
fn unknown_methods_and_services_are_unimplemented() {
    let gateway = Gateway::dev(&[]);
    for path in [
        "/stream_events.v1.StreamEvents/Nothing",
        "/grpc.health.v1.Health/Nothing",
        "/some.Service/Method",
        "/x",
    ] {
        let call = Call::with(&gateway, path, &topic("orders"), &[]);
        assert_eq!(call.status().0, UNIMPLEMENTED, "{path}");
    }
    // A request of another kind is answered as HTTP does.
    let path = path("Subscribe");
    let json = [("content-type", "application/json")];
    assert_eq!(http1::request(gateway.address, "POST", &path, &json, b"{}").status, 415);
    assert_eq!(http1::request(gateway.address, "GET", &path, &[], b"").status, 405);
    let grpc = [("content-type", "application/grpc")];
    assert_eq!(http1::request(gateway.address, "POST", &path, &grpc, b"").status, 505);
}

#[test]
fn malformed_requests_are_refused() {
    let gateway = Gateway::dev(&[("topic", "orders")]);
    for (asked, code, text) in [
        (topic("a b"), INVALID_ARGUMENT, "topic"),
        (SubscribeRequest { filter: "x".into(), ..topic("orders") }, INVALID_ARGUMENT, "filter"),
        (SubscribeRequest { slow: "ä%".into(), ..topic("orders") }, INVALID_ARGUMENT, "ä%"),
        (SubscribeRequest { rewind: 1_001, ..topic("orders") }, INVALID_ARGUMENT, "rewind"),
        (SubscribeRequest { last_event_id: "x".into(), ..topic("orders") }, INVALID_ARGUMENT, "x"),
        (topic("chats"), NOT_FOUND, "chats"),
    ] {
        let (found, message) = refused(&gateway, &asked, &[]);
        assert_eq!(found, code, "{message}");
        assert!(message.contains(text), "{message}");
    }
    let one = framed(&topic("orders").encode_to_vec());
    let mut compressed = one.to_vec();
    compressed[0] = 1;
    let too_large = [&[0, 0, 2, 0, 0][..], &[0; 100]].concat();
    let far_too_large = [vec![0, 0, 2, 0, 0], vec![0; 131_072]].concat();
    for (bytes, code) in [
        (Bytes::new(), UNIMPLEMENTED),
        (Bytes::from([&one[..], &one].concat()), UNIMPLEMENTED),
        (compressed.into(), UNIMPLEMENTED),
        (one.slice(..8), INVALID_ARGUMENT),
        (framed(&[0xff]), INVALID_ARGUMENT),
        (too_large.into(), RESOURCE_EXHAUSTED),
        (far_too_large.into(), RESOURCE_EXHAUSTED),
    ] {
        let mut call = Call::begin(&gateway, &path("Subscribe"), &[]);
        let shown = bytes.len();
        call.send_bytes(bytes);
        call.finish();
        let call = call.answered();
        assert_eq!(call.status().0, code, "{shown} bytes: {:?}", call.status());
        assert_eq!(call.head["grpc-accept-encoding"], "identity");
    }
    // The gateway refuses a wrong prefix and does not wait for the rest of the body.
    for method in ["Subscribe", "Publish"] {
        let kinds = ["application/grpc", "application/grpc-web"];
        for (prefix, code) in
            [([0, 255, 255, 255, 255], RESOURCE_EXHAUSTED), ([1, 0, 0, 0, 2], UNIMPLEMENTED)]
        {
            let mut call = Call::begin(&gateway, &path(method), &[("content-type", kinds[0])]);
            call.send_bytes(Bytes::copy_from_slice(&prefix[..2]));
            call.send_bytes(Bytes::copy_from_slice(&prefix[2..]));
            assert_eq!(call.answered().status().0, code, "{method}: {prefix:?}");
            let mut call = Call::begin(&gateway, &path(method), &[("content-type", kinds[1])]);
            call.send_bytes(Bytes::copy_from_slice(&prefix));
            assert_eq!(call.answered().head["content-type"], "application/grpc-web+proto");
        }
    }
    let bad = refused(&gateway, &topic("orders"), &[("grpc-timeout", "soon")]);
    assert_eq!(bad.0, INVALID_ARGUMENT);
}

#[test]
fn limits_have_a_status_and_a_time_to_wait() {
    let few = Gateway::dev(&[("streams-per-address", "1")]);
    let mut first = Call::subscribe(&few, "orders");
    first.record();
    let call = Call::subscribe(&few, "orders");
    assert_eq!(call.status().0, RESOURCE_EXHAUSTED);
    assert!((5_000..10_000).contains(&retry_of(&call.head).unwrap()));
    // A call that its client resets ends at once.
    first.reset();
    few.until_metric("stream_events_streams", 0.0);
    Call::subscribe(&few, "orders").record();
    let rare = Gateway::dev(&[("requests-per-address", "1")]);
    let codes: Vec<_> = (0..3).map(|_| refused(&rare, &topic("a b"), &[]).0).collect();
    assert!(codes.contains(&RESOURCE_EXHAUSTED), "{codes:?}");
}

#[test]
fn the_deadline_of_a_client_ends_its_call() {
    let gateway = Gateway::dev(&[]);
    let begun = Instant::now();
    let asked = topic("orders");
    let mut call = Call::with(&gateway, &path("Subscribe"), &asked, &[("grpc-timeout", "300m")]);
    let (last, (code, _)) = call.end();
    assert!(matches!(last, Some(Kind::Open(_))), "{last:?}");
    assert_eq!(code, DEADLINE_EXCEEDED);
    assert!(Duration::from_millis(300) <= begun.elapsed());
    // Also while the request has not arrived.
    let call = Call::begin(&gateway, &path("Subscribe"), &[("grpc-timeout", "50m")]).answered();
    assert_eq!(call.status().0, DEADLINE_EXCEEDED);
}

#[test]
fn ended_calls_are_counted_by_method_and_status() {
    let gateway = Gateway::dev(&[]);
    let count = |method: &str, code: u8, count: f64| {
        let labels = format!("code=\"{code}\",method=\"{method}\"");
        gateway.until_metric(&format!("stream_events_grpc_calls_total{{{labels}}}"), count);
    };
    refused(&gateway, &topic("a b"), &[]);
    count("Subscribe", INVALID_ARGUMENT, 1.0);
    let mut call = Call::subscribe(&gateway, "orders");
    call.record();
    call.reset();
    count("Subscribe", 1, 1.0);
    let timed = [("grpc-timeout", "50m")];
    Call::with(&gateway, &path("Subscribe"), &topic("orders"), &timed).end();
    count("Subscribe", DEADLINE_EXCEEDED, 1.0);
    let message =
        PublishRequest { topic: "orders".into(), data: b"1".to_vec().into(), ..Default::default() };
    let mut answer = Call::with(&gateway, &path("Publish"), &message, &[]);
    while answer.next::<PublishResponse>().is_some() {}
    count("Publish", OK, 1.0);
    // Paths that a client invents are counted together and make no labels of their own.
    for path in ["/some.Service/Method", "/x", &path("Nothing")] {
        Call::with(&gateway, path, &topic("orders"), &[]);
    }
    count("other", UNIMPLEMENTED, 3.0);
}

#[test]
fn silence_has_keep_alive_records() {
    let gateway = Gateway::dev(&[("keep-alive", "1 s")]);
    let mut call = Call::subscribe(&gateway, "orders");
    call.record();
    let kept: Record = call.next().unwrap();
    assert!(matches!(kept.record, Some(Kind::KeepAlive(_))), "{kept:?}");
}

#[test]
fn tokens_are_in_the_metadata_and_end_their_streams() {
    let keys = KeyServer::start();
    let gateway = with_tokens(&keys, &[("stream-age-max", "10 s")]);
    let token = |topics: &[&str], seconds: u64| {
        let mut claims = claims(topics);
        claims["exp"] = json!(now() + seconds);
        bearer(&sign(&claims))
    };
    assert_eq!(refused(&gateway, &topic("orders"), &[]).0, UNAUTHENTICATED);
    let forged = [("authorization", "Bearer a.b.c")];
    assert_eq!(refused(&gateway, &topic("orders"), &forged).0, UNAUTHENTICATED);
    let alice = token(&["orders"], 2);
    let alice = [("authorization", alice.as_str())];
    let (code, text) = refused(&gateway, &topic("chats"), &alice);
    assert_eq!((code, text.contains("chats")), (PERMISSION_DENIED, true), "{text}");
    let mut call = Call::with(&gateway, &path("Subscribe"), &topic("orders"), &alice);
    let (last, (code, _)) = call.end();
    let Some(Kind::End(end)) = last else { panic!("{last:?}") };
    assert_eq!((end.reason.as_str(), code), ("expired", UNAUTHENTICATED));
    assert_eq!(retry_of(&call.trailers), None);
}

#[test]
fn a_stream_ends_at_its_maximum_age_with_a_time_to_come_back() {
    let gateway = Gateway::dev(&[("stream-age-max", "1 s")]);
    let mut call = Call::subscribe(&gateway, "orders");
    let (last, (code, text)) = call.end();
    let Some(Kind::End(end)) = last else { panic!("{last:?}") };
    assert_eq!((end.reason.as_str(), code), ("max-age", UNAVAILABLE), "{text}");
    assert_eq!(retry_of(&call.trailers), Some(end.retry_ms));
    assert!((200..1_500).contains(&end.retry_ms), "{end:?}");
}

#[test]
fn a_message_is_published_once() {
    let gateway = Gateway::dev(&[]);
    let mut call = Call::subscribe(&gateway, "orders");
    call.record();
    let message = PublishRequest {
        topic: "orders".into(),
        data: vec![0xfe; 200_000].into(),
        attributes: [("event".to_owned(), "made".to_owned())].into(),
        ordering_key: "k".into(),
        idempotency_key: "once".into(),
    };
    let publish = |message: &PublishRequest| Call::with(&gateway, &path("Publish"), message, &[]);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut answer = publish(&message);
        ids.push(answer.next::<PublishResponse>().unwrap().id);
        assert!(answer.next::<PublishResponse>().is_none());
        assert_eq!(answer.status(), (OK, String::new()));
    }
    let event = call.event();
    assert_eq!(ids, [event.id.as_str(); 2]);
    assert_eq!((&event.data, &event.attributes), (&message.data, &message.attributes));
    for (bad, code) in [
        (PublishRequest { topic: "a b".into(), ..message.clone() }, INVALID_ARGUMENT),
        (PublishRequest { topic: "orders".into(), ..Default::default() }, INVALID_ARGUMENT),
        (PublishRequest { data: vec![0; 10_000_001].into(), ..message.clone() }, INVALID_ARGUMENT),
        (PublishRequest { data: vec![0; 11_000_000].into(), ..message }, RESOURCE_EXHAUSTED),
    ] {
        assert_eq!(publish(&bad).status().0, code);
    }
    let keys = KeyServer::start();
    let off = with_tokens(&keys, &[]);
    let answer = Call::with(&off, &path("Publish"), &PublishRequest::default(), &[]);
    assert_eq!(answer.status().0, NOT_FOUND);
}

#[test]
fn a_large_event_arrives_whole() {
    let gateway = Gateway::dev(&[]);
    let mut call = Call::subscribe(&gateway, "orders");
    call.record();
    let text = "é".repeat(1_000_000);
    gateway.publish("orders", &text);
    gateway.publish("orders", "next");
    assert!(&*call.event().data == text.as_bytes());
    assert_eq!(&*call.event().data, b"next");
}

#[test]
fn a_client_that_takes_nothing_is_ended() {
    let gateway = Gateway::dev(&[("write-timeout", "1 s"), ("keep-alive", "1 s")]);
    let mut call = Call::subscribe(&gateway, "orders");
    call.record();
    let text = "x".repeat(60_000);
    for _ in 0..20 {
        gateway.publish("orders", &text);
    }
    gateway.until_metric("stream_events_streams_ended_total{reason=\"stalled\"}", 1.0);
    gateway.until_metric("stream_events_streams", 0.0);
}
