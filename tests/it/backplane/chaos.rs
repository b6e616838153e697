//! Chaos test: three gateways and a Redis server are killed and restarted at random, while messages
//! are pushed to all gateways and readers change between them. Every reader receives every acked
//! message that its filter shows once and in order, or a gap in its place.
//!
//! `CHAOS_SECONDS=600 cargo test --test it chaos` runs longer; `SEED=` repeats a run.

use std::{
    collections::HashMap,
    io::{BufReader, Read as _, Write as _},
    net::SocketAddr,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    gateway::message,
    http1::{self, Body},
    parser::Parser,
    process::{Process, stream_events},
    redis::{Proxy, RedisServer, free_port},
    seed,
};

const GATEWAYS: usize = 3;
const WRITERS: usize = 3;
/// Half of the readers read all messages, and the others those of one writer each.
const READERS: usize = 2 * WRITERS;
/// Duration of the faults. Afterwards the test waits for the remaining messages.
const SECONDS: u64 = 12;
/// Time without bytes after which a reader changes to another gateway.
const HOP_AFTER: Duration = Duration::from_millis(700);
/// End of the text of each writer's last message.
const LAST: &str = "the last";

/// Event that a reader received.
enum Seen {
    Event { id: (u64, u64), writer: usize, n: usize },
    Gap { reason: String, after: (u64, u64), upto: (u64, u64) },
}

/// State that all threads share.
struct World {
    gateways: Vec<SocketAddr>,
    /// Number of acked messages of each writer.
    acked: Mutex<Vec<usize>>,
    /// Set when the faults are over.
    calm: AtomicBool,
    seed: u64,
}

#[test]
fn acked_messages_are_received_once_or_are_in_a_gap() {
    let seed = seed("acked_messages_are_received_once_or_are_in_a_gap");
    let seconds = std::env::var("CHAOS_SECONDS").ok().and_then(|text| text.parse().ok());
    let mut random = StdRng::seed_from_u64(seed);
    // Without an append-only file, Redis loses everything when it is killed.
    let disk = ["--appendonly", ["yes", "no"][random.random_range(0..2_usize)]];
    let mut redis = RedisServer::with(&disk);
    let proxy = Proxy::to(redis.address());
    let ports: Vec<_> = (0..GATEWAYS).map(|_| free_port()).collect();
    let mut gateways: Vec<_> = ports.iter().map(|port| Some(start(*port, &proxy))).collect();
    let world = World {
        gateways: ports.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect(),
        acked: Mutex::new(vec![0; WRITERS]),
        calm: AtomicBool::new(false),
        seed,
    };
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS));
    let by_reader: Vec<_> = std::thread::scope(|scope| {
        let world = &world;
        let readers: Vec<_> =
            (0..READERS).map(|reader| scope.spawn(move || read(world, reader))).collect();
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| scope.spawn(move || write(world, writer))).collect();
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(random.random_range(50..800)));
            disturb(&mut random, &mut redis, &proxy, &mut gateways, &ports);
        }
        proxy.delay(Duration::ZERO);
        redis.restart();
        for (gateway, port) in gateways.iter_mut().zip(&ports) {
            gateway.get_or_insert_with(|| start(*port, &proxy));
        }
        world.calm.store(true, Ordering::SeqCst);
        for writer in writers {
            writer.join().unwrap();
        }
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    let acked = world.acked.into_inner().unwrap();
    for (reader, seen) in by_reader.iter().enumerate() {
        check(reader, seen, &acked);
    }
}

/// Starts a gateway on `port`, with the log behind `proxy`.
fn start(port: u16, proxy: &Proxy) -> Process {
    let (listen, url) = (format!("127.0.0.1:{port}"), proxy.url());
    let arguments = ["serve", "--listen", &listen, "--ops-listen", "off", "--workers", "1"];
    let open = ["--push-auth", "none", "--read-auth", "anonymous", "--keep-alive", "1 s"];
    let log = ["--backplane", &url, "--ring-events", "1000000", "--log-level", "error"];
    Process::start(&mut stream_events(&[&arguments[..], &open, &log].concat()))
}

/// Causes one random fault.
fn disturb(
    random: &mut StdRng,
    redis: &mut RedisServer,
    proxy: &Proxy,
    gateways: &mut [Option<Process>],
    ports: &[u16],
) {
    let moment = Duration::from_millis(random.random_range(0..800));
    match random.random_range(0..10) {
        0..4 => {
            let at = random.random_range(0..gateways.len());
            if let Some(gateway) = gateways[at].take() {
                gateway.signal(Signal::KILL);
            }
            std::thread::sleep(moment);
            gateways[at] = Some(start(ports[at], proxy));
        }
        4..6 => {
            redis.kill();
            std::thread::sleep(moment);
            redis.restart();
        }
        6 => redis.tell(&["FLUSHALL"]),
        7 => proxy.cut(),
        8 => proxy.half_close(),
        _ => proxy.delay(Duration::from_millis(random.random_range(0..30))),
    }
}

/// Pushes messages one by one, each until it is acked, as Pub/Sub does with an ordering key.
fn write(world: &World, writer: usize) {
    let mut at = writer;
    let mut n = 0;
    loop {
        let last = world.calm.load(Ordering::SeqCst);
        let text = if last { format!("{writer} {n} {LAST}") } else { format!("{writer} {n}") };
        // The message id is unique, and the same in each attempt.
        let mut message = message(text, &format!("{writer}-{n}"));
        message["attributes"] = json!({ "writer": writer.to_string() });
        let envelope = json!({ "message": message }).to_string();
        let begun = Instant::now();
        loop {
            // The gateways take turns, as behind a load balancer.
            at += 1;
            if push(world.gateways[at % GATEWAYS], &envelope) == Some(204) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "never acked");
            std::thread::sleep(Duration::from_millis(20));
        }
        n += 1;
        world.acked.lock().unwrap()[writer] = n;
        if last {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Pushes a message and returns the status. `None` if the gateway is down, or is killed before it
/// answers.
fn push(gateway: SocketAddr, envelope: &str) -> Option<u16> {
    let mut socket = std::net::TcpStream::connect(gateway).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let length = envelope.len();
    let head = "POST /push/orders HTTP/1.1\r\nHost: localhost\r\nConnection: close";
    write!(socket, "{head}\r\nContent-Length: {length}\r\n\r\n{envelope}").ok()?;
    Some(http1::read_head(&mut BufReader::new(socket)).ok()?.0)
}

/// Returns the writers whose messages a reader reads.
fn writers_of(reader: usize) -> Range<usize> {
    reader.checked_sub(WRITERS).map_or(0..WRITERS, |one| one..one + 1)
}

/// Reads from changing gateways until the last message of each of its writers has arrived.
fn read(world: &World, reader: usize) -> Vec<Seen> {
    let mut random = StdRng::seed_from_u64(world.seed ^ (1 + reader as u64));
    let mut seen = Vec::new();
    let mut id = String::new();
    let mut lasts = 0;
    let mut calm_since = None;
    let query = match reader.checked_sub(WRITERS) {
        Some(one) => format!("topic=orders&filter=attributes.writer=%22{one}%22"),
        None => "topic=orders".to_owned(),
    };
    while lasts < writers_of(reader).len() {
        let gateway = world.gateways[random.random_range(0..GATEWAYS)];
        let reads = random.random_range(1..400);
        lasts += listen(gateway, &query, &mut id, reads, &mut seen).unwrap_or(0);
        if world.calm.load(Ordering::SeqCst) {
            let since = *calm_since.get_or_insert_with(Instant::now);
            assert!(
                since.elapsed() < Duration::from_secs(60),
                "reader {reader} never received all last messages"
            );
        }
    }
    seen
}

/// Reads up to `reads` times, or until no bytes arrive. Returns the number of last messages that
/// arrived. `None` if the gateway is down.
fn listen(
    gateway: SocketAddr,
    query: &str,
    id: &mut String,
    reads: usize,
    seen: &mut Vec<Seen>,
) -> Option<usize> {
    let mut socket = std::net::TcpStream::connect(gateway).ok()?;
    socket.set_read_timeout(Some(HOP_AFTER)).ok()?;
    // The first connection reads all events.
    let since = if id.is_empty() { "&since=1h" } else { "" };
    let head = format!(
        "GET /events?{query}{since} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
    );
    write!(socket, "{head}Last-Event-ID: {id}\r\n\r\n").ok()?;
    let mut reader = BufReader::new(socket);
    let (status, headers) = http1::read_head(&mut reader).ok()?;
    assert_eq!(status, 200);
    let mut body = Body::new(reader, &headers);
    let mut parser = Parser::default();
    parser.last_event_id.clone_from(id);
    let (mut part, mut lasts) = ([0; 4096], 0);
    for _ in 0..reads {
        let Ok(read @ 1..) = body.read(&mut part) else { break };
        for event in parser.feed(&part[..read]) {
            lasts += usize::from(event.data.ends_with(LAST));
            seen.extend(convert(&event.id, &event.event, &event.data));
        }
    }
    id.clone_from(&parser.last_event_id);
    Some(lasts)
}

/// Parses an event id.
fn number(id: &str) -> (u64, u64) {
    let (time, sequence) = id.split_once('-').unwrap();
    (time.parse().unwrap(), sequence.parse().unwrap())
}

/// Converts a message or a gap. `None` for other events.
fn convert(id: &str, event: &str, data: &str) -> Option<Seen> {
    match event {
        "message" => {
            let mut words = data.split(' ').map(|word| word.parse().ok());
            let mut word = || words.next().unwrap().unwrap();
            Some(Seen::Event { id: number(id), writer: word(), n: word() })
        }
        "stream-gap" => {
            let gap: Value = serde_json::from_str(data).unwrap();
            let text = |name: &str| gap[name].as_str().unwrap();
            let (after, upto) = (number(text("after")), number(text("upto")));
            Some(Seen::Gap { reason: text("reason").to_owned(), after, upto })
        }
        _ => None,
    }
}

/// Checks that the reader received all `acked` messages in order, or a gap for those that it missed.
fn check(reader: usize, seen: &[Seen], acked: &[usize]) {
    let (mut newest, mut gaps, mut changes) = ((0, 0), Vec::new(), 0);
    // For each writer: number of the next message, id of its last one, and number of gaps at that time.
    let mut next = [(0, (0, 0), 0); WRITERS];
    let mut seen_at: HashMap<(usize, usize), usize> = HashMap::new();
    let mut events = 0;
    for what in seen {
        match what {
            Seen::Gap { reason, after, upto } => {
                assert_ne!(
                    reason, "unknown-id",
                    "reader {reader}: every id was assigned by the log"
                );
                gaps.push((*after, *upto));
                changes += usize::from(reason == "log-changed");
            }
            Seen::Event { id, writer, n } => {
                assert!(writers_of(reader).contains(writer), "reader {reader}: {writer} {n}");
                assert!(newest < *id, "reader {reader}: {id:?} came after {newest:?}");
                newest = *id;
                events += 1;
                // Only a log that lost a message can store it again.
                if let Some(before) = seen_at.insert((*writer, *n), changes) {
                    assert!(before < changes, "reader {reader}: {writer} {n} came twice");
                }
                let (expected, last, gaps_then) = next[*writer];
                // The missing messages lie between the writer's last message and this one.
                let covers = |(after, upto): &((u64, u64), (u64, u64))| last < *upto && after < id;
                assert!(
                    *n <= expected || gaps[gaps_then..].iter().any(covers),
                    "reader {reader}: {writer} {expected} to {n} are missing without a gap"
                );
                next[*writer] = (n + 1, *id, gaps.len());
            }
        }
    }
    for (writer, acked) in acked.iter().enumerate() {
        let wanted = if writers_of(reader).contains(&writer) { *acked } else { 0 };
        assert_eq!(next[writer].0, wanted, "reader {reader}: the last of writer {writer}");
    }
    eprintln!("reader {reader}: {events} events, {} gaps", gaps.len());
    assert!(events > 20, "the reader received only {events} events");
}
