//! Pushes from Google's Pub/Sub emulator, which forms messages as Google does.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::support::{emulator::Emulator, gateway::Gateway, redis::free_port};

#[test]
fn messages_arrive_wrapped_and_unwrapped() {
    let Some(emulator) = Emulator::start() else { return };
    let gateway = Gateway::dev(&[]);
    let push = |path: &str| format!("http://{}{path}", gateway.address);
    emulator.call("PUT", "topics/orders", &json!({}));
    let wrapped = json!({
        "topic": "projects/test/topics/orders", "enableMessageOrdering": true,
        "pushConfig": { "pushEndpoint": push("/push/wrapped") },
    });
    let by_name = json!({
        "topic": "projects/test/topics/orders",
        "pushConfig": { "pushEndpoint": push("/push") },
    });
    let unwrapped = json!({
        "topic": "projects/test/topics/orders",
        "pushConfig": {
            "pushEndpoint": push("/push/unwrapped"), "noWrapper": { "writeMetadata": true },
        },
    });
    let raw = json!({
        "topic": "projects/test/topics/orders",
        "pushConfig": {
            "pushEndpoint": push("/push/raw?payload=raw"), "noWrapper": { "writeMetadata": false },
        },
    });
    for (name, body) in
        [("wrapped-push", wrapped), ("by-name", by_name), ("unwrapped", unwrapped), ("raw", raw)]
    {
        emulator.call("PUT", &format!("subscriptions/{name}"), &body);
    }
    let mut of_wrapped = gateway.events("?topic=wrapped");
    let mut of_name = gateway.events("?topic=by-name");
    let mut of_unwrapped = gateway.events("?topic=unwrapped");
    let mut of_raw = gateway.events("?topic=raw");

    let messages = [
        json!({ "data": STANDARD.encode("{\"id\":1}"), "attributes": { "event": "made" } }),
        json!({ "data": STANDARD.encode("zwei\nZeilen ü"), "orderingKey": "k" }),
        json!({ "attributes": { "event": "only-attributes" } }),
        json!({ "data": STANDARD.encode("x".repeat(1_000_000)) }),
    ];
    for message in &messages {
        emulator.publish("orders", &json!([message]));
    }
    let large = "x".repeat(1_000_000);
    let want = [
        ("made", "{\"id\":1}"),
        ("message", "zwei\nZeilen ü"),
        ("only-attributes", ""),
        ("message", &large),
    ];
    // Pub/Sub guarantees an order only within an ordering key.
    for source in [&mut of_wrapped, &mut of_name, &mut of_unwrapped] {
        let mut seen: Vec<_> = (0..4).map(|_| source.next()).map(|e| (e.event, e.data)).collect();
        seen.sort();
        let mut want = want.map(|(event, data)| (event.to_owned(), data.to_owned())).to_vec();
        want.sort();
        assert!(seen == want, "{:?}", seen.iter().map(|(e, d)| (e, d.len())).collect::<Vec<_>>());
    }
    let mut lengths = [0; 4].map(|_| of_raw.next().data.len());
    lengths.sort_unstable();
    assert_eq!(lengths, [0, 8, 14, 1_000_000], "without metadata there is only data");
    gateway.until_metric("stream_events_pushes_total{outcome=\"stored\"}", 16.0);
}

/// The emulator pushes a message again until a gateway acks it.
#[test]
fn message_that_was_not_acked_is_pushed_again() {
    let Some(emulator) = Emulator::start() else { return };
    // No process listens on this port yet: pushes fail until the gateway starts.
    let address = format!("127.0.0.1:{}", free_port());
    emulator.call("PUT", "topics/orders", &json!({}));
    let push = json!({
        "topic": "projects/test/topics/orders",
        "pushConfig": { "pushEndpoint": format!("http://{address}/push/orders") },
    });
    emulator.call("PUT", "subscriptions/orders", &push);
    emulator.publish("orders", &json!([{ "data": STANDARD.encode("kept") }]));
    let gateway = Gateway::dev(&[("listen", &address)]);
    let mut source = gateway.events("?since=1h");
    assert_eq!(source.next().data, "kept");
}
