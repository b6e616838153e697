//! `POST /push` and `POST /push/{topic}`: the inlet for Pub/Sub's push subscriptions. The status is
//! the ack: Pub/Sub keeps a message until it gets a 204, and pushes it again after any other
//! status.

mod answer;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_http::{Payload, Request, RequestHead};
use actix_web::{
    HttpResponse,
    http::{
        Method,
        header::{self, HeaderValue},
    },
};
use bytes::Bytes;
use percent_encoding::percent_decode_str;

use crate::{
    auth::{AuthError, push::Verifier},
    clock,
    config::PUSH_BODY_MAX_BYTES,
    http::client_address::client_address,
    inlet::{
        DecodeError, Inlet, Outcome,
        body::{self, Body, BodyLimits, InFlight, ReceiveError},
        classify::too_large,
        cloud_event, envelope,
        push::answer::{ENCODED, Refusal, answer},
        unwrapped,
    },
    limits::rate::RateLimit,
    model::{
        message::Message,
        topic::{ParseTopicError, Topic},
    },
    telemetry::{metrics::Metrics, throttle::LogThrottle},
};

/// Push endpoint: authenticates, receives and decodes pushes.
#[derive(Debug)]
pub struct PushEndpoint {
    /// True if no one may push.
    pub is_off: bool,
    /// Policy for the decoded messages.
    pub inlet: Arc<Inlet>,
    /// Verifier of push tokens. `None` when pushes need no token.
    pub verifier: Option<Arc<Verifier>>,
    /// Pushes and bytes of bodies in flight.
    pub in_flight: Arc<InFlight>,
    /// Timeout for receiving a body.
    pub body_timeout: Duration,
    /// Counters.
    pub metrics: Metrics,
    /// Limit on pushes with unknown tokens, by address.
    pub failures: RateLimit<IpAddr>,
    /// Number of trusted proxies in front of the gateway.
    pub trusted_proxies: usize,
    /// Limit on log lines about refused tokens.
    pub denied_log: LogThrottle,
}

/// Returns true if a request is for [`push`].
pub(crate) fn is_push(request: &RequestHead) -> bool {
    request.method == Method::POST && topic_segment(request).is_some()
}

/// Returns the path segment that names the topic, still percent-encoded, and "" for `/push`.
/// Returns `None` for other paths.
fn topic_segment(request: &RequestHead) -> Option<&str> {
    match request.uri.path().strip_prefix("/push")? {
        "" => Some(""),
        rest => rest.strip_prefix('/').filter(|name| !name.is_empty() && !name.contains('/')),
    }
}

/// Answers a push.
pub(crate) async fn push(mut request: Request, endpoint: &PushEndpoint) -> HttpResponse {
    let begun = Instant::now();
    let _guard = endpoint.in_flight.begin();
    let payload = request.take_payload();
    match endpoint.receive(request.head(), payload).await {
        Ok(outcome) => {
            if matches!(outcome, Outcome::Stored(_)) {
                endpoint.metrics.push_to_ring.observe(begun.elapsed().as_secs_f64());
            }
            answer(&outcome)
        }
        Err(refusal) => {
            endpoint.metrics.pushes.with_label_values(&[refusal.as_str()]).inc();
            refusal.response()
        }
    }
}

impl PushEndpoint {
    /// Authenticates, receives and decodes a push, and stores its message. The body is read only if
    /// the sender may push and the topic in the path is served.
    async fn receive(&self, head: &RequestHead, payload: Payload) -> Result<Outcome, Refusal> {
        if self.is_off {
            return Err(Refusal::Off);
        }
        self.authenticate(head).await?;
        self.check_encoding(head)?;
        let topic = match self.topic_of_path(head) {
            Ok(topic) => topic,
            Err(outcome) => return Ok(outcome),
        };
        let limits = BodyLimits { bytes: PUSH_BODY_MAX_BYTES, time: self.body_timeout };
        let mut body = match body::receive(payload, limits, &self.in_flight).await {
            Ok(body) => body,
            Err(ReceiveError::TooLarge) => return Ok(self.inlet.reject(too_large(None))),
            Err(ReceiveError::Busy) => return Err(Refusal::Busy),
            Err(ReceiveError::Broken) => return Err(Refusal::Broken),
            Err(ReceiveError::TooSlow) => {
                self.metrics.limit("body-timeout").inc();
                return Err(Refusal::TooSlow);
            }
        };
        let message = match decode(head, &body, topic) {
            Ok(message) => message,
            Err(err) => return Ok(self.inlet.reject(err)),
        };
        // Frees the body while a backplane on another machine is waited for: the message has all
        // that is needed. The claim on the memory for bodies stays.
        body.bytes = Bytes::new();
        Ok(self.inlet.accept(message).await)
    }

    async fn authenticate(&self, head: &RequestHead) -> Result<(), Refusal> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        let authorization = head.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let now_ms = clock::now_ms();
        if verifier.remembers(authorization, now_ms) {
            self.metrics.push_tokens_remembered.inc();
            return Ok(());
        }
        // Counted before the signature is verified, which is the costly part of a flood of tokens.
        let address = client_address(head, self.trusted_proxies);
        self.failures.try_acquire(address).map_err(Refusal::TooOften)?;
        // Boxed: it is seldom needed and would make the future of each push larger. The allocator
        // takes many times as long for a future of over a kilobyte.
        let result = Box::pin(verifier.verify(authorization, now_ms)).await;
        let label = result.as_ref().map_or_else(AuthError::as_str, |()| "verified");
        self.metrics.push_tokens.with_label_values(&[label]).inc();
        result.map_err(|err| {
            if let Some(more) = self.denied_log.log(Instant::now()) {
                tracing::warn!(path = head.uri.path(), reason = %err, more, "push denied");
            }
            Refusal::Auth(err)
        })
    }

    /// Refuses compressed bodies: Pub/Sub sends none, and a small one can expand to any size.
    fn check_encoding(&self, head: &RequestHead) -> Result<(), Refusal> {
        let encoding = head.headers().get(header::CONTENT_ENCODING);
        if encoding.is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Ok(());
        }
        self.inlet.log_misconfigured(ENCODED);
        Err(Refusal::Encoded)
    }

    /// Returns the topic that the path names, if it names one.
    fn topic_of_path(&self, head: &RequestHead) -> Result<Option<Topic>, Outcome> {
        let Some(name) = topic_segment(head).filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        // A name that is not UTF-8 gets a replacement character, which no topic name can have.
        let name = percent_decode_str(name).decode_utf8_lossy();
        let topic: Topic = name.parse().map_err(|err: ParseTopicError| {
            self.inlet.reject(DecodeError::NoTopic(err.to_string()))
        })?;
        self.inlet.check_topic(&topic)?;
        Ok(Some(topic))
    }
}

/// Decodes a body: as data if the request has a message's metadata in its headers or asks for it
/// with `?payload=raw`, as a CloudEvent if the headers say so, and otherwise as an envelope.
fn decode(head: &RequestHead, body: &Body, topic: Option<Topic>) -> Result<Message, DecodeError> {
    let is_raw = || {
        let query = head.uri.query().unwrap_or_default();
        query.split('&').any(|pair| pair == "payload=raw")
    };
    if unwrapped::has_metadata(head.headers()) || is_raw() {
        return unwrapped::decode(head.headers(), body.bytes.clone(), topic);
    }
    if cloud_event::is_cloud_event(head.headers()) {
        return cloud_event::decode(head.headers(), body.bytes.clone(), topic);
    }
    envelope::decode(&body.bytes, topic)
}
