//! Health checks, reflection and gRPC-Web.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use prost::Message as _;
use rustix::process::Signal;

use crate::support::{
    gateway::Gateway,
    grpc::{
        Call, SERVICE, framed,
        proto::{PublishRequest, PublishResponse, SubscribeRequest},
    },
    http1,
    process::serve,
    reader::{CASES, Signal as Seen},
    tls::Certificate,
};

/// Messages of health checks.
#[allow(
    clippy::all,
    clippy::pedantic,
    dead_code,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]
mod health {
    include!("../../../src/outlet/grpc/generated/grpc.health.v1.rs");
}

/// Messages of reflection.
#[allow(
    clippy::all,
    clippy::pedantic,
    dead_code,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]
mod reflection {
    include!("../../../src/outlet/grpc/generated/grpc.reflection.v1.rs");
}

use health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use reflection::{
    ServerReflectionRequest, ServerReflectionResponse,
    server_reflection_request::MessageRequest as Ask,
    server_reflection_response::MessageResponse as Answer,
};

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;
const SERVICE_UNKNOWN: i32 = 3;
const HEALTH: &str = "/grpc.health.v1.Health/";

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[test]
fn health_is_known_for_each_service() {
    let gateway = Gateway::dev(&[]);
    let check = |service: &str| {
        let mut call = Call::with(&gateway, &format!("{HEALTH}Check"), &of(service), &[]);
        let status = call.next::<HealthCheckResponse>().map(|answer| answer.status);
        assert!(call.next::<HealthCheckResponse>().is_none());
        (status, call.status().0)
    };
    assert_eq!(check(""), (Some(SERVING), 0));
    assert_eq!(check("stream_events.v1.StreamEvents"), (Some(SERVING), 0));
    assert_eq!(check("x"), (None, 5));
    let mut list = Call::with(&gateway, &format!("{HEALTH}List"), &HealthListRequest {}, &[]);
    let list: HealthListResponse = list.next().unwrap();
    assert!(list.statuses.values().all(|answer| answer.status == SERVING), "{list:?}");
    assert!(list.statuses.contains_key("") && list.statuses.len() == 5, "{list:?}");
    let mut watch = Call::with(&gateway, &format!("{HEALTH}Watch"), &of("x"), &[]);
    assert_eq!(watch.next::<HealthCheckResponse>().unwrap().status, SERVICE_UNKNOWN);
}

#[test]
fn health_is_not_serving_from_sigterm_on() {
    let (mut process, address) = serve(&["--drain-delay", "3 s", "--drain-timeout", "1 s"]);
    let begin = |method: &str| {
        let mut call = Call::begin_at(address, &format!("{HEALTH}{method}"), &[]);
        call.send(&of(""));
        call.finish();
        call.answered()
    };
    let mut watch = begin("Watch");
    assert_eq!(watch.next::<HealthCheckResponse>().unwrap().status, SERVING);
    process.signal(Signal::TERM);
    assert_eq!(watch.next::<HealthCheckResponse>().unwrap().status, NOT_SERVING);
    assert_eq!(begin("Check").next::<HealthCheckResponse>().unwrap().status, NOT_SERVING);
    assert!(watch.next::<HealthCheckResponse>().is_none());
    assert_eq!(watch.status().0, 14);
    assert!(watch.trailers.contains_key("grpc-retry-pushback-ms"));
    assert_eq!(process.wait().0.code(), Some(0));
}

#[test]
fn reflection_answers_each_request_within_limits() {
    let gateway = Gateway::dev(&[]);
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let mut call = Call::begin(&gateway, &path, &[]).answered();
        let mut ask = |ask: Ask| {
            let host = "localhost".to_owned();
            call.send(&ServerReflectionRequest { host, message_request: Some(ask.clone()) });
            let answer: ServerReflectionResponse = call.next().unwrap();
            assert_eq!(answer.valid_host, "localhost");
            assert_eq!(answer.original_request.unwrap().message_request, Some(ask));
            answer.message_response.unwrap()
        };
        let Answer::ListServicesResponse(list) = ask(Ask::ListServices(String::new())) else {
            panic!()
        };
        let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
        assert!(names.contains(&"stream_events.v1.StreamEvents".to_owned()), "{names:?}");
        for name in names {
            let file = ask(Ask::FileContainingSymbol(name.clone()));
            assert!(matches!(file, Answer::FileDescriptorResponse(_)), "{name}: {file:?}");
        }
        let file = ask(Ask::FileByFilename("google/protobuf/timestamp.proto".to_owned()));
        assert!(matches!(file, Answer::FileDescriptorResponse(_)), "{file:?}");
        for unknown in [
            Ask::FileByFilename("x".to_owned()),
            Ask::FileContainingSymbol("x".to_owned()),
            Ask::AllExtensionNumbersOfType("x".to_owned()),
        ] {
            let answer = ask(unknown);
            assert!(matches!(answer, Answer::ErrorResponse(err) if err.error_code == 5));
        }
        for n in 0.. {
            let request = Ask::ListServices("x".to_owned());
            let host = String::new();
            call.send(&ServerReflectionRequest { host, message_request: Some(request) });
            if call.next::<ServerReflectionResponse>().is_none() {
                assert!(900 < n, "{n}");
                break;
            }
        }
        assert_eq!(call.status().0, 8);
        let mut call = Call::begin(&gateway, &path, &[]).answered();
        let long = Ask::FileByFilename("x".repeat(5_000));
        let host = String::new();
        call.send(&ServerReflectionRequest { host, message_request: Some(long) });
        assert!(call.next::<ServerReflectionResponse>().is_none());
        assert_eq!(call.status().0, 8);
    }
    let rare = Gateway::dev(&[("requests-per-address", "2")]);
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let mut call = Call::begin(&rare, path, &[]).answered();
    for _ in 0..20 {
        let message_request = Some(Ask::ListServices(String::new()));
        call.send(&ServerReflectionRequest { host: String::new(), message_request });
    }
    while call.next::<ServerReflectionResponse>().is_some() {}
    assert_eq!(call.status().0, 8);
}

/// Returns a gateway whose pages are those of one origin.
fn served() -> Gateway {
    let flags = [("push-auth", "none"), ("read-auth", "anonymous")];
    Gateway::serve(&[&flags[..], &[("cors-origin", "https://a.example")]].concat())
}

/// Parts of a body of gRPC-Web: the flag of each, and its bytes.
fn parts(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut parts = Vec::new();
    while let Some(([flag, length @ ..], rest)) = body.split_first_chunk::<5>() {
        let length = u32::from_be_bytes(*length) as usize;
        let (part, rest) = rest.split_at(length);
        parts.push((*flag, part.to_vec()));
        body = rest;
    }
    assert!(body.is_empty());
    parts
}

#[test]
fn the_status_of_grpc_web_is_in_the_body() {
    for (is_dev, gateway) in [(true, Gateway::dev(&[])), (false, served())] {
        let call = |path: &str, kind: &str, body: &[u8]| {
            let origin =
                [("content-type", kind), ("origin", "https://a.example"), ("x-grpc-web", "1")];
            let headers = if is_dev { &origin[..1] } else { &origin[..] };
            http1::request(gateway.address, "POST", path, headers, body)
        };
        let check = framed(&of("").encode_to_vec());
        let path = format!("{HEALTH}Check");
        let answer = call(&path, "application/grpc-web+proto", &check);
        assert_eq!(answer.header("content-type"), Some("application/grpc-web+proto"));
        let [(0, message), (0x80, status)] = &parts(&answer.body)[..] else { panic!() };
        assert_eq!(HealthCheckResponse::decode(&message[..]).unwrap().status, SERVING);
        assert_eq!(status, b"grpc-status: 0\r\n");
        let text = STANDARD.encode(&check);
        let answer = call(&path, "application/grpc-web-text", text.as_bytes());
        // Each part is base64 of its own.
        let decoded: Vec<u8> = String::from_utf8(answer.body)
            .unwrap()
            .split_inclusive("==")
            .flat_map(|part| STANDARD.decode(part).unwrap())
            .collect();
        assert_eq!(parts(&decoded).len(), 2);
        if !is_dev {
            let exposed = answer
                .headers
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case("access-control-expose-headers"));
            let exposed: String = exposed.map(|(_, value)| value.as_str()).collect();
            assert!(
                exposed.contains("grpc-status") && exposed.contains("grpc-message"),
                "{exposed}"
            );
        }
        let bad = SubscribeRequest { topics: vec!["a b".to_owned()], ..Default::default() };
        let bad = framed(&bad.encode_to_vec());
        let answer = call(&format!("{SERVICE}Subscribe"), "application/grpc-web", &bad);
        let [(0x80, status)] = &parts(&answer.body)[..] else { panic!() };
        let status = String::from_utf8_lossy(status);
        assert!(status.starts_with("grpc-status: 3\r\ngrpc-message: topic: \"a b\""), "{status}");
    }
}

#[test]
fn pages_may_call_by_the_rules_of_cors() {
    let gateway = served();
    let path = format!("{SERVICE}Subscribe");
    let preflight = |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            (
                "access-control-request-headers",
                "authorization,content-type,x-grpc-web,grpc-timeout,x-user-agent",
            ),
        ];
        http1::request(gateway.address, "OPTIONS", &path, &headers, b"")
    };
    let allowed = preflight("https://a.example");
    assert_eq!(allowed.status, 200, "{}", String::from_utf8_lossy(&allowed.body));
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(preflight("https://b.example").status, 400);
    let headers = [("origin", "https://b.example"), ("content-type", "application/grpc-web")];
    assert_eq!(http1::request(gateway.address, "POST", &path, &headers, b"").status, 400);
}

#[test]
fn pages_see_the_status_of_unknown_methods_and_services() {
    let gateway = served();
    let page = ("origin", "https://a.example");
    for path in ["/some.v1.Service/Method", "/stream_events.v1.StreamEvents/Nothing"] {
        let asked = [
            page,
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type,x-grpc-web,x-user-agent"),
        ];
        let allowed = http1::request(gateway.address, "OPTIONS", path, &asked, b"");
        assert_eq!(allowed.status, 200, "{path}");
        assert_eq!(allowed.header("access-control-allow-origin"), Some("https://a.example"));
        let headers = [page, ("content-type", "application/grpc-web+proto")];
        let body = framed(&[]);
        let answer = http1::request(gateway.address, "POST", path, &headers, &body);
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
        let [(0x80, status)] = &parts(&answer.body)[..] else { panic!("{path}") };
        assert!(status.starts_with(b"grpc-status: 12\r\n"), "{path}");
    }
    // Requests that are no calls of gRPC get 404 at a path that does not exist.
    let asked = [page, ("access-control-request-method", "POST")];
    assert_eq!(http1::request(gateway.address, "OPTIONS", "/a/b", &asked, b"").status, 404);
    assert_eq!(http1::request(gateway.address, "POST", "/a/b", &[page], b"").status, 404);
}

#[test]
fn a_stream_of_grpc_web_ends_with_its_status() {
    let gateway = Gateway::dev(&[("stream-age-max", "1 s")]);
    let mut reader = CASES[10].open(&gateway, "?topic=orders");
    gateway.publish("orders", "one");
    assert_eq!(reader.next().data, "one");
    let mut last = None;
    while let Some(signal) = reader.next_signal() {
        last = Some(signal);
    }
    assert!(matches!(last, Some(Seen::Event(end)) if end.event == "stream-end"));
}

/// The gateway itself speaks TLS: an event that is published over TLS arrives over TLS.
#[test]
fn calls_go_over_tls() {
    let certificate = Certificate::new();
    let (cert, key) = (certificate.cert.to_str().unwrap(), certificate.key.to_str().unwrap());
    let gateway = Gateway::dev(&[("tls-cert", cert), ("tls-key", key)]);
    let asked = SubscribeRequest { topics: vec!["orders".to_owned()], ..Default::default() };
    let path = format!("{SERVICE}Subscribe");
    let mut stream = Call::over_tls(&certificate, &gateway, &path, &asked);
    stream.record();
    let message = PublishRequest {
        topic: "orders".into(),
        data: b"over TLS".to_vec().into(),
        ..Default::default()
    };
    let path = format!("{SERVICE}Publish");
    let mut published = Call::over_tls(&certificate, &gateway, &path, &message);
    let id = published.next::<PublishResponse>().unwrap().id;
    assert!(published.next::<PublishResponse>().is_none());
    assert_eq!(published.status(), (0, String::new()));
    let event = stream.event();
    assert_eq!((event.id, &*event.data), (id, &b"over TLS"[..]));
}
