//! Readers that are slow, peers that are slow on purpose, and what they cost.

use std::{
    collections::HashSet,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::support::{
    eventually,
    gateway::{Gateway, message},
    http1::{self, EventSource},
};

const STREAMS: &str = "stream_events_streams";

/// A connection whose receiver takes a few kilobytes and no more.
pub fn narrow(gateway: &Gateway) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(&gateway.address.into()).unwrap();
    let socket: TcpStream = socket.into();
    socket.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    socket
}

/// Rings own events, readers do not, but for a budget that all slow readers share: as long as it lasts,
/// a reader gets the event that it is in the middle of, though its ring has let go of it. This reader's
/// event of 70 MB (each line end takes a field) is more than all of that: its connection is cut, and it
/// is told when it comes back.
#[test]
fn a_slow_reader_of_a_large_event_pins_a_bounded_amount() {
    let gateway = Gateway::dev(&[("ring-events", "1"), ("keep-alive", "10 min")]);
    let begin = gateway.events("").last_event_id().to_owned();
    for (large, is_held) in [("x".repeat(8 << 20), true), ("\n".repeat(10_000_000), false)] {
        let mut slow = narrow(&gateway);
        http1::write_head(&mut slow, "GET", "/events", &[]);
        gateway.until_metric(STREAMS, 1.0);
        gateway.publish("orders", &large);
        eventually("the reader is in the middle of it", || {
            (1_500 < slow.peek(&mut [0; 2_000]).unwrap()).then_some(())
        });
        gateway.publish("orders", "next");
        let mut source = EventSource::from_socket(slow);
        assert_eq!(source.next_raw().unwrap().event, "stream-open");
        // A cut comes in the middle of a chunked body: whoever knows HTTP knows it for one.
        let event = source.next_raw();
        assert_eq!(event.is_some(), is_held);
        if let Some(event) = event {
            assert!(event.data == large);
            assert_eq!(source.next().data, "next");
        }
        drop(source);
        gateway.until_metric(STREAMS, 0.0);
    }
    gateway.until_metric("stream_events_streams_ended_total{reason=\"fell-behind\"}", 1.0);
    let mut resumed = gateway.resume("", &begin);
    assert_eq!(resumed.next_raw().unwrap().event, "stream-gap");
    assert_eq!(resumed.next().data, "next");
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
    let gateway = Gateway::dev(&[("ring-events", "100"), ("keep-alive", "10 min")]);
    let mut slow = narrow(&gateway);
    http1::write_head(&mut slow, "GET", "/events", &[("Accept", "text/event-stream")]);
    gateway.until_metric(STREAMS, 1.0);
    let mut live = gateway.events("");
    let mut source = EventSource::from_socket(slow);
    assert_eq!(source.next_raw().unwrap().event, "stream-open");
    let mut published = Vec::new();
    let (mut seen, mut gaps) = (Vec::new(), Vec::new());
    let mut read = |source: &mut EventSource| {
        let event = source.next_raw().unwrap();
        if event.event == "stream-gap" {
            gaps.push(serde_json::from_str::<Value>(&event.data).unwrap());
        } else {
            seen.push(event.id);
        }
        seen.last().cloned()
    };
    // It reads a third of what comes, so that it is always in the middle of something.
    for round in 0..40 {
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
    for _ in 0..5 {
        let mut gateway = Gateway::dev(&[("ring-events", "1000000")]);
        let mut source = gateway.events("");
        let address = gateway.address;
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                std::thread::spawn(move || {
                    let mut acked = Vec::new();
                    loop {
                        let data = format!("{writer}-{}", acked.len());
                        let body = serde_json::json!({ "message": message(&data, &data) });
                        if !push_until_closed(address, body.to_string().as_bytes()) {
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
        std::thread::sleep(Duration::from_millis(50));
        gateway.stop();
        let seen = reader.join().unwrap();
        let acked: Vec<_> = writers.into_iter().flat_map(|w| w.join().unwrap()).collect();
        assert!(!acked.is_empty());
        let lost: Vec<_> = acked.iter().filter(|data| !seen.contains(*data)).collect();
        assert!(lost.is_empty(), "{} of {} are lost", lost.len(), acked.len());
    }
}

/// Whether a push was acked; not, also when nobody answers any more.
fn push_until_closed(address: std::net::SocketAddr, body: &[u8]) -> bool {
    let Ok(mut socket) = TcpStream::connect(address) else { return false };
    let head = format!(
        "POST /push/orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut answer = Vec::new();
    let answered = socket
        .write_all(head.as_bytes())
        .and_then(|()| socket.write_all(body))
        .and_then(|()| socket.read_to_end(&mut answer));
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
