//! Body driver: a stream as the body of an HTTP response.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    model::control::{Control, End},
    net::stall::is_dropping_stalled,
    stream::session::{Next, Session},
};

/// Stream as the body of a response. The server polls it only while its socket takes more bytes,
/// and the session then reads on from its cursor: there is no other flow control.
#[derive(Debug)]
pub(crate) struct StreamBody {
    session: Session,
    timer: Pin<Box<Sleep>>,
    /// Time at which the last part was returned, until the next one is asked for.
    given_at: Option<Instant>,
    /// Last message, once it was returned.
    end: Option<End>,
}

/// Time after which a part that the server has not written shows that the socket takes no more.
pub(crate) const BLOCKED_FROM: Duration = Duration::from_millis(10);

/// Error that makes the server cut the connection: see [`Next::FellBehind`].
#[derive(Debug, thiserror::Error)]
#[error("an event left its ring while it was being written to a slow reader")]
pub(crate) struct FellBehindError;

impl StreamBody {
    /// Creates the body of a response.
    pub(crate) fn new(session: Session) -> Self {
        let timer = Box::pin(sleep_until(session.next_deadline()));
        Self { session, timer, given_at: None, end: None }
    }

    /// Returns the last message of a stream that has ended with one.
    pub(crate) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, FellBehindError>>> {
        loop {
            match self.session.next(Instant::now()) {
                Next::Give(bytes) => return Poll::Ready(Some(Ok(bytes))),
                Next::Say(control) => {
                    if let Control::End(end) = control {
                        self.end = Some(end);
                    }
                    return Poll::Ready(Some(Ok(self.session.format().control(&control))));
                }
                Next::WaitUntil(deadline) => {
                    self.session.wait(cx.waker());
                    // The timer is moved only when it would fire too late, or has fired, and not
                    // for every event.
                    if deadline < self.timer.deadline() || self.timer.is_elapsed() {
                        self.timer.as_mut().reset(deadline);
                    }
                    if self.timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                Next::Yield => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Next::Finished => return Poll::Ready(None),
                Next::FellBehind => return Poll::Ready(Some(Err(FellBehindError))),
            }
        }
    }
}

impl MessageBody for StreamBody {
    type Error = FellBehindError;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, FellBehindError>>> {
        let this = self.get_mut();
        if this.given_at.take().is_some_and(|given_at| BLOCKED_FROM <= given_at.elapsed()) {
            this.session.mark_blocked();
        }
        let polled = this.poll(cx);
        this.given_at = polled.is_ready().then(Instant::now);
        polled
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        if is_dropping_stalled() {
            self.session.mark_stalled();
        }
    }
}
