//! Body that holds a memory claim until it is written.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

use crate::{hub::BATCH_MAX_BYTES, limits::budget::Claim};

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
