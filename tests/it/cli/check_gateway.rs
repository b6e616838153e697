//! `stream-events check` of gateways that run.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    gateway::Gateway,
    nginx::Nginx,
    process::{output, stream_events},
    redis::free_port,
    tls::Certificate,
};

/// Report of `check --json`, and its exit code.
#[derive(Debug)]
pub struct Findings {
    pub report: Value,
    pub code: i32,
}

impl Findings {
    fn of(&self, check: &str) -> &Value {
        let findings = self.report["findings"].as_array().unwrap();
        let found = findings.iter().find(|finding| finding["check"] == check);
        found.unwrap_or_else(|| panic!("no finding {check}: {:#}", self.report))
    }

    pub fn result(&self, check: &str) -> &str {
        self.of(check)["result"].as_str().unwrap()
    }

    pub fn text(&self, check: &str) -> &str {
        self.of(check)["text"].as_str().unwrap()
    }

    /// Names of the checks that found a problem.
    pub fn problems(&self) -> Vec<&str> {
        let findings = self.report["findings"].as_array().unwrap().iter();
        let problems = findings.filter(|finding| finding["result"] == "problem");
        problems.map(|finding| finding["check"].as_str().unwrap()).collect()
    }

    /// Fails unless a check found a problem with this text and this setting of a program.
    pub fn problem(&self, check: &str, text: &str, (program, setting): (&str, &str)) {
        assert!((self.code, self.report["ok"].as_bool()) == (1, Some(false)), "{self:#?}");
        assert_eq!(self.result(check), "problem", "{self:#?}");
        assert!(self.text(check).contains(text), "{text}: {self:#?}");
        let named = self.of(check)["settings"][program].as_str().unwrap_or_default();
        assert!(named.contains(setting), "{program} {setting}: {self:#?}");
    }
}

/// Runs `check --json` with these arguments.
pub fn check(arguments: &[&str]) -> Findings {
    check_with(&mut stream_events(&[&["check", "--json"], arguments].concat()))
}

fn check_with(command: &mut Command) -> Findings {
    let output = command.output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|err| {
        panic!("{err}: {output:?}");
    });
    Findings { report, code: output.status.code().unwrap() }
}

/// A gateway that anyone may read, and that takes no pushes, with these flags.
pub fn open_gateway(flags: &[(&'static str, &str)]) -> Gateway {
    let open = [("push-auth", "off"), ("read-auth", "anonymous")];
    Gateway::serve(&[&open, flags].concat())
}

#[test]
fn nothing_is_wrong_with_a_gateway_alone() {
    let gateway = open_gateway(&[]);
    let url = gateway.address.to_string();
    let found = check(&[&url, "--watch", "1 s"]);
    assert_eq!((found.code, found.report["ok"].as_bool()), (0, Some(true)), "{found:#?}");
    for check in ["open", "buffering", "compression", "resume", "preflight", "http2", "push", "cut"]
    {
        assert_eq!(found.result(check), "ok", "{check}: {found:#?}");
    }
    assert!(found.text("keep-alive").contains("--watch of more than 40 s"), "{found:#?}");
    let (ok, text) = output(&mut stream_events(&["check", &url, "--watch", "1"]));
    assert!(ok && text.contains("\nok           buffering: the first block came "), "{text}");
    assert!(text.contains("\nnot checked  keep-alive: "), "{text}");
}

#[test]
fn a_gateway_to_which_anyone_can_push_is_found() {
    let gateway = Gateway::serve(&[("push-auth", "none"), ("read-auth", "anonymous")]);
    let mut events = gateway.events("");
    for url in ["", "/events?topic=orders"] {
        let found = check(&[&format!("{}{url}", gateway.address), "--watch", "1 s"]);
        found.problem(
            "push",
            "anyone who can connect can publish",
            ("gateway", "--push-auth oidc"),
        );
        assert_eq!(found.problems(), ["push"], "{url}");
    }
    // The check publishes nothing.
    gateway.publish("orders", "the first");
    assert_eq!(events.next().data, "the first");
}

#[test]
fn an_origin_that_the_gateway_does_not_know_is_found() {
    let gateway = open_gateway(&[("cors-origin", "https://app.example.com")]);
    let url = gateway.address.to_string();
    let of = |origin: &[&str]| check(&[&[&*url, "--watch", "1 s"], origin].concat());
    let found = of(&["--origin", "https://other.example.com"]);
    found.problem(
        "preflight",
        "https://other.example.com is refused",
        ("gateway", "--cors-origin"),
    );
    assert_eq!(of(&["--origin", "https://app.example.com"]).result("preflight"), "ok");
    let found = of(&[]);
    assert_eq!((found.code, found.result("preflight")), (0, "not checked"), "{found:#?}");
}

#[test]
fn a_proxy_that_changes_the_headers_of_cors_is_found() {
    let gateway = open_gateway(&[]);
    for (directives, text) in [
        ("add_header Access-Control-Allow-Origin * always;", "Access-Control-Allow-Origin twice"),
        ("limit_except GET { deny all; }", "403 Forbidden"),
        ("if ($request_method = OPTIONS) { return 204; }", "has no Access-Control-Allow-Origin"),
        ("proxy_hide_header Access-Control-Allow-Headers;", "header authorization"),
    ] {
        let nginx = Nginx::plain(&[gateway.address], directives, None);
        let url = nginx.address.to_string();
        let found = check(&[&url, "--watch", "1 s", "--origin", "https://app.example.com"]);
        assert_eq!(found.problems(), ["preflight"], "{directives}: {found:#?}");
        assert!(found.text("preflight").contains(text), "{directives}: {found:#?}");
    }
}

#[test]
fn a_front_without_http2_is_found() {
    let (gateway, certificate) = (open_gateway(&[]), Certificate::new());
    let of = |nginx: &Nginx| {
        let url = format!("https://localhost:{}", nginx.address.port());
        let mut command = stream_events(&["check", "--json", &url, "--watch", "1 s"]);
        check_with(command.env("SSL_CERT_FILE", &certificate.cert))
    };
    let of_words = |words| Nginx::plain(&[gateway.address], "", Some((&certificate, words)));
    let nginx = of_words("");
    let found = of(&nginx);
    found.problem("http2", "HTTP/1.1 only", ("nginx", "http2 on;"));
    assert_eq!(found.problems(), ["http2"]);
    let nginx = of_words("http2");
    let found = of(&nginx);
    assert_eq!((found.code, found.result("http2")), (0, "ok"), "{found:#?}");
}

/// Uses `deploy/nginx/l7.conf`.
#[test]
fn nothing_is_wrong_behind_the_nginx_of_the_project() {
    let (gateway, certificate) = (open_gateway(&[("trusted-proxies", "1")]), Certificate::new());
    let nginx = Nginx::l7([gateway.address; 2], &certificate, &[]);
    let url = format!("https://localhost:{}", nginx.address.port());
    let mut command = stream_events(&["check", "--json", &url, "--watch", "1 s"]);
    let found = check_with(command.env("SSL_CERT_FILE", &certificate.cert));
    assert_eq!(found.code, 0, "{found:#?}");
    for check in ["buffering", "compression", "resume", "preflight", "http2", "push", "cut"] {
        assert_eq!(found.result(check), "ok", "{check}: {found:#?}");
    }
}

#[test]
fn a_reader_without_a_token_learns_that_one_is_needed() {
    let folder = TempDir::new().unwrap();
    let key = folder.path().join("key");
    fs::write(&key, "0123456789abcdef0123456789abcdef").unwrap();
    let key = key.to_str().unwrap();
    let flags = [("push-auth", "off"), ("read-auth", "jwt"), ("read-key-file", key)];
    let gateway = Gateway::serve(&flags);
    let url = gateway.address.to_string();
    let found = check(&[&url, "--watch", "1 s"]);
    assert_eq!((found.code, found.result("open")), (0, "not checked"), "{found:#?}");
    assert_eq!((found.result("cut"), found.result("push")), ("not checked", "ok"), "{found:#?}");
    let make = ["token", "make", "--read-key-file", key, "--topic", "orders"];
    let (_, token) = output(&mut stream_events(&make));
    let file = folder.path().join("token");
    fs::write(&file, &token).unwrap();
    for given in [["--token", token.trim()], ["--token-file", file.to_str().unwrap()]] {
        let found = check(&[&[&*url, "--watch", "1 s"], &given[..]].concat());
        assert_eq!((found.code, found.result("resume")), (0, "ok"), "{found:#?}");
    }
    let found = check(&[&url, "--token", "hunter2"]);
    assert_eq!(found.problems(), ["open"], "{found:#?}");
    assert!(!found.report.to_string().contains("hunter2"), "{found:#?}");
}

#[test]
fn an_address_without_a_gateway_is_found() {
    let nobody = format!("127.0.0.1:{}/events?ticket=hunter2", free_port());
    let found = check(&[&nobody]);
    assert!(found.text("open").contains("cannot be reached"), "{found:#?}");
    assert!(!found.report.to_string().contains("hunter2"), "{found:#?}");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let lines = BufReader::new(&socket).lines().map_while(Result::ok);
            lines.take_while(|line| !line.is_empty()).count();
            let page = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html\r\n";
            socket.write_all(format!("{page}Content-Length: 0\r\n\r\n").as_bytes()).ok();
        }
    });
    let found = check(&[&address]);
    assert_eq!(found.problems(), ["open", "preflight"], "{found:#?}");
    assert!(found.text("open").contains("is text/html"), "{found:#?}");
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (arguments, named) in [
        (&["localhost", "--ring-events", "9"][..], "--ring-events"),
        (&["--watch", "9 s"], "URL"),
        (&["localhost", "--watch", "soon"], "--watch"),
        (&["ftp://localhost"], "URL: expected"),
        (&["localhost", "--token-file", "/nonexistent"], "--token-file"),
    ] {
        let result = stream_events(&[&["check"], arguments].concat()).output().unwrap();
        let text = String::from_utf8_lossy(&result.stderr).into_owned();
        assert_eq!(result.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(named), "{arguments:?}: {text}");
    }
}
