//! Traces of messages: their names in the log, and spans for a collector (`--otlp-endpoint`).
//!
//! A message is in a trace if its publisher sent the context of its span as an attribute. The
//! gateway adds spans to the trace only if the publisher records the trace, so that other messages
//! need no memory for spans. Spans hold no data, no attribute and no ordering key of a message.

#[cfg(feature = "otel")]
mod export;
mod span;

use std::{error::Error, sync::Arc};

use prometheus::{IntCounter, IntCounterVec};
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    task::JoinSet,
};

use crate::{
    config::TraceConfig, hub::SampledEvent, model::trace_context::TraceContext,
    telemetry::traces::span::Span,
};

pub(crate) use crate::telemetry::traces::span::BegunSpan;

/// Names of traces for the log, and the queue of spans for the collector.
#[derive(Debug, Default)]
pub struct Traces {
    /// Google Cloud project of the traces. `None` if it is not known.
    project: Option<String>,
    /// Spans that are not exported yet. `None` without `--otlp-endpoint`.
    queue: Option<SpanQueue>,
}

/// Queue of spans. A span that has no room is dropped and counted: a push never waits for a
/// collector.
#[derive(Debug)]
struct SpanQueue {
    spans: Sender<Span>,
    /// Counter of the dropped spans.
    dropped: IntCounter,
}

/// Largest number of spans that wait for the collector: about 1 MB.
const QUEUE_MAX: usize = 2_048;

/// Starts the task that exports the spans of a queue.
#[cfg(feature = "otel")]
fn start_export(
    endpoint: &str,
    outcomes: &IntCounterVec,
    queue: Receiver<Span>,
    tasks: &mut JoinSet<()>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    tasks.spawn(export::Exporter::new(endpoint, outcomes)?.run(queue));
    Ok(())
}

/// Fails. The configuration of a build without the feature `otel` has no endpoint, so nothing calls
/// this function.
#[cfg(not(feature = "otel"))]
fn start_export(
    endpoint: &str,
    _outcomes: &IntCounterVec,
    _queue: Receiver<Span>,
    _tasks: &mut JoinSet<()>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    Err(format!("{endpoint}: this build exports no spans (feature otel)").into())
}

impl Traces {
    /// Makes the traces. With a collector, adds the task that exports spans to `tasks`. `outcomes`
    /// are the counters of spans.
    ///
    /// # Errors
    /// Fails when the HTTP client cannot be made, or in a build without the feature `otel`.
    pub(crate) fn start(
        config: &TraceConfig,
        outcomes: &IntCounterVec,
        tasks: &mut JoinSet<()>,
    ) -> Result<Arc<Self>, Box<dyn Error + Send + Sync>> {
        let project = config.project.clone();
        let Some(endpoint) = &config.otlp_endpoint else {
            return Ok(Arc::new(Self { project, queue: None }));
        };
        let (spans, waiting) = channel(QUEUE_MAX);
        start_export(endpoint, outcomes, waiting, tasks)?;
        let queue = SpanQueue { spans, dropped: outcomes.with_label_values(&["queue-full"]) };
        Ok(Arc::new(Self { project, queue: Some(queue) }))
    }

    /// Returns the name of a trace for the field `logging.googleapis.com/trace` of Cloud Logging.
    /// Without a project it is the id of the trace, which the logging agent of GKE completes.
    pub(crate) fn name(&self, context: TraceContext) -> String {
        let id = context.trace_id;
        match &self.project {
            Some(project) => format!("projects/{project}/traces/{id:032x}"),
            None => format!("{id:032x}"),
        }
    }

    /// Begins the span `process` of a message, if there is a collector and the publisher records
    /// the trace.
    pub(crate) fn begin(
        &self,
        context: Option<TraceContext>,
        message_id: Option<&str>,
    ) -> Option<Box<BegunSpan>> {
        let context = context.filter(|context| context.is_sampled && self.queue.is_some())?;
        Some(Box::new(BegunSpan::new(context, message_id)))
    }

    /// Adds a span that has ended.
    pub(crate) fn add(&self, span: Span) {
        if let Some(queue) = &self.queue
            && queue.spans.try_send(span).is_err()
        {
            queue.dropped.inc();
        }
    }

    /// Adds the span `deliver` of each event that no reader of this process was given before.
    pub(crate) fn deliver<'a>(&self, events: impl IntoIterator<Item = &'a SampledEvent>) {
        if self.queue.is_none() {
            return;
        }
        for event in events.into_iter().filter(|event| event.trace.is_first_delivery()) {
            self.add(Span::deliver(event));
        }
    }
}
