//! `stream-events tail`, as a user meets it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    process::{Command, Stdio},
};

use proptest::prelude::*;
use serde_json::Value;
use stream_events::cli::tail::event_stream;

use crate::support::{
    eventually,
    gateway::Gateway,
    parser,
    process::{Process, output, stream_events},
    redis::free_port,
};

/// Runs `tail` with these arguments to its end. Returns whether it succeeded, and all its output.
fn tail(url: &str, arguments: &[&str]) -> (bool, String) {
    output(&mut stream_events(&[&["tail", "--url", url], arguments].concat()))
}

/// Returns what the parser of `tail` makes of these parts: events, the last event id, and `retry`.
fn parsed(parts: &[&[u8]]) -> (Vec<parser::Dispatched>, String, Option<u64>) {
    let mut parser = event_stream::Parser::new("before");
    let events = parts.iter().flat_map(|part| parser.parse(part).unwrap());
    let events = events.map(|event| parser::Dispatched {
        id: event.id,
        event: event.event,
        data: event.data,
    });
    let events = events.collect();
    (events, parser.last_event_id().to_owned(), parser.retry_ms())
}

/// Returns what the oracle makes of a whole stream.
fn expected(stream: &[u8]) -> (Vec<parser::Dispatched>, String, Option<u64>) {
    let mut oracle = parser::Parser::default();
    oracle.resume("before");
    let events = oracle.feed(stream);
    (events, oracle.last_event_id.clone(), oracle.retry)
}

#[test]
fn the_parser_obeys_the_standard_at_every_cut() {
    let stream = "\u{feff}: comment\r\nid: 1\r\ndata: a\r\ndata:b\r\r\nevent: made\ndata\n\n\
                  id\ndata:  two\r\rretry: 10\nretry: x\nretry:\nid: a\0b\nevent: only\n\n\
                  data: \u{1f600}\nnonsense: 1\nid: last\n\ndata: unfinished\n"
        .as_bytes();
    let want = expected(stream);
    assert_eq!(want.0.len(), 4);
    assert_eq!((want.1.as_str(), want.2), ("last", Some(10)));
    for cut in 0..=stream.len() {
        assert_eq!(parsed(&[&stream[..cut], &stream[cut..]]), want, "cut at {cut}");
    }
    let bytes: Vec<_> = stream.chunks(1).collect();
    assert_eq!(parsed(&bytes), want, "byte by byte");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Streams of the characters and words that mean something, cut anywhere.
    #[test]
    fn the_parser_agrees_with_the_oracle(
        words in prop::collection::vec(prop::sample::select(vec![
            "\r", "\n", "\r\n", ":", " ", "data", "data: x", "id", "id: 7", "event: e", "retry: 5",
            "\0", "\u{feff}", "\u{e4}", "retry: 99999999999999999999999",
        ]), 0..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let stream = words.concat().into_bytes();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let begins = std::iter::once(0).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain([stream.len()]);
        let parts: Vec<_> = begins.zip(ends).map(|(begin, end)| &stream[begin..end]).collect();
        let (events, id, retry) = parsed(&parts);
        let want = expected(&stream);
        prop_assert_eq!((events, id), (want.0, want.1));
        // The oracle forgets a number that is too large; `tail` keeps the one before it.
        if !words.iter().any(|word| word.contains("999")) {
            prop_assert_eq!(retry, want.2);
        }
    }
}

/// Answers each connection with the next of these texts, and closes it. Returns the address, and a
/// thread that returns the requests.
fn server(answers: Vec<String>) -> (SocketAddr, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let answer = |text: String| {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                socket.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            socket.write_all(text.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        };
        answers.into_iter().map(answer).collect()
    });
    (address, thread)
}

/// Returns an answer with these lines of a stream.
fn stream(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n{text}")
}

#[test]
fn a_cut_stream_is_resumed_after_the_last_whole_event() {
    let (address, requests) = server(vec![
        stream("retry: 10\nid: 1\ndata: a\n\nid: 2\ndata: half"),
        stream("retry: 10\nid: 2\ndata: b\n\n"),
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"
            .to_owned(),
        stream("id: 3\ndata: c\n\n"),
    ]);
    let (ok, text) = tail(&address.to_string(), &["--format", "data", "--count", "3"]);
    assert!(ok && text.starts_with("a\nb\nc\n"), "{text}");
    let requests = requests.join().unwrap();
    let id_of = |request: &String| {
        let line = request.lines().find_map(|line| line.strip_prefix("last-event-id: "));
        line.unwrap_or("-").to_owned()
    };
    assert_eq!(requests.iter().map(id_of).collect::<Vec<_>>(), ["-", "1", "2", "2"]);
}

#[test]
fn answers_that_are_no_stream_are_reported() {
    for (head, told) in [
        ("204 No Content\r\n", "204 No Content: it wants no further connection"),
        ("200 OK\r\nContent-Type: text/html\r\n", "the answer is text/html, expected text/event"),
        ("401 Unauthorized\r\nContent-Length: 0\r\n", "the gateway answered 401 Unauthorized"),
    ] {
        let (address, requests) = server(vec![format!("HTTP/1.1 {head}\r\n")]);
        let (ok, text) = tail(&address.to_string(), &[]);
        assert!(!ok && text.contains(told), "{head}: {text}");
        requests.join().unwrap();
    }
    let nobody = format!("127.0.0.1:{}", free_port());
    let (ok, text) = tail(&nobody, &[]);
    assert!(!ok && text.contains("Start one with: stream-events dev"), "{text}");
}

#[test]
fn redirects_are_followed() {
    for status in ["301 Moved Permanently", "307 Temporary Redirect"] {
        let (target, last) = server(vec![stream("data: there\n\n")]);
        let (address, first) = server(vec![format!(
            "HTTP/1.1 {status}\r\nLocation: http://{target}/moved\r\nContent-Length: 0\r\n\r\n"
        )]);
        let arguments = ["--format", "data", "--count", "1"];
        assert_eq!(
            tail(&address.to_string(), &arguments),
            (true, "there\n".to_owned()),
            "{status}"
        );
        assert!(last.join().unwrap()[0].starts_with("GET /moved "));
        first.join().unwrap();
    }
}

/// The gateway ends each stream after a second. Every event is printed once all the same.
#[test]
fn a_pipe_gets_each_event_once_through_the_ends_of_streams() {
    let gateway = Gateway::dev(&[("stream-age-max", "1 s")]);
    let url = gateway.address.to_string();
    let arguments = ["tail", "--url", &url, "--topic", "orders", "--count", "300"];
    let child = stream_events(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    gateway.until_metric("stream_events_streams_opened_total", 1.0);
    let ended = "stream_events_streams_ended_total{reason=\"max-age\"}";
    for part in 0..3 {
        // The third hundred ends the command.
        eventually("the end of a stream", || {
            (f64::from(part) <= gateway.metric(ended)).then_some(())
        });
        (0..100).for_each(|i| gateway.publish("orders", format!("{{\"n\":{}}}", part * 100 + i)));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let numbers: Vec<_> = lines.map(|event| event["data"]["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..300).collect::<Vec<_>>());
}

/// A gateway that starts again has lost its events, and the output says so.
#[test]
fn a_gap_is_printed() {
    let port = free_port().to_string();
    let gateway = || {
        let arguments = ["dev", "--port", &port, "--ops-listen", "off", "--log-format", "json"];
        let process = Process::start(&mut stream_events(&arguments));
        process.listen();
        process
    };
    let publish = |data: &str| {
        let publish = ["publish", "--url", &format!("127.0.0.1:{port}"), "--topic", "orders", data];
        assert!(output(&mut stream_events(&publish)).0);
    };
    let first = gateway();
    let url = format!("127.0.0.1:{port}");
    let arguments = ["tail", "--url", &url, "--since", "1m", "--count", "2"];
    let mut child = stream_events(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    publish("first");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut until = |text: &str| {
        let found = lines.by_ref().map(Result::unwrap).find(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("{text:?} was not printed"))
    };
    until("\"data\":\"first\"");
    drop(first);
    let _second = gateway();
    publish("second");
    until("{\"stream-gap\":{\"reason\":\"restart\"");
    until("\"data\":\"second\"");
    assert!(child.wait().unwrap().success());
}

/// On a terminal, of which `script` makes one.
#[test]
fn a_terminal_gets_times_colors_and_no_control_characters() {
    let gateway = Gateway::dev(&[]);
    gateway.publish("orders", "\x1b]0;owned\x07 text");
    let program = env!("CARGO_BIN_EXE_stream-events");
    let command = format!("{program} tail --url {} --since 1h --count 1", gateway.address);
    let mut script = Command::new("script");
    let (ok, text) = output(script.args(["-qec", &command, "/dev/null"]));
    assert!(
        ok && text.contains("\x1b[36morders\x1b[0m") && text.contains("\\u{1b}]0;"),
        "{text:?}"
    );
    assert!(!text.contains("\x1b]") && !text.contains('\x07'), "{text:?}");
    let (_, plain) = output(script.env("NO_COLOR", "1"));
    assert!(plain.contains(" orders ") && !plain.contains('\x1b'), "{plain:?}");
}

#[test]
fn arguments_become_the_query() {
    let gateway = Gateway::dev(&[]);
    let url = gateway.address.to_string();
    for (topic, part) in [("orders", "a"), ("orders", "b"), ("others", "a")] {
        let publish = ["publish", "--url", &url, "--topic", topic];
        let attribute = format!("part={part}");
        let command = [&publish[..], &["--attribute", &attribute, topic]].concat();
        assert!(output(&mut stream_events(&command)).0);
    }
    let filter = "attributes.part = \"a\"";
    let chosen = ["--topic", "orders", "--filter", filter, "--since", "1h", "--count", "1"];
    let (ok, text) = tail(&url, &chosen);
    let line = text.lines().find(|line| line.contains("\"topic\"")).unwrap_or_default();
    assert!(ok && line.contains("\"topic\":\"orders\"") && line.contains("\"a\""), "{text}");
    let (ok, text) = tail(&url, &["--filter", "attributes."]);
    assert!(!ok && text.contains("400 Bad Request: filter: at character"), "{text}");
    let cloud = ["--since", "1h", "--count", "1", "--format", "cloudevents"];
    assert!(tail(&url, &cloud).1.contains("\"specversion\":\"1.0\""));
}
