//! `--proxy-protocol on`: a header before each connection names the client's address.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::support::{
    block_on, eventually,
    gateway::Gateway,
    http1::{self, EventSource},
    process::output,
    tls::Certificate,
};

/// Flag that requires the header.
const ON: (&str, &str) = ("proxy-protocol", "on");
/// Flag with which the answer 429 shows that two connections count as one address.
const ONE_EACH: (&str, &str) = ("streams-per-address", "1");
const REFUSED: &str = "stream_events_proxy_headers_refused_total";

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let len = u16::try_from(block.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &len, block].concat()
}

fn v2_tcp4(from: [u8; 4]) -> Vec<u8> {
    v2(0x21, 0x11, &[&from[..], &[10, 0, 0, 1, 0xdc, 4, 1, 187]].concat())
}

fn v1(from: &str) -> Vec<u8> {
    format!("PROXY TCP4 {from} 10.0.0.1 56324 443\r\n").into()
}

/// Sends a header and a request. Returns the stream, or the status of the refusal.
fn open(gateway: &Gateway, header: &[u8], more: &[(&str, &str)]) -> Result<EventSource, u16> {
    let mut socket = http1::connect(gateway.address);
    socket.write_all(header).unwrap();
    http1::write_head(&mut socket, "GET", "/events", more);
    let source = EventSource::from_socket(socket);
    if source.status == 200 { Ok(source) } else { Err(source.status) }
}

/// With one stream for each address, a second stream of the same address is refused.
#[test]
fn client_address_is_the_one_in_the_header() {
    let gateway = Gateway::dev(&[ON, ONE_EACH]);
    let v6 = [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]; 2].concat();
    let v6 = [&v6[..], &[0xdc, 4, 1, 187]].concat();
    let with_more = [&v2_tcp4([192, 0, 2, 9])[16..], &[0xea, 0, 2, 1, 2]].concat();
    // Two headers for each address.
    let table: [[Vec<u8>; 2]; 4] = [
        [v1("192.0.2.1"), v2_tcp4([192, 0, 2, 1])],
        [b"PROXY TCP6 2001:db8::1 ::1 56324 443\r\n".into(), v2(0x21, 0x21, &v6)],
        [v2(0x21, 0x11, &with_more), v1("192.0.2.9")],
        // Neither header names an address, so it is that of the socket.
        [b"PROXY UNKNOWN\r\n".into(), v2(0x20, 0x11, &v2_tcp4([198, 51, 100, 1])[16..])],
    ];
    let first = table.each_ref().map(|[one, _]| open(&gateway, one, &[]).unwrap());
    for headers in &table {
        for header in headers {
            // Without a trusted proxy, X-Forwarded-For is ignored.
            let spoofed = [("X-Forwarded-For", "198.51.100.7")];
            assert_eq!(open(&gateway, header, &spoofed).err(), Some(429), "{header:?}");
        }
    }
    drop(first);
    gateway.until_metric("stream_events_streams", 0.0);
    for [_, other] in &table {
        drop(open(&gateway, other, &[]).unwrap());
    }
}

/// A proxy on layer 7 connects through a proxy on layer 4: the header has the address of the former.
#[test]
fn header_is_the_peer_of_x_forwarded_for() {
    let gateway = Gateway::dev(&[ON, ONE_EACH, ("trusted-proxies", "1")]);
    let layer7 = v1("10.0.0.7");
    let from = |client: &'static str| [("X-Forwarded-For", client)];
    let _one = open(&gateway, &layer7, &from("192.0.2.1")).unwrap();
    let _other = open(&gateway, &layer7, &from("192.0.2.1, 192.0.2.2")).unwrap();
    assert_eq!(open(&gateway, &v1("10.0.0.8"), &from("192.0.2.1")).err(), Some(429));
    // Clients that bypass the proxy on layer 7 have the address of the header.
    let _past = ["192.0.2.3", "192.0.2.4"].map(|from| open(&gateway, &v1(from), &[]).unwrap());
    assert_eq!(open(&gateway, &v1("192.0.2.3"), &[]).err(), Some(429));
}

#[test]
fn header_may_arrive_in_parts() {
    let gateway = Gateway::dev(&[ON]);
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for header in [v1("192.0.2.1"), v2_tcp4([192, 0, 2, 1])] {
        let all = [&header[..], request].concat();
        for size in [1, 7, header.len() - 1, header.len() + 3] {
            let mut socket = http1::connect(gateway.address);
            for part in all.chunks(size) {
                socket.write_all(part).unwrap();
                // Each part is a TCP segment, since the socket sends at once (TCP_NODELAY).
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(http1::read_answer(socket, "GET").status, 200, "{size} bytes at a time");
        }
    }
}

/// Returns the bytes that the gateway sends before it closes the connection.
fn answer_to(gateway: &Gateway, bytes: &[u8]) -> Vec<u8> {
    let mut socket = http1::connect(gateway.address);
    // The gateway may close the connection before all bytes are written.
    socket.write_all(bytes).ok();
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        Err(err) if err.kind() != std::io::ErrorKind::ConnectionReset => panic!("{err}"),
        _ => answer,
    }
}

#[test]
fn connections_without_a_header_are_closed_at_once_and_counted() {
    let gateway = Gateway::dev(&[ON]);
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let too_long = v2(0x21, 0x11, &[0; 521]);
    let table: [&[u8]; 7] = [
        request,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"\x16\x03\x01\x02\x00\x01",
        b"PROXY TCP4 192.0.2.1 10.0.0.1 56324\r\n",
        &[&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat(),
        &v2(0x2f, 0x11, &[0; 12]),
        &too_long[..16],
    ];
    let start = Instant::now();
    let mut refused = 0.0;
    for bytes in table {
        let answer = answer_to(&gateway, &[bytes, &request[..]].concat());
        assert_eq!(answer, b"", "{}", bytes.escape_ascii());
        refused += 1.0;
        gateway.until_metric(REFUSED, refused);
    }
    assert!(start.elapsed() < Duration::from_secs(4), "no connection was kept open");
    // Without the flag, a header is an invalid request.
    let plain = Gateway::dev(&[]);
    let answer = answer_to(&plain, &[&v1("192.0.2.1"), &request[..]].concat());
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", answer.escape_ascii());
}

#[test]
fn incomplete_headers_time_out() {
    let gateway = Gateway::dev(&[ON, ("handshake-timeout", "1 s")]);
    let start = Instant::now();
    let sockets: Vec<TcpStream> = [&b""[..], b"PROXY TCP4 192.0.2.1", &v2_tcp4([1; 4])[..20]]
        .iter()
        .map(|bytes| {
            let mut socket = http1::connect(gateway.address);
            socket.write_all(bytes).unwrap();
            socket
        })
        .collect();
    for mut socket in sockets {
        assert_eq!(socket.read(&mut [0]).unwrap_or(0), 0);
    }
    let took = start.elapsed();
    assert!(Duration::from_millis(900) < took && took < Duration::from_secs(4), "{took:?}");
    gateway.until_metric("stream_events_limits_met_total{limit=\"handshake-timeout\"}", 3.0);
}

#[test]
fn http2_in_clear_text_follows_the_header() {
    let gateway = Arc::new(Gateway::dev(&[ON, ONE_EACH]));
    block_on(async {
        let mut socket = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut socket, &v1("192.0.2.1")).await.unwrap();
        let (send, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        let mut send: h2::client::SendRequest<bytes::Bytes> = send.ready().await.unwrap();
        let mut status = Vec::new();
        let mut streams = Vec::new();
        for _ in 0..2 {
            let request = http::Request::get("http://localhost/events").body(()).unwrap();
            let (response, _) = send.send_request(request, true).unwrap();
            let response = response.await.unwrap();
            status.push(response.status().as_u16());
            streams.push(response.into_body());
            send = send.ready().await.unwrap();
        }
        assert_eq!(status, [200, 429], "both streams have the address of the header");
    });
}

/// The header comes before the TLS handshake. curl is the client and sends its own header.
#[test]
fn tls_follows_the_header() {
    let certificate = Certificate::new();
    let (cert, key) = (certificate.cert.to_str().unwrap(), certificate.key.to_str().unwrap());
    let flags = [ON, ("tls-cert", cert), ("tls-key", key), ("stream-age-max", "1 s")];
    let gateway = Gateway::dev(&flags);
    let url = format!("https://localhost:{}/events", gateway.address.port());
    for (option, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let mut curl = Command::new("curl");
        curl.args(["-sSN", option, "--haproxy-protocol", "--cacert", cert]);
        let (ok, text) = output(curl.args(["-w", "version %{http_version}", &url]));
        assert!(ok && text.contains("event: stream-end\n"), "{text}");
        assert!(text.ends_with(&format!("version {version}")), "{text}");
    }
    let (ok, _) = output(Command::new("curl").args(["-sS", "--cacert", cert, &url]));
    assert!(!ok, "no handshake without a header");
    eventually("counted", || (gateway.metric(REFUSED) > 0.5).then_some(()));
}

/// Health checks of proxies use the ops listener, which requires no header.
#[test]
fn ops_listener_requires_no_header() {
    let gateway = Gateway::dev(&[ON]);
    assert_eq!(http1::request(gateway.ops, "GET", "/readyz", &[], b"").status, 200);
}
