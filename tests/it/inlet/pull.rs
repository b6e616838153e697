//! Messages that the gateway pulls from Google's Pub/Sub emulator.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::{emulator::Emulator, gateway::Gateway};

const UP: &str = "stream_events_pull_up{subscription=\"projects/test/subscriptions/orders\"}";

/// Creates a topic and a pull subscription with its name.
fn create(emulator: &Emulator, name: &str) {
    emulator.call("PUT", &format!("topics/{name}"), &json!({}));
    subscribe(emulator, name);
}

fn subscribe(emulator: &Emulator, name: &str) {
    let topic = format!("projects/test/topics/{name}");
    let body = json!({ "topic": topic, "enableMessageOrdering": true, "ackDeadlineSeconds": 10 });
    emulator.call("PUT", &format!("subscriptions/{name}"), &body);
}

fn pulling(emulator: &Emulator, flags: &[(&'static str, &str)]) -> Gateway {
    let endpoint = format!("http://{}", emulator.address);
    let pull = [("pull", "projects/test/subscriptions/orders"), ("pull-endpoint", &endpoint)];
    Gateway::dev(&[&pull, flags].concat())
}

#[test]
fn messages_are_pulled_with_all_their_parts() {
    let Some(emulator) = Emulator::start() else { return };
    create(&emulator, "orders");
    let gateway = pulling(&emulator, &[]);
    let mut source = gateway.events("?topic=orders&format=message");
    let message = json!({
        "data": STANDARD.encode("zwei\nZeilen ü"),
        "attributes": { "event": "made" }, "orderingKey": "k",
    });
    emulator.publish("orders", &json!([message]));
    let event: Value = serde_json::from_str(&source.next().data).unwrap();
    for (part, value) in [
        ("topic", json!("orders")),
        ("data", json!("zwei\nZeilen ü")),
        ("attributes", json!({ "event": "made" })),
        ("ordering_key", json!("k")),
    ] {
        assert_eq!(event[part], value, "{part}: {event}");
    }
    assert!(event["message_id"].is_string() && event["publish_time"].is_string(), "{event}");
    gateway.until_metric("stream_events_pulls_total{outcome=\"stored\"}", 1.0);
    gateway.until_metric(UP, 1.0);
}
