//! Heads of streams, and refusals of streams.

use std::time::Duration;

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    http::{
        StatusCode,
        header::{self, HeaderName, HeaderValue},
    },
};

use crate::{
    http::problem::come_back_later,
    model::control::{Control, End, EndReason, refusal_wait},
    outlet::sse::SSE,
    stream::{StreamContext, delivery::Delivery, request::StreamRequest},
};

/// Creates the head of every stream. `no-transform` keeps proxies from compressing the stream,
/// which would delay events. `Incremental`
/// (<https://datatracker.ietf.org/doc/draft-ietf-httpbis-incremental/>) asks proxies to forward each
/// part at once; `X-Accel-Buffering` is what nginx understands.
pub(super) fn stream_head(delivery: Delivery) -> HttpResponseBuilder {
    const INCREMENTAL: HeaderName = HeaderName::from_static("incremental");
    const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
    let mut response = HttpResponse::Ok();
    for (name, value) in [
        (header::CONTENT_TYPE, delivery.media_type()),
        (header::CACHE_CONTROL, "no-store, no-transform"),
        (INCREMENTAL, "?1"),
        (X_ACCEL_BUFFERING, "no"),
    ] {
        response.insert_header((name, HeaderValue::from_static(value)));
    }
    response
}

/// Refuses a stream that the reader is to open later. `EventSource` never reconnects after a status
/// other than 200, so it gets a stream that ends at once and has a retry time.
pub(super) fn refuse(
    context: &StreamContext,
    asked: &StreamRequest,
    reason: EndReason,
    text: &str,
) -> HttpResponse {
    context.metrics.streams_refused.with_label_values(&[reason.as_str()]).inc();
    if asked.is_event_source {
        return ended(asked, reason);
    }
    come_back_later(StatusCode::SERVICE_UNAVAILABLE, text, refusal_wait())
}

/// Refuses a reader that has too many streams, or sends too many requests.
pub(super) fn too_many(
    context: &StreamContext,
    asked: Option<&StreamRequest>,
    reason: &str,
    text: &str,
    wait: Duration,
) -> HttpResponse {
    context.metrics.streams_refused.with_label_values(&[reason]).inc();
    match asked.filter(|asked| asked.is_event_source) {
        Some(asked) => ended(asked, EndReason::Busy),
        None => come_back_later(StatusCode::TOO_MANY_REQUESTS, text, wait),
    }
}

/// Creates a stream of server-sent events that ends at once.
fn ended(asked: &StreamRequest, reason: EndReason) -> HttpResponse {
    let end = SSE.control(&Control::End(End::refusal(reason, asked.id)));
    stream_head(Delivery::EventStream).force_close().body(end)
}
