//! Streams that the reactor writes: to their readers they are the same as those over TLS, which are
//! bodies of responses.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::json;
use stream_events::config::Mode;

use crate::{
    auth::reader,
    support::{
        eventually,
        gateway::{Gateway, message},
        http1::{self, EventSource},
        jwks::{KeyServer, sign},
    },
};

const STREAMS: &str = "stream_events_streams";

/// Every response in chunks: sizes that are right, and the last chunk at its end.
fn chunks_are_whole(text: &str) {
    let responses = text.split("HTTP/1.1 ").filter_map(|response| response.split_once("\r\n\r\n"));
    for (head, mut body) in responses {
        let mut is_finished = !head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        while !is_finished {
            let (size, rest) = body.split_once("\r\n").expect(text);
            let size = usize::from_str_radix(size, 16).expect(text);
            let (chunk, rest) = rest.split_at_checked(size).expect(text);
            body = rest.strip_prefix("\r\n").expect(text);
            is_finished = chunk.is_empty();
        }
    }
}

/// What differs from one run to the next: times, ids, names, and how long to wait.
fn without_chance(text: &str) -> String {
    let shown = |line: &str| {
        let names = ["date: ", "retry-after: ", "retry: ", "id: "];
        let name = names.iter().find(|name| line.starts_with(**name));
        name.map_or_else(|| line.to_owned(), |name| format!("{name}…\n"))
    };
    // A chunk's size tells how long the ids in it are.
    let is_size = |line: &str| {
        let text = line.trim_end();
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let text = text.replace("HTTP/1.", "\n\nHTTP/1.");
    let mut lines: Vec<_> =
        text.split_inclusive('\n').filter(|line| !is_size(line)).map(shown).collect();
    // Fields of a head come in any order, and what is listed in them too.
    for head in lines.split_mut(|line| line.trim().is_empty()) {
        if head.iter().any(|line| line.starts_with("HTTP/1.")) {
            head.sort_unstable();
            for line in head {
                let mut words: Vec<_> = line.trim_end().split([' ', ',']).collect();
                words.sort_unstable();
                *line = words.join(" ") + "\n";
            }
        }
    }
    // Ids and names in data: of digits.
    let is_id =
        |word: &str| 20 < word.len() && word.bytes().all(|b| b"-abcdef0123456789".contains(&b));
    let text = lines.concat();
    let mut before = "";
    let words = text.split('"').map(|word| {
        let is_retry = std::mem::replace(&mut before, word) == "retry";
        if is_id(word) || is_retry { "…" } else { word }
    });
    words.collect::<Vec<_>>().join("\"")
}

/// Requests for lines of JSON.
fn requests_for_lines(token: &str) -> Vec<String> {
    let fields = format!("Authorization: {token}\r\nAccept: application/x-ndjson\r\n");
    let lines = [
        "GET /events?since=10m",
        "GET /events?since=10m&format=cloudevents",
        "GET /events?topic=secret",
        "HEAD /events",
    ];
    lines.iter().map(|line| format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).collect()
}

/// What clients ask for, and what they had better not.
fn requests(token: &str) -> Vec<String> {
    let with = |line: &str, fields: &str| format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let auth = format!("Authorization: {token}\r\n");
    let events = "Accept: text/event-stream\r\n";
    // What is pushed here is for none of the streams.
    vec![
        with("GET /events", &auth),
        with("GET /events?since=10m", &auth),
        with("GET /events?topic=orders", &format!("{auth}{events}")),
        with("GET /events?since=10m", &format!("{auth}Origin: https://app.example.com\r\n")),
        with("GET /events", &format!("{auth}Origin: https://evil.example\r\n")),
        with("GET /events", &format!("{auth}Last-Event-ID: abc\r\n")),
        with("GET /events", &format!("{auth}Connection: close\r\n")),
        with("GET /events", &format!("{auth}Connection: Upgrade\r\nUpgrade: h2c\r\n")),
        with("GET http://a/events?since=10m", &auth),
        with("GET /events/", &auth),
        with("GET /events?topics=orders", &auth),
        with("GET /events?topic=one,two,three", &auth),
        with("GET /events?topic=secret", &auth),
        with("GET /events", "Authorization: Bearer x\r\n"),
        with("GET /events", ""),
        with("GET /events", &format!("{auth}Accept: text/html\r\n")),
        with("GET /events?ticket=none", events),
        with("HEAD /events", &auth),
        with("POST /events", "Content-Length: 0\r\n"),
        with("DELETE /events", ""),
        with(
            "OPTIONS /events",
            "Origin: https://app.example.com\r\nAccess-Control-Request-Method: GET\r\n",
        ),
        with("GET /nowhere", ""),
        with("GET /healthz", ""),
        with("GET /healthz", "Connection: close\r\n"),
        format!("{}{}", with("GET /healthz", ""), with("GET /nowhere", "")),
        format!("\r\n\r\n{}", with("GET /healthz", "")),
        "\r\n\r\nGET /healthz HTTP/1.0\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\nHost: a\n\n".to_owned(),
        // A body that looks like a request, behind empty lines that are none.
        format!(
            "{}\r\n\r\n{}GET /healthz HTTP/1.1\r\n\r\n",
            with("GET /healthz", ""),
            with("POST /push/others", "Content-Length: 25\r\n")
        ),
        with("GET /healthz", "Content-Length: 2\r\n") + "{}",
        with("POST /ticket", &format!("{auth}Content-Length: 2\r\n")) + "{}",
        with("GET /%65vents?since=10m", &auth),
        with("GET /%65vents/%2e", &auth),
        format!("GET /events HTTP/1.0\r\n{auth}\r\n"),
        format!("GET /events HTTP/1.1\nHost: a\n{auth}\n\n"),
        format!("GET /events HTTP/1.1\r\n{auth}\r\n"),
        format!("GET /events HTTP/1.1\r\nHost: a\r\n X: folded\r\n{auth}\r\n"),
        with("GET /events", &format!("{auth}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n")),
        with("GET /events", &format!("{auth}{auth}")),
        format!(
            "{}body{}",
            with("GET /events", &format!("{auth}Content-Length: 4\r\n")),
            with("GET /healthz", "")
        ),
        format!("{}{}", with("GET /events", &auth), with("GET /healthz", "Connection: close\r\n")),
        format!("{}{{\"message\":{{}}}}", with("POST /push/others", "Content-Length: 14\r\n")),
        format!(
            "{}2\r\n{{}}\r\n0\r\n\r\n",
            with("POST /push/others", "Transfer-Encoding: chunked\r\n")
        ),
        with("POST /push/others", "Content-Length: 14\r\nExpect: 100-continue\r\n")
            + "{\"message\":{}}",
        with("POST /push/others", "Content-Length: 20000000\r\n"),
        with("POST /push/..", "Content-Length: 2\r\n") + "{}",
        "garbage\r\n\r\n".to_owned(),
        with(&format!("GET /{}", "a".repeat(40_000)), ""),
    ]
}

/// Whatever is asked, and however: the same bytes, on the same connection.
#[test]
fn the_reactor_and_tls_give_the_same_bytes() {
    let keys = KeyServer::start();
    let url = keys.url();
    let token = reader::bearer(&sign(&reader::claims(&["orders"])));
    let flags = [
        ("push-auth", "none"),
        ("read-auth", "jwt"),
        ("read-jwks-url", &url),
        ("cors-origin", "https://app.example.com"),
        ("topics-per-stream", "2"),
        ("stream-age-max", "1 s"),
    ];
    let gateways = [Gateway::serve(&flags), Gateway::over_tls(Mode::Serve, &flags)];
    for gateway in &gateways {
        eventually("ready", || (gateway.get("/readyz", &[]).status == 200).then_some(()));
        gateway.push("orders", &message("first", "1"));
        gateway.push("orders", &message("second\nline", "2"));
    }
    let requests = [requests(&token), requests_for_lines(&token)].concat();
    let ask = |gateway: &Gateway, request: &str| {
        let silence = Duration::from_secs(2);
        let text = http1::exchange_for(gateway.address, request.as_bytes(), silence);
        if !request.starts_with("HEAD") {
            chunks_are_whole(&text);
        }
        without_chance(&text)
    };
    let [plain, tls] = &gateways;
    let both = |requests: Vec<&String>| {
        std::thread::scope(|scope| {
            let asked = requests.into_iter().map(|request| {
                let plain = scope.spawn(|| ask(plain, request));
                (request, plain, scope.spawn(|| ask(tls, request)))
            });
            for (request, plain, tls) in asked.collect::<Vec<_>>() {
                assert_eq!(plain.join().unwrap(), tls.join().unwrap(), "{request:?}");
            }
        });
    };
    // What is pushed moves the cursors of streams that do not show it.
    let (pushes, others) = requests.iter().partition(|request| request.starts_with("POST /push"));
    both(others);
    both(pushes);
}

/// What a peer sends while its stream is open waits, and is answered when the stream has ended.
#[test]
fn the_next_request_is_answered_after_the_stream() {
    for (name, gateway) in Gateway::plain_and_tls(&[("stream-age-max", "1 s")]) {
        let mut socket = http1::connect(gateway.address);
        http1::write_head(&mut socket, "GET", "/events", &[]);
        gateway.until_metric(STREAMS, 1.0);
        http1::write_head(&mut socket, "GET", "/healthz", &[("Connection", "close")]);
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{name}: {text}");
        let is_whole = text.contains("max-age") && text.ends_with("{\"status\":\"ok\"}");
        assert!(is_whole, "{name}: {text}");
    }
}

/// On one connection, one after the other.
#[test]
fn a_connection_has_one_stream_after_the_other() {
    for (_, gateway) in Gateway::plain_and_tls(&[("stream-age-max", "1 s")]) {
        let socket = http1::connect(gateway.address);
        for round in 0..3 {
            let mut writer = socket.try_clone().unwrap();
            http1::write_head(&mut writer, "GET", "/events", &[]);
            let mut source = EventSource::from_socket(socket.try_clone().unwrap());
            assert_eq!(source.next_raw().unwrap().event, "stream-open");
            gateway.publish("orders", round.to_string());
            assert_eq!(source.next().data, round.to_string());
            assert_eq!(source.next_raw().unwrap().event, "stream-end");
            assert!(source.next_block().is_none());
        }
    }
}

/// Whoever keeps it for later is in no hurry to begin, though a new one would have to.
#[test]
fn a_connection_may_rest_after_its_stream() {
    let flags = [("stream-age-max", "1 s"), ("header-timeout", "1 s")];
    for (_, gateway) in Gateway::plain_and_tls(&flags) {
        let socket = http1::connect(gateway.address);
        let mut writer = socket.try_clone().unwrap();
        http1::write_head(&mut writer, "GET", "/events", &[]);
        let mut source = EventSource::from_socket(socket.try_clone().unwrap());
        while source.next_block().is_some() {}
        std::thread::sleep(Duration::from_secs(2));
        http1::write_head(&mut writer, "GET", "/healthz", &[("Connection", "close")]);
        assert_eq!(http1::read_answer(socket, "GET").status, 200);
        gateway.until_metric("stream_events_limits_met_total{limit=\"header-timeout\"}", 0.0);
    }
}

/// A megabyte of it: it fills the kernel's buffer, and nothing else.
#[test]
fn what_a_peer_sends_beside_its_stream_is_not_kept() {
    let gateway = Gateway::dev(&[("keep-alive", "1 s")]);
    let mut source = gateway.events("");
    let socket = source.socket();
    socket.set_nonblocking(true).unwrap();
    let (mut sent, beside) = (0, vec![b'x'; 65_536]);
    while let Ok(taken) = (&socket).write(&beside) {
        sent += taken;
    }
    assert!(0 < sent, "it was taken by the kernel");
    socket.set_nonblocking(false).unwrap();
    gateway.publish("orders", "still there");
    assert_eq!(source.next().data, "still there");
    drop((source, socket));
    gateway.until_metric(STREAMS, 0.0);
}

/// A closed tab: at once, and not with the next keep-alive. Also when only half of it is closed.
#[test]
fn a_reader_that_leaves_is_gone_at_once() {
    for (_, gateway) in Gateway::plain_and_tls(&[("keep-alive", "10 min")]) {
        for how in [std::net::Shutdown::Both, std::net::Shutdown::Write] {
            let source = gateway.events("");
            gateway.until_metric(STREAMS, 1.0);
            source.socket().shutdown(how).unwrap();
            gateway.until_metric(STREAMS, 0.0);
        }
        // And one that is reset.
        let source = gateway.events("");
        socket2::SockRef::from(&source.socket()).set_linger(Some(Duration::ZERO)).unwrap();
        drop(source);
        gateway.until_metric(STREAMS, 0.0);
        gateway.until_metric("stream_events_streams_ended_total{reason=\"client\"}", 3.0);
    }
}

/// A stream's token is renewed on another thread than the stream's.
#[test]
fn a_stream_is_renewed_and_expires() {
    let keys = KeyServer::start();
    let gateway = reader::gateway(&keys, &[("workers", "2")]);
    let token = |seconds: u64| {
        sign(&json!({ "sub": "alice", "exp": reader::now() + seconds, "topics": ["*"] }))
    };
    let mut source = reader::open(&gateway, "", &token(3));
    let name: serde_json::Value =
        serde_json::from_str(&source.opened.as_ref().unwrap().data).unwrap();
    assert_eq!(source.next_raw().unwrap().event, "stream-auth", "its end is near");
    let path = format!("/renew?stream={}", name["stream"].as_str().unwrap());
    let bearer = reader::bearer(&token(5));
    assert_eq!(gateway.post(&path, &[("Authorization", &bearer)], b"").status, 202);
    assert_eq!(source.next_raw().unwrap().event, "stream-auth", "it was put off");
    let start = Instant::now();
    loop {
        let event = source.next_raw().unwrap();
        if event.event == "stream-end" {
            assert_eq!(event.data, "{\"reason\":\"expired\"}");
            break;
        }
    }
    assert!(Duration::from_secs(2) < start.elapsed(), "not with the first token");
}

/// A stream's head and its first message are one write. Two writes would be two packets, of which a
/// reader often sees the first alone.
#[test]
fn head_and_first_message_are_one_write() {
    let gateway = Gateway::dev(&[]);
    for _ in 0..50 {
        let mut socket = http1::connect(gateway.address);
        http1::write_head(&mut socket, "GET", "/events", &[]);
        let mut bytes = [0; 4_096];
        let read = socket.read(&mut bytes).unwrap();
        let text = str::from_utf8(&bytes[..read]).unwrap();
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("stream-open"), "{text}");
    }
}

/// Many at once, of which some stop reading, leave, or ask for the past: nobody loses anything.
#[test]
fn a_crowd_of_streams() {
    const EVENTS: usize = 50;
    let flags = [("write-timeout", "4 s"), ("keep-alive", "1 s"), ("workers", "2")];
    for (_, gateway) in Gateway::plain_and_tls(&flags) {
        a_crowd(&gateway, EVENTS);
    }
}

fn a_crowd(gateway: &Gateway, events: usize) {
    let stalled: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut socket = http1::connect(gateway.address);
            socket2::SockRef::from(&socket).set_recv_buffer_size(4_096).unwrap();
            http1::write_head(&mut socket, "GET", "/events", &[]);
            socket
        })
        .collect();
    gateway.until_metric(STREAMS, 20.0);
    let open = |query| {
        let mut source = gateway.events(query);
        std::thread::spawn(move || {
            let mut next = 0;
            while next < events {
                let n: usize = source.next().data.split(' ').next().unwrap().parse().unwrap();
                assert_eq!(n, next);
                next += 1;
            }
        })
    };
    let mut readers: Vec<_> = (0..100).map(|_| open("")).collect();
    let large = "x".repeat(50_000);
    for n in 0..events {
        gateway.publish("orders", format!("{n} {large}"));
        if n % 10 == 9 {
            // Some leave, and some want to have it all.
            drop((gateway.events(""), gateway.events("?since=1h")));
            readers.extend((0..5).map(|_| open("?since=1h")));
        }
    }
    for reader in readers {
        reader.join().unwrap();
    }
    gateway.until_metric("stream_events_streams_ended_total{reason=\"stalled\"}", 20.0);
    drop(stalled);
    gateway.until_metric(STREAMS, 0.0);
}
