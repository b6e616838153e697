//! How streams and the gateway end: a client's FIN, a stalled socket, SIGTERM.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    process::ExitStatus,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::support::{
    PATIENCE, eventually,
    gateway::{Gateway, message},
    http1::{self, EventSource},
    process::serve,
    reader::{BY_GATEWAY, FEW_CASES},
};

const STREAMS: &str = "stream_events_streams";

/// Not at the next keep-alive: that is further away than the test waits.
#[test]
fn a_fin_ends_its_stream_at_once() {
    let gateway = Gateway::dev(&[("keep-alive", "10 min")]);
    let mut closed = http1::connect(gateway.address);
    http1::write_head(&mut closed, "GET", "/events", &[]);
    let mut half_closed = http1::connect(gateway.address);
    http1::write_head(&mut half_closed, "GET", "/events", &[]);
    let stays = gateway.events("");
    gateway.until_metric(STREAMS, 3.0);
    drop(closed);
    gateway.until_metric(STREAMS, 2.0);
    half_closed.shutdown(Shutdown::Write).unwrap();
    gateway.until_metric(STREAMS, 1.0);
    drop(stays);
    gateway.until_metric(STREAMS, 0.0);
    gateway.until_metric("stream_events_streams_ended_total{reason=\"client\"}", 3.0);
}

/// A reader that takes nothing is ended after `--write_timeout`, and the others get everything meanwhile.
#[test]
fn a_stalled_socket_is_ended_and_slows_nobody() {
    for case in FEW_CASES {
        let gateway = case.gateway(&[("write-timeout", "1 s"), ("keep-alive", "10 min")]);
        let stalled = case.open_narrow(&gateway, "");
        let mut healthy = case.open(&gateway, "");
        gateway.until_metric(STREAMS, 2.0);
        let large = "x".repeat(256 << 10);
        let start = Instant::now();
        for n in 0..30 {
            gateway.push("orders", &message(&large, &n.to_string()));
            assert_eq!(healthy.next().data.len(), large.len());
        }
        gateway.until_metric(STREAMS, 1.0);
        assert!(Duration::from_millis(900) < start.elapsed(), "it had its time");
        gateway.publish("orders", "still there");
        assert_eq!(healthy.next().data, "still there");
        drop(stalled);
    }
}

/// What little a stalled reader did not take can all be in the kernel. Then nothing in the gateway
/// waits for the socket, and it is the kernel that gives up.
#[test]
fn a_socket_that_is_stalled_in_the_kernel_is_ended_too() {
    let gateway = Gateway::dev(&[("write-timeout", "1 s"), ("keep-alive", "10 min")]);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(&gateway.address.into()).unwrap();
    let mut stalled: TcpStream = socket.into();
    http1::write_head(&mut stalled, "GET", "/events", &[]);
    gateway.until_metric(STREAMS, 1.0);
    gateway.publish("orders", "x".repeat(20_000));
    gateway.until_metric(STREAMS, 0.0);
}

/// A reader that takes little, but something, is slow and not stalled.
#[test]
fn a_slow_reader_is_not_a_stalled_one() {
    let gateway = Gateway::dev(&[("write-timeout", "2 s"), ("keep-alive", "10 min")]);
    for n in 0..16 {
        gateway.push("orders", &message("x".repeat(1 << 20), &n.to_string()));
    }
    let mut slow = http1::connect(gateway.address);
    http1::write_head(&mut slow, "GET", "/events?since=1h", &[]);
    let mut part = vec![0; 256 * 1024];
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(6) {
        slow.read_exact(&mut part).unwrap();
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(gateway.metric(STREAMS) > 0.5, "it was cut");
}

fn exited_well(status: ExitStatus) {
    assert_eq!(status.code(), Some(0), "{status}");
}

/// The drain, block by block: unready at once; readers are served for the delay; then streams end
/// spread over the drain, each with its own `retry:`; the process exits 0.
#[test]
fn sigterm_drains() {
    let (mut process, address) = serve(&["--drain-delay", "3 s", "--drain-timeout", "3 s"]);
    let get = |path: &str| http1::request(address, "GET", path, &[], b"");
    let open = |n: usize| BY_GATEWAY[0][n % BY_GATEWAY[0].len()].open_at(address, "");
    let mut streams: Vec<_> = (0..40).map(open).collect();
    assert_eq!(get("/readyz").status, 200);
    process.signal(Signal::TERM);
    let start = Instant::now();
    eventually("unready", || (get("/readyz").status == 503).then_some(()));
    assert!(start.elapsed() < Duration::from_secs(2), "before the delay is over");
    // During the delay readers are served, and pushes stay with Pub/Sub.
    streams.push(open(40));
    let body = br#"{"message":{"data":"eA=="}}"#;
    let refused = http1::request(address, "POST", "/push/orders", &[], body);
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());

    // After it, new readers are sent away with a reason.
    let block = eventually("new readers are sent away", || {
        let mut late = EventSource::connect(address, "/events", &[("Last-Event-ID", "17-4")]);
        late.next_block().filter(|block| block.contains("stream-end"))
    });
    assert!(block.contains("id: 17-4\nevent: stream-end\ndata: {\"reason\":\"draining\"}\n\n"));

    let readers: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            std::thread::spawn(move || {
                let (reason, retry) = stream.end();
                assert_eq!(reason, "draining");
                (start.elapsed(), retry)
            })
        })
        .collect();
    let ends: Vec<_> = readers.into_iter().map(|thread| thread.join().unwrap()).collect();
    let (status, _) = process.wait();
    assert!(start.elapsed() < Duration::from_secs(3 + 3 + 1), "{:?}", start.elapsed());
    exited_well(status);
    // Spread: not all within a second, with a `retry:` of each one's own.
    let spread = |of: &dyn Fn(&(Duration, u64)) -> u128| {
        let values: std::collections::BTreeSet<_> = ends.iter().map(of).collect();
        (values.len(), values.last().unwrap() - values.first().unwrap())
    };
    assert!(500 < spread(&|end| end.0.as_millis()).1, "{ends:?}");
    assert!(10 < spread(&|end| u128::from(end.1)).0, "{ends:?}");
}

/// An in-memory gateway is replaced by another, as in a rolling update that overlaps: from SIGTERM on
/// new readers go to the new one, while the load balancer still sends pushes to both. No push is
/// acked that the readers of the new one would miss.
#[test]
fn a_replaced_gateway_acks_nothing_that_new_readers_miss() {
    let (mut old, old_address) = serve(&["--drain-delay", "2 s", "--drain-timeout", "1 s"]);
    let (_new, new_address) = serve(&[]);
    let push = |address, n: usize| {
        let message = message(n.to_string(), &format!("message-{n}"));
        let body = serde_json::json!({ "message": message });
        http1::request(address, "POST", "/push/orders", &[], body.to_string().as_bytes()).status
    };
    assert_eq!(push(old_address, 0), 204);
    let mut stays = EventSource::open(old_address, "/events?since=1h", &[]);
    assert_eq!(stays.next().data, "0");
    old.signal(Signal::TERM);
    eventually("unready", || {
        (http1::request(old_address, "GET", "/readyz", &[], b"").status == 503).then_some(())
    });
    let mut reader = EventSource::open(new_address, "/events", &[]);
    for n in 1..=20 {
        // As Pub/Sub does: a message that is not acked is pushed again, perhaps to the other one.
        let acked = [old_address, new_address].into_iter().any(|address| push(address, n) == 204);
        assert!(acked, "message {n}");
        assert_eq!(reader.next().data, n.to_string());
    }
    // The reader of the old one is told on the new one that it may have missed something.
    let id = stays.parser.last_event_id.clone();
    let mut resumed = EventSource::connect(new_address, "/events", &[("Last-Event-ID", &id)]);
    assert!(resumed.next_block().unwrap().contains("event: stream-open"));
    assert!(resumed.next_block().unwrap().contains("\"reason\":\"restart\""));
    exited_well(old.wait().0);
}

/// Reads to the end: when it came, and the `retry:` it came with.
fn end_of(mut stream: EventSource, start: Instant) -> (Duration, u64) {
    let mut last = String::new();
    while let Some(block) = stream.next_block() {
        last = block;
    }
    assert!(last.ends_with("event: stream-end\ndata: {\"reason\":\"draining\"}\n\n"), "{last:?}");
    let retry = last.strip_prefix("retry: ").unwrap().split('\n').next().unwrap();
    (start.elapsed(), retry.parse().unwrap())
}

/// With a thousand streams, half of them over HTTP/2, whose peers get no GOAWAY from actix; some
/// of them read nothing, and one connection is in the middle of a request.
#[test]
fn a_thousand_streams_do_not_hold_up_the_exit() {
    let (mut process, address) = serve(&["--drain-timeout", "2 s", "--keep-alive", "10 min"]);
    let over_http1: Vec<_> = (0..500).map(|_| EventSource::open(address, "/events", &[])).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let over_http2 = runtime.block_on(async {
        let mut connections = Vec::new();
        for _ in 0..10 {
            connections.push(crate::net::http2::open_streams(address, 50).await);
        }
        connections
    });
    let mut unfinished = http1::connect(address);
    unfinished
        .write_all(b"POST /push/orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        .unwrap();
    process.signal(Signal::TERM);
    let start = Instant::now();
    let ends = std::thread::spawn(move || {
        over_http1.into_iter().map(|stream| end_of(stream, start)).collect::<Vec<_>>()
    });
    let (status, _) = process.wait();
    let took = start.elapsed();
    exited_well(status);
    assert!(took < Duration::from_secs(2 + 1), "{took:?}");
    assert_eq!(ends.join().unwrap().len(), 500);
    drop(over_http2);
    drop(runtime);
}

/// Nobody is there to wait for.
#[test]
fn an_empty_gateway_exits_without_waiting_for_the_drain() {
    let (mut process, _) = serve(&["--drain-timeout", "20 s"]);
    process.signal(Signal::TERM);
    let (status, took) = process.wait();
    exited_well(status);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// A push that is being answered when the gateway leaves is answered.
#[test]
fn a_push_in_the_middle_is_answered() {
    let (mut process, address) = serve(&["--drain-timeout", "5 s"]);
    let mut socket = http1::connect(address);
    let body = br#"{"message":{"data":"eA=="}}"#;
    let length = body.len().to_string();
    http1::write_head(&mut socket, "POST", "/push/orders", &[("Content-Length", &length)]);
    socket.write_all(&body[..5]).unwrap();
    // It has begun to read: another request on another connection was answered after it came.
    assert_eq!(http1::request(address, "GET", "/healthz", &[], b"").status, 200);
    process.signal(Signal::TERM);
    eventually("draining", || {
        let answer = http1::request(address, "POST", "/push/orders", &[], body);
        (answer.status == 503).then_some(())
    });
    socket.write_all(&body[5..]).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(http1::read_answer(socket, "POST").status, 503, "an answer, and no ack");
    exited_well(process.wait().0);
}
