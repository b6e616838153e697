//! The limits that are met by what is no stream, or not yet one. (Those of streams: `outlet::tickets`.)

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::support::{
    PATIENCE,
    gateway::Gateway,
    http1::{self, EventSource},
    jwks::{ACCOUNT, AUDIENCE, KeyServer, claims, sign},
};

fn met(flag: &str) -> String {
    format!("stream_events_limits_met_total{{limit=\"{flag}\"}}")
}

/// A browser would give up on a 429, and comes back after a 200 that ends.
#[test]
fn who_asks_too_often_is_told_to_come_back() {
    let flags = [("requests-per-address", "2"), ("trusted-proxies", "1"), ("keep-alive", "1 s")];
    let gateway = Gateway::dev(&flags);
    let from = |address| [("X-Forwarded-For", address)];
    for _ in 0..2 {
        assert_eq!(gateway.get_head("/events", &from("1.1.1.1")).0, 200);
    }
    let (status, headers) = gateway.get_head("/events", &from("1.1.1.1"));
    assert_eq!(status, 429);
    assert!(headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("retry-after")));
    for path in ["/ticket", "/renew?stream=x"] {
        assert_eq!(gateway.post(path, &from("1.1.1.1"), b"").status, 429, "{path}");
    }
    let mut browser = EventSource::connect(gateway.address, "/events", &from("1.1.1.1"));
    assert_eq!(browser.status, 200);
    let end = browser.next_raw().unwrap();
    assert_eq!((&*end.event, &*end.data), ("stream-end", "{\"reason\":\"busy\"}"));
    assert!(browser.next_block().is_none());
    assert_eq!(gateway.get_head("/events", &from("2.2.2.2")).0, 200, "another address");
    gateway.until_metric(&met("requests-per-address"), 4.0);
    gateway.until_metric("stream_events_streams_refused_total{reason=\"rate\"}", 2.0);
    assert_eq!(gateway.get("/healthz", &from("1.1.1.1")).status, 200, "a probe is no reader");
}

/// A flood of wrong tokens does not reach the check of signatures, nor those whose token is known.
#[test]
fn pushes_that_fail_too_often_are_told_to_wait() {
    let keys = KeyServer::start();
    let gateway = Gateway::serve(&[
        ("push-auth", "oidc"),
        ("push-audience", AUDIENCE),
        ("push-service-account", ACCOUNT),
        ("push-jwks-url", &keys.url()),
        ("push-failures-per-address", "3"),
        ("read-auth", "anonymous"),
    ]);
    let push = |token: &str| {
        let envelope = br#"{"message":{"data":"eA=="}}"#;
        gateway.post("/push/orders", &[("Authorization", token)], envelope)
    };
    let good = format!("Bearer {}", sign(&claims()));
    assert_eq!(push(&good).status, 204);
    let statuses: Vec<_> = (0..20).map(|_| push("Bearer a.b.c").status).collect();
    assert_eq!(statuses[0], 401);
    assert!(statuses.contains(&429), "{statuses:?}");
    let waits = (0..20).map(|_| push("Bearer a.b.c")).find(|answer| answer.status == 429);
    assert!(waits.unwrap().header("retry-after").is_some());
    assert_eq!(push(&good).status, 204, "known to be good");
    assert!(2.0 <= gateway.metric(&met("push-failures-per-address")));
    assert!(2.0 <= gateway.metric("stream_events_pushes_total{outcome=\"too-often\"}"));
}

#[test]
fn heads_and_queries_have_a_size_and_pushes_a_larger_one() {
    let gateway = Gateway::dev(&[]);
    let long = "x".repeat(33 * 1024);
    let answer = gateway.get("/events", &[("Authorization", &long)]);
    assert_eq!(answer.status, 431, "{}", answer.text());
    assert_eq!(gateway.get(&format!("/events?topic={}", &long[..17_000]), &[]).status, 414);
    assert_eq!(gateway.get(&format!("/{long}"), &[]).status, 431, "at any path");
    gateway.until_metric(&met("head-bytes-max"), 2.0);
    gateway.until_metric(&met("query-bytes-max"), 1.0);
    let headers = [
        ("x-goog-pubsub-message-id", "1"),
        ("x-goog-pubsub-subscription-name", "projects/p/subscriptions/s"),
        ("x-goog-pubsub-attr-note", &long),
    ];
    assert_eq!(gateway.post("/push/orders", &headers, b"data").status, 204);
}

#[test]
fn a_reader_may_name_so_many_topics() {
    let gateway = Gateway::dev(&[("topics-per-stream", "2")]);
    assert_eq!(gateway.get("/events?topic=one,two,three", &[]).status, 400);
    gateway.until_metric(&met("topics-per-stream"), 1.0);
    assert_eq!(gateway.get_head("/events?topic=one,two", &[]).0, 200);
}

/// How long until a peer that sends these bytes, one each so often, is let go.
fn let_go(address: SocketAddr, bytes: &[u8], every: Duration) -> Duration {
    let mut socket = http1::connect(address);
    socket.set_read_timeout(Some(every)).unwrap();
    let start = Instant::now();
    let mut bytes = bytes.iter();
    loop {
        if let Some(byte) = bytes.next()
            && socket.write_all(&[*byte]).is_err()
        {
            return start.elapsed();
        }
        match socket.read(&mut [0; 512]) {
            Ok(0) => return start.elapsed(),
            Err(err) if err.kind() != std::io::ErrorKind::WouldBlock => return start.elapsed(),
            _ => assert!(start.elapsed() < PATIENCE, "never let go"),
        }
    }
}

#[test]
fn who_does_not_say_what_it_wants_is_let_go() {
    let gateway = Gateway::dev(&[("handshake-timeout", "300 ms"), ("header-timeout", "400 ms")]);
    let every = Duration::from_millis(20);
    assert!(Duration::from_millis(250) < let_go(gateway.address, b"", every));
    let_go(gateway.address, b"PRI * HT", every);
    gateway.until_metric(&met("handshake-timeout"), 2.0);
    let head = format!("GET /events HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(10_000));
    assert!(Duration::from_millis(350) < let_go(gateway.address, head.as_bytes(), every));
    gateway.until_metric(&met("header-timeout"), 1.0);
    // Nor is a second head waited for.
    let first = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut socket = http1::connect(gateway.address);
    socket.write_all(first).unwrap();
    let mut answer = [0; 1024];
    let read = socket.read(&mut answer).unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
    socket.write_all(b"GET /eve").unwrap();
    assert_eq!(socket.read(&mut answer).unwrap(), 0);
    gateway.until_metric(&met("header-timeout"), 2.0);
}

/// Over HTTP/2: one that says only how it begins, or begins a head and does not end it, on a
/// connection that has a stream.
#[tokio::test]
async fn an_http2_head_has_to_come_in() {
    let gateway = Gateway::dev(&[("header-timeout", "400 ms"), ("handshake-timeout", "5 s")]);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    // GET /events, as HPACK's static table has it and a literal; and the first bytes of another.
    let path = [&[0x04, 7][..], b"/events"].concat();
    let get = [&[0x82, 0x86, 0x41, 9][..], b"localhost", &path].concat();
    let frame = |flags, stream| {
        [&[0, 0, u8::try_from(get.len()).unwrap(), 1, flags, 0, 0, 0, stream][..], &get].concat()
    };
    let begin = |parts: &[&[u8]]| {
        let mut socket = http1::connect(gateway.address);
        socket.write_all(&parts.concat()).unwrap();
        socket
    };
    let open = begin(&[preface, &settings, &frame(5, 1)]);
    gateway.until_metric("stream_events_streams", 1.0);
    let slow = [
        begin(&[preface]),
        begin(&[preface, &settings, &frame(1, 1)]),
        begin(&[preface, &settings, &frame(5, 1)[..12]]),
        begin(&[preface, &settings, &frame(5, 1), &frame(1, 3)]),
    ];
    for mut socket in slow {
        assert!(socket.read_to_end(&mut Vec::new()).is_ok(), "it is let go");
    }
    gateway.until_metric(&met("header-timeout"), 4.0);
    gateway.until_metric("stream_events_streams", 1.0);
    drop(open);
}

#[test]
fn one_address_has_so_many_connections() {
    let gateway = Gateway::dev(&[("connections-per-address", "2")]);
    let kept: Vec<_> = (0..2).map(|_| gateway.events("")).collect();
    let mut third = http1::connect(gateway.address);
    http1::write_head(&mut third, "GET", "/healthz", &[]);
    assert!(matches!(third.read(&mut [0]), Ok(0) | Err(_)), "it is closed without an answer");
    gateway.until_metric(&met("connections-per-address"), 1.0);
    drop(kept);
    gateway.until_metric("stream_events_streams", 0.0);
    assert_eq!(gateway.get("/healthz", &[]).status, 200);
}

async fn connect(
    address: SocketAddr,
) -> (h2::client::SendRequest<Bytes>, h2::client::Connection<tokio::net::TcpStream, Bytes>) {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = tokio::net::TcpStream::from_std(socket).unwrap();
    h2::client::handshake(socket).await.unwrap()
}

#[tokio::test]
async fn an_http2_connection_has_so_many_streams() {
    let gateway = Gateway::dev(&[("http2-streams-max", "2")]);
    let (send, connection) = connect(gateway.address).await;
    let driver = tokio::spawn(connection);
    let ask = || async {
        let request = http::Request::get("http://localhost/events").body(()).unwrap();
        let (response, _) =
            send.clone().ready().await.unwrap().send_request(request, true).unwrap();
        response.await.map(http::Response::into_body)
    };
    let mut one = ask().await.unwrap();
    let _two = ask().await.unwrap();
    assert!(1.0 <= gateway.metric(&met("http2-streams-max")));
    // The server has said how many; the client keeps the third until there is room.
    let waiting = tokio::time::timeout(Duration::from_millis(200), ask()).await;
    assert!(waiting.is_err(), "a third beside two");
    gateway.until_metric("stream_events_streams", 2.0);
    assert!(one.data().await.is_some());
    drop(one);
    drop(tokio::time::timeout(PATIENCE, ask()).await.expect("room again").unwrap());
    driver.abort();
}

/// Over HTTP/2, whose heads are packed: a small one can unfold to a large one.
#[tokio::test]
async fn an_http2_head_has_a_size_when_unfolded() {
    let gateway = Gateway::dev(&[]);
    let (send, connection) = connect(gateway.address).await;
    let driver = tokio::spawn(connection);
    let ask = |copies: usize| {
        let mut request = http::Request::get("http://localhost/healthz");
        for _ in 0..copies {
            request = request.header("x-note", "x".repeat(3_000));
        }
        let send = send.clone();
        async move {
            let request = request.body(()).unwrap();
            let mut send = send.ready().await.unwrap();
            send.send_request(request, true).unwrap().0.await.map(|head| head.status().as_u16())
        }
    };
    assert_eq!(ask(12).await.unwrap(), 431, "more than 32 KiB");
    assert_eq!(ask(70).await.unwrap(), 431, "more than is unfolded");
    assert_eq!(ask(1).await.unwrap(), 200, "the connection goes on");
    // A flood of frames ends the connection, before or after the client has sent all of it.
    assert!(ask(1_000).await.is_err());
    driver.abort();
    assert_eq!(gateway.get("/healthz", &[]).status, 200);
}

/// A plain connection that has asked once and says nothing more.
fn idle(address: SocketAddr, request: &str) -> TcpStream {
    let mut socket = http1::connect(address);
    socket.write_all(request.as_bytes()).unwrap();
    assert_ne!(socket.read(&mut [0; 512]).unwrap(), 0);
    socket
}

/// Of each protocol so few that none alone has too many: together they have, and idle ones of each
/// are closed.
#[test]
fn connections_of_all_protocols_are_limited_together() {
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let healthz = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let old = "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let few = [("workers", "1"), ("subscribers-max", "1"), ("idle-connections-max", "16")];
    let gateway = Gateway::dev(&few);
    let kinds = [healthz, old, preface];
    let mut held: Vec<_> = kinds
        .into_iter()
        .flat_map(|request| (0..4).map(move |_| request))
        .map(|request| idle(gateway.address, request))
        .collect();
    let is_closed = |socket: &mut TcpStream| loop {
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        match socket.read(&mut [0; 512]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(err) => return err.kind() == std::io::ErrorKind::ConnectionReset,
        }
    };
    // They are closed until there are few again.
    let start = Instant::now();
    while held.iter_mut().filter_map(|socket| is_closed(socket).then_some(())).count() < 4 {
        assert!(start.elapsed() < PATIENCE, "idle ones are kept, although there are many");
    }
    assert!(0.0 < gateway.metric(&met("idle-connections-max")));
}

/// The number of all is that of streams and that of connections beside them, whatever they speak.
#[test]
fn a_worker_has_so_many_connections() {
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let few = [("workers", "1"), ("subscribers-max", "1"), ("idle-connections-max", "16")];
    let gateway = Gateway::dev(&few);
    let stream = gateway.events("");
    // They have begun a head, or send nothing yet, so none is idle.
    let begin = |bytes: &str| {
        let mut socket = http1::connect(gateway.address);
        socket.write_all(bytes.as_bytes()).unwrap();
        socket
    };
    let mut held: Vec<_> = (0..5).map(|_| begin("GET /healthz HTTP/1.1\r\n")).collect();
    held.extend((0..3).map(|_| begin("")));
    held.extend((0..8).map(|_| idle(gateway.address, preface)));
    let refused = || {
        let mut socket = begin("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        !matches!(socket.read(&mut [0; 512]), Ok(1..))
    };
    assert!(refused(), "one more than there may be");
    drop(held.pop());
    drop(stream);
    let start = Instant::now();
    while refused() {
        assert!(start.elapsed() < PATIENCE, "there is room again");
    }
}
