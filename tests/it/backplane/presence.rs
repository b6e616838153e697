//! Presence over several replicas with Redis.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rustix::process::Signal;

use crate::{
    outlet::presence::{Member, who},
    support::{
        eventually,
        gateway::Gateway,
        process::serve,
        redis::{Proxy, RedisServer},
        seed,
    },
};

/// Starts a gateway with the log at `url` and waits until it is ready.
fn replica(url: &str, grace: &str) -> Gateway {
    let gateway = Gateway::dev(&[("backplane", url), ("presence-grace", grace)]);
    eventually("ready", || (gateway.get("/readyz", &[]).status == 200).then_some(()));
    gateway
}

/// Returns the names and the numbers of streams that `GET /presence/lobby` gives.
fn streams(address: SocketAddr) -> BTreeMap<String, u64> {
    let who = who(address);
    let members = who["members"].as_array().unwrap().iter();
    let of = |member: &serde_json::Value| {
        (member["subject"].as_str().unwrap().to_owned(), member["streams"].as_u64().unwrap())
    };
    members.map(of).collect()
}

fn until_streams(address: SocketAddr, expected: &[(&str, u64)]) {
    let expected: BTreeMap<_, _> =
        expected.iter().map(|(name, streams)| ((*name).to_owned(), *streams)).collect();
    let mut seen = BTreeMap::new();
    eventually(&format!("the streams are {expected:?}"), || {
        seen = streams(address);
        (seen == expected).then_some(())
    });
}

#[test]
fn members_of_all_replicas_are_in_the_first_list_and_in_the_answer() {
    let redis = RedisServer::start();
    let [one, two, outside] = [(); 3].map(|()| replica(&redis.url(), "1 s"));
    let mut alice = Member::open(&one, "alice");
    let also = Member::open(&two, "alice");
    // The list waits for the answer of Redis. The streams of `two` are written within a second.
    let bob = eventually("alice is listed", || {
        let bob = Member::open(&two, "bob");
        bob.members.contains("alice").then_some(bob)
    });
    alice.until(&["alice", "bob"]);
    for replica in [&one, &two, &outside] {
        until_streams(replica.address, &[("alice", 2), ("bob", 1)]);
    }
    drop(bob);
    alice.until(&["alice"]);
    assert_eq!(alice.changes, ["+bob", "-bob"]);
    until_streams(outside.address, &[("alice", 2)]);
    let mut keys: Vec<String> = redis.ask(&["KEYS", "*presence*"]);
    keys.sort();
    assert_eq!(keys, ["{stream-events}:presence-replicas", "{stream-events}:presence:lobby"]);
    drop((alice, also));
    eventually("the reports are removed", || {
        (redis.ask::<u64>(&["EXISTS", "{stream-events}:presence:lobby"]) == 0).then_some(())
    });
}

/// Names begin and end their streams at random on three replicas. Some of them move, so that they
/// always have a stream but for a moment; others come once and go. Each of nine readers must be
/// told of each name exactly once.
#[test]
fn each_reader_is_told_once_of_each_join_and_leave() {
    let mut random = StdRng::seed_from_u64(seed("each_reader_is_told_once"));
    let redis = RedisServer::start();
    let replicas = [(); 3].map(|()| replica(&redis.url(), "12 s"));
    let mut readers: Vec<_> =
        (0..9).map(|n| Member::open(&replicas[n % 3], &format!("reader-{n}"))).collect();
    let all: Vec<_> = (0..9).map(|n| format!("reader-{n}")).collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    for reader in &mut readers {
        reader.until(&all);
        reader.changes.clear();
    }

    // The oracle: the streams of each name.
    let mut moving: BTreeMap<String, Vec<Member>> = BTreeMap::new();
    let mut passing: BTreeMap<String, Vec<Member>> = BTreeMap::new();
    let mut gone = BTreeSet::new();
    let open =
        |name: &str, random: &mut StdRng| Member::open(&replicas[random.random_range(0..3)], name);
    let end = Instant::now() + Duration::from_secs(8);
    while Instant::now() < end {
        let name = format!("moving-{}", random.random_range(0..8));
        let streams = moving.entry(name.clone()).or_default();
        if streams.len() < 2 && random.random_bool(0.5) {
            streams.push(open(&name, &mut random));
        } else if !streams.is_empty() {
            // The connection is cut, and the client reconnects, perhaps to another replica.
            let at = random.random_range(0..streams.len());
            drop(streams.swap_remove(at));
            std::thread::sleep(Duration::from_millis(random.random_range(0..300)));
            streams.push(open(&name, &mut random));
        }
        let name = format!("passing-{}", random.random_range(0..16));
        if gone.contains(&name) {
            continue;
        }
        if random.random_bool(0.6) {
            passing.entry(name.clone()).or_default().push(open(&name, &mut random));
        } else if passing.remove(&name).is_some() {
            gone.insert(name);
        }
    }
    gone.extend(std::mem::take(&mut passing).into_keys());
    // A name without a stream is no member.
    moving.retain(|_, streams| !streams.is_empty());
    let moved = moving.len();
    assert!(3 < gone.len() && 3 < moved);

    let here: Vec<_> = all.iter().copied().chain(moving.keys().map(String::as_str)).collect();
    let joins = gone.iter().chain(moving.keys()).map(|name| format!("+{name}"));
    let leaves = gone.iter().map(|name| format!("-{name}"));
    let mut expected: Vec<_> = joins.chain(leaves).collect();
    expected.sort();
    for reader in &mut readers {
        while reader.changes.len() < expected.len() {
            reader.read();
        }
        assert_eq!(reader.members, here.iter().map(|name| (*name).to_owned()).collect());
        let mut changes = reader.changes.clone();
        changes.sort();
        assert_eq!(changes, expected);
    }
    let counts = moving.iter().map(|(name, streams)| (name.as_str(), streams.len() as u64));
    let counts: Vec<_> = all.iter().map(|name| (*name, 1)).chain(counts).collect();
    for replica in &replicas {
        until_streams(replica.address, &counts);
    }
    // A marker comes right after everything else: nothing more was told.
    let _marker = Member::open(&replicas[0], "marker");
    for reader in &mut readers {
        reader.changes.clear();
        reader.read();
        assert_eq!(reader.changes, ["+marker"]);
    }
}

/// Members leave within 30 s. The grace time of this test is 7 s shorter than the default.
#[test]
fn members_of_a_killed_replica_leave_unless_they_come_back() {
    const LEAVE_MAX: Duration = Duration::from_secs(30 - 7);
    let redis = RedisServer::start();
    let url = redis.url();
    let stays = replica(&url, "3 s");
    let (process, address) = serve(&["--backplane", &url, "--presence-grace", "3 s"]);
    let mut reader = Member::open(&stays, "reader");
    let _lost = [Member::open_at(address, "alice"), Member::open_at(address, "alice")];
    let _bob = Member::open_at(address, "bob");
    reader.until(&["alice", "bob", "reader"]);
    process.signal(Signal::KILL);
    let killed = Instant::now();
    let _back = Member::open(&stays, "bob");
    reader.until(&["bob", "reader"]);
    let took = killed.elapsed();
    eprintln!("alice left {took:?} after the kill, with a grace time of 3 s");
    assert!(took < LEAVE_MAX, "{took:?}");
    let leaves = reader.changes.iter().filter(|change| change.starts_with('-'));
    assert_eq!(leaves.collect::<Vec<_>>(), ["-alice"]);
    until_streams(stays.address, &[("bob", 1), ("reader", 1)]);
    let fields: u64 = redis.ask(&["HLEN", "{stream-events}:presence:lobby"]);
    assert_eq!(fields, 2, "the reports of the killed replica are removed");
}

#[test]
fn members_of_a_replica_that_shuts_down_move_without_a_message() {
    let redis = RedisServer::start();
    let url = redis.url();
    let stays = replica(&url, "4 s");
    let mut leaves =
        Gateway::dev(&[("backplane", &url), ("presence-grace", "4 s"), ("drain-timeout", "2 s")]);
    eventually("ready", || (leaves.get("/readyz", &[]).status == 200).then_some(()));
    let mut reader = Member::open(&stays, "reader");
    let names = ["alice", "bob", "carol"];
    let moving = names.map(|name| Member::open(&leaves, name));
    let gone = Member::open(&leaves, "dora");
    reader.until(&["alice", "bob", "carol", "dora", "reader"]);
    reader.changes.clear();
    leaves.begin_stop();
    let address = stays.address;
    let moved: Vec<_> = std::thread::scope(|scope| {
        let clients = moving.into_iter().zip(names).map(|(member, name)| {
            scope.spawn(move || {
                member.read_to_the_end();
                Member::open_at(address, name)
            })
        });
        let clients: Vec<_> = clients.collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    gone.read_to_the_end();
    leaves.stop();
    let replicas: Vec<String> =
        redis.ask(&["ZRANGE", "{stream-events}:presence-replicas", "0", "-1"]);
    assert_eq!(replicas.len(), 1, "it does not have to expire");
    reader.until(&["alice", "bob", "carol", "reader"]);
    assert_eq!(reader.changes, ["-dora"]);
    drop(moved);
}

#[test]
fn without_redis_the_last_known_members_stay() {
    let mut redis = RedisServer::start();
    let proxy = Proxy::to(redis.address());
    let (one, two) = (replica(&proxy.url(), "5 s"), replica(&proxy.url(), "5 s"));
    let mut reader = Member::open(&one, "reader");
    let alice = Member::open(&one, "alice");
    let bob = Member::open(&two, "bob");
    let _carol = Member::open(&two, "carol");
    reader.until(&["alice", "bob", "carol", "reader"]);
    until_streams(two.address, &[("alice", 1), ("bob", 1), ("carol", 1), ("reader", 1)]);
    reader.changes.clear();

    // Redis comes back without what it held.
    proxy.refuse(true);
    proxy.cut();
    redis.kill();
    drop((alice, bob));
    // Alice moves, and bob is gone. A new member of the same replica is told of at once.
    let _alice = Member::open(&two, "alice");
    let _dora = Member::open(&one, "dora");
    reader.until(&["alice", "bob", "carol", "dora", "reader"]);
    assert_eq!(one.get("/presence/lobby", &[]).status, 200);
    assert_eq!(one.get("/presence/another", &[]).status, 503);
    std::thread::sleep(Duration::from_secs(6));
    redis.restart();
    proxy.refuse(false);
    reader.until(&["alice", "carol", "dora", "reader"]);
    assert_eq!(reader.changes, ["+dora", "-bob"]);
    let members = [("alice", 1), ("carol", 1), ("dora", 1), ("reader", 1)];
    until_streams(one.address, &members);
    until_streams(two.address, &members);
    assert_eq!(reader.changes, ["+dora", "-bob"]);
}
