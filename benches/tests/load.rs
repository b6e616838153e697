//! The load generator against the floor: every mode ends well, and one lost message does not pass.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Output, Stdio},
};

use stream_events_bench::gateway;

struct Floor {
    child: Child,
    address: String,
}

impl Floor {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_floor"));
        let command = command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { child, address: address.trim_end().to_owned() }
    }

    fn load(&self, arguments: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_load"));
        let pid = self.child.id().to_string();
        command.args(["--dialect", "floor", "--address", &self.address, "--pid", &pid]);
        command.args(arguments.split_whitespace()).output().unwrap()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn every_mode_ends_well() {
    let floor = Floor::start(&[]);
    for (arguments, number, wanted) in [
        ("fanout --streams 20 --rate 100 --seconds 0.2", "deliveries", 400),
        ("fanout --streams 20 --topics 5 --rate 100 --seconds 0.2", "deliveries", 80),
        ("fanout --streams 3 --topics 3 --closed 8 --seconds 0.1", "violations", 0),
        ("ingest --connections 2 --seconds 0.1", "violations", 0),
        ("churn --streams 20 --rounds 2", "sockets_left", 0),
        ("idle --streams 20", "sockets_left", 0),
        ("soak --streams 20 --minutes 0.05 --topics-per-stream 1 --cut-every 2", "violations", 0),
        ("--size 4096 stalled --streams 5 --stalled 1 --rate 50 --seconds 0.5", "deliveries", 100),
    ] {
        let output = floor.load(arguments);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.success(), "{arguments}: {output:?}");
        assert_eq!(report[number], wanted, "{arguments}: {report}");
    }
    let output = Floor::start(&[]).load("replay --streams 10 --events 30");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.success(), &report["deliveries"]), (true, &300.into()), "{report}");
}

#[test]
fn a_lost_message_fails_the_run() {
    let floor = Floor::start(&["--drop-every", "30"]);
    let output = floor.load("fanout --streams 3 --rate 100 --seconds 0.5");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(told.contains("instead of"), "{told}");
}

#[test]
fn streams_that_are_cut_are_told_what_they_lost() {
    // What happens is drawn, and now and then hardly anything is published.
    let mut runs = (0..5).map(|_| soak());
    assert!(runs.any(|report| has_all(&report)), "nothing happened");
}

/// A run in which nothing may be lost untold.
fn soak() -> serde_json::Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_load"));
    // A reader that was away for a second has lost something.
    let flags = [("ring-events", "2"), ("write-timeout", "1s")];
    let address = gateway::start(&flags).unwrap().to_string();
    let pid = std::process::id().to_string();
    command.args(["--dialect", "gateway", "--address", &address, "--pid", &pid]);
    let soak =
        "soak --streams 50 --minutes 0.1 --topics 2 --stall-s 1 --cut-every 3 --stall-every 3";
    let output = command.args(soak.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Whether all happened that can.
fn has_all(report: &serde_json::Value) -> bool {
    let counts = |of: &serde_json::Value, what: &[&str]| {
        what.iter().all(|what| of[what].as_u64().is_some_and(|count| 0 < count))
    };
    counts(report, &["gaps", "missed_told", "stalls"])
        && counts(&report["reconnects"], &["closed", "reset"])
}

#[test]
fn a_lost_message_fails_a_soak() {
    let floor = Floor::start(&["--drop-every", "2"]);
    let output =
        floor.load("soak --streams 5 --minutes 0.05 --seed 1 --topics 1 --topics-per-stream 1");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(told.contains("lost"), "{told}");
}
