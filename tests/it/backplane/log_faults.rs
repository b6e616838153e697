//! Faults of the log: it is unreachable, slow, empty or full. No event is lost without a gap.

use std::time::Duration;

use serde_json::Value;

use crate::support::{
    eventually,
    gateway::{Gateway, message},
    http1::EventSource,
    redis::{Proxy, RedisServer},
};

pub const LOG: &str = "{stream-events}:log";

/// Starts a gateway with the log at `url` and waits until it is ready.
pub fn replica(url: &str, flags: &[(&'static str, &str)]) -> Gateway {
    let gateway = Gateway::dev(&[&[("backplane", url)], flags].concat());
    eventually("ready", || (gateway.get("/readyz", &[]).status == 200).then_some(()));
    gateway
}

/// Starts a log, a gateway that uses it, and a reader.
pub fn log_with_reader(flags: &[(&'static str, &str)]) -> (RedisServer, Gateway, EventSource) {
    let redis = RedisServer::start();
    let gateway = replica(&redis.url(), flags);
    let source = gateway.events("");
    (redis, gateway, source)
}

/// Starts a log, and a gateway that uses it through a proxy.
pub fn log_behind_proxy() -> (RedisServer, Proxy, Gateway) {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.address());
    let gateway = replica(&proxy.url(), &[]);
    (redis, proxy, gateway)
}

/// Reads up to the next `stream-gap` and returns its data.
pub fn next_gap(source: &mut EventSource) -> Value {
    loop {
        let event = source.next_raw().expect("the stream has ended");
        if event.event == "stream-gap" {
            return serde_json::from_str(&event.data).unwrap();
        }
    }
}

/// Pushes a message until it is confirmed, as Pub/Sub does.
pub fn publish(gateway: &Gateway, data: &str) {
    let id = rand::random::<u64>().to_string();
    eventually("confirmed", || {
        let answer = gateway.push("orders", &message(data, &id));
        assert!([204, 503].contains(&answer.status), "{}", answer.status);
        (answer.status == 204).then_some(())
    });
}

#[test]
fn redis_is_down_at_start() {
    let mut redis = RedisServer::stopped();
    let flags = [("backplane", redis.url()), ("keep-alive", "1 s".to_owned())];
    let flags: Vec<_> = flags.iter().map(|(flag, text)| (*flag, text.as_str())).collect();
    let gateway = Gateway::dev(&flags);
    let unready = gateway.get("/readyz", &[]);
    assert_eq!(unready.status, 503);
    assert!(unready.text().contains("--backplane"), "{}", unready.text());
    let refused = gateway.push("orders", &message("x", "1"));
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    // The reader's stream opens and waits.
    let mut early = EventSource::connect(gateway.address, "/events", &[]);
    assert_eq!(early.status, 200);
    // No empty line: by the standard it would reset the reader's last event id.
    assert_eq!(early.next_bytes(), b":\n");
    redis.restart();
    let opened = early.next_raw().unwrap();
    assert_eq!(opened.event, "stream-open");
    assert!(opened.id.contains('-'), "{}", opened.id);
    publish(&gateway, "at last");
    assert_eq!(early.next().data, "at last");
    assert_eq!(gateway.get("/readyz", &[]).status, 200);
}

/// Streams that wait are not subscribers yet, but count against `--subscribers-max`.
#[test]
fn streams_that_wait_for_the_log_are_limited() {
    let redis = RedisServer::stopped();
    let url = redis.url();
    let gateway = Gateway::dev(&[("backplane", &url), ("subscribers-max", "2")]);
    let open =
        || EventSource::connect(gateway.address, "/events", &[("Accept", "text/event-stream")]);
    let waiting = [open(), open()];
    let refused = open().next_raw().unwrap();
    assert_eq!(
        (refused.event.as_str(), refused.data.as_str()),
        ("stream-end", r#"{"reason":"busy"}"#)
    );
    drop(waiting);
    eventually("room again", || open().header("connection").is_none().then_some(()));
}

/// Without Redis it is unknown whether the log has the reader's id, so the reader waits.
#[test]
fn reader_ahead_of_the_rings_waits_while_redis_is_down() {
    let mut redis = RedisServer::start();
    let gateway = replica(&redis.url(), &[("keep-alive", "1 s")]);
    let ahead = format!("{}-0", stream_events::clock::now_ms() + 1);
    redis.kill();
    let id = [("Last-Event-ID", ahead.as_str())];
    let mut waiting = EventSource::connect(gateway.address, "/events", &id);
    assert_eq!(waiting.next_bytes(), b":\n");
    redis.restart();
    let opened = waiting.next_raw().unwrap();
    assert_eq!((opened.event.as_str(), opened.id), ("stream-open", ahead));
    assert_eq!(next_gap(&mut waiting)["reason"], "log-changed");
}

#[test]
fn stream_that_waits_for_the_log_ends_at_shutdown() {
    let redis = RedisServer::stopped();
    let url = redis.url();
    let mut gateway = Gateway::dev(&[("backplane", &url), ("drain-timeout", "3 s")]);
    let id = [("Last-Event-ID", "17-4")];
    let mut waiting = EventSource::connect(gateway.address, "/events", &id);
    gateway.begin_stop();
    let block = waiting.next_block().unwrap();
    assert!(block.contains("id: 17-4\nevent: stream-end"), "{block}");
    assert!(block.contains("draining"), "{block}");
    assert!(waiting.next_block().is_none());
}

#[test]
fn redis_restarts_empty() {
    let (mut redis, gateway, mut source) = log_with_reader(&[("keep-alive", "1 s")]);
    publish(&gateway, "before");
    let before = source.next();
    redis.kill();
    let refused = gateway.push("orders", &message("lost?", "1"));
    assert_eq!(refused.status, 503);
    assert_eq!(source.next_block().unwrap(), ":\n\n");
    assert_eq!(gateway.get("/readyz", &[]).status, 200, "else no replica would be ready");
    assert!(0.0 < gateway.metric("stream_events_log_lag_seconds"), "entries may be missing");
    // Readers are served from the rings, without Redis.
    let mut replay = gateway.events("?since=1h");
    assert_eq!(replay.next().id, before.id);

    redis.restart();
    publish(&gateway, "after");
    for source in [&mut source, &mut replay] {
        let gap = next_gap(source);
        assert_eq!(
            (&gap["reason"], &gap["after"]),
            (&"log-changed".into(), &before.id.as_str().into())
        );
        assert_eq!(source.next().data, "after");
    }
    gateway.until_metric("stream_events_log_lag_seconds", 0.0);
    // A reader that resumes later on another replica receives the gap too.
    let late = replica(&redis.url(), &[]);
    assert_eq!(next_gap(&mut late.resume("", &before.id))["reason"], "log-changed");
    assert!(gateway.metric("stream_events_log_breaks_total") >= 2.0);
    assert!(gateway.metric("stream_events_log_connects_total{connection=\"tail\"}") >= 2.0);
}

#[test]
fn connection_is_cut_between_append_and_answer() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.address());
    let (gateway, other) = (replica(&proxy.url(), &[]), replica(&redis.url(), &[]));
    let mut source = other.events("");
    proxy.swallow(true);
    std::thread::scope(|scope| {
        let push = scope.spawn(|| gateway.push("orders", &message("once", "1")));
        // The log has the message, but the gateway does not receive the answer.
        assert_eq!(source.next().data, "once");
        proxy.cut();
        assert_eq!(push.join().unwrap().status, 503);
    });
    proxy.swallow(false);
    eventually("confirmed", || {
        (gateway.push("orders", &message("once", "1")).status == 204).then_some(())
    });
    gateway.until_metric("stream_events_pushes_total{outcome=\"duplicate\"}", 1.0);
    publish(&gateway, "next");
    assert_eq!(source.next().data, "next");
}

#[test]
fn missing_answer_times_out() {
    let (_redis, proxy, gateway) = log_behind_proxy();
    proxy.swallow(true);
    assert_eq!(gateway.push("orders", &message("x", "1")).status, 503);
    // The gateway gave the connection up and opens a new one.
    proxy.swallow(false);
    publish(&gateway, "y");
}

#[test]
fn connection_is_slow_cut_and_half_closed() {
    let (_redis, proxy, gateway) = log_behind_proxy();
    let mut source = gateway.events("");
    proxy.delay(Duration::from_millis(300));
    publish(&gateway, "slow");
    assert_eq!(source.next().data, "slow");
    proxy.delay(Duration::ZERO);
    for n in 0..10 {
        if n % 2 == 0 {
            proxy.cut();
        } else {
            proxy.half_close();
        }
        publish(&gateway, &format!("event {n}"));
        assert_eq!(source.next_raw().unwrap().data, format!("event {n}"), "without a gap");
    }
}

#[test]
fn redis_is_full_for_a_while() {
    let (redis, gateway, mut source) = log_with_reader(&[("log-events", "1000")]);
    for n in 0..3_000 {
        gateway.publish("orders", n.to_string());
    }
    redis.tell(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(gateway.push("orders", &message("full", "1")).status, 503);
    // Trimming goes on, in whole nodes of a hundred entries.
    eventually("trimmed", || (redis.ask::<i64>(&["XLEN", LOG]) <= 1_100).then_some(()));
    assert_eq!(source.take(3_000).last().unwrap(), "2999");
    redis.tell(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(gateway.push("orders", &message("full", "1")).status, 204);
    assert_eq!(source.next_raw().unwrap().data, "full", "once, without a gap");
}

#[test]
fn log_is_trimmed_by_age_and_bytes() {
    let redis = RedisServer::start();
    for sequence in 0..500 {
        redis.tell(&["XADD", LOG, &format!("1000-{sequence}"), "format", "0"]);
    }
    let gateway = replica(&redis.url(), &[("log-bytes", "64 MiB")]);
    // Entries that share a node with the newest one stay.
    eventually("old entries are trimmed", || {
        (redis.ask::<i64>(&["XLEN", LOG]) <= 101).then_some(())
    });
    for _ in 0..100 {
        gateway.publish("orders", "x".repeat(1 << 20));
    }
    let bytes = || redis.ask::<i64>(&["MEMORY", "USAGE", LOG]);
    assert!(32 << 20 < bytes());
    eventually("large entries are trimmed", || (bytes() <= 66 << 20).then_some(()));
}

/// Entries that are trimmed before a replica has read them are a gap for its readers.
#[test]
fn entries_are_trimmed_before_they_are_read() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.address());
    let trimming = replica(&redis.url(), &[("log-events", "1000")]);
    let behind = replica(&proxy.url(), &[("ring-events", "100000")]);
    let mut source = behind.events("");
    publish(&trimming, "read");
    let read = source.next();
    proxy.refuse(true);
    proxy.cut();
    for n in 0..3_000 {
        trimming.publish("orders", n.to_string());
    }
    eventually("trimmed", || (redis.ask::<i64>(&["XLEN", LOG]) <= 1_100).then_some(()));
    proxy.refuse(false);
    let gap = next_gap(&mut source);
    assert_eq!((&gap["reason"], &gap["after"]), (&"evicted".into(), &read.id.as_str().into()));
    let first = source.next();
    assert!(gap["upto"].as_str().unwrap() < first.id.as_str());
    let first: usize = first.data.parse().unwrap();
    assert!((1_800..2_100).contains(&first), "{first}");
    let rest: Vec<_> = (first + 1..3_000).map(|n| n.to_string()).collect();
    assert_eq!(source.take(rest.len()), rest);
}

/// During a rolling upgrade a newer program writes entries that this one cannot decode.
#[test]
fn entry_of_another_format_is_a_gap() {
    let (redis, gateway, mut source) = log_with_reader(&[]);
    publish(&gateway, "before");
    let before = source.next().id;
    let id: String = redis.ask(&["XADD", LOG, "*", "format", "2", "something", "else"]);
    redis.tell(&["HSET", "{stream-events}:state", "newest", &id]);
    let gap = next_gap(&mut source);
    assert_eq!((&gap["after"], &gap["upto"]), (&before.into(), &id.into()));
    publish(&gateway, "after");
    assert_eq!(source.next().data, "after");
}
