//! `POST /push`: accepted and refused messages, the status of each answer, and the policy.

use std::{
    io::{BufReader, Read as _, Write as _},
    time::{Duration, Instant},
};

use serde_json::json;
use stream_events::{
    backplane::{Backplane, PublishError},
    config::OnPoison,
    inlet::{DecodeError, Inlet, Outcome, Poison, PoisonReason, envelope},
    telemetry::metrics::Metrics,
};

use crate::support::{
    gateway::{Gateway, message},
    http1,
};

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[test]
fn wrapped_message_is_received() {
    let gateway = Gateway::dev(&[]);
    let mut events = gateway.events("?topic=orders");
    let body = r#"{"message":{"data":"eyJpZCI6MX0=","messageId":"1","message_id":"1",
        "publishTime":"2021-02-26T19:13:55.749Z","attributes":{"event":"made"}},
        "subscription":"projects/p/subscriptions/s","deliveryAttempt":5}"#;
    assert_eq!(gateway.post("/push/orders", &[JSON], body.as_bytes()).status, 204);
    let event = events.next();
    assert_eq!((event.event.as_str(), event.data.as_str()), ("made", "{\"id\":1}"));
    gateway.until_metric("stream_events_pushes_total{outcome=\"stored\"}", 1.0);
}

/// A gateway that pulls needs neither pushes nor the keys of their tokens.
#[test]
fn pushes_can_be_switched_off() {
    let gateway = Gateway::dev(&[("push-auth", "off")]);
    let body = json!({ "message": message("1", "1") }).to_string();
    for path in ["/push", "/push/orders"] {
        let answer = gateway.post(path, &[JSON], body.as_bytes());
        assert_eq!(answer.status, 404);
        assert!(answer.text().contains("--push-auth off"), "{}", answer.text());
    }
    assert_eq!(gateway.get("/readyz", &[]).status, 200);
    gateway.until_metric("stream_events_pushes_total{outcome=\"off\"}", 2.0);
}

#[test]
fn unwrapped_message_is_received_with_its_metadata() {
    let gateway = Gateway::dev(&[]);
    let mut events = gateway.events("");
    let headers = [
        ("x-goog-pubsub-subscription-name", "projects/p/subscriptions/clicks"),
        ("x-goog-pubsub-message-id", "7"),
        ("x-goog-pubsub-publish-time", "2021-02-26T19:13:55.749Z"),
        ("x-goog-pubsub-ordering-key", "k"),
        ("Content-Type", "application/octet-stream"),
        ("event", "click"),
    ];
    assert_eq!(gateway.post("/push", &headers, b"plain \"text\"").status, 204);
    let event = events.next();
    assert_eq!((event.event.as_str(), event.data.as_str()), ("click", "plain \"text\""));
    // The same message again is a duplicate. Its topic is the name of the subscription.
    assert_eq!(gateway.post("/push", &headers, b"plain \"text\"").status, 204);
    gateway.until_metric("stream_events_pushes_total{outcome=\"duplicate\"}", 1.0);
    assert_eq!(gateway.events("?topic=clicks&since=1m").next().data, "plain \"text\"");
}

#[test]
fn raw_body_is_data_with_payload_raw() {
    let gateway = Gateway::dev(&[]);
    let mut events = gateway.events("?topic=orders");
    // Without a message id, a redelivery cannot be recognised.
    for _ in 0..2 {
        assert_eq!(gateway.post("/push/orders?payload=raw", &[], b"{\"message\":1}").status, 204);
    }
    assert_eq!(events.take(2), ["{\"message\":1}", "{\"message\":1}"]);
}

#[test]
fn data_can_be_absent_or_empty() {
    let gateway = Gateway::dev(&[]);
    let mut events = gateway.events("");
    for (id, message) in [
        json!({ "attributes": { "event": "only-attributes" }, "messageId": "1" }),
        json!({ "data": "", "messageId": "2" }),
        json!({ "data": null, "message_id": "3" }),
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(gateway.push("orders", message).status, 204, "{id}");
    }
    assert_eq!(events.next().event, "only-attributes");
    assert_eq!(events.take(2), ["", ""]);
}

#[test]
fn message_of_ten_megabytes_is_received() {
    let gateway = Gateway::dev(&[]);
    let mut events = gateway.events("");
    let data: String = (0..10_000_000_u32).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
    gateway.publish("orders", &data);
    assert!(events.next().data == data, "the 10 MB differ from the published data");
}

#[test]
fn duplicates_are_recognised_by_message_id_and_not_by_publish_time() {
    let gateway = Gateway::dev(&[]);
    let mut events = gateway.events("");
    let mut first = message("first", "1");
    first["publishTime"] = "2021-02-26T19:13:55.749Z".into();
    let mut second = message("second", "2");
    second["publishTime"] = first["publishTime"].clone();
    for message in [&first, &first, &second, &first] {
        assert_eq!(gateway.push("orders", message).status, 204);
    }
    // Ids are unique only within a topic.
    assert_eq!(gateway.push("parcels", &first).status, 204);
    assert_eq!(events.take(3), ["first", "second", "first"]);
    gateway.until_metric("stream_events_pushes_total{outcome=\"duplicate\"}", 2.0);
}

#[test]
fn number_of_remembered_message_ids_is_bounded() {
    let gateway = Gateway::dev(&[("dedup-ids", "3")]);
    let mut events = gateway.events("");
    for id in ["1", "2", "3", "4", "2", "1"] {
        assert_eq!(gateway.push("orders", &message(id, id)).status, 204);
    }
    assert_eq!(events.take(5), ["1", "2", "3", "4", "1"]);
}

#[test]
fn poison_is_acked_and_counted() {
    let gateway = Gateway::dev(&[]);
    for (body, reason) in [
        (r#"{"message":{"data":"!","messageId":"1"}}"#.to_owned(), "bad-base64"),
        (r#"{"message":{"data":["x"],"messageId":"1"}}"#.to_owned(), "bad-type"),
        (format!(r#"{{"message":{{"data":"{}"}}}}"#, "A".repeat(17 << 20)), "too-large"),
    ] {
        let answer = gateway.post("/push/orders", &[JSON], body.as_bytes());
        assert_eq!(answer.status, 204, "{reason}");
        let count = format!("stream_events_poison_total{{reason=\"{reason}\"}}");
        gateway.until_metric(&count, 1.0);
    }
    gateway.until_metric("stream_events_pushes_total{outcome=\"poison\"}", 3.0);
}

#[test]
fn poison_is_nacked_for_a_dead_letter_topic() {
    let gateway = Gateway::dev(&[("poison", "nack")]);
    let bad = br#"{"message":{"data":"!","messageId":"1"}}"#;
    assert_eq!(gateway.post("/push/orders", &[JSON], bad).status, 400);
    let large = format!(r#"{{"message":{{"data":"{}"}}}}"#, "A".repeat(17 << 20));
    assert_eq!(gateway.post("/push/orders", &[JSON], large.as_bytes()).status, 413);
}

/// A body that is not an envelope may be a valid message of a subscription without a wrapper. An ack
/// would delete it.
#[test]
fn body_without_envelope_is_refused_with_the_setting_to_change() {
    let gateway = Gateway::dev(&[]);
    for body in ["plain text", "{\"id\":1}", "[]", ""] {
        let answer = gateway.post("/push/orders", &[JSON], body.as_bytes());
        assert_eq!(answer.status, 400, "{body}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert!(answer.text().contains("payload=raw"), "{}", answer.text());
        assert!(answer.text().contains("--push-no-wrapper-write-metadata"));
    }
}

#[test]
fn missing_and_invalid_topics_are_refused() {
    let gateway = Gateway::dev(&[]);
    let push = |path: &str, body: &str| gateway.post(path, &[JSON], body.as_bytes()).status;
    let good = r#"{"message":{"data":"eA=="},"subscription":"projects/p/subscriptions/orders"}"#;
    assert_eq!(push("/push", good), 204);
    let mut escaped = gateway.events("?topic=a%2Bb%25c");
    assert_eq!(push("/push/a%2Bb%25c", good), 204, "escaped letters of the grammar");
    assert_eq!(escaped.next().data, "x", "the query of a reader is unescaped in the same way");
    assert_eq!(push("/push", r#"{"message":{"data":"eA=="}}"#), 400);
    for name in ["ab", "1abc", "google", "a%20b", "a%0Ab", "a%00b", "..%2f..%2fetc", "%2e%2e"] {
        assert_eq!(push(&format!("/push/{name}"), good), 400, "{name}");
    }
    assert_eq!(push("/push/a/b", good), 404);
}

#[test]
fn topic_that_is_not_served_is_404() {
    let gateway = Gateway::dev(&[("topic", "orders"), ("topic", "parcels")]);
    gateway.publish("orders", "x");
    gateway.publish("parcels", "x");
    assert_eq!(gateway.push("clicks", &message("x", "1")).status, 404);
    let body = r#"{"message":{"data":"eA=="},"subscription":"projects/p/subscriptions/clicks"}"#;
    assert_eq!(gateway.post("/push", &[JSON], body.as_bytes()).status, 404);
}

#[test]
fn encoded_bodies_and_other_methods_are_refused() {
    let gateway = Gateway::dev(&[]);
    let answer = gateway.post("/push/orders", &[JSON, ("Content-Encoding", "gzip")], b"\x1f\x8b");
    assert_eq!(answer.status, 415);
    let answer = gateway.get("/push/orders", &[]);
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
}

/// All bodies that are being received share a limit: two of 9 MiB exceed 16 MiB.
#[test]
fn bytes_in_flight_are_limited() {
    let gateway = Gateway::dev(&[("push-bytes-in-flight", "16 MiB")]);
    let body = format!(r#"{{"message":{{"data":"{}"}}}}"#, "A".repeat(9 << 20));
    let length = body.len().to_string();
    let mut first = http1::connect(gateway.address);
    let headers = [JSON, ("Content-Length", &length), ("Connection", "close")];
    http1::write_head(&mut first, "POST", "/push/orders", &headers);
    let (most, rest) = body.as_bytes().split_at(body.len() - 1);
    first.write_all(most).unwrap();
    gateway.until_metric(
        "stream_events_push_bytes_in_flight",
        f64::from(u32::try_from(most.len()).unwrap()),
    );

    let answer = gateway.post("/push/orders", &[JSON], body.as_bytes());
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());

    first.write_all(rest).unwrap();
    assert_eq!(http1::read_answer(first, "POST").status, 204, "the first push is not affected");
    gateway.until_metric("stream_events_push_bytes_in_flight", 0.0);
    assert_eq!(gateway.post("/push/orders", &[JSON], body.as_bytes()).status, 204);
}

#[test]
fn incomplete_body_is_not_stored() {
    let gateway = Gateway::dev(&[]);
    let mut socket = http1::connect(gateway.address);
    http1::write_head(&mut socket, "POST", "/push/orders", &[("Content-Length", "1000")]);
    socket.write_all(br#"{"message":{"data":"eA=="}}"#).unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    socket.read_to_end(&mut Vec::new()).ok();
    gateway.until_metric("stream_events_pushes_total{outcome=\"unreceived\"}", 1.0);
    gateway.until_metric("stream_events_ring_events", 0.0);
}

/// A push is answered as soon as its body is complete, whether it is pipelined or arrives long after
/// its head. A connection that is not woken for it would take one second for each push.
#[test]
fn push_is_answered_as_soon_as_it_is_complete() {
    const PUSHES: usize = 20;
    let gateway = Gateway::dev(&[]);
    let mut socket = http1::connect(gateway.address);
    let push = |at: usize| {
        let body = json!({ "message": message(at.to_string(), &at.to_string()) }).to_string();
        let length = body.len();
        let head = format!(
            "POST /push/orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        );
        (head, body)
    };
    let mut answers = BufReader::new(socket.try_clone().unwrap());
    let mut answered = || assert_eq!(http1::read_head(&mut answers).unwrap().0, 204);
    let start = Instant::now();
    let pipelined: String = (0..PUSHES).map(push).map(|(head, body)| head + &body).collect();
    socket.write_all(pipelined.as_bytes()).unwrap();
    (0..PUSHES).for_each(|_| answered());
    for at in PUSHES..PUSHES * 2 {
        let (head, body) = push(at);
        let (first, second) = body.split_at(20);
        for part in [&head, first, second] {
            socket.write_all(part.as_bytes()).unwrap();
            // Long enough for the gateway to read most parts separately.
            std::thread::sleep(Duration::from_millis(5));
        }
        answered();
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(8), "pushes waited to be noticed: {took:?}");
    gateway.until_metric("stream_events_pushes_total{outcome=\"stored\"}", 40.0);
}

/// The policy without a transport, as another inlet would use it.
#[tokio::test]
async fn the_policy_needs_no_transport() {
    let (hub, _shard) = crate::hub::helpers::hub(crate::hub::helpers::limits());
    let metrics = Metrics::new().unwrap();
    let backplane = Backplane::Local(hub.clone(), std::sync::Arc::default());
    let topics = vec![crate::hub::helpers::topic("orders")];
    let inlet = Inlet::new(backplane, topics, OnPoison::Nack, &metrics, &metrics.pushes);
    let message = |topic: &str| {
        let body = json!({ "message": message("x", "1") }).to_string();
        envelope::decode(body.as_bytes(), topic.parse().ok()).unwrap()
    };
    let Outcome::Stored(id) = inlet.accept(message("orders")).await else { panic!("not stored") };
    assert_eq!(id, hub.head());
    assert_eq!(inlet.accept(message("orders")).await, Outcome::Duplicate(id));
    assert!(matches!(inlet.accept(message("parcels")).await, Outcome::NotServed(_)));

    let poison = || Poison {
        reason: PoisonReason::BadType,
        message_id: Some("7".to_owned()),
        detail: "x".repeat(1_000),
    };
    let Outcome::PoisonRefused(refused) = inlet.reject(DecodeError::Poison(poison())) else {
        panic!("--poison nack refuses")
    };
    assert_eq!(refused.detail.len(), 200, "a text from outside is cut");
    let no_topic = DecodeError::NoTopic("no topic".to_owned());
    assert_eq!(inlet.reject(no_topic), Outcome::NoTopic("no topic".to_owned()));
    hub.close();
    let closed = Outcome::Unconfirmed(PublishError::Draining);
    assert_eq!(inlet.accept(message("orders")).await, closed);
    for outcome in ["stored", "duplicate", "not-served", "poison", "no-topic", "shutting-down"] {
        assert_eq!(metrics.pushes.with_label_values(&[outcome]).get(), 1, "{outcome}");
    }
    assert_eq!(metrics.poison.with_label_values(&["bad-type"]).get(), 1);
}
