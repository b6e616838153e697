//! Several replicas share a log in Redis: the same events, ids and replay on each.

use serde_json::Value;

use crate::support::{
    eventually,
    gateway::{Gateway, message},
    http1::EventSource,
    parser::Dispatched,
    redis::{Proxy, RedisServer},
};

fn replica(url: &str) -> Gateway {
    let gateway = Gateway::dev(&[("backplane", url)]);
    until_ready(&gateway);
    gateway
}

fn until_ready(gateway: &Gateway) {
    eventually("ready", || (gateway.get("/readyz", &[]).status == 200).then_some(()));
}

fn gap(event: &Dispatched) -> Value {
    assert_eq!(event.event, "stream-gap", "{event:?}");
    serde_json::from_str(&event.data).unwrap()
}

fn ids_and_data(source: &mut EventSource, n: usize) -> Vec<(String, String)> {
    (0..n).map(|_| source.next()).map(|event| (event.id, event.data)).collect()
}

#[test]
fn each_replica_gives_the_same_events_with_the_same_ids() {
    let redis = RedisServer::start();
    let replicas = [replica(&redis.url()), replica(&redis.url()), replica(&redis.url())];
    let mut sources: Vec<_> = replicas.iter().map(|replica| replica.events("")).collect();
    for n in 0..30 {
        replicas[n % 3].publish(["orders", "users"][n % 2], format!("event {n}"));
    }
    let seen = ids_and_data(&mut sources[0], 30);
    let data: Vec<_> = seen.iter().map(|(_, data)| data.clone()).collect();
    assert_eq!(data, (0..30).map(|n| format!("event {n}")).collect::<Vec<_>>());
    for source in &mut sources[1..] {
        assert_eq!(ids_and_data(source, 30), seen);
    }
    // Redis' own ids, so that nobody can take them for those of a process.
    let newest: Vec<String> = redis.ask(&["HMGET", "{stream-events}:state", "newest"]);
    assert_eq!(newest[0], seen[29].0);
}

#[test]
fn a_message_that_another_replica_had_is_a_duplicate() {
    let redis = RedisServer::start();
    let (one, other) = (replica(&redis.url()), replica(&redis.url()));
    let mut source = one.events("");
    assert_eq!(one.push("orders", &message("first", "7")).status, 204);
    assert_eq!(other.push("orders", &message("again", "7")).status, 204);
    // Message ids are unique within a topic only.
    assert_eq!(other.push("users", &message("of another topic", "7")).status, 204);
    assert_eq!(source.take(2), ["first", "of another topic"]);
    other.until_metric("stream_events_pushes_total{outcome=\"duplicate\"}", 1.0);
    let lives: i64 = redis.ask(&["PTTL", "{stream-events}:claim:orders:7"]);
    assert!((1_790_000..=1_800_000).contains(&lives), "30 min by default: {lives}");
}

#[test]
fn everything_of_a_message_survives_the_log() {
    let redis = RedisServer::start();
    let gateway = replica(&redis.url());
    let mut source = gateway.events("");
    let mut message = message([0xff, 0xfe], "1");
    message["attributes"] = serde_json::json!({ "event": "created", "k": "v\n" });
    message["orderingKey"] = "key".into();
    message["publishTime"] = "2021-02-26T19:13:55.749Z".into();
    assert_eq!(gateway.push("orders", &message).status, 204);
    let event = source.next();
    assert_eq!((event.event.as_str(), event.data.as_str()), ("created", "//4="));
    // What no reader can ask for yet is in the log all the same.
    gateway.publish("orders", "text");
    source.next();
    redis.tell(&["XDEL", "{stream-events}:log", &event.id]);
    let entries: Vec<(String, Vec<String>)> =
        redis.ask(&["XREVRANGE", "{stream-events}:log", "+", "-", "COUNT", "1"]);
    let fields: Vec<_> = entries[0].1.iter().step_by(2).map(String::as_str).collect();
    let expected =
        ["format", "topic", "data", "attributes", "orderingKey", "messageId", "publishTimeMs"];
    assert_eq!(fields, expected);
}

#[test]
fn a_reader_resumes_on_another_replica_and_after_all_were_restarted() {
    let redis = RedisServer::start();
    let (one, other) = (replica(&redis.url()), replica(&redis.url()));
    let begin = one.events("").last_event_id().to_owned();
    for n in 0..500 {
        one.publish("orders", format!("event {n}"));
    }
    let mut first = other.resume("", &begin);
    let seen = ids_and_data(&mut first, 500);
    drop((first, one, other));
    let again = replica(&redis.url());
    let all: Vec<_> = (0..500).map(|n| format!("event {n}")).collect();
    for at in [0, 1, 250, 498] {
        let mut source = again.resume("", &seen[at].0);
        let opened: Value = serde_json::from_str(&source.opened.as_ref().unwrap().data).unwrap();
        assert_eq!(opened["resumed"], true);
        assert_eq!(source.take(499 - at), all[at + 1..]);
    }
    // What it has read to the end of goes on live.
    let mut source = again.resume("?topic=orders", &seen[499].0);
    again.publish("orders", "after the restart");
    let event = source.next_raw().unwrap();
    assert_eq!(event.data, "after the restart");
    assert_eq!(again.events("?since=1h").take(500), all);
}

/// A replica that starts later holds what its rings may hold, and says what is missing.
#[test]
fn a_reader_that_comes_too_late_is_told_by_any_replica() {
    let redis = RedisServer::start();
    let one = replica(&redis.url());
    let begin = one.events("").last_event_id().to_owned();
    for n in 0..30 {
        one.publish("orders", format!("event {n}"));
    }
    let small = Gateway::dev(&[("backplane", &redis.url()), ("ring-events", "10")]);
    until_ready(&small);
    let mut source = small.resume("", &begin);
    let missing = gap(&source.next_raw().unwrap());
    assert_eq!((&missing["reason"], &missing["after"]), (&"evicted".into(), &begin.into()));
    let seen = ids_and_data(&mut source, 10);
    assert_eq!(seen[0].1, "event 20");
    assert!(missing["upto"].as_str().unwrap() < seen[0].0.as_str());
}

#[test]
fn an_id_of_a_process_alone_is_of_another_history() {
    let redis = RedisServer::start();
    let local = Gateway::dev(&[]);
    let id = local.events("").last_event_id().to_owned();
    let gateway = replica(&redis.url());
    gateway.publish("orders", "held");
    let mut source = gateway.resume("", &id);
    assert_eq!(gap(&source.next_raw().unwrap())["reason"], "restart");
    assert_eq!(source.take(1), ["held"]);
    // And back again.
    let id = source.last_event_id().to_owned();
    assert_eq!(gap(&local.resume("", &id).next_raw().unwrap())["reason"], "restart");
}

/// The reader comes from a replica that is a moment ahead.
#[test]
fn a_reader_that_is_ahead_of_a_replica_is_held_and_not_told_a_gap() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.address());
    let (ahead, behind) = (replica(&redis.url()), replica(&proxy.url()));
    let mut source = ahead.events("");
    ahead.publish("orders", "both have it");
    source.next();
    behind.resume("?since=1h", "").take(1);

    // Its tail hears nothing more; what it asks is answered.
    proxy.swallow_tails(true);
    ahead.publish("orders", "one has it");
    let id = source.next().id;
    let mut held = behind.resume("", &id);
    assert_eq!(held.last_event_id(), id);
    proxy.swallow_tails(false);
    proxy.cut();
    ahead.publish("orders", "later");
    let event = held.next_raw().unwrap();
    assert_eq!((event.event.as_str(), event.data.as_str()), ("message", "later"));
}

#[test]
fn an_id_beyond_the_log_is_unknown() {
    let redis = RedisServer::start();
    let gateway = replica(&redis.url());
    let readers: Vec<_> = (0..20)
        .map(|_| {
            let address = gateway.address;
            std::thread::spawn(move || {
                let id = [("Last-Event-ID", "99999999999999-0")];
                let mut source = EventSource::open(address, "/events", &id);
                gap(&source.next_raw().unwrap())["reason"].clone()
            })
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), "unknown-id");
    }
}

#[test]
fn gateways_with_prefixes_of_their_own_share_a_server_and_nothing_else() {
    let redis = RedisServer::start();
    let with =
        |prefix: &str| Gateway::dev(&[("backplane", &redis.url()), ("redis-prefix", prefix)]);
    let (blue, green) = (with("blue"), with("green"));
    until_ready(&blue);
    until_ready(&green);
    let (mut of_blue, mut of_green) = (blue.events(""), green.events(""));
    assert_eq!(blue.push("orders", &message("blue", "1")).status, 204);
    assert_eq!(green.push("orders", &message("green", "1")).status, 204);
    assert_eq!(of_blue.next().data, "blue");
    assert_eq!(of_green.next().data, "green");
    let mut keys: Vec<String> = redis.ask(&["KEYS", "*"]);
    keys.retain(|key| !key.starts_with("{blue}:") && !key.starts_with("{green}:"));
    assert!(keys.is_empty(), "{keys:?}");
}

/// Another replica gives the readers what comes from now on, so pushes are taken to the end.
#[test]
fn a_replica_that_leaves_takes_pushes_and_ends_its_streams() {
    let redis = RedisServer::start();
    let stays = replica(&redis.url());
    let url = redis.url();
    let mut leaves = Gateway::dev(&[("backplane", &url), ("drain-timeout", "3 s")]);
    until_ready(&leaves);
    let mut source = leaves.events("");
    leaves.begin_stop();
    eventually("it leaves", || (leaves.get("/readyz", &[]).status == 503).then_some(()));
    leaves.publish("orders", "taken");
    let mut seen = Vec::new();
    while let Some(event) = source.next_raw() {
        seen.push(event);
    }
    assert_eq!(seen.pop().unwrap().event, "stream-end");
    let taken = stays.resume("", source.last_event_id());
    let mut rest = taken;
    stays.publish("orders", "after");
    let mut data: Vec<_> = seen.into_iter().map(|event| event.data).collect();
    while data.last().is_none_or(|last| last != "after") {
        data.push(rest.next().data);
    }
    assert_eq!(data, ["taken", "after"]);
}
