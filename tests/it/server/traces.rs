//! Spans for a collector (`--otlp-endpoint`).

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    collector::{Collector, Span, text_of},
    eventually,
    gateway::{Gateway, message},
    http1::{self, EventSource},
    process::{OPEN, Process, output, stream_events},
    redis::RedisServer,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Returns a message with the span of its publisher. The flags 01 say that the publisher records
/// the span.
fn traced(id: &str, flags: &str) -> Value {
    let mut message = message("payload-secret", id);
    let parent = format!("00-{TRACE}-{PARENT}-{flags}");
    message["attributes"] =
        json!({ "googclient_traceparent": parent, "other": "attribute-secret" });
    message["orderingKey"] = json!("key-secret");
    message
}

fn push(address: SocketAddr, message: &Value) {
    let body = json!({ "message": message }).to_string();
    assert_eq!(http1::request(address, "POST", "/push/orders", &[], body.as_bytes()).status, 204);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Waits for so many spans, and returns them in the order of their names.
fn spans(collector: &Collector, count: usize) -> Vec<Span> {
    let mut spans = eventually("the collector has the spans", || {
        let spans = collector.spans();
        (count <= spans.len()).then_some(spans)
    });
    assert_eq!(spans.len(), count, "{spans:?}");
    spans.sort_by_key(|span| span.name.clone());
    spans
}

#[test]
fn the_spans_of_a_message_are_children_of_its_publishers_span() {
    let collector = Collector::start();
    let variable = ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url());
    let process = Process::start(stream_events(&OPEN).env(variable.0, &variable.1));
    let address = process.listen();
    let open = || EventSource::open(address, "/events", &[]);
    let mut readers: Vec<_> = std::iter::repeat_with(open).take(20).collect();
    push(address, &traced("17", "01"));
    let id = readers.iter_mut().map(|reader| reader.next().id).next_back().unwrap();
    let spans = spans(&collector, 2);
    assert_eq!(spans[0].name, "deliver orders", "one for all readers");
    assert_eq!((&*spans[1].name, spans[1].kind), ("process orders", 5));
    for span in &spans {
        assert_eq!((hex(&span.trace_id), hex(&span.parent_id)), (TRACE.into(), PARENT.into()));
        assert!(span.id.len() == 8 && hex(&span.id) != PARENT);
        assert!(span.start_ns <= span.end_ns, "{span:?}");
        let time_ms = stream_events::clock::now_ms();
        let age_ms = time_ms.saturating_sub(span.start_ns / 1_000_000);
        assert!(age_ms < 60_000, "{span:?}");
        assert_eq!(span.attribute("messaging.system"), Some("gcp_pubsub"));
        assert_eq!(span.attribute("messaging.destination.name"), Some("orders"));
        assert_eq!(span.attribute("stream_events.event.id"), Some(&*id));
    }
    assert_ne!(spans[0].id, spans[1].id);
    assert_eq!(spans[1].attribute("messaging.message.id"), Some("17"));
    assert_eq!(spans[1].attribute("stream_events.outcome"), Some("stored"));
    let request = collector.requests().remove(0).resource_spans.remove(0);
    let resource = request.resource.unwrap().attributes;
    assert_eq!(text_of(&resource, "service.name"), Some("stream-events"));
    for body in collector.bodies() {
        assert!(!String::from_utf8_lossy(&body).contains("secret"), "no data, attribute or key");
    }
}

/// A message has no span either if its publisher sent no span or a malformed one. A stream that
/// replays an event makes no span of a delivery.
#[test]
fn a_message_whose_publisher_records_no_trace_has_no_span() {
    let collector = Collector::start();
    let gateway = Gateway::dev(&[("otlp-endpoint", &collector.url())]);
    let mut reader = gateway.events("");
    let mut malformed = traced("3", "01");
    malformed["attributes"]["googclient_traceparent"] = json!("00-1-2-01");
    for message in [&traced("1", "00"), &message("x", "2"), &malformed] {
        push(gateway.address, message);
        reader.next();
    }
    drop(reader);
    push(gateway.address, &traced("4", "01"));
    assert_eq!(spans(&collector, 1)[0].attribute("messaging.message.id"), Some("4"));
    assert_eq!(gateway.events("?since=1h").take(4).len(), 4);
    push(gateway.address, &traced("4", "01"));
    let spans = spans(&collector, 2);
    assert_eq!(spans[1].attribute("stream_events.outcome"), Some("duplicate"));
    gateway.until_metric("stream_events_spans_total{outcome=\"exported\"}", 2.0);
}

#[test]
fn each_replica_delivers() {
    let (redis, collector) = (RedisServer::start(), Collector::start());
    let flags = [("backplane", redis.url()), ("otlp-endpoint", collector.url())];
    let flags: Vec<_> = flags.iter().map(|(flag, text)| (*flag, text.as_str())).collect();
    let replicas = [Gateway::dev(&flags), Gateway::dev(&flags)];
    let mut readers = replicas.each_ref().map(|gateway| gateway.events(""));
    push(replicas[0].address, &traced("17", "01"));
    for reader in &mut readers {
        assert_eq!(reader.next().data, "payload-secret");
    }
    let names: Vec<_> = spans(&collector, 3).into_iter().map(|span| span.name).collect();
    assert_eq!(names, ["deliver orders", "deliver orders", "process orders"]);
}

#[test]
fn pushes_are_stored_while_the_collector_is_dead() {
    // Nobody listens on this port.
    let gateway = Gateway::dev(&[("otlp-endpoint", "http://127.0.0.1:1")]);
    push(gateway.address, &traced("1", "01"));
    gateway.until_metric("stream_events_spans_total{outcome=\"export-failed\"}", 1.0);
    push(gateway.address, &traced("2", "01"));
    gateway.until_metric("stream_events_spans_total{outcome=\"export-failed\"}", 2.0);
    assert!(gateway.metric("stream_events_pushes_total{outcome=\"stored\"}") >= 2.0);
}

/// The queue has room for 2,048 spans, and a request has 512 at most.
#[test]
fn spans_are_dropped_and_counted_while_the_collector_is_slow() {
    let collector = Collector::silent();
    let gateway = Gateway::dev(&[("otlp-endpoint", &collector.url())]);
    push(gateway.address, &traced("0", "01"));
    eventually("the collector has a request", || (!collector.bodies().is_empty()).then_some(()));
    let mut slowest = Duration::ZERO;
    for at in 1..2_100 {
        let start = Instant::now();
        push(gateway.address, &traced(&at.to_string(), "01"));
        slowest = slowest.max(start.elapsed());
    }
    // The gateway waits 10 s for an answer of the collector. A push does not wait for it.
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let dropped = gateway.metric("stream_events_spans_total{outcome=\"queue-full\"}");
    assert!(0.0 < dropped, "{dropped}");
}

#[test]
fn an_endpoint_that_is_no_url_of_http_is_refused() {
    for endpoint in ["collector:4317", "http://user:pass@collector:4318", "grpc://collector"] {
        let mut command = stream_events(&OPEN);
        let command = command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        let (succeeded, text) = output(command);
        assert!(!succeeded && text.contains("--otlp-endpoint"), "{endpoint}: {text}");
        assert!(!text.contains("pass"), "{text}");
    }
}

/// A cluster may set the variables of OpenTelemetry for all its containers.
#[test]
fn headers_and_the_service_name_come_from_the_variables_of_opentelemetry() {
    let collector = Collector::start();
    let mut command = stream_events(&OPEN);
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=key-of-collector"),
        ("OTEL_SERVICE_NAME", "orders-gateway"),
        // The gateway has no such settings, and ignores the variables.
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
    ] {
        command.env(name, value);
    }
    let process = Process::start(&mut command);
    push(process.listen(), &traced("1", "01"));
    spans(&collector, 1);
    let resource = collector.requests().remove(0).resource_spans.remove(0).resource.unwrap();
    assert_eq!(text_of(&resource.attributes, "service.name"), Some("orders-gateway"));
    assert!(collector.heads()[0].contains(&("x-key".into(), "key-of-collector".into())));
}
