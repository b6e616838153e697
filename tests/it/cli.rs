//! The command line, as a user meets it.

use std::io::Write as _;

use crate::support::{
    gateway::Gateway,
    process::{Process, output, stream_events},
};

#[test]
fn a_bad_configuration_is_told_whole_and_nothing_is_bound() {
    let mut process = Process::start(
        stream_events(&["serve", "--ring-events", "none", "--keep-alive", "soon"])
            .env("STREAM_EVENTS_DRAIN", "3 h")
            .env("STREAM_EVENTS_KEEPALIVE", "15 s")
            .env("PORT", "http"),
    );
    let (status, _) = process.wait();
    assert_eq!(status.code(), Some(64));
    let all = crate::support::eventually("the problems", || {
        let log = process.log();
        (7 <= log.len()).then_some(log)
    });
    for named in [
        "--ring-events",
        "--keep-alive",
        "--drain",
        "STREAM_EVENTS_KEEPALIVE",
        "PORT",
        "--push-auth",
        "--read-auth",
    ] {
        assert!(all.iter().any(|line| line.starts_with(named)), "{named}: {all:#?}");
    }
}

#[test]
fn a_file_that_is_no_certificate_is_a_bad_configuration() {
    let arguments = ["dev", "--tls-cert", "/nonexistent", "--tls-key", "/nonexistent"];
    let mut process = Process::start(&mut stream_events(&arguments));
    assert_eq!(process.wait().0.code(), Some(64));
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = Gateway::dev(&[]);
    let address = taken.address.to_string();
    let mut process = Process::start(&mut stream_events(&["dev", "--listen", &address]));
    assert_eq!(process.wait().0.code(), Some(1));
    crate::support::eventually("the address", || {
        process.log().iter().any(|line| line.contains(&address)).then_some(())
    });
}

#[test]
fn flags_win_over_the_environment() {
    let arguments = ["dev", "--listen", "127.0.0.1:0", "--log-format", "json"];
    let process = Process::start(
        stream_events(&arguments)
            .env("STREAM_EVENTS_LISTEN", "127.0.0.1:1")
            .env("STREAM_EVENTS_TOPIC", "orders,parcels"),
    );
    let address = process.listen();
    for (topic, status) in [("orders", 200), ("parcels", 200), ("clicks", 404)] {
        let path = format!("/events?topic={topic}");
        let answer = crate::support::http1::request(address, "HEAD", &path, &[], b"");
        assert_eq!(answer.status, status, "{topic}");
    }
}

#[test]
fn publish_posts_as_pubsub_does() {
    let gateway = Gateway::dev(&[]);
    let url = format!("http://{}", gateway.address);
    let mut events = gateway.events("");
    let publish = |more: &[&str]| {
        let arguments = [&["publish", "--url", &url, "--topic", "orders"], more].concat();
        output(&mut stream_events(&arguments))
    };
    assert_eq!(publish(&["{\"id\":1}"]), (true, String::new()));
    assert_eq!(events.next().data, "{\"id\":1}");
    for form in [&[][..], &["--unwrapped"]] {
        let more = ["--attribute", "event=made", "--ordering-key", "k", "a\nb"];
        assert!(publish(&[form, &more].concat()).0, "{form:?}");
        let event = events.next();
        assert_eq!((event.event.as_str(), event.data.as_str()), ("made", "a\nb"), "{form:?}");
    }
    for _ in 0..2 {
        assert!(publish(&["--message-id", "7", "once"]).0);
    }
    assert_eq!(events.next().data, "once");
    gateway.until_metric("stream_events_pushes_total{outcome=\"duplicate\"}", 1.0);

    let (ok, text) = output(&mut stream_events(&["publish", "--url", &url, "--topic", "a/b", "x"]));
    assert!(!ok && text.contains("topic name"), "{text}");
    let (ok, text) = output(&mut stream_events(&[
        "publish",
        "--url",
        "http://127.0.0.1:1",
        "--topic",
        "orders",
        "x",
    ]));
    assert!(!ok && text.contains("stream-events dev"), "{text}");
}

#[test]
fn publish_reads_standard_input() {
    let gateway = Gateway::dev(&[]);
    let url = format!("http://{}", gateway.address);
    let mut events = gateway.events("");
    let mut child = stream_events(&["publish", "--url", &url, "--topic", "orders"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"from a pipe").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(events.next().data, "from a pipe");
}

#[test]
fn healthcheck_tells_a_container_engine() {
    let gateway = Gateway::dev(&[]);
    let port = gateway.ops.port();
    let mut command = stream_events(&["healthcheck"]);
    command.env("STREAM_EVENTS_OPS_LISTEN", format!("127.0.0.1:{port}"));
    assert_eq!(output(&mut command), (true, String::new()));
    drop(gateway);
    let (ok, text) = output(&mut command);
    assert!(!ok && text.contains("/readyz"), "{text}");
}

#[test]
fn help_names_every_flag_with_its_default_and_its_environment() {
    let (ok, text) = output(&mut stream_events(&["serve", "--help"]));
    assert!(ok);
    for knob in stream_events::config::KNOBS.iter().filter(|knob| !knob.secret) {
        assert!(text.contains(&format!("--{} <{}>", knob.flag, knob.value)), "{}", knob.flag);
        assert!(text.contains(&knob.env()), "{}", knob.flag);
    }
    let (ok, _) = output(&mut stream_events(&["--version"]));
    assert!(ok);
    assert!(!output(&mut stream_events(&["unknown"])).0);
}
