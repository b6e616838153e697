//! Body that holds a memory claim until it is written.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    http::{StatusCode, header},
};
use bytes::Bytes;

use crate::{
    http::problem::come_back_later, hub::BATCH_MAX_BYTES, limits::budget::Claim,
    model::control::refusal_wait, stream::StreamContext,
};

/// Answers with JSON that no cache may store. Refuses with 503 if the answers that are not written
/// yet take too much memory.
pub(super) fn json_answer(context: &StreamContext, json: String) -> HttpResponse {
    let mut claim = context.poll_answers.claim();
    if !claim.grow(json.len()) {
        let text = "this gateway has too many answers that are not written: try again later";
        return come_back_later(StatusCode::SERVICE_UNAVAILABLE, text, refusal_wait());
    }
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(BoxBody::new(ClaimedBody::new(json.into(), claim)))
}

/// Body that holds its memory claim until it is written.
#[derive(Debug)]
pub(super) struct ClaimedBody {
    left: Bytes,
    _claim: Claim,
}

impl ClaimedBody {
    /// Creates the body of an answer whose memory `claim` holds.
    pub(super) fn new(left: Bytes, claim: Claim) -> Self {
        Self { left, _claim: claim }
    }
}

impl MessageBody for ClaimedBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.left.len() as u64)
    }

    fn poll_next(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let left = &mut self.get_mut().left;
        let part = left.split_to(left.len().min(BATCH_MAX_BYTES));
        Poll::Ready((!part.is_empty()).then_some(Ok(part)))
    }
}
