//! Prefix patterns in `topic=`.

use serde_json::Value;

use crate::support::{
    gateway::Gateway,
    reader::{CASES, Reader},
};

/// Topics that `stream-open` names.
fn named(reader: &Reader) -> Value {
    let opened = reader.opened.as_ref().unwrap();
    serde_json::from_str::<Value>(&opened.data).unwrap()["topics"].clone()
}

#[test]
fn a_prefix_selects_its_topics_and_those_that_appear_later() {
    for case in CASES {
        let gateway = case.gateway(&[]);
        gateway.publish("orders.eu", "before");
        let mut live = case.open(&gateway, "?topic=orders.*,parcels");
        assert_eq!(named(&live), serde_json::json!(["orders.*", "parcels"]));
        for topic in ["orders", "orders.us", "ordersx.a", "parcels", "parcels.x", "orders.a.b"] {
            gateway.publish(topic, topic);
        }
        assert_eq!(live.take(3), ["orders.us", "parcels", "orders.a.b"]);
        let mut replayed = case.open(&gateway, "?topic=orders.*&since=1h");
        assert_eq!(replayed.take(3), ["before", "orders.us", "orders.a.b"]);
    }
}

#[test]
fn a_poll_takes_a_prefix_too() {
    let gateway = Gateway::dev(&[]);
    for topic in ["orders.eu", "parcels", "orders.us"] {
        gateway.publish(topic, topic);
    }
    let page = gateway.get("/events?mode=poll&since=1h&topic=orders.*", &[]);
    let page: Value = serde_json::from_slice(&page.body).unwrap();
    let events = page["events"].as_array().unwrap().iter();
    assert_eq!(events.map(|event| &event["data"]).collect::<Vec<_>>(), ["orders.eu", "orders.us"]);
}

#[test]
fn a_pattern_selects_among_the_served_topics() {
    let gateway = Gateway::dev(&[("topic", "orders.eu"), ("topic", "parcels")]);
    for (topics, expected) in [
        ("orders.*", 200),
        ("orders.eu,parcels", 200),
        ("*", 200),
        ("orders.us", 404),
        ("orders.eu.*", 404),
        ("orders.*,users.*", 404),
        ("ord*", 400),
        ("orders.*.eu", 400),
        (".*", 400),
    ] {
        let path = format!("/events?topic={topics}");
        assert_eq!(gateway.get_head(&path, &[]).0, expected, "{topics}");
    }
    let mut reader = gateway.events("?topic=orders.*&since=1h");
    gateway.publish("parcels", "hidden");
    gateway.publish("orders.eu", "shown");
    assert_eq!(reader.next().data, "shown");
}

/// A gap that can be in topics of a prefix names no topics: all of them can have lost events.
#[test]
fn a_gap_of_a_prefix_names_no_topics() {
    let gateway = Gateway::dev(&[]);
    for (topics, expected) in [("orders", vec!["orders"]), ("orders,parcels.*", vec![])] {
        let query = format!("?topic={topics}&last_event_id=1763690177349-5648324730880001");
        let gap = gateway.events(&query).next_raw().unwrap();
        assert_eq!(gap.event, "stream-gap", "{gap:?}");
        let gap: Value = serde_json::from_str(&gap.data).unwrap();
        assert_eq!((&gap["reason"], &gap["topics"]), (&"restart".into(), &expected.into()));
    }
}
