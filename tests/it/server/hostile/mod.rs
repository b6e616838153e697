//! Attacks, one test for each. After each a normal client gets its events within a second, and the
//! memory is back within [`KEPT_MAX_KIB`](crate::support::victim::KEPT_MAX_KIB) of what it was.

mod content;
mod heads;
mod identity;
mod presence;
mod websockets;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::support::{
    PATIENCE, eventually,
    http1::{self, CLOSED},
    jwks::{Behaviour, KeyServer},
    victim::{KEPT_MAX_KIB, Victim},
};

/// Sends a byte on each connection at intervals until all are closed. Returns the time this took.
fn drip(mut sockets: Vec<TcpStream>, byte: u8) -> Duration {
    let start = Instant::now();
    for socket in &sockets {
        socket.set_nonblocking(true).unwrap();
    }
    while !sockets.is_empty() {
        assert!(start.elapsed() < PATIENCE, "{} are still open", sockets.len());
        sockets.retain_mut(|socket| {
            let open = socket.write_all(&[byte]).is_ok();
            open && !matches!(socket.read(&mut [0; 512]), Ok(0))
        });
        std::thread::sleep(Duration::from_millis(50));
    }
    start.elapsed()
}

/// Opens connections and sends the same bytes on each.
fn begin(victim: &Victim, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let begun = || {
        let mut socket = http1::connect(victim.address);
        socket.write_all(bytes).unwrap();
        socket
    };
    (0..count).map(|_| begun()).collect()
}

#[test]
fn slow_loris_heads() {
    let victim = Victim::serve(&["--header-timeout", "1 s"]).calm();
    let sockets = begin(&victim, 500, b"GET /events HTTP/1.1\r\nHost: localhost\r\nX-A: ");
    victim.serves_a_normal_client();
    assert!(drip(sockets, b'a') < Duration::from_secs(10));
    victim.has_recovered();
}

/// Many connections send large heads that never end. Together they use no more than the budget.
#[test]
fn heads_that_fill_the_memory() {
    for line_end in ["\r\n", "\n"] {
        heads_fill_the_memory(line_end);
    }
}

fn heads_fill_the_memory(line_end: &str) {
    let victim = Victim::serve(&["--header-timeout", "5 min"]).calm();
    let line = "GET /events?a-name-that-is-long-enough HTTP/1.1";
    let head = format!("{line}{line_end}Host: a{line_end}X: {}", "x".repeat(100_000));
    let sockets: Vec<_> = (0..2_000)
        .map(|_| {
            let mut socket = http1::connect(victim.address);
            socket.write_all(head.as_bytes()).ok();
            socket
        })
        .collect();
    victim.serves_a_normal_client();
    let taken = victim.memory_kib();
    assert!(taken < 150 * 1024, "{taken} KiB used of the 200,000 KiB sent");
    // A head with LF alone is refused for its form, before it is large.
    assert!(line_end == "\n" || 0.0 < victim.limit_met("head-bytes-max"));
    drop(sockets);
    victim.has_recovered_but_for(2 * KEPT_MAX_KIB);
}

#[test]
fn slow_loris_bodies() {
    let victim = Victim::serve(&["--body-timeout", "1 s"]).calm();
    let head = "POST /push/orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n{";
    let mut sockets = begin(&victim, 300, head.as_bytes());
    let chunked = "POST /push HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    sockets.extend(begin(&victim, 200, format!("{chunked}fffff\r\n").as_bytes()));
    victim.serves_a_normal_client();
    assert!(drip(sockets, b' ') < Duration::from_secs(10));
    victim.has_recovered();
}

/// 50 readers open streams and read nothing while 100 MB are published.
#[test]
fn readers_that_never_read() {
    let victim = Victim::serve(&["--write-timeout", "2 s", "--ring-events", "4"]).calm();
    let silent: Vec<_> = (0..50)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_recv_buffer_size(4_096).unwrap();
            socket.connect(&victim.address.into()).unwrap();
            let mut socket = TcpStream::from(socket);
            http1::write_head(&mut socket, "GET", "/events", &[]);
            socket
        })
        .collect();
    let megabyte = "x".repeat(1_000_000);
    for _ in 0..100 {
        victim.publish("orders", &megabyte);
    }
    victim.serves_a_normal_client();
    eventually("all stalled streams are closed", || (victim.streams() < 1.0).then_some(()));
    drop(silent);
    (0..4).for_each(|_| victim.publish("orders", "small"));
    victim.has_recovered();
}

#[test]
fn ten_thousand_silent_connections() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let mut victim = Victim::serve(&["--handshake-timeout", "10 s"]).calm();
    open_silent_connections(&victim);
    // The allocator keeps most of the 3 KiB of each connection for reuse, so a second attack needs no
    // more memory.
    victim.has_recovered_but_for(48 * 1024);
    victim = victim.calm();
    open_silent_connections(&victim);
    let (once, twice) = (victim.calm_kib, victim.memory_kib());
    assert!(twice < once + 4 * 1024, "{once} KiB after one attack, {twice} after two");
}

/// Opens 10,000 connections, and waits until the gateway has closed them.
fn open_silent_connections(victim: &Victim) {
    let mut silent = Vec::new();
    for n in 0..10_000_u32 {
        // Ten source addresses, since one has only 28,000 ports.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket
            .bind(&std::net::SocketAddr::from(([127, 0, 0, 2 + (n % 10) as u8], 0)).into())
            .unwrap();
        socket.connect(&victim.address.into()).unwrap();
        silent.push(TcpStream::from(socket));
    }
    victim.serves_a_normal_client();
    for mut socket in silent {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let read = socket.read(&mut [0]);
        let reset = |err: &std::io::Error| err.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(matches!(read, Ok(0)) || read.as_ref().is_err_and(reset), "not closed: {read:?}");
    }
}

/// Heads that one server reads as one request and another server as two. Bytes behind an ambiguous head
/// must not be answered ([RFC 9112, section 11.2](https://www.rfc-editor.org/rfc/rfc9112#section-11.2)).
#[test]
fn request_smuggling() {
    let victim = Victim::serve(&[]).calm();
    let hidden = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let length = hidden.len();
    let both = format!("Content-Length: {length}\r\nTransfer-Encoding: chunked");
    let lengths = format!("Content-Length: 0\r\nContent-Length: {length}");
    let fields = [
        both,
        lengths,
        format!("Content-Length: 0, {length}"),
        format!("Content-Length: +{length}"),
        format!("Content-Length : {length}"),
        format!("X: a\r\n Content-Length: {length}"),
        format!("X: a\rContent-Length: {length}"),
        format!("X: a\0b\r\nContent-Length: {length}"),
        "Content-Length: -1".to_owned(),
        "Content-Length: 0x10".to_owned(),
        "Content-Length: 99999999999999999999999".to_owned(),
        "Transfer-Encoding: identity".to_owned(),
        "Transfer-Encoding: xchunked".to_owned(),
        "Transfer-Encoding: gzip, chunked".to_owned(),
        "Transfer-Encoding: chunked, identity".to_owned(),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked".to_owned(),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x".to_owned(),
        "Transfer-Encoding: \u{b}chunked".to_owned(),
        "Transfer-Encoding : chunked".to_owned(),
        "Transfer-Encoding:\r\n chunked".to_owned(),
        "Host: another".to_owned(),
    ];
    for first in ["POST /push/orders", "GET /events", "GET /healthz"] {
        for fields in &fields {
            let head = format!("{first} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n");
            assert_refused_once(&victim, &format!("{head}0\r\n\r\n{hidden}"));
        }
    }
    // Malformed chunks.
    for chunks in ["-1\r\n", "fffffffffffffffff\r\n", "0;a=\n", "0\n\n", "1\r\nabc\r\n0\r\n\r\n"] {
        let head =
            "POST /push/orders HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_refused_once(&victim, &format!("{head}{chunks}{hidden}"));
    }
    for line in
        ["GET /healthz HTTP/1.1 x", "GET /healthz", "GET  /healthz HTTP/1.1", " GET / HTTP/1.1"]
    {
        assert_refused_once(&victim, &format!("{line}\r\nHost: localhost\r\n\r\n{hidden}"));
    }
    assert_refused_once(&victim, &format!("GET /healthz HTTP/1.1\r\n\r\n{hidden}"));
    victim.has_recovered();
}

/// Checks that the bytes get one answer, a refusal, and that the connection is closed.
fn assert_refused_once(victim: &Victim, bytes: &str) {
    let text = victim.raw(bytes.as_bytes());
    assert!(text.starts_with("HTTP/1.1 400 "), "{bytes:?}: {text}");
    assert_eq!(text.matches("HTTP/1.").count(), 1, "{bytes:?}: {text}");
    assert!(text.ends_with(CLOSED), "{bytes:?}: {text}");
}

/// More idle connections than the limit, each after one request. The gateway closes them early to make
/// room for others.
#[test]
fn idle_connections_over_the_limit() {
    let limits = ["--workers", "1", "--subscribers-max", "10", "--idle-connections-max", "200"];
    let victim = Victim::serve(&limits).calm();
    let mut idle = Vec::new();
    for _ in 0..1_000 {
        let Ok(mut socket) = TcpStream::connect(victim.address) else { break };
        socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").ok();
        idle.push(socket);
    }
    victim.serves_a_normal_client();
    assert!(0.0 < victim.limit_met("idle-connections-max"));
    victim.has_recovered();
    drop(idle);
}

/// Opens and resets tens of thousands of streams (CVE-2023-44487).
#[test]
fn http2_rapid_reset() {
    let victim = Victim::serve(&[]).calm();
    let ended = reset_requests(&victim, Duration::ZERO);
    // The gateway sends a GOAWAY. The client may notice a failed write first.
    let calmed = ended.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
    assert!(calmed || ended.is_io(), "{ended}");
    eventually("all streams have ended", || (victim.streams() < 1.0).then_some(()));
    victim.has_recovered();
}

/// Resets requests before they are answered. Their answers wait for the key set of the issuer.
#[test]
fn http2_late_resets() {
    let keys = KeyServer::with(Behaviour::Hang);
    let url = keys.url();
    let victim = Victim::start(&[
        "--push-auth",
        "none",
        "--read-auth",
        "jwt",
        "--read-jwks-url",
        &url,
        "--http2-streams-max",
        "100",
    ]);
    let before = victim.memory_kib();
    let ended = reset_requests(&victim, Duration::from_millis(50));
    eprintln!("{before} KiB before, {} after: {ended}", victim.memory_kib());
    assert!(victim.memory_kib() < before + KEPT_MAX_KIB, "reset requests keep memory");
}

/// Requests streams with a token and resets them after `after`, a hundred at a time. Returns the error
/// with which the connection ended.
fn reset_requests(victim: &Victim, after: Duration) -> h2::Error {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(victim.address).await.unwrap();
        let mut client = h2::client::Builder::new();
        client.initial_max_send_streams(100).max_concurrent_reset_streams(100_000);
        let (send, connection) = client.handshake::<_, ::bytes::Bytes>(socket).await.unwrap();
        let driver = tokio::spawn(connection);
        let token = crate::support::jwks::sign(&crate::auth::reader::claims(&["*"]));
        let attack = async {
            for _ in 0..100_000 / (1 + after.as_millis() as usize * 20) {
                let mut requests = Vec::new();
                for _ in 0..100 {
                    let mut send = send.clone().ready().await?;
                    let request = http::Request::get("http://localhost/events")
                        .header("authorization", crate::auth::reader::bearer(&token));
                    requests.push(send.send_request(request.body(()).unwrap(), true)?);
                }
                tokio::time::sleep(after).await;
                for (_, stream) in &mut requests {
                    stream.send_reset(h2::Reason::CANCEL);
                }
                tokio::task::yield_now().await;
            }
            Err(h2::Reason::NO_ERROR.into())
        };
        let ended: Result<(), h2::Error> =
            tokio::time::timeout(PATIENCE, attack).await.expect("the attack takes too long");
        driver.abort();
        ended.unwrap_err()
    })
}
