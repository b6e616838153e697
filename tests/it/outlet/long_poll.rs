//! Long polls over HTTP/1.1 whose clients leave, end their side, or send the next request.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use serde_json::json;

use super::poll::{next, poll};
use crate::support::{
    gateway::Gateway,
    http1::{self, write_head},
};

const STREAMS: &str = "stream_events_streams";
/// Far less than the polls of these tests wait.
const AT_ONCE: Duration = Duration::from_secs(15);

/// Sends a poll that waits for a minute, and returns its connection once it waits.
fn wait(gateway: &Gateway) -> TcpStream {
    let mut socket = http1::connect(gateway.address);
    write_head(&mut socket, "GET", "/events?mode=poll&wait=60s&topic=orders", &[]);
    gateway.until_metric(STREAMS, 1.0);
    socket
}

#[test]
fn a_poll_ends_when_its_client_leaves() {
    for (name, gateway) in Gateway::plain_and_tls(&[]) {
        eprintln!("{name}");
        for behind in ["", "GET /events?mode=poll&wait=60s HTTP/1.1\r\n"] {
            let mut socket = wait(&gateway);
            socket.write_all(behind.as_bytes()).unwrap();
            let start = Instant::now();
            drop(socket);
            gateway.until_metric(STREAMS, 0.0);
            assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        }
        gateway.until_metric("stream_events_streams_ended_total{reason=\"poll\"}", 2.0);
    }
}

/// As with `nc -N`: the gateway cannot know that this client still reads, and answers at once.
#[test]
fn a_client_that_has_ended_its_side_is_answered_at_once() {
    let gateway = Gateway::dev(&[]);
    let begin = poll(&gateway, "&limit=0");
    let socket = wait(&gateway);
    let start = Instant::now();
    socket.shutdown(Shutdown::Write).unwrap();
    let answer = http1::read_answer(socket, "GET");
    assert!(start.elapsed() < AT_ONCE);
    let page = json!({ "events": [], "next": next(&begin), "gap": null, "more": false });
    assert_eq!((answer.status, answer.json()), (200, page));
}

/// Requests behind a poll that waits are answered after it, also those that are longer than what the
/// gateway keeps meanwhile.
#[test]
fn requests_behind_a_poll_that_waits_are_answered_after_it() {
    for (name, gateway) in Gateway::plain_and_tls(&[]) {
        eprintln!("{name}");
        for length in [10, 100_000] {
            let mut socket = wait(&gateway);
            let body = json!({ "message": { "data": "eA==", "messageId": length.to_string(),
                "attributes": { "a": "x".repeat(length) } }, "subscription": "s" });
            let body = body.to_string();
            let headers = [("Content-Length", &*body.len().to_string())];
            write_head(&mut socket, "POST", "/push/parcels", &headers);
            socket.write_all(body.as_bytes()).unwrap();
            write_head(&mut socket, "GET", "/healthz", &[("Connection", "close")]);
            gateway.publish("orders", format!("event {length}"));
            let mut text = String::new();
            socket.read_to_string(&mut text).unwrap();
            let statuses: Vec<_> = text.split("HTTP/1.1 ").skip(1).map(|it| &it[..3]).collect();
            assert_eq!(statuses, ["200", "204", "200"], "{text}");
            assert!(text.contains(&format!("event {length}")), "{text}");
        }
    }
}
