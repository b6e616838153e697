//! The command line, as a user meets it.

use std::{io::Write as _, process::Command};

use crate::support::{
    eventually,
    gateway::Gateway,
    process::{OPEN, Process, installed, output, stream_events},
    redis::free_port,
};

/// `serve`, open to all, with an ops listener on this port of loopback.
fn serve_with_ops(port: u16) -> Vec<&'static str> {
    let ops: &str = format!("127.0.0.1:{port}").leak();
    OPEN.iter().map(|argument| if *argument == "off" { ops } else { argument }).collect()
}

#[test]
fn a_bad_configuration_is_told_whole_and_nothing_is_bound() {
    let mut process = Process::start(
        stream_events(&["serve", "--ring-events", "none", "--keep-alive", "soon"])
            .env("STREAM_EVENTS_DRAIN_TIMEOUT", "3 h")
            .env("STREAM_EVENTS_KEEPALIVE", "15 s")
            .env("PORT", "http"),
    );
    let (status, _) = process.wait();
    assert_eq!(status.code(), Some(64));
    let all = eventually("the problems", || {
        let log = process.log();
        (7 <= log.len()).then_some(log)
    });
    for named in [
        "--ring-events",
        "--keep-alive",
        "--drain-timeout",
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
fn a_port_in_use_is_told_with_the_ways_out() {
    let taken = Gateway::dev(&[]);
    let (address, port) = (taken.address.to_string(), taken.address.port().to_string());
    let mut process = Process::start(&mut stream_events(&["dev", "--port", &port]));
    assert_eq!(process.wait().0.code(), Some(1));
    let log = eventually("the whole error", || {
        let log = process.log();
        (3 <= log.len()).then_some(log)
    });
    assert!(log[0].starts_with(&format!("--listen: cannot listen on {address}: ")), "{log:?}");
    assert!(log[1].contains("Choose another port: --port "), "{log:?}");
    assert!(log[2].contains(&format!(":{port}")), "{log:?}");
}

/// As people type it, and with a free port that the system chooses.
#[test]
fn addresses_and_times_are_read_as_people_type_them() {
    for address in [["--port", "0"], ["--listen", "0"], ["--listen", "localhost:0"]] {
        let arguments = [&["dev"], &address[..], &["--keep-alive", "15", "--log-format", "json"]];
        let process = Process::start(&mut stream_events(&arguments.concat()));
        let listen = process.listen();
        assert!(listen.ip().is_loopback() && listen.port() != 0, "{address:?}: {listen}");
    }
    let both = ["dev", "--port", "0", "--listen", "127.0.0.1:0"];
    let (ok, text) = output(&mut stream_events(&both));
    assert!(!ok && text.contains("only one of the two"), "{text}");
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

/// The gateway's address is in its arguments alone, as after `docker run IMAGE serve --ops-listen …`.
#[test]
fn healthcheck_reads_the_arguments_of_the_gateway() {
    let ops = free_port();
    let serve = serve_with_ops(ops);
    let gateway = Process::start(&mut stream_events(&serve));
    let pid = gateway.pid().to_string();
    let healthcheck = |pid: &str| output(&mut stream_events(&["healthcheck", "--pid", pid]));
    let seen = eventually("it is ready", || {
        let (ok, text) = healthcheck(&pid);
        ok.then_some(text)
    });
    assert_eq!(seen, "");
    let (ok, text) = healthcheck(&std::process::id().to_string());
    assert!(!ok && text.contains("is not a gateway"), "{text}");
    drop(gateway);
    let (ok, text) = healthcheck(&pid);
    assert!(!ok && text.contains("--pid"), "{text}");
}

/// As in a container: the gateway is process 1, and the command is the Dockerfile's HEALTHCHECK.
/// Where the system lets nobody make a namespace, the test above stands alone.
#[test]
fn healthcheck_in_a_container_reads_process_1() {
    let container = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];
    let unshare = |more: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(container).arg("--kill-child").args(more);
        command.env_remove("STREAM_EVENTS_OPS_LISTEN");
        command
    };
    if !installed("unshare") || !output(&mut unshare(&["true"])).0 {
        eprintln!("no namespaces here: not tried in a container");
        return;
    }
    let ops = free_port();
    let script =
        "(until \"$0\" healthcheck; do sleep 0.1; done; echo healthy >&2) & exec \"$0\" \"$@\"";
    let program = env!("CARGO_BIN_EXE_stream-events");
    let arguments = [&["sh", "-c", script, program], &serve_with_ops(ops)[..]].concat();
    let container = Process::start(&mut unshare(&arguments));
    eventually("the container is healthy", || {
        container.log().iter().any(|line| line == "healthy").then_some(())
    });
}

#[test]
fn help_names_every_flag_with_its_default_and_its_environment() {
    let (ok, text) = output(&mut stream_events(&["serve", "--help"]));
    assert!(ok);
    for flag in stream_events::config::flags().filter(|flag| !flag.is_secret) {
        assert!(text.contains(&format!("--{} <{}>", flag.name, flag.value_name)), "{}", flag.name);
        assert!(text.contains(&flag.env()), "{}", flag.name);
    }
    for heading in ["Listeners:", "Readers:", "Limits:"] {
        assert!(text.contains(heading), "{heading}");
    }
    let (ok, _) = output(&mut stream_events(&["--version"]));
    assert!(ok);
    assert!(!output(&mut stream_events(&["unknown"])).0);
}

#[test]
fn short_help_has_the_main_flags_and_names_the_long_one() {
    for command in ["dev", "serve"] {
        let (ok, text) = output(&mut stream_events(&[command, "-h"]));
        assert!(
            ok && text.contains(&format!("All flags: stream-events {command} --help")),
            "{text}"
        );
        for flag in stream_events::config::flags() {
            let named = text.contains(&format!("--{} <", flag.name));
            assert_eq!(named, flag.is_main, "{}", flag.name);
        }
        assert!(text.lines().count() < 60, "{text}");
    }
}

#[test]
fn completions_and_man_pages_know_the_flags() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().to_str().unwrap();
    for kind in ["bash", "elvish", "fish", "powershell", "zsh", "man"] {
        let (ok, text) = output(&mut stream_events(&["generate", kind, path]));
        assert!(ok, "{text}");
        let files = text.lines().map(|file| std::fs::read_to_string(file).unwrap());
        let all = files.collect::<String>().replace("\\-", "-");
        for named in ["read-auth", "stream-events", "token-file"] {
            assert!(all.contains(named), "{kind}: {named}");
        }
        if kind == "bash" {
            let script = std::fs::read_to_string(text.trim()).unwrap();
            assert!(Command::new("bash").args(["-n", "-c", &script]).status().unwrap().success());
        }
    }
    let (ok, text) = output(&mut stream_events(&["generate", "man", "/nonexistent"]));
    assert!(!ok && text.contains("/nonexistent: No such file"), "{text}");
}
