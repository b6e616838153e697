//! Log lines about streams and messages, and what no line holds.

use std::net::TcpStream;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::{
    auth::reader::{bearer, claims},
    support::{
        eventually,
        gateway::message,
        http1::{self, EventSource},
        jwks::{KeyServer, sign},
        process::{OPEN, Process, serve, stream_events},
        reader::{CASES, Case, Format},
    },
};

/// Log level that includes the lines about streams.
const STREAMS: &str = "info,stream_events::stream=debug";

fn outlet(case: Case) -> &'static str {
    match case.format {
        Format::Sse => "sse",
        Format::Ndjson => "ndjson",
        Format::WebSocket => "websocket",
        Format::Grpc | Format::GrpcWeb => "grpc",
    }
}

/// Returns the lines whose message is `text`, once there are `count` of them.
fn lines(process: &Process, text: &str, count: usize) -> Vec<Value> {
    eventually(text, || {
        let log = process.log();
        let lines = log.iter().filter_map(|line| serde_json::from_str(line).ok());
        let found: Vec<Value> = lines.filter(|line: &Value| line["message"] == text).collect();
        assert!(found.len() <= count, "{found:?}");
        (found.len() == count).then_some(found)
    })
}

fn push(address: std::net::SocketAddr, message: &Value) {
    let body = json!({ "message": message }).to_string();
    assert_eq!(http1::request(address, "POST", "/push/orders", &[], body.as_bytes()).status, 204);
}

#[test]
fn each_stream_has_a_line_when_it_opens_and_one_when_it_ends() {
    let (process, address) = serve(&["--log-level", STREAMS]);
    let cases: Vec<_> =
        CASES.into_iter().filter(|case| !format!("{case:?}").contains("Tls")).collect();
    for (at, case) in cases.iter().enumerate() {
        eprintln!("{case:?}");
        let mut reader = case.open_at(address, "?topic=orders");
        push(address, &message("x", &format!("a{at}")));
        push(address, &message("x", &format!("b{at}")));
        let newest = [reader.next(), reader.next()][1].id.clone();
        let opened = &lines(&process, "stream opened", at + 1)[at];
        assert_eq!(opened["severity"], "DEBUG");
        assert_eq!((&opened["outlet"], &opened["topics"]), (&outlet(*case).into(), &1.into()));
        assert_eq!(opened["stream"].as_str().unwrap().len(), 8, "the log has a part of the name");
        drop(reader);
        let ended = &lines(&process, "stream ended", at + 1)[at];
        assert_eq!(ended["number"], opened["number"]);
        assert_eq!((&ended["outlet"], &ended["reason"]), (&opened["outlet"], &"client".into()));
        assert_eq!((&ended["events"], &ended["cursor"]), (&2.into(), &newest.into()), "{ended}");
        assert!(ended["seconds"].as_f64().is_some_and(|seconds| seconds < 60.0), "{ended}");
    }
    let poll = http1::request(address, "GET", "/events?mode=poll&since=1h", &[], b"");
    let sent = poll.json()["events"].as_array().unwrap().len();
    let ended = lines(&process, "stream ended", cases.len() + 1).pop().unwrap();
    assert_eq!((&ended["outlet"], &ended["reason"]), (&"poll".into(), &"poll".into()));
    assert_eq!(ended["events"], sent);
}

/// A broadcast counts events once for all its streams. Here the streams join in four rounds.
#[test]
fn each_stream_of_a_broadcast_has_its_own_number_of_events() {
    const STREAMS_OF_EACH: usize = 20;
    let (process, address) = serve(&["--log-level", STREAMS, "--workers", "1"]);
    let mut readers: Vec<EventSource> = Vec::new();
    for round in 0..4 {
        let open = || EventSource::open(address, "/events?topic=orders", &[]);
        readers.extend(std::iter::repeat_with(open).take(STREAMS_OF_EACH));
        push(address, &message("x", &format!("m{round}")));
        for reader in &mut readers {
            assert_eq!(reader.next().data, "x");
        }
    }
    drop(readers);
    let ended = lines(&process, "stream ended", 4 * STREAMS_OF_EACH);
    for events in 1..=4 {
        let count = ended.iter().filter(|line| line["events"] == events).count();
        assert_eq!(count, STREAMS_OF_EACH, "streams with {events} events");
    }
}

#[test]
fn by_default_no_line_is_about_one_stream() {
    let (process, address) = serve(&[]);
    let mut reader = EventSource::open(address, "/events", &[]);
    push(address, &message("x", "1"));
    reader.next();
    drop(reader);
    process.signal(rustix::process::Signal::TERM);
    let stopped = || process.log().iter().any(|line| line.contains("\"stopped\"")).then_some(());
    eventually("the log says that the gateway has stopped", stopped);
    assert!(!process.log().iter().any(|line| line.contains("stream opened")));
    assert!(!process.log().iter().any(|line| line.contains("stream ended")));
}

/// Slow readers have at most one line at level info in 10 s. Here the gateway ends two of them
/// within that time.
#[test]
fn of_two_slow_readers_only_the_first_is_logged_at_level_info() {
    let limits = ["--write-timeout", "1 s", "--ring-bytes", "64 MiB"];
    let (process, address) = serve(&[&limits[..], &["--log-level", STREAMS]].concat());
    let open = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.connect(&address.into()).unwrap();
        let mut socket: TcpStream = socket.into();
        http1::write_head(&mut socket, "GET", "/events?since=1h", &[]);
        socket
    };
    for at in 0..16 {
        push(address, &message("x".repeat(1 << 20), &at.to_string()));
    }
    let _readers = [open(), open()];
    let ended = lines(&process, "stream ended", 2);
    assert!(ended.iter().all(|line| line["reason"] == "stalled"), "{ended:?}");
    let [first, second] = [0, 1].map(|at| (&ended[at]["severity"], &ended[at]["more"]));
    assert_eq!((first, second), ((&"INFO".into(), &0.into()), (&"DEBUG".into(), &Value::Null)));
}

#[test]
fn the_line_of_a_message_names_its_trace() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    for (flags, name) in [
        (&["--trace-project", "my-project"][..], format!("projects/my-project/traces/{TRACE}")),
        (&[], TRACE.to_owned()),
    ] {
        let level = ["--log-level", "info,stream_events::inlet=debug"];
        let (process, address) = serve(&[&level, flags].concat());
        let mut traced = message("x", "1");
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        traced["attributes"] = json!({ "googclient_traceparent": parent });
        for message in [&traced, &traced, &message("x", "2")] {
            push(address, message);
        }
        let lines = lines(&process, "message handled", 3);
        let of = |field: &str| lines.iter().map(|line| line[field].clone()).collect::<Vec<_>>();
        assert_eq!(of("outcome"), ["stored", "duplicate", "stored"]);
        let trace = of("logging.googleapis.com/trace");
        assert_eq!(trace, [name.clone().into(), name.into(), Value::Null]);
        assert!(lines.iter().all(|line| line["id"].is_string()), "{lines:?}");
    }
}

/// The test sends tokens in each place that may hold one, a ticket, the whole name of a stream, and
/// data. The level is the one that logs most.
#[test]
fn no_line_holds_a_token_a_ticket_or_data() {
    let keys = KeyServer::start();
    let url = keys.url();
    let flags = ["--read-auth", "jwt", "--read-jwks-url", &url, "--read-cookie", "session"];
    let more = ["--publish-auth", "jwt", "--log-level", "trace"];
    let mut of_open = OPEN.to_vec();
    of_open.truncate(of_open.len() - 2);
    let process = Process::start(&mut stream_events(&[&of_open[..], &flags, &more].concat()));
    let address = process.listen();
    let get = |path: &str, headers: &[(&str, &str)]| {
        http1::request(address, "GET", path, headers, b"").status
    };
    eventually("the gateway is ready", || (get("/readyz", &[]) == 200).then_some(()));
    let mut claims = claims(&["*"]);
    claims["publish"] = json!(["*"]);
    let token = sign(&claims);
    let authorization = bearer(&token);
    let of_token = [("Authorization", &*authorization)];
    let answer = http1::request(address, "POST", "/ticket", &of_token, b"");
    let ticket = answer.json()["ticket"].as_str().unwrap().to_owned();
    let mut by_ticket = EventSource::open(address, &format!("/events?ticket={ticket}"), &[]);
    let cookie = format!("session={token}");
    let mut by_cookie = EventSource::open(address, "/events", &[("Cookie", &cookie)]);
    let opened: Value = serde_json::from_str(&by_cookie.opened.as_ref().unwrap().data).unwrap();
    let stream = opened["stream"].as_str().unwrap();
    let path = format!("/renew?stream={stream}");
    assert_eq!(http1::request(address, "POST", &path, &of_token, b"").status, 202);
    push(address, &message("pushed-secret", "1"));
    let path = "/publish/orders?attributes.k=attribute-secret";
    let published = http1::request(address, "POST", path, &of_token, b"published-secret");
    assert_eq!(published.status, 200);
    for reader in [&mut by_ticket, &mut by_cookie] {
        assert_eq!(reader.take(2), ["pushed-secret", "published-secret"]);
    }
    for path in ["/events?ticket=refused-secret", "/ws?ticket=refused-secret"] {
        get(path, &[]);
    }
    let refused = http1::request(
        address,
        "POST",
        "/ticket",
        &[("Authorization", "Bearer refused-secret")],
        b"",
    );
    assert_eq!(refused.status, 401);
    let poison = br#"{"message":{"data":"poison-secret!","messageId":"7"}}"#;
    http1::request(address, "POST", "/push/orders", &[], poison);
    drop((by_ticket, by_cookie));
    lines(&process, "stream ended", 2);
    let log = process.log().join("\n");
    assert!(log.contains("stream opened") && log.contains("poison message"), "{log}");
    let (_, signature) = token.rsplit_once('.').unwrap();
    for secret in [&*token, signature, &ticket, stream, "secret"] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}
