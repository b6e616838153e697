//! Attacks with the content of requests.

use std::time::Instant;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    http1::{self, EventSource},
    victim::Victim,
};

const EVIL: &str = "x\r\nid: 1-1\r\nevent: forged\r\ndata: forged\r\n\r\nevent: forged\ndata: forged\n\n\0\u{2028}";

/// No value that a client or a message sets can end a line of a stream or of a response head.
#[test]
fn crlf_injection() {
    let victim = Victim::serve(&[]).calm();
    let mut source = victim.events("?topic=orders");
    let evil_message = |field: &str| {
        let mut message = json!({ "data": STANDARD.encode(EVIL), "messageId": field });
        message[field] = EVIL.into();
        message
    };
    let mut messages = vec![
        json!({ "data": STANDARD.encode(EVIL), "attributes": { "event": EVIL, EVIL: EVIL } }),
        json!({ "data": STANDARD.encode("x"), "attributes": { "event": "a\nid: 1-1" } }),
        json!({ "data": STANDARD.encode("x"), "attributes": { "event": "stream-end" } }),
    ];
    messages.extend(["messageId", "message_id", "orderingKey", "publishTime"].map(evil_message));
    for message in &messages {
        assert_eq!(victim.push("orders", message).status, 204, "{message}");
    }
    for name in ["a%0d%0aid:%201-1", "a%0A%0Adata:%20forged", "a%00b", "%E2%80%A8abc"] {
        assert_eq!(victim.push(name, &messages[0]).status, 400, "{name}");
        let path = format!("/events?topic={name}");
        let answer = http1::request(victim.address, "GET", &path, &[], b"");
        assert_eq!(answer.status, 400, "{name}");
        // The text of the error cannot end a line of the head either.
        assert!(answer.headers.iter().all(|(name, _)| !name.contains("id")), "{name}");
    }
    victim.publish("orders", "the last");
    let mut ids = Vec::new();
    loop {
        let event = source.next_raw().unwrap();
        assert_eq!(event.event, "message", "{event:?}");
        assert!(!event.id.starts_with("1-"), "{event:?}");
        ids.push(event.id.clone());
        if event.data == "the last" {
            break;
        }
        // A parser replaces each line end by LF.
        let lines = EVIL.replace("\r\n", "\n").replace('\r', "\n");
        assert!(event.data == lines || event.data == "x", "{event:?}");
    }
    let sorted = ids.windows(2).all(|pair| pair[0] < pair[1]);
    assert!(sorted && ids.len() <= messages.len() + 1, "{ids:?}");
    // Injection into the head of a response.
    for name in ["last_event_id", "since", "format", "ticket", "topic", EVIL] {
        let value = "1%0d%0aSet-Cookie:%20a=b";
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_', "%0d%0a");
        let text = victim.raw(
            format!("GET /events?{name}={value} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        );
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        assert!(!head.to_lowercase().contains("set-cookie"), "{head}");
    }
    victim.has_recovered();
}

/// Each request is refused with an answer, or its connection is closed. No memory is kept.
#[test]
fn oversized_everything() {
    let victim = Victim::serve(&["--ring-events", "4"]).calm();
    let long = "a".repeat(4_000_000);
    let line =
        |path: &str, field: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
    let heads = [
        line(&format!("/{long}"), "X: a"),
        line(&format!("/events?topic={long}"), "X: a"),
        line(&format!("/events?{long}"), "X: a"),
        line(&format!("/events?ticket={long}"), "X: a"),
        line("/events", &format!("X: {long}")),
        line("/events", &format!("{long}: a")),
        line("/events", &format!("Authorization: Bearer {long}")),
        line("/events", &format!("Cookie: {long}")),
        line("/events", &format!("Accept: {long}")),
        line("/events", &format!("Last-Event-ID: {long}")),
        line("/events", &"X: a\r\n".repeat(100_000)),
        format!("{long} / HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("POST /push/{} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", &long[..256]),
        long.clone(),
    ];
    for head in &heads {
        let text = victim.raw(head.as_bytes());
        let shown = &head[..head.len().min(60)];
        let refused = text.starts_with("HTTP/1.1 4");
        assert!(refused || text.is_empty() || text == http1::CLOSED, "{shown}: {text}");
    }
    let push = |message: &Value| victim.push("orders", message).status;
    let many: serde_json::Map<_, _> = (0..100_000).map(|n| (n.to_string(), "a".into())).collect();
    // A message that Pub/Sub would never send is poison or valid, and is acknowledged in both cases.
    for message in [
        json!({ "data": "x".repeat(15_000_000) }),
        json!({ "attributes": many }),
        json!({ "attributes": { "event": long } }),
        json!({ "data": "eA==", "messageId": long, "orderingKey": long }),
    ] {
        let status = push(&message);
        assert!([204, 400].contains(&status), "{status}");
    }
    let deep = ["[".repeat(1_000_000), "{\"message\":".repeat(1_000_000)];
    for deep in deep {
        let answer = http1::request(victim.address, "POST", "/push/orders", &[], deep.as_bytes());
        assert_eq!(answer.status, 400);
    }
    endless_body(&victim);
    // Small events replace the large ones in the ring.
    (0..4).for_each(|_| victim.publish("orders", "small"));
    victim.has_recovered();
}

/// Sends a chunked body without an end, fast enough to pass the time limits.
fn endless_body(victim: &Victim) {
    use std::io::Write as _;
    let mut socket = http1::connect(victim.address);
    let fields = [("Transfer-Encoding", "chunked")];
    http1::write_head(&mut socket, "POST", "/push/orders", &fields);
    let chunk = format!("100000\r\n{}\r\n", "a".repeat(1 << 20));
    let (start, mut mebibytes) = (Instant::now(), 0);
    while socket.write_all(chunk.as_bytes()).is_ok() {
        mebibytes += 1;
        assert!(start.elapsed() < PATIENCE, "the gateway read {mebibytes} MiB of one body");
    }
}

/// A small compressed body can be very large decompressed. The gateway decompresses no body.
#[test]
fn decompression_bombs() {
    let victim = Victim::serve(&[]).calm();
    for encoding in
        ["gzip", "deflate", "br", "zstd", "x-gzip", "GZIP", "gzip, identity", "unheard-of"]
    {
        let headers = [("Content-Encoding", encoding)];
        // 10 MB of zeros are 10 kB.
        let answer = http1::request(victim.address, "POST", "/push/a", &headers, &[0; 10_000]);
        assert_eq!(answer.status, 415, "{encoding}");
        assert_eq!(answer.header("accept-encoding"), Some("identity"));
    }
    victim.has_recovered();
}

#[test]
fn path_traversal_in_topic_names() {
    let victim = Victim::serve(&[]).calm();
    let mut all = victim.events("");
    let names = [
        "..",
        "../etc/passwd",
        "%2e%2e",
        "%2e%2e%2fetc%2fpasswd",
        "..%5c..%5cboot.ini",
        "a/../../b",
        "%252e%252e%252f",
        "....//",
        "a%2fb",
        ".hidden",
        "~root",
        "a;b",
        "%c0%ae%c0%ae",
        "a*b?c",
    ];
    for name in names {
        let status = victim.push(name, &json!({ "data": "eA==" })).status;
        assert!([400, 404, 405].contains(&status), "{name}: {status}");
        let path = format!("/events?topic={name}");
        let answer = http1::request(victim.address, "GET", &path, &[], b"");
        assert_eq!(answer.status, 400, "{name}");
    }
    victim.publish("orders", "the first");
    assert_eq!(all.next().data, "the first", "the refused pushes published nothing");
    victim.has_recovered();
}

/// Each malformed id opens a stream, which sends a gap and continues.
#[test]
fn malformed_last_event_ids() {
    let victim = Victim::serve(&[]).calm();
    victim.publish("orders", "held");
    let long = "9".repeat(10_000);
    let both_max = format!("{}-{}", u64::MAX, u64::MAX);
    let ids = [
        "abc",
        "1",
        "1-",
        "-1",
        "--",
        "1-2-3",
        "1-x",
        "0x1-2",
        "+1-2",
        "1 - 2",
        "1-2;",
        "01-1",
        "1.5-2",
        "1-2\t",
        "\u{661}-\u{662}",
        "null",
        "0",
        "-0",
        "18446744073709551616-1",
        "1-18446744073709551616",
        "NaN",
        "{}",
        "%31-1",
        "é",
        "0-0",
        "0-1",
        "1-0",
        &both_max,
        &long,
    ];
    for id in ids {
        let mut source = EventSource::open(victim.address, "/events", &[("Last-Event-ID", id)]);
        let gap = source.next_raw().unwrap();
        assert_eq!(gap.event, "stream-gap", "{id:?}: {gap:?}");
        // The stream continues after the gap.
        victim.publish("orders", id);
        while source.next().data != id {}
    }
    // In the query a malformed id is an error, since a developer wrote it.
    let answer = http1::request(victim.address, "GET", "/events?last_event_id=abc", &[], b"");
    assert_eq!(answer.status, 400);
    victim.has_recovered();
}
