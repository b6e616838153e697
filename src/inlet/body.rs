//! Bodies of pushes: receives them within limits on the size of each, the bytes of all together,
//! and time.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use actix_http::Payload;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;

use crate::limits::budget::{Budget, Claim};

/// Reason why a body was not received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceiveError {
    /// The body is larger than its limit.
    TooLarge,
    /// The bodies that are being received use all the memory for bodies.
    Busy,
    /// The body did not arrive in time.
    TooSlow,
    /// The connection broke, or the body is malformed.
    Broken,
}

/// Largest part of a refused body that is read and dropped, so that its sender can read the answer:
/// closing a connection with unread data resets it.
const DISCARD_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Pushes that are being answered, and the memory that their bodies use.
#[derive(Debug)]
pub struct InFlight {
    /// Memory for bodies.
    budget: Arc<Budget>,
    /// Number of pushes.
    pushes: AtomicUsize,
}

/// Guard of one push in flight. The push is counted until the guard is dropped.
#[derive(Debug)]
pub(crate) struct PushGuard(Arc<InFlight>);

impl Drop for PushGuard {
    fn drop(&mut self) {
        self.0.pushes.fetch_sub(1, Ordering::SeqCst);
    }
}

impl InFlight {
    /// Creates the counters, with memory for at most `max` bytes of bodies.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { budget: Budget::new(max), pushes: AtomicUsize::new(0) })
    }

    /// Counts one more push until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> PushGuard {
        self.pushes.fetch_add(1, Ordering::SeqCst);
        PushGuard(Arc::clone(self))
    }

    /// Creates an empty claim on the memory for bodies.
    #[cfg(feature = "pull")]
    pub(crate) fn claim(&self) -> Claim {
        self.budget.claim()
    }

    /// Returns the number of pushes that are being answered.
    pub(crate) fn pushes(&self) -> usize {
        self.pushes.load(Ordering::SeqCst)
    }

    /// Returns the number of bytes of bodies in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.budget.bytes()
    }
}

/// Received body, with its claim on the memory for bodies. Dropping it releases the claim.
#[derive(Debug)]
pub(crate) struct Body {
    /// Content of the body.
    pub(crate) bytes: Bytes,
    _claim: Claim,
}

/// Limits of one body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    /// Largest size in bytes.
    pub(crate) bytes: usize,
    /// Longest time to receive the body. A slower body is a slow-loris attack.
    pub(crate) time: Duration,
}

/// Receives a body within its limits.
///
/// # Errors
/// See [`ReceiveError`].
pub(crate) async fn receive(
    payload: Payload,
    limits: BodyLimits,
    in_flight: &Arc<InFlight>,
) -> Result<Body, ReceiveError> {
    let mut received = pin!(collect(payload, limits.bytes, in_flight));
    // Most bodies have arrived already, and need no timer.
    if let Poll::Ready(received) = poll_fn(|cx| Poll::Ready(received.as_mut().poll(cx))).await {
        return received;
    }
    tokio::time::timeout(limits.time, received).await.unwrap_or(Err(ReceiveError::TooSlow))
}

async fn collect(
    mut payload: Payload,
    max: usize,
    in_flight: &Arc<InFlight>,
) -> Result<Body, ReceiveError> {
    // Only received bytes are claimed: a large `Content-Length` alone reserves nothing.
    let mut claim = in_flight.budget.claim();
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let (mut refused, mut dropped) = (None, 0);
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| ReceiveError::Broken)?;
        if refused.is_none() {
            refused = if max < claim.bytes() + chunk.len() {
                Some(ReceiveError::TooLarge)
            } else {
                (!claim.grow(chunk.len())).then_some(ReceiveError::Busy)
            };
        }
        if let Some(err) = refused {
            (first, all) = (Bytes::new(), BytesMut::new());
            claim.release();
            dropped += chunk.len();
            if DISCARD_MAX_BYTES < dropped {
                return Err(err);
            }
            continue;
        }
        // Most bodies arrive in one chunk, which is used without a copy.
        if first.is_empty() && all.is_empty() {
            first = chunk;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&chunk);
        }
    }
    if let Some(err) = refused {
        return Err(err);
    }
    let bytes = if all.is_empty() { first } else { all.freeze() };
    Ok(Body { bytes, _claim: claim })
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    /// The peer sends a head and no body.
    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_arrives_times_out() {
        let limits = BodyLimits { bytes: 1_000, time: Duration::from_secs(60) };
        let payload: Payload = Payload::Stream { payload: Box::pin(stream::pending()) };
        let begun = tokio::time::Instant::now();
        let received = receive(payload, limits, &InFlight::new(1_000)).await;
        assert_eq!(received.err(), Some(ReceiveError::TooSlow));
        assert!(limits.time <= begun.elapsed());
    }
}
