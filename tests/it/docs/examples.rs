//! Runs each example against a gateway whose streams end every second, so that each has to resume.

use std::{path::Path, process::Command};

use crate::support::{
    gateway::{Gateway, message},
    process::{installed, output},
};

fn example(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(file);
    path.to_str().unwrap().to_owned()
}

/// A command that prints `id<TAB>type<TAB>data as a JSON string` for so many events, and exits.
fn follows(mut command: Command) {
    let gateway = Gateway::dev(&[("stream-age-max", "1 s")]);
    let data = ["{\"id\":1}", "", " two\nlines", "grüße", "a\rb", "last"];
    command.arg(format!("http://{}/events?topic=orders", gateway.address));
    command.args(["--count", &data.len().to_string()]);
    let reader = std::thread::spawn(move || output(&mut command));
    gateway.until_metric("stream_events_streams_opened_total", 1.0);
    for (at, data) in data.iter().enumerate() {
        let mut typed = message(data, &at.to_string());
        typed["attributes"] = serde_json::json!({ "event": format!("type-{at}") });
        assert_eq!(gateway.push("orders", &typed).status, 204);
        // The next one comes when the stream has ended, and goes to one that resumed, or before.
        let ended = "stream_events_streams_ended_total{reason=\"max-age\"}";
        if at % 2 == 0 {
            let before = gateway.metric(ended);
            crate::support::eventually("the stream ends", || {
                (before < gateway.metric(ended)).then_some(())
            });
        }
    }
    let (ok, text) = reader.join().unwrap();
    assert!(ok, "{text}");
    let seen: Vec<_> = text.lines().map(|line| line.split('\t').collect::<Vec<_>>()).collect();
    assert_eq!(seen.len(), data.len(), "{text}");
    for (at, (line, data)) in seen.iter().zip(data).enumerate() {
        assert!(line[0].contains('-'), "{text}");
        assert_eq!(line[1], format!("type-{at}"));
        let got: String = serde_json::from_str(line[2]).unwrap();
        assert_eq!(got, data.replace('\r', "\n"));
    }
}

#[test]
fn push_sh() {
    let gateway = Gateway::dev(&[]);
    let mut events = gateway.events("?topic=parcels");
    let url = format!("http://{}", gateway.address);
    let run = |url: &str| output(Command::new("bash").args([&example("push.sh"), url, "parcels"]));
    let (ok, text) = run(&url);
    assert!(ok, "{text}");
    assert_eq!(
        events.take(2),
        ["{\"id\":1,\"text\":\"wrapped\"}", "{\"id\":2,\"text\":\"unwrapped\"}"]
    );
    assert!(!run("http://127.0.0.1:1").0, "it says when nothing was taken");
}

#[test]
fn node_mjs() {
    // Debian's package is called nodejs; scripts/test installs it.
    assert!(installed("node"), "node is not installed: run scripts/test");
    let mut command = Command::new("node");
    command.arg(example("node.mjs"));
    follows(command);
}

#[test]
fn python_py() {
    assert!(installed("python3"), "python3 is not installed: run scripts/test");
    let mut command = Command::new("python3");
    command.arg(example("python.py"));
    follows(command);
}

#[test]
fn subscribe_rs() {
    // `cargo test` builds the examples beside the program.
    let built = Path::new(env!("CARGO_BIN_EXE_stream-events")).parent().unwrap();
    let program = built.join("examples/subscribe");
    assert!(program.is_file(), "not built: run cargo build --example subscribe");
    follows(Command::new(program));
}
