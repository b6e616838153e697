//! Spans of messages, before they are encoded for a collector.

use crate::{
    clock::{self, WallTime},
    hub::SampledEvent,
    model::{event_id::EventId, topic::Topic, trace_context::TraceContext},
};

/// Span that has ended, as a child of the publisher's span.
#[derive(Debug)]
#[cfg_attr(
    not(feature = "otel"),
    expect(dead_code, reason = "a build without otel exports no span")
)]
pub(crate) struct Span {
    pub(super) operation: Operation,
    /// Context of the publisher's span.
    pub(super) parent: TraceContext,
    pub(super) topic: Topic,
    /// Pub/Sub's id of the message, if it has one.
    pub(super) message_id: Option<String>,
    /// Id of the event. `None` if the message is not stored.
    pub(super) event_id: Option<EventId>,
    pub(super) began: WallTime,
    pub(super) ended: WallTime,
}

/// Operation whose time a span measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// From the decoded message until the store has answered. Holds the outcome's label.
    Process(&'static str),
    /// From the time of the event's id until it is given to the first reader.
    Deliver,
}

/// Span `process` that has not ended.
#[derive(Debug)]
pub(crate) struct BegunSpan {
    parent: TraceContext,
    message_id: Option<String>,
    began: WallTime,
}

impl BegunSpan {
    /// Begins a span now.
    pub(super) fn new(parent: TraceContext, message_id: Option<&str>) -> Self {
        Self { parent, message_id: message_id.map(str::to_owned), began: clock::now() }
    }

    /// Ends the span now.
    pub(crate) fn end(self, topic: &Topic, outcome: &'static str, id: Option<EventId>) -> Span {
        Span {
            operation: Operation::Process(outcome),
            parent: self.parent,
            topic: topic.clone(),
            message_id: self.message_id,
            event_id: id,
            began: self.began,
            ended: clock::now(),
        }
    }
}

impl Span {
    /// Returns the span of an event that is given to its first reader now.
    pub(super) fn deliver(event: &SampledEvent) -> Self {
        let ended = clock::now();
        Self {
            operation: Operation::Deliver,
            parent: event.trace.context,
            topic: event.trace.topic.clone(),
            message_id: None,
            event_id: Some(event.id),
            // With Redis, its clock makes the ids, and may be ahead.
            began: clock::at_ms(event.id.time_ms).min(ended),
            ended,
        }
    }
}
