//! Settings of Redis: eviction, passwords, URLs and TLS.

use std::{fs, io::Write as _};

use crate::support::{
    eventually,
    gateway::{Gateway, message},
    process::{OPEN, output, serve, stream_events},
    redis::{RedisServer, free_port},
};

fn until_ready(gateway: &Gateway) {
    eventually("ready", || (gateway.get("/readyz", &[]).status == 200).then_some(()));
}

#[test]
fn server_that_evicts_is_refused_with_the_command_to_run() {
    let redis = RedisServer::with(&["--maxmemory-policy", "volatile-lru"]);
    let url = redis.url();
    let mut command = stream_events(&[&OPEN[..], &["--backplane", &url]].concat());
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let status = eventually("the process exits", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(64));
    let (_, text) = output(&mut stream_events(&[&OPEN[..], &["--backplane", &url]].concat()));
    assert!(text.contains("volatile-lru"), "{text}");
    assert!(text.contains("redis-cli CONFIG SET maxmemory-policy noeviction"), "{text}");
    // The command helps.
    redis.tell(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let (_process, _address) = serve(&["--backplane", &url]);
}

/// A server whose setting becomes wrong later is not used until the setting is corrected.
#[test]
fn server_that_begins_to_evict_is_not_used() {
    let mut redis = RedisServer::start();
    let gateway = Gateway::dev(&[("backplane", &redis.url())]);
    until_ready(&gateway);
    gateway.publish("orders", "before");
    redis.kill();
    let mut evicting = RedisServer::with(&["--maxmemory-policy", "allkeys-lru"]);
    // The other server gets the port of the first one.
    std::mem::swap(&mut redis.port, &mut evicting.port);
    evicting.restart();
    assert_eq!(gateway.push("orders", &message("x", "1")).status, 503);
    evicting.tell(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    eventually("confirmed", || {
        (gateway.push("orders", &message("x", "1")).status == 204).then_some(())
    });
}

#[test]
fn password_file_is_read_for_each_connection_and_never_logged() {
    let redis = RedisServer::with(&["--requirepass", "first secret"]);
    // The file has a wrong password at first.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "wrong secret\n").unwrap();
    let url = redis.url();
    let flags = ["--backplane", &url, "--redis-password-file", file.to_str().unwrap()];
    let (process, address) = serve(&[&flags[..], &["--log-level", "trace"]].concat());
    let push = || {
        let body = serde_json::json!({ "message": message("x", "1") }).to_string();
        crate::support::http1::request(address, "POST", "/push/orders", &[], body.as_bytes())
    };
    eventually("the reason is logged", || {
        process.log().iter().any(|line| line.contains("--redis-password-file")).then_some(())
    });
    assert_eq!(push().status, 503);
    fs::write(&file, "first secret\n").unwrap();
    eventually("confirmed", || (push().status == 204).then_some(()));
    let log = process.log().join("\n");
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn user_and_password_from_the_environment() {
    let redis = RedisServer::with(&[
        "--user",
        "gateway",
        "on",
        ">env-secret",
        "~*",
        "&*",
        "+@all",
        "--user",
        "default",
        "off",
    ]);
    let url = redis.url();
    let arguments = [&OPEN[..], &["--backplane", &url, "--redis-user", "gateway"]].concat();
    let mut command = stream_events(&arguments);
    command.env("STREAM_EVENTS_REDIS_PASSWORD", "env-secret");
    let process = crate::support::process::Process::start(&mut command);
    let address = process.listen();
    eventually("ready", || {
        let answer = crate::support::http1::request(address, "GET", "/readyz", &[], b"");
        (answer.status == 200).then_some(())
    });
}

#[test]
fn passwords_on_the_command_line_are_refused() {
    for (url, part) in [
        ("redis://user:hunter2@127.0.0.1", "--redis-password-file"),
        ("redis://:hunter2@127.0.0.1", "--redis-password-file"),
    ] {
        let (ok, text) = output(&mut stream_events(&[&OPEN[..], &["--backplane", url]].concat()));
        assert!(!ok && text.contains(part) && !text.contains("hunter2"), "{text}");
    }
    let flag = ["--redis-password", "hunter2"];
    let (ok, _) = output(&mut stream_events(&[&OPEN[..], &flag].concat()));
    assert!(!ok, "there is no such flag");
    for (url, part) in [
        ("http://127.0.0.1", "redis://"),
        ("redis://127.0.0.1/x", "number"),
        ("redis://127.0.0.1?a=b", "query"),
        ("127.0.0.1:6379", "redis://"),
    ] {
        let (ok, text) = output(&mut stream_events(&[&OPEN[..], &["--backplane", url]].concat()));
        assert!(!ok && text.contains("--backplane") && text.contains(part), "{url}: {text}");
    }
}

/// TLS with a private CA: Memorystore has one for each instance.
#[test]
fn tls_with_a_private_ca() {
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertifiedIssuer::self_signed(authority, authority_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate =
        rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (ca, cert) = (file("ca.pem", authority.pem()), file("cert.pem", certificate.pem()));
    let key = file("key.pem", key.serialize_pem());
    let port = free_port().to_string();
    let _redis = RedisServer::with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ]);
    let url = format!("rediss://localhost:{port}");
    let gateway = Gateway::dev(&[("backplane", &url), ("redis-ca", &ca)]);
    until_ready(&gateway);
    gateway.publish("orders", "over TLS");
    assert_eq!(gateway.events("?since=1h").next().data, "over TLS");
    // Without --redis-ca the certificate of the server is not trusted.
    let (process, _) = serve(&["--backplane", &url]);
    eventually("the reason is logged", || {
        process.log().iter().any(|line| line.contains("certificate")).then_some(())
    });
}
