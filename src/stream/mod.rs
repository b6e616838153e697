//! How events go out: who may read what, the stream's blocks, and the stream.

pub mod body;
pub mod control;
pub mod large;
pub mod lease;
pub mod limits;
pub mod open;
pub mod reactor;
pub mod request;
pub mod session;
pub mod turns;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::HttpRequest;

use crate::{
    auth::{access::Access, grant::Holder},
    backplane::Backplane,
    clock,
    http::client_address::client_address,
    hub::{Hub, LimitReached, Start, TopicSet},
    limits::{
        budget::{Budget, Claim},
        rate::RateLimit,
    },
    model::{event::EventId, topic::Topic},
    outlet::tickets::Leases,
    stream::limits::StreamLimits,
    telemetry::metrics::Metrics,
};

/// What every stream needs.
#[derive(Debug)]
pub struct Outlet {
    pub hub: Hub,
    pub backplane: Backplane,
    pub access: Access,
    /// The only topics there are for readers; any if empty.
    pub served: Vec<Topic>,
    pub metrics: Metrics,
    pub limits: StreamLimits,
    pub topics_per_stream: usize,
    /// Of readers' requests.
    pub requests: RateLimit<IpAddr>,
    /// Of subjects, or of tokens that name none.
    pub tickets: RateLimit<Holder>,
    pub trusted_proxies: usize,
    /// Of readers with tokens.
    pub leases: Arc<Leases>,
    /// How many streams wait to be opened.
    pub waiting: AtomicUsize,
    /// For events that slow readers are in the middle of.
    pub large_events: Arc<Budget>,
    pub keep_alive: Duration,
    pub stream_age_max: Duration,
}

/// What a reader is told whose address asks more often than it may.
pub const TOO_OFTEN: &str = "this address asks too often (--requests-per-address)";

impl Outlet {
    /// Counts one more request of a reader.
    ///
    /// # Errors
    /// With how long its address is to wait, when it is one too many.
    pub fn admit(&self, request: &HttpRequest) -> Result<(), Duration> {
        self.requests.try_acquire(client_address(request.head(), self.trusted_proxies))
    }

    /// Makes room for a stream of these topics that is to be opened later.
    ///
    /// # Errors
    /// With the limit that it would go beyond.
    pub fn reserve(&self, topics: &TopicSet) -> Result<Claim, LimitReached> {
        if !self.hub.has_room(self.waiting.load(Ordering::SeqCst)) {
            return Err(LimitReached::Subscribers);
        }
        self.hub.reserve(topics).inspect_err(|reached| self.count(*reached))
    }

    /// Counts that a stream was refused for a limit of the hub.
    pub fn count(&self, reached: LimitReached) {
        if reached == LimitReached::FollowedBytes {
            self.metrics.limit("followed-bytes-max").inc();
        }
    }

    /// Counts events that were given to so many streams, with the newest one's publish time if they
    /// were published while these were open.
    pub fn record_delivered(&self, streams: usize, events: u64, publish_time_ms: Option<u64>) {
        self.metrics.delivered.inc_by(events * streams as u64);
        let Some(published_ms) = publish_time_ms else { return };
        let late = Duration::from_millis(clock::now_ms().saturating_sub(published_ms));
        let latency = &self.metrics.latency;
        if streams == 1 {
            return latency.observe(late.as_secs_f64());
        }
        let latency = latency.local();
        (0..streams).for_each(|_| latency.observe(late.as_secs_f64()));
    }

    /// Whether a stream that starts there can be opened without anybody being asked or waited for.
    pub fn is_settled(&self, start: Start) -> bool {
        self.backplane.is_filled() && self.ahead(start).is_none()
    }

    /// The id to start after, if this replica has not read as far.
    pub fn ahead(&self, start: Start) -> Option<EventId> {
        match start {
            // An id of another history is not one to come.
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
