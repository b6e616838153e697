//! `POST /push` and `POST /push/{topic}`. The status is the ack: Pub/Sub keeps a message until it
//! gets a 204, and pushes it again after anything else.
#![expect(clippy::result_large_err, reason = "the error is the answer, made once a request")]

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_http::{Payload, Request, RequestHead};
use actix_web::{
    HttpResponse,
    http::{
        Method, StatusCode,
        header::{self, HeaderValue},
    },
};
use bytes::Bytes;
use percent_encoding::percent_decode_str;

use crate::{
    auth::push::Verifier,
    backplane::{Backplane, Confirmed},
    clock,
    config::{OnPoison, PUSH_BODY_MAX_BYTES},
    http::{
        client_address::client_address,
        problem::{come_back_later, problem, problem_with},
    },
    inlet::{
        body::{self, Body, BodyLimits, InFlight, ReceiveError},
        envelope::{self, DecodeError, Poison, PoisonReason},
        unwrapped,
    },
    limits::rate::RateLimit,
    model::{
        message::Message,
        topic::{ParseTopicError, Topic},
    },
    telemetry::{metrics::Metrics, throttle::LogThrottle},
};

/// What the push routes need.
#[derive(Debug)]
pub struct Inlet {
    pub backplane: Backplane,
    /// None when anyone may push.
    pub verifier: Option<Arc<Verifier>>,
    /// The only topics served; any if empty.
    pub topics: Vec<Topic>,
    pub on_poison: OnPoison,
    pub in_flight: Arc<InFlight>,
    /// How long a body may take.
    pub body_timeout: Duration,
    pub metrics: Metrics,
    pub log_throttles: LogThrottles,
    /// Of pushes whose tokens are not known.
    pub failures: RateLimit<IpAddr>,
    pub trusted_proxies: usize,
}

/// One for each kind of failure that a subscription can have with every message.
#[derive(Debug, Default)]
pub struct LogThrottles {
    denied: LogThrottle,
    misconfigured: LogThrottle,
    poison: LogThrottle,
}

/// Each answered push is counted under one of these.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Stored,
    Duplicate,
    Poison,
    NotAnEnvelope,
    NoTopic,
    NotServed,
    Denied,
    TooOften,
    KeysUnavailable,
    Encoded,
    Unreceived,
    Busy,
    PublishError,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::Poison => "poison",
            Self::NotAnEnvelope => "not-an-envelope",
            Self::NoTopic => "no-topic",
            Self::NotServed => "not-served",
            Self::Denied => "denied",
            Self::TooOften => "too-often",
            Self::KeysUnavailable => "keys-unavailable",
            Self::Encoded => "encoded",
            Self::Unreceived => "unreceived",
            Self::Busy => "busy",
            Self::PublishError => "unconfirmed",
        }
    }
}

/// What is shown of a text from outside.
const TEXT_CHARS_MAX: usize = 200;

type Answer = (Outcome, HttpResponse);

/// When Pub/Sub should try again what failed for now. It has its own back-off and may not heed
/// this.
const RETRY: Duration = Duration::from_secs(1);

/// Whether this is for [`push`].
pub fn is_push(request: &RequestHead) -> bool {
    request.method == Method::POST && segment(request).is_some()
}

/// What names the topic in the path, as it came: empty for `/push`.
fn segment(request: &RequestHead) -> Option<&str> {
    match request.uri.path().strip_prefix("/push")? {
        "" => Some(""),
        rest => rest.strip_prefix('/').filter(|name| !name.is_empty() && !name.contains('/')),
    }
}

/// Answers a push.
pub async fn push(mut request: Request, inlet: &Inlet) -> HttpResponse {
    let _push = inlet.in_flight.begin();
    let payload = request.take_payload();
    let answered = inlet.receive(request.head(), payload).await;
    let (outcome, response) = answered.unwrap_or_else(|refusal| refusal);
    match outcome {
        Outcome::Stored => inlet.metrics.pushes_stored.inc(),
        other => inlet.metrics.pushes.with_label_values(&[other.as_str()]).inc(),
    }
    response
}

impl Inlet {
    /// Who, then what, then where to: a body is not read for anyone who may not push, nor for a
    /// topic that is not served.
    async fn receive(&self, request: &RequestHead, payload: Payload) -> Result<Answer, Answer> {
        self.authenticate(request).await?;
        self.refuse_encoded(request)?;
        let topic = self.topic_of_path(request)?;
        let limits = BodyLimits { bytes: PUSH_BODY_MAX_BYTES, time: self.body_timeout };
        let nudged = matches!(payload, Payload::H1 { .. });
        let body = body::receive(payload, limits, &self.in_flight, nudged).await;
        let mut body = body.map_err(|err| self.unreceived(err))?;
        let message = decode(request, &body, topic).map_err(|refused| self.refuse(refused))?;
        self.serves(&message.topic)?;
        // While a log on another machine is waited for, the message is enough; the claim stays.
        body.bytes = Bytes::new();
        match self.backplane.publish(&message).await {
            Ok(Confirmed::Stored(id)) => {
                tracing::debug!(topic = %message.topic, %id, "stored");
                Ok((Outcome::Stored, HttpResponse::NoContent().finish()))
            }
            Ok(Confirmed::Duplicate) => {
                tracing::debug!(topic = %message.topic, "duplicate");
                Ok((Outcome::Duplicate, HttpResponse::NoContent().finish()))
            }
            Err(err) => Err(unavailable(Outcome::PublishError, &err.to_string())),
        }
    }

    async fn authenticate(&self, request: &RequestHead) -> Result<(), Answer> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        let authorization = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let now_ms = clock::now_ms();
        if verifier.remembers(authorization, now_ms) {
            self.metrics.push_tokens_remembered.inc();
            return Ok(());
        }
        // Before the signature is looked at, which is what a flood of tokens would cost.
        let address = client_address(request, self.trusted_proxies);
        if let Err(wait) = self.failures.try_acquire(address) {
            let text = "this address has pushed too often without a good token \
                        (--push-failures-per-address)";
            let response = come_back_later(StatusCode::TOO_MANY_REQUESTS, text, wait);
            return Err((Outcome::TooOften, response));
        }
        // Boxed, since it is seldom needed, and its room would be in each push's future: that takes
        // the allocator many times as long when it is over a kilobyte.
        let Err(denied) = Box::pin(verifier.verify(authorization, now_ms)).await else {
            self.metrics.push_tokens.with_label_values(&["verified"]).inc();
            return Ok(());
        };
        let text = denied.to_string();
        if let Some(more) = self.log_throttles.denied.log(Instant::now()) {
            tracing::warn!(path = request.uri.path(), reason = text, more, "push denied");
        }
        self.metrics.push_tokens.with_label_values(&[denied.as_str()]).inc();
        let outcome =
            if denied.is_temporary() { Outcome::KeysUnavailable } else { Outcome::Denied };
        let answer = (outcome, denied.response(RETRY));
        Err(answer)
    }

    /// Compressed bodies are refused: nothing sends them, and a small one can unfold to any size.
    fn refuse_encoded(&self, request: &RequestHead) -> Result<(), Answer> {
        let encoding = request.headers().get(header::CONTENT_ENCODING);
        if encoding.is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Ok(());
        }
        let text = "the body is encoded (Content-Encoding); only plain bodies are taken";
        self.log_misconfigured(text);
        let response = problem_with(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            (header::ACCEPT_ENCODING, "identity"),
            text,
        );
        Err((Outcome::Encoded, response))
    }

    fn topic_of_path(&self, request: &RequestHead) -> Result<Option<Topic>, Answer> {
        let Some(name) = segment(request).filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        // What is no UTF-8 is no name either.
        let name = percent_decode_str(name).decode_utf8_lossy();
        let topic: Topic = name
            .parse()
            .map_err(|err: ParseTopicError| self.refuse(DecodeError::NoTopic(err.to_string())))?;
        self.serves(&topic)?;
        Ok(Some(topic))
    }

    fn serves(&self, topic: &Topic) -> Result<(), Answer> {
        if self.topics.is_empty() || self.topics.contains(topic) {
            return Ok(());
        }
        let text = format!("the topic {topic} is not served here: it is none of --topic");
        self.log_misconfigured(&text);
        Err((Outcome::NotServed, problem(StatusCode::NOT_FOUND, text)))
    }

    fn unreceived(&self, err: ReceiveError) -> Answer {
        match err {
            ReceiveError::TooLarge => self.refuse(DecodeError::Poison(Poison {
                reason: PoisonReason::TooLarge,
                message_id: None,
                detail: format!("the body is larger than {PUSH_BODY_MAX_BYTES} bytes"),
            })),
            ReceiveError::Busy => {
                unavailable(Outcome::Busy, "too many bytes in flight (--push-bytes-in-flight)")
            }
            ReceiveError::TooSlow => {
                self.metrics.limit("body-timeout").inc();
                let text = "the body did not come in time (--body-timeout)";
                (Outcome::Unreceived, problem(StatusCode::REQUEST_TIMEOUT, text))
            }
            ReceiveError::Broken => {
                let text = "the body was cut off or is malformed";
                (Outcome::Unreceived, problem(StatusCode::BAD_REQUEST, text))
            }
        }
    }

    fn refuse(&self, refused: DecodeError) -> Answer {
        match refused {
            DecodeError::Poison(poison) => self.poison(&poison),
            DecodeError::NoTopic(text) => {
                self.log_misconfigured(&text);
                (Outcome::NoTopic, problem(StatusCode::BAD_REQUEST, text))
            }
            DecodeError::NotAnEnvelope(text) => {
                let text = shortened(&text);
                let text = format!(
                    "{text}. For a subscription without a wrapper, set \
                     --push-no-wrapper-write-metadata on it, or add ?payload=raw to its endpoint"
                );
                self.log_misconfigured(&text);
                (Outcome::NotAnEnvelope, problem(StatusCode::BAD_REQUEST, text))
            }
        }
    }

    /// A message that no redelivery will mend. A nack slows down the whole subscription (Pub/Sub
    /// backs off up to a minute), so by default it is acked.
    fn poison(&self, poison: &Poison) -> Answer {
        let reason = poison.reason.as_str();
        self.metrics.poison.with_label_values(&[reason]).inc();
        if let Some(more) = self.log_throttles.poison.log(Instant::now()) {
            let message_id = poison.message_id.as_deref().map_or("unknown".into(), shortened);
            tracing::error!(
                message_id,
                reason,
                detail = shortened(&poison.detail),
                more,
                "poison message"
            );
        }
        let response = match (self.on_poison, poison.reason) {
            // Not all of it was read, and what still comes, for ever perhaps, is not wanted.
            (OnPoison::Ack, PoisonReason::TooLarge) => {
                HttpResponse::NoContent().force_close().finish()
            }
            (OnPoison::Ack, _) => HttpResponse::NoContent().finish(),
            (OnPoison::Nack, PoisonReason::TooLarge) => {
                problem(StatusCode::PAYLOAD_TOO_LARGE, &poison.detail)
            }
            (OnPoison::Nack, _) => problem(StatusCode::BAD_REQUEST, shortened(&poison.detail)),
        };
        (Outcome::Poison, response)
    }

    fn log_misconfigured(&self, text: &str) {
        if let Some(more) = self.log_throttles.misconfigured.log(Instant::now()) {
            tracing::warn!(
                reason = text,
                more,
                "push refused: is its subscription set up for this?"
            );
        }
    }
}

fn decode(
    request: &RequestHead,
    body: &Body,
    topic: Option<Topic>,
) -> Result<Message, DecodeError> {
    let raw = || {
        let query = request.uri.query().unwrap_or_default();
        query.split('&').any(|pair| pair == "payload=raw")
    };
    if unwrapped::has_metadata(request.headers()) || raw() {
        return unwrapped::decode(request.headers(), body.bytes.clone(), topic);
    }
    envelope::decode(&body.bytes, topic)
}

fn unavailable(outcome: Outcome, text: &str) -> Answer {
    (outcome, come_back_later(StatusCode::SERVICE_UNAVAILABLE, text, RETRY))
}

/// What comes from outside is cut before it goes into a log line or an answer, or one message could
/// fill them.
fn shortened(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

/// The answer to any other method.
pub async fn only_post() -> HttpResponse {
    let allow = (header::ALLOW, "POST");
    problem_with(StatusCode::METHOD_NOT_ALLOWED, allow, "messages are pushed with POST")
}
