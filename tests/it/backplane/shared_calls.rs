//! Pushes that wait at the same time share a call to Redis. Each keeps its own answer and its place
//! in the order.

use std::{
    thread::{Scope, ScopedJoinHandle},
    time::{Duration, Instant},
};

use crate::{
    backplane::log_faults::{LOG, publish, replica},
    support::{
        eventually,
        gateway::{Gateway, message},
        redis::RedisServer,
    },
};

/// Length of the data of each message that [`push`] sends, in bytes.
const BYTES: u16 = 10_000;

/// Starts a Redis server and a gateway. The gateway has one worker, which receives pushes in the
/// order in which they are sent.
fn start() -> (RedisServer, Gateway) {
    let redis = RedisServer::start();
    let gateway = replica(&redis.url(), &[("workers", "1")]);
    (redis, gateway)
}

/// Makes Redis hold back all writes, until [`release`].
fn hold(redis: &RedisServer) {
    redis.tell(&["CLIENT", "PAUSE", "60000", "WRITE"]);
}

fn release(redis: &RedisServer) {
    redis.tell(&["CLIENT", "UNPAUSE"]);
}

/// Pushes a message whose data and id are `id`, and returns when the gateway has received it. The
/// handle returns the status.
fn push<'scope>(
    scope: &'scope Scope<'scope, '_>,
    gateway: &'scope Gateway,
    id: &str,
) -> ScopedJoinHandle<'scope, u16> {
    let in_flight = || gateway.metric("stream_events_push_bytes_in_flight");
    let expected = in_flight() + f64::from(BYTES);
    let message = message(format!("{id:width$}", width = BYTES.into()), id);
    let push = scope.spawn(move || gateway.push("orders", &message).status);
    eventually("the gateway has the push", || (expected <= in_flight()).then_some(()));
    push
}

/// Returns the number of scripts that Redis has run.
fn scripts(redis: &RedisServer) -> u64 {
    let stats: String = redis.ask(&["INFO", "commandstats"]);
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    calls.unwrap().split(',').next().unwrap().parse().unwrap()
}

fn trimmed(data: &[String]) -> Vec<&str> {
    data.iter().map(|data| data.trim_end()).collect()
}

#[test]
fn waiting_pushes_share_a_call_and_keep_their_order() {
    let (redis, gateway) = start();
    let mut source = gateway.events("");
    hold(&redis);
    let before = scripts(&redis);
    let ids: Vec<_> = (0..60).map(|n| format!("event {n}")).collect();
    std::thread::scope(|scope| {
        let pushes: Vec<_> = ids.iter().map(|id| push(scope, &gateway, id)).collect();
        release(&redis);
        for push in pushes {
            assert_eq!(push.join().unwrap(), 204);
        }
    });
    assert_eq!(trimmed(&source.take(60)), ids);
    // Two calls append, and some read and trim the log.
    let scripts = scripts(&redis) - before;
    assert!(scripts < 30, "{scripts} scripts for 60 pushes");
}

/// A message that Redis refuses, and messages that come twice, are among others in one call.
#[test]
fn message_that_fails_does_not_fail_the_others_of_its_call() {
    let (redis, gateway) = start();
    let mut source = gateway.events("");
    // A deduplication key that is not a string: Redis refuses to read it.
    let key = "{stream-events}:claim:orders:refused";
    redis.tell(&["RPUSH", key, "x"]);
    hold(&redis);
    let ids = ["first", "a", "refused", "b", "twin", "twin", "first", "c"];
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let pushes: Vec<_> = ids.iter().map(|id| push(scope, &gateway, id)).collect();
        release(&redis);
        pushes.into_iter().map(|push| push.join().unwrap()).collect()
    });
    assert_eq!(statuses, [204, 204, 503, 204, 204, 204, 204, 204]);
    publish(&gateway, "last");
    assert_eq!(trimmed(&source.take(6)), ["first", "a", "b", "twin", "c", "last"]);
    gateway.until_metric("stream_events_pushes_total{outcome=\"duplicate\"}", 2.0);
    // The connection is still in use, and the refused message can be pushed again.
    gateway.until_metric("stream_events_log_connects_total{connection=\"push\"}", 1.0);
    redis.tell(&["DEL", key]);
    assert_eq!(gateway.push("orders", &message("again", "refused")).status, 204);
    assert_eq!(source.next().data, "again");
}

#[test]
fn waiting_pushes_are_not_confirmed_when_redis_dies() {
    let (mut redis, gateway) = start();
    hold(&redis);
    let ids: Vec<_> = (0..5).map(|n| n.to_string()).collect();
    std::thread::scope(|scope| {
        let pushes: Vec<_> = ids.iter().map(|id| push(scope, &gateway, id)).collect();
        redis.kill();
        for push in pushes {
            assert_eq!(push.join().unwrap(), 503);
        }
    });
    redis.restart();
    for id in &ids {
        let is_stored = || gateway.push("orders", &message(id, id)).status == 204;
        eventually("confirmed", || is_stored().then_some(()));
    }
    // Each message once, after the break of the new log.
    assert_eq!(redis.ask::<usize>(&["XLEN", LOG]), 1 + ids.len());
}

/// The longest time for a confirmation includes the time in the queue.
#[test]
fn pushes_that_wait_behind_a_missing_answer_time_out() {
    let (redis, gateway) = start();
    hold(&redis);
    std::thread::scope(|scope| {
        let begun = Instant::now();
        let pushes = ["1", "2", "3"].map(|id| push(scope, &gateway, id));
        for push in pushes {
            assert_eq!(push.join().unwrap(), 503);
        }
        // Pub/Sub gives up after 10 s; a second wait for Redis would take 16 s.
        assert!(begun.elapsed() < Duration::from_secs(14), "{:?}", begun.elapsed());
    });
    release(&redis);
    publish(&gateway, "later");
}

/// Each writer pushes the messages of one ordering key one by one, as Pub/Sub does. All writers push
/// at the same time, to two replicas with two workers each.
#[test]
fn messages_of_each_ordering_key_keep_their_order() {
    const WRITERS: usize = 12;
    const MESSAGES: usize = 50;
    let redis = RedisServer::start();
    let replicas = [(); 2].map(|()| replica(&redis.url(), &[("workers", "2")]));
    let mut source = replicas[0].events("");
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let replicas = &replicas;
            scope.spawn(move || {
                for n in 0..MESSAGES {
                    let mut message = message(format!("{writer} {n}"), &format!("{writer}-{n}"));
                    message["orderingKey"] = writer.to_string().into();
                    assert_eq!(replicas[n % 2].push("orders", &message).status, 204);
                }
            });
        }
    });
    let seen = source.take(WRITERS * MESSAGES);
    for writer in 0..WRITERS {
        let of_writer = |data: &&String| data.split(' ').next() == Some(&writer.to_string());
        let expected: Vec<_> = (0..MESSAGES).map(|n| format!("{writer} {n}")).collect();
        assert_eq!(seen.iter().filter(of_writer).cloned().collect::<Vec<_>>(), expected);
    }
}
