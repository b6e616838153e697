//! Seen from outside: metrics, health and logs.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    eventually,
    gateway::{Gateway, message},
    http1,
    process::serve,
};

#[test]
fn metrics_count_what_happened() {
    let gateway = Gateway::dev(&[]);
    let mut events = gateway.events("");
    let mut now = message("x", "1");
    let time =
        jiff::Timestamp::from_millisecond(i64::try_from(stream_events::clock::now_ms()).unwrap())
            .unwrap();
    now["publishTime"] = time.to_string().into();
    gateway.push("orders", &now);
    gateway.push("orders", &now);
    events.next();
    for (name, value) in [
        ("stream_events_pushes_total{outcome=\"stored\"}", 1.0),
        ("stream_events_pushes_total{outcome=\"duplicate\"}", 1.0),
        ("stream_events_events_delivered_total", 1.0),
        ("stream_events_streams", 1.0),
        ("stream_events_streams_opened_total", 1.0),
        ("stream_events_topics", 1.0),
        ("stream_events_ring_events", 1.0),
        ("stream_events_dedup_ids", 1.0),
        ("stream_events_latency_seconds_count", 1.0),
        ("stream_events_latency_seconds_bucket{le=\"5\"}", 1.0),
    ] {
        gateway.until_metric(name, value);
    }
    assert!(0.0 < gateway.metric("stream_events_ring_bytes"));
    assert!(0.0 < gateway.metric("process_resident_memory_bytes"));
    let answer = http1::request(gateway.ops, "GET", "/metrics", &[], b"");
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    assert_eq!(gateway.get("/metrics", &[]).status, 404, "not on the public listener");
}

/// Prometheus' tools take a name that ends with `_total` for a counter, and others for a gauge:
/// `rate()` of a gauge is wrong after each restart.
#[test]
fn counters_are_exposed_as_counters() {
    let gateway = Gateway::dev(&[("ring-events", "1")]);
    let evictions = "stream_events_ring_evictions_total";
    gateway.publish("orders", "first");
    gateway.until_metric(evictions, 0.0);
    gateway.publish("orders", "second");
    gateway.until_metric(evictions, 1.0);
    gateway.publish("orders", "third");
    gateway.until_metric(evictions, 2.0);
    gateway.until_metric(evictions, 2.0);
    let text = http1::request(gateway.ops, "GET", "/metrics", &[], b"").text();
    assert!(text.contains("stream_events_hub_waits_total{over_us=\"10\"} "), "{text}");
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let ours: Vec<_> = types.filter(|line| line.starts_with("stream_events_")).collect();
    assert!(ours.contains(&"stream_events_hub_waits_total counter"), "{ours:?}");
    for line in ours {
        let (name, kind) = line.split_once(' ').unwrap();
        assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
    }
}

#[test]
fn health_is_on_both_listeners_under_both_names() {
    let gateway = Gateway::dev(&[]);
    for address in [gateway.address, gateway.ops] {
        for path in ["/healthz", "/health", "/readyz", "/ready"] {
            let answer = http1::request(address, "GET", path, &[], b"");
            assert_eq!(answer.status, 200, "{path}");
            assert!(answer.json()["status"].is_string());
        }
    }
}

/// One JSON object a line, with the names that Cloud Logging knows.
#[test]
fn serve_logs_as_cloud_logging_wants() {
    let (mut process, address) = serve(&[]);
    let poison = br#"{"message":{"data":"!","messageId":"poisonous-17"}}"#;
    for _ in 0..5 {
        assert_eq!(http1::request(address, "POST", "/push/orders", &[], poison).status, 204);
    }
    process.signal(Signal::TERM);
    assert!(process.wait().0.success());
    let log = eventually("the log is complete", || {
        let log = process.log();
        log.iter().any(|line| line.contains("\"stopped\"")).then_some(log)
    });
    let lines: Vec<Value> = log.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        let severity = line["severity"].as_str().unwrap();
        assert!(["INFO", "WARNING", "ERROR"].contains(&severity), "{line}");
        assert!(line["message"].is_string() && line["target"].is_string(), "{line}");
        assert!(line["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{line}");
        assert!(line["logging.googleapis.com/sourceLocation"]["file"].is_string(), "{line}");
    }
    let poison: Vec<_> = lines.iter().filter(|line| line["message_id"] == "poisonous-17").collect();
    assert_eq!(poison.len(), 1, "once per burst");
    assert_eq!(
        (&poison[0]["severity"], &poison[0]["reason"]),
        (&"ERROR".into(), &"bad-base64".into())
    );
}
