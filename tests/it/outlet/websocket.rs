//! `GET /ws`: handshakes, records, commands, refusals, and what breaks the protocol.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    gateway::{Gateway, message},
    http1,
    tunnel::Tunnel,
    websocket::{HANDSHAKE, Received, WebSocket, frame},
};

/// Returns a socket with the stream of the query, after its record `open`.
pub fn opened(gateway: &Gateway, query: &str) -> WebSocket {
    let mut socket = WebSocket::open(gateway, query);
    assert_eq!(socket.record()["type"], "open");
    socket
}

fn both(flags: &[(&'static str, &str)]) -> [Gateway; 2] {
    [Gateway::dev(flags), Gateway::dev_over_tls(flags)]
}

#[test]
fn a_query_opens_a_stream_and_a_command_another_one() {
    for gateway in both(&[]) {
        let mut socket = WebSocket::open(&gateway, "?topic=orders");
        let open = socket.record();
        assert_eq!((&open["type"], &open["topics"]), (&json!("open"), &json!(["orders"])));
        assert!(open["id"].is_string() && open["stream"].is_string() && open["retry"].is_u64());
        assert_eq!((&open["resumed"], &open["sub"]), (&json!(false), &Value::Null));
        // Without a misspelled member, the stream would have more than the client wants.
        for (name, value) in
            [("topic", json!("chats")), ("topics", json!([])), ("filters", json!("attributes:k"))]
        {
            let mut command = json!({"type": "subscribe", "ref": name, "sub": "a"});
            command[name] = value;
            socket.command(&command);
            let answer = socket.record();
            assert_eq!((&answer["ref"], &answer["status"]), (&json!(name), &json!(400)));
            assert!(answer["detail"].as_str().unwrap().contains(name), "{answer}");
        }
        socket.command(&json!({"type": "subscribe", "ref": 1, "sub": "a", "topics": ["chats"]}));
        assert_eq!(socket.record(), json!({"type": "ok", "ref": 1}));
        assert_eq!(socket.record()["sub"], "a");
        gateway.publish("orders", "{\"id\":1}");
        let event = socket.record();
        let id = event["id"].as_str().unwrap();
        assert_eq!(event, json!({"type": "event", "id": id, "topic": "orders", "data": {"id": 1}}));
        let mut push = message([0xff], "7");
        push["attributes"] = json!({"event": "said \"hi\""});
        assert_eq!(gateway.push("chats", &push).status, 204);
        let event = socket.record();
        let id = event["id"].as_str().unwrap();
        assert_eq!(
            event,
            json!({"type": "event", "sub": "a", "id": id, "topic": "chats",
                   "event": "said \"hi\"", "data_base64": "/w=="})
        );
        socket.command(&json!({"type": "unsubscribe", "ref": "x", "sub": "a", "unknown": {}}));
        assert_eq!(socket.record(), json!({"type": "ok", "ref": "x"}));
        gateway.publish("chats", "not for this socket");
        gateway.publish("orders", "text");
        assert_eq!(socket.record()["data"], "text");
    }
}

#[test]
fn formats_are_those_of_other_outlets() {
    let gateway = Gateway::dev(&[]);
    let mut messages = opened(&gateway, "?topic=orders&format=message");
    let mut cloud_events = opened(&gateway, "?topic=orders&format=cloudevents");
    let mut push = message("[1]", "7");
    push["attributes"] = json!({"event": "made", "a": "b"});
    push["orderingKey"] = json!("k");
    assert_eq!(gateway.push("orders", &push).status, 204);
    let event = messages.record();
    assert_eq!((&event["type"], &event["event"]), (&json!("event"), &json!("made")));
    assert_eq!((&event["message_id"], &event["ordering_key"]), (&json!("7"), &json!("k")));
    assert_eq!(event["attributes"], json!({"event": "made", "a": "b"}));
    assert_eq!((&event["topic"], &event["data"]), (&json!("orders"), &json!([1])));
    let nested = cloud_events.record();
    assert_eq!((&nested["id"], &nested["type"]), (&event["id"], &json!("event")));
    let data = &nested["data"];
    assert_eq!((&data["specversion"], &data["id"]), (&json!("1.0"), &json!("7")));
    assert_eq!((&data["type"], &data["data"]), (&json!("made"), &json!([1])));
}

#[test]
fn an_id_of_another_format_resumes_and_ids_rise_within_a_stream() {
    let gateway = Gateway::dev(&[]);
    let mut events = gateway.events("?topic=orders");
    for n in 0..5 {
        gateway.publish("orders", n.to_string());
    }
    let first = events.next().id;
    let mut socket = WebSocket::open(&gateway, "");
    for (sub, id) in [("late", first.as_str()), ("live", "")] {
        socket.command(&json!({"type": "subscribe", "sub": sub, "topics": ["orders"],
                               "last_event_id": id}));
        assert_eq!(socket.record()["type"], "ok");
        let open = socket.record();
        assert_eq!((&open["sub"], &open["resumed"]), (&json!(sub), &json!(!id.is_empty())));
        if !id.is_empty() {
            for n in 1..5 {
                let event = socket.record();
                assert_eq!((&event["sub"], &event["data"]), (&json!("late"), &json!(n)));
            }
        }
    }
    gateway.publish("orders", "5");
    let subs = [socket.record(), socket.record()].map(|event| event["sub"].to_string());
    assert!(subs.contains(&"\"late\"".to_owned()) && subs.contains(&"\"live\"".to_owned()));
}

#[test]
fn errors_of_commands_have_the_ref_and_leave_the_connection_open() {
    let gateway = Gateway::dev(&[("topic", "orders")]);
    let mut socket = opened(&gateway, "?topic=orders");
    for (command, status) in [
        ("{", 400),
        ("[]", 400),
        ("{\"ref\":1}", 400),
        ("{\"type\":\"frobnicate\",\"ref\":1}", 400),
        ("{\"type\":\"subscribe\",\"ref\":{},\"sub\":\"a\"}", 400),
        ("{\"type\":\"subscribe\",\"ref\":1}", 400),
        ("{\"type\":\"subscribe\",\"ref\":1,\"sub\":\"a\",\"topics\":[\"!\"]}", 400),
        ("{\"type\":\"subscribe\",\"ref\":1,\"sub\":\"a\",\"topics\":[\"chats\"]}", 404),
        ("{\"type\":\"subscribe\",\"ref\":1,\"sub\":\"a\",\"filter\":\"x\"}", 400),
        ("{\"type\":\"subscribe\",\"ref\":1,\"sub\":\"a\",\"last_event_id\":\"x\"}", 400),
        ("{\"type\":\"unsubscribe\",\"ref\":1,\"sub\":\"a\"}", 404),
        ("{\"type\":\"renew\",\"ref\":1,\"token\":\"a\"}", 404),
        ("{\"type\":\"renew\",\"ref\":1}", 400),
    ] {
        socket.send_frame(0x81, command.as_bytes());
        let error = socket.record();
        assert_eq!(
            (&error["type"], &error["status"]),
            (&json!("error"), &json!(status)),
            "{command}"
        );
        assert!(error["detail"].is_string() && error["title"].is_string(), "{error}");
        let has_ref = command.contains("\"ref\":1") && command.contains("type");
        assert_eq!(error["ref"] == 1, has_ref, "{command}: {error}");
    }
    gateway.publish("orders", "1");
    assert_eq!(socket.record()["data"], 1);
}

#[test]
fn requests_that_are_no_handshake_are_answered_and_leave_the_connection_open() {
    for gateway in both(&[]) {
        let plain = gateway.get("/ws?topic=orders", &[]);
        assert_eq!(plain.status, 426);
        assert_eq!(plain.header("upgrade"), Some("websocket"));
        assert_eq!(plain.header("sec-websocket-version"), Some("13"));
        assert!(plain.text().contains("wscat"), "{}", plain.text());
        let with = |at: usize, value: &'static str| {
            let mut headers = HANDSHAKE;
            headers[at].1 = value;
            gateway.get_head("/ws", &headers).0
        };
        if gateway.tls.is_none() {
            assert_eq!(
                [with(0, "close"), with(1, "h2c"), with(2, "8"), with(3, "x")],
                [426, 426, 426, 400]
            );
            let with_body = [&HANDSHAKE[..], &[("Content-Length", "2")]].concat();
            assert_eq!(gateway.get_head("/ws", &with_body).0, 400);
        }
        let text = "GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2);
        if gateway.tls.is_none() {
            let answers = http1::exchange(gateway.address, text.as_bytes());
            assert_eq!(answers.matches("HTTP/1.1 426").count(), 2, "{answers}");
        }
        assert_eq!(gateway.post("/ws", &[], b"").status, 405);
    }
}

#[test]
fn frames_behind_the_handshake_are_read() {
    let gateway = Gateway::dev(&[]);
    let command = json!({"type": "subscribe", "ref": 1, "topics": ["orders"]}).to_string();
    let ahead = [frame(0x81, command.as_bytes()), frame(0x89, b"ping")].concat();
    let mut socket = WebSocket::open_ahead(http1::connect(gateway.address), "/ws", &ahead);
    assert_eq!(socket.receive(), Some(Received::Pong(b"ping".to_vec())));
    assert_eq!(socket.record(), json!({"type": "ok", "ref": 1}));
    assert_eq!(socket.record()["type"], "open");
}

#[test]
fn what_breaks_the_protocol_is_closed_with_its_code_once() {
    for gateway in both(&[]) {
        let large = vec![b'a'; 65_537];
        for (frames, code) in [
            (vec![frame(0x81, &[0xff])], 1007),
            (vec![frame(0x01, &[0xc3]), frame(0x80, &[0x28])], 1007),
            (vec![frame(0xc1, b"a")], 1002),
            (vec![frame(0x83, b"a")], 1002),
            (vec![vec![0x81, 1, b'a']], 1002),
            (vec![frame(0x80, b"a")], 1002),
            (vec![frame(0x09, b"")], 1002),
            (vec![frame(0x88, &999_u16.to_be_bytes())], 1002),
            (vec![frame(0x82, b"a")], 1003),
            (vec![frame(0x81, &large)], 1009),
        ] {
            let mut socket = opened(&gateway, "?topic=orders");
            // The gateway may close before it has read all.
            socket.send(&frames.concat());
            assert_eq!(socket.end(), (None, Some(code)), "{:?}", &frames[0][..3]);
        }
    }
}

#[test]
fn a_close_of_the_client_is_echoed_once_with_its_code() {
    for gateway in both(&[]) {
        for (payload, code) in [
            (&[][..], None),
            (&[0x03, 0xe8][..], Some(1000)),
            (&[0x0f, 0xa0, b'x'][..], Some(4000)),
        ] {
            let mut socket = opened(&gateway, "?topic=orders");
            socket.answers = false;
            socket.send_frame(0x88, payload);
            // Nothing behind a close frame counts.
            socket.send_frame(0x81, b"{\"type\":\"subscribe\",\"sub\":\"a\"}");
            assert_eq!(socket.end(), (None, code));
        }
        gateway.until_metric("stream_events_streams", 0.0);
    }
}

#[test]
fn commands_before_a_close_of_the_client_are_carried_out() {
    for gateway in both(&[]) {
        let mut socket = opened(&gateway, "?topic=orders");
        socket.answers = false;
        let command = |n: u8| {
            let command = json!({"type": "unsubscribe", "sub": "a", "ref": n});
            frame(0x81, command.to_string().as_bytes())
        };
        socket.send(&[command(1), command(2), frame(0x88, &[0x03, 0xe8])].concat());
        assert_eq!(socket.record_of("error")["ref"], 1);
        let (last, code) = socket.end();
        assert_eq!((&last.unwrap()["ref"], code), (&json!(2), Some(1000)));
    }
}

#[test]
fn pings_are_answered_between_the_frames_of_a_large_event() {
    for gateway in both(&[]) {
        let mut socket = opened(&gateway, "?topic=orders");
        // More than the sockets hold.
        let data = "x".repeat(8 * 1024 * 1024);
        gateway.publish("orders", &data);
        for n in 0..50_u8 {
            socket.send_frame(0x89, &[n]);
            socket.send_frame(
                0x81,
                &json!({"type": "unsubscribe", "sub": "a", "ref": n}).to_string().into_bytes(),
            );
        }
        let (mut pongs, mut within) = (Vec::new(), 0);
        while pongs.len() < 50 {
            match socket.receive().unwrap() {
                Received::Pong(payload) => {
                    within += usize::from(socket.fragments != 0);
                    pongs.extend(payload);
                }
                Received::Text(text) => {
                    let record: Value = serde_json::from_str(&text).unwrap();
                    if record["type"] == "event" {
                        assert_eq!(record["data"].as_str().unwrap().len(), data.len());
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(pongs.is_sorted() && 0 < within, "{pongs:?}");
    }
}

#[test]
fn a_client_that_sends_for_ever_is_closed_with_4429() {
    let gateway = Gateway::dev(&[]);
    let mut socket = opened(&gateway, "?topic=orders");
    socket.answers = false;
    socket.send(&frame(0x89, b"").repeat(200));
    let (last, code) = socket.end();
    assert_eq!(code, Some(4429));
    let last = last.unwrap();
    assert_eq!((&last["type"], &last["reason"]), (&json!("end"), &json!("too-often")));
    assert!(last["retry"].is_u64(), "{last}");
}

#[test]
fn a_client_that_answers_no_pings_is_closed_with_4408() {
    let gateway = Gateway::dev(&[("keep-alive", "1 s")]);
    for query in ["?topic=orders", ""] {
        let mut socket = WebSocket::open(&gateway, query);
        socket.answers = false;
        let start = Instant::now();
        let (last, code) = socket.end();
        let last = last.unwrap();
        assert_eq!((code, &last["reason"]), (Some(4408), &json!("silent")), "{query}");
        assert!(last["retry"].is_u64(), "{last}");
        assert!(Duration::from_secs(2) < start.elapsed());
        let mut socket = WebSocket::open(&gateway, query);
        let start = Instant::now();
        let mut pings = 0;
        while pings < 5 {
            match socket.receive().unwrap() {
                Received::Ping(_) => pings += 1,
                Received::Close(code, _) => panic!("{code:?} after {:?}", start.elapsed()),
                _ => {}
            }
        }
    }
}

#[test]
fn a_client_that_never_reads_is_closed_after_the_write_timeout() {
    let gateway = Gateway::dev(&[("write-timeout", "1 s")]);
    let socket = opened(&gateway, "?topic=orders");
    gateway.publish("orders", "x".repeat(8 * 1024 * 1024));
    gateway.until_metric("stream_events_streams_ended_total{reason=\"stalled\"}", 1.0);
    drop(socket);
}

#[test]
fn a_connection_has_a_limit_of_streams_and_each_counts() {
    let gateway = Gateway::dev(&[("streams-per-address", "34")]);
    let mut socket = WebSocket::open(&gateway, "");
    let mut other = opened(&gateway, "?topic=orders");
    let mut opens = 0;
    for n in 0..33 {
        socket.command(&json!({"type": "subscribe", "ref": n, "sub": format!("{n}")}));
        let answer = loop {
            let record = socket.record();
            opens += usize::from(record["type"] == "open");
            if record["ref"] == n {
                break record;
            }
        };
        assert_eq!(answer["type"] == "ok", n < 32, "{answer}");
        if 32 <= n {
            assert_eq!(answer["status"], 429);
        }
    }
    assert!(opens <= 32);
    gateway.until_metric("stream_events_streams", 33.0);
    for (n, kind) in [(1, "ok"), (2, "error")] {
        other.command(&json!({"type": "subscribe", "ref": n, "sub": n.to_string()}));
        assert_eq!(other.record_of(kind)["ref"], n);
    }
    drop((socket, other));
    gateway.until_metric("stream_events_streams", 0.0);
}

/// A stream of HTTP/2 carries a WebSocket; other paths and other protocols carry none.
#[test]
fn http2_carries_a_websocket() {
    let gateway = Gateway::dev(&[("keep-alive", "1 s")]);
    let tunnel = |asked, headers: &[(&str, &str)]| {
        let socket = http1::connect(gateway.address);
        Tunnel::connect(socket, gateway.address, asked, headers).map(drop).unwrap_err()
    };
    let version = [("sec-websocket-version", "13")];
    assert_eq!(tunnel(("websocket", "/events"), &version), 404);
    assert_eq!(tunnel(("connect-udp", "/ws"), &version), 501);
    assert_eq!(tunnel(("websocket", "/ws"), &[("sec-websocket-version", "8")]), 426);
    assert_eq!(tunnel(("websocket", "/ws"), &[]), 426);
    let socket = http1::connect(gateway.address);
    let mut socket = WebSocket::over_http2(socket, gateway.address, "/ws?topic=orders", &[]);
    assert_eq!(socket.record()["type"], "open");
    gateway.until_metric("stream_events_streams", 1.0);
    socket.command(&json!({"type": "subscribe", "ref": 1, "sub": "a", "topics": ["chats"]}));
    assert_eq!(socket.record(), json!({"type": "ok", "ref": 1}));
    assert_eq!(socket.record()["sub"], "a");
    // Larger than the window of a stream, so that the client opens it while it reads.
    gateway.publish("chats", "x".repeat(200_000));
    assert_eq!(socket.record()["data"].as_str().map(str::len), Some(200_000));
    while !matches!(socket.receive().expect("a ping in silence"), Received::Ping(_)) {}
    socket.send_frame(0x88, &4_000_u16.to_be_bytes());
    assert_eq!(socket.end().1, Some(4_000));
    gateway.until_metric("stream_events_streams", 0.0);
    // A client that resets its stream is gone at once.
    let client = http1::connect(gateway.address);
    let mut socket = WebSocket::over_http2(client, gateway.address, "/ws?topic=orders", &[]);
    assert_eq!(socket.record()["type"], "open");
    drop(socket);
    gateway.until_metric("stream_events_streams", 0.0);
}
