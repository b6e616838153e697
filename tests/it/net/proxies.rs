//! Tests behind Debian's nginx with the configurations of `deploy/nginx`: a client with TLS and HTTP/2,
//! a layer 7 proxy, a layer 4 proxy with the PROXY protocol, and the gateway.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Method;
use tokio::time::timeout;

use crate::support::{
    block_on,
    gateway::Gateway,
    http1::{self, EventSource},
    http2::{Events, Http2},
    nginx::Nginx,
    process::output,
    redis::free_port,
    tls::Certificate,
};

/// Client, proxies and gateway, in this order.
pub struct Chain {
    pub client: Http2,
    pub l7: Nginx,
    pub l4: Nginx,
    pub gateway: Gateway,
    certificate: Certificate,
}

impl Chain {
    /// Starts a chain with additional flags of the gateway, and edits of `l7.conf` and of both
    /// configurations.
    pub fn start(
        flags: &[(&'static str, &str)],
        l7: &[(&str, &str)],
        both: &[(&str, &str)],
    ) -> Self {
        let on = [("proxy-protocol", "on"), ("trusted-proxies", "1")];
        let gateway = Gateway::dev(&[&on, flags].concat());
        let certificate = Certificate::new();
        let l4 = Nginx::l4([gateway.address; 2], both);
        let l7 = Nginx::l7([l4.address; 2], &certificate, &[l7, both].concat());
        Self { client: Http2::new(l7.address, &certificate), l7, l4, gateway, certificate }
    }
}

/// Opens a stream and reads its first event.
async fn open(client: &Http2, last_event_id: &str) -> Events {
    let mut events = client.events(last_event_id).await.unwrap();
    assert_eq!(events.status, 200);
    let opened = events.next_raw().await.unwrap();
    assert_eq!(opened.event, "stream-open");
    assert!(opened.data.contains(&format!("\"resumed\":{}", !last_event_id.is_empty())));
    events
}

/// Each event is read before the next is pushed. An event that a proxy holds back fails the test.
#[test]
fn events_pass_the_proxies_at_once_and_are_resumed() {
    let chain = Chain::start(&[], &[], &[]);
    let client = &chain.client;
    block_on(async {
        let mut events = open(client, "").await;
        let mut ids = Vec::new();
        for n in 0..20 {
            // Sizes from a few bytes to more than each buffer of the proxies.
            let text = format!("{n} {}", "x".repeat(if n % 10 == 9 { 300_000 } else { n }));
            assert_eq!(client.push(&text, &n.to_string()).await.unwrap(), 204);
            let event = timeout(Duration::from_secs(5), events.next_raw()).await;
            let event = event.expect("the event arrives at once").unwrap();
            assert_eq!(event.data, text);
            ids.push(event.id);
        }
        let mut resumed = open(client, &ids[9]).await;
        for n in 10..20 {
            assert!(resumed.next().await.starts_with(&format!("{n} ")));
        }
    });
    let log = chain.l7.access_log();
    assert!(log.contains("\"POST /push/orders HTTP/2.0\" 204 "), "{log}");
}

/// Uses curl as a client that is independent of these tests, and checks the whole answer.
#[test]
fn curl_gets_the_stream_over_http2() {
    let chain = Chain::start(&[("stream-age-max", "1 s")], &[], &[]);
    let url = format!("https://localhost:{}/events", chain.l7.address.port());
    let cert = chain.certificate.cert.to_str().unwrap();
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sSNi", "--http2", "--cacert", cert, "-w", "version %{http_version}", &url]);
    let (ok, text) = output(&mut curl);
    assert!(ok, "{text}");
    assert!(text.starts_with("HTTP/2 200"), "{text}");
    assert!(text.contains("content-type: text/event-stream"), "{text}");
    assert!(text.contains("event: stream-end\ndata: {\"reason\":\"max-age\"}\n\n"), "{text}");
    assert!(text.ends_with("version 2"), "{text}");
}

/// Tested through both proxies, and through the layer 4 proxy alone.
#[test]
fn limits_count_the_address_of_the_client() {
    let chain = Chain::start(&[("streams-per-address", "1")], &[], &[]);
    let refused = async |client: &Http2| {
        client.events("").await.unwrap().next_raw().await.unwrap().data.contains("busy")
    };
    block_on(async {
        let _one = open(&chain.client, "").await;
        let _other = open(&chain.client.from(2), "").await;
        assert!(refused(&chain.client).await);
        let mut spoofs = chain.client.from(2);
        spoofs.headers.push(("x-forwarded-for", "198.51.100.7"));
        assert!(
            refused(&spoofs).await,
            "the proxy appends the address to the header of the client"
        );
    });
    let certificate = Certificate::new();
    let (cert, key) = (certificate.cert.to_str().unwrap(), certificate.key.to_str().unwrap());
    let tls = [("tls-cert", cert), ("tls-key", key)];
    let flags = [("proxy-protocol", "on"), ("streams-per-address", "1")];
    let gateway = Gateway::dev(&[tls, flags].concat());
    let l4 = Nginx::l4([gateway.address; 2], &[]);
    let client = Http2::new(l4.address, &certificate);
    block_on(async {
        let _one = open(&client, "").await;
        let _other = open(&client.from(2), "").await;
        assert!(refused(&client).await);
    });
}

/// Another proxy in front of the layer 4 proxy sends the client's address, which is passed on.
#[test]
fn layer_4_passes_on_the_address_from_its_proxy() {
    let gateway = Gateway::dev(&[("proxy-protocol", "on"), ("streams-per-address", "1")]);
    let takes = [
        ("so_keepalive=60s:10s:6", "so_keepalive=60s:10s:6 proxy_protocol"),
        ("proxy_protocol on;", "proxy_protocol on; set_real_ip_from 127.0.0.1;"),
    ];
    let l4 = Nginx::l4([gateway.address; 2], &takes);
    let open = |from: &str| {
        let mut socket = http1::connect(l4.address);
        // The header must be in one segment: nginx does not wait for a second one.
        let header = format!("PROXY TCP4 {from} 10.0.0.1 56324 443\r\n");
        socket.write_all(header.as_bytes()).unwrap();
        http1::write_head(&mut socket, "GET", "/events", &[]);
        EventSource::from_socket(socket)
    };
    let (one, other) = (open("192.0.2.1"), open("192.0.2.2"));
    assert_eq!((one.status, other.status, open("192.0.2.1").status), (200, 200, 429));
}

/// A disconnect passes both proxies.
#[test]
fn stream_ends_when_the_reader_disconnects() {
    let chain = Chain::start(&[("keep-alive", "10 min")], &[], &[]);
    block_on(async {
        let events = open(&chain.client, "").await;
        chain.gateway.until_metric("stream_events_streams", 1.0);
        drop(events);
        let gone = chain.client.send(Method::GET, "/readyz", &[], Bytes::new()).await;
        assert_eq!(gone.unwrap().status(), 200);
    });
    chain.gateway.until_metric("stream_events_streams", 0.0);
}

/// Edit that shortens the read timeout of nginx for streams.
const SHORT_READ_TIMEOUT: (&str, &str) = (
    "proxy_buffering off;\n            proxy_read_timeout 60s;",
    "proxy_buffering off;\n            proxy_read_timeout 3s;",
);

/// Keep-alives within the read timeout of nginx keep an idle stream open. Without them nginx closes
/// it.
#[test]
fn keep_alives_keep_an_idle_stream_open() {
    let kept = Chain::start(&[("keep-alive", "1 s")], &[SHORT_READ_TIMEOUT], &[]);
    let cut = Chain::start(&[("keep-alive", "10 s")], &[SHORT_READ_TIMEOUT], &[]);
    block_on(async {
        let mut events = open(&kept.client, "").await;
        let mut doomed = open(&cut.client, "").await;
        let start = Instant::now();
        assert!(doomed.next_raw().await.is_none());
        let took = start.elapsed();
        assert!(Duration::from_secs(2) < took && took < Duration::from_secs(6), "{took:?}");
        let begin = events.blocks;
        while events.blocks < begin + 7 {
            assert!(events.read().await, "{}", kept.l7.log());
        }
        assert!(Duration::from_secs(6) < start.elapsed());
        kept.client.push("still there", "1").await.unwrap();
        assert_eq!(events.next().await, "still there");
    });
    assert!(cut.l7.log().contains("upstream timed out"), "{}", cut.l7.log());
}

/// The proxy passes on only the paths that clients need, up to the sizes that the gateway takes.
#[test]
fn proxy_passes_on_the_paths_and_sizes_of_clients() {
    let chain = Chain::start(&[], &[], &[]);
    let client = &chain.client;
    block_on(async {
        for (path, status) in
            [("/readyz", 200), ("/metrics", 404), ("/", 404), ("/events/x", 404), ("/healthz", 404)]
        {
            assert_eq!(client.status(Method::GET, path, Bytes::new()).await, status, "{path}");
        }
        // The longest query of the gateway, which is longer than the default limit of nginx.
        let topics: Vec<_> = (0..950).map(|n| format!("topic-{n:010}")).collect();
        let long = format!("/events?topic={}", topics.join(","));
        assert!(16_000 < long.len());
        assert_eq!(client.status(Method::GET, &long, Bytes::new()).await, 200);
        // Permanent errors of a request are answered by the gateway.
        for (path, accept, status) in [
            ("/events?since=never", "text/event-stream", 400),
            ("/events", "application/xml", 406),
            ("/events", "text/event-stream, */*", 200),
        ] {
            let accept = [("accept", accept)];
            let answer = client.send(Method::GET, path, &accept, Bytes::new()).await.unwrap();
            assert_eq!(answer.status(), status, "{path} {accept:?}");
        }
        // The gateway, not nginx, decides about a message that is too large: it is poison.
        let large = |mib: usize| Bytes::from(vec![b'x'; mib << 20]);
        assert_eq!(client.status(Method::POST, "/push/orders", large(18)).await, 413);
        let mut headers = vec![("content-type", "application/json")];
        let body = Bytes::from([&br#"{"message":{"data":""#[..], &large(16)].concat());
        let answer = client.send(Method::POST, "/push/orders", &headers, body).await.unwrap();
        assert_eq!(answer.status(), 204);
        assert_eq!(client.status(Method::POST, "/renew", large(1)).await, 413);
        // The attributes of an unwrapped message are headers.
        let names: Vec<_> = (0..75).map(|n| format!("attribute-{n}")).collect();
        let value = "x".repeat(1024);
        headers = names.iter().map(|name| (&**name, &*value)).collect();
        headers.push(("x-goog-pubsub-message-id", "1"));
        let body = Bytes::from("unwrapped");
        let answer = client.send(Method::POST, "/push/orders", &headers, body).await.unwrap();
        assert_eq!(answer.status(), 204);
    });
    chain.gateway.until_metric("stream_events_poison_total{reason=\"too-large\"}", 1.0);
}

/// Starts a server that reads a request, writes `answer` and closes the connection.
fn failing_server(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // The thread ends with the process of the tests.
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            if socket.read(&mut [0; 4096]).is_ok() {
                socket.write_all(answer).ok();
            }
        }
    });
    address
}

/// One of two gateways is down, closes the connection during a request, or answers 503. The request, a
/// push too, goes to the other gateway, and the client gets no error.
#[test]
fn failed_request_is_sent_to_the_other_gateway() {
    let gateway = Gateway::dev(&[("trusted-proxies", "1")]);
    let certificate = Certificate::new();
    let down = ([127, 0, 0, 1], free_port()).into();
    let unready = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    for (n, other) in [down, failing_server(b""), failing_server(unready)].into_iter().enumerate() {
        let l7 = Nginx::l7([other, gateway.address], &certificate, &[]);
        let client = Http2::new(l7.address, &certificate);
        block_on(async {
            for m in 0..6 {
                let mut events = open(&client, "").await;
                // nginx alternates between the gateways. With an odd number of requests in a round,
                // each kind of request reaches both.
                for half in ["a", "b"] {
                    let text = format!("{n} {m} {half}");
                    assert_eq!(client.push(&text, &text).await.unwrap(), 204, "{text}");
                    assert_eq!(events.next().await, text);
                }
            }
        });
    }
}

/// Refusals by nginx's limits per address are temporary: readers and Pub/Sub try again.
#[test]
fn nginx_limits_the_requests_of_an_address() {
    let edits = [
        ("limit_conn by_address 1000;", "limit_conn by_address 2;"),
        (
            "location = /events {\n            limit_req zone=opens burst=400 nodelay;",
            "location = /events {\n            limit_req zone=opens burst=5 nodelay;",
        ),
        ("zone=opens:10m rate=100r/s;", "zone=opens:10m rate=1r/m;"),
    ];
    let chain = Chain::start(&[], &edits, &[]);
    let first = async |client: &Http2| client.events("").await.unwrap().next_raw().await.unwrap();
    block_on(async {
        let (_one, _two) = (open(&chain.client, "").await, open(&chain.client, "").await);
        assert_eq!(first(&chain.client).await.event, "stream-end");
        assert_eq!(chain.client.push("x", "1").await.unwrap(), 429, "Pub/Sub pushes it again");
        let other = chain.client.from(2);
        for _ in 0..6 {
            let path = "/events?since=never";
            assert_eq!(other.status(Method::GET, path, Bytes::new()).await, 400);
        }
        assert_eq!(first(&other).await.event, "stream-end", "the rate is over the limit");
    });
}

/// When all gateways are down, nginx answers a browser with a stream that ends with `busy`. A 502 would
/// end its `EventSource` for good.
#[test]
fn browser_reconnects_when_all_gateways_are_down() {
    let certificate = Certificate::new();
    let down = [free_port(), free_port()].map(|port| ([127, 0, 0, 1], port).into());
    let l7 = Nginx::l7(down, &certificate, &[]);
    let client = Http2::new(l7.address, &certificate);
    block_on(async {
        let mut retries = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let mut events = client.events("1763690177349-5648324730880001").await.unwrap();
            assert_eq!(events.status, 200);
            let end = events.next_raw().await.unwrap();
            assert_eq!((&*end.event, &*end.data), ("stream-end", "{\"reason\":\"busy\"}"));
            assert_eq!(
                end.id, "1763690177349-5648324730880001",
                "the stream keeps the position of the reader"
            );
            assert!(events.next_raw().await.is_none());
            retries.insert(events.parser.retry.unwrap());
        }
        assert!(1 < retries.len() && retries.iter().all(|retry| (5_000..10_000).contains(retry)));
        let answer = client.send(Method::GET, "/events", &[], Bytes::new()).await.unwrap();
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "5");
        let page = [("accept", "text/event-stream"), ("origin", "https://app.example.com")];
        let answer = client.send(Method::GET, "/events", &page, Bytes::new()).await.unwrap();
        assert_eq!(answer.headers()["access-control-allow-origin"], "https://app.example.com");
        assert_eq!(client.push("x", "1").await.unwrap(), 502, "Pub/Sub pushes it again");
    });
    assert!(!l7.log().contains("no live upstreams"), "nginx marks no gateway as failed");
}
