//! Messages that the gateway pulls from Google's Pub/Sub emulator.

use std::{collections::BTreeMap, net::TcpListener, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    emulator::Emulator,
    eventually,
    gateway::Gateway,
    http1::{self, EventSource},
    process::{Process, stream_events},
    redis::RedisServer,
};

const NAME: &str = "projects/test/subscriptions/orders";
const UP: &str = "stream_events_pull_up{subscription=\"projects/test/subscriptions/orders\"}";
const STORED: &str = "stream_events_pulls_total{outcome=\"stored\"}";
const DUPLICATE: &str = "stream_events_pulls_total{outcome=\"duplicate\"}";
const UNCONFIRMED: &str = "stream_events_pulls_total{outcome=\"unconfirmed\"}";
const NOT_FOUND: &str = "stream_events_pull_reconnects_total{reason=\"not-found\"}";
const UNAVAILABLE: &str = "stream_events_pull_reconnects_total{reason=\"unavailable\"}";
const UNREACHABLE: &str = "stream_events_pull_reconnects_total{reason=\"unreachable\"}";

/// Creates the topic `orders` and a pull subscription of its name.
fn create(emulator: &Emulator) {
    emulator.call("PUT", "topics/orders", &json!({}));
    subscribe(emulator, "orders", &json!({ "enableMessageOrdering": true }));
}

/// Creates a subscription to the topic `orders`.
fn subscribe(emulator: &Emulator, name: &str, settings: &Value) {
    let mut body = settings.clone();
    body["topic"] = json!("projects/test/topics/orders");
    emulator.call("PUT", &format!("subscriptions/{name}"), &body);
}

fn publish(emulator: &Emulator, data: &str) {
    emulator.publish("orders", &json!([{ "data": STANDARD.encode(data) }]));
}

/// Starts a gateway that pulls the subscription `orders`.
fn pulling(emulator: &Emulator, flags: &[(&'static str, &str)]) -> Gateway {
    let endpoint = format!("http://{}", emulator.address);
    Gateway::dev(&[&[("pull", NAME), ("pull-endpoint", &endpoint)], flags].concat())
}

/// Returns the data of the next `count` events, sorted.
fn sorted(source: &mut EventSource, count: usize) -> Vec<String> {
    let mut data = source.take(count);
    data.sort();
    data
}

#[test]
fn messages_are_pulled_with_all_their_parts() {
    let Some(emulator) = Emulator::start() else { return };
    create(&emulator);
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
    gateway.until_metric(STORED, 1.0);
    gateway.until_metric(UP, 1.0);
}

/// A topic of another name, and data without a key, without attributes, and of a megabyte.
#[test]
fn the_topic_can_have_another_name() {
    let Some(emulator) = Emulator::start() else { return };
    create(&emulator);
    let (pull, endpoint) = (format!("{NAME}=other"), format!("http://{}", emulator.address));
    let flags = [("pull", &*pull), ("pull-endpoint", &endpoint), ("topic", "other")];
    let gateway = Gateway::dev(&[&flags[..], &[("pull-messages", "1")]].concat());
    let mut source = gateway.events("?topic=other");
    let large = "x".repeat(1_000_000);
    for data in ["one", "two", &large] {
        publish(&emulator, data);
    }
    assert_eq!(sorted(&mut source, 3), ["one", "two", &large]);
}

/// Publishes 50 messages of each of 4 keys and expects each key's events in order.
fn keys_are_in_order(flags: &[(&'static str, &str)]) {
    let Some(emulator) = Emulator::start() else { return };
    create(&emulator);
    let gateway = pulling(&emulator, flags);
    let mut source = gateway.events("?topic=orders");
    for n in 0..50 {
        let message =
            |key| json!({ "data": STANDARD.encode(format!("{key} {n}")), "orderingKey": key });
        emulator.publish("orders", &json!(["a", "b", "c", "d"].map(message)));
    }
    let mut of_keys: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for data in source.take(200) {
        let (key, n) = data.split_once(' ').unwrap();
        of_keys.entry(key.to_owned()).or_default().push(n.parse().unwrap());
    }
    assert_eq!(of_keys.len(), 4);
    for (key, numbers) in of_keys {
        assert_eq!(numbers, (0..50).collect::<Vec<_>>(), "{key}");
    }
    gateway.until_metric(STORED, 200.0);
}

#[test]
fn messages_of_a_key_are_in_order() {
    keys_are_in_order(&[]);
}

#[test]
fn messages_of_a_key_are_in_order_in_redis() {
    let redis = RedisServer::start();
    keys_are_in_order(&[("backplane", &redis.url())]);
}

#[test]
fn a_message_that_is_pushed_and_pulled_is_one_event() {
    let Some(emulator) = Emulator::start() else { return };
    create(&emulator);
    let gateway = pulling(&emulator, &[]);
    let endpoint = format!("http://{}/push/orders", gateway.address);
    subscribe(&emulator, "pushed", &json!({ "pushConfig": { "pushEndpoint": endpoint } }));
    let mut source = gateway.events("?topic=orders");
    let data: Vec<_> = (10..60).map(|n| n.to_string()).collect();
    for data in &data {
        publish(&emulator, data);
    }
    assert_eq!(sorted(&mut source, 50), data);
    let outcomes = |outcome: &str| {
        ["pushes", "pulls"].map(|inlet| {
            gateway.metric(&format!("stream_events_{inlet}_total{{outcome=\"{outcome}\"}}"))
        })
    };
    let sum = |outcome| outcomes(outcome).iter().sum::<f64>();
    eventually("both inlets have all messages", || {
        ((sum("stored"), sum("duplicate")) == (50.0, 50.0)).then_some(())
    });
    assert!(source.is_silent(), "an event came twice");
}

#[test]
fn acks_of_exactly_once_delivery_are_confirmed() {
    let Some(emulator) = Emulator::start() else { return };
    emulator.call("PUT", "topics/orders", &json!({}));
    subscribe(&emulator, "orders", &json!({ "enableExactlyOnceDelivery": true }));
    let gateway = pulling(&emulator, &[]);
    let mut source = gateway.events("?topic=orders");
    let data: Vec<_> = (10..60).map(|n| n.to_string()).collect();
    for data in &data {
        publish(&emulator, data);
    }
    assert_eq!(sorted(&mut source, 50), data);
    gateway.until_metric("stream_events_pull_confirmed_acks_total{result=\"confirmed\"}", 50.0);
}

/// The log names the remedy, and the gateway is not ready before the subscription is there.
#[test]
fn a_subscription_that_is_created_later_is_pulled() {
    let Some(emulator) = Emulator::start() else { return };
    emulator.call("PUT", "topics/orders", &json!({}));
    let arguments = "serve --listen 127.0.0.1:0 --ops-listen 127.0.0.1:0 --push-auth none \
                     --read-auth anonymous --log-format json --pull";
    let arguments: Vec<_> = arguments.split_whitespace().chain([NAME]).collect();
    let mut command = stream_events(&arguments);
    let process = Process::start(command.env("PUBSUB_EMULATOR_HOST", emulator.address.to_string()));
    let (address, ops) = (process.listen(), process.ops_listen());
    let remedy = "gcloud pubsub subscriptions create orders --project=test --topic=TOPIC";
    eventually("the log names the remedy", || {
        process.log().iter().any(|line| line.contains(remedy)).then_some(())
    });
    let ready = || http1::request(ops, "GET", "/readyz", &[], b"");
    let answer = ready();
    assert!(answer.status == 503 && answer.text().contains("--pull"), "{}", answer.text());
    assert!(0.0 < crate::support::gateway::metric(ops, NOT_FOUND));
    subscribe(&emulator, "orders", &json!({}));
    eventually("the gateway is ready", || (ready().status == 200).then_some(()));
    let mut source = EventSource::open(address, "/events?topic=orders", &[]);
    publish(&emulator, "late");
    assert_eq!(source.next().data, "late");
}

#[test]
fn a_subscription_is_pulled_again_after_a_restart_of_pubsub() {
    let Some(emulator) = Emulator::start() else { return };
    create(&emulator);
    let gateway = pulling(&emulator, &[]);
    let mut source = gateway.events("?topic=orders");
    publish(&emulator, "before");
    assert_eq!(source.next().data, "before");
    gateway.until_metric(UP, 1.0);
    let emulator = emulator.restart();
    gateway.until_metric(UP, 0.0);
    create(&emulator);
    // The new emulator counts message ids from 1 again: its first message is a duplicate.
    publish(&emulator, "duplicate");
    publish(&emulator, "after");
    assert_eq!(source.next().data, "after");
    gateway.until_metric(UP, 1.0);
    assert!(0.0 < gateway.metric(NOT_FOUND));
}

#[test]
fn without_pubsub_the_gateway_says_that_it_is_unreachable() {
    let port = crate::support::redis::free_port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let gateway = Gateway::dev(&[("pull", NAME), ("pull-endpoint", &endpoint)]);
    eventually("the gateway tries again", || (2.0 < gateway.metric(UNREACHABLE)).then_some(()));
    assert!(gateway.metric(UP) < 0.5);
    gateway.publish("orders", "pushes go on");
}

/// The library tries again and again without a word. Such a stream is not open.
#[test]
fn without_an_answer_of_pubsub_a_stream_is_not_open() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let gateway = Gateway::dev(&[("pull", NAME), ("pull-endpoint", &endpoint)]);
    eventually("the stream fails", || (1.0 < gateway.metric(UNAVAILABLE)).then_some(()));
    assert!(gateway.metric(UP) < 0.5);
}

/// A host that accepts connections and answers nothing, as a proxy that has lost its server does.
#[test]
fn a_host_that_answers_nothing_is_not_reachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    let gateway = Gateway::dev(&[("pull", NAME), ("pull-endpoint", &endpoint)]);
    eventually("the stream fails", || (0.0 < gateway.metric(UNREACHABLE)).then_some(()));
    assert!(gateway.metric(UP) < 0.5);
}

/// The messages that the gateway holds are tried again, and Pub/Sub is not told anything.
#[test]
fn while_redis_is_away_messages_are_held() {
    let Some(emulator) = Emulator::start() else { return };
    create(&emulator);
    let mut redis = RedisServer::with(&["--appendonly", "yes"]);
    let gateway = pulling(&emulator, &[("backplane", &redis.url())]);
    let mut source = gateway.events("?topic=orders");
    publish(&emulator, "before");
    assert_eq!(source.next().data, "before");
    redis.kill();
    let held: Vec<_> = (10..30).map(|n| n.to_string()).collect();
    for data in &held {
        publish(&emulator, data);
    }
    eventually("a message is not confirmed", || (0.0 < gateway.metric(UNCONFIRMED)).then_some(()));
    redis.restart();
    assert_eq!(sorted(&mut source, 20), held);
    gateway.until_metric(STORED, 21.0);
    assert!(gateway.metric(DUPLICATE) < 0.5, "a message came again");
}

/// Pub/Sub delivers a message of an ordering key only after all earlier ones of the key are acked: if
/// one were not, it would come again, and be a duplicate.
fn sigterm_acks(settings: &Value) {
    let Some(emulator) = Emulator::start() else { return };
    emulator.call("PUT", "topics/orders", &json!({}));
    subscribe(&emulator, "orders", settings);
    let redis = RedisServer::start();
    let flags = [("backplane", &*redis.url()), ("drain-timeout", "10 s")];
    let mut first = pulling(&emulator, &flags);
    let data: Vec<_> = (100..400).map(|n| n.to_string()).collect();
    let message = |data| json!({ "data": STANDARD.encode(data), "orderingKey": "k" });
    emulator.publish("orders", &json!(data.iter().map(message).collect::<Vec<_>>()));
    first.until_metric(STORED, 300.0);
    first.stop();
    emulator.publish("orders", &json!([message(&"last".to_owned())]));
    // The emulator goes on to send messages to the stream that has ended, until their leases end.
    // Among several gateways, it seldom does so twice.
    let others = [(); 3].map(|()| pulling(&emulator, &flags));
    let mut source = others[0].events("?topic=orders&since=1h");
    assert_eq!(source.take(301), [&data[..], &["last".to_owned()]].concat());
    for other in &others {
        assert!(other.metric(DUPLICATE) < 0.5, "a message that was stored came again");
    }
}

#[test]
fn sigterm_acks_what_is_stored() {
    sigterm_acks(&json!({ "enableMessageOrdering": true }));
}

/// The library forgets the acks of such a subscription that it has not sent yet when it is told to end.
#[test]
fn sigterm_acks_what_is_stored_with_exactly_once_delivery() {
    sigterm_acks(&json!({ "enableMessageOrdering": true, "enableExactlyOnceDelivery": true }));
}

/// Without Redis, an event of a gateway that leaves would be missed by the readers of its successor.
#[test]
fn a_gateway_that_leaves_takes_no_more_messages() {
    let Some(emulator) = Emulator::start() else { return };
    create(&emulator);
    let mut leaving = pulling(&emulator, &[("drain-delay", "8 s")]);
    leaving.until_metric(UP, 1.0);
    leaving.begin_stop();
    leaving.until_metric(UP, 0.0);
    let other = pulling(&emulator, &[]);
    // The emulator sends some of the messages to the stream that has ended.
    eventually("the other gateway gets messages", || {
        publish(&emulator, "for the other");
        (0.0 < other.metric(STORED)).then_some(())
    });
    assert!(leaving.metric(STORED) < 0.5);
}

/// The process ends within its drain, also when Pub/Sub does not answer any more.
#[test]
fn sigterm_ends_the_process_without_pubsub() {
    let Some(emulator) = Emulator::start() else { return };
    create(&emulator);
    let endpoint = format!("http://{}", emulator.address);
    let arguments = "serve --listen 127.0.0.1:0 --ops-listen off --push-auth none \
                     --read-auth anonymous --drain-timeout 1s --pull-endpoint";
    let arguments: Vec<_> =
        arguments.split_whitespace().chain([&endpoint, "--pull", NAME]).collect();
    let mut process = Process::start(&mut stream_events(&arguments));
    let mut source = EventSource::open(process.listen(), "/events?topic=orders", &[]);
    publish(&emulator, "one");
    assert_eq!(source.next().data, "one");
    drop(source);
    drop(emulator);
    process.signal(Signal::TERM);
    let (status, took) = process.wait();
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
}
