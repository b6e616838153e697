//! The memory of the topics that streams follow: it has a limit, and is reused.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::support::{
    PATIENCE, eventually,
    gateway::{Gateway, metric},
    http1::{self, EventSource},
    process::{Process, stream_events},
    redis::RedisServer,
};

const MET: &str = "stream_events_limits_met_total{limit=\"followed-bytes-max\"}";
const GAUGE: &str = "stream_events_followed_bytes";

/// A query for so many topics that no other one asks for: each has a name of 9 bytes.
fn query(stream: usize, topics: usize) -> String {
    let names: Vec<_> = (0..topics).map(|topic| format!("t{stream:03}-{topic:04}")).collect();
    format!("?topic={}", names.join(","))
}

/// What such a query costs.
fn cost(topics: usize) -> usize {
    512 + topics * (160 + 9)
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
fn gauge(gateway: &Gateway, streams: usize, topics: usize) {
    gateway.until_metric(GAUGE, (streams * cost(topics)) as f64);
}

#[test]
fn who_follows_more_than_there_is_room_for_is_told_to_come_back() {
    let gateway = Gateway::dev(&[("followed-bytes-max", "256 KiB"), ("workers", "1")]);
    let mut open: Vec<_> = (0..3).map(|n| gateway.events(&query(n, 500))).collect();
    gauge(&gateway, 3, 500);
    // Who knows `Retry-After` is told by it, a browser in a stream that ends.
    let refused = gateway.get(&format!("/events{}", query(3, 500)), &[]);
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("--followed-bytes-max"), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    let accept = [("Accept", "text/event-stream")];
    let path = format!("/events{}", query(3, 500));
    let mut browser = EventSource::connect(gateway.address, &path, &accept);
    let end = browser.next_raw().unwrap();
    assert_eq!((&*end.event, &*end.data), ("stream-end", r#"{"reason":"busy"}"#));
    gateway.until_metric(MET, 2.0);
    gateway.until_metric("stream_events_streams_refused_total{reason=\"busy\"}", 2.0);
    gateway.until_metric("stream_events_streams", 3.0);
    gauge(&gateway, 3, 500);
    // Others are served, and who follows what others follow costs no more.
    let mut all = gateway.events("");
    let mut same = gateway.events(&query(0, 500));
    gateway.publish("t000-0499", "one of 500");
    assert_eq!(all.next().data, "one of 500");
    assert_eq!(same.next().data, "one of 500");
    assert_eq!(open[0].next().data, "one of 500");
    drop((all, same, open));
    gateway.until_metric(GAUGE, 0.0);
    drop(gateway.events(&query(3, 500)));
}

/// They have no place in the hub yet, and cost memory all the same.
#[test]
fn streams_that_wait_for_the_log_pay_for_their_topics() {
    let redis = RedisServer::stopped();
    let url = redis.url();
    let gateway = Gateway::dev(&[("backplane", &url), ("followed-bytes-max", "256 KiB")]);
    let open = |n| {
        let accept = [("Accept", "text/event-stream")];
        EventSource::connect(gateway.address, &format!("/events{}", query(n, 500)), &accept)
    };
    let waiting: Vec<_> = (0..3).map(open).collect();
    gauge(&gateway, 3, 500);
    let refused = open(3).next_raw().unwrap();
    assert_eq!((&*refused.event, &*refused.data), ("stream-end", r#"{"reason":"busy"}"#));
    drop(waiting);
    gateway.until_metric(GAUGE, 0.0);
}

fn resident_bytes(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// What is counted is what is taken, and rounds of readers take no more than the first of them.
#[test]
fn memory_of_topics_is_as_counted_and_is_used_again() {
    const STREAMS: usize = 200;
    let open = ["--push-auth", "none", "--read-auth", "anonymous", "--workers", "1"];
    let listen = ["serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"];
    let process = Process::start(&mut stream_events(&[&listen[..], &open].concat()));
    let (address, ops) = (process.listen(), process.ops_listen());
    let gone = || eventually("all are gone", || (metric(ops, GAUGE) < 1.0).then_some(()));
    let resident = || resident_bytes(process.pid());
    let round = |first: usize| {
        let path = |n| format!("/events{}", query((first + n) % 1_000, 1_000));
        let streams: Vec<_> =
            (0..STREAMS).map(|n| EventSource::open(address, &path(n), &[])).collect();
        (resident(), streams)
    };
    let before = resident();
    // Beside what is counted are the sockets' buffers, and the reading of queries.
    let counted = STREAMS * cost(1_000);
    let most = before + counted + counted / 4 + (8 << 20);
    for n in 0..4 {
        let (now, streams) = round(n * STREAMS);
        eprintln!("{now} bytes in round {n}, {before} before, {counted} counted");
        assert!(now < most, "{now} bytes in round {n}, {before} before, {counted} counted");
        drop(streams);
        gone();
    }
}

async fn connect(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    send
}

/// A worker that subscribes many readers to very many topics has time for others in between.
#[tokio::test]
async fn who_names_very_many_topics_keeps_nobody_waiting() {
    const STREAMS: usize = 600;
    let gateway = Gateway::dev(&[("workers", "1"), ("followed-bytes-max", "512 MiB")]);
    let address = gateway.address;
    let start = Instant::now();
    let flood = tokio::spawn(async move {
        let send = connect(address).await;
        let mut answers = Vec::new();
        for n in 0..STREAMS {
            let uri = format!("http://localhost/events{}", query(n, 1_000));
            let request = http::Request::get(uri).body(()).unwrap();
            let mut send = send.clone().ready().await.unwrap();
            answers.push(send.send_request(request, true).unwrap().0);
        }
        let mut bodies = Vec::new();
        for answer in answers {
            bodies.push(answer.await.unwrap().into_body());
        }
        (start.elapsed(), bodies)
    });
    let mut longest = Duration::ZERO;
    let probe = || {
        tokio::task::spawn_blocking(move || {
            let start = Instant::now();
            assert_eq!(http1::request(address, "GET", "/healthz", &[], b"").status, 200);
            start.elapsed()
        })
    };
    while !flood.is_finished() {
        assert!(start.elapsed() < PATIENCE);
        longest = longest.max(probe().await.unwrap());
    }
    let (took, bodies) = flood.await.unwrap();
    eprintln!("{STREAMS} streams took {took:?}, and a probe at most {longest:?}");
    assert!(longest * 5 < took, "a probe took {longest:?} of {took:?}");
    drop(bodies);
    let gone = move || gateway.until_metric(GAUGE, 0.0);
    tokio::task::spawn_blocking(gone).await.unwrap();
}
