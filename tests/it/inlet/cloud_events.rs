//! CloudEvents in pushes. `tests/artefacts/test_api_cloud_events.py` sends those of the Python SDK.

use serde_json::{Value, json};

use crate::support::gateway::Gateway;

const BINARY: [(&str, &str); 5] = [
    ("ce-specversion", "1.0"),
    ("ce-type", "com.example.made"),
    ("ce-source", "/shop"),
    ("ce-id", "1"),
    ("ce-customer", "Zo%C3%AB"),
];
const STRUCTURED: (&str, &str) = ("Content-Type", "application/cloudevents+json; charset=utf-8");

fn json_of(data: &str) -> Value {
    serde_json::from_str(data).unwrap()
}

#[test]
fn binary_mode_is_received_as_data_with_attributes() {
    let gateway = Gateway::dev(&[]);
    let mut data = gateway.events("?topic=orders");
    let mut messages = gateway.events("?format=message");
    let mut cloud_events = gateway.events("?format=cloudevents");
    let of_customer = format!("?filter={}", "attributes.ce-customer%3D%22Zo%C3%AB%22");
    let mut filtered = gateway.events(&of_customer);
    let fields = [("Content-Type", "application/json"), ("ce-time", "2021-02-26T19:13:55.749Z")];
    let headers = [&BINARY[..], &fields, &[("X-Other", "x")]].concat();
    // The body looks like an envelope, and is data all the same.
    let body = r#"{"message":{"text":"hi"}}"#;
    for outcome in ["stored", "duplicate"] {
        let answer = gateway.post("/push/orders", &headers, body.as_bytes());
        assert_eq!(answer.status, 204, "{}", answer.text());
        gateway.until_metric(&format!("stream_events_pushes_total{{outcome=\"{outcome}\"}}"), 1.0);
    }
    assert_eq!(data.next().data, body);
    assert_eq!(filtered.next().data, body);
    let mut message = json_of(&messages.next().data);
    message.as_object_mut().unwrap().remove("id");
    let expected = json!({
        "topic": "orders",
        "message_id": "/shop 1",
        "publish_time": "2021-02-26T19:13:55.749Z",
        "attributes": {
            "ce-specversion": "1.0",
            "ce-type": "com.example.made",
            "ce-source": "/shop",
            "ce-id": "1",
            "ce-customer": "Zoë",
            "ce-time": "2021-02-26T19:13:55.749Z",
            "content-type": "application/json",
        },
        "data": { "message": { "text": "hi" } },
    });
    assert_eq!(message, expected);
    let event = json_of(&cloud_events.next().data);
    assert_eq!((&event["id"], &event["customer"]), (&json!("1"), &json!("Zoë")));
    assert_eq!((&event["source"], &event["data"]), (&json!("/shop"), &expected["data"]));
}

#[test]
fn structured_mode_is_received_whole() {
    let gateway = Gateway::dev(&[]);
    let mut data = gateway.events("?topic=orders");
    let mut cloud_events = gateway.events("?format=cloudevents&filter=attributes:ce-customer");
    let event = json!({
        "specversion": "1.0", "type": "com.example.made", "source": "/shop", "id": "1",
        "customer": "c1", "data": { "price": 1 },
    });
    let push = |event: &Value| {
        let answer = gateway.post("/push/orders", &[STRUCTURED], event.to_string().as_bytes());
        assert_eq!(answer.status, 204, "{}", answer.text());
    };
    push(&event);
    push(&event);
    // Ids are unique only for one source.
    let mut other = event.clone();
    other["source"] = json!("/other");
    push(&other);
    assert_eq!([data.next(), data.next()].map(|seen| json_of(&seen.data)), [event.clone(), other]);
    let mut seen = json_of(&cloud_events.next().data);
    seen.as_object_mut().unwrap().remove("lasteventid").unwrap();
    assert_eq!(seen, event);
}

#[test]
fn malformed_cloud_events_are_poison() {
    let [acks, nacks] = [("ack", 204), ("nack", 400)].map(|(poison, status)| {
        let gateway = Gateway::dev(&[("poison", poison)]);
        let push = |headers: &[(&str, &str)], body: &str| {
            let answer = gateway.post("/push/orders", headers, body.as_bytes());
            assert_eq!(answer.status, status, "{poison}: {}", answer.text());
            answer.text()
        };
        let texts = [
            push(&[STRUCTURED], "not JSON"),
            push(&[STRUCTURED], r#"{"specversion":"1.0","type":"t","source":"/s"}"#),
            push(&[&BINARY[..4], &[("ce-customer", "%FF")]].concat(), "x"),
        ];
        gateway.until_metric("stream_events_poison_total{reason=\"bad-cloud-event\"}", 3.0);
        texts
    });
    assert_eq!(acks, ["", "", ""]);
    for (text, part) in nacks.iter().zip(["not a JSON object", "has no id", "ce-customer"]) {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn cloud_events_obey_the_rules_of_pushes() {
    let gateway = Gateway::dev(&[("topic", "orders")]);
    let push = |path: &str, headers: &[(&str, &str)]| gateway.post(path, headers, b"x").status;
    assert_eq!(push("/push/orders", &BINARY), 204);
    // A CloudEvent names no topic.
    assert_eq!(push("/push", &BINARY), 400);
    assert_eq!(push("/push/clicks", &BINARY), 404);
    assert_eq!(push("/push/orders", &[&BINARY[..], &[("Content-Encoding", "gzip")]].concat()), 415);
    // Without one of the attributes that each CloudEvent has, the headers say nothing.
    assert_eq!(push("/push/orders", &BINARY[1..]), 400);
    let batch = [("Content-Type", "application/cloudevents-batch+json")];
    assert_eq!(gateway.post("/push/orders", &batch, b"[]").status, 400);
}

#[test]
fn cloud_events_need_the_token_of_a_push() {
    let gateway = Gateway::serve(&[
        ("push-auth", "oidc"),
        ("push-audience", "a"),
        ("push-service-account", "a@b.iam.gserviceaccount.com"),
        ("push-jwks-url", "http://127.0.0.1:1/"),
        ("read-auth", "anonymous"),
    ]);
    assert_eq!(gateway.post("/push/orders", &BINARY, b"x").status, 401);
    assert_eq!(gateway.post("/push/orders", &[STRUCTURED], b"x").status, 401);
}
