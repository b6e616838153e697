//! An HTTP sink of a log, such as Kafka Connect's: it reads partitions in order, sends their records in
//! requests of one or several, sends them again when no answer came, and goes back to the offset that
//! it committed last. Its key of a record is `topic-partition-offset`. Nothing may be lost or doubled, and
//! each partition keeps its order.
//!
//! `SEED=` repeats a run.

use std::{
    collections::BTreeMap,
    io::{BufReader, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    PATIENCE, eventually,
    gateway::Gateway,
    http1::{self, EventSource},
    process::{Process, stream_events},
    redis::{RedisServer, free_port},
    seed,
};

const PARTITIONS: usize = 4;
/// Smallest number of records of a partition.
const RECORDS: usize = 250;
/// Largest number of records of a request.
const BATCH_MAX: usize = 12;
/// Number of times that a gateway is killed.
const KILLS: usize = 4;

/// Offset and id of each record of a partition, as the answers gave them.
type Ids = BTreeMap<usize, String>;

/// Number of requests with each outcome.
#[derive(Debug, Default)]
struct Outcomes {
    answered: usize,
    cut: usize,
    unanswered: usize,
    refused: usize,
    went_back: usize,
}

#[test]
fn a_sink_loses_and_doubles_nothing_in_memory() {
    let seed = seed("a_sink_loses_and_doubles_nothing_in_memory");
    let gateway = Gateway::dev(&[("ring-events", "1000000")]);
    let gateways = [gateway.address];
    let begin = begin(gateway.address);
    let ids = run_partitions(seed, &gateways, &AtomicUsize::new(KILLS));
    check(gateway.address, &begin, &ids);
}

#[test]
fn a_sink_loses_and_doubles_nothing_while_gateways_are_killed() {
    let seed = seed("a_sink_loses_and_doubles_nothing_while_gateways_are_killed");
    let redis = RedisServer::start();
    let ports = [free_port(), free_port()];
    let gateways = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut processes = ports.map(|port| start(port, &redis.url()));
    let begin = begin(gateways[0]);
    let kills = AtomicUsize::new(0);
    let ids = std::thread::scope(|scope| {
        let sink = scope.spawn(|| run_partitions(seed, &gateways, &kills));
        let mut random = StdRng::seed_from_u64(seed);
        while !sink.is_finished() && kills.load(Ordering::SeqCst) < KILLS {
            std::thread::sleep(Duration::from_millis(random.random_range(100..400)));
            let at = random.random_range(0..ports.len());
            processes[at].signal(Signal::KILL);
            processes[at].wait();
            std::thread::sleep(Duration::from_millis(random.random_range(0..200)));
            processes[at] = start(ports[at], &redis.url());
            kills.fetch_add(1, Ordering::SeqCst);
        }
        sink.join().unwrap()
    });
    // Both have the same events with the same ids.
    for gateway in gateways {
        check(gateway, &begin, &ids);
    }
}

fn start(port: u16, redis: &str) -> Process {
    let listen = format!("127.0.0.1:{port}");
    let arguments = ["dev", "--listen", &listen, "--workers", "1", "--backplane", redis];
    let rings = ["--ring-events", "1000000", "--log-level", "error"];
    Process::start(&mut stream_events(&[&arguments[..], &rings].concat()))
}

/// Publishes an event before all others, and returns its id.
fn begin(gateway: SocketAddr) -> String {
    eventually("an answer", || {
        TcpStream::connect(gateway).ok()?;
        let answer = http1::request(gateway, "POST", "/publish/orders", &[], b"begin");
        (answer.status == 200).then(|| answer.json()["ids"][0].as_str().unwrap().to_owned())
    })
}

/// Sends all partitions at once, each in its order, until each has sent enough records and `kills`
/// gateways were killed.
fn run_partitions(seed: u64, gateways: &[SocketAddr], kills: &AtomicUsize) -> Vec<Ids> {
    std::thread::scope(|scope| {
        let partitions: Vec<_> = (0..PARTITIONS)
            .map(|partition| scope.spawn(move || send_partition(seed, partition, gateways, kills)))
            .collect();
        partitions.into_iter().map(|partition| partition.join().unwrap()).collect()
    })
}

/// Sends the records of a partition. One request is in flight at a time, and its records are sent
/// again until an answer comes.
fn send_partition(
    seed: u64,
    partition: usize,
    gateways: &[SocketAddr],
    kills: &AtomicUsize,
) -> Ids {
    let mut random = StdRng::seed_from_u64(seed ^ (1 + partition as u64));
    let (mut ids, mut outcomes) = (Ids::new(), Outcomes::default());
    let (mut next, mut sent, mut last_answer) = (0, 0, Instant::now());
    while next < RECORDS.max(sent) || kills.load(Ordering::SeqCst) < KILLS {
        // Each attempt may have another number of records.
        let end = next + random.random_range(1..=BATCH_MAX);
        sent = sent.max(end);
        let gateway = gateways[random.random_range(0..gateways.len())];
        let request = request(partition, next, end);
        match send(&mut random, gateway, &request, &mut outcomes) {
            None => {
                assert!(last_answer.elapsed() < PATIENCE, "no answer came: {outcomes:?}");
                std::thread::sleep(Duration::from_millis(random.random_range(0..10)));
            }
            Some(answered) => {
                assert_eq!(answered.len(), end - next);
                for (offset, id) in (next..end).zip(answered) {
                    let known = ids.entry(offset).or_insert_with(|| id.clone());
                    assert_eq!(*known, id, "{partition}-{offset}: one record, one event");
                }
                last_answer = Instant::now();
                next = end;
                // A sink that was restarted goes back to the offset that it committed.
                if random.random_ratio(1, 8) {
                    next -= random.random_range(0..=next.min(3 * BATCH_MAX));
                    outcomes.went_back += 1;
                }
            }
        }
    }
    eprintln!("partition {partition}: {} records, {outcomes:?}", ids.len());
    assert!(0 < outcomes.cut && 0 < outcomes.unanswered && 0 < outcomes.went_back, "{outcomes:?}");
    ids
}

/// Returns the request for the records from offset `start` to `end`: one record as the body, or
/// several as the messages of Pub/Sub's JSON.
fn request(partition: usize, start: usize, end: usize) -> Vec<u8> {
    let key = |offset: usize| format!("orders-{partition}-{offset}");
    let data = |offset: usize| format!("{partition} {offset}");
    let (path, header, body) = if end == start + 1 {
        let header = format!("Idempotency-Key: {}\r\n", key(start));
        (format!("?key=orders-{partition}"), header, data(start))
    } else {
        let message = |offset: usize| {
            json!({
                "data": STANDARD.encode(data(offset)),
                "orderingKey": format!("orders-{partition}"),
                "messageId": key(offset),
            })
        };
        let messages: Vec<_> = (start..end).map(message).collect();
        let json = "Content-Type: application/json\r\n".to_owned();
        ("?format=pubsub".to_owned(), json, json!({ "messages": messages }).to_string())
    };
    let length = body.len();
    let head = format!("POST /publish/orders{path} HTTP/1.1\r\nHost: localhost\r\n");
    format!("{head}{header}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}").into()
}

/// Sends a request and returns the ids of its answer. `None` if the answer is lost, or is no 200.
fn send(
    random: &mut StdRng,
    gateway: SocketAddr,
    request: &[u8],
    outcomes: &mut Outcomes,
) -> Option<Vec<String>> {
    let mut socket = TcpStream::connect(gateway).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let chance = random.random_range(0..10);
    if chance == 0 {
        outcomes.cut += 1;
        let sent = random.random_range(0..request.len());
        socket.write_all(&request[..sent]).ok();
        return None;
    }
    socket.write_all(request).ok()?;
    if chance < 4 {
        outcomes.unanswered += 1;
        // The gateway has not begun, is storing the messages, or has answered.
        std::thread::sleep(Duration::from_micros(random.random_range(0..3_000)));
        socket.shutdown(Shutdown::Both).ok();
        return None;
    }
    let mut reader = BufReader::new(socket);
    let (status, headers) = http1::read_head(&mut reader).ok()?;
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut http1::Body::new(reader, &headers), &mut text).ok()?;
    if status != 200 {
        assert_eq!(status, 503, "{}", String::from_utf8_lossy(&text));
        outcomes.refused += 1;
        return None;
    }
    outcomes.answered += 1;
    let answer: Value = serde_json::from_slice(&text).ok()?;
    serde_json::from_value(answer["ids"].clone()).ok()
}

/// Reads all events after `begin`, and compares them with the answers: each record once, with the id of its
/// answer, and in the order of its partition.
fn check(gateway: SocketAddr, begin: &str, ids: &[Ids]) {
    eventually("it listens", || TcpStream::connect(gateway).ok());
    let mut stream = EventSource::open(gateway, "/events", &[("Last-Event-ID", begin)]);
    let mut next = [0; PARTITIONS];
    for _ in 0..ids.iter().map(BTreeMap::len).sum() {
        let event = stream.next_raw().expect("the stream ended");
        assert_eq!(event.event, "message", "{}", event.data);
        let mut words = event.data.split(' ').map(|word| word.parse::<usize>().unwrap());
        let (partition, offset) = (words.next().unwrap(), words.next().unwrap());
        assert_eq!(offset, next[partition], "partition {partition}");
        assert_eq!(ids[partition].get(&offset), Some(&event.id));
        next[partition] += 1;
    }
    let sent: Vec<_> = ids.iter().map(BTreeMap::len).collect();
    assert_eq!(next.to_vec(), sent);
    // Nothing comes after them.
    let marker = b"POST /publish/orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 3\r\n\r\nend";
    assert!(http1::exchange(gateway, marker).starts_with("HTTP/1.1 200"));
    assert_eq!(stream.next().data, "end");
}
