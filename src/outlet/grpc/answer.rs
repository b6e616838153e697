//! Answers: a body of messages, and the status after it.

use std::{
    fmt,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse, HttpResponseBuilder,
    body::{self, BodySize, BoxBody, MessageBody},
    http::header::{self, HeaderName, HeaderValue},
    web,
};
use bytes::Bytes;
use http::HeaderMap;
use prometheus::IntCounterVec;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    protocol::Protocol,
    status::{Code, Status},
};
use crate::{
    net::{http2::trailers::Trailers, stall::is_dropping_stalled},
    stream::{StreamContext, drive::body::FellBehindError},
};

/// Messages of an answer.
pub(super) trait Messages: Unpin {
    /// Returns the next encoded messages, or parts of one, or the end of the answer.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Ended>>;
}

/// End of an answer.
#[derive(Debug)]
pub(super) enum Ended {
    /// Status that ends the call.
    With(Status),
    /// Reset of the call in the middle of a message.
    Cut(FellBehindError),
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        Self::With(status)
    }
}

/// Answer with one message. `None` after the message was returned.
pub(super) struct Once(pub Option<Bytes>);

impl Messages for Once {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Result<Bytes, Ended>> {
        Poll::Ready(self.0.take().ok_or(Ended::With(Status::OK)))
    }
}

/// Call that is being answered.
pub(super) struct Call {
    pub(super) protocol: Protocol,
    /// Deadline of the call (`grpc-timeout`).
    pub(super) deadline: Option<Instant>,
    /// Trailers of the response. `None` with gRPC-Web.
    trailers: Option<Rc<Trailers>>,
    /// Name of the method in the metric of ended calls.
    method: &'static str,
    /// Metric of ended calls. `None` if the worker has none.
    ended: Option<IntCounterVec>,
}

impl Call {
    /// Creates the call of a request.
    pub(super) fn new(
        request: &HttpRequest,
        protocol: Protocol,
        deadline: Option<Instant>,
    ) -> Self {
        let trailers = request.extensions().get::<Rc<Trailers>>().cloned();
        let context = request.app_data::<web::Data<StreamContext>>();
        let ended = context.map(|context| context.metrics.grpc_calls.clone());
        Self { protocol, deadline, trailers, method: method_of(request.path()), ended }
    }

    /// Counts the end of the call.
    fn count(&self, code: Code) {
        if let Some(ended) = &self.ended {
            ended.with_label_values(&[self.method, &(code as u8).to_string()]).inc();
        }
    }

    /// Answers with messages.
    pub(super) fn answer(self, messages: impl Messages + 'static) -> HttpResponse {
        let timer = self.deadline.map(|deadline| Box::pin(sleep_until(deadline)));
        let mut head = head(self.protocol);
        head.body(BoxBody::new(AnswerBody { call: self, messages, timer, is_ended: false }))
    }

    /// Refuses the call. The status of gRPC is in the head: a client repeats a call by itself only
    /// if it got nothing before the status.
    pub(super) fn refuse(self, status: &Status) -> HttpResponse {
        self.count(status.code);
        let mut head = head(self.protocol);
        if self.protocol != Protocol::Grpc {
            return head.body(self.protocol.end(status));
        }
        for header in status.headers() {
            head.insert_header(header);
        }
        let answer = head.message_body(body::None::new());
        answer.map_or_else(
            |_| HttpResponse::InternalServerError().finish(),
            HttpResponse::map_into_boxed_body,
        )
    }

    /// Ends the body with a status. Returns its last part, if there is one.
    fn end(&self, status: &Status) -> Option<Bytes> {
        self.count(status.code);
        let Some(trailers) = self.trailers.as_ref().filter(|_| self.protocol == Protocol::Grpc)
        else {
            return Some(self.protocol.end(status));
        };
        let mut headers = HeaderMap::new();
        for (name, value) in status.headers() {
            if let Ok(value) = value.parse() {
                headers.insert(name, value);
            }
        }
        trailers.set(headers);
        None
    }
}

/// Creates the head of an answer. No proxy may buffer or change the body.
fn head(protocol: Protocol) -> HttpResponseBuilder {
    const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
    const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
    let mut response = HttpResponse::Ok();
    for (name, value) in [
        (header::CONTENT_TYPE, protocol.content_type()),
        (header::CACHE_CONTROL, "no-store, no-transform"),
        (ACCEPT_ENCODING, "identity"),
        (X_ACCEL_BUFFERING, "no"),
    ] {
        response.insert_header((name, HeaderValue::from_static(value)));
    }
    response
}

/// Returns the name of a method for metrics. Any other path has the name `other`: a client could
/// make up any number of them.
fn method_of(path: &str) -> &'static str {
    match path {
        "/stream_events.v1.StreamEvents/Subscribe" => "Subscribe",
        "/stream_events.v1.StreamEvents/Session" => "Session",
        "/stream_events.v1.StreamEvents/Publish" => "Publish",
        "/grpc.health.v1.Health/Check" => "Check",
        "/grpc.health.v1.Health/List" => "List",
        "/grpc.health.v1.Health/Watch" => "Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => {
            "ServerReflectionInfo"
        }
        _ => "other",
    }
}

/// Body of an answer: its messages and, with gRPC-Web, the status.
struct AnswerBody<M: Messages> {
    call: Call,
    messages: M,
    timer: Option<Pin<Box<Sleep>>>,
    is_ended: bool,
}

impl<M: Messages> fmt::Debug for AnswerBody<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBody").finish_non_exhaustive()
    }
}

impl<M: Messages> AnswerBody<M> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Ended>> {
        if self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Err(deadline_exceeded().into()));
        }
        self.messages.poll_next(cx)
    }
}

/// Returns the status of a call whose deadline has passed.
pub(super) fn deadline_exceeded() -> Status {
    Status::new(Code::DeadlineExceeded, "the time of the call is over (grpc-timeout)")
}

impl<M: Messages> Drop for AnswerBody<M> {
    fn drop(&mut self) {
        if !self.is_ended {
            let is_stalled = is_dropping_stalled();
            self.call.count(if is_stalled { Code::Internal } else { Code::Cancelled });
        }
    }
}

impl<M: Messages> MessageBody for AnswerBody<M> {
    type Error = FellBehindError;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, FellBehindError>>> {
        let this = self.get_mut();
        if this.is_ended {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(this.poll(cx)) {
            Ok(part) => Some(Ok(this.call.protocol.encode(part))),
            Err(Ended::With(status)) => {
                this.is_ended = true;
                this.call.end(&status).map(Ok)
            }
            Err(Ended::Cut(err)) => {
                this.is_ended = true;
                this.call.count(Code::Internal);
                Some(Err(err))
            }
        })
    }
}
