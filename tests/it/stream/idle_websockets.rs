//! Memory of idle WebSockets, which the reactor carries without tasks and buffers.

use std::net::TcpStream;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{eventually, http1, victim::Victim, websocket::HANDSHAKE};

const SOCKETS: usize = 10_000;
/// Largest memory of a socket, in bytes.
const BYTES_MAX: usize = 1_024;

/// Opens sockets, and waits until the gateway has written `open` to all of them.
fn open(victim: &Victim, count: usize) -> Vec<TcpStream> {
    let before = victim.streams();
    let opened = || {
        let mut socket = http1::connect(victim.address);
        http1::write_head(&mut socket, "GET", "/ws?topic=orders", &HANDSHAKE);
        assert_ne!(socket.peek(&mut [0]).unwrap(), 0);
        socket
    };
    let sockets: Vec<_> = (0..count).map(|_| opened()).collect();
    let expected = before + f64::from(u32::try_from(count).unwrap());
    eventually("all streams are open", || (expected <= victim.streams()).then_some(()));
    sockets
}

#[test]
fn ten_thousand_idle_websockets_take_a_kilobyte_each() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let victim = Victim::serve(&["--workers", "1", "--keep-alive", "10 min"]).calm();
    // These sockets make the gateway allocate what it allocates only once.
    drop(open(&victim, 100));
    eventually("the first sockets are closed", || (victim.streams() < 1.0).then_some(()));
    let before = victim.memory_kib();
    let sockets = open(&victim, SOCKETS);
    let each = (victim.memory_kib() - before) * 1_024 / SOCKETS;
    eprintln!("{each} bytes for each socket");
    assert!(each <= BYTES_MAX, "{each} bytes");
    // Other clients are served while the sockets are open.
    victim.serves_a_normal_client();
    drop(sockets);
    victim.has_recovered();
}
