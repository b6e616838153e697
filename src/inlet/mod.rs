//! Inlets: each receives and decodes messages in its own way and hands each one to
//! [`Inlet::accept`], the policy that all inlets share. [`push`] is the inlet for `POST /push`,
//! [`publish`] the one for `POST /publish`, and [`pull`] the one for subscriptions that are pulled.
//!
//! The policy knows no transport: each inlet translates an [`Outcome`] into its own answer.

pub(crate) mod base64;
pub(crate) mod body;
mod classify;
pub mod cloud_event;
pub mod envelope;
mod json;
pub mod publish;
pub mod pull;
pub mod push;
pub mod unwrapped;

use std::{sync::Arc, time::Instant};

use prometheus::{IntCounter, IntCounterVec};

pub use crate::inlet::classify::{DecodeError, Poison, PoisonReason};

use crate::{
    backplane::{Backplane, Confirmed, PublishError},
    config::OnPoison,
    model::{event_id::EventId, message::Message, topic::Topic, trace_context::TraceContext},
    telemetry::{metrics::Metrics, throttle::LogThrottle, traces::Traces},
};

/// Policy for messages: decides which are stored, and what happens to the others.
#[derive(Debug)]
pub struct Inlet {
    /// Store of events.
    backplane: Backplane,
    /// Served topics. Empty: all.
    topics: Vec<Topic>,
    /// Treatment of poison messages.
    on_poison: OnPoison,
    /// Counters of poison messages.
    poison: IntCounterVec,
    /// Counters of the messages by outcome.
    outcomes: IntCounterVec,
    /// Counter of `outcomes` for stored messages. Kept here because a look-up by label takes a
    /// considerable part of the time of a push.
    stored: IntCounter,
    /// Traces of messages.
    traces: Arc<Traces>,
    /// Limit on log lines about subscriptions that are set up wrongly.
    misconfigured_log: LogThrottle,
    /// Limit on log lines about poison messages.
    poison_log: LogThrottle,
}

/// Result of a message: what an inlet needs to answer its sender. It is counted and logged already.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backplane has the message as the event with this id: ack.
    Stored(EventId),
    /// The backplane has a message with the same message id, within the dedup window, as the event
    /// with this id: ack.
    Duplicate(EventId),
    /// Poison message, dropped (`--poison ack`): ack.
    PoisonDropped(Poison),
    /// Poison message, refused (`--poison nack`): nack, so that Pub/Sub moves it to the
    /// subscription's dead-letter topic.
    PoisonRefused(Poison),
    /// The body is not an envelope: nack. The text names the remedy.
    NotAnEnvelope(String),
    /// Nothing names the message's topic: nack. The text names the remedy.
    NoTopic(String),
    /// The topic is not served by this gateway: nack. The text names the topic.
    NotServed(String),
    /// The backplane did not confirm the message: nack, and the next delivery may succeed.
    Unconfirmed(PublishError),
}

impl Outcome {
    /// Returns the id of the message's event, if the message is stored.
    fn id(&self) -> Option<EventId> {
        match self {
            Self::Stored(id) | Self::Duplicate(id) => Some(*id),
            _ => None,
        }
    }

    /// Returns the outcome's label in metrics.
    fn as_str(&self) -> &'static str {
        match self {
            Self::Stored(_) => "stored",
            Self::Duplicate(_) => "duplicate",
            Self::PoisonDropped(_) | Self::PoisonRefused(_) => "poison",
            Self::NotAnEnvelope(_) => "not-an-envelope",
            Self::NoTopic(_) => "no-topic",
            Self::NotServed(_) => "not-served",
            Self::Unconfirmed(PublishError::Draining) => "shutting-down",
            Self::Unconfirmed(PublishError::Unconfirmed) => "unconfirmed",
        }
    }
}

/// Error of a message whose topic is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the topic {0} is not served here: it is not one of --topic")]
pub struct TopicNotServedError(Topic);

/// Longest text from outside, in characters, in a log line or an answer.
const TEXT_CHARS_MAX: usize = 200;

impl Inlet {
    /// Creates the policy of one inlet, which counts its messages in `outcomes`. `topics` lists the
    /// served topics; an empty list serves all.
    pub fn new(
        backplane: Backplane,
        topics: Vec<Topic>,
        on_poison: OnPoison,
        metrics: &Metrics,
        outcomes: &IntCounterVec,
    ) -> Self {
        for reason in PoisonReason::ALL {
            // An alert on the first poison message needs to have seen 0.
            let _zero = metrics.poison.with_label_values(&[reason.as_str()]);
        }
        Self {
            backplane,
            topics,
            on_poison,
            poison: metrics.poison.clone(),
            stored: outcomes.with_label_values(&["stored"]),
            outcomes: outcomes.clone(),
            traces: Arc::default(),
            misconfigured_log: LogThrottle::default(),
            poison_log: LogThrottle::default(),
        }
    }

    /// Sets how the log names traces, and where spans go. By default, no spans are made.
    pub fn with_traces(self, traces: Arc<Traces>) -> Self {
        Self { traces, ..self }
    }

    /// Stores a message if its topic is served. [`Outcome::Stored`] and [`Outcome::Duplicate`] are
    /// the only outcomes that tell the sender that the message is stored.
    pub async fn accept(&self, message: Message) -> Outcome {
        if let Err(outcome) = self.check_topic(&message.topic) {
            return outcome;
        }
        let (topic, context) = (message.topic.clone(), TraceContext::of(&message.attributes));
        let span = self.traces.begin(context, message.message_id.as_deref());
        let outcome = match self.backplane.publish(message).await {
            Ok(Confirmed::Stored(id)) => Outcome::Stored(id),
            Ok(Confirmed::Duplicate(id)) => Outcome::Duplicate(id),
            Err(err) => Outcome::Unconfirmed(err),
        };
        if let Some(span) = span {
            self.traces.add(span.end(&topic, outcome.as_str(), outcome.id()));
        }
        self.log(&outcome, &topic, context);
        self.count(outcome)
    }

    /// Logs the outcome of a message, with the trace that its publisher began.
    fn log(&self, outcome: &Outcome, topic: &Topic, context: Option<TraceContext>) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let id = outcome.id().map(tracing::field::display);
        let trace = context.map(|context| self.traces.name(context));
        let outcome = outcome.as_str();
        tracing::debug!(%topic, outcome, id, "logging.googleapis.com/trace" = trace, "message handled");
    }

    /// Counts and logs a message that could not be decoded, and decides about it.
    pub fn reject(&self, err: DecodeError) -> Outcome {
        let outcome = match err {
            DecodeError::Poison(poison) => self.reject_poison(poison),
            DecodeError::NoTopic(text) => {
                self.log_misconfigured(&text);
                Outcome::NoTopic(text)
            }
            DecodeError::NotAnEnvelope(text) => {
                let text = format!(
                    "{}. For a subscription without a wrapper, set \
                     --push-no-wrapper-write-metadata on it, or add ?payload=raw to its endpoint",
                    shortened(&text)
                );
                self.log_misconfigured(&text);
                Outcome::NotAnEnvelope(text)
            }
        };
        self.count(outcome)
    }

    /// Checks that a topic is served. [`Inlet::accept`] does so too: an inlet that knows the topic
    /// first calls this to refuse a message before it is received.
    ///
    /// # Errors
    /// [`Outcome::NotServed`].
    pub(crate) fn check_topic(&self, topic: &Topic) -> Result<(), Outcome> {
        self.check_served(topic).map_err(|err| {
            let text = err.to_string();
            self.log_misconfigured(&text);
            self.count(Outcome::NotServed(text))
        })
    }

    /// Checks that a topic is served, and counts nothing.
    ///
    /// # Errors
    /// Fails if it is not one of `--topic`.
    pub(crate) fn check_served(&self, topic: &Topic) -> Result<(), TopicNotServedError> {
        if self.topics.is_empty() || self.topics.contains(topic) {
            return Ok(());
        }
        Err(TopicNotServedError(topic.clone()))
    }

    /// Logs that a subscription is set up wrongly: all its messages fail for the same reason.
    pub(crate) fn log_misconfigured(&self, reason: &str) {
        if let Some(more) = self.misconfigured_log.log(Instant::now()) {
            tracing::warn!(reason, more, "push refused: check how its subscription is set up");
        }
    }

    /// Drops or refuses a message that no redelivery can repair. A nack slows down the whole
    /// subscription (Pub/Sub backs off for up to a minute), so the default is to drop it.
    fn reject_poison(&self, mut poison: Poison) -> Outcome {
        let reason = poison.reason.as_str();
        self.poison.with_label_values(&[reason]).inc();
        poison.message_id = poison.message_id.as_deref().map(shortened);
        poison.detail = shortened(&poison.detail);
        if let Some(more) = self.poison_log.log(Instant::now()) {
            let message_id = poison.message_id.as_deref().unwrap_or("unknown");
            tracing::error!(message_id, reason, detail = poison.detail, more, "poison message");
        }
        match self.on_poison {
            OnPoison::Ack => Outcome::PoisonDropped(poison),
            OnPoison::Nack => Outcome::PoisonRefused(poison),
        }
    }

    fn count(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Stored(_) => self.stored.inc(),
            _ => self.outcomes.with_label_values(&[outcome.as_str()]).inc(),
        }
        outcome
    }
}

/// Cuts a text from outside to [`TEXT_CHARS_MAX`]: otherwise one message could fill the log.
fn shortened(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}
