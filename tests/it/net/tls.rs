//! TLS: versions, records that arrive in pieces, new keys, alerts, and the end of a connection.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    pki_types::{CertificateDer, pem::PemObject as _},
    version::{TLS12, TLS13},
};

use crate::support::{
    gateway::Gateway,
    http1::{self, CLOSED},
    tls::Certificate,
};

/// A socket that sends a few bytes at a time.
struct Pieces(TcpStream, usize);

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..self.1.min(bytes.len())])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

type Client = StreamOwned<ClientConnection, Pieces>;

fn gateway() -> (Certificate, Gateway) {
    let certificate = Certificate::new();
    let (cert, key) = (certificate.cert.to_str().unwrap(), certificate.key.to_str().unwrap());
    let gateway = Gateway::dev(&[("tls-cert", cert), ("tls-key", key)]);
    // The gateway has read the files once it answers.
    let client = connect(&gateway, &certificate, &TLS13, usize::MAX);
    assert!(exchange(client, "GET /healthz").starts_with("HTTP/1.1 200"));
    (certificate, gateway)
}

fn connect(
    gateway: &Gateway,
    certificate: &Certificate,
    version: &'static SupportedProtocolVersion,
    piece: usize,
) -> Client {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&certificate.cert).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(connection, Pieces(http1::connect(gateway.address), piece))
}

/// Sends a request that closes the connection, and reads to the end, which TLS has to announce.
fn exchange(mut client: Client, line: &str) -> String {
    write!(client, "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    client.flush().unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).expect("the end is announced");
    text + CLOSED
}

#[test]
fn records_may_arrive_in_pieces() {
    let (certificate, gateway) = gateway();
    for version in [&TLS12, &TLS13] {
        for piece in [1, 7, 1_000] {
            let client = connect(&gateway, &certificate, version, piece);
            let text = exchange(client, "GET /healthz");
            assert!(text.ends_with("{\"status\":\"ok\"}(closed)"), "{version:?}, {piece}: {text}");
        }
    }
}

/// Bodies and events of many records, in both directions.
#[test]
fn large_bodies_and_events_arrive_whole() {
    let (certificate, gateway) = gateway();
    for version in [&TLS12, &TLS13] {
        let mut reader = connect(&gateway, &certificate, version, usize::MAX);
        reader.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        until_streams(&gateway, 1.0);
        let data = "abcdefghijklm".repeat(40_000);
        let mut writer = connect(&gateway, &certificate, version, usize::MAX);
        let length = data.len();
        write!(
            writer,
            "POST /push/orders?payload=raw HTTP/1.1\r\nHost: localhost\r\n\
             Content-Length: {length}\r\n\r\n{data}"
        )
        .unwrap();
        let mut answer = [0; 12];
        writer.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 204");
        let mut text = Vec::new();
        let mut part = [0; 16_000];
        while text.len() < length + 200 {
            let read = reader.read(&mut part).unwrap();
            text.extend_from_slice(&part[..read]);
        }
        // Without the framing of chunks, which splits the event.
        let text = String::from_utf8(text).unwrap();
        let letters = text.split("data: ").last().unwrap().split("\r\n");
        let letters: String = letters.filter(|line| !is_size(line)).collect();
        assert!(letters.starts_with(&data), "{version:?}");
        drop(reader);
        until_streams(&gateway, 0.0);
    }
}

fn is_size(line: &str) -> bool {
    line.len() < 6 && !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn until_streams(gateway: &Gateway, count: f64) {
    gateway.until_metric("stream_events_streams", count);
}

/// New keys are taken, and answered with new keys, also while the connection is idle.
#[test]
fn keys_may_be_changed() {
    let (certificate, gateway) = gateway();
    let mut client = connect(&gateway, &certificate, &TLS13, usize::MAX);
    for _ in 0..3 {
        client.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"{\"status\":\"ok\"}") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            text.push(byte[0]);
        }
        client.conn.refresh_traffic_keys().unwrap();
        client.flush().unwrap();
    }
}

/// What is no TLS, and records that were changed on their way, end the connection with an alert.
#[test]
fn a_bad_record_ends_its_connection() {
    let (certificate, gateway) = gateway();
    let mut plain = http1::connect(gateway.address);
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut alert = Vec::new();
    plain.read_to_end(&mut alert).ok();
    assert!(alert.first().is_none_or(|kind| *kind == 21), "an alert or nothing: {alert:?}");
    let mut client = connect(&gateway, &certificate, &TLS13, usize::MAX);
    client.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    until_streams(&gateway, 1.0);
    client.sock.0.write_all(&[23, 3, 3, 0, 32]).unwrap();
    client.sock.0.write_all(&[7; 32]).unwrap();
    until_streams(&gateway, 0.0);
    let ended = client.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(ended.to_string().contains("BadRecordMac"), "{ended}");
    assert!(exchange(connect(&gateway, &certificate, &TLS13, 9), "GET /healthz").contains(" 200 "));
}
