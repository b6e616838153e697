//! Attacks with heads over a limit and heads that never end: without TLS, over TLS, and at the ops
//! listener.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::support::{
    eventually,
    http1::{self, CLOSED},
    tls::Certificate,
    victim::Victim,
};

/// Gateway with one of its HTTP/1 transports.
struct Setup {
    name: &'static str,
    /// Address of the listener to attack.
    address: SocketAddr,
    victim: Victim,
    tls: Option<(Certificate, Arc<ClientConfig>)>,
}

trait Socket: Read + Write + Send {}
impl<S: Read + Write + Send> Socket for S {}

const HEALTHZ: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

impl Setup {
    /// Starts a gateway for each transport, with additional flags.
    fn all(flags: &[&str]) -> Vec<Self> {
        let certificate = Certificate::new();
        let (cert, key) = (certificate.cert.to_str().unwrap(), certificate.key.to_str().unwrap());
        let with = |more: &[&str]| Victim::serve(&[flags, more].concat());
        let on_tls = with(&["--tls-cert", cert, "--tls-key", key]);
        let client = certificate.client(&["http/1.1"]);
        vec![
            Self::of("plain", with(&[])),
            Self { tls: Some((certificate, client)), ..Self::of("TLS", on_tls) },
        ]
    }

    fn of(name: &'static str, victim: Victim) -> Self {
        Self { name, address: victim.address, victim, tls: None }
    }

    /// Starts a gateway whose ops listener is to be attacked.
    fn ops() -> Self {
        let setup = Self::of("ops", Victim::serve(&[]));
        Self { address: setup.victim.ops, ..setup }
    }

    /// Connects to the gateway.
    fn connect(&self) -> Box<dyn Socket> {
        let socket = http1::connect(self.address);
        self.wrap(socket)
    }

    /// Adds TLS to a socket if the gateway requires it.
    fn wrap(&self, socket: TcpStream) -> Box<dyn Socket> {
        let Some((_, client)) = &self.tls else { return Box::new(socket) };
        let name = "localhost".try_into().unwrap();
        let connection = ClientConnection::new(Arc::clone(client), name).unwrap();
        Box::new(StreamOwned::new(connection, socket))
    }

    /// Sends bytes, and reads until the gateway closes the connection or sends nothing for 1 s.
    fn exchange(&self, bytes: &[u8]) -> String {
        let socket = http1::connect(self.address);
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut socket = self.wrap(socket);
        socket.write_all(bytes).ok();
        read_on(&mut *socket)
    }
}

/// Reads to the end. Appends [`CLOSED`] if the gateway closed the connection.
fn read_on(socket: &mut dyn Socket) -> String {
    let mut text = Vec::new();
    let ended = socket.read_to_end(&mut text);
    let mut text = String::from_utf8_lossy(&text).into_owned();
    // A TLS connection may end without a close_notify.
    let cut = std::io::ErrorKind::UnexpectedEof;
    if ended.map_or_else(|err| err.kind() == cut, |_| true) {
        text.push_str(CLOSED);
    }
    text
}

/// The client receives the answer, with the reason, although it has sent more bytes than the gateway
/// reads.
#[test]
fn head_over_a_limit_is_refused_with_an_answer() {
    let long = "x".repeat(100_000);
    let fields = (0..200).map(|n| format!("X-{n}: y\r\n")).collect::<Vec<_>>().concat();
    let values = (0..4).map(|n| format!("X-{n}: {}\r\n", &long[..50_000]));
    let values = values.collect::<Vec<_>>().concat();
    let head = |line: &str, fields: &str| format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let heads = [
        (431, head("GET /events", &format!("{long}: y\r\n"))),
        (431, head("GET /healthz", &format!("{}: y\r\n", &long[..65_536]))),
        (431, head("POST /push/orders", &format!("{long}: y\r\n"))),
        (431, head("GET /events", &format!("{long}\r\n"))),
        (400, head("GET /events", &format!("{long}: y\r\n")).replace("\r\n", "\n")),
        (400, head("GET /healthz", "X: y\n")),
        (400, format!("\n{}", head("GET /healthz", ""))),
        (400, head("GET /healthz", "X : y\r\n")),
        (505, head("GET /healthz", "").replace("/1.1", "/1.2")),
        (505, head("PRI *", "").replace("/1.1", "/2.0")),
        (417, head("GET /healthz", "Expect: 200-ok\r\n")),
        (431, head("GET /events", &format!("{long}: y\r\n")).replace("/1.1", "/1.0")),
        (431, head("GET /events", &fields)),
        (431, head("GET /events", &values)),
        (431, format!("GET /events HTTP/1.1\r\nX: {long}{long}")),
        (414, head(&format!("GET /{}", &long[..66_000]), "")),
        (400, format!("{}{HEALTHZ}", "\r\n".repeat(20))),
        (400, "\r".repeat(100_000)),
    ];
    let body = "POST /push/orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                1b\r\n{\"message\":{\"data\":\"eA==\"}}\r\n0\r\n\r\n";
    for setup in Setup::all(&[]).into_iter().chain([Setup::ops()]) {
        for (status, head) in &heads {
            for (before, answers) in [("", 1), (HEALTHZ, 2), (body, 2)] {
                let text = setup.exchange(format!("{before}{head}{HEALTHZ}").as_bytes());
                let what = format!("{}: {:?} {text}", setup.name, &head[..head.len().min(40)]);
                assert_eq!(text.matches("HTTP/1.").count(), answers, "{what}");
                let answer = text.rsplit("HTTP/1.1 ").next().unwrap();
                assert!(answer.starts_with(&status.to_string()), "{what}");
                assert!(answer.contains("application/problem+json"), "{what}");
                assert!(answer.ends_with(&format!("}}{CLOSED}")), "{what}");
            }
        }
        assert!(0.0 < setup.victim.limit_met("head-bytes-max"));
        assert!(setup.exchange(HEALTHZ.as_bytes()).starts_with("HTTP/1.1 200"), "{}", setup.name);
        setup.victim.has_not_panicked();
    }
}

/// Puts each byte at several places of a head.
#[test]
fn no_byte_in_a_head_causes_a_panic() {
    for setup in Setup::all(&[]).into_iter().chain([Setup::ops()]) {
        for byte in 0..=u8::MAX {
            for place in [
                &b"G@T /events HTTP/1.0\r\n\r\n"[..],
                b"GET /ev@nts HTTP/1.0\r\n\r\n",
                b"GET /events?topic=@&@ HTTP/1.0\r\nHost: a\r\n\r\n",
                b"POST /push/@?@=@ HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
                b"GET http://@:@/ HTTP/1.0\r\nHost: a@\r\n\r\n",
                b"CONNECT @ HTTP/1.0\r\n\r\n",
                b"OPTIONS /events HTTP/1.0\r\nOrigin: @\r\nAccess-Control-Request-Method: @\r\n\
                Access-Control-Request-Headers: @\r\nCookie: @\r\nAuthorization: @\r\n\
                Last-Event-ID: @\r\nForwarded: @\r\nX-Forwarded-For: @\r\n@: b\r\n\r\n",
            ] {
                let bytes: Vec<_> =
                    place.iter().map(|old| if *old == b'@' { byte } else { *old }).collect();
                let mut socket = setup.connect();
                socket.write_all(&bytes).unwrap();
                // A line end can make the head incomplete, and then it is not answered.
                if !b"\r\n".contains(&byte) {
                    assert!(0 < socket.read(&mut [0; 512]).unwrap(), "{}: {bytes:?}", setup.name);
                }
            }
        }
        setup.victim.has_not_panicked();
    }
}

/// Returns true if a normal head of 12 kB in three segments is answered. Before the last segment its
/// size is over the part that is free for each head.
fn answers_a_large_head(setup: &Setup) -> bool {
    let head = format!(
        "GET /healthz HTTP/1.1\r\nHost: a\r\nX: {}\r\nConnection: close\r\n\r\n",
        "x".repeat(12_000)
    );
    let mut socket = setup.connect();
    for part in head.as_bytes().chunks(5_000) {
        if socket.write_all(part).and_then(|()| socket.flush()).is_err() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    read_on(&mut *socket).starts_with("HTTP/1.1 200")
}

/// Numbers of connections, and the bytes of the incomplete head on each. The first ones use nearly all
/// of the budget of heads, and the last ones use the rest.
const FILL: [(usize, usize); 4] = [(740, 100_000), (20, 30_000), (40, 10_000), (20, 8_600)];

/// Many connections send a request and an incomplete head behind it. They cannot keep the budget of
/// heads used up.
#[test]
fn heads_behind_a_request_return_their_memory() {
    let part = |bytes: usize| format!("GET /healthz HTTP/1.1\r\nX: {}", "x".repeat(bytes));
    let stream = "GET /events HTTP/1.1\r\nHost: a\r\n\r\n";
    let behind: [&dyn Fn(usize) -> String; 5] = [
        &|bytes| format!("{HEALTHZ}{}", "\r".repeat(bytes)),
        &|bytes| format!("{HEALTHZ}\r\n\r\n{}", part(bytes)),
        &|bytes| format!("{HEALTHZ}{HEALTHZ}{}", part(bytes).replace("\r\n", "\n")),
        &|bytes| format!("{stream}{}", part(bytes)),
        // The head is complete, and waits until the stream has ended.
        &|bytes| format!("{stream}{}\r\nHost: a\r\n\r\n", part(bytes)),
    ];
    for setup in Setup::all(&["--header-timeout", "1 s"]) {
        // TLS handshakes for all variants would take too long.
        let some = if setup.tls.is_some() { &behind[1..2] } else { &behind[..] };
        for (n, bytes) in some.iter().enumerate() {
            let mut sockets = Vec::new();
            for (count, size) in FILL {
                for _ in 0..count {
                    let socket = http1::connect(setup.address);
                    socket.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
                    let mut socket = setup.wrap(socket);
                    // The gateway may close a refused connection before it has read all bytes.
                    socket.write_all(bytes(size).as_bytes()).and_then(|()| socket.flush()).ok();
                    sockets.push(socket);
                }
            }
            let what = format!("{}, {n}: a normal head is answered", setup.name);
            eventually(&what, || answers_a_large_head(&setup).then_some(()));
            drop(sockets);
        }
        setup.victim.has_not_panicked();
    }
}

/// A head, or an empty line, behind a request stays incomplete.
#[test]
fn head_behind_a_request_has_a_time_limit() {
    for setup in Setup::all(&["--header-timeout", "500 ms"]) {
        for rest in ["\r", "\r\n\r", "G", "GET /healthz HTTP/1.1\r\nHost: a\r\n"] {
            let met = setup.victim.limit_met("header-timeout");
            let mut socket = setup.connect();
            socket.write_all(format!("{HEALTHZ}{rest}").as_bytes()).unwrap();
            let text = read_on(&mut *socket);
            assert!(text.starts_with("HTTP/1.1 200"), "{}: {rest:?}: {text}", setup.name);
            assert!(text.ends_with(CLOSED), "{}: {rest:?}: {text}", setup.name);
            eventually("the timeout is counted", || {
                (met < setup.victim.limit_met("header-timeout")).then_some(())
            });
        }
        // Empty lines are skipped and begin no head, so the connection stays open.
        let mut socket = setup.connect();
        socket.write_all(format!("{HEALTHZ}\r\n\r\n").as_bytes()).unwrap();
        std::thread::sleep(Duration::from_secs(2));
        socket.write_all(HEALTHZ.as_bytes()).unwrap();
        let mut text = String::new();
        let mut room = [0; 512];
        while text.matches("HTTP/1.1 200").count() < 2 {
            let read = socket.read(&mut room).unwrap();
            assert_ne!(read, 0, "{}: closed after {text}", setup.name);
            text.push_str(&String::from_utf8_lossy(&room[..read]));
        }
    }
}
