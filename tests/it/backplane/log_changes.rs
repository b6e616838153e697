//! The log becomes another one: wiped, failed over, or shorter than it was. All replicas tell their
//! readers, whenever and in whatever order they find out.

use crate::{
    backplane::log_faults::{LOG, next_gap, publish, replica},
    support::{
        eventually,
        gateway::message,
        http1::EventSource,
        redis::{Proxy, RedisServer},
    },
};

const STATE: &str = "{stream-events}:state";

/// The new master never had what readers were shown.
#[test]
fn failed_over_to_a_replica_that_is_behind() {
    let mut master = RedisServer::start();
    let port = master.port.to_string();
    let second = RedisServer::with(&["--replicaof", "127.0.0.1", &port]);
    let proxy = Proxy::to(master.address());
    let gateway = replica(&proxy.url(), &[]);
    let mut source = gateway.events("");
    publish(&gateway, "both have it");
    let shared = source.next();
    eventually("replicated", || (second.ask::<i64>(&["XLEN", LOG]) == 2).then_some(()));
    // The replica hears no more of the master.
    second.tell(&["REPLICAOF", "127.0.0.1", "1"]);
    publish(&gateway, "only the old one has it");
    let lost = source.next();

    proxy.point_to(second.address());
    master.kill();
    proxy.cut();
    // Before it is promoted it is no master to push to, nor to read from.
    let refused = gateway.push("orders", &message("x", "1"));
    assert_eq!(refused.status, 503);
    second.tell(&["REPLICAOF", "NO", "ONE"]);
    publish(&gateway, "after");
    let gap = next_gap(&mut source);
    assert_eq!((&gap["reason"], &gap["after"]), (&"log-changed".into(), &lost.id.as_str().into()));
    assert_eq!(source.next().data, "after");
    // Who has only what both had is told that something is missing after it.
    assert_eq!(next_gap(&mut gateway.resume("", &shared.id))["reason"], "log-changed");
}

/// A new master that was written to before anyone who knows better came back: its newest id is
/// above all that was seen, and only who it is gives it away.
#[test]
fn failed_over_to_a_replica_that_is_ahead_again() {
    let mut master = RedisServer::start();
    let port = master.port.to_string();
    let second = RedisServer::with(&["--replicaof", "127.0.0.1", &port]);
    let gateway = replica(&master.url(), &[]);
    let mut source = gateway.events("");
    publish(&gateway, "both have it");
    let shared = source.next();
    eventually("replicated", || (second.ask::<i64>(&["XLEN", LOG]) == 2).then_some(()));
    second.tell(&["REPLICAOF", "127.0.0.1", "1"]);
    publish(&gateway, "only the old one has it");
    source.next();
    master.kill();
    second.tell(&["REPLICAOF", "NO", "ONE"]);
    let other = replica(&second.url(), &[]);
    publish(&other, "after");
    assert_eq!(next_gap(&mut other.resume("", &shared.id))["reason"], "log-changed");
}

/// The same server, promoted again after another one was: its log went back, its name did not
/// change.
#[test]
fn a_log_that_is_shorter_than_what_was_seen_of_it() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.address());
    let gateway = replica(&proxy.url(), &[]);
    let mut source = gateway.events("");
    publish(&gateway, "kept");
    let kept = source.next().id;
    publish(&gateway, "forgotten");
    let forgotten = source.next().id;
    redis.tell(&["XDEL", LOG, &forgotten]);
    redis.tell(&["HSET", "{stream-events}:state", "newest", &kept]);
    proxy.cut();
    let gap = next_gap(&mut source);
    assert_eq!((&gap["reason"], &gap["after"]), (&"log-changed".into(), &forgotten.into()));
}

/// The wipe and the push come before any tail has noticed: nobody sees the log's head go back.
#[test]
fn wiped_under_everyones_feet() {
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

/// The server's clock was ahead and is not any more: the new log's ids would be below those that
/// were handed out, and its events never be read.
#[test]
fn wiped_and_the_clock_goes_back() {
    let redis = RedisServer::start();
    let gateway = replica(&redis.url(), &[]);
    let mut source = gateway.events("");
    from_the_future(&redis, &mut source);
    redis.tell(&["FLUSHALL"]);
    publish(&gateway, "after");
    let gap = next_gap(&mut source);
    assert_eq!(gap["upto"], "9000000000000-8");
    let event = source.next();
    assert_eq!((event.id.as_str(), event.data.as_str()), ("9000000000000-9", "after"));
}

/// The reader gets an event of a time that is still to come, as of a server whose clock is ahead.
fn from_the_future(redis: &RedisServer, source: &mut EventSource) {
    let ahead = "9000000000000-7";
    let fields = ["format", "1", "topic", "orders", "data", "from the future", "attributes", ""];
    let rest = ["orderingKey", "", "messageId", "", "publishTimeMs", ""];
    redis.tell(&[&["XADD", LOG, ahead], &fields[..], &rest].concat());
    redis.tell(&["HSET", STATE, "newest", ahead]);
    assert_eq!(source.next().id, ahead);
}

/// A master and its replica that have the same log, and the replica hears no more.
fn parted() -> (RedisServer, RedisServer, impl Fn()) {
    let master = RedisServer::start();
    let port = master.port.to_string();
    let second = RedisServer::with(&["--replicaof", "127.0.0.1", &port]);
    let address = second.address();
    let promote = move || {
        let mut connection =
            redis::Client::open(format!("redis://{address}")).unwrap().get_connection().unwrap();
        redis::cmd("REPLICAOF").arg(&["NO", "ONE"]).exec(&mut connection).unwrap();
    };
    (master, second, promote)
}

/// One replica of ours finds the new master at once, another goes on with the old one for a while:
/// what each was shown meanwhile is not in the other's log, and the break is behind both.
#[test]
fn failed_over_at_different_times() {
    let (mut old, new, promote) = parted();
    let proxies = [Proxy::to(old.address()), Proxy::to(old.address())];
    let gateways = [replica(&proxies[0].url(), &[]), replica(&proxies[1].url(), &[])];
    let [late, early] = &gateways;
    let mut of_late = late.events("");
    publish(early, "both have it");
    let shared = of_late.next();
    eventually("replicated", || (new.ask::<i64>(&["XLEN", LOG]) == 2).then_some(()));
    promote();
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
    // Neither replica gives a reader who was there before anything without a gap.
    for gateway in &gateways {
        let mut source = gateway.resume("", &shared.id);
        assert_eq!(next_gap(&mut source)["reason"], "log-changed");
        assert_eq!(source.next().data, "at last");
    }
}

/// The name points to another server, and one of a replica's two connections stays where it was.
#[test]
fn pushes_do_not_go_where_nobody_reads() {
    let (old, new, promote) = parted();
    let proxy = Proxy::to(old.address());
    let gateway = replica(&proxy.url(), &[]);
    let mut source = gateway.events("");
    publish(&gateway, "both have it");
    source.next();
    eventually("replicated", || (new.ask::<i64>(&["XLEN", LOG]) == 2).then_some(()));
    promote();
    proxy.point_to(new.address());
    proxy.cut_tails();
    // The old one takes what it is given, so long as nobody compares.
    assert_eq!(next_gap(&mut source)["reason"], "log-changed");
    publish(&gateway, "seen");
    assert_eq!(source.next().data, "seen");
    assert_eq!(old.ask::<i64>(&["XLEN", LOG]), 2);
}

/// A wiped log, a clock that went back, and a replica that has seen nothing yet: its events are
/// below what others have read.
#[test]
fn wiped_and_filled_again_by_one_who_knows_nothing() {
    let redis = RedisServer::start();
    let gateway = replica(&redis.url(), &[]);
    let mut source = gateway.events("");
    from_the_future(&redis, &mut source);
    redis.tell(&["FLUSHALL"]);
    let knows_nothing = replica(&redis.url(), &[]);
    publish(&knows_nothing, "below");
    assert_eq!(next_gap(&mut source)["reason"], "log-changed");
    publish(&knows_nothing, "above");
    assert_eq!(source.next().data, "above");
}

/// Somebody takes the newest event out of the log, for what is in it.
#[test]
fn a_new_replica_does_not_wait_for_an_event_that_was_taken_out() {
    let redis = RedisServer::start();
    let gateway = replica(&redis.url(), &[]);
    let mut source = gateway.events("");
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
    assert!(commands() - before < 200, "it asks and asks");
    assert_eq!(fresh.events("?since=1h").next().id, stays);
}

/// What is no text at all, in the middle of the log: it is told, and what comes after it is read.
#[test]
fn an_entry_that_is_no_text_stops_nobody() {
    let redis = RedisServer::start();
    let gateway = replica(&redis.url(), &[]);
    let mut source = gateway.events("");
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
    // What was held is held: the gap is told first, and then all that is there.
    let mut again = gateway.events("?since=1h");
    next_gap(&mut again);
    assert_eq!(again.next().id, before.id);
    assert_eq!(again.next().data, "after");
    assert_eq!(gateway.push("orders", &message("x", "1")).status, 204);
}
