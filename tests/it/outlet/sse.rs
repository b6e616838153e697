//! `GET /events`: the head and the blocks of the contract, and what is refused and how.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    gateway::{Gateway, message},
    http1::{self, EventSource},
};

fn data(source: &EventSource) -> Value {
    serde_json::from_str(&source.opened.as_ref().unwrap().data).unwrap()
}

#[test]
fn the_head_and_the_first_block() {
    let gateway = Gateway::dev(&[]);
    let mut source = EventSource::connect(gateway.address, "/events?topic=orders", &[]);
    assert_eq!(source.header("content-type"), Some("text/event-stream"));
    assert_eq!(source.header("cache-control"), Some("no-store, no-transform"));
    assert_eq!(source.header("x-accel-buffering"), Some("no"));
    assert_eq!(source.header("incremental"), Some("?1"));
    assert_eq!(source.header("content-encoding"), None);
    let block = source.next_block().unwrap();
    let lines: Vec<_> = block.lines().collect();
    let retry: u64 = lines[0].strip_prefix("retry: ").unwrap().parse().unwrap();
    assert!((2_000..4_000).contains(&retry), "{retry}");
    assert!(lines[1].starts_with("id: "), "{block}");
    assert_eq!(lines[2], "event: stream-open");
    let data: Value = serde_json::from_str(lines[3].strip_prefix("data: ").unwrap()).unwrap();
    let name = data["stream"].as_str().unwrap();
    assert_eq!(
        lines[3],
        format!("data: {{\"stream\":\"{name}\",\"topics\":[\"orders\"],\"resumed\":false}}")
    );
    assert_eq!(name.len(), 32);
    assert_eq!(lines[4..], [""]);
}

#[test]
fn whole_blocks_of_events() {
    let gateway = Gateway::dev(&[]);
    let mut source = gateway.events("");
    gateway.publish("orders", "{\"id\":1}");
    let block = source.next_block().unwrap();
    let (id, rest) = block.split_once('\n').unwrap();
    assert!(id.starts_with("id: ") && id.len() <= 4 + 31, "{id}");
    assert_eq!(rest, "data: {\"id\":1}\n\n");
    let mut typed = message("a\r\nb\rc", "2");
    typed["attributes"] = json!({ "event": "made" });
    gateway.push("orders", &typed);
    let block = source.next_block().unwrap();
    assert_eq!(block.split_once('\n').unwrap().1, "event: made\ndata: a\ndata: b\ndata: c\n\n");
}

#[test]
fn the_asked_topics_are_streamed_and_no_others() {
    let gateway = Gateway::dev(&[]);
    let mut two = gateway.events("?topic=orders&topic=parcels");
    let mut list = gateway.events("?topic=parcels,orders");
    let mut one = gateway.events("?topic=orders");
    let mut all = gateway.events("");
    for (topic, data) in [("clicks", "1"), ("orders", "2"), ("parcels", "3"), ("orders", "4")] {
        gateway.publish(topic, data);
    }
    assert_eq!(two.take(3), ["2", "3", "4"]);
    assert_eq!(list.take(3), ["2", "3", "4"]);
    assert_eq!(one.take(2), ["2", "4"]);
    assert_eq!(all.take(4), ["1", "2", "3", "4"]);
    assert_eq!(data(&two)["topics"], json!(["orders", "parcels"]));
    assert_eq!(data(&all)["topics"], json!([]));
}

#[test]
fn a_reader_of_very_many_topics_gets_each() {
    let gateway = Gateway::dev(&[]);
    let names: Vec<_> = (0..1_000).map(|n| format!("topic-{n}")).collect();
    let mut many = gateway.events(&format!("?topic={}", names.join(",")));
    for n in [999, 0, 500] {
        gateway.publish("another", "x");
        gateway.publish(&format!("topic-{n}"), n.to_string());
    }
    assert_eq!(many.take(3), ["999", "0", "500"]);
    let too_many = format!("{},one-more", names.join(","));
    assert_eq!(gateway.get(&format!("/events?topic={too_many}"), &[]).status, 400);
}

#[test]
fn a_stream_resumes_after_the_id_of_the_header_before_the_query_before_the_time() {
    let gateway = Gateway::dev(&[]);
    let mut source = gateway.events("");
    for data in ["1", "2", "3"] {
        gateway.publish("orders", data);
    }
    let ids: Vec<_> = (0..3).map(|_| source.next().id).collect();
    let mut resumed = gateway.resume("", &ids[0]);
    assert_eq!(resumed.take(2), ["2", "3"]);
    assert_eq!(data(&resumed)["resumed"], true);
    assert_eq!(
        resumed.opened.as_ref().unwrap().id,
        ids[0],
        "the first block has the id it brought"
    );
    assert_eq!(gateway.events(&format!("?last_event_id={}", ids[0])).take(2), ["2", "3"]);
    let query = format!("?last_event_id={}&since=1h", ids[0]);
    assert_eq!(gateway.resume(&query, &ids[1]).take(1), ["3"]);
    assert_eq!(gateway.events(&query).take(1), ["2"]);
}

#[test]
fn since_replays_from_a_time() {
    let gateway = Gateway::dev(&[]);
    let mut live = gateway.events("");
    for data in ["1", "2"] {
        gateway.publish("orders", data);
    }
    let first = live.next().id;
    assert_eq!(gateway.events("?since=1h").take(2), ["1", "2"]);
    assert_eq!(gateway.events("?since=1d").take(2), ["1", "2"]);
    // The time of the first event includes it.
    let millis: i64 = first.split_once('-').unwrap().0.parse().unwrap();
    let time = jiff::Timestamp::from_millisecond(millis).unwrap();
    assert_eq!(gateway.events(&format!("?since={time}")).take(2), ["1", "2"]);
    let offset = time.to_string().replace('Z', "+00:00");
    assert_eq!(gateway.events(&format!("?since={offset}")).take(1), ["1"], "a plus unescaped");
    // What is older than what is held is told.
    let mut old = gateway.events("?since=2020-01-01T00:00:00Z");
    let gap = old.next_raw().unwrap();
    assert_eq!(gap.event, "stream-gap");
    assert_eq!(old.take(2), ["1", "2"]);
    // A time to come is now.
    let mut future = gateway.events("?since=2100-01-01T00:00:00Z");
    gateway.publish("orders", "3");
    assert_eq!(future.take(1), ["3"]);
}

/// The first block of a `since` stream has an id that replays from the same time, or a reader that
/// is cut right after it would come back at the head.
#[test]
fn a_cut_before_the_first_replayed_event_loses_nothing() {
    let gateway = Gateway::dev(&[]);
    gateway.publish("orders", "1");
    let cut = gateway.events("?since=1h");
    let id = cut.last_event_id().to_owned();
    drop(cut);
    assert_eq!(gateway.resume("?since=1h", &id).take(1), ["1"]);
}

#[test]
fn silence_is_kept_alive() {
    let gateway = Gateway::dev(&[("keep-alive", "1 s")]);
    let start = Instant::now();
    let mut source = gateway.events("?topic=orders");
    assert_eq!(source.next_block().unwrap(), ":\n\n");
    assert!(Duration::from_millis(900) <= start.elapsed());
    // The cursor moved without anything to show.
    gateway.publish("parcels", "x");
    let block = source.next_block().unwrap();
    let id = block.strip_prefix("id: ").unwrap().trim_end();
    assert_eq!(block, format!("id: {id}\n\n"));
    assert_eq!(gateway.resume("", id).opened.unwrap().id, id);
    assert_eq!(source.next_block().unwrap(), ":\n\n");
}

#[test]
fn a_stream_that_is_old_enough_ends_and_says_so() {
    let gateway = Gateway::dev(&[("stream-age-max", "1 s")]);
    let start = Instant::now();
    let mut source = gateway.events("");
    let block = source.next_block().unwrap();
    assert!(Duration::from_millis(800) <= start.elapsed());
    let (retry, rest) = block.split_once('\n').unwrap();
    let retry: u64 = retry.strip_prefix("retry: ").unwrap().parse().unwrap();
    assert!((200..1_500).contains(&retry));
    assert_eq!(rest, "event: stream-end\ndata: {\"reason\":\"max-age\"}\n\n");
    assert_eq!(source.next_block(), None);
    gateway.until_metric("stream_events_streams_ended_total{reason=\"max-age\"}", 1.0);
}

/// Any status but 200 makes a browser give up for good.
#[test]
fn a_reader_too_many_is_told_to_come_back() {
    let gateway = Gateway::dev(&[("subscribers-max", "1")]);
    let first = gateway.events("");
    let id = first.last_event_id().to_owned();
    let mut refused = EventSource::connect(gateway.address, "/events", &[("Last-Event-ID", &id)]);
    assert_eq!(refused.status, 200);
    let block = refused.next_block().unwrap();
    let (retry, rest) = block.split_once('\n').unwrap();
    let retry: u64 = retry.strip_prefix("retry: ").unwrap().parse().unwrap();
    assert!((5_000..10_000).contains(&retry));
    assert_eq!(rest, format!("id: {id}\nevent: stream-end\ndata: {{\"reason\":\"busy\"}}\n\n"));
    assert_eq!(refused.next_block(), None);
    // A reader that brought no id is given none.
    let mut fresh = EventSource::connect(gateway.address, "/events", &[]);
    assert!(!fresh.next_block().unwrap().contains("id:"));
    // Readers that are no browser understand a status.
    let other = gateway.get("/events", &[("Accept", "*/*")]);
    assert_eq!(other.status, 503);
    assert!(other.header("retry-after").is_some());
    drop(first);
    gateway.until_metric("stream_events_streams", 0.0);
    drop(gateway.events(""));
}

#[test]
fn what_is_wrong_with_a_request_is_named() {
    let gateway = Gateway::dev(&[]);
    for (query, named) in [
        ("topics=orders", "topics"),
        ("topic=", "topic"),
        ("topic=a", "topic"),
        ("topic=orders,", "topic"),
        ("topic=../x", "topic"),
        ("last_event_id=abc", "last_event_id"),
        ("last_event_id=1-2&last_event_id=1-2", "last_event_id"),
        ("since=yesterday", "since"),
        ("since=-5m", "since"),
        ("since=1mo", "since"),
        ("format=xml", "data, message or cloudevents"),
        ("filter=x", "filter"),
    ] {
        let answer = gateway.get(&format!("/events?{query}"), &[]);
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(named), "{query}: {detail}");
    }
    assert_eq!(gateway.get("/events", &[("Accept", "text/html")]).status, 406);
    assert_eq!(gateway.get("/nowhere", &[]).status, 404);
    let post = gateway.post("/events", &[], b"");
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD, OPTIONS")));
    let served = Gateway::dev(&[("topic", "orders")]);
    assert_eq!(served.get("/events?topic=parcels", &[]).status, 404);
}

#[test]
fn head_answers_the_head() {
    let gateway = Gateway::dev(&[]);
    let answer = http1::request(gateway.address, "HEAD", "/events", &[], b"");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("content-length"), None);
    gateway.until_metric("stream_events_streams", 0.0);
}

/// Fetch-based clients send a preflight, because of `Last-Event-ID`.
#[test]
fn cors_answers_preflights() {
    let preflight = |gateway: &Gateway, origin: &str| {
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "last-event-id,authorization"),
        ];
        http1::request(gateway.address, "OPTIONS", "/events", &headers, b"")
    };
    let allowed = |gateway: &Gateway, origin: &str| {
        let source = gateway.events_with("", &[("Origin", origin)]);
        source.header("access-control-allow-origin").map(str::to_owned)
    };
    let serve = Gateway::serve(&[("push-auth", "none"), ("read-auth", "anonymous")]);
    let answer = preflight(&serve, "https://app.example");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let headers = answer.header("access-control-allow-headers").unwrap().to_lowercase();
    assert!(headers.contains("last-event-id") && headers.contains("authorization"), "{headers}");
    assert_eq!(allowed(&serve, "https://app.example").as_deref(), Some("*"));

    // What is in a developer's gateway is not for every page that the developer visits.
    let dev = Gateway::dev(&[]);
    for origin in ["http://localhost:3000", "http://127.0.0.1:5173", "null"] {
        assert_eq!(preflight(&dev, origin).status, 200, "{origin}");
        assert_eq!(allowed(&dev, origin).as_deref(), Some(origin));
    }
    let body = br#"{"message":{"data":"eA=="}}"#;
    // A sandboxed frame of any page has the origin of a file.
    assert_eq!(dev.post("/push/orders", &[("Origin", "null")], body).status, 421);
    for origin in ["https://evil.example", "http://localhost.evil.example"] {
        assert_eq!(preflight(&dev, origin).header("access-control-allow-origin"), None);
        let answer = http1::request(dev.address, "HEAD", "/events", &[("Origin", origin)], b"");
        assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
        // A page may send this without a preflight.
        let headers = [("Origin", origin), ("Content-Type", "text/plain")];
        assert_eq!(dev.post("/push/orders", &headers, body).status, 421, "{origin}");
    }
}

/// HTTP/1.0 knows no chunks, and a response to an upgrade that is not made has none either.
#[test]
fn a_stream_without_chunks_ends_with_its_connection() {
    use std::io::{Read as _, Write as _};
    let gateway = Gateway::dev(&[("stream-age-max", "1 s")]);
    for connection in ["close", "keep-alive"] {
        let request =
            format!("GET /events HTTP/1.0\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n");
        let mut socket = http1::connect(gateway.address);
        socket.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(!head.contains("transfer-encoding"), "{head}");
        assert!(body.starts_with("retry: ") && body.ends_with("\"max-age\"}\n\n"), "{body}");
    }
}

/// A page on the web that resolves its own name to loopback must not reach `dev`.
#[test]
fn dev_answers_only_to_loopback_names() {
    let gateway = Gateway::dev(&[]);
    let ask = |host: &str, more: &str| {
        use std::io::Write as _;
        let mut socket = http1::connect(gateway.address);
        let request =
            format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        http1::read_answer(socket, "GET").status
    };
    for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "[::1]"] {
        assert_eq!(ask(host, ""), 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example:8080", "10.0.0.1", ""] {
        assert_eq!(ask(host, ""), 421, "{host}");
    }
    assert_eq!(ask("evil.example", "X-Forwarded-Host: localhost\r\n"), 421);
}
