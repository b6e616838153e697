//! The answers to appends fill the rings, together with the tail. In most of these tests the tail gets
//! no answers, so that the events can come only from the answers to appends.

use crate::{
    backplane::log_faults::{LOG, log_behind_proxy, next_gap, publish, replica},
    support::{
        eventually,
        gateway::{Gateway, message},
        redis::{Proxy, RedisServer},
    },
};

/// Starts a log, a gateway whose tail gets no answers after it has filled the rings, and another
/// gateway, which is not disturbed.
fn gateway_without_tail() -> (RedisServer, Proxy, Gateway, Gateway) {
    let (redis, proxy, gateway) = log_behind_proxy();
    let other = replica(&redis.url(), &[]);
    // The tail has found the end of the log and waits there for the next entry.
    eventually("the tail waits", || {
        let clients: String = redis.ask(&["CLIENT", "LIST"]);
        (clients.matches("cmd=xread").count() == 2).then_some(())
    });
    proxy.swallow_tails(true);
    (redis, proxy, gateway, other)
}

#[test]
fn entries_of_another_replica_come_before_the_own_ones() {
    let (_redis, proxy, gateway, other) = gateway_without_tail();
    let (mut source, mut expected) = (gateway.events(""), other.events(""));
    for n in 0..5 {
        publish(&other, &format!("other {n}"));
        publish(&other, &format!("other {n} again"));
        publish(&gateway, &format!("own {n}"));
        for data in [format!("other {n}"), format!("other {n} again"), format!("own {n}")] {
            let (event, same) = (source.next(), expected.next());
            assert_eq!((event.data.as_str(), &event.id), (data.as_str(), &same.id));
        }
    }
    // The tail has seen none of them, and goes on after all of them.
    proxy.swallow_tails(false);
    proxy.cut();
    publish(&other, "later");
    assert_eq!(source.next_raw().unwrap().data, "later");
    gateway.until_metric("stream_events_log_lag_seconds", 0.0);
}

/// A duplicate has no entry of its own, but its answer brings the entries of others.
#[test]
fn duplicate_is_not_shown_again() {
    let (_redis, _proxy, gateway, other) = gateway_without_tail();
    let mut source = gateway.events("");
    assert_eq!(other.push("orders", &message("once", "1")).status, 204);
    assert_eq!(gateway.push("orders", &message("twice", "1")).status, 204);
    assert_eq!(source.next().data, "once");
    publish(&gateway, "own");
    assert_eq!(source.next().data, "own");
}

#[test]
fn wipe_is_a_gap() {
    let (redis, _proxy, gateway, _other) = gateway_without_tail();
    let mut source = gateway.events("");
    publish(&gateway, "before");
    let before = source.next();
    redis.tell(&["FLUSHALL"]);
    publish(&gateway, "after");
    let gap = next_gap(&mut source);
    assert_eq!((&gap["reason"], &gap["after"]), (&"log-changed".into(), &before.id.into()));
    assert_eq!(source.next().data, "after");
}

/// An answer has a bounded part of the log. The tail reads a longer one, and the own entries with it.
#[test]
fn long_backlog_of_another_replica_is_left_to_the_tail() {
    for (events, bytes) in [(300, 10), (12, 50_000)] {
        let (redis, proxy, gateway, other) = gateway_without_tail();
        let mut source = gateway.events("");
        let data = |n: usize| format!("{n:bytes$}");
        (0..events).for_each(|n| publish(&other, &data(n)));
        publish(&gateway, "own");
        publish(&gateway, "own again");
        assert_eq!(redis.ask::<usize>(&["XLEN", LOG]), 1 + events + 2);
        proxy.swallow_tails(false);
        proxy.cut();
        assert_eq!(source.take(events), (0..events).map(data).collect::<Vec<_>>());
        assert_eq!(source.take(2), ["own", "own again"]);
        // The answers fill the rings again.
        publish(&gateway, "later");
        assert_eq!(source.next_raw().unwrap().data, "later");
    }
}

#[test]
fn tail_reads_the_message_of_a_call_whose_answer_is_lost() {
    let (redis, proxy, gateway) = log_behind_proxy();
    let mut source = gateway.events("");
    publish(&gateway, "before");
    assert_eq!(source.next().data, "before");
    proxy.swallow(true);
    std::thread::scope(|scope| {
        let push = scope.spawn(|| gateway.push("orders", &message("once", "1")));
        // The log has a break, the first message and this one.
        eventually("appended", || (redis.ask::<usize>(&["XLEN", LOG]) == 3).then_some(()));
        proxy.swallow(false);
        proxy.cut();
        assert_eq!(push.join().unwrap().status, 503);
    });
    assert_eq!(source.next().data, "once");
    eventually("confirmed", || {
        (gateway.push("orders", &message("once", "1")).status == 204).then_some(())
    });
    publish(&gateway, "later");
    assert_eq!(source.next_raw().unwrap().data, "later");
}

/// Pushes of several replicas at the same time, so that the answers to appends and the reads of the
/// tails overtake each other.
#[test]
fn busy_replicas_have_the_same_events() {
    const WRITERS: usize = 4;
    const MESSAGES: usize = 150;
    let redis = RedisServer::start();
    let replicas = [(); 3].map(|()| replica(&redis.url(), &[("workers", "2")]));
    let mut sources = replicas.each_ref().map(|replica| replica.events(""));
    std::thread::scope(|scope| {
        for writer in 0..WRITERS * replicas.len() {
            let replica = &replicas[writer % replicas.len()];
            scope.spawn(move || {
                for n in 0..MESSAGES {
                    replica.publish("orders", format!("{writer} {n}"));
                    // Now and then a pause, after which the tail waits for entries.
                    if n % 50 == writer {
                        std::thread::sleep(std::time::Duration::from_millis(20));
                    }
                }
            });
        }
    });
    let seen = sources.each_mut().map(|source| {
        let next = |_| source.next_raw().map(|event| (event.id, event.data)).unwrap();
        (0..WRITERS * 3 * MESSAGES).map(next).collect::<Vec<_>>()
    });
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
    let ids: Vec<String> = redis
        .ask::<Vec<(String, Vec<String>)>>(&["XRANGE", LOG, "-", "+"])
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(seen[0].iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), ids[1..]);
}
