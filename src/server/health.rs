//! Seen from outside: `/metrics`, `/healthz`, `/readyz`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use actix_web::{HttpResponse, http::header, web};
use prometheus::{
    Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
    process_collector::ProcessCollector,
};
use serde_json::json;

use crate::{
    auth::push::Verifier,
    backplane::Backplane,
    hub::{Hub, WAITS_US},
    inlet::body::InFlight,
    server::heartbeat::{Heartbeats, HungWorker},
    stream::StreamContext,
};

/// Whether new work may be sent here. Once it was ready, only leaving makes it unready: a load
/// balancer answers 502 for replicas that are all unready, which helps nobody.
#[derive(Debug)]
pub struct Readiness {
    verifier: Option<Arc<Verifier>>,
    streams: web::Data<StreamContext>,
    was_ready: AtomicBool,
    leaving: AtomicBool,
}

impl Readiness {
    /// Ready when tokens can be verified, or need not be, and the rings are filled.
    pub fn new(verifier: Option<Arc<Verifier>>, streams: web::Data<StreamContext>) -> Self {
        let (was_ready, leaving) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { verifier, streams, was_ready, leaving }
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
        if self.was_ready.load(Ordering::SeqCst) {
            return None;
        }
        if self.verifier.as_ref().is_some_and(|verifier| !verifier.is_ready()) {
            return Some("the keys for push tokens were not fetched yet (--push-jwks-url)");
        }
        if !self.streams.access.is_ready() {
            return Some("the keys for readers' tokens were not fetched yet (--read-jwks-url)");
        }
        if !self.streams.backplane.is_filled() {
            return Some("the log was not read yet (--backplane)");
        }
        self.was_ready.store(true, Ordering::SeqCst);
        None
    }
}

/// Whether the workers run. A process whose worker hangs is of no use to that worker's readers,
/// and only a restart mends it.
#[derive(Debug)]
pub struct Health {
    heartbeats: Heartbeats,
    was_hung: AtomicBool,
}

impl Health {
    /// The health of these workers.
    pub fn new(heartbeats: Heartbeats) -> Self {
        Self { heartbeats, was_hung: AtomicBool::new(false) }
    }

    /// The heartbeats, for a worker to join.
    pub fn heartbeats(&self) -> &Heartbeats {
        &self.heartbeats
    }

    /// The worker that hangs, if one does. The first call that finds one logs it.
    fn hung(&self, now: Instant) -> Option<HungWorker> {
        let hung = self.heartbeats.hung(now);
        let was_hung = self.was_hung.swap(hung.is_some(), Ordering::SeqCst);
        if let (Some(HungWorker { worker, silent }), false) = (hung, was_hung) {
            tracing::error!(worker, ?silent, "a worker hangs: /healthz answers 503");
        }
        hung
    }
}

/// The metrics that are read from the hub and the process at each `GET /metrics`.
#[derive(Debug)]
pub struct Gauges {
    registry: Registry,
    hub: Hub,
    backplane: Backplane,
    in_flight: Arc<InFlight>,
    heartbeats: Heartbeats,
    log_lag: Gauge,
    workers: IntGauge,
    streams: IntGauge,
    topics: IntGauge,
    events: IntGauge,
    bytes: IntGauge,
    evictions: IntCounter,
    dedup_ids: IntGauge,
    push_bytes: IntGauge,
    followed_bytes: IntGauge,
    waits: IntCounterVec,
}

impl Gauges {
    /// Adds the gauges of the hub and of the process to a registry.
    ///
    /// # Errors
    /// When a name is taken, which they are not.
    pub fn new(
        registry: Registry,
        hub: Hub,
        backplane: Backplane,
        in_flight: Arc<InFlight>,
        heartbeats: Heartbeats,
    ) -> prometheus::Result<Self> {
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("stream_events_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let help = "Pushes that waited for the hub for longer than so many microseconds.";
        let opts = Opts::new("stream_events_hub_waits_total", help);
        let waits = IntCounterVec::new(opts, &["over_us"])?;
        registry.register(Box::new(waits.clone()))?;
        let help = "Events that left their ring since the start.";
        let evictions = IntCounter::new("stream_events_ring_evictions_total", help)?;
        registry.register(Box::new(evictions.clone()))?;
        let help = "For how long there may have been events in the log that were not read.";
        let log_lag = Gauge::new("stream_events_log_lag_seconds", help)?;
        registry.register(Box::new(log_lag.clone()))?;
        Ok(Self {
            waits,
            evictions,
            log_lag,
            workers: gauge("workers", "Threads that serve connections.")?,
            streams: gauge("streams", "Streams that are open.")?,
            topics: gauge("topics", "Topics that have a ring.")?,
            events: gauge("ring_events", "Events held for replay.")?,
            bytes: gauge("ring_bytes", "Bytes held for replay.")?,
            dedup_ids: gauge("dedup_ids", "Message ids remembered.")?,
            push_bytes: gauge("push_bytes_in_flight", "Bytes of bodies being received.")?,
            followed_bytes: gauge("followed_bytes", "Memory for topics that streams follow.")?,
            registry,
            hub,
            backplane,
            in_flight,
            heartbeats,
        })
    }

    fn gather(&self) -> String {
        let stats = self.hub.stats();
        let set = |gauge: &IntGauge, value: usize| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.workers, self.heartbeats.workers());
        set(&self.streams, self.hub.subscribers());
        set(&self.topics, stats.topics);
        set(&self.events, stats.events);
        set(&self.bytes, stats.bytes);
        set(&self.dedup_ids, stats.dedup_ids);
        set(&self.push_bytes, self.in_flight.bytes());
        set(&self.followed_bytes, self.hub.followed_bytes());
        for (over_us, count) in WAITS_US.iter().zip(self.hub.waits()) {
            raise(&self.waits.with_label_values(&[&over_us.to_string()]), count);
        }
        self.log_lag.set(self.backplane.lag().as_secs_f64());
        raise(&self.evictions, stats.evictions);
        let mut text = String::new();
        if let Err(err) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(error = %err, "metrics could not be encoded");
        }
        text
    }
}

/// Raises a counter to `count`, which the hub keeps and never lowers. Only the ops listener's one
/// thread calls this function, so no two calls add the same difference.
fn raise(counter: &IntCounter, count: u64) {
    counter.inc_by(count.saturating_sub(counter.get()));
}

/// `GET /metrics`, in Prometheus' text format.
pub async fn metrics(gauges: web::Data<Gauges>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, prometheus::TEXT_FORMAT))
        .body(gauges.gather())
}

/// `GET /healthz`: 200 while every worker runs, or 503 with the number of one that hangs.
pub async fn health(health: web::Data<Health>) -> HttpResponse {
    match health.hung(Instant::now()) {
        None => HttpResponse::Ok().json(json!({ "status": "ok" })),
        Some(HungWorker { worker, silent }) => HttpResponse::ServiceUnavailable().json(json!({
            "status": "hung",
            "reason": format!("worker {worker} has done nothing for {} s", silent.as_secs()),
            "worker": worker,
        })),
    }
}

/// `GET /readyz`: 200 or 503, with the reason.
pub async fn ready(readiness: web::Data<Readiness>) -> HttpResponse {
    match readiness.unready() {
        None => HttpResponse::Ok().json(json!({ "status": "ready" })),
        Some(reason) => HttpResponse::ServiceUnavailable()
            .json(json!({ "status": "unready", "reason": reason })),
    }
}
