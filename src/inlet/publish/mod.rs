//! `POST /publish/{topic}`: the inlet for clients of the gateway itself: backends, browsers, and
//! sinks that send HTTP requests. The answer has the ids of the stored events.

mod messages;
pub mod publication;
mod refusal;
pub mod request;
#[cfg(test)]
mod tests;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    dev::Payload,
    http::header,
    web::{self, Data},
};
use serde_json::json;

pub use crate::inlet::publish::{messages::MESSAGES_MAX, refusal::PublishRefusedError};

use crate::{
    auth::{
        grant::Grant,
        publisher::{PublishAccess, Publisher},
    },
    backplane::PublishError,
    clock,
    config::PUSH_BODY_MAX_BYTES,
    http::client_address::client_address,
    inlet::{
        Inlet, Outcome,
        body::{self, BodyLimits, InFlight, ReceiveError},
        publish::{
            publication::{DATA_MAX_BYTES, Publication, PublicationError},
            request::PublishRequest,
        },
    },
    limits::rate::{RateLimit, RateLimitError},
    model::{
        event_id::EventId,
        message::Message,
        topic::{ParseTopicError, Topic},
    },
    telemetry::{metrics::Metrics, throttle::LogThrottle},
};

/// Publish endpoint: authenticates publishers, and receives and stores what they publish.
#[derive(Debug)]
pub struct PublishEndpoint {
    /// Policy for the messages.
    pub inlet: Inlet,
    /// Rule for publishers. `None` if publishing is off.
    pub access: Option<PublishAccess>,
    /// Requests and bytes of bodies in flight, together with those of pushes.
    pub in_flight: Arc<InFlight>,
    /// Timeout for receiving a body.
    pub body_timeout: Duration,
    /// Limit on messages of each subject.
    pub by_subject: RateLimit<Arc<str>>,
    /// Limit on messages of each client address.
    pub by_address: RateLimit<IpAddr>,
    /// Number of trusted proxies in front of the gateway.
    pub trusted_proxies: usize,
    /// Counters.
    pub metrics: Metrics,
    /// Limit on log lines about refused tokens.
    pub denied_log: LogThrottle,
}

/// Time after which no further message of a request is stored: most proxies would drop a later
/// answer.
const STORE_TIME_MAX: Duration = Duration::from_secs(30);

/// Answers a request to publish.
pub(crate) async fn publish(
    request: HttpRequest,
    topic: web::Path<String>,
    payload: web::Payload,
    endpoint: Data<PublishEndpoint>,
) -> HttpResponse {
    let _guard = endpoint.in_flight.begin();
    match endpoint.receive(&request, &topic, payload.into_inner()).await {
        Ok(ids) => {
            let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
            let no_store = (header::CACHE_CONTROL, "no-store");
            HttpResponse::Ok().insert_header(no_store).json(json!({ "ids": ids }))
        }
        Err(refusal) => {
            endpoint.count(&refusal);
            refusal.response()
        }
    }
}

impl PublishEndpoint {
    /// Creates an endpoint that stores in `hub` and is off.
    #[cfg(test)]
    pub(crate) fn for_tests(hub: crate::hub::Hub) -> Self {
        let metrics = Metrics::new().unwrap();
        let backplane = crate::backplane::Backplane::Local(hub, Arc::default());
        let on_poison = crate::config::OnPoison::Ack;
        Self {
            inlet: Inlet::new(backplane, Vec::new(), on_poison, &metrics, &metrics.publishes),
            access: None,
            in_flight: InFlight::new(usize::MAX),
            body_timeout: Duration::from_secs(60),
            by_subject: RateLimit::new(0, metrics.limit("publishes-per-subject")),
            by_address: RateLimit::new(0, metrics.limit("publishes-per-address")),
            trusted_proxies: 0,
            metrics,
            denied_log: LogThrottle::default(),
        }
    }

    /// Publishes one message, for an outlet that receives messages too, such as a WebSocket. Checks
    /// the topic, the message and the limits. Returns the id of the stored event. If a message of
    /// the same publisher with the same idempotency key was stored before, that is the id of the
    /// event which was stored then.
    ///
    /// # Errors
    /// See [`PublishRefusedError`]. It is counted already.
    pub async fn publish(
        &self,
        publisher: &Publisher,
        publication: Publication,
    ) -> Result<EventId, PublishRefusedError> {
        self.check_topic(publisher, &publication.topic)
            .and_then(|()| self.acquire_by_address(publisher.address, 1))
            .and_then(|()| self.acquire_by_subject(publisher, 1))
            .inspect_err(|refusal| self.count(refusal))?;
        self.publish_counted(publisher, publication).await
    }

    /// Publishes one message of a publisher that [`PublishEndpoint::authenticate`] has counted.
    ///
    /// # Errors
    /// See [`PublishRefusedError`]. It is counted already.
    pub(crate) async fn publish_counted(
        &self,
        publisher: &Publisher,
        publication: Publication,
    ) -> Result<EventId, PublishRefusedError> {
        let stored = async {
            self.check_topic(publisher, &publication.topic)?;
            let message = publication.into_message(publisher, clock::now_ms())?;
            self.store(message).await.map_err(PublishRefusedError::from)
        };
        stored.await.inspect_err(|refusal| self.count(refusal))
    }

    /// Verifies the token of a request to publish one message, and counts the message.
    ///
    /// # Errors
    /// See [`PublishRefusedError`]. It is counted already.
    pub(crate) async fn authenticate(
        &self,
        request: &HttpRequest,
    ) -> Result<Publisher, PublishRefusedError> {
        self.admit(request).await.inspect_err(|refusal| self.count(refusal))
    }

    /// Returns the publisher that a verified grant makes of the client at `address`.
    ///
    /// # Errors
    /// [`PublishRefusedError::Off`] and [`PublishRefusedError::Auth`]. They are counted already.
    pub fn publisher(
        &self,
        grant: Option<&Grant>,
        address: Option<IpAddr>,
    ) -> Result<Publisher, PublishRefusedError> {
        let access = self.access.as_ref().ok_or(PublishRefusedError::Off);
        let publisher = access.and_then(|access| Ok(access.publisher(grant, address)?));
        publisher.inspect_err(|refusal| self.count(refusal))
    }

    /// Removes unused entries of the limits. Called about once a second.
    pub(crate) fn sweep(&self) {
        self.by_subject.sweep();
        self.by_address.sweep();
    }

    /// Authenticates, receives and decodes a request, and stores its messages in their order. The
    /// body is read only if the client may publish to the topic, and nothing is stored before all
    /// messages are checked.
    async fn receive(
        &self,
        request: &HttpRequest,
        topic: &str,
        payload: Payload,
    ) -> Result<Vec<EventId>, PublishRefusedError> {
        let publisher = self.admit(request).await?;
        let topic: Topic =
            topic.parse().map_err(|err: ParseTopicError| PublicationError(err.to_string()))?;
        self.check_topic(&publisher, &topic)?;
        check_encoding(request)?;
        let asked = PublishRequest::read(topic, request.query_string(), request.headers())?;
        let bytes = if asked.is_pubsub { PUSH_BODY_MAX_BYTES } else { DATA_MAX_BYTES };
        let limits = BodyLimits { bytes, time: self.body_timeout };
        let received = body::receive(payload, limits, &self.in_flight).await;
        let mut body = received.map_err(|err| self.not_received(err, bytes))?;
        // The claim on the memory for bodies stays until the messages are stored.
        let publications = asked.decode(request.headers(), std::mem::take(&mut body.bytes))?;
        let more = publications.len().saturating_sub(1);
        self.acquire_by_address(publisher.address, more)?;
        self.acquire_by_subject(&publisher, more)?;
        let (count, now_ms) = (publications.len(), clock::now_ms());
        let messages: Result<Vec<_>, _> = publications
            .into_iter()
            .enumerate()
            .map(|(position, publication)| {
                publication.into_message(&publisher, now_ms).map_err(|err| match count {
                    1 => err,
                    _ => PublicationError(format!("messages[{position}]: {err}")),
                })
            })
            .collect();
        self.store_all(messages?).await
    }

    /// Counts the first message of a request, and verifies its token. The address is counted first,
    /// since the signature is the costly part of a flood of tokens.
    async fn admit(&self, request: &HttpRequest) -> Result<Publisher, PublishRefusedError> {
        let access = self.access.as_ref().ok_or(PublishRefusedError::Off)?;
        let address = client_address(request.head(), self.trusted_proxies);
        self.acquire_by_address(address, 1)?;
        let admitted = access.admit(request).await;
        let publisher = admitted.and_then(|grant| access.publisher(grant.as_ref(), address));
        let publisher = publisher.inspect_err(|err| {
            if let Some(more) = self.denied_log.log(Instant::now()) {
                tracing::warn!(path = request.path(), reason = %err, more, "publishing denied");
            }
        })?;
        self.acquire_by_subject(&publisher, 1)?;
        Ok(publisher)
    }

    /// Checks that the publisher may publish to a topic, and that the topic is served, in this
    /// order: a token reveals nothing about topics that it does not grant.
    fn check_topic(&self, publisher: &Publisher, topic: &Topic) -> Result<(), PublishRefusedError> {
        if !publisher.may_publish(topic) {
            return Err(PublishRefusedError::NotGranted(topic.clone()));
        }
        Ok(self.inlet.check_served(topic)?)
    }

    fn acquire_by_address(
        &self,
        address: Option<IpAddr>,
        count: usize,
    ) -> Result<(), PublishRefusedError> {
        self.by_address
            .try_acquire_many(address, count)
            .map_err(|err| over_limit(err, "publishes-per-address"))
    }

    fn acquire_by_subject(
        &self,
        publisher: &Publisher,
        count: usize,
    ) -> Result<(), PublishRefusedError> {
        self.by_subject
            .try_acquire_many(publisher.subject.clone(), count)
            .map_err(|err| over_limit(err, "publishes-per-subject"))
    }

    fn not_received(&self, err: ReceiveError, max: usize) -> PublishRefusedError {
        match err {
            ReceiveError::TooLarge => PublishRefusedError::TooLarge(max),
            ReceiveError::Busy => PublishRefusedError::Busy,
            ReceiveError::Broken => PublishRefusedError::Broken,
            ReceiveError::TooSlow => {
                self.metrics.limit("body-timeout").inc();
                PublishRefusedError::TooSlow
            }
        }
    }

    /// Stores messages one after another, and ends at the first one that is not confirmed: a
    /// message that is stored behind a missing one would break the order.
    async fn store_all(&self, messages: Vec<Message>) -> Result<Vec<EventId>, PublishRefusedError> {
        let (begun, count) = (Instant::now(), messages.len());
        let mut ids = Vec::with_capacity(count);
        for message in messages {
            let stored = if STORE_TIME_MAX < begun.elapsed() {
                Err(PublishError::Unconfirmed)
            } else {
                self.store(message).await
            };
            match stored {
                Ok(id) => ids.push(id),
                Err(err) if ids.is_empty() => return Err(err.into()),
                Err(_) => return Err(PublishRefusedError::PartlyStored { ids, count }),
            }
        }
        Ok(ids)
    }

    async fn store(&self, message: Message) -> Result<EventId, PublishError> {
        match self.inlet.accept(message).await {
            Outcome::Stored(id) | Outcome::Duplicate(id) => Ok(id),
            Outcome::Unconfirmed(err) => Err(err),
            // The other outcomes are of pushes, or of topics that are not served.
            _ => Err(PublishError::Unconfirmed),
        }
    }

    fn count(&self, refusal: &PublishRefusedError) {
        if let Some(label) = refusal.label() {
            self.metrics.publishes.with_label_values(&[label]).inc();
        }
    }
}

fn over_limit(err: RateLimitError, flag: &'static str) -> PublishRefusedError {
    match err {
        RateLimitError::Wait(wait) => PublishRefusedError::TooOften(wait, flag),
        RateLimitError::TooMany(most) => PublishRefusedError::TooMany(most, flag),
    }
}

/// Refuses compressed bodies: a small one can expand to any size.
fn check_encoding(request: &HttpRequest) -> Result<(), PublishRefusedError> {
    let encoding = request.headers().get(header::CONTENT_ENCODING);
    let is_plain =
        encoding.is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    is_plain.then_some(()).ok_or(PublishRefusedError::Encoded)
}
