//! Requests that are rare or wrong, without TLS and over TLS: the status, whether the connection stays
//! open, and what the next request on it gets.

use std::{
    io::{Read as _, Write as _},
    time::Duration,
};

use stream_events::config::Mode;

use crate::support::{
    eventually,
    gateway::Gateway,
    http1::{self, CLOSED},
};

const NEXT: &str = "GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n";
const STREAMS: &str = "stream_events_streams";
/// Headers of an upgrade to WebSocket.
const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

/// Sends bytes, and reads until the gateway closes the connection or is silent.
fn exchange(gateway: &Gateway, request: &str) -> String {
    http1::exchange_for(gateway.address, request.as_bytes(), Duration::from_millis(700))
}

fn head(line: &str, fields: &str) -> String {
    format!("{line}\r\nHost: localhost\r\n{fields}\r\n")
}

/// Each request, its status, and whether the next request on the connection is answered.
fn requests() -> Vec<(String, u16, bool)> {
    let get = "GET /healthz HTTP/1.1";
    let push = "POST /push/orders HTTP/1.1";
    let body = r#"{"message":{"data":"eA=="}}"#;
    let length = format!("Content-Length: {}\r\n", body.len());
    vec![
        (head(get, ""), 200, true),
        (head("GET /healthz HTTP/1.0", ""), 200, false),
        ("GET /healthz HTTP/1.0\r\n\r\n".to_owned(), 200, false),
        (head("GET /healthz HTTP/1.0", "Connection: keep-alive\r\n"), 200, true),
        (head("HEAD /healthz HTTP/1.0", ""), 200, false),
        (head("POST /push/orders HTTP/1.0", &length) + body, 204, false),
        (head("GET /healthz HTTP/1.0", "Expect: anything\r\n"), 200, false),
        (head("GET /healthz HTTP/1.0", WEBSOCKET), 200, false),
        (head(get, WEBSOCKET), 200, true),
        (head("HEAD /healthz HTTP/1.1", WEBSOCKET), 200, true),
        (head(get, "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"), 200, true),
        (head(get, "Connection: close, Upgrade\r\nUpgrade: websocket\r\n"), 200, false),
        (head(push, &format!("{WEBSOCKET}{length}")) + body, 204, true),
        (
            head(push, &format!("{WEBSOCKET}Transfer-Encoding: chunked\r\n"))
                + &format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
            204,
            true,
        ),
        (head(get, "Content-Length: 2\r\n") + "{}", 200, true),
        (head(get, "Content-Length: 200\r\n") + "{}", 200, false),
        (head("CONNECT a:80 HTTP/1.1", ""), 404, false),
        (head(push, &format!("Expect: 100-continue\r\n{length}")) + body, 204, true),
        (head(get, "Expect: 100-continue\r\n"), 200, true),
        (head(push, &format!("Expect: 200-ok\r\n{length}")) + body, 417, false),
        (head(get, "Expect: 100-continue\r\nExpect: x\r\n"), 417, false),
        (head("GET /healthz HTTP/1.2", ""), 505, false),
        (head("PRI * HTTP/2.0", ""), 505, false),
        (head("GET /healthz HTTP/3.0", ""), 505, false),
        (head("GET /healthz", ""), 400, false),
        (head("garbage", ""), 400, false),
        ("GET /healthz HTTP/1.1\r\n\r\n".to_owned(), 400, false),
        (head(get, "").replace("\r\n", "\n"), 400, false),
        (head(get, "X: y\n"), 400, false),
        (head(get, "X: y\r\n z\r\n"), 400, false),
        (head(get, "X : y\r\n"), 400, false),
    ]
}

#[test]
fn each_odd_request_gets_its_answer() {
    let open = [("push-auth", "none"), ("read-auth", "anonymous")];
    let tls = Gateway::over_tls(Mode::Serve, &open);
    for (name, gateway) in [("plain", Gateway::serve(&open)), ("TLS", tls)] {
        std::thread::scope(|scope| {
            for (request, status, is_kept) in requests() {
                let gateway = &gateway;
                scope.spawn(move || {
                    let text = exchange(gateway, &format!("{request}{NEXT}"));
                    let what = format!("{name}: {request:?}: {text}");
                    let is_answer =
                        |at: &usize| text.as_bytes().get(at + 9).is_some_and(u8::is_ascii_digit);
                    let all = text.match_indices("HTTP/1.").map(|(at, _)| at);
                    let answers: Vec<_> = all.filter(is_answer).collect();
                    assert_eq!(answers.len(), 1 + usize::from(is_kept), "{what}");
                    let (first, second) =
                        text.split_at(answers.get(1).map_or(text.len(), |at| *at));
                    assert_eq!(first.get(9..12), Some(&*status.to_string()), "{what}");
                    assert_eq!(second.contains(" 404 "), is_kept, "{what}");
                    assert_eq!(text.ends_with(CLOSED), !is_kept, "{what}");
                    if !is_kept && first.starts_with("HTTP/1.1") {
                        assert!(first.contains("connection: close\r\n"), "{what}");
                    }
                    if 400 < status && status != 404 {
                        assert!(first.contains("application/problem+json"), "{what}");
                    }
                });
            }
        });
    }
}

/// The body is sent after `100 Continue`, and not at all after a refusal.
#[test]
fn a_body_is_sent_when_the_gateway_asks_for_it() {
    let data = "x".repeat(3_000_000);
    let head = |fields: &str| {
        let length = data.len();
        format!(
            "POST /push/orders?payload=raw HTTP/1.1\r\nHost: localhost\r\nExpect: 100-Continue\r\n\
             Content-Length: {length}\r\n{fields}\r\n"
        )
    };
    for (name, gateway) in Gateway::plain_and_tls(&[]) {
        let mut source = gateway.events("");
        let mut socket = http1::connect(gateway.address);
        for _ in 0..2 {
            socket.write_all(head("").as_bytes()).unwrap();
            let mut first = [0; 25];
            socket.read_exact(&mut first).unwrap();
            assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n", "{name}");
            socket.write_all(data.as_bytes()).unwrap();
            let mut reader = std::io::BufReader::new(socket.try_clone().unwrap());
            assert_eq!(http1::read_head(&mut reader).unwrap().0, 204, "{name}");
            assert!(source.next().data == data, "{name}");
        }
        let refused = exchange(&gateway, &head("Content-Encoding: gzip\r\n"));
        assert!(refused.starts_with("HTTP/1.1 415 "), "{name}: {refused}");
        assert!(refused.ends_with(CLOSED) && !refused.contains(" 100 "), "{name}: {refused}");
    }
}

/// Streams of HTTP/1.0 have no chunks. They end with the connection.
#[test]
fn a_stream_over_http_1_0_ends_with_its_connection() {
    let line = "GET /events HTTP/1.0\r\nHost: localhost\r\n";
    for (name, gateway) in Gateway::plain_and_tls(&[("stream-age-max", "1 s")]) {
        for fields in ["", "Connection: keep-alive\r\n", WEBSOCKET] {
            let mut socket = http1::connect(gateway.address);
            socket.write_all(format!("{line}{fields}\r\n").as_bytes()).unwrap();
            gateway.until_metric(STREAMS, 1.0);
            gateway.publish("orders", "hello");
            let mut text = String::new();
            socket.read_to_string(&mut text).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.0 200"), "{name}: {text}");
            assert!(!head.contains("transfer-encoding") && !head.contains("keep-alive"), "{text}");
            assert!(body.starts_with("retry: "), "{name}: {text}");
            assert!(body.contains("data: hello\n") && body.contains("max-age"), "{name}: {text}");
        }
    }
}

/// What comes with the request of a stream or behind it waits for the end of the stream.
#[test]
fn a_stream_keeps_the_bytes_behind_its_request() {
    let events = |fields: &str| head("GET /events HTTP/1.1", fields);
    let requests = [
        events("") + NEXT,
        events("Content-Length: 4\r\n") + "body" + NEXT,
        events("Transfer-Encoding: chunked\r\n") + "4\r\nbody\r\n0\r\n\r\n" + NEXT,
        events(WEBSOCKET) + NEXT,
        events("") + &NEXT.repeat(100),
    ];
    for (name, gateway) in Gateway::plain_and_tls(&[("stream-age-max", "1 s")]) {
        for request in &requests {
            let mut socket = http1::connect(gateway.address);
            socket.write_all(request.as_bytes()).unwrap();
            gateway.until_metric(STREAMS, 1.0);
            gateway.publish("orders", "hello");
            let text = http1::read_on(socket, Duration::from_millis(1_500));
            assert!(text.contains("data: hello\n"), "{name}: {request:?}: {text}");
            let answers = request.matches(" /nowhere ").count();
            assert_eq!(
                text.matches("HTTP/1.1 404").count(),
                answers,
                "{name}: {request:?}: {text}"
            );
        }
    }
}

/// The bytes behind the request of a stream are limited, where they are kept at all.
#[test]
fn a_stream_with_much_behind_its_request_is_closed() {
    for (name, gateway) in Gateway::plain_and_tls(&[("keep-alive", "10 min")]) {
        let mut socket = http1::connect(gateway.address);
        let request = head("GET /events HTTP/1.1", "") + &NEXT.repeat(1_000);
        socket.write_all(request.as_bytes()).ok();
        let met = "stream_events_limits_met_total{limit=\"head-bytes-max\"}";
        eventually(&format!("{name}: the limit is met"), || {
            (0.0 < gateway.metric(met)).then_some(())
        });
        gateway.until_metric(STREAMS, 0.0);
    }
}
