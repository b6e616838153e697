//! Control messages: the messages of a stream that are not events.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use rand::RngExt as _;

use crate::model::{event_id::EventId, gap::Gap, presence::Presence, topic::TopicPattern};

/// Control message of a stream. Each format has its own encoding of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// First message of a stream.
    Open(Box<Open>),
    /// Events are missing. The message has no id: a reader that is disconnected before it has read
    /// the message reconnects with its old id, and receives the gap again.
    Gap(Box<Gap>),
    /// Time that is left until the reader's token expires.
    Auth(Duration),
    /// The reader cannot keep up: newer events of the same ordering key have replaced events. The
    /// message has no id, like [`Control::Gap`].
    Folded(Box<Folded>),
    /// Members of a topic, or a change of them. The message has no id.
    Presence(Box<Presence>),
    /// Newer position to resume from, without an event: resuming there costs less.
    Checkpoint(EventId),
    /// Message after a time without others, so that no proxy closes the stream as dead.
    KeepAlive,
    /// Message like [`Control::KeepAlive`] before [`Control::Open`], while the stream waits for the
    /// log.
    Waiting,
    /// Last message of a stream.
    End(End),
}

/// First message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Id to resume from until the reader receives another one.
    pub id: EventId,
    /// Name of the stream, which cannot be guessed: it authorises a renewal of this one stream.
    pub stream: String,
    /// Topics as the reader named them. Empty means all topics that it may read.
    pub topics: Vec<TopicPattern>,
    /// True if the stream continues after the id that the reader sent.
    pub resumed: bool,
    /// Time after which the reader is to reconnect when the connection breaks, in milliseconds.
    pub retry_ms: u64,
}

/// Numbers of events that newer events of the same ordering key have replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    /// Number of replaced events.
    pub events: u64,
    /// Id after which events were replaced.
    pub after: EventId,
    /// Id up to which events were replaced.
    pub upto: EventId,
    /// Numbers by ordering key, over all topics. Events without a key have an empty one.
    pub keys: BTreeMap<String, u64>,
}

impl Folded {
    /// Creates the numbers of a span of ids.
    pub fn new(after: EventId, upto: EventId) -> Self {
        Self { events: 0, after, upto, keys: BTreeMap::new() }
    }

    /// Adds replaced events of one key.
    pub fn add(&mut self, key: &str, events: u64) {
        self.events += events;
        match self.keys.get_mut(key) {
            Some(all) => *all += events,
            None => drop(self.keys.insert(key.to_owned(), events)),
        }
    }
}

/// Last message of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Cause of the end.
    pub reason: EndReason,
    /// Id that a refused reader sent. The reader keeps that id.
    pub id: Option<EventId>,
    /// Time after which the reader is to reconnect, in milliseconds.
    pub retry_ms: u64,
}

/// Cause of the end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The gateway is shutting down; another replica takes over.
    Draining,
    /// The stream has reached its maximum age.
    MaxAge,
    /// A limit of streams was reached.
    Busy,
    /// The reader's token has expired.
    Expired,
    /// The token cannot be verified now, or the log does not answer.
    Unready,
}

impl EndReason {
    /// Returns the name in control messages and in the label of a metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::MaxAge => "max-age",
            Self::Busy => "busy",
            Self::Expired => "expired",
            Self::Unready => "unready",
        }
    }
}

/// Retry time after a connection breaks without an announced end, in milliseconds. It is random,
/// since a proxy that fails breaks all of its connections at once.
pub(crate) const RETRY_AFTER_CUT_MS: Range<u64> = 2_000..4_000;
/// Retry time after an announced end, in milliseconds. Announced ends are spread over time already.
pub(crate) const RETRY_AFTER_END_MS: Range<u64> = 200..1_500;
/// Retry time after a refusal, in milliseconds. It is at least 5 s: refused readers that retry
/// earlier would cause more refusals.
pub(crate) const RETRY_AFTER_REFUSAL_MS: Range<u64> = 5_000..10_000;

impl End {
    /// Creates the end of an open stream.
    pub fn of_stream(reason: EndReason) -> Self {
        Self { reason, id: None, retry_ms: jitter(RETRY_AFTER_END_MS) }
    }

    /// Creates the refusal of a stream that the reader is to open later. `id` is the id that the
    /// reader sent.
    pub fn refusal(reason: EndReason, id: Option<EventId>) -> Self {
        Self { reason, id, retry_ms: jitter(RETRY_AFTER_REFUSAL_MS) }
    }
}

/// Returns the shortest retry time after a refusal, for clients that understand `Retry-After`.
pub(crate) fn refusal_wait() -> Duration {
    Duration::from_millis(RETRY_AFTER_REFUSAL_MS.start)
}

/// Returns a random retry time after a broken connection, in milliseconds.
pub(crate) fn retry_after_cut_ms() -> u64 {
    jitter(RETRY_AFTER_CUT_MS)
}

fn jitter(range: Range<u64>) -> u64 {
    rand::rng().random_range(range)
}
