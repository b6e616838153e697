//! Readers that are slow, peers that are slow on purpose, and what they cost.

use std::{
    collections::HashSet,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::ClientConfig;
use serde_json::Value;

use crate::support::{
    eventually,
    gateway::{Gateway, message},
    http1,
    reader::{BY_GATEWAY, CASES, Case, FEW_CASES, Format, Reader, tls_stream},
};

const STREAMS: &str = "stream_events_streams";

/// A budget that all slow readers share keeps an event that a reader is in the middle of, though its
/// ring does not hold it any more.
#[test]
fn a_slow_reader_receives_the_large_event_that_it_has_begun() {
    for case in CASES {
        let gateway = case.gateway(&[("ring-events", "1"), ("keep-alive", "10 min")]);
        let large = "x".repeat(4 << 20);
        let mut slow = in_the_middle_of(&large, case, &gateway);
        gateway.publish("orders", "next");
        assert!(slow.next().data == large);
        assert_eq!(slow.next().data, "next");
    }
}

/// An event of 70 MB (each line end takes a field) is more than that budget: the connection is cut,
/// and the reader gets a gap when it comes back.
#[test]
fn a_slow_reader_of_a_large_event_pins_a_bounded_amount() {
    for case in [CASES[0], CASES[2], CASES[4]] {
        let gateway = case.gateway(&[("ring-events", "1"), ("keep-alive", "10 min")]);
        let begin = case.open(&gateway, "").last_event_id().to_owned();
        gateway.until_metric(STREAMS, 0.0);
        let mut slow = in_the_middle_of(&"\n".repeat(10_000_000), case, &gateway);
        gateway.publish("orders", "next");
        assert_eq!(slow.next_raw().unwrap().event, "stream-open");
        // The cut comes in the middle of the body, which clients of HTTP notice.
        assert_eq!(slow.next_raw(), None);
        drop(slow);
        gateway.until_metric(STREAMS, 0.0);
        gateway.until_metric("stream_events_streams_ended_total{reason=\"fell-behind\"}", 1.0);
        let mut resumed = case.resume(&gateway, "", &begin);
        assert_eq!(resumed.next_raw().unwrap().event, "stream-gap");
        assert_eq!(resumed.next().data, "next");
    }
}

/// Opens a stream, publishes an event, and waits until the reader was sent a part of it.
fn in_the_middle_of(large: &str, case: Case, gateway: &Gateway) -> Reader {
    let slow = case.open_narrow(gateway, "");
    gateway.until_metric(STREAMS, 1.0);
    gateway.publish("orders", large);
    until_in_the_middle(&slow.wire);
    slow
}

fn until_in_the_middle(wire: &TcpStream) {
    eventually("the reader is in the middle of it", || {
        (1_500 < wire.peek(&mut [0; 2_000]).unwrap_or(0)).then_some(())
    });
}

/// One reader uses all memory for large events, so that the gateway cannot encode the large events
/// of other readers. The gateway cuts the connections of these readers. All other streams go on.
#[test]
fn only_readers_whose_event_has_no_memory_are_cut() {
    let gateway = Gateway::dev(&[("workers", "1"), ("keep-alive", "10 min")]);
    let websocket = CASES[6];
    let _first = in_the_middle_of(&zeros(), websocket, &gateway);
    let mut other = gateway.events("?topic=other");
    for case in BY_GATEWAY[0] {
        // The default format of server-sent events needs no other encoding than that of the ring.
        let format = if case.format == Format::Sse { "&format=message" } else { "" };
        let mut reader = case.open(&gateway, &format!("?topic=large{format}"));
        // The reader has read all events before the large one is published.
        for n in 0..2 {
            gateway.publish("large", n.to_string());
            assert!(reader.next().data.contains(&n.to_string()));
        }
        gateway.publish("large", "x".repeat(1_000_000));
        assert_eq!(reader.next_raw(), None, "{case:?}");
        let text = format!("{case:?}");
        gateway.publish("other", &text);
        assert_eq!(other.next().data, text);
    }
}

/// Returns the data of an event that has 69 MB as JSON: more than the memory for large events.
fn zeros() -> String {
    "\0".repeat(11_500_000)
}

/// While one reader uses the memory for large events, a WebSocket is closed with a code when its
/// event cannot be sent: before the first frame, or between two frames.
#[test]
fn a_websocket_that_falls_behind_in_a_large_event_is_closed_with_1013() {
    for case in CASES.into_iter().filter(|case| case.format == Format::WebSocket) {
        let gateway = case.gateway(&[("ring-events", "1"), ("keep-alive", "10 min")]);
        let _first = in_the_middle_of(&zeros(), case, &gateway);
        // The event of `large` is too large to be encoded again for each part. The event of `small`
        // leaves its ring while the gateway sends it.
        for (topic, bytes) in [("large", 1_000_000), ("small", 250_000)] {
            let query = format!("?topic={topic}");
            let (mut socket, wire) = case.open_narrow_websocket(&gateway, &query);
            assert_eq!(socket.record()["type"], "open");
            gateway.publish(topic, "x".repeat(bytes));
            if topic == "small" {
                until_in_the_middle(&wire);
                gateway.publish(topic, "next");
            }
            assert_eq!(socket.end(), (None, Some(1013)), "{topic}");
        }
        gateway.until_metric("stream_events_streams_ended_total{reason=\"fell-behind\"}", 2.0);
        gateway.until_metric("stream_events_websockets_closed_total{code=\"1013\"}", 2.0);
    }
}

/// A refusal may come before the body was read, and what still comes is no next head.
#[test]
fn a_refused_body_ends_its_connection() {
    let gateway = Gateway::dev(&[]);
    let mut socket = http1::connect(gateway.address);
    let headers = [("Transfer-Encoding", "chunked"), ("Content-Encoding", "gzip")];
    http1::write_head(&mut socket, "POST", "/push/orders", &headers);
    socket.write_all(b"1\r\nx\r\n").unwrap();
    let answer = http1::read_answer(socket, "POST");
    assert_eq!((answer.status, answer.header("connection")), (415, Some("close")));
}

/// What a slow reader had read and not yet given out may go, too. It gets what is left, in order, and is
/// told of all the rest.
#[test]
fn a_slow_reader_is_told_of_what_left_the_ring_before_its_turn() {
    FEW_CASES.into_iter().for_each(read_slowly);
}

fn read_slowly(case: Case) {
    let gateway = case.gateway(&[("ring-events", "100"), ("keep-alive", "10 min")]);
    let mut source = case.open_narrow(&gateway, "");
    let mut live = case.open(&gateway, "");
    assert_eq!(source.next_raw().unwrap().event, "stream-open");
    let mut published = Vec::new();
    let (mut seen, mut gaps) = (Vec::new(), Vec::new());
    let mut read = |source: &mut Reader| {
        let event = source.next_raw().unwrap();
        if event.event == "stream-gap" {
            gaps.push(serde_json::from_str::<Value>(&event.data).unwrap());
        } else {
            seen.push(event.id);
        }
        seen.last().cloned()
    };
    // It reads a third of what comes, so that it is always in the middle of something.
    for round in 0..30 {
        for n in 0..30 {
            gateway.publish("orders", format!("{round} {n} {}", "x".repeat(1_000)));
            published.push(live.next().id);
            if 5 < round && n % 3 == 0 {
                read(&mut source);
            }
        }
    }
    while read(&mut source).as_ref() != published.last() {}
    assert!(!gaps.is_empty(), "the reader was not slow enough for this test");
    let place = |id: &str| published.iter().position(|known| known == id);
    let places: Vec<_> = seen.iter().map(|id| place(id).unwrap()).collect();
    assert!(places.is_sorted_by(|a, b| a < b), "{places:?}");
    let got: HashSet<_> = places.into_iter().collect();
    for at in (0..published.len()).filter(|at| !got.contains(at)) {
        let told = gaps.iter().any(|gap| {
            let after = place(gap["after"].as_str().unwrap()).map_or(0, |after| after + 1);
            (after..=place(gap["upto"].as_str().unwrap()).unwrap()).contains(&at)
        });
        assert!(told, "event {at} was lost in silence");
    }
}

/// All that was acked before the gateway left is given to the readers that are there to take it.
#[test]
fn leaving_loses_nothing_that_was_acked() {
    for case in CASES {
        let mut gateway = case.gateway(&[("ring-events", "1000000")]);
        let mut source = case.open(&gateway, "");
        let (address, tls) = (gateway.address, gateway.tls.clone());
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let tls = tls.clone();
                std::thread::spawn(move || {
                    let mut acked = Vec::new();
                    loop {
                        let data = format!("{writer}-{}", acked.len());
                        let body = serde_json::json!({ "message": message(&data, &data) });
                        if !push_until_closed(address, tls.as_ref(), body.to_string().as_bytes()) {
                            return acked;
                        }
                        acked.push(data);
                    }
                })
            })
            .collect();
        let reader = std::thread::spawn(move || {
            let mut seen = HashSet::new();
            while let Some(event) = source.next_raw() {
                seen.insert(event.data);
            }
            seen
        });
        gateway.until_metric("stream_events_streams", 1.0);
        let stored = || gateway.metric("stream_events_pushes_total{outcome=\"stored\"}");
        eventually("some pushes are acked", || (30.0 <= stored()).then_some(()));
        gateway.stop();
        let seen = reader.join().unwrap();
        let acked: Vec<_> = writers.into_iter().flat_map(|w| w.join().unwrap()).collect();
        assert!(!acked.is_empty());
        let lost: Vec<_> = acked.iter().filter(|data| !seen.contains(*data)).collect();
        assert!(lost.is_empty(), "{} of {} are lost", lost.len(), acked.len());
    }
}

/// Whether a push was acked; not, also when nobody answers any more.
fn push_until_closed(address: SocketAddr, tls: Option<&Arc<ClientConfig>>, body: &[u8]) -> bool {
    let Ok(socket) = TcpStream::connect(address) else { return false };
    let head = format!(
        "POST /push/orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let request = [head.as_bytes(), body].concat();
    match tls {
        Some(tls) => is_acked(tls_stream(socket, tls), &request),
        None => is_acked(socket, &request),
    }
}

fn is_acked(mut socket: impl Read + Write, request: &[u8]) -> bool {
    let mut answer = Vec::new();
    let answered = socket.write_all(request).and_then(|()| socket.read_to_end(&mut answer));
    answered.is_ok() && answer.starts_with(b"HTTP/1.1 204")
}

/// A peer that is slow with a head holds its connection for seconds: with the first, with a later one on
/// the same connection. One that is slow with a body has a minute.
#[test]
fn a_peer_that_takes_all_day_to_say_what_it_wants_is_let_go() {
    let gateway = Gateway::dev(&[]);
    let begin = |bytes: &[u8]| {
        let mut socket = http1::connect(gateway.address);
        socket.write_all(bytes).unwrap();
        socket
    };
    let first = begin(b"GET /events HTTP/1.1\r\nHost: local");
    let later = begin(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    // An empty line between two requests is none.
    let mut idle = begin(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut body =
        begin(b"POST /push/orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 27\r\n\r\n{");
    let mut later = later;
    let mut answer = [0; 12];
    later.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    later.write_all(b"GET /events HT").unwrap();
    let start = Instant::now();
    idle.read_exact(&mut answer).unwrap();
    idle.write_all(b"\r\n").unwrap();
    for mut socket in [first, later] {
        socket.read_to_end(&mut Vec::new()).ok();
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    assert!(Duration::from_secs(4) < start.elapsed());
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    idle.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200").count(), 1, "{text}");
    body.write_all(br#""message":{"data":"eA=="}}"#).unwrap();
    body.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 204");
}
