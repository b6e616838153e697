//! gRPC through Debian's nginx with the configurations of `deploy/nginx`.

use bytes::Bytes;
use http::Method;
use prost::Message as _;
use serde_json::json;

use crate::support::{
    block_on,
    gateway::{Gateway, message},
    grpc::{
        Call, GrpcParser, SERVICE, framed,
        proto::{SubscribeRequest, record::Record as Kind},
        status_of,
    },
    http2::Http2,
    nginx::Nginx,
    reader::Signal,
    tls::Certificate,
};

fn request(topic: &str) -> SubscribeRequest {
    SubscribeRequest { topics: vec![topic.to_owned()], ..Default::default() }
}

/// Layer 4 passes bytes in clear text, and names the client by the PROXY protocol.
#[test]
fn calls_pass_layer_4() {
    let gateway = Gateway::dev(&[("proxy-protocol", "on"), ("trusted-proxies", "1")]);
    let l4 = Nginx::l4([gateway.address; 2], &[]);
    let mut call = Call::begin_at(l4.address, &format!("{SERVICE}Subscribe"), &[]);
    call.send(&request("orders"));
    call.finish();
    let mut call = call.answered();
    assert!(matches!(call.record().record, Some(Kind::Open(_))));
}

/// A client speaks HTTP/2 over TLS to layer 7, and that speaks HTTP/2 in clear text with the gateway.
/// Each record arrives before the next event is published, and keep-alives alone keep the call open.
#[test]
fn calls_pass_layer_7_and_outlive_silence() {
    let gateway =
        Gateway::dev(&[("trusted-proxies", "1"), ("keep-alive", "1 s"), ("topic", "orders")]);
    let certificate = Certificate::new();
    let edits = [("grpc_read_timeout 60s;", "grpc_read_timeout 3s;")];
    let l7 = Nginx::l7([gateway.address; 2], &certificate, &edits);
    let client = Http2::new(l7.address, &certificate);
    let call = async |path: &str, content_type: &str, topic: &str| {
        let headers = [("content-type", content_type), ("te", "trailers")];
        let body = framed(&request(topic).encode_to_vec());
        client.send(Method::POST, path, &headers, body).await.unwrap()
    };
    let path = format!("{SERVICE}Subscribe");
    block_on(async {
        for content_type in ["application/grpc", "application/grpc-web"] {
            let mut body = call(&path, content_type, "orders").await.into_body();
            let mut parser = GrpcParser::default();
            let mut next = async |is_wanted: &dyn Fn(&Signal) -> bool| loop {
                let data: Bytes = body.data().await.expect("the stream has ended").unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                if let Some(found) = parser.feed(&data).into_iter().find(|it| is_wanted(it)) {
                    return found;
                }
            };
            next(&|it| matches!(it, Signal::Event(open) if open.event == "stream-open")).await;
            for n in 0..3 {
                let text = format!("{content_type} {n} {}", "x".repeat(n * 20_000));
                let push = json!({ "message": message(&text, &format!("{content_type}{n}")) });
                let headers = [("content-type", "application/json")];
                let push = push.to_string().into();
                let pushed = client.send(Method::POST, "/push/orders", &headers, push).await;
                assert_eq!(pushed.unwrap().status(), 204);
                next(&|it| matches!(it, Signal::Event(event) if event.data == text)).await;
            }
            // One in each second, and 3 s without a byte would be the end.
            for _ in 0..5 {
                next(&|it| matches!(it, Signal::KeepAlive | Signal::Checkpoint(_))).await;
            }
        }
        // A refusal is in the head, and passes as it is.
        let refused = call(&path, "application/grpc", "chats").await;
        assert_eq!(status_of(refused.headers()).unwrap().0, 5);
        let health = call("/grpc.health.v1.Health/Nothing", "application/grpc", "").await;
        assert_eq!(status_of(health.headers()).unwrap().0, 12);
        let other = call("/grpc.channelz.v1.Channelz/GetServers", "application/grpc", "").await;
        assert_eq!(other.status(), 404);
    });
    gateway.until_metric("stream_events_streams", 0.0);
}
