//! `format=` of `GET /events`: what a reader receives in each format.

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, message};

fn json_of(data: &str) -> Value {
    serde_json::from_str(data).unwrap()
}

#[test]
fn each_format_has_the_same_events_with_the_same_ids() {
    let gateway = Gateway::dev(&[("workers", "1")]);
    let open = |format: &str| gateway.events(&format!("?topic=orders{format}"));
    let mut data = open("");
    let mut data_too = open("&format=data");
    let mut messages = open("&format=message");
    let mut cloud_events = open("&format=cloudevents");
    let mut published = message("{\"price\": 1.50}", "7");
    published["attributes"] = json!({ "event": "made", "a": "b", "ce-type": "com.example.made" });
    published["publishTime"] = json!("2021-02-26T19:13:55.749Z");
    published["orderingKey"] = json!("k");
    gateway.push("orders", &published);
    let event = data.next();
    assert_eq!((event.event.as_str(), event.data.as_str()), ("made", "{\"price\": 1.50}"));
    assert_eq!(data_too.next(), event);
    let as_message = messages.next();
    let expected = json!({
        "id": event.id,
        "topic": "orders",
        "message_id": "7",
        "publish_time": "2021-02-26T19:13:55.749Z",
        "ordering_key": "k",
        "attributes": { "event": "made", "a": "b", "ce-type": "com.example.made" },
        "data": { "price": 1.5 },
    });
    assert_eq!((as_message.id, as_message.event.as_str()), (event.id.clone(), "made"));
    assert_eq!(json_of(&as_message.data), expected);
    assert!(as_message.data.contains("1.50"), "numbers are as they were published");
    let as_cloud_event = cloud_events.next();
    let expected = json!({
        "specversion": "1.0",
        "id": "7",
        "source": "/topics/orders",
        "type": "com.example.made",
        "subject": "k",
        "time": "2021-02-26T19:13:55.749Z",
        "datacontenttype": "application/json",
        "lasteventid": event.id,
        "data": { "price": 1.5 },
    });
    assert_eq!((as_cloud_event.id, as_cloud_event.event.as_str()), (event.id, "made"));
    assert_eq!(json_of(&as_cloud_event.data), expected);
}

/// Broadcasts, large events and batches of several events know no format.
#[test]
fn many_readers_of_each_format_receive_bursts_and_large_events() {
    let gateway = Gateway::dev(&[("workers", "1"), ("keep-alive", "10 min")]);
    let formats = ["data", "message", "cloudevents"];
    let open = |n: usize| gateway.events(&format!("?topic=orders&format={}", formats[n % 3]));
    let mut readers: Vec<_> = (0..48).map(open).collect();
    let large = "line \"one\"\n".repeat(50_000);
    for round in 0..3 {
        let data: Vec<_> =
            (0..20).map(|n| if n == 7 { large.clone() } else { format!("{round} {n}") }).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| data.iter().for_each(|data| gateway.publish("orders", data)));
            for (n, reader) in readers.iter_mut().enumerate() {
                for data in &data {
                    let event = reader.next();
                    let seen = match n % 3 {
                        0 => event.data,
                        _ => json_of(&event.data)["data"].as_str().unwrap().to_owned(),
                    };
                    assert!(seen == *data, "reader {n}, round {round}");
                }
            }
        });
    }
    gateway.until_metric("stream_events_events_delivered_total", 48.0 * 60.0);
}

/// Attributes are in no frame, and can be larger than a batch.
#[test]
fn large_attributes_are_received_whole() {
    let gateway = Gateway::dev(&[]);
    let mut reader = gateway.events("?format=message");
    for len in [10, 20_000, 300_000, 11] {
        let mut published = message("x", &len.to_string());
        published["attributes"] = json!({ "a": "y".repeat(len) });
        gateway.push("orders", &published);
        gateway.publish("orders", "next");
        assert_eq!(json_of(&reader.next().data)["attributes"]["a"].as_str().unwrap().len(), len);
        assert_eq!(json_of(&reader.next().data)["data"], "next");
    }
}

/// Eventarc pushes the messages of a Pub/Sub trigger in Pub/Sub's envelope, with the attributes of a
/// CloudEvent in headers. The message in the envelope is what readers receive.
#[test]
fn messages_that_eventarc_pushes_are_received() {
    let gateway = Gateway::dev(&[]);
    let mut reader = gateway.events("?format=cloudevents");
    let headers = [
        ("Content-Type", "application/json"),
        ("ce-id", "2070443601311540"),
        ("ce-specversion", "1.0"),
        ("ce-type", "google.cloud.pubsub.topic.v1.messagePublished"),
        ("ce-source", "//pubsub.googleapis.com/projects/p/topics/t"),
    ];
    let body = json!({
        "message": message("{\"a\":1}", "2070443601311540"),
        "subscription": "projects/p/subscriptions/eventarc-europe-west1-trigger-sub-1",
    });
    let answer = gateway.post("/push/orders", &headers, body.to_string().as_bytes());
    assert_eq!(answer.status, 204, "{}", answer.text());
    let event = json_of(&reader.next().data);
    assert_eq!((&event["id"], &event["data"]), (&json!("2070443601311540"), &json!({ "a": 1 })));
}
