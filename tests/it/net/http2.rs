//! HTTP/2: in clear text on the port of HTTP/1, and over TLS by ALPN.

use std::{
    io::Write as _,
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{RecvStream, client::SendRequest};
use tokio::net::TcpStream;

use crate::support::{
    block_on,
    gateway::{Gateway, message},
    http1,
    process::output,
    tls::Certificate,
};

/// HTTP/2 connection with its open streams.
pub struct Connection {
    _send: SendRequest<Bytes>,
    pub streams: Vec<RecvStream>,
    driver: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

/// Opens streams on one connection and reads the first block of each.
pub async fn open_streams(address: SocketAddr, count: usize) -> Connection {
    let socket = TcpStream::connect(address).await.unwrap();
    let (mut send, connection) = h2::client::handshake(socket).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(open(&mut send).await);
    }
    Connection { _send: send, streams, driver }
}

/// Opens one stream and reads its first block.
async fn open(send: &mut SendRequest<Bytes>) -> RecvStream {
    let request = http::Request::get("http://localhost/events").body(()).unwrap();
    *send = send.clone().ready().await.unwrap();
    let (response, _) = send.send_request(request, true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers().get("transfer-encoding").is_none());
    let mut stream = response.into_body();
    let block = next(&mut stream).await;
    assert!(block.contains("event: stream-open\n"), "{block}");
    stream
}

/// Reads the next data, and enlarges the window by its length only.
async fn next(stream: &mut RecvStream) -> String {
    let data = stream.data().await.expect("the stream ended").unwrap();
    stream.flow_control().release_capacity(data.len()).unwrap();
    String::from_utf8(data.to_vec()).unwrap()
}

#[test]
fn streams_of_one_connection_all_get_an_event() {
    let gateway = Gateway::dev(&[]);
    block_on(async {
        let mut connection = open_streams(gateway.address, 20).await;
        gateway.publish("orders", "hello");
        for stream in &mut connection.streams {
            assert!(next(stream).await.ends_with("data: hello\n\n"));
        }
    });
    assert_eq!(gateway.get("/healthz", &[]).status, 200, "HTTP/1.1 is on the same port");
}

#[test]
fn reset_stream_ends_at_once() {
    let gateway = std::sync::Arc::new(Gateway::dev(&[("keep-alive", "10 min")]));
    block_on(async {
        let mut connection = open_streams(gateway.address, 3).await;
        connection.streams.truncate(1);
        // The driver of the connection must run while the metrics are read.
        let metrics = std::sync::Arc::clone(&gateway);
        let until = move || metrics.until_metric("stream_events_streams", 1.0);
        tokio::task::spawn_blocking(until).await.unwrap();
    });
    gateway.until_metric("stream_events_streams", 0.0);
}

/// A stream is stalled when its flow-control window stays closed.
#[test]
fn stalled_stream_is_reset_and_others_on_its_connection_continue() {
    let gateway =
        std::sync::Arc::new(Gateway::dev(&[("write-timeout", "1 s"), ("keep-alive", "1 s")]));
    block_on(async {
        let mut shared = open_streams(gateway.address, 2).await;
        for n in 0..3 {
            gateway.push("orders", &message("x".repeat(60_000), &n.to_string()));
        }
        // One stream is read. The other is not, and its window has 64 KiB.
        let (reads, stalls) = shared.streams.split_at_mut(1);
        let metrics = std::sync::Arc::clone(&gateway);
        let ended = "stream_events_streams_ended_total{reason=\"stalled\"}";
        let until = move || metrics.until_metric(ended, 1.0);
        let mut until = tokio::task::spawn_blocking(until);
        loop {
            tokio::select! {
                ended = &mut until => break ended.unwrap(),
                _read = next(&mut reads[0]) => {}
            }
        }
        let reset = read_to_end(&mut stalls[0]).await.expect_err("the stream is reset");
        assert_eq!(reset.reason(), Some(h2::Reason::CANCEL), "{reset}");
        gateway.publish("orders", "still there");
        while !next(&mut reads[0]).await.ends_with("data: still there\n\n") {}
    });
}

/// Clients get a GOAWAY, so that they send their next requests to another replica. The connection
/// ends with its last stream.
#[test]
fn drain_sends_goaway_and_ends_streams() {
    let mut gateway = Gateway::dev(&[("drain-timeout", "1 s")]);
    block_on(async {
        let mut connection = open_streams(gateway.address, 2).await;
        tokio::task::spawn_blocking(move || gateway.stop()).await.unwrap();
        for stream in &mut connection.streams {
            let end = next(stream).await;
            assert!(end.ends_with("data: {\"reason\":\"draining\"}\n\n"), "{end}");
            read_to_end(stream).await.expect("the stream ends without a reset");
        }
        connection.driver.await.unwrap().expect("the GOAWAY has no error");
    });
}

/// A stream that could send nothing before its maximum age has not sent the gap, so it must not send an
/// id after the gap.
#[test]
fn pending_gap_is_not_skipped_at_the_end() {
    let gateway = Gateway::dev(&[("stream-age-max", "1 s"), ("write-timeout", "1 h")]);
    gateway.publish("orders", "held");
    let id = "1763690177349-5648324730880001";
    let text = block_on(async {
        let socket = TcpStream::connect(gateway.address).await.unwrap();
        let mut builder = h2::client::Builder::new();
        let (mut send, mut connection) =
            builder.initial_window_size(0).handshake::<_, Bytes>(socket).await.unwrap();
        let request = http::Request::get("http://localhost/events").header("last-event-id", id);
        let (response, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
        let mut response = std::pin::pin!(response);
        let aged = tokio::time::sleep(Duration::from_millis(1_500));
        tokio::select! {
            () = aged => {}
            ended = &mut connection => panic!("{ended:?}"),
        }
        connection.set_initial_window_size(65_535).unwrap();
        let driver = tokio::spawn(async move { drop(connection.await) });
        let mut stream = response.as_mut().await.unwrap().into_body();
        let mut text = String::new();
        while let Some(data) = stream.data().await {
            text.push_str(str::from_utf8(&data.unwrap()).unwrap());
        }
        driver.abort();
        text
    });
    assert!(text.ends_with("event: stream-end\ndata: {\"reason\":\"max-age\"}\n\n"), "{text}");
    let mut parser = crate::support::parser::Parser::default();
    parser.feed(text.as_bytes());
    let gap_sent = text.contains("stream-gap");
    assert!(gap_sent || parser.last_event_id == id, "{text}");
}

/// Reads a stream to its end.
async fn read_to_end(stream: &mut RecvStream) -> Result<(), h2::Error> {
    while let Some(data) = stream.data().await {
        stream.flow_control().release_capacity(data?.len())?;
    }
    Ok(())
}

/// The HTTP/2 preface is recognized when it arrives in several segments.
#[test]
fn preface_may_arrive_in_parts() {
    let gateway = Gateway::dev(&[]);
    let mut socket = http1::connect(gateway.address);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for part in preface.chunks(5) {
        socket.write_all(part).unwrap();
        // Each part is one segment, since the socket sends at once.
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut head = [0; 9];
    std::io::Read::read_exact(&mut socket, &mut head).unwrap();
    assert_eq!(head[3], 4, "a SETTINGS frame");
    // A request that only begins like the preface is HTTP/1.
    let answer = http1::request(gateway.address, "PRIX", "/events", &[], b"");
    assert_eq!(answer.status, 405);
}

#[test]
fn silent_connection_is_closed() {
    let gateway = Gateway::dev(&[]);
    let mut silent = http1::connect(gateway.address);
    let start = Instant::now();
    assert_eq!(std::io::Read::read(&mut silent, &mut [0]).unwrap(), 0);
    assert!(start.elapsed() < Duration::from_secs(10));
}

/// The client is curl, which negotiates by ALPN as browsers do.
#[test]
fn alpn_offers_http2_and_http1() {
    let certificate = Certificate::new();
    let (cert, key) = (certificate.cert.to_str().unwrap(), certificate.key.to_str().unwrap());
    let gateway = Gateway::dev(&[("tls-cert", cert), ("tls-key", key), ("stream-age-max", "1 s")]);
    let url = format!("https://localhost:{}/events", gateway.address.port());
    for (option, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let mut curl = Command::new("curl");
        curl.args(["-sSN", option, "--cacert", cert, "-w", "version %{http_version}", &url]);
        let (ok, text) = output(&mut curl);
        assert!(ok, "{text}");
        assert!(text.contains("event: stream-open\n"), "{text}");
        assert!(text.contains("event: stream-end\n"), "{text}");
        assert!(text.ends_with(&format!("version {version}")), "{text}");
    }
    let plain = output(Command::new("curl").args(["-sS", &url.replace("https", "http")]));
    assert!(!plain.0, "clear text is refused on a TLS port");
}

/// The drain works over TLS too.
#[test]
fn tls_stream_ends_when_the_gateway_drains() {
    let certificate = Certificate::new();
    let (cert, key) = (certificate.cert.to_str().unwrap(), certificate.key.to_str().unwrap());
    let flags = [("tls-cert", cert), ("tls-key", key)];
    let mut gateway = Gateway::dev(&flags);
    let url = format!("https://localhost:{}/events", gateway.address.port());
    let mut curl = Command::new("curl");
    curl.args(["-sSN", "--cacert", cert, &url]);
    let reader = std::thread::spawn(move || output(&mut curl));
    gateway.until_metric("stream_events_streams", 1.0);
    gateway.stop();
    let (_, text) = reader.join().unwrap();
    assert!(text.contains("event: stream-end\ndata: {\"reason\":\"draining\"}\n\n"), "{text}");
}
