//! Seen from outside: `/metrics`, `/healthz`, `/readyz`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use actix_web::{HttpResponse, http::header, web};
use prometheus::{
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, process_collector::ProcessCollector,
};
use serde_json::json;

use crate::{
    hub::{Hub, WAITS_US},
    inlet::{body::InFlight, oidc::Verifier},
};

/// Whether new work may be sent here. Once it was ready, only leaving makes it unready: a load
/// balancer answers 502 for replicas that are all unready, which helps nobody.
#[derive(Debug)]
pub struct Readiness {
    verifier: Option<Arc<Verifier>>,
    was_ready: AtomicBool,
    leaving: AtomicBool,
}

impl Readiness {
    /// Ready when push tokens can be verified, or need not be.
    pub fn new(verifier: Option<Arc<Verifier>>) -> Self {
        Self { verifier, was_ready: AtomicBool::new(false), leaving: AtomicBool::new(false) }
    }

    /// From now on unready, for good.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
    }

    /// Why it is not ready, if it is not.
    pub fn unready(&self) -> Option<&'static str> {
        if self.leaving.load(Ordering::SeqCst) {
            return Some("shutting down");
        }
        let ready = self.was_ready.load(Ordering::SeqCst)
            || self.verifier.as_ref().is_none_or(|verifier| verifier.ready());
        self.was_ready.store(ready, Ordering::SeqCst);
        (!ready).then_some("the keys for push tokens were not fetched yet (--push-jwks-url)")
    }
}

/// What is read when it is asked for.
#[derive(Debug)]
pub struct Gauges {
    registry: Registry,
    hub: Hub,
    in_flight: Arc<InFlight>,
    streams: IntGauge,
    topics: IntGauge,
    events: IntGauge,
    bytes: IntGauge,
    evictions: IntGauge,
    dedup_ids: IntGauge,
    push_bytes: IntGauge,
    waits: IntGaugeVec,
}

impl Gauges {
    /// Adds the gauges of the hub and of the process to a registry.
    ///
    /// # Errors
    /// When a name is taken, which they are not.
    pub fn new(registry: Registry, hub: Hub, in_flight: Arc<InFlight>) -> prometheus::Result<Self> {
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("stream_events_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let help = "Pushes that waited for the hub for longer than so many microseconds.";
        let waits = IntGaugeVec::new(Opts::new("stream_events_hub_waits", help), &["over_us"])?;
        registry.register(Box::new(waits.clone()))?;
        Ok(Self {
            waits,
            streams: gauge("streams", "Streams that are open.")?,
            topics: gauge("topics", "Topics that have a ring.")?,
            events: gauge("ring_events", "Events held for replay.")?,
            bytes: gauge("ring_bytes", "Bytes held for replay.")?,
            evictions: gauge("ring_evictions", "Events that left their ring since the start.")?,
            dedup_ids: gauge("dedup_ids", "Message ids remembered.")?,
            push_bytes: gauge("push_bytes_in_flight", "Bytes of bodies being received.")?,
            registry,
            hub,
            in_flight,
        })
    }

    fn gather(&self) -> String {
        let stats = self.hub.stats();
        let set = |gauge: &IntGauge, value: usize| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.streams, self.hub.subscribers());
        set(&self.topics, stats.topics);
        set(&self.events, stats.events);
        set(&self.bytes, stats.bytes);
        set(&self.dedup_ids, stats.dedup_ids);
        set(&self.push_bytes, self.in_flight.bytes());
        for (over_us, count) in WAITS_US.iter().zip(self.hub.waits()) {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.waits.with_label_values(&[&over_us.to_string()]).set(count);
        }
        self.evictions.set(i64::try_from(stats.evictions).unwrap_or(i64::MAX));
        let mut text = String::new();
        if let Err(err) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(error = %err, "metrics could not be encoded");
        }
        text
    }
}

/// `GET /metrics`, in Prometheus' text format.
pub async fn metrics(gauges: web::Data<Gauges>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, prometheus::TEXT_FORMAT))
        .body(gauges.gather())
}

/// `GET /healthz`: the process answers.
pub async fn health() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "ok" }))
}

/// `GET /readyz`: 200 or 503, with the reason.
pub async fn ready(readiness: web::Data<Readiness>) -> HttpResponse {
    match readiness.unready() {
        None => HttpResponse::Ok().json(json!({ "status": "ready" })),
        Some(reason) => HttpResponse::ServiceUnavailable()
            .json(json!({ "status": "unready", "reason": reason })),
    }
}
