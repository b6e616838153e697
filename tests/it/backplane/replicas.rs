//! Several replicas with one log in Redis: each has the same events, ids and replay.

use serde_json::{Value, json};

use crate::support::{
    eventually,
    gateway::{Gateway, message},
    http1::EventSource,
    parser::Dispatched,
    redis::{Proxy, RedisServer},
};

/// Starts a gateway with the log at `url` and waits until it is ready.
pub fn replica(url: &str) -> Gateway {
    let gateway = Gateway::dev(&[("backplane", url)]);
    until_ready(&gateway);
    gateway
}

fn until_ready(gateway: &Gateway) {
    eventually("ready", || (gateway.get("/readyz", &[]).status == 200).then_some(()));
}

/// Returns the data of a `stream-gap`.
fn gap(event: &Dispatched) -> Value {
    assert_eq!(event.event, "stream-gap", "{event:?}");
    serde_json::from_str(&event.data).unwrap()
}

/// Reads `n` events.
fn ids_and_data(source: &mut EventSource, n: usize) -> Vec<(String, String)> {
    (0..n).map(|_| source.next()).map(|event| (event.id, event.data)).collect()
}

#[test]
fn replicas_have_the_same_events_with_the_same_ids() {
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
    // The ids are those of Redis, which differ from the ids that a process assigns.
    let newest: Vec<String> = redis.ask(&["HMGET", "{stream-events}:state", "newest"]);
    assert_eq!(newest[0], seen[29].0);
}

#[test]
fn message_that_was_pushed_to_another_replica_is_a_duplicate() {
    let redis = RedisServer::start();
    let (one, other) = (replica(&redis.url()), replica(&redis.url()));
    let mut source = one.events("");
    assert_eq!(one.push("orders", &message("first", "7")).status, 204);
    assert_eq!(other.push("orders", &message("again", "7")).status, 204);
    // Message ids are unique only within a topic.
    assert_eq!(other.push("users", &message("of another topic", "7")).status, 204);
    assert_eq!(source.take(2), ["first", "of another topic"]);
    other.until_metric("stream_events_pushes_total{outcome=\"duplicate\"}", 1.0);
    let lifetime_ms: i64 = redis.ask(&["PTTL", "{stream-events}:claim:orders:7"]);
    assert!((1_790_000..=1_800_000).contains(&lifetime_ms), "30 min by default: {lifetime_ms}");
}

#[test]
fn log_keeps_all_fields_of_a_message() {
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
    // The log also has the fields that no stream shows yet.
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
fn reader_resumes_on_another_replica_and_after_a_restart_of_all() {
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
    // A reader that has read all events continues live.
    let mut source = again.resume("?topic=orders", &seen[499].0);
    again.publish("orders", "after the restart");
    let event = source.next_raw().unwrap();
    assert_eq!(event.data, "after the restart");
    assert_eq!(again.events("?since=1h").take(500), all);
}

/// A replica that starts later fills its rings, and sends a gap for the events that do not fit.
#[test]
fn evicted_events_are_a_gap_on_a_new_replica() {
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
fn id_of_a_process_without_redis_is_of_another_history() {
    let redis = RedisServer::start();
    let local = Gateway::dev(&[]);
    let id = local.events("").last_event_id().to_owned();
    let gateway = replica(&redis.url());
    gateway.publish("orders", "held");
    let mut source = gateway.resume("", &id);
    assert_eq!(gap(&source.next_raw().unwrap())["reason"], "restart");
    assert_eq!(source.take(1), ["held"]);
    // The other direction: an id of Redis at a process without it.
    let id = source.last_event_id().to_owned();
    assert_eq!(gap(&local.resume("", &id).next_raw().unwrap())["reason"], "restart");
}

/// The reader resumes from an id that this replica has not read yet, since another one is ahead.
#[test]
fn reader_ahead_of_a_replica_waits_and_receives_no_gap() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.address());
    let (ahead, behind) = (replica(&redis.url()), replica(&proxy.url()));
    let mut source = ahead.events("");
    ahead.publish("orders", "both have it");
    source.next();
    behind.resume("?since=1h", "").take(1);

    // The tail receives nothing more; other commands are answered.
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
fn id_beyond_the_log_is_unknown() {
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
fn gateways_with_different_prefixes_share_only_the_server() {
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

/// A replica that shuts down with Redis accepts pushes to the end: readers receive the events from
/// another replica.
#[test]
fn replica_that_shuts_down_accepts_pushes_and_ends_its_streams() {
    let redis = RedisServer::start();
    let stays = replica(&redis.url());
    let url = redis.url();
    let mut leaves = Gateway::dev(&[("backplane", &url), ("drain-timeout", "3 s")]);
    until_ready(&leaves);
    let mut source = leaves.events("");
    leaves.begin_stop();
    eventually("the replica is draining", || {
        (leaves.get("/readyz", &[]).status == 503).then_some(())
    });
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

/// A poll keeps the position of its reader, as a stream does.
#[test]
fn poll_ahead_of_a_replica_waits_and_receives_no_gap() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.address());
    let (ahead, behind) = (replica(&redis.url()), replica(&proxy.url()));
    let mut source = ahead.events("");
    proxy.swallow_tails(true);
    ahead.publish("orders", "one has it");
    let id = source.next().id;
    let poll = |wait| behind.get(&format!("/events?mode=poll&wait={wait}&last_event_id={id}"), &[]);
    let page = poll("1s").json();
    assert_eq!(page, json!({ "events": [], "next": id, "gap": null, "more": false }));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| poll("30s"));
        proxy.swallow_tails(false);
        proxy.cut();
        ahead.publish("orders", "later");
        let page = waiting.join().unwrap().json();
        assert_eq!((&page["gap"], &page["events"][0]["data"]), (&Value::Null, &"later".into()));
        assert_eq!(page["events"].as_array().unwrap().len(), 1);
    });
}

#[test]
fn poll_without_a_log_is_refused_for_now() {
    let redis = RedisServer::stopped();
    let gateway = Gateway::dev(&[("backplane", &redis.url())]);
    let refused = gateway.get("/events?mode=poll&limit=0", &[]);
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
}
