//! Attacks over WebSockets: slow handshakes, clients that never read, and clients that send for ever.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use super::{begin, drip};
use crate::support::{
    PATIENCE, eventually, http1,
    victim::Victim,
    websocket::{HANDSHAKE, frame},
};

#[test]
fn slow_loris_handshakes() {
    let victim = Victim::serve(&["--header-timeout", "1 s"]).calm();
    let head = "GET /ws?topic=orders HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nX-A: ";
    let sockets = begin(&victim, 500, head.as_bytes());
    victim.serves_a_normal_client();
    assert!(drip(sockets, b'a') < Duration::from_secs(10));
    victim.has_recovered();
}

/// Opens WebSockets whose kernel holds little.
fn open_narrow(victim: &Victim, count: usize, path: &str) -> Vec<TcpStream> {
    let opened = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.connect(&victim.address.into()).unwrap();
        let mut socket = TcpStream::from(socket);
        http1::write_head(&mut socket, "GET", path, &HANDSHAKE);
        socket
    };
    (0..count).map(|_| opened()).collect()
}

/// 50 clients open streams and read nothing while 100 MB are published.
#[test]
fn websockets_that_never_read() {
    let victim = Victim::serve(&["--write-timeout", "2 s", "--ring-events", "4"]).calm();
    let silent = open_narrow(&victim, 50, "/ws?topic=orders");
    eventually("all streams are open", || (50.0 <= victim.streams()).then_some(()));
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

/// Clients that send for ever and read nothing: many small frames, one message that never ends, and
/// large messages.
#[test]
fn websockets_that_send_for_ever() {
    let victim = Victim::serve(&["--write-timeout", "2 s"]).calm();
    let endless = [frame(0x01, b"{"), frame(0x00, &[b' '; 1_000]).repeat(200)].concat();
    let attacks = [
        ("pings", frame(0x89, &[b'x'; 125]).repeat(1_000)),
        (
            "commands",
            frame(0x81, b"{\"type\":\"subscribe\",\"sub\":\"a\",\"topics\":[]}").repeat(1_000),
        ),
        ("garbage in JSON", frame(0x81, &b"[".repeat(60_000)).repeat(4)),
        ("a message without an end", endless),
        ("empty fragments", [frame(0x01, b""), frame(0x00, b"").repeat(10_000)].concat()),
        (
            "a length without a payload",
            vec![0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
    ];
    let mut sockets = Vec::new();
    for (name, bytes) in &attacks {
        for path in ["/ws?topic=orders", "/ws"] {
            let opened = open_narrow(&victim, 20, path);
            sockets.extend(opened.into_iter().map(|socket| (*name, bytes, path, socket)));
        }
    }
    for (.., socket) in &sockets {
        socket.set_nonblocking(true).unwrap();
    }
    victim.serves_a_normal_client();
    let start = Instant::now();
    while !sockets.is_empty() {
        // What is sent to a socket that the gateway has closed is answered with a reset.
        sockets.retain_mut(|(_, bytes, _, socket)| {
            let sent = socket.write(bytes);
            sent.is_ok() || sent.is_err_and(|err| err.kind() == ErrorKind::WouldBlock)
        });
        let left: BTreeSet<_> = sockets.iter().map(|(name, _, path, _)| (name, path)).collect();
        assert!(start.elapsed() < PATIENCE, "still open: {left:?}");
        let used = victim.memory_kib();
        assert!(used < victim.calm_kib + 64 * 1024, "{used} KiB, {left:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    victim.serves_a_normal_client();
    eventually("all streams are closed", || (victim.streams() < 1.0).then_some(()));
    victim.has_recovered();
}
