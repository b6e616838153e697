//! Health of the gateway: `/metrics`, `/healthz` and `/readyz`.

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
    auth::{publisher::PublishAccess, push::Verifier},
    backplane::Backplane,
    hub::{Hub, WAITS_US},
    inlet::{body::InFlight, publish::PublishEndpoint, pull::Pulls},
    presence::exchange::Exchange,
    server::heartbeat::{Heartbeats, HungWorker},
    stream::StreamContext,
};

/// Readiness of the gateway for new requests. After the first time that it is ready, only the start
/// of shutdown makes it unready: if a shared cause made all replicas unready, a load balancer would
/// answer every request with 502.
#[derive(Debug)]
pub struct Readiness {
    /// Verifier of push tokens. `None` if pushes need no token.
    verifier: Option<Arc<Verifier>>,
    /// Subscriptions that are pulled.
    pulls: Arc<Pulls>,
    /// State of the publish endpoint: its tokens' keys.
    publish: web::Data<PublishEndpoint>,
    /// State of the streams: their tokens' keys and the backplane.
    streams: web::Data<StreamContext>,
    /// True after the first time that the gateway is ready.
    was_ready: AtomicBool,
    /// True from the start of shutdown.
    leaving: AtomicBool,
}

impl Readiness {
    /// Makes the readiness of a gateway. It is ready when the rings are filled and the keys of all
    /// tokens are fetched, and when the subscriptions are pulled.
    pub fn new(
        verifier: Option<Arc<Verifier>>,
        pulls: Arc<Pulls>,
        publish: web::Data<PublishEndpoint>,
        streams: web::Data<StreamContext>,
    ) -> Self {
        let (was_ready, leaving) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { verifier, pulls, publish, streams, was_ready, leaving }
    }

    /// Makes the gateway unready until the process ends.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
    }

    /// Returns the reason why the gateway is not ready, or `None` if it is ready.
    pub fn unready(&self) -> Option<&'static str> {
        if self.leaving.load(Ordering::SeqCst) {
            return Some("shutting down");
        }
        if self.was_ready.load(Ordering::SeqCst) {
            return None;
        }
        if self.verifier.as_ref().is_some_and(|verifier| !verifier.is_ready()) {
            return Some("the keys of push tokens are not fetched yet (--push-jwks-url)");
        }
        let is_publishing_ready = self.publish.access.as_ref().is_none_or(PublishAccess::is_ready);
        if !self.streams.access.is_ready() || !is_publishing_ready {
            return Some("the keys of readers' tokens are not fetched yet (--read-jwks-url)");
        }
        if !self.streams.backplane.is_filled() {
            return Some("the events in Redis are not read yet (--backplane)");
        }
        if !self.pulls.is_ready() {
            return Some("the subscriptions are not pulled yet (--pull)");
        }
        self.was_ready.store(true, Ordering::SeqCst);
        None
    }
}

/// Health of the workers. A worker that hangs no longer serves its readers, and only a restart of
/// the process ends that.
#[derive(Debug)]
pub struct Health {
    /// Heartbeats of all workers.
    heartbeats: Heartbeats,
    /// True if a worker was found hung at the last look.
    was_hung: AtomicBool,
}

impl Health {
    /// Makes the health of these workers.
    pub fn new(heartbeats: Heartbeats) -> Self {
        Self { heartbeats, was_hung: AtomicBool::new(false) }
    }

    /// Returns the heartbeats, to which each worker adds itself.
    pub fn heartbeats(&self) -> &Heartbeats {
        &self.heartbeats
    }

    /// Returns a worker that hangs. The first call that finds one logs an error.
    fn hung(&self, now: Instant) -> Option<HungWorker> {
        let hung = self.heartbeats.hung(now);
        let was_hung = self.was_hung.swap(hung.is_some(), Ordering::SeqCst);
        if let (Some(HungWorker { worker, silent }), false) = (hung, was_hung) {
            tracing::error!(worker, ?silent, "a worker hangs; /healthz answers 503");
        }
        hung
    }
}

/// Metrics that are read from the hub and the process at each `GET /metrics`.
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
    evaluations: IntCounter,
    dedup_ids: IntGauge,
    push_bytes: IntGauge,
    followed_bytes: IntGauge,
    presence: Arc<Exchange>,
    presence_topics: IntGauge,
    presence_members: IntGauge,
    waits: IntCounterVec,
}

impl Gauges {
    /// Adds the metrics of the hub and of the process to a registry.
    ///
    /// # Errors
    /// Returns an error if a name is already in the registry.
    pub fn new(
        registry: Registry,
        hub: Hub,
        backplane: Backplane,
        in_flight: Arc<InFlight>,
        presence: Arc<Exchange>,
        heartbeats: Heartbeats,
    ) -> prometheus::Result<Self> {
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("stream_events_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let opts = Opts::new("stream_events_build_info", "Always 1. The label is the version.");
        let build_info =
            IntGauge::with_opts(opts.const_label("version", env!("CARGO_PKG_VERSION")))?;
        build_info.set(1);
        registry.register(Box::new(build_info))?;
        let help = "Pushes that waited for the hub for longer than over_us microseconds.";
        let opts = Opts::new("stream_events_hub_waits_total", help);
        let waits = IntCounterVec::new(opts, &["over_us"])?;
        registry.register(Box::new(waits.clone()))?;
        let help = "Events that left their ring since the start.";
        let evictions = IntCounter::new("stream_events_ring_evictions_total", help)?;
        registry.register(Box::new(evictions.clone()))?;
        let help = "Evaluations of readers' filters for events.";
        let evaluations = IntCounter::new("stream_events_filter_evaluations_total", help)?;
        registry.register(Box::new(evaluations.clone()))?;
        let help = "Time for which the log may have had events that were not read.";
        let log_lag = Gauge::new("stream_events_log_lag_seconds", help)?;
        registry.register(Box::new(log_lag.clone()))?;
        Ok(Self {
            waits,
            evictions,
            evaluations,
            log_lag,
            workers: gauge("workers", "Threads that serve connections.")?,
            streams: gauge("streams", "Streams that are open.")?,
            topics: gauge("topics", "Topics that have a ring.")?,
            events: gauge("ring_events", "Events held for replay.")?,
            bytes: gauge("ring_bytes", "Bytes held for replay.")?,
            dedup_ids: gauge("dedup_ids", "Message ids remembered.")?,
            push_bytes: gauge("push_bytes_in_flight", "Bytes of bodies being received.")?,
            followed_bytes: gauge("followed_bytes", "Memory for topics that streams follow.")?,
            presence_topics: gauge("presence_topics", "Topics with presence.")?,
            presence_members: gauge(
                "presence_members",
                "Members of the topics with presence, over all replicas.",
            )?,
            registry,
            hub,
            backplane,
            in_flight,
            presence,
            heartbeats,
        })
    }

    /// Reads all metrics, and returns them in Prometheus' text format.
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
        let (topics, members) = self.presence.rooms().count();
        set(&self.presence_topics, topics);
        set(&self.presence_members, members);
        for (over_us, count) in WAITS_US.iter().zip(self.hub.waits()) {
            raise(&self.waits.with_label_values(&[&over_us.to_string()]), count);
        }
        self.log_lag.set(self.backplane.lag().as_secs_f64());
        raise(&self.evictions, stats.evictions);
        raise(&self.evaluations, self.hub.evaluations());
        let mut text = String::new();
        if let Err(err) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(error = %err, "cannot encode the metrics");
        }
        text
    }
}

/// Raises a counter to `count`, which the hub counts and never lowers. Only the ops listener's one
/// thread calls this function, so no two calls add the same difference.
fn raise(counter: &IntCounter, count: u64) {
    counter.inc_by(count.saturating_sub(counter.get()));
}

/// Answers `GET /metrics` in Prometheus' text format.
pub async fn metrics(gauges: web::Data<Gauges>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, prometheus::TEXT_FORMAT))
        .body(gauges.gather())
}

/// Answers `GET /healthz`: 200 while every worker runs, or 503 with the number of a worker that
/// hangs.
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

/// Answers `GET /readyz`: 200 if the gateway is ready, or 503 with the reason.
pub async fn ready(readiness: web::Data<Readiness>) -> HttpResponse {
    match readiness.unready() {
        None => HttpResponse::Ok().json(json!({ "status": "ready" })),
        Some(reason) => HttpResponse::ServiceUnavailable()
            .json(json!({ "status": "unready", "reason": reason })),
    }
}
