//! `stream-events check` of a configuration.

use std::{fs, net::TcpListener, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    process::{OPEN, stream_events},
    redis::{RedisServer, free_port},
    tls::Certificate,
};

/// Runs a command to its end. Returns its exit code, and what it printed.
fn run(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text)
}

/// Runs `check` with the flags of an open gateway, and with these flags.
fn check(flags: &[&str]) -> (i32, String) {
    run(&mut stream_events(&[&["check"], &OPEN[1..], flags].concat()))
}

#[test]
fn every_problem_is_reported_at_once_and_names_its_setting() {
    let folder = TempDir::new().unwrap();
    let short = folder.path().join("short");
    fs::write(&short, "hunter2").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let redis = format!("redis://127.0.0.1:{}", free_port());
    let mut command = stream_events(&["check", "--ring-events", "none", "--keep-alive", "soon"]);
    command.args(["--push-auth", "none", "--read-auth", "jwt", "--listen", &listen]);
    command.args(["--tls-cert", "/nonexistent/cert", "--tls-key", "/nonexistent/key"]);
    command.args(["--backplane", &redis]).arg("--read-key-file").arg(&short);
    command.env("STREAM_EVENTS_KEEPALIVE", "15 s").env("STREAM_EVENTS_OPS_LISTEN", "off");
    let (code, text) = run(&mut command);
    assert_eq!(code, 1, "{text}");
    for wanted in [
        "flags: --ring-events: \"none\" is not a whole number",
        "flags: --keep-alive: \"soon\" is not a time",
        "flags: STREAM_EVENTS_KEEPALIVE: no flag has this variable",
        "tls: --tls-cert: cannot read",
        "tls: --tls-key: cannot read",
        "read-key-file: --read-key-file: ",
        "redis: --backplane: the Redis server 127.0.0.1:",
        &format!("listen: --listen: cannot listen on {listen}"),
    ] {
        let begin = format!("problem      {wanted}");
        assert!(text.lines().any(|line| line.starts_with(&begin)), "{wanted}: {text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
    let report: Value = serde_json::from_str(&run(command.arg("--json")).1).unwrap();
    assert_eq!(report["ok"], false);
    let findings = report["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 8, "{report:#}");
    assert!(findings.iter().all(|finding| finding["result"] == "problem"), "{report:#}");
}

#[test]
fn a_good_configuration_has_no_problem_and_nothing_listens() {
    let (certificate, redis) = (Certificate::new(), RedisServer::start());
    let key = redis.folder.path().join("key");
    fs::write(&key, "0123456789".repeat(4)).unwrap();
    // `check` tries whether it could listen on this port, and leaves it free.
    let free = free_port();
    let mut command = stream_events(&["check", "--push-auth", "none", "--read-auth", "jwt"]);
    command.args(["--listen", &format!("127.0.0.1:{free}"), "--ops-listen", "off"]);
    command.args(["--backplane", &redis.url()]).arg("--read-key-file").arg(&key);
    command.arg("--tls-cert").arg(&certificate.cert).arg("--tls-key").arg(&certificate.key);
    let (code, text) = run(&mut command);
    assert_eq!(code, 0, "{text}");
    let begins = ["flags", "tls", "read-key-file", "redis", "listen"];
    assert_eq!(text.lines().count(), begins.len(), "{text}");
    for (line, check) in text.lines().zip(begins) {
        assert!(line.starts_with(&format!("ok           {check}: ")), "{text}");
    }
    TcpListener::bind(("127.0.0.1", free)).unwrap();
}

#[test]
fn a_key_of_another_certificate_is_a_problem() {
    let (one, other) = (Certificate::new(), Certificate::new());
    let (cert, key) = (one.cert.to_str().unwrap(), other.key.to_str().unwrap());
    let (code, text) = check(&["--tls-cert", cert, "--tls-key", key]);
    assert!(code == 1 && text.contains("problem      tls: --tls-cert, --tls-key: "), "{text}");
}

#[test]
fn rules_between_flags_are_checked_together() {
    let rules =
        ["--dedup-age", "1 min", "--ring-bytes", "256 MiB", "--ring-bytes-total", "128 MiB"];
    let (code, text) = check(&rules);
    assert!(code == 1 && text.contains("--dedup-age must be"), "{text}");
    assert!(text.contains("--ring-bytes-total must be"), "{text}");
}

#[test]
fn unknown_arguments_have_an_exit_code_of_their_own() {
    let (code, text) = check(&["--ring-event", "1"]);
    assert!(code == 2 && text.contains("--ring-event"), "{text}");
    assert_eq!(run(&mut stream_events(&["check", "--help"])).0, 0);
}
