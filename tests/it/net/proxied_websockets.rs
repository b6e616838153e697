//! WebSockets through Debian's nginx with the configurations of `deploy/nginx`.

use serde_json::json;

use crate::support::{
    eventually,
    gateway::{Gateway, message},
    http1,
    nginx::Nginx,
    tls::{Bridge, Certificate},
    websocket::{Received, WebSocket},
};

/// The headers of a push.
const HEADERS: [(&str, &str); 1] = [("Content-Type", "application/json")];
/// The start of the location `/ws` of `l7.conf`, up to its longest silence.
const LOCATION: &str = "location = /ws {
            limit_req zone=opens burst=400 nodelay;
            proxy_pass http://gateways;
            proxy_read_timeout";

/// A client speaks HTTP/1.1 over TLS to layer 7. Each event arrives before the next is published, and
/// commands arrive at the gateway. Pings alone keep the proxies from closing the connection.
#[test]
fn websockets_pass_the_proxies_and_outlive_silence() {
    let flags = [("proxy-protocol", "on"), ("trusted-proxies", "1"), ("keep-alive", "1 s")];
    let gateway = Gateway::dev(&flags);
    let certificate = Certificate::new();
    let l4 = Nginx::l4([gateway.address; 2], &[]);
    let (silence, short) = (format!("{LOCATION} 60s;"), format!("{LOCATION} 3s;"));
    let l7 = Nginx::l7([l4.address; 2], &certificate, &[(&silence, &short)]);
    let bridge = Bridge::start(certificate, l7.address);
    // Through the proxies too: the gateway wants a PROXY header on every connection.
    let publish = |topic: &str, text: &str| {
        let body = json!({ "message": message(text, &text[..6]) }).to_string();
        let path = format!("/push/{topic}");
        let answer = http1::request(bridge.address, "POST", &path, &HEADERS, body.as_bytes());
        assert_eq!(answer.status, 204, "{}", answer.text());
    };
    let socket = http1::connect(bridge.address);
    let mut socket = WebSocket::on(socket, "/ws?topic=orders", &[]);
    assert_eq!(socket.record()["type"], "open");
    for n in 0..5 {
        // Sizes from a few bytes to more than each buffer of the proxies.
        let text = format!("line {n} {}", "x".repeat(n * 20_000));
        publish("orders", &text);
        assert_eq!(socket.record()["data"], text);
    }
    socket.command(&json!({"type": "subscribe", "ref": 1, "sub": "a", "topics": ["chats"]}));
    assert_eq!(socket.record(), json!({"type": "ok", "ref": 1}));
    assert_eq!(socket.record_of("open")["sub"], "a");
    // One ping each second, and 3 s without a byte would be the end.
    for _ in 0..5 {
        let received = socket.receive();
        assert!(matches!(received, Some(Received::Ping(_))), "{received:?}");
    }
    publish("chats", "after silence");
    assert_eq!(socket.record_of("event")["data"], "after silence");
    socket.send_frame(0x88, &1000_u16.to_be_bytes());
    while socket.receive().is_some() {}
    let is_logged = || l7.access_log().contains("\"GET /ws HTTP/1.1\" 101 ").then_some(());
    eventually("nginx logs the request", is_logged);
}
