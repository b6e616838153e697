//! Streams: from a reader's request to the last byte. [`session`] is a stream without I/O and
//! without a format; [`drive`] writes its bytes to clients.
pub mod delivery;
pub(crate) mod drive;
pub mod fold;
pub(crate) mod large;
pub(crate) mod lease;
pub(crate) mod limits;
pub(crate) mod log_lines;
pub(crate) mod open;
pub(crate) mod pending;
pub(crate) mod presence;
pub mod request;
pub(crate) mod session;
pub(crate) mod turns;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::HttpRequest;
use rand::RngExt as _;
use tokio::time::Instant;

use crate::{
    auth::{access::Access, grant::Holder},
    backplane::Backplane,
    clock,
    http::client_address::client_address,
    hub::{GroupKey, Hub, Start, SubscribeError},
    limits::{
        budget::{Budget, Claim},
        rate::RateLimit,
    },
    model::{event_id::EventId, topic::Topic},
    presence::exchange::Exchange,
    stream::{
        large::LargeEvents, lease::LeaseRegistry, limits::StreamLimits, log_lines::LogLines,
        request::StreamRequestError,
    },
    telemetry::{metrics::Metrics, traces::Traces},
};

/// Context that all streams share.
#[derive(Debug)]
pub struct StreamContext {
    /// Hub that all streams read from.
    pub hub: Hub,
    /// Log of the messages, which knows whether an id was assigned.
    pub backplane: Backplane,
    /// Rule for who may read.
    pub access: Access,
    /// Topics that readers may have. Empty means all.
    pub served: Vec<Topic>,
    /// Metrics of the gateway.
    pub metrics: Metrics,
    /// Traces of messages.
    pub traces: Arc<Traces>,
    /// Log lines about streams.
    pub log_lines: LogLines,
    /// Limits of open streams by address and by subject.
    pub limits: StreamLimits,
    /// Largest number of topics that one reader may name.
    pub topics_per_stream: usize,
    /// Limit of readers' requests by address.
    pub requests: RateLimit<IpAddr>,
    /// Limit of tickets by subject, or by token without one.
    pub tickets: RateLimit<Holder>,
    /// Number of proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: usize,
    /// Members of topics on all replicas.
    pub presence: Arc<Exchange>,
    /// Leases of streams that end with a token.
    pub leases: Arc<LeaseRegistry>,
    /// Number of streams that wait for the log, and of connections without a stream.
    pub waiting: AtomicUsize,
    /// Memory for large events that slow readers are receiving.
    pub large_events: LargeEvents,
    /// Memory for the events that folds hold.
    pub folds: Arc<Budget>,
    /// Memory for answers to polls.
    pub poll_answers: Arc<Budget>,
    /// Memory for what clients of WebSockets have sent.
    pub socket_input: Arc<Budget>,
    /// Time without messages after which a stream sends a keep-alive.
    pub keep_alive: Duration,
    /// Longest life of a stream.
    pub stream_age_max: Duration,
}

/// Newest event of a batch that was written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Newest {
    pub(crate) id: EventId,
    /// Time at which Pub/Sub received the message, in Unix milliseconds.
    pub(crate) publish_time_ms: Option<u64>,
}

/// Limit of the bytes of all answers to polls that are not written yet.
pub const POLL_ANSWERS_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Memory for what clients of WebSockets have sent and is not carried out yet. Over it, a client
/// that has sent more than a few kilobytes is refused.
pub const SOCKET_INPUT_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Text for a reader whose address sends too many requests.
pub const TOO_OFTEN: &str = "this address sends too many requests (--requests-per-address)";

impl StreamContext {
    /// Counts a request of a reader.
    ///
    /// # Errors
    /// Returns the time to wait, when the address sends too many requests.
    pub fn admit(&self, request: &HttpRequest) -> Result<(), Duration> {
        self.requests.try_acquire(client_address(request.head(), self.trusted_proxies))
    }

    /// Reserves memory for the group of a stream that is opened later.
    ///
    /// # Errors
    /// Returns the limit that the stream would exceed.
    pub fn reserve(&self, key: &GroupKey) -> Result<Claim, SubscribeError> {
        if !self.hub.has_room(self.waiting.load(Ordering::SeqCst)) {
            return Err(SubscribeError::Subscribers);
        }
        self.hub.reserve(key).inspect_err(|reached| self.count(*reached))
    }

    /// Counts a malformed request that names too many topics.
    pub(crate) fn count_malformed(&self, err: &StreamRequestError) {
        if matches!(err, StreamRequestError::TooManyTopics(_)) {
            self.metrics.limit("topics-per-stream").inc();
        }
    }

    /// Counts a stream that was refused because of a limit of the hub.
    pub fn count(&self, reached: SubscribeError) {
        match reached {
            SubscribeError::FollowedBytes => self.metrics.limit("followed-bytes-max").inc(),
            SubscribeError::Filters => self.metrics.limit("filters-max").inc(),
            SubscribeError::Subscribers => {}
        }
    }

    /// Counts a batch of `events` events that was written to `streams` streams. `newest` is the
    /// newest event of the batch. It is `None` if it was stored before the streams were open, since
    /// its age then says nothing about the gateway, and if nothing was written.
    pub(crate) fn record_delivered(&self, streams: usize, events: u64, newest: Option<Newest>) {
        self.metrics.delivered.inc_by(events * streams as u64);
        let Some(newest) = newest.filter(|_| 0 < streams) else { return };
        let now_ms = clock::now_ms();
        let since = |time_ms| Duration::from_millis(now_ms.saturating_sub(time_ms)).as_secs_f64();
        // Observed once for all these streams: once for each would make deliveries slower.
        self.metrics.ring_to_socket.observe(since(newest.id.time_ms));
        let Some(late) = newest.publish_time_ms.map(since) else { return };
        let latency = &self.metrics.latency;
        if streams == 1 {
            return latency.observe(late);
        }
        let latency = latency.local();
        (0..streams).for_each(|_| latency.observe(late));
    }

    /// Returns a random maximum age, so that streams that were opened together do not end together.
    pub(crate) fn random_age(&self) -> Duration {
        self.stream_age_max.mul_f64(rand::rng().random_range(0.8..=1.0))
    }

    /// Returns a random end within the drain, if there is one, so that not all readers connect to
    /// the other replicas at once.
    pub(crate) fn random_drain_end(&self) -> Option<Instant> {
        let drain = self.hub.draining()?;
        // In the last tenth of the drain, the last bytes reach their sockets.
        let share = rand::rng().random_range(0.0..0.9);
        Some(Instant::from_std(drain.from + drain.over.mul_f64(share)))
    }

    /// Returns true if a stream that starts at `start` can be opened without asking the log or
    /// waiting for it.
    pub fn is_settled(&self, start: Start) -> bool {
        self.backplane.is_filled() && self.ahead(start).is_none()
    }

    /// Returns the id to start after, if this replica has not read that far.
    pub fn ahead(&self, start: Start) -> Option<EventId> {
        match start {
            // An id of another history will never be reached.
            Start::After(id)
                if self.hub.is_copy()
                    && id.history() == EventId::ZERO.history()
                    && self.hub.head() < id =>
            {
                Some(id)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
impl StreamContext {
    /// Creates the context of streams that read from `hub`, for anonymous readers and without
    /// limits.
    pub(crate) fn for_tests(hub: Hub) -> Self {
        let metrics = Metrics::new().unwrap();
        let backplane = Backplane::Local(hub.clone(), Arc::default());
        let rooms = crate::presence::Rooms::new(false, Duration::from_secs(10));
        Self {
            presence: Exchange::new(rooms, backplane.clone()),
            backplane,
            hub,
            access: Access::Anonymous,
            served: Vec::new(),
            limits: StreamLimits::new(0, 0),
            topics_per_stream: usize::MAX,
            requests: RateLimit::new(0, metrics.limit("requests-per-address")),
            tickets: RateLimit::new(0, metrics.limit("tickets-per-subject")),
            metrics,
            traces: Arc::default(),
            log_lines: LogLines::new(),
            trusted_proxies: 0,
            leases: Arc::default(),
            waiting: AtomicUsize::new(0),
            large_events: LargeEvents::new(large::LARGE_EVENTS_MAX_BYTES),
            folds: Budget::new(fold::FOLDS_MAX_BYTES),
            poll_answers: Budget::new(POLL_ANSWERS_MAX_BYTES),
            socket_input: Budget::new(SOCKET_INPUT_MAX_BYTES),
            keep_alive: Duration::from_secs(15),
            stream_age_max: Duration::from_secs(3_600),
        }
    }
}
