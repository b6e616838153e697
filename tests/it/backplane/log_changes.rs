//! Changes of the log: it is wiped, fails over or becomes shorter. Every replica sends its readers a
//! gap, whenever and in whatever order the replicas notice the change.

use crate::{
    backplane::log_faults::{LOG, log_behind_proxy, log_with_reader, next_gap, publish, replica},
    support::{
        eventually,
        gateway::{Gateway, message},
        http1::EventSource,
        parser::Dispatched,
        redis::{Proxy, RedisServer},
    },
};

const STATE: &str = "{stream-events}:state";

/// Starts a master and a replica of it.
fn master_and_replica() -> (RedisServer, RedisServer) {
    let master = RedisServer::start();
    let port = master.port.to_string();
    let second = RedisServer::with(&["--replicaof", "127.0.0.1", &port]);
    (master, second)
}

/// Publishes an event, and waits until the reader has received it and the replica has it.
fn publish_to_both(
    gateway: &Gateway,
    source: &mut EventSource,
    second: &RedisServer,
) -> Dispatched {
    publish(gateway, "both have it");
    let shared = source.next();
    eventually("replicated", || (second.ask::<i64>(&["XLEN", LOG]) == 2).then_some(()));
    shared
}

/// Makes a replica a master.
fn promote(second: &RedisServer) {
    second.tell(&["REPLICAOF", "NO", "ONE"]);
}

/// The new master never had an event that readers received.
#[test]
fn fail_over_to_a_replica_that_is_behind() {
    let (mut master, second) = master_and_replica();
    let proxy = Proxy::to(master.address());
    let gateway = replica(&proxy.url(), &[]);
    let mut source = gateway.events("");
    let shared = publish_to_both(&gateway, &mut source, &second);
    // The replica receives no more writes of the master.
    second.tell(&["REPLICAOF", "127.0.0.1", "1"]);
    publish(&gateway, "only the old one has it");
    let lost = source.next();

    proxy.point_to(second.address());
    master.kill();
    proxy.cut();
    // Before the replica is promoted, it is used neither for pushes nor for reading.
    let refused = gateway.push("orders", &message("x", "1"));
    assert_eq!(refused.status, 503);
    promote(&second);
    publish(&gateway, "after");
    let gap = next_gap(&mut source);
    assert_eq!((&gap["reason"], &gap["after"]), (&"log-changed".into(), &lost.id.as_str().into()));
    assert_eq!(source.next().data, "after");
    // A reader that has only the event of both logs receives a gap after it.
    assert_eq!(next_gap(&mut gateway.resume("", &shared.id))["reason"], "log-changed");
}

/// The new master is written to before a gateway that read from the old one connects to it. Its
/// newest id is greater than every id that was read: only the run id shows that it is another log.
#[test]
fn fail_over_to_a_replica_that_is_ahead_again() {
    let (mut master, second) = master_and_replica();
    let gateway = replica(&master.url(), &[]);
    let mut source = gateway.events("");
    let shared = publish_to_both(&gateway, &mut source, &second);
    second.tell(&["REPLICAOF", "127.0.0.1", "1"]);
    publish(&gateway, "only the old one has it");
    source.next();
    master.kill();
    promote(&second);
    let other = replica(&second.url(), &[]);
    publish(&other, "after");
    assert_eq!(next_gap(&mut other.resume("", &shared.id))["reason"], "log-changed");
}

/// The same server is promoted again after another one was master: its log is shorter, but its run
/// id is the same.
#[test]
fn log_that_lost_its_newest_entries() {
    let (redis, proxy, gateway) = log_behind_proxy();
    let mut source = gateway.events("");
    publish(&gateway, "kept");
    let kept = source.next().id;
    publish(&gateway, "forgotten");
    let forgotten = source.next().id;
    redis.tell(&["XDEL", LOG, &forgotten]);
    redis.tell(&["HSET", STATE, "newest", &kept]);
    proxy.cut();
    let gap = next_gap(&mut source);
    assert_eq!((&gap["reason"], &gap["after"]), (&"log-changed".into(), &forgotten.into()));
}

/// The log is wiped and pushed to before any tail notices, so that no tail sees the newest id
/// decrease.
#[test]
fn wipe_that_no_tail_notices() {
    let redis = RedisServer::start();
    let (one, other) = (replica(&redis.url(), &[]), replica(&redis.url(), &[]));
    let mut sources = [one.events(""), other.events("")];
    publish(&one, "before");
    for source in &mut sources {
        assert_eq!(source.next().data, "before");
    }
    redis.tell(&["FLUSHALL"]);
    publish(&one, "after");
    for source in &mut sources {
        assert_eq!(next_gap(source)["reason"], "log-changed");
        assert_eq!(source.next().data, "after");
    }
}

/// The clock of the server was ahead and is corrected. Without the break the ids of the new log would
/// be less than those of the old one, and its events would never be read.
#[test]
fn wipe_after_which_the_clock_goes_back() {
    let (redis, gateway, mut source) = log_with_reader(&[]);
    append_in_the_future(&redis, &mut source);
    redis.tell(&["FLUSHALL"]);
    publish(&gateway, "after");
    let gap = next_gap(&mut source);
    assert_eq!(gap["upto"], "9000000000000-8");
    let event = source.next();
    assert_eq!((event.id.as_str(), event.data.as_str()), ("9000000000000-9", "after"));
}

/// Appends an event with an id in the future, as a server does whose clock is ahead, and waits until
/// the reader receives it.
fn append_in_the_future(redis: &RedisServer, source: &mut EventSource) {
    let ahead = "9000000000000-7";
    let fields = ["format", "1", "topic", "orders", "data", "from the future", "attributes", ""];
    let rest = ["orderingKey", "", "messageId", "", "publishTimeMs", ""];
    redis.tell(&[&["XADD", LOG, ahead], &fields[..], &rest].concat());
    redis.tell(&["HSET", STATE, "newest", ahead]);
    assert_eq!(source.next().id, ahead);
}

/// One gateway connects to the new master at once, another one uses the old master for a while. What
/// each reads meanwhile is missing in the other's log, and the break comes after both.
#[test]
fn fail_over_at_different_times() {
    let (mut old, new) = master_and_replica();
    let proxies = [Proxy::to(old.address()), Proxy::to(old.address())];
    let gateways = [replica(&proxies[0].url(), &[]), replica(&proxies[1].url(), &[])];
    let [late, early] = &gateways;
    let mut of_late = late.events("");
    let shared = publish_to_both(early, &mut of_late, &new);
    promote(&new);
    proxies[1].point_to(new.address());
    proxies[1].cut();
    publish(early, "of the new one, before");
    publish(late, "of the old one");
    publish(early, "of the new one, after");
    assert_eq!(of_late.next().data, "of the old one");
    proxies[0].point_to(new.address());
    old.kill();
    proxies[0].cut();
    assert_eq!(next_gap(&mut of_late)["reason"], "log-changed");
    publish(late, "at last");
    assert_eq!(of_late.next().data, "at last");
    // Both gateways send a gap to a reader that was connected before.
    for gateway in &gateways {
        let mut source = gateway.resume("", &shared.id);
        assert_eq!(next_gap(&mut source)["reason"], "log-changed");
        assert_eq!(source.next().data, "at last");
    }
}

/// The host name points to another server, but one of the gateway's two connections stays on the old
/// one.
#[test]
fn pushes_use_the_server_that_the_tail_reads() {
    let (old, new) = master_and_replica();
    let proxy = Proxy::to(old.address());
    let gateway = replica(&proxy.url(), &[]);
    let mut source = gateway.events("");
    publish_to_both(&gateway, &mut source, &new);
    promote(&new);
    proxy.point_to(new.address());
    proxy.cut_tails();
    // The old server would accept a push: only the comparison of the run ids prevents it.
    assert_eq!(next_gap(&mut source)["reason"], "log-changed");
    publish(&gateway, "seen");
    assert_eq!(source.next().data, "seen");
    assert_eq!(old.ask::<i64>(&["XLEN", LOG]), 2);
}

/// After a wipe and a correction of the clock, a new gateway, which has read nothing, is the first to
/// append. The ids of its events are less than those that other gateways have read.
#[test]
fn wipe_after_which_a_new_gateway_appends_first() {
    let (redis, _gateway, mut source) = log_with_reader(&[]);
    append_in_the_future(&redis, &mut source);
    redis.tell(&["FLUSHALL"]);
    let new = replica(&redis.url(), &[]);
    publish(&new, "below");
    assert_eq!(next_gap(&mut source)["reason"], "log-changed");
    publish(&new, "above");
    assert_eq!(source.next().data, "above");
}

/// The newest entry is deleted from the log by hand.
#[test]
fn new_replica_does_not_wait_for_a_deleted_entry() {
    let (redis, gateway, mut source) = log_with_reader(&[]);
    publish(&gateway, "stays");
    publish(&gateway, "goes");
    let stays = source.next().id;
    redis.tell(&["XDEL", LOG, &source.next().id]);
    let commands = || {
        let info: String = redis.ask(&["INFO", "stats"]);
        let line = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    let fresh = replica(&redis.url(), &[]);
    let before = commands();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(commands() - before < 200, "the tail polls without waiting");
    assert_eq!(fresh.events("?since=1h").next().id, stays);
}

/// An entry with invalid UTF-8 in the middle of the log is a gap, and later entries are read.
#[test]
fn entry_with_invalid_utf8_is_a_gap() {
    let (redis, gateway, mut source) = log_with_reader(&[]);
    publish(&gateway, "before");
    let before = source.next();
    let mut connection = redis.connect().unwrap();
    let id: String = redis::cmd("XADD")
        .arg(LOG)
        .arg("*")
        .arg(&b"\xff\xfe"[..])
        .arg(&b"\xff"[..])
        .query(&mut connection)
        .unwrap();
    redis.tell(&["HSET", STATE, "newest", &id]);
    let gap = next_gap(&mut source);
    assert_eq!((&gap["reason"], &gap["upto"]), (&"log-changed".into(), &id.into()));
    publish(&gateway, "after");
    assert_eq!(source.next().data, "after");
    // The rings keep the earlier events: a new reader receives the gap, and then all events.
    let mut again = gateway.events("?since=1h");
    next_gap(&mut again);
    assert_eq!(again.next().id, before.id);
    assert_eq!(again.next().data, "after");
    assert_eq!(gateway.push("orders", &message("x", "1")).status, 204);
}
