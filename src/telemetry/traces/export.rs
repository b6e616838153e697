//! Export of spans to an OpenTelemetry collector, with OTLP over HTTP in protobuf.
//!
//! OpenTelemetry's own processor of batches is not used: it does not count the spans that it drops,
//! and it starts a thread of its own.

use std::{error::Error, time::Duration};

use opentelemetry::{
    InstrumentationScope, Key, KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks},
};
use prometheus::IntCounterVec;
use rand::RngExt as _;
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, sleep, timeout},
};

use crate::telemetry::{
    throttle::LogThrottle,
    traces::span::{Operation, Span},
};

/// Task that exports spans.
pub(super) struct Exporter {
    spans: SpanExporter,
    scope: InstrumentationScope,
    /// Counters of the spans by outcome.
    outcomes: IntCounterVec,
    failure_log: LogThrottle,
}

/// Largest number of spans in one request.
const BATCH_MAX: usize = 512;
/// Pause after a request with fewer spans than [`BATCH_MAX`], so that the next request has more.
const PAUSE: Duration = Duration::from_secs(1);
/// Time that the collector has to answer, all attempts included.
const ANSWER_MAX: Duration = Duration::from_secs(10);

impl Exporter {
    /// Makes the exporter to the collector at `endpoint`, a URL to which the path of traces is
    /// added.
    ///
    /// # Errors
    /// Fails when the HTTP client cannot be made.
    pub(super) fn new(
        endpoint: &str,
        outcomes: &IntCounterVec,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(ANSWER_MAX)
            .user_agent(concat!("stream-events/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(ANSWER_MAX)
            .build()?;
        exporter.set_resource(&resource());
        let scope = InstrumentationScope::builder("stream-events")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        let failure_log = LogThrottle::default();
        Ok(Self { spans: exporter, scope, outcomes: outcomes.clone(), failure_log })
    }

    /// Exports the spans of the queue. Ends when the queue is closed.
    pub(super) async fn run(self, mut queue: Receiver<Span>) {
        let mut spans = Vec::new();
        while 0 < queue.recv_many(&mut spans, BATCH_MAX).await {
            let count = spans.len();
            let batch = spans.drain(..).map(|span| self.encoded(span)).collect();
            let outcome = match timeout(ANSWER_MAX, self.spans.export(batch)).await {
                Ok(Ok(())) => "exported",
                Ok(Err(err)) => self.failed(&err.to_string()),
                Err(_) => self.failed("no answer within 10 s"),
            };
            self.outcomes.with_label_values(&[outcome]).inc_by(count as u64);
            if count < BATCH_MAX {
                sleep(PAUSE).await;
            }
        }
    }

    /// Logs a failure, and returns the outcome of its spans.
    fn failed(&self, reason: &str) -> &'static str {
        if let Some(more) = self.failure_log.log(Instant::now().into_std()) {
            tracing::warn!(reason, more, "the collector (--otlp-endpoint) did not take spans");
        }
        "export-failed"
    }

    /// Makes a span of OpenTelemetry, with the names of its conventions for messaging.
    fn encoded(&self, span: Span) -> SpanData {
        let (name, kind, status) = match span.operation {
            Operation::Process("unconfirmed" | "shutting-down") => {
                let status = Status::error("the message is not stored");
                ("process", SpanKind::Consumer, status)
            }
            Operation::Process(_) => ("process", SpanKind::Consumer, Status::Unset),
            Operation::Deliver => ("deliver", SpanKind::Internal, Status::Unset),
        };
        let trace_id = TraceId::from(span.parent.trace_id);
        let span_id = SpanId::from(rand::rng().random_range(1..=u64::MAX));
        let topic = span.topic.as_str().to_owned();
        let full_name = format!("{name} {topic}");
        let mut attributes = vec![
            KeyValue::new("messaging.system", "gcp_pubsub"),
            KeyValue::new("messaging.operation.name", name),
            KeyValue::new("messaging.destination.name", topic),
        ];
        if let Operation::Process(outcome) = span.operation {
            attributes.push(KeyValue::new("messaging.operation.type", "process"));
            attributes.push(KeyValue::new("stream_events.outcome", outcome));
        }
        let id = span.event_id.map(|id| KeyValue::new("stream_events.event.id", id.to_string()));
        let message_id = span.message_id.map(|id| KeyValue::new("messaging.message.id", id));
        attributes.extend([id, message_id].into_iter().flatten());
        SpanData {
            span_context: SpanContext::new(
                trace_id,
                span_id,
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: SpanId::from(span.parent.span_id),
            parent_span_is_remote: true,
            span_kind: kind,
            name: full_name.into(),
            start_time: span.began,
            end_time: span.ended,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: self.scope.clone(),
        }
    }
}

/// Returns the resource of all spans: the name and the version of the service. The variables
/// `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` change it and add to it.
fn resource() -> Resource {
    let given = Resource::builder().build();
    let name = given.get(&Key::from_static_str("service.name")).map(|name| name.to_string());
    let is_named = name.is_some_and(|name| !name.starts_with("unknown_service"));
    let builder = Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if is_named { builder } else { builder.with_service_name("stream-events") }.build()
}
