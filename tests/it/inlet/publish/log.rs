//! Publishing to a log that other replicas share, that stops in the middle, or that is about to
//! end.

use serde_json::json;

use super::{ids, outcome, publish};
use crate::support::{
    eventually,
    gateway::Gateway,
    http1::EventSource,
    redis::{Proxy, RedisServer},
};

fn replica(url: &str) -> Gateway {
    let gateway = Gateway::dev(&[("backplane", url)]);
    eventually("ready", || (gateway.get("/readyz", &[]).status == 200).then_some(()));
    gateway
}

#[test]
fn replicas_give_the_same_ids_and_know_the_same_duplicates() {
    let redis = RedisServer::start();
    let (one, other) = (replica(&redis.url()), replica(&redis.url()));
    let mut stream = other.events("");
    // The longest key is remembered too.
    let key = "k".repeat(255);
    let first = ids(&publish(&one, "/publish/orders", &key, "first"));
    assert_eq!(ids(&publish(&other, "/publish/orders", &key, "again")), first);
    assert_eq!(outcome(&other, "duplicate"), 1);
    // A writer follows from its own write, on the other replica.
    let mut follower = other.resume("", &first[0]);
    let second = ids(&publish(&one, "/publish/orders", "2", "second"));
    for event in [&mut follower, &mut stream].map(EventSource::next) {
        let expected = if event.data == "first" { &first } else { &second };
        assert_eq!(event.id, expected[0]);
    }
    assert_eq!(stream.next().data, "second");
    let batch = json!({ "messages": vec![json!({ "data": "eA==" }); 300] }).to_string();
    let stored = ids(&one.post("/publish/orders?format=pubsub", &[], batch.as_bytes()));
    let seen: Vec<_> = (0..300).map(|_| stream.next().id).collect();
    assert_eq!(seen, stored);
}

/// The log is cut while a batch is being stored: the answer has the ids of what is stored, and a
/// retry stores the rest once.
#[test]
fn a_batch_that_stops_in_the_middle_says_where() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.address());
    let gateway = replica(&proxy.url());
    let other = replica(&redis.url());
    let mut stream = other.events("");
    let messages: Vec<_> =
        (0..1_000).map(|n| json!({ "data": "eA==", "messageId": n.to_string() })).collect();
    let body = json!({ "messages": messages }).to_string();
    let path = "/publish/orders?format=pubsub";
    let stopped = std::thread::scope(|scope| {
        let sending = scope.spawn(|| gateway.post(path, &[], body.as_bytes()));
        stream.take(20);
        proxy.swallow(true);
        proxy.cut();
        sending.join().unwrap()
    });
    assert_eq!(stopped.status, 503, "{}", stopped.text());
    assert!(stopped.header("retry-after").is_some());
    let answer = stopped.json();
    let stored: Vec<String> = serde_json::from_value(answer["ids"].clone()).unwrap();
    // The answer about the last one that was seen may be lost.
    assert!((19..1_000).contains(&stored.len()), "{}", stored.len());
    let text = format!("{} of 1000 messages are stored", stored.len());
    assert!(answer["detail"].as_str().unwrap().contains(&text), "{answer}");
    proxy.swallow(false);
    let all = eventually("a retry succeeds", || {
        let answer = gateway.post(path, &[], body.as_bytes());
        (answer.status == 200).then(|| ids(&answer))
    });
    assert_eq!(all[..stored.len()], stored);
    stream.take(980);
    publish(&other, "/publish/orders", "last", "last");
    assert_eq!(stream.next().data, "last", "nothing is doubled");
}

#[test]
fn a_log_that_is_away_confirms_nothing() {
    let mut redis = RedisServer::start();
    let gateway = replica(&redis.url());
    redis.kill();
    let answer = publish(&gateway, "/publish/orders", "1", "x");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    assert!(answer.json().get("ids").is_none());
    assert_eq!(outcome(&gateway, "unconfirmed"), 1);
}

/// With events in memory, readers elsewhere would miss what a gateway that is leaving stores. With
/// Redis they would not.
#[test]
fn a_gateway_that_is_leaving_stores_nothing_that_readers_would_miss() {
    let redis = RedisServer::start();
    let url = redis.url();
    let slow = ("drain-delay", "3 s");
    for (backplane, status) in [("local", 503), (&*url, 200)] {
        let mut gateway = Gateway::dev(&[("backplane", backplane), slow]);
        eventually("ready", || (gateway.get("/readyz", &[]).status == 200).then_some(()));
        ids(&publish(&gateway, "/publish/orders", "1", "x"));
        gateway.begin_stop();
        eventually("leaving", || (gateway.get("/readyz", &[]).status == 503).then_some(()));
        let answer = eventually("refused", || {
            let answer = publish(&gateway, "/publish/orders", "2", "x");
            (answer.status == status).then_some(answer)
        });
        assert_eq!(answer.header("retry-after").is_some(), status == 503);
    }
}
