//! Seen from outside: metrics, health and logs.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use stream_events::server::{health::Health, heartbeat::Heartbeats};

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
        ("stream_events_streams_by_outlet{outlet=\"sse\"}", 1.0),
        ("stream_events_streams_by_outlet{outlet=\"grpc\"}", 0.0),
        ("stream_events_push_to_ring_seconds_count", 1.0),
        ("stream_events_ring_to_socket_seconds_count", 1.0),
        ("stream_events_ring_to_socket_seconds_bucket{le=\"60\"}", 1.0),
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

/// Every worker of a gateway has a heartbeat, or `/healthz` could not see it hang.
#[test]
fn every_worker_has_a_heartbeat() {
    let gateway = Gateway::dev(&[("workers", "3")]);
    gateway.until_metric("stream_events_workers", 3.0);
}

/// `/healthz` over the wire, of two workers: threads with the heartbeats of the gateway's workers.
/// One of them is kept from running its tasks, and then let go on.
#[test]
fn a_worker_that_hangs_is_seen() {
    let heartbeats = Heartbeats::new(Duration::from_secs(3), Instant::now());
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (stop, stopped) = tokio::sync::watch::channel(());
    let worker = |hang: Option<std::sync::mpsc::Receiver<()>>| {
        let (heart, mut stopped) = (heartbeats.add(Instant::now()), stopped.clone());
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async {
                actix_web::rt::spawn(heart.run());
                if let Some(released) = hang {
                    actix_web::rt::spawn(async move { released.recv().unwrap() });
                }
                stopped.changed().await.unwrap_err();
            });
        })
    };
    let workers = [worker(None), worker(Some(released))];
    let health = actix_web::web::Data::new(Health::new(heartbeats.clone()));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async {
            let app = move || {
                let route = actix_web::web::get().to(stream_events::server::health::health);
                actix_web::App::new().app_data(health.clone()).route("/healthz", route)
            };
            let server = actix_web::HttpServer::new(app).workers(1).disable_signals();
            let server = server.listen(listener).unwrap().run();
            let handle = server.handle();
            actix_web::rt::spawn(server);
            let mut stopped = stopped;
            stopped.changed().await.unwrap_err();
            handle.stop(false).await;
        });
    });
    let healthz = || http1::request(address, "GET", "/healthz", &[], b"");
    assert_eq!(healthz().status, 200);
    let answer = eventually("it is seen to hang", || {
        let answer = healthz();
        (answer.status == 503).then_some(answer)
    });
    assert_eq!((&answer.json()["status"], &answer.json()["worker"]), (&"hung".into(), &1.into()));
    release.send(()).unwrap();
    eventually("it runs again", || (healthz().status == 200).then_some(()));
    drop(stop);
    for thread in workers.into_iter().chain([server]) {
        thread.join().unwrap();
    }
    assert_eq!(heartbeats.workers(), 0, "they have ended");
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
